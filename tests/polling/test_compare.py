"""Goal: a delivery to a polled system overwrites nothing that nobody has read.

Method: users who write between a look and a delivery, on each kind of database; the delivery says which rows it left
out, the next look hands them out, and then they are written.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from engine.ports import WriteKind
from engine.testing.contract import flat, texts
from plugins.polling.connect import Connection
from tests.polling.support import SELDOM, Polled

INSERT, UPDATE, DELETE = WriteKind.INSERT, WriteKind.UPDATE, WriteKind.DELETE
COLUMNS = ("id", "name")


def rows(kit: Polled) -> list[tuple[object, ...]]:
    return [tuple(row) for row in kit.users.rows("select id, name from customers order by id")]


async def begun(kit: Polled) -> str:
    """Two customers, known; no look comes by itself."""
    table = kit.create("customers", "name")
    kit.users.transaction("insert into customers values (1, 'A')", "insert into customers values (2, 'B')")
    kit.tune(every=SELDOM)
    await kit.setup(table)
    async with kit.feed(table):
        pass
    return table


async def changes(kit: Polled, table: str) -> list[tuple[str, tuple[str | None, ...]]]:
    """What a look finds that comes because rows were asked for, or because it is due."""
    kit.tune(every=0.01)
    head = (await kit.plugin.system(kit.site, kit.config).health()).head
    assert head is not None
    # Behind what was found before, of which nothing was confirmed.
    found = await kit.changes(table, after=kit.place(head.order[0] - 1))
    kit.tune(every=SELDOM)
    return flat(found, table)


@pytest.mark.anyio
async def test_an_edit_that_was_not_read_is_left_alone_and_read(kit: Polled) -> None:
    table = await begun(kit)
    kit.users.transaction("update customers set name = 'user' where id = 1")
    result = await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "ours"), ("2", "ours")))
    assert result.changed == (0,)
    assert result.missing == ()
    assert rows(kit) == [(1, "user"), (2, "ours")]
    assert await changes(kit, table) == [("U", ("1", "user"))]
    assert (await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "later")))).changed == ()
    assert rows(kit) == [(1, "later"), (2, "ours")]


@pytest.mark.anyio
async def test_a_row_that_is_gone_is_no_row_that_never_was(kit: Polled) -> None:
    table = await begun(kit)
    kit.users.transaction("delete from customers where id = 1")
    result = await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "ours"), ("9", "ours")))
    assert (result.changed, result.missing) == ((0,), (1,))
    assert [op for op, _ in await changes(kit, table)] == ["D"]
    result = await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "ours")))
    assert (result.changed, result.missing) == ((), (0,))


@pytest.mark.anyio
async def test_a_row_entered_under_the_key_of_a_new_one_is_left_alone(kit: Polled) -> None:
    table = await begun(kit)
    kit.users.transaction("insert into customers values (3, 'user')")
    result = await kit.write_alone(kit.compared(INSERT, table, COLUMNS, ("3", "ours"), ("4", "ours")))
    assert result.changed == (0,)
    assert rows(kit)[2:] == [(3, "user"), (4, "ours")]
    assert await changes(kit, table) == [("I", ("3", "user"))]


@pytest.mark.anyio
async def test_a_row_that_was_changed_is_not_deleted(kit: Polled) -> None:
    table = await begun(kit)
    kit.users.transaction("update customers set name = 'user' where id = 1")
    result = await kit.write_alone(kit.compared(DELETE, table, ("id",), ("1",), ("2",), ("9",)))
    assert result.changed == (0,)
    assert rows(kit) == [(1, "user")]
    assert await changes(kit, table) == [("U", ("1", "user"))]


@pytest.mark.anyio
async def test_deliveries_follow_each_other_without_a_look(kit: Polled) -> None:
    table = await begun(kit)
    async with kit.session(table) as session:
        for name in ("first", "second"):
            write = kit.compared(UPDATE, table, COLUMNS, ("1", name))
            (result,) = await kit.deliver(session, write)
            assert result.changed == ()
        both = (
            kit.compared(UPDATE, table, COLUMNS, ("1", "third")),
            kit.compared(UPDATE, table, COLUMNS, ("1", "last")),
        )
        assert [result.changed for result in await kit.deliver(session, *both)] == [(), ()]
    assert rows(kit) == [(1, "last"), (2, "B")]
    assert await changes(kit, table) == [], "what we wrote is no change"


@pytest.mark.anyio
async def test_what_a_user_sets_back_on_top_of_a_delivery_is_a_change(kit: Polled) -> None:
    """The row is then as it was at the last look."""
    table = await begun(kit)
    await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "ours")))
    kit.users.transaction("update customers set name = 'A' where id = 1")
    assert await changes(kit, table) == [("U", ("1", "A"))]


@pytest.mark.anyio
async def test_a_delivery_that_was_rolled_back_is_not_expected(kit: Polled) -> None:
    table = await begun(kit)
    async with kit.session(table) as session:
        with suppress(ZeroDivisionError):
            async with session.delivery(1) as delivery:
                await delivery.write(kit.compared(UPDATE, table, COLUMNS, ("1", "never")))
                raise ZeroDivisionError
        (result,) = await kit.deliver(session, kit.compared(UPDATE, table, COLUMNS, ("1", "ours")))
    assert result.changed == ()
    assert await changes(kit, table) == []


@pytest.mark.anyio
async def test_what_was_noted_for_a_commit_that_failed_is_forgotten(
    kit: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noted before; the next delivery has a later seq, and does not write that row."""
    table = await begun(kit)
    async with kit.session(table) as session:
        write = kit.compared(UPDATE, table, COLUMNS, ("1", "never"))
        monkeypatch.setattr(Connection, "commit", _fail)
        with pytest.raises(ZeroDivisionError):
            await kit.deliver(session, write)
        monkeypatch.undo()
    await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("2", "ours")))
    assert await changes(kit, table) == []
    kit.users.transaction("update customers set name = 'never' where id = 1")
    kit.tune(every=0.01)
    assert await changes(kit, table) == [("U", ("1", "never"))], "a user has said so, not we"


