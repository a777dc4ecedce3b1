"""Memory databases keep the contract of the ports.

Goal: what the simulation stands on behaves as `engine.ports` says, in its kind and in its unkind ways.
Method: small histories in one database; everything is read back through the ports, on a clock that jumps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio
import pytest

from engine.errors import Fenced, PositionLost, RowRefused, SourceUnready, SystemUnreachable, TargetBusy, TargetUnready
from engine.model.change import DELETE, INSERT, UPDATE, Chunk, EventKind
from engine.model.position import WHOLE, Position
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.ports import Assigned, Feed, Role, Source, System, TableWrite, Target, TargetSession, WriteKind, WriteResult
from engine.testing.faults import Commit, Faults, Rates
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import MemorySource
from engine.testing.memory_system import MemorySystem
from engine.testing.memory_target import MemorySession, MemoryTarget
from engine.testing.memory_transaction import ForeignKey, LoggedChange
from tests.simulation.memory_world import (
    NOBODY,
    customers,
    database,
    delete,
    insert,
    jobs,
    names,
    read_log,
    rows_of,
    run,
    update,
)


def test_memory_systems_are_what_the_ports_ask_for() -> None:
    found = database()
    system: System = MemorySystem(found)
    source: Source = MemorySource(found)
    target: Target = MemoryTarget(found)
    assert all((system, source, target))


def test_a_users_transaction_is_logged_in_commit_order_with_its_rows() -> None:
    found = database()
    with found.transaction() as tx:
        key = tx.insert("customers", {"name": "Alder"})
        tx.update("customers", key, {"email": "a@example.com"})
    with found.transaction() as tx:
        tx.delete("customers", key)
    (rows,) = rows_of(read_log(found), "customers")
    assert bytes(rows.ops) == bytes((INSERT, UPDATE, DELETE))
    assert [row[2] for row in rows.rows] == [None, "a@example.com", "a@example.com"]
    assert rows.times == sorted(rows.times)


def test_a_transaction_that_fails_leaves_nothing() -> None:
    found = database()
    with pytest.raises(RowRefused), found.transaction() as tx:  # noqa: PT012
        tx.insert("customers", {"name": "Alder"})
        tx.insert("jobs", {"id": "j1", "customer": "99"})
    assert not found.rows("customers")
    assert not read_log(found)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": None}, "not_null"),
        ({"name": "Birch", "email": "a@example.com"}, "unique"),
        ({"id": "1", "name": "Birch"}, "unique"),
        ({"name": "a name that is longer than the column"}, "value"),
        ({"id": "one", "name": "Birch"}, "value"),
    ],
)
def test_constraints_refuse_and_the_transaction_goes_on(values: dict[str, str | None], reason: str) -> None:
    found = database()
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder", "email": "a@example.com"})
        with pytest.raises(RowRefused) as refused:
            tx.insert("customers", values)
    assert refused.value.reason == reason
    assert not any(str(value) in str(refused.value) for value in values.values() if value and len(value) > 3)
    assert len(found.rows("customers")) == 1


def test_references_hold_in_both_directions() -> None:
    found = database()
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder"})
        tx.insert("jobs", {"id": "j1", "customer": "1"})
        with pytest.raises(RowRefused) as refused:
            tx.delete("customers", "1")
        assert refused.value.reason == "foreign_key"
        with pytest.raises(RowRefused):
            tx.update("customers", "1", {"id": "2"})
        with pytest.raises(RowRefused):
            tx.update("jobs", "j1", {"customer": "7"})
        tx.delete("jobs", "j1")
        assert tx.delete("customers", "1")


def test_a_changed_key_comes_with_the_old_row() -> None:
    found = database()
    found.tables["customers"].has_full_images = False
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder"})
        tx.update("customers", "1", {"id": "8"})
        tx.update("customers", "8", {"name": "Birch"})
        tx.delete("customers", "8")
    (rows,) = rows_of(read_log(found), "customers")
    assert rows.old == {1: ("1", ABSENT, ABSENT)}
    assert [row[0] for row in rows.rows] == ["1", "8", "8", "8"]
    assert rows.rows[3] == ("8", ABSENT, ABSENT)


def test_a_toasted_column_is_absent_where_an_update_left_it() -> None:
    found = MemoryDatabase("crm")
    found.beginning = found.head
    found.create_table(customers(), toasted=["email"])
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder", "email": "a@example.com"})
        tx.update("customers", "1", {"name": "Birch"})
        tx.update("customers", "1", {"email": "b@example.com"})
    (rows,) = rows_of(read_log(found), "customers")
    assert [row[2] for row in rows.rows] == ["a@example.com", ABSENT, "b@example.com"]


@pytest.mark.parametrize("rows_max", [1, 2, 3, 5, 100])
def test_any_cut_of_the_log_gives_the_same_rows_and_resumes_behind_itself(rows_max: int) -> None:
    found = database()
    for size in (1, 4, 1, 7, 2):
        with found.transaction() as tx:
            for _ in range(size):
                tx.insert("customers", {"name": f"customer {len(found.rows('customers'))}"})
    batches = read_log(found, rows_max=rows_max)
    wanted = names(read_log(found))
    assert names(batches) == wanted
    assert all(batch.rows_read <= rows_max for batch in batches)
    assert [b.is_whole for b in batches] == [b.position.order[1] == WHOLE for b in batches]
    positions = [batch.position for batch in batches]
    assert all(a < b for a, b in itertools.pairwise(positions))
    for n, batch in enumerate(batches):
        assert names(batches[: n + 1]) + names(read_log(found, batch.position)) == wanted


def test_small_transactions_share_a_batch_and_are_not_interleaved() -> None:
    found = database()
    for n in range(6):
        with found.transaction() as tx:
            tx.insert("customers", {"name": f"customer {n}"})
            tx.insert("jobs", {"id": f"j{n}", "customer": str(n + 1)})
    sizes = [batch.rows_read for batch in read_log(found, rows_max=5)]
    assert sizes == [4, 4, 4]


def test_transactions_of_other_tables_only_move_the_position_about_once_a_second() -> None:
    found = database()

    async def watch() -> list[float]:
        moments: list[float] = []
        async with MemorySource(found).feed(None, ["jobs"], NOBODY) as feed, anyio.create_task_group() as tasks:

            async def edit() -> None:
                for n in range(50):
                    with found.transaction() as tx:
                        tx.insert("customers", {"name": f"customer {n}"})
                    await anyio.sleep(0.1)
                await anyio.sleep(5)
                tasks.cancel_scope.cancel()

            tasks.start_soon(edit)
            while True:
                batch = await feed.receive(100)
                assert not batch.segments
                moments.append(anyio.current_time())
        return moments

    moments = run(watch)
    assert 5 <= len(moments) <= 7
    assert all(b - a >= 0.99 for a, b in itertools.pairwise(moments))


def test_a_waiting_feed_wakes_on_a_commit_and_cancelling_it_loses_nothing() -> None:
    found = database()

    async def watch() -> object:
        async with MemorySource(found).feed(None, ["customers"], NOBODY) as feed:
            with anyio.move_on_after(1) as scope:
                await feed.receive(10)
            assert scope.cancelled_caught
            assert not found.watchers
            async with anyio.create_task_group() as tasks:

                async def edit() -> None:
                    await anyio.sleep(3)
                    with found.transaction() as tx:
                        tx.insert("customers", {"name": "Alder"})

                tasks.start_soon(edit)
                return names([await feed.receive(10)])

    assert run(watch) == ["Alder"]


def test_a_change_of_shape_and_a_truncation_start_a_segment() -> None:
    found = database()
    wider = Shape(
        name="customers",
        form=Form.TEXT,
        key=("id",),
        columns=(*customers().columns, Column(name="phone", kind=Kind.TEXT, type="text")),
    )
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder"})
    found.alter("customers", wider, lambda row: {**row, "phone": "1"})
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Birch", "phone": "2"})
        tx.truncate("jobs")
        tx.insert("customers", {"name": "Cedar"})
    (batch,) = read_log(found)
    assert [[event.kind for event in s.events] for s in batch.segments] == [
        [],
        [EventKind.RESHAPED],
        [EventKind.TRUNCATED],
    ]
    assert [s.tables["customers"].rows for s in batch.segments] == [
        [("1", "Alder", None)],
        [("2", "Birch", None, "2")],
        [("3", "Cedar", None, None)],
    ]
    assert batch.segments[1].events[0].shape == wider


def test_confirmed_log_is_forgotten_and_what_stands_before_it_is_lost() -> None:
    found = database()
    for n in range(3):
        with found.transaction() as tx:
            tx.insert("customers", {"name": f"customer {n}"})
    first = read_log(found, rows_max=1)[0].position

    async def confirm() -> None:
        async with MemorySource(found).feed(first, ["customers"], NOBODY) as feed:
            feed.confirm(first)
            assert found.confirmed is None
            await feed.receive(10)
            assert found.confirmed == first

    run(confirm)
    assert found.forget_confirmed() == 1
    assert names(read_log(found, first)) == ["customer 1", "customer 2"]
    with pytest.raises(PositionLost):
        read_log(found, Position((0, WHOLE)))
    found.lose_log()
    with pytest.raises(PositionLost):
        read_log(found, first)
    assert read_log(found, found.head) == []


def test_a_transaction_confirmed_in_part_is_kept() -> None:
    found = database()
    with found.transaction() as tx:
        for n in range(4):
            tx.insert("customers", {"name": f"customer {n}"})
    first = read_log(found, rows_max=2)[0]
    found.confirm(first.position)
    assert found.forget_confirmed() == 0
    assert names(read_log(found, first.position)) == ["customer 2", "customer 3"]


def test_an_echo_is_a_marker_and_counted_and_shown_only_to_who_verifies() -> None:
    found = database()
    found.tables["customers"].store = lambda row: (row[0], str(row[1]).strip(), row[2])

    async def main() -> None:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            async with session.delivery(7) as delivery:
                await delivery.write(insert([("1", " Alder ", None), ("2", "Birch", None)], [11, 12]))
        with found.transaction() as tx:
            tx.update("customers", "1", {"email": "a@example.com"})

    run(main)
    (batch,) = read_log(found)
    assert [s.seen for s in batch.segments] == [0, 7]
    assert batch.segments[1].tables["customers"].rows == [("1", "Alder", "a@example.com")]
    assert not batch.segments[1].echoes
    assert (batch.rows_read, batch.rows_echoed) == (3, 2)
    (batch,) = read_log(found, verify=frozenset({"customers"}))
    assert batch.segments[1].echoes["customers"].rows == [("1", "Alder", None), ("2", "Birch", None)]
    parts = read_log(found, rows_max=1, verify=frozenset({"customers"}))
    assert [s.seen for batch in parts for s in batch.segments] == [0, 7, 7, None]


def test_pages_go_through_a_table_in_key_order() -> None:
    found = database()
    with found.transaction() as tx:
        for n in (10, 9, 100, 1, 2):
            tx.insert("customers", {"id": str(n), "name": f"customer {n}"})

    async def read() -> list[object]:
        keys: list[object] = []
        after: tuple[str, ...] | None = None
        while True:
            page = await MemorySystem(found).page("customers", after, 2)
            keys.extend(row[0] for row in page.rows)
            after = page.last_key
            if after is None:
                return keys

    assert run(read) == ["1", "2", "9", "10", "100"]


def test_native_values_are_numbers_and_keys_count_up_past_those_of_users() -> None:
    found = database(Form.NATIVE)

    async def main() -> tuple[str, ...]:
        with found.transaction() as tx:
            tx.insert("customers", {"id": 2, "name": "Alder"})
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            async with session.delivery(1) as delivery:
                result = await delivery.write(insert([("Birch", None), ("Cedar", None)], [11, 12], assigned=True))
            return result.keys

    assert run(main) == ("1", "3")
    assert [row["id"] for row in found.rows("customers")] == [1, 2, 3]


def test_a_chunk_is_what_its_low_and_high_promise() -> None:
    """Rows of the chunk, changed by what the feed reports behind `low`, are the table behind `high`."""
    for seed in range(60):
        found = database()
        faults = Faults(rates=Rates(stale=0.5, delay=0.7, delay_seconds_max=10, cut=0.5))
        faults.rng.seed(seed)
        run(lambda found=found, faults=faults: _check_chunk(found, faults))


async def _check_chunk(found: MemoryDatabase, faults: Faults) -> None:
    rng = faults.rng

    async def edit() -> None:
        for _ in range(30):
            await anyio.sleep(rng.random() * 3)
            with found.transaction() as tx:
                key = str(rng.randrange(1, 6))
                if tx.row("customers", key) is None:
                    tx.insert("customers", {"id": key, "name": f"name {rng.random():.6f}"})
                elif rng.random() < 0.3:
                    tx.delete("customers", key)
                else:
                    tx.update("customers", key, {"name": f"name {rng.random():.6f}"})

    async with (
        MemorySource(found, faults).feed(None, ["customers"], NOBODY) as feed,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(edit)
        await anyio.sleep(rng.random() * 30)
        with anyio.move_on_after(rng.random() * 20):
            while True:
                await feed.receive(rng.randrange(1, 9))
        _check_promises(found, await feed.chunk("customers", None, 100))


def _check_promises(found: MemoryDatabase, chunk: Chunk) -> None:
    assert chunk.low <= chunk.high
    rows: dict[Wire, WireRow] = {row[0]: row for row in chunk.page.rows}
    for transaction in found.log_behind(chunk.low):
        for change in transaction.changes if transaction.number <= chunk.high.order[0] else ():
            assert isinstance(change, LoggedChange)
            if change.before is not None:
                rows.pop(change.before[0], None)
            if change.after is not None:
                rows[change.after[0]] = change.after
    assert rows == {key[0]: row for key, row in found.rows_as_of("customers", chunk.high.order[0]).items()}


async def _delivered(
    found: MemoryDatabase, seq: int, *writes: TableWrite, faults: Faults | None = None
) -> list[WriteResult]:
    async with MemoryTarget(found, faults).open(["customers"]) as session:
        await session.claim("hub", 1)
        async with session.delivery(seq) as delivery:
            return [await delivery.write(write) for write in writes]


def test_writes_insert_or_update_report_what_is_missing_and_delete_what_is_there() -> None:
    found = database()
    results = run(
        lambda: _delivered(
            found,
            1,
            insert([("1", "Alder", None), ("2", "Birch", None)], [11, 12]),
            insert([("2", "Beech", None)], [12]),
            update([("1", "Ash"), ("3", "Cedar")], [11, 13]),
            delete([("2",), ("9",)], [12, 19]),
        )
    )
    assert [result.missing for result in results] == [(), (), (1,), ()]
    assert found.rows("customers") == [{"id": "1", "name": "Ash", "email": None}]


def test_a_refused_write_leaves_nothing_of_itself_and_the_delivery_usable() -> None:
    found = database()

    async def main() -> RowRefused:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            async with session.delivery(1) as delivery:
                await delivery.write(insert([("1", "Alder", "a@example.com")], [11]))
                with pytest.raises(RowRefused) as refused:
                    await delivery.write(insert([("2", "Birch", None), ("3", "Cedar", "a@example.com")], [12, 13]))
                await delivery.write(insert([("2", "Birch", None)], [12]))
        return refused.value

    refused = run(main)
    assert (refused.row_index, refused.reason) == (1, "unique")
    assert [row["id"] for row in found.rows("customers")] == ["1", "2"]


def test_an_exception_in_the_block_rolls_the_delivery_back() -> None:
    found = database()

    async def main() -> None:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            with pytest.raises(LookupError):  # noqa: PT012
                async with session.delivery(1) as delivery:
                    await delivery.write(insert([("1", "Alder", None)], [11]))
                    raise LookupError
            assert await session.claim("hub", 1) == 0

    run(main)
    assert not found.rows("customers")
    assert found.marker is not None
    assert found.marker.seq == 0


def test_users_edit_while_a_delivery_is_open_and_neither_edit_is_lost() -> None:
    found = database()
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder"})

    async def main() -> None:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            async with session.delivery(1) as delivery:
                await delivery.write(update([("1", "Ash")], [11]))
                with found.transaction() as tx:
                    tx.update("customers", "1", {"email": "a@example.com"})

    run(main)
    assert found.rows("customers") == [{"id": "1", "name": "Ash", "email": "a@example.com"}]


def test_a_delivery_whose_answers_no_longer_hold_is_busy_and_writes_nothing() -> None:
    found = database()
    with found.transaction() as tx:
        tx.insert("customers", {"name": "Alder"})

    async def main() -> None:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            with pytest.raises(TargetBusy):  # noqa: PT012
                async with session.delivery(1) as delivery:
                    await delivery.write(insert([("Birch", None)], [12], assigned=True))
                    await delivery.write(update([("1", "Ash")], [11]))
                    with found.transaction() as tx:
                        tx.delete("customers", "1")
            assert await session.assigned(0) == ()
            assert await session.claim("hub", 1) == 0

    run(main)
    assert not found.rows("customers")


def test_assigned_keys_are_remembered_with_their_delivery() -> None:
    found = database()

    async def main() -> tuple[Assigned, ...]:
        async with MemoryTarget(found).open(["customers"]) as session:
            await session.claim("hub", 1)
            for seq in (3, 8):
                async with session.delivery(seq) as delivery:
                    result = await delivery.write(insert([(f"customer {seq}", None)], [seq * 10], assigned=True))
                    assert len(result.keys) == 1
            return await session.assigned(3)

    assert run(main) == (Assigned(rid=80, place="customers", key="2", seq=8),)


def test_a_later_epoch_fences_and_another_hub_is_turned_away() -> None:
    found = database()

    async def main() -> None:
        target = MemoryTarget(found)
        async with target.open(["customers"]) as old, target.open(["customers"]) as new:
            assert await old.claim("hub", 1) == 0
            async with old.delivery(4) as delivery:
                await delivery.write(insert([("1", "Alder", None)], [11]))
            with pytest.raises(Fenced):  # noqa: PT012
                async with old.delivery(5) as delivery:
                    await delivery.write(update([("1", "Ash")], [11]))
                    assert await new.claim("hub", 2) == 4
            with pytest.raises(Fenced):
                await _open_delivery(old, 5)
            with pytest.raises(Fenced):
                await old.claim("hub", 1)
            with pytest.raises(TargetUnready):
                await new.claim("another hub", 3)

    run(main)
    assert found.rows("customers") == [{"id": "1", "name": "Alder", "email": None}]


async def _open_delivery(session: TargetSession, seq: int) -> None:
    async with session.delivery(seq):
        pass


@pytest.mark.parametrize(("fate", "seq"), [(Commit.LOST, 0), (Commit.UNHEARD, 1)])
def test_a_commit_without_an_answer_either_happened_or_did_not(fate: Commit, seq: int) -> None:
    found = database()
    faults = Faults(rates=Rates(lost=1.0) if fate is Commit.LOST else Rates(unheard=1.0))

    async def main() -> int:
        target = MemoryTarget(found, faults)
        async with target.open(["customers"]) as session:
            await session.claim("hub", 1)
            with pytest.raises(SystemUnreachable):
                async with session.delivery(1) as delivery:
                    await delivery.write(insert([("1", "Alder", None)], [11]))
            with pytest.raises(SystemUnreachable):
                await session.claim("hub", 1)
        async with target.open(["customers"]) as session:
            return await session.claim("hub", 1)

    assert run(main) == seq
    assert len(found.rows("customers")) == seq


def test_what_is_not_set_up_says_so() -> None:
    found = MemoryDatabase("crm")
    found.create_table(jobs())
    system = MemorySystem(found)
    both = Role.SOURCE | Role.TARGET

    async def main() -> None:
        with pytest.raises(SourceUnready):
            await _open_feed(MemorySource(found))
        with pytest.raises(TargetUnready):
            await _delivered(found, 1)
        planned = await system.plan(["jobs"], both)
        assert len(planned) == 2
        assert {finding.sql for finding in await system.check(["jobs"], both)} == {step.sql for step in planned}
        assert await system.setup(["jobs"], both) == planned
        assert await system.setup(["jobs"], both) == ()
        assert [finding.path for finding in await system.check(["jobs", "stock"], both)] == ["stock"]
        assert await system.shapes(["jobs", "stock"]) == {"jobs": jobs()}
        await _open_feed(MemorySource(found))
        assert (await system.health()).head == found.head
        assert len(await system.teardown()) == 2
        assert await system.teardown() == ()

    run(main)


async def _open_feed(source: MemorySource) -> Feed:
    async with source.feed(None, ["jobs"], NOBODY) as feed:
        return feed


def test_a_write_that_refers_within_itself_needs_no_order() -> None:
    shape = Shape(
        name="sites",
        form=Form.TEXT,
        key=("id",),
        columns=(
            Column(name="id", kind=Kind.TEXT, type="text"),
            Column(name="parent", kind=Kind.TEXT, type="text"),
        ),
    )
    found = database()
    found.create_table(shape, foreign_keys=[ForeignKey(columns=("parent",), table="sites")])

    def sites(*rows: tuple[str, str | None]) -> TableWrite:
        return TableWrite(
            table="sites", place="sites", kind=WriteKind.INSERT, columns=("id", "parent"), key=("id",),
            rows=list(rows), rids=list(range(len(rows))),
        )  # fmt: skip

    async def main() -> RowRefused:
        async with MemoryTarget(found).open(["sites"]) as session:
            await session.claim("hub", 1)
            async with session.delivery(1) as delivery:
                await delivery.write(sites(("b", "a"), ("a", None)))
                with pytest.raises(RowRefused) as refused:
                    await delivery.write(sites(("c", "a"), ("d", "x")))
        return refused.value

    refused = run(main)
    assert (refused.row_index, refused.reason) == (1, "foreign_key")
    assert [row["id"] for row in found.rows("sites")] == ["a", "b"]


def _down(faults: Faults) -> None:
    faults.take_down("crm")


def _read_only(faults: Faults) -> None:
    faults.make_read_only("crm")


def _refusing(faults: Faults) -> None:
    faults.refuse("crm", [11])


@pytest.mark.parametrize(
    ("trouble", "error"), [(_down, SystemUnreachable), (_read_only, TargetBusy), (_refusing, RowRefused)]
)
def test_declared_trouble_lasts_until_it_is_ended(trouble: Callable[[Faults], None], error: type[Exception]) -> None:
    found = database()
    faults = Faults()
    trouble(faults)
    for _ in range(2):
        with pytest.raises(error):
            run(lambda: _delivered(found, 1, insert([("1", "Alder", None)], [11]), faults=faults))
    faults.quiet()
    run(lambda: _delivered(found, 1, insert([("1", "Alder", None)], [11]), faults=faults))
    assert len(found.rows("customers")) == 1


def test_a_session_that_lost_its_connection_stays_lost() -> None:
    found = database()
    faults = Faults()

    async def main() -> None:
        async with MemoryTarget(found, faults).open(["customers"]) as session:
            assert isinstance(session, MemorySession)
            faults.take_down("crm")
            with pytest.raises(SystemUnreachable):
                await session.claim("hub", 1)
            faults.bring_back("crm")
            with pytest.raises(SystemUnreachable):
                await session.claim("hub", 1)

    run(main)
