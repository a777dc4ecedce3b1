"""Goal: what a person asks for is done beside the running daemon.

Method: the simulation's systems and daemon without trouble; requests are left in the hub as commands leave them.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec
from msgspec.structs import replace

from engine.model.table import Kind
from engine.operate import Wish
from engine.testing.scheduler import live
from engine.testing.simulation import Simulation


async def wait_until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(600):
        while not is_so():  # noqa: ASYNC110 - the clock jumps
            await anyio.sleep(1)


def test_a_row_set_aside_at_a_source_is_read_again_beside_the_running_daemon() -> None:
    world = Simulation(1)
    world.faults.quiet()
    crm = world.databases["crm"]
    shape = crm.tables["customers"].shape
    columns = tuple(replace(c, kind=Kind.TEXT, type="text") if c.name == "stock" else c for c in shape.columns)
    crm.alter("customers", replace(shape, columns=columns), lambda row: row)
    tries: list[int] = []

    def parked() -> list[tuple[int, ...]]:
        return list(world.connection.execute("select id, attempts from parked where direction = 'source'"))

    async def main() -> None:
        daemon = await world._start()  # pyright: ignore[reportPrivateUsage]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: daemon.run(with_signals=False))
            with crm.transaction() as transaction:
                transaction.insert("customers", {"id": "a", "email": "a@example.org", "stock": "many"})
            await wait_until(lambda: bool(parked()))
            ((number, attempts),) = parked()
            tries.append(attempts)
            wish = msgspec.msgpack.encode(Wish(action="parked.retry", id=number))
            world.connection.execute(
                "insert into request (at, actor, action, doc) values (0, 'somebody', 'parked.retry', ?)", (wish,)
            )
            await wait_until(lambda: parked()[0][1] > attempts)
            tries.append(parked()[0][1])
            # The lane goes on from where it was.
            with crm.transaction() as transaction:
                transaction.insert("customers", {"id": "b", "email": "b@example.org", "stock": "1"})
            await wait_until(lambda: len(world.databases["fsm"].rows("clients")) == 1)
            tasks.cancel_scope.cancel()

    live(main, seed=1, seconds=5_000, faults=world.faults, clock=world.clock)
    assert tries == [1, 2]
