"""Goal: a write does to a table what its kind says, at any number of rows, and says what it could not do.

Method: small tables on a real server; numbers of rows on both sides of what is sent in one go.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RowRefused
from engine.ports import Assigned, WriteResult
from plugins.mysql import apply_write
from plugins.mysql.apply_together import TOGETHER_MIN, found_sql
from plugins.mysql.apply_write import STATEMENTS_MAX
from tests.mysql_target.support import World, delete, insert, update

pytestmark = pytest.mark.anyio

COUNTS = [1, TOGETHER_MIN, STATEMENTS_MAX + 1]


@pytest.mark.parametrize("count", COUNTS)
async def test_an_insert_updates_the_rows_that_exist(world: World, count: int) -> None:
    world.run("create table t (id int primary key, name text, kept text default 'kept')")
    world.run(f"insert into t values ({count - 1}, 'old', 'theirs')")
    rows = [(str(n), f"name {n}") for n in range(count)]

    await world.deliver_alone(insert("t", ("id", "name"), rows))

    assert world.rows("select id, name from t order by id") == rows
    assert world.rows(f"select kept from t where id = {count - 1}") == [("theirs",)]


async def test_an_insert_by_a_key_that_no_index_knows_updates_too(world: World) -> None:
    world.run("create table t (id int primary key auto_increment, code varchar(10), name text)")
    world.run("insert into t (code, name) values ('a', 'old')")

    await world.deliver_alone(insert("t", ("code", "name"), [("a", "new"), ("b", "new")], key=("code",)))

    assert world.rows("select code, name from t order by id") == [("a", "new"), ("b", "new")]


async def test_a_key_that_two_rows_have_is_refused(world: World) -> None:
    world.run("create table t (id int primary key, code varchar(10), name text)")
    world.run("insert into t values (1, 'a', 'x'), (2, 'a', 'x')")

    with pytest.raises(RowRefused):
        await world.deliver_alone(update("t", ("code", "name"), [("a", "new")], key=("code",)))

    assert world.rows("select name from t") == [("x",), ("x",)]


async def test_a_replay_changes_nothing(world: World) -> None:
    world.run("create table t (id int primary key, name varchar(20) unique)")
    writes = (
        insert("t", ("id", "name"), [("1", "a"), ("2", "b")]),
        update("t", ("id", "name"), [("1", "c")]),
        delete("t", ("id",), [("2",)]),
    )
    async with world.session("t") as session:
        await world.deliver(session, *writes)
        once = world.rows("select * from t")
        await world.deliver(session, *writes)

    assert world.rows("select * from t") == once == [("1", "c")]


async def test_a_key_without_other_columns_is_inserted_once(world: World) -> None:
    world.run("create table t (id int primary key)")
    write = insert("t", ("id",), [("1",), ("2",)])

    await world.deliver_alone(write, write)

    assert world.rows("select * from t order by 1") == [("1",), ("2",)]


async def test_a_row_that_is_twice_in_a_write_ends_as_the_second(world: World) -> None:
    world.run("create table t (id int primary key, name text)")

    await world.deliver_alone(insert("t", ("id", "name"), [("1", "a"), ("1", "b"), ("2", "c")]))

    assert world.rows("select * from t order by 1") == [("1", "b"), ("2", "c")]


@pytest.mark.parametrize("count", COUNTS)
async def test_an_update_reports_the_rows_that_are_missing(world: World, count: int) -> None:
    world.run("create table t (id int primary key, name text, kept text default 'kept')")
    world.run(f"insert into t (id, name) select seq, 'old' from seq_0_to_{count - 1}")
    rows = [(str(n), f"name {n}") for n in range(count)]

    whole = await world.deliver_alone(update("t", ("id", "name"), rows))
    assert world.rows("select id, name from t order by id") == rows
    # The row is there and already so: found, though nothing of it changes.
    assert await world.deliver_alone(update("t", ("id", "name"), rows)) == [WriteResult()]
    world.run(f"delete from t where id = {count // 2}")
    lacking = await world.deliver_alone(update("t", ("name", "id"), [(f"b{n}", str(n)) for n in range(count)]))

    assert whole == [WriteResult()]
    assert lacking == [WriteResult(missing=(count // 2,))]
    changed = "select count(*), sum(name = concat('b', id) and kept = 'kept') from t"
    assert world.rows(changed) == [(str(count - 1), str(count - 1) if count > 1 else None)]


@pytest.mark.parametrize("count", COUNTS)
async def test_deleted_rows_are_gone_and_those_that_were_gone_are_fine(world: World, count: int) -> None:
    world.run("create table t (a int, b varchar(10), primary key (a, b))")
    world.run(f"insert into t select seq, 'x' from seq_0_to_{count}")

    await world.deliver_alone(delete("t", ("a", "b"), [(str(n), "x") for n in range(count)] + [("0", "y")]))

    assert world.rows("select * from t") == [(str(count), "x")]


async def test_a_key_is_compared_to_the_letter(world: World) -> None:
    """The column takes 'abc', 'ABC' and 'abc ' for one, Concord does not: another record's row is left alone."""
    world.run("create table t (id varchar(10) primary key, name text) collate utf8mb4_general_ci")
    world.run("insert into t values ('abc', 'theirs')")

    for other in ("ABC", "abc ", "äbc"):
        await world.deliver_alone(delete("t", ("id",), [(other,)]))
        assert await world.deliver_alone(update("t", ("id", "name"), [(other, "x")])) == [WriteResult(missing=(0,))]
        with pytest.raises(RowRefused) as refused:
            await world.deliver_alone(insert("t", ("id", "name"), [("new", "y"), (other, "x")]))
        assert (refused.value.reason, refused.value.row_index) == ("unique", 1)

    assert world.rows("select * from t") == [("abc", "theirs")]