def _fail(connection: Connection) -> None:
    raise ZeroDivisionError


@pytest.mark.anyio
async def test_a_new_row_was_perhaps_there_before_what_we_delivered(kit: Polled) -> None:
    table = await begun(kit)
    await kit.write_alone(kit.compared(UPDATE, table, COLUMNS, ("1", "ours")))
    kit.users.transaction("insert into customers values (3, 'user')")
    kit.tune(every=0.01)
    async with kit.feed(table, after=kit.place(1)) as feed:
        first = await kit.drain(feed)
        kit.users.transaction("insert into customers values (4, 'user')")
        second = await kit.drain(feed)
    known = [(s.seen, s.seen_at_least) for batches in (first, second) for b in batches for s in b.segments if s.tables]
    assert known == [(1, 0), (1, 1)]


@pytest.mark.anyio
async def test_a_page_leaves_to_the_next_look_what_no_look_has_found(kit: Polled) -> None:
    table = await begun(kit)
    async with kit.feed(table) as feed:
        kit.users.transaction(
            "insert into customers values (3, 'user')", "update customers set name = 'x' where id = 1"
        )
        chunk = await feed.chunk(table, None, 10)
        assert [texts(row) for row in chunk.page.rows] == [("1", "x"), ("2", "B")]
        assert chunk.high <= feed.position


@pytest.mark.anyio
async def test_what_the_database_makes_of_a_value_is_handed_out(kit: Polled) -> None:
    """A rounding column: what it holds is other than what was written, and nobody would know."""
    kit.users.transaction("create table prices (id integer primary key, price decimal(10, 2))")
    if kit.kind in ("mariadb", "sqlite"):
        pytest.skip("it says so, or keeps all decimals")
    table = kit.schema + "prices"
    kit.tune(every=SELDOM)
    await kit.setup(table)
    async with kit.feed(table):
        pass
    await kit.write_alone(kit.compared(INSERT, table, ("id", "price"), ("1", "1.255"), ("2", "1.25")))
    assert [op for op, row in await changes(kit, table) if row[0] == "1"] == ["U"]
