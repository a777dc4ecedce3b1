"""Goal: two programs that undo each other's writes do not keep all systems busy for ever, and nothing is lost by that.

Method: the simulation's systems and daemon without trouble, and programs that set a field back whenever it is not what
they want. A person finds them by what is parked, ends one and has the record retried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec
import pytest

from engine.operate import Wish
from engine.pipeline import brake
from engine.testing.scheduler import live
from engine.testing.simulation import Simulation


class Programs:
    """A world with one customer, and a program in each of some systems that wants another value of a field."""

    def __init__(self, field: str, wants: dict[str, str]) -> None:
        self.world = Simulation(1)
        self.world.faults.quiet()
        self.field = field
        self.wants = wants
        with self.world.databases["crm"].transaction() as transaction:
            transaction.insert("customers", {"id": "a", "email": "a@example.org", field: "first"})

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """The daemon and the programs, while `work` is at work."""

        async def main() -> None:
            daemon = await self.world._start()  # pyright: ignore[reportPrivateUsage]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: daemon.run(with_signals=False))
                for name in self.wants:
                    tasks.start_soon(self._insist, name)
                await work()
                tasks.cancel_scope.cancel()

        live(main, seed=1, seconds=50_000, faults=self.world.faults, clock=self.world.clock)

    async def _insist(self, name: str) -> None:
        kit, database = self.world.kits[name], self.world.databases[name]
        while True:
            await anyio.sleep(1)
            for row in database.rows(kit.accounts):
                if name in self.wants and row[kit.columns[self.field]] != self.wants[name]:
                    with database.transaction() as transaction:
                        transaction.update(kit.accounts, (row["id"],), {kit.columns[self.field]: self.wants[name]})

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return list(self.world.connection.execute(sql))

    def held(self) -> dict[str, object]:
        kits, databases = self.world.kits, self.world.databases
        return {n: databases[n].rows(kit.accounts)[0][kit.columns[self.field]] for n, kit in kits.items()}

    async def retry(self) -> None:
        for (number,) in self.rows("select id from parked"):
            wish = msgspec.msgpack.encode(Wish(action="parked.retry", id=int(str(number))))
            self.world.connection.execute(
                "insert into request (at, actor, action, doc) values (0, 'somebody', 'parked.retry', ?)", (wish,)
            )
        await anyio.sleep(30)


@pytest.mark.parametrize(
    ("field", "wants", "parked"),
    [("phone", {"crm": "1", "fsm": "2"}, {"crm", "fsm"}), ("name", {"fsm": "mine"}, {"fsm"})],
    ids=["in turn", "against the owner"],
)
def test_a_field_that_goes_to_and_fro_waits_for_a_person(field: str, wants: dict[str, str], parked: set[str]) -> None:
    programs = Programs(field, wants)
    names = "select s.name from parked p join system s on s.id = p.system where reason = 'loop'"
    ends: list[object] = []

    async def work() -> None:
        await anyio.sleep(600)
        assert {name for (name,) in programs.rows(names)} == parked
        ends.extend(programs.rows("select max(seq) from journal"))
        await anyio.sleep(600)
        ends.extend(programs.rows("select max(seq) from journal"))
        # The program is found and ended; what waits is tried again and stays.
        programs.wants.pop("fsm")
        await programs.retry()
        assert programs.rows("select count(*) from parked") == [(0,)]

    programs.run(work)
    assert ends[0] == ends[1], "it goes on"
    held = programs.held()
    assert len(set(held.values())) == 1, held
    assert programs.rows("select 1 from stretch where good is null") == []


def test_without_the_brake_it_would_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake, "LOOPS_MAX", 1 << 30)
    programs = Programs("phone", {"crm": "1", "fsm": "2"})
    ends: list[int] = []

    async def work() -> None:
        for _ in range(2):
            await anyio.sleep(600)
            ends.append(int(str(programs.rows("select max(seq) from journal")[0][0])))

    programs.run(work)
    assert ends[1] > ends[0] + 100


def test_people_who_change_a_field_to_and_fro_are_left_alone() -> None:
    programs = Programs("phone", {})

    async def work() -> None:
        for n in range(40):
            name = ("crm", "fsm")[n % 2]
            programs.wants = {name: str(n % 2)}
            kit, database = programs.world.kits[name], programs.world.databases[name]
            for row in database.rows(kit.accounts):
                with database.transaction() as transaction:
                    transaction.update(kit.accounts, (row["id"],), {kit.columns["phone"]: str(n % 2)})
            await anyio.sleep(60)

    programs.run(work)
    assert programs.rows("select count(*) from parked") == [(0,)]
    assert set(programs.held().values()) == {"1"}