@pytest.mark.parametrize(
    "declared",
    [
        *("varchar(20) character set latin1", "varchar(20) collate utf8mb4_unicode_ci", "char(20) character set ascii"),
        *("bigint unsigned", "int(8) zerofill", "varchar(20) collate utf8mb4_bin"),
    ],
)
async def test_many_rows_are_each_found_by_a_key_to_the_letter(world: World, declared: str) -> None:
    is_text = "char" in declared
    keys = [f"Key {n}" if is_text else str(2**26 + n) for n in range(3 * TOGETHER_MIN)]
    # What the column takes for one of ours, and is not: another record's row.
    near = ["kEY 3", "KEY 4"] if is_text and "_bin" not in declared else []
    theirs = [key for key in keys if key.lower() not in ("key 3", "key 4")] if near else keys[:]
    del theirs[7]
    world.run(f"create table t (id {declared} primary key, name text)")
    await world.deliver_alone(insert("t", ("id", "name"), [(key, "old") for key in [*theirs, *near]]))

    (result,) = await world.deliver_alone(update("t", ("name", "id"), [(f"new {key}", key) for key in keys]))
    await world.deliver_alone(delete("t", ("id",), [(key,) for key in keys[::2]]))

    assert [keys[n] for n in result.missing] == [key for key in keys if key not in theirs]
    left = [(key, f"new {key}") for key in theirs if key not in keys[::2]] + [(key, "old") for key in near]
    assert sorted(world.rows("select cast(id as char), name from t")) == sorted(left)


