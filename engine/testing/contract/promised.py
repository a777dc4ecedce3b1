"""What a source says of its promises is so: what it keeps holds, and of what it does not keep the opposite is seen.

`SourceContract` has these tests; nobody else need inherit them.
"""

from __future__ import annotations

import random
import time

import pytest

from engine.model.change import EventKind
from engine.ports import WriteKind
from engine.promises import Promise
from engine.testing.contract import Kit, flat, seen, texts

LARGE = random.Random(1).randbytes(10_000).hex()
"""A text that no database stores in the row itself, nor can make much smaller."""
SECOND = 1_000_000


@pytest.mark.anyio
class PromisedContract:
    async def test_order(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        with kit.unwatched():
            kit.users.transaction("insert into customers values (2, 'first')")
            kit.users.transaction("insert into customers values (1, 'second')")
        keys = [row[0] for _, row in flat(await kit.changes(table), table)]
        assert sorted(map(str, keys)) == ["1", "2"]
        assert (keys == ["2", "1"]) is kit.keeps(Promise.ORDER)

    async def test_every_state(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        with kit.unwatched():
            kit.users.transaction("insert into customers values (1, 'A')")
            kit.users.transaction("update customers set name = 'B' where id = 1")
            kit.users.transaction("update customers set name = 'C' where id = 1")
        names = [row[1] for _, row in flat(await kit.changes(table), table)]
        assert names[-1] == "C"
        assert (names == ["A", "B", "C"]) is kit.keeps(Promise.EVERY_STATE)

    async def test_whole_transactions(self, kit: Kit) -> None:
        one, other = kit.create("customers", "name"), kit.create("sites", "name")
        await kit.setup(one, other)
        with kit.unwatched():
            for n in range(3):
                kit.users.transaction(
                    f"insert into customers values ({n}, 'n')", f"insert into sites values ({n}, 'n')"
                )
        batches = await kit.changes(one, other, rows_max=1)
        counts = [(len(flat(batches[: n + 1], one)), len(flat(batches[: n + 1], other))) for n in range(len(batches))]
        assert counts[-1] == (3, 3)
        halves = [count for batch, count in zip(batches, counts, strict=True) if batch.is_whole and len(set(count)) > 1]
        assert (not halves) is kit.keeps(Promise.WHOLE_TRANSACTIONS)

    async def test_whole_rows(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction(f"insert into customers values (1, 'A', '{LARGE}')")
        kit.users.transaction("update customers set name = 'B' where id = 1")
        changes = flat(await kit.changes(table), table)
        assert changes[0][1] == ("1", "A", LARGE)
        assert changes[-1][1] == ("1", "B", LARGE if kit.keeps(Promise.WHOLE_ROWS) else "(absent)")

    async def test_key_changes(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        kit.users.transaction("update customers set id = 7 where id = 1")
        batches = await kit.changes(table)
        changes = flat(batches, table)
        assert changes[0] == ("I", ("1", "A"))
        old = [
            (texts(rows.rows[index]), texts(old)[0])
            for batch in batches
            for segment in batch.segments
            if (rows := segment.tables.get(table)) is not None
            for index, old in rows.old.items()
        ]
        if kit.keeps(Promise.KEY_CHANGES):
            assert old == [(("7", "A"), "1")]
            assert changes[1:] == [("U", ("7", "A"))]
        else:
            assert old == []
            assert sorted((op, row[0]) for op, row in changes[1:]) == [("D", "1"), ("I", "7")]

    async def test_truncation(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')", "insert into customers values (2, 'B')")
        kit.users.transaction(f"{kit.emptied} {kit.quoted('customers')}")
        batches = await kit.changes(table)
        told = [event.kind for batch in batches for segment in batch.segments for event in segment.events]
        gone = [row[0] for op, row in flat(batches, table) if op == "D"]
        is_kept = kit.keeps(Promise.TRUNCATION)
        assert (told, gone) == (([EventKind.TRUNCATED], []) if is_kept else ([], ["1", "2"]))

    async def test_commit_times(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        began = time.time_ns() // 1000
        with kit.unwatched():
            kit.users.transaction("insert into customers values (1, 'A')")
            ended = time.time_ns() // 1000
        batches = await kit.changes(table)
        ((at, *_),) = [s.tables[table].times for b in batches for s in b.segments if table in s.tables]
        # A log that keeps whole seconds is rounded down.
        assert at > began - SECOND
        assert (at <= ended) is kit.keeps(Promise.COMMIT_TIMES)

    async def test_every_writer(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        before, after = kit.past or ((), ())
        if before:
            kit.users.transaction(*before)
        kit.users.transaction("insert into customers values (1, 'A')")
        if after:
            kit.users.transaction(*after)
        assert bool(flat(await kit.changes(table), table)) is kit.keeps(Promise.EVERY_WRITER)

    async def test_own_writes(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        await kit.deliver_alone(kit.write(WriteKind.INSERT, table, ("id", "name"), ("1", "ours")))
        kit.users.transaction("insert into customers values (2, 'theirs')")
        keys = [row[0] for _, row in flat(await kit.changes(table), table)]
        assert keys == (["2"] if kit.keeps(Promise.OWN_WRITES) else ["1", "2"])

    async def test_seen(self, kit: Kit) -> None:
        """A change that was made before a delivery says so, whenever it is read."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        with kit.unwatched():
            kit.users.transaction("update customers set name = 'before' where id = 1")
            await kit.deliver_alone(kit.write(WriteKind.INSERT, table, ("id", "name"), ("2", "ours")))
        kit.users.transaction("update customers set name = 'after' where id = 1")
        found = seen(await kit.changes(table), table)
        assert found == [("1", None), ("1", None if kit.keeps(Promise.SEEN) else 1), ("1", 1)]
