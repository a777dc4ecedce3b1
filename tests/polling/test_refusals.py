"""Goal: a row that the database will not have is refused alone, with a reason and no value, and the rest is delivered.

Method: rows that break each kind of constraint, on each kind of database; one of them has no savepoints, and does what
was done before again.
"""

from __future__ import annotations

import pytest

from engine.errors import RowRefused, TargetBusy
from engine.ports import WriteKind
from tests.polling.support import Polled

INSERT, UPDATE = WriteKind.INSERT, WriteKind.UPDATE
SECRET = "Zypern"


async def made(kit: Polled) -> str:
    kit.users.transaction("create table regions (id integer primary key)", "insert into regions values (1)")
    kit.users.transaction(
        "create table sites (id integer primary key, name varchar(20) not null, code varchar(20) unique,"
        " region integer references regions (id), size integer check (size > 0))",
        f"insert into sites values (1, 'first', '{SECRET}', 1, 1)",
    )
    await kit.setup(kit.schema + "sites")
    return kit.schema + "sites"


COLUMNS = ("id", "name", "code", "region", "size")
BAD = {
    "unique": ("2", "x", SECRET, "1", "1"),
    "not_null": ("2", None, "c", "1", "1"),
    "foreign_key": ("2", "x", "c", "77", "1"),
    "check": ("2", "x", "c", "1", "-5"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("reason", BAD)
async def test_a_row_is_refused_alone_and_says_why(kit: Polled, reason: str) -> None:
    table = await made(kit)
    async with kit.session(table) as session:
        async with session.delivery(1) as delivery:
            await delivery.write(kit.write(INSERT, table, COLUMNS, ("10", "before", "b", "1", "1")))
            with pytest.raises(RowRefused) as refused:
                await delivery.write(kit.write(INSERT, table, COLUMNS, BAD[reason]))
            await delivery.write(kit.write(INSERT, table, COLUMNS, ("11", "after", "a", "1", "1")))
        assert await session.claim("5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11", 3) == 1
    assert refused.value.reason == reason
    assert refused.value.row_index == 0
    said = f"{refused.value} {refused.value.context}"
    assert "sites" in said
    assert SECRET not in said
    assert [id for (id,) in kit.users.rows("select id from sites order by id")] == [1, 10, 11]


@pytest.mark.anyio
async def test_of_several_rows_nobody_says_which_and_none_is_written(kit: Polled) -> None:
    table = await made(kit)
    write = kit.write(INSERT, table, COLUMNS, ("10", "good", "b", "1", "1"), BAD["unique"])
    with pytest.raises(RowRefused) as refused:
        await kit.deliver_alone(write)
    assert refused.value.row_index is None, "the engine halves the write"
    assert kit.users.rows("select count(*) from sites") == [(1,)]


@pytest.mark.anyio
async def test_what_would_come_out_otherwise_when_it_is_done_again_is_not_done(duck: Polled) -> None:
    """It has no savepoints; and the engine was told that there was no such row."""
    table = await made(duck)
    unseen = duck.write(UPDATE, table, COLUMNS, ("2", "x", "c", "1", "1"))
    bad = duck.write(INSERT, table, COLUMNS, BAD["unique"])
    async with duck.session(table) as session:

        async def deliver() -> None:
            async with session.delivery(1) as delivery:
                assert (await delivery.write(unseen)).missing == (0,)
                duck.users.transaction("insert into sites values (2, 'user', null, null, null)")
                await delivery.write(bad)

        with pytest.raises(TargetBusy):
            await deliver()
        assert await session.claim("5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11", 3) == 0
    assert [row[0] for row in duck.users.rows("select name from sites order by id")] == ["first", "user"]


@pytest.mark.anyio
async def test_a_value_that_is_none_of_its_column(kit: Polled) -> None:
    if kit.kind == "sqlite":
        pytest.skip("it takes any value")
    table = await made(kit)
    with pytest.raises(RowRefused) as refused:
        await kit.deliver_alone(kit.write(INSERT, table, COLUMNS, ("3", "x", "c", "1", SECRET)))
    assert refused.value.reason == "value"
    assert SECRET not in str(refused.value)


@pytest.mark.anyio
async def test_a_number_that_the_driver_cannot_hold(sqlite: Polled) -> None:
    table = await made(sqlite)
    write = sqlite.write(INSERT, table, COLUMNS, ("3", "x", "c", "1", "1"))
    write.rows = [(2**70, "x", "c", 1, 1)]
    with pytest.raises(RowRefused) as refused:
        await sqlite.deliver_alone(write)
    assert refused.value.reason == "value"
    assert str(2**70) not in str(refused.value)


@pytest.mark.anyio
async def test_a_column_that_is_gone(kit: Polled) -> None:
    table = kit.create("customers", "name")
    await kit.setup(table)
    with pytest.raises(RowRefused) as refused:
        await kit.deliver_alone(kit.write(INSERT, table, ("id", "title"), ("1", "x")))
    assert refused.value.reason == "table"
    assert "title" in str(refused.value)
    with pytest.raises(RowRefused) as refused:
        await kit.deliver_alone(kit.write(INSERT, kit.schema + "nowhere", ("id", "title"), ("1", "x")))
    assert refused.value.reason == "table"


@pytest.mark.anyio
async def test_keys_handed_out_before_a_refusal_stay_what_was_told(kit: Polled) -> None:
    """Where the delivery has to be done again, too: the engine has been told the keys."""
    table = kit.create("customers", "name", assigned=True)
    kit.users.transaction("create unique index by_id on customers (name)" if kit.kind != "mariadb" else "select 1")
    if kit.kind == "mariadb":
        kit.users.transaction("create unique index by_name on customers (name(50))")
    await kit.setup(table)
    async with kit.session(table) as session, session.delivery(1) as delivery:
        first = await delivery.write(kit.write(INSERT, table, ("name",), ("A",), ("B",), assigned=True))
        again = kit.write(INSERT, table, ("name",), ("A",), assigned=True)
        again.rids = [900]
        with pytest.raises(RowRefused):
            await delivery.write(again)
    rows = kit.users.rows("select id, name from customers order by name")
    assert [(str(id), name) for id, name in rows] == [(first.keys[0], "A"), (first.keys[1], "B")]
    async with kit.session(table) as session:
        assert sorted(a.key for a in await session.assigned(0)) == sorted(first.keys)