async def test_a_row_that_somebody_enters_meanwhile_is_updated_or_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the update of many rows and the question which of them were not there."""
    world.run("create table t (id int primary key, name text)")
    world.run(f"insert into t select seq, 'old' from seq_1_to_{TOGETHER_MIN}")

    def enter(*arguments: Any) -> str:
        world.run("insert into t values (0, 'theirs')")
        return found_sql(*arguments)

    monkeypatch.setattr(apply_write, "found_sql", enter)
    write = update("t", ("id", "name"), [(str(n), "new") for n in range(TOGETHER_MIN + 1)])
    assert await world.deliver_alone(write) == [WriteResult()]

    assert world.rows("select distinct name from t") == [("new",)]


async def test_rows_that_are_twice_among_many_end_as_the_last(world: World) -> None:
    world.run("create table t (id int primary key, name text)", "insert into t values (1, 'old')")
    rows = [("1" if n % 2 else "01", f"name {n}") for n in range(2 * TOGETHER_MIN)]

    assert await world.deliver_alone(update("t", ("id", "name"), rows)) == [WriteResult()]

    assert world.rows("select name from t") == [(f"name {len(rows) - 1}",)]


async def test_a_key_of_many_columns_finds_many_rows(world: World) -> None:
    world.run("create table t (a int, b varchar(10), v int, primary key (a, b))")
    keys = [(str(n // 3), "xyz"[n % 3]) for n in range(3 * TOGETHER_MIN)]
    await world.deliver_alone(insert("t", ("a", "b", "v"), [(*key, "0") for key in keys[1:]], key=("a", "b")))

    write = update("t", ("v", "b", "a"), [(str(n), b, a) for n, (a, b) in enumerate(keys)], key=("a", "b"))
    assert await world.deliver_alone(write) == [WriteResult(missing=(0,))]

    assert world.rows("select a, b, v from t order by a, b") == [(*key, str(n)) for n, key in enumerate(keys)][1:]


async def test_a_key_beyond_what_floating_point_tells_apart_is_the_right_row(world: World) -> None:
    world.run("create table t (id bigint unsigned primary key, name text)")
    keys = ["9007199254740992", "9007199254740993", "18446744073709551615", "18446744073709551614"]
    others = [(str(n), "other") for n in range(TOGETHER_MIN)]
    await world.deliver_alone(insert("t", ("id", "name"), [*((key, "old") for key in keys), *others]))

    for more in ([], others):
        world.run("update t set name = 'old'")
        await world.deliver_alone(update("t", ("id", "name"), [(keys[1], "new"), (keys[2], "new"), *more]))
        assert world.rows("select id from t where name = 'new' order by id") == [(keys[1],), (keys[2],)]


@pytest.mark.parametrize(
    "declared",
    [
        *("char(8) character set latin1", "varchar(8) character set ascii", "varchar(8) collate utf8mb4_bin", "uuid"),
        *("decimal(12,3)", "date", "datetime(3)", "timestamp(6)", "binary(4)", "varbinary(4)", "year", "float"),
        *("double", "enum('b','a','10')", "bit(1)", "bit(12)", "time(2)", "inet6"),
    ],
)
async def test_keys_of_every_type_find_their_row(world: World, declared: str) -> None:
    one, two = _TWO_KEYS[declared.split("(")[0].split(" ")[0] if "bit" not in declared else declared]
    world.run(f"create table t (id {declared} primary key, name text)")
    await world.deliver_alone(insert("t", ("id", "name"), [(one, "one"), (two, "two")]))

    await world.deliver_alone(insert("t", ("id", "name"), [(two, "again")]))
    updated = await world.deliver_alone(update("t", ("id", "name"), [(one, "1")]))
    page = await world.page("t", rows_max=1)
    rest = await world.page("t", after=page.last_key, rows_max=2)
    assert page.last_key is not None
    await world.deliver_alone(delete("t", ("id",), [(two,)]))

    assert updated == [WriteResult()]
    assert sorted([*page.rows, *rest.rows]) == sorted([(one, "1"), (two, "again")])
    assert world.rows("select name from t") == [("1",)]


_TWO_KEYS = {
    "char": ("Ab", "ÿ"),
    "varchar": ("Ab", "b b"),
    "uuid": ("11111111-2222-3333-4444-555555555555", "01234567-89ab-4def-8123-456789abcdef"),
    "decimal": ("-1.250", "123456789.001"),
    "date": ("2024-02-29", "0999-01-01"),
    "datetime": ("2024-02-29 23:59:59.125", "2024-02-29 23:59:59"),
    "timestamp": ("2024-02-29 23:59:59.123456+00", "2024-02-29 23:59:59+00"),
    "binary": ("\\x00000001", "\\xff00ff20"),
    "varbinary": ("\\x00", "\\xff00"),
    "year": ("1999", "2024"),
    "float": ("0.1", "0.3"),
    "double": ("0.1", "0.30000000000000004"),
    "enum": ("10", "a"),
    "bit(1)": ("t", "f"),
    "bit(12)": ("\\x0fff", "\\x0001"),
    "time": ("10:00:00.25", "25:00:00"),
    "inet6": ("::1", "2001:db8::ff"),
}


# ---------------------------------------------------------------------------------------------- assigned keys


async def test_keys_that_the_database_gives_are_told_and_kept(world: World) -> None:
    world.run("create table t (id int primary key auto_increment, name text)", "insert into t (name) values ('user')")
    rows = [(f"name {n}",) for n in range(STATEMENTS_MAX + 2)]
    write = insert("t", ("name",), rows, assigned="id")

    (result,) = await world.deliver_alone(write)

    assert result.keys == tuple(str(n + 2) for n in range(len(rows)))
    assert world.rows("select id, name from t where id > 1 order by id") == [
        (key, name) for key, (name,) in zip(result.keys, rows, strict=True)
    ]
    async with world.session("t") as session:
        kept = await session.assigned(0)
        assert sorted(kept, key=lambda a: a.rid)[1] == Assigned(rid=2, place="t", key="3", seq=1)
        assert await session.assigned(1) == ()


async def test_a_record_that_has_a_key_is_not_inserted_again(world: World) -> None:
    """The answer of the first delivery was lost: the engine sends the same records again, and others."""
    world.run("create table t (id int primary key auto_increment, name text)")
    (first,) = await world.deliver_alone(insert("t", ("name",), [("a",), ("b",)], assigned="id", rids=[7, 8]))

    (again,) = await world.deliver_alone(
        insert("t", ("name",), [("new",), ("B",), ("A",)], assigned="id", rids=[9, 8, 7])
    )

    assert again.keys[1:] == (first.keys[1], first.keys[0])
    assert world.rows("select name from t order by id") == [("A",), ("B",), ("new",)]


async def test_a_record_whose_row_was_deleted_comes_back_under_its_key(world: World) -> None:
    world.run("create table t (id int primary key auto_increment, name text)")
    (first,) = await world.deliver_alone(insert("t", ("name",), [("a",)], assigned="id", rids=[7]))
    world.run("delete from t")

    (again,) = await world.deliver_alone(insert("t", ("name",), [("a",)], assigned="id", rids=[7]))

    assert again.keys == first.keys
    assert world.rows("select id, name from t") == [(first.keys[0], "a")]


async def test_a_refused_row_among_assigned_ones_leaves_no_key_behind(world: World) -> None:
    world.run("create table t (id int primary key auto_increment, name varchar(5) unique)")
    async with world.session("t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("t", ("name",), [("a",), ("b",), ("a",)], assigned="id"))

    assert (refused.value.reason, refused.value.row_index) == ("unique", 2)
    assert world.rows("select * from t") == []
    assert world.rows("select * from concord_identity") == []


async def test_a_trigger_that_counts_elsewhere_does_not_change_the_key(world: World) -> None:
    world.run("create table log (id int primary key auto_increment, what text)")
    world.run("create table t (id int primary key auto_increment, name text)", "alter table log auto_increment = 100")
    world.run("create trigger noted after insert on t for each row insert into log (what) values (new.name)")

    (result,) = await world.deliver_alone(insert("t", ("name",), [("a",), ("b",)], assigned="id"))

    assert result.keys == ("1", "2")


# ---------------------------------------------------------------------------------------------- names


async def test_names_may_hold_anything(world: World) -> None:
    names = [
        "Order",
        "a b",
        'say "x"',
        "back`tick",
        "it's",
        "select",
        "ümläut",
        "per%cent",
        "semi;colon",
        "back\\slash",
    ]
    for name in names:
        quoted = "`" + name.replace("`", "``") + "`"
        world.run(f"create table {quoted} ({quoted} int primary key, `group` text)")
        await world.deliver_alone(insert(name, (name, "group"), [("1", "a"), ("2", "b")], key=(name,)))
        await world.deliver_alone(insert(name, (name, "group"), [("1", "c")], key=(name,)))
        await world.deliver_alone(delete(name, (name,), [("2",)]))
        assert (await world.page(name)).rows == [("1", "c")]


async def test_a_table_of_another_database(world: World) -> None:
    other = f"{world.database}_other"
    world.run(f"create database {other}", f"create table {other}.`a.b` (id int primary key)")
    try:
        await world.deliver_alone(insert(f"{other}.a.b", ("id",), [("1",)]))
        assert world.rows(f"select * from {other}.`a.b`") == [("1",)]
    finally:
        world.run(f"drop database {other}")


async def test_rows_larger_than_a_packet_are_refused_and_many_large_ones_are_not(world: World) -> None:
    world.run("create table t (id int primary key, body longtext)")
    ((size,),) = world.rows("select @@max_allowed_packet")
    async with world.session("t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("t", ("id", "body"), [("1", "x"), ("2", "é" * (int(size) // 2))]))
        await delivery.write(insert("t", ("id", "body"), [(str(n), "é" * 300_000) for n in range(30)]))
        await delivery.write(update("t", ("id", "body"), [(str(n), "ö" * 300_000) for n in range(30)]))

    assert (refused.value.reason, refused.value.row_index) == ("value", 1)
    assert world.rows("select count(*), min(body = repeat('ö', 300000)) from t") == [("30", "1")]
