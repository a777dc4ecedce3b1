"""What a target owes: a delivery with its marker or nothing, repeated without harm; refusals that hold nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from engine.errors import Fenced, RowRefused, TargetUnready
from engine.model.draw import Series
from engine.ports import Assigned, JoiningDelivery, TableWrite, WriteKind
from engine.promises import Promise
from engine.testing.contract import EPOCH, HUB, Kit, texts

INSERT, UPDATE, DELETE = WriteKind.INSERT, WriteKind.UPDATE, WriteKind.DELETE
COLUMNS = ("id", "name")
MANY = 3_000


@pytest.mark.anyio
class TargetContract:
    """Inherit, and give the fixture `kit`."""

    async def test_a_delivery_is_there_with_its_marker(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        await kit.deliver_alone(kit.write(INSERT, table, COLUMNS, ("1", "Anna"), ("2", None), ("3", "")))
        assert _rows(kit) == [(1, "Anna"), (2, None), (3, "")]
        async with kit.session(table) as session:
            assert await session.claim(HUB, EPOCH) == 1

    async def test_a_delivery_that_fails_leaves_neither_rows_nor_marker(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.session(table) as session:
            with suppress(ZeroDivisionError):
                async with session.delivery(1) as delivery:
                    await delivery.write(kit.write(INSERT, table, COLUMNS, ("1", "Anna")))
                    raise ZeroDivisionError
            assert _rows(kit) == []
            assert await session.claim(HUB, EPOCH) == 0

    async def test_a_repeated_delivery_changes_nothing(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        write = kit.write(INSERT, table, COLUMNS, ("1", "Anna"), ("2", "Berta"))
        for _ in range(2):
            await kit.deliver_alone(write)
        assert _rows(kit) == [(1, "Anna"), (2, "Berta")]

    async def test_rows_that_exist_and_rows_that_do_not_go_in_one_write(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'old', 'kept')")
        await kit.deliver_alone(kit.write(INSERT, table, COLUMNS, ("1", "new"), ("2", "Berta")))
        assert _rows(kit) == [(1, "new", "kept"), (2, "Berta", None)]

    async def test_a_row_that_exists_keeps_what_is_for_new_rows_alone(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "state")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'old', 'in work')")
        columns = ("id", "state", "name")
        write = kit.write(INSERT, table, columns, ("1", "new", "Anna"), ("2", "new", "Berta"))
        await kit.deliver_alone(replace(write, only_new=frozenset(("state",))))
        assert _rows(kit) == [(1, "Anna", "in work"), (2, "Berta", "new")]
        # Nothing but the key is left to write.
        await kit.deliver_alone(replace(write, only_new=frozenset(("state", "name"))))
        assert _rows(kit) == [(1, "Anna", "in work"), (2, "Berta", "new")]

    async def test_an_update_says_which_rows_are_missing(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'same')", "insert into customers values (3, 'C')")
        write = kit.write(UPDATE, table, COLUMNS, ("1", "same"), ("2", "B"), ("3", "Carla"), ("4", "D"))
        (result,) = await kit.deliver_alone(write)
        assert result.missing == (1, 3)
        assert _rows(kit) == [(1, "same"), (3, "Carla")]

    async def test_deleting_what_is_gone_is_fine(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')", "insert into customers values (2, 'B')")
        await kit.deliver_alone(kit.write(DELETE, table, ("id",), ("1",), ("9",)))
        assert _rows(kit) == [(2, "B")]

    async def test_many_rows_are_written_as_one(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        await kit.deliver_alone(kit.write(INSERT, table, COLUMNS, *((str(n), f"n{n}") for n in range(MANY))))
        again = kit.write(UPDATE, table, COLUMNS, *((str(n), f"again {n}") for n in range(MANY)))
        (result,) = await kit.deliver_alone(again)
        assert result.missing == ()
        assert _rows(kit) == [(n, f"again {n}") for n in range(MANY)]

    async def test_a_refused_row_leaves_the_delivery_usable_and_holds_nothing(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction(
            f"create unique index by_note on customers (note{_prefix(kit)})",
            "insert into customers values (1, 'A', 'taken')",
        )
        columns = ("id", "name", "note")
        async with kit.session(table) as session:
            async with session.delivery(1) as delivery:
                await delivery.write(kit.write(INSERT, table, columns, ("2", "B", "free")))
                with pytest.raises(RowRefused) as refused:
                    await delivery.write(kit.write(INSERT, table, columns, ("3", "C", "own"), ("4", "D", "taken")))
                await delivery.write(kit.write(INSERT, table, columns, ("5", "E", "too")))
            assert await session.claim(HUB, EPOCH) == 1
        assert [row[0] for row in _rows(kit)] == [1, 2, 5]
        said = str(refused.value)
        assert "customers" in said
        assert "taken" not in said, "an error never holds a value"
        assert refused.value.hint

    async def test_a_delivery_finds_rows_by_what_links_them_and_what_it_has_written_itself(self, kit: Kit) -> None:
        if not kit.keeps(Promise.JOINS):
            pytest.skip("its deliveries are asked nothing")
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction(
            "insert into customers values (1, 'A', 'x')", "insert into customers values (2, 'A', null)",
            "insert into customers values (3, 'a', 'y')", "insert into customers values (4, null, 'z')",
        )  # fmt: skip
        async with kit.session(table) as session, session.delivery(1) as opened:
            delivery = cast("JoiningDelivery", opened)
            shape = await kit.shape(table)
            await delivery.write(kit.write(INSERT, table, ("id", "name", "note"), ("5", "A", "ours")))
            wanted = frozenset(("id", "name"))
            found = await delivery.linked(shape, wanted, ("name",), [("A",), ("it's \\ none",)])
            assert sorted(texts(row) for row in found) == [(n, "A", "(absent)") for n in ("1", "2", "5")]
            by_key = kit.write(DELETE, table, ("id",), ("3",), ("9",))
            found = await delivery.linked(shape, frozenset(("note",)), ("id",), list(by_key.rows))
            assert [texts(row) for row in found] == [("(absent)", "(absent)", "y")]
            assert await delivery.linked(shape, wanted, ("name",), []) == []

    async def test_a_unit_with_a_refused_row_holds_nothing_and_the_delivery_goes_on(self, kit: Kit) -> None:
        if not kit.keeps(Promise.JOINS):
            pytest.skip("its deliveries have no units")
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction(
            f"create unique index by_note on customers (note{_prefix(kit)})",
            "insert into customers values (1, 'A', 'taken')",
        )
        columns = ("id", "name", "note")
        async with kit.session(table) as session, session.delivery(1) as opened:
            delivery = cast("JoiningDelivery", opened)
            await delivery.write(kit.write(INSERT, table, columns, ("2", "B", "before")))
            with pytest.raises(RowRefused):
                await _write_unit(
                    delivery,
                    kit.write(INSERT, table, columns, ("3", "C", "inside")),
                    kit.write(UPDATE, table, ("id", "name"), ("1", "changed")),
                    kit.write(INSERT, table, columns, ("4", "D", "taken")),
                )
            await delivery.write(kit.write(INSERT, table, columns, ("5", "E", "between")))
            async with delivery.unit():
                await delivery.write(kit.write(INSERT, table, columns, ("6", "F", "inside")))
                with pytest.raises(RowRefused):
                    await delivery.write(kit.write(INSERT, table, columns, ("7", "G", "taken")))
            await delivery.write(kit.write(INSERT, table, columns, ("8", "H", "after")))
        assert _rows(kit) == [
            (1, "A", "taken"), (2, "B", "before"), (5, "E", "between"), (6, "F", "inside"), (8, "H", "after")
        ]  # fmt: skip

    async def test_keys_are_drawn_from_the_applications_counter_and_given_once(self, kit: Kit) -> None:
        if not kit.keeps(Promise.DRAWN_KEYS):
            pytest.skip("it draws no keys")
        table = kit.named("orders", "name")
        await kit.setup(table)
        kit.users.transaction(
            f"create table series (name {kit.text_key} primary key, current {kit.integer})",
            "insert into series values ('other-', 7)",
        )
        series = Series(
            before="WO-{year}-", digits=4, table=kit.schema + "series", name_column="name", number_column="current",
            zone=ZoneInfo("UTC"),
        )  # fmt: skip
        write = replace(kit.write(INSERT, table, ("name",), ("A",), ("B",), assigned=True), draw=series)
        (result,) = await kit.deliver_alone(write)
        year = series.text(datetime.now(UTC))
        assert result.keys == (f"{year}0001", f"{year}0002")
        # The application draws the next one, and we the one behind it; what was delivered before keeps its key.
        kit.users.transaction("update series set current = current + 1 where name <> 'other-'")
        again = kit.write(INSERT, table, ("name",), ("A2",), ("B2",), ("C",), assigned=True)
        (result,) = await kit.deliver_alone(replace(again, draw=series))
        assert result.keys == (f"{year}0001", f"{year}0002", f"{year}0004")
        rows = kit.users.rows("select id, name from orders order by id")
        assert [tuple(map(str, row)) for row in rows] == list(zip(result.keys, ("A2", "B2", "C"), strict=True))
        assert [int(n) for (n,) in kit.users.rows("select current from series order by current")] == [4, 7]
        async with kit.session(table) as session:
            assert sorted(found.key for found in await session.assigned(0)) == sorted(result.keys)

    async def test_a_drawn_key_that_a_users_row_has_is_refused_and_the_row_stays(self, kit: Kit) -> None:
        if not kit.keeps(Promise.DRAWN_KEYS):
            pytest.skip("it draws no keys")
        table = kit.named("orders", "name")
        await kit.setup(table)
        kit.users.transaction(
            f"create table series (name {kit.text_key} primary key, current {kit.integer})",
            "insert into series values ('WO-', 0)",
            "insert into orders values ('WO-1', 'a user entered it by hand')",
        )
        series = Series(
            before="WO-", digits=1, table=kit.schema + "series", name_column="name", number_column="current",
            zone=ZoneInfo("UTC"),
        )  # fmt: skip
        write = replace(kit.write(INSERT, table, ("name",), ("ours",), assigned=True), draw=series)
        async with kit.session(table) as session, session.delivery(1) as delivery:
            with pytest.raises(RowRefused) as refused:
                await delivery.write(write)
        assert refused.value.reason == "unique"
        assert kit.users.rows("select name from orders") == [("a user entered it by hand",)]
        assert [int(n) for (n,) in kit.users.rows("select current from series")] == [0]

    async def test_a_counter_that_is_not_there_is_told_and_draws_nothing(self, kit: Kit) -> None:
        if not kit.keeps(Promise.DRAWN_KEYS):
            pytest.skip("it draws no keys")
        table = kit.named("orders", "name")
        await kit.setup(table)
        series = Series(
            before="WO-", digits=1, table=kit.schema + "nowhere", name_column="name", number_column="current",
            zone=ZoneInfo("UTC"),
        )  # fmt: skip
        write = replace(kit.write(INSERT, table, ("name",), ("A",), assigned=True), draw=series)
        with pytest.raises(RowRefused) as refused:
            await kit.deliver_alone(write)
        assert "nowhere" in str(refused.value)
        assert refused.value.reason in ("table", "permission")

    async def test_an_older_daemon_is_shut_out(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.session(table) as session:
            async with kit.session(table, epoch=EPOCH + 1):
                pass
            with pytest.raises(Fenced):
                async with session.delivery(1) as delivery:
                    await delivery.write(kit.write(INSERT, table, COLUMNS, ("1", "late")))
        assert _rows(kit) == []
        with pytest.raises(Fenced):
            async with kit.session(table, epoch=EPOCH):
                pass

    async def test_keys_that_the_database_hands_out_come_back_and_are_kept(self, kit: Kit) -> None:
        table = kit.create("customers", "name", assigned=True)
        await kit.setup(table)
        write = kit.write(INSERT, table, ("name",), ("Anna",), ("Berta",), assigned=True)
        if not kit.keeps(Promise.ASSIGNED_KEYS):
            with pytest.raises((RowRefused, TargetUnready)):
                await kit.deliver_alone(write)
            return
        (result,) = await kit.deliver_alone(write)
        assert len(set(result.keys)) == 2
        assert sorted(_rows(kit)) == sorted(
            (int(key), name) for key, name in zip(result.keys, ("Anna", "Berta"), strict=True)
        )
        async with kit.session(table) as session:
            kept = await session.assigned(0)
            assert sorted(kept, key=_rid) == [
                Assigned(rid=rid, place=table, key=key, seq=1) for rid, key in zip(write.rids, result.keys, strict=True)
            ]
            # The answer of the first time may have been lost: the same records are not entered twice.
            (again,) = await kit.deliver(session, write)
        assert again.keys == result.keys
        assert len(_rows(kit)) == 2


def _rid(assigned: Assigned) -> int:
    return assigned.rid


async def _write_unit(delivery: JoiningDelivery, *writes: TableWrite) -> None:
    async with delivery.unit():
        for write in writes:
            await delivery.write(write)


def _rows(kit: Kit) -> list[tuple[object, ...]]:
    return [tuple(row) for row in kit.users.rows("select * from customers order by id")]


def _prefix(kit: Kit) -> str:
    """MySQL indexes texts without a greatest length by a prefix only."""
    return "(50)" if kit.quote == "`" else ""
