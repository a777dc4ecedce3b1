"""What a source owes: every committed change once and in order, whole transactions, our own deliveries told apart."""

from __future__ import annotations

import anyio
import pytest

from engine.model.change import EventKind
from engine.ports import WriteKind
from engine.promises import Promise
from engine.testing.contract import SECONDS_MAX, Kit, flat, seen, texts
from engine.testing.contract.promised import PromisedContract

LARGE = 2_500
SEVERAL = (1, 2, 3, 1000)


@pytest.mark.anyio
class SourceContract(PromisedContract):
    """Inherit, and give the fixture `kit`."""

    async def test_changes_come_in_the_order_of_commits(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'Anna', 'x')")
        kit.users.transaction(
            "update customers set name = 'Berta' where id = 1", "insert into customers values (2, 'C', '')"
        )
        kit.users.transaction("delete from customers where id = 1")
        changes = flat(await kit.changes(table), table)
        assert [(op, row[:2]) for op, row in changes[:3]] == [
            ("I", ("1", "Anna")),
            ("U", ("1", "Berta")),
            ("I", ("2", "C")),
        ]
        assert changes[3][0] == "D"
        assert changes[3][1][0] == "1"
        assert len(changes) == 4

    async def test_null_empty_and_odd_texts_are_different_things(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        odd = "Zoë 𝄞 \\ \t%s ''quoted''"
        kit.users.transaction(
            "insert into customers values (1, null, '')", f"insert into customers values (2, 'null', '{odd}')"
        )
        assert flat(await kit.changes(table), table) == [
            ("I", ("1", None, "")),
            ("I", ("2", "null", odd.replace("''", "'"))),
        ]

    async def test_what_was_rolled_back_never_happened(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        with pytest.raises(Exception, match=r"(?i)unique|duplicate|primary"):
            kit.users.transaction("insert into customers values (1, 'A')", "insert into customers values (1, 'B')")
        kit.users.transaction("insert into customers values (2, 'C')")
        assert flat(await kit.changes(table), table) == [("I", ("2", "C"))]

    @pytest.mark.parametrize("rows_max", SEVERAL)
    async def test_the_log_goes_on_behind_any_position(self, kit: Kit, rows_max: int) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        for n in range(1, 13, 3):
            kit.users.transaction(*(f"insert into customers values ({n + m}, 'n{n + m}')" for m in range(3)))
            kit.users.transaction(f"update customers set name = 'again' where id = {n}")
        batches = await kit.changes(table, rows_max=rows_max)
        whole = flat(batches, table)
        assert len(whole) == 16
        for n, batch in enumerate(batches):
            rest = flat(await kit.changes(table, after=batch.position), table)
            assert rest == flat(batches[n + 1 :], table), f"behind batch {n}"

    @pytest.mark.parametrize("rows_max", SEVERAL)
    async def test_every_batch_says_whether_it_is_whole_and_whether_more_is_there(
        self, kit: Kit, rows_max: int
    ) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        for n in range(0, 20, 5):
            kit.users.transaction(*(f"insert into customers values ({n + m}, 'n')" for m in range(5)))
        batches = await kit.changes(table, rows_max=rows_max)
        assert [row[0] for _, row in flat(batches, table)] == [str(n) for n in range(20)]
        assert all(batch.has_more for batch in batches if not batch.is_whole)
        assert batches[-1].is_whole
        assert not batches[-1].has_more
        following = [bool(flat(batches[n + 1 :], table)) for n in range(len(batches))]
        # What ends a transaction may be all that is missing of it.
        assert all(more for batch, more in zip(batches, following, strict=True) if batch.has_more and batch.is_whole)

    async def test_a_large_transaction_comes_in_parts_and_whole(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction(*(f"insert into customers values ({n}, 'n')" for n in range(LARGE)))
        batches = await kit.changes(table, rows_max=300)
        assert [row[0] for _, row in flat(batches, table)] == [str(n) for n in range(LARGE)]
        assert max(batch.rows_read for batch in batches) <= 700
        assert batches[-1].is_whole

    async def test_a_row_deleted_and_entered_again_is_both(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        kit.users.transaction("delete from customers where id = 1", "insert into customers values (1, 'B')")
        changes = flat(await kit.changes(table), table)
        both = [("D", "1"), ("I", "1")] if kit.keeps(Promise.EVERY_STATE) else [("U", "1")]
        assert [(op, row[0]) for op, row in changes] == [("I", "1"), *both]
        assert changes[-1][1] == ("1", "B")

    async def test_our_delivery_is_a_marker_and_no_change(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'before')")
        await kit.deliver_alone(kit.write(WriteKind.INSERT, table, ("id", "name"), ("2", "ours"), ("3", "ours")))
        kit.users.transaction("update customers set name = 'after' where id = 2")
        batches = await kit.changes(table)
        assert flat(batches, table) == [("I", ("1", "before")), ("U", ("2", "after"))]
        assert seen(batches, table) == [("1", None), ("2", 1)]
        assert sum(batch.rows_read - batch.rows_echoed for batch in batches) == 2

    async def test_rows_of_our_delivery_are_shown_where_somebody_verifies(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.feed(table, verify=frozenset((table,))) as feed:
            await kit.deliver_alone(kit.write(WriteKind.INSERT, table, ("id", "name"), ("2", "ours")))
            batches = await kit.drain(feed)
        echoes = [
            (s.seen, texts(row))
            for b in batches
            for s in b.segments
            if table in s.echoes
            for row in s.echoes[table].rows
        ]
        assert echoes == [(1, ("2", "ours"))]
        assert flat(batches, table) == []

    async def test_tables_that_take_no_part_are_passed_over(self, kit: Kit) -> None:
        table, other = kit.create("customers", "name"), kit.create("secrets", "name")
        await kit.setup(table)
        kit.users.transaction("insert into secrets values (1, 's')", "insert into customers values (1, 'A')")
        batches = await kit.changes(table)
        assert flat(batches, table) == [("I", ("1", "A"))]
        assert flat(batches, other) == []

    async def test_more_that_is_there_comes_at_once_though_it_is_nothing(self, kit: Kit) -> None:
        """Whoever is told of more holds back what it has: it must not wait for somebody to write."""
        table = kit.create("customers", "name")
        kit.create("secrets", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')", "insert into customers values (2, 'B')")
        kit.users.transaction("insert into secrets values (1, 's')")
        async with kit.feed(table) as feed:
            began, batch = anyio.current_time(), await feed.receive(2)
            while batch.has_more:
                batch = await feed.receive(2)
            assert anyio.current_time() - began < SECONDS_MAX / 2

    async def test_an_added_column_is_told_and_loses_nothing(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.feed(table) as feed:
            kit.users.transaction("insert into customers values (1, 'A')")
            batches = await kit.drain(feed)
            kit.users.transaction(f"alter table customers add column note {kit.text}")
            # Where capture has to be told of the new column, somebody does.
            await kit.setup(table)
            kit.users.transaction("insert into customers values (2, 'B', 'new')")
            batches += await kit.drain(feed)
        changes = flat(batches, table)
        assert [row[:2] for _, row in changes] == [("1", "A"), ("2", "B")]
        assert changes[1][1] == ("2", "B", "new")
        kinds = [event.kind for batch in batches for segment in batch.segments for event in segment.events]
        assert set(kinds) == {EventKind.RESHAPED}
