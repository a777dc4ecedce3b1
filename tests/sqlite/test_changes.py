"""Goal: the feed tells every change that any program commits, exactly once, in order, with old keys where keys move.

Method: real files; a user's statements on a connection of its own, the journal read by a feed, and what it says
compared with what was done. At the end, random statements against a table whose copy is kept by page and feed alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.model.change import Batch
from engine.model.value import WireRow
from engine.ports import Role
from tests.sqlite.support import World, exact, flat, key_of, open_world, replay

pytestmark = pytest.mark.anyio
CUSTOMERS = "create table customers (id integer primary key, name text, email text unique)"


async def test_insert_update_and_delete_are_told_in_order(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run(
        "insert into customers values (1, 'Anna', 'a')",
        "update customers set name = 'Anne'",
        "delete from customers",
    )
    assert flat(await world.changes("customers")) == [
        ("I", (1, "Anna", "a")),
        ("U", (1, "Anne", "a")),
        ("D", (1, "Anne", "a")),
    ]


async def test_what_was_rolled_back_is_not_told(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run(
        "begin; insert into customers values (1, 'a', 'a'); savepoint s; insert into customers values (2, 'b', 'b');"
        " rollback to s; insert into customers values (3, 'c', 'c'); commit",
        "begin; delete from customers; rollback",
    )
    assert [row[0] for _, row in flat(await world.changes("customers"))] == [1, 3]


async def test_delete_without_where_tells_every_row(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("insert into customers (id) values (1), (2), (3)", "delete from customers")
    deleted = {row[0] for op, row in flat(await world.changes("customers")) if op == "D"}
    assert deleted == {1, 2, 3}


async def test_a_moved_key_comes_with_the_old_row(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("insert into customers values (1, 'a', 'a')", "update customers set id = 7")
    (batch,) = await world.changes("customers")
    rows = batch.segments[0].tables["customers"]
    assert rows.rows[1][0] == 7
    assert rows.old == {1: (1, "a", "a")}


async def test_a_moved_key_is_not_torn_from_its_old_row_by_a_small_read(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run(
        "insert into customers values (1, 'a', 'a')", "update customers set id = 7", "update customers set id = 8"
    )
    state: dict[WireRow, WireRow] = {}
    for batch in await world.changes("customers", rows_max=1):
        replay(state, batch.segments[0].tables["customers"])
    assert list(state.values()) == [(8, "a", "a")]


async def test_another_unique_column_that_moves_comes_with_the_old_row(world: World) -> None:
    """A mapping may use it as its key."""
    await world.create(CUSTOMERS)
    world.run("insert into customers values (1, 'a', 'a')", "update customers set email = 'b'")
    (batch,) = await world.changes("customers")
    assert batch.segments[0].tables["customers"].old == {1: (1, "a", "a")}


async def test_a_key_that_changes_case_under_nocase_has_moved(world: World) -> None:
    await world.create("create table t (k text collate nocase primary key, v)")
    world.run("insert into t values ('ABC', 1)", "update t set k = 'abc'")
    (batch,) = await world.changes("t")
    assert batch.segments[0].tables["t"].old == {1: ("ABC", 1)}


async def test_a_key_that_changes_its_storage_class_has_moved(world: World) -> None:
    await world.create("create table t (k primary key, v)")
    world.run("insert into t values (1, 1)", "update t set k = 1.0")
    (batch,) = await world.changes("t")
    rows = batch.segments[0].tables["t"]
    assert exact(rows.old.values()) == exact([(1, 1)])
    assert exact(rows.rows[1:]) == exact([(1.0, 1)])


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("create table t (a, b, c, primary key (c, a))", ("c", "a")),
        ("create table t (a, b, c, primary key (a, b)) without rowid", ("a", "b")),
        ("create table t (a integer primary key, b int, c text) strict", ("a",)),
        ("create table t (a, b, c)", ("rowid",)),
    ],
)
async def test_keys_of_all_makes(world: World, table: str, key: tuple[str, ...]) -> None:
    await world.create(table)
    world.run("insert into t (a, b, c) values (1, 2, 'x')", "update t set b = 3", "delete from t")
    (batch,) = await world.changes("t")
    rows = batch.segments[0].tables["t"]
    assert rows.shape.key == key
    assert bytes(rows.ops) == b"IUD"
    assert [row[:3] for row in rows.rows] == [(1, 2, "x"), (1, 3, "x"), (1, 3, "x")]


async def test_a_rowid_that_is_given_anew_has_moved(world: World) -> None:
    await world.create("create table t (a)")
    world.run("insert into t values ('x')", "update t set rowid = 9")
    (batch,) = await world.changes("t")
    rows = batch.segments[0].tables["t"]
    assert rows.rows[1] == ("x", 9)
    assert rows.old == {1: ("x", 1)}


async def test_generated_columns_are_told(world: World) -> None:
    await world.create("create table t (id integer primary key, a, v as (a * 2), s as (a * 3) stored)")
    world.run("insert into t (a) values (5)", "update t set a = 7", "delete from t")
    assert flat(await world.changes("t")) == [("I", (1, 5, 10, 15)), ("U", (1, 7, 14, 21)), ("D", (1, 7, 14, 21))]


async def test_names_of_any_kind(world: World) -> None:
    table, column = 'it\'s "quoted" [so], true', "select 'new.x' \"a\""
    name, field = '"' + table.replace('"', '""') + '"', '"' + column.replace('"', '""') + '"'
    await world.create(f"create table {name} (id integer primary key, {field})")
    world.run(f"insert into {name} values (1, 2)", f"update {name} set id = 3")
    assert flat(await world.changes(table)) == [("I", (1, 2)), ("U", (3, 2))]
    assert await world.system.plan([table], Role.SOURCE | Role.TARGET) == ()


class TestReplace:
    """REPLACE deletes what stands in its way and fires no delete trigger for it."""

    async def test_a_row_replaced_for_another_unique_column_is_told_before_its_successor(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (1, 'a', 'x')", "insert or replace into customers values (2, 'b', 'x')")
        assert flat(await world.changes("customers"))[1:] == [("D", (1, "a", "x")), ("I", (2, "b", "x"))]

    async def test_replace_without_a_key_tells_the_row_that_went(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "insert into customers values (1, 'a', 'x')", "replace into customers (name, email) values ('b', 'x')"
        )
        assert flat(await world.changes("customers"))[1:] == [("D", (1, "a", "x")), ("I", (2, "b", "x"))]

    async def test_an_update_that_replaces_tells_the_row_that_went(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "insert into customers values (1, 'a', 'x'), (2, 'b', 'y')",
            "update or replace customers set email = 'x' where id = 2",
        )
        assert flat(await world.changes("customers"))[2:] == [("D", (1, "a", "x")), ("U", (2, "b", "x"))]

    async def test_a_key_that_moves_onto_another_row_tells_that_this_one_went(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "insert into customers values (1, 'a', 'x'), (2, 'b', 'y')",
            "update or replace customers set id = 2 where id = 1",
        )
        batches = await world.changes("customers")
        assert flat(batches)[2:] == [("D", (2, "b", "y")), ("U", (2, "a", "x"))]
        assert batches[0].segments[0].tables["customers"].old == {3: (1, "a", "x")}

    async def test_a_row_that_two_constraints_replace_is_told_once(self, world: World) -> None:
        await world.create("create table t (id integer primary key, a unique, b unique)")
        world.run("insert into t values (1, 'x', 'y')", "replace into t values (2, 'x', 'y')")
        assert flat(await world.changes("t"))[1:] == [("D", (1, "x", "y")), ("I", (2, "x", "y"))]

    async def test_one_row_may_replace_several(self, world: World) -> None:
        await world.create("create table t (id integer primary key, a unique, b unique)")
        world.run("insert into t values (1, 'x', 1), (2, 'y', 2)", "replace into t values (3, 'x', 2)")
        *deleted, inserted = flat(await world.changes("t"))[2:]
        assert set(deleted) == {("D", (1, "x", 1)), ("D", (2, "y", 2))}
        assert inserted == ("I", (3, "x", 2))

    async def test_a_key_replaced_by_one_of_another_case_is_told(self, world: World) -> None:
        await world.create("create table t (k text collate nocase primary key, v)")
        world.run("insert into t values ('ABC', 1)", "replace into t values ('abc', 2)")
        assert flat(await world.changes("t"))[1:] == [("D", ("ABC", 1)), ("I", ("abc", 2))]

    async def test_a_unique_index_of_its_own_collation_is_obeyed(self, world: World) -> None:
        await world.create("create table t (id integer primary key, a); create unique index u on t (a collate nocase)")
        world.run("insert into t values (1, 'ABC')", "replace into t values (2, 'abc')")
        assert flat(await world.changes("t"))[1:] == [("D", (1, "ABC")), ("I", (2, "abc"))]

    async def test_an_insert_that_was_ignored_deletes_nothing(self, world: World) -> None:
        """Also not later, when the row it ran into goes for another reason."""
        await world.create(CUSTOMERS)
        world.run(
            "insert into customers values (1, 'a', 'x')",
            "insert or ignore into customers values (2, 'b', 'x')",
            "update customers set name = 'c'",
            "delete from customers",
            "insert into customers values (3, 'd', 'z')",
        )
        assert flat(await world.changes("customers")) == [
            ("I", (1, "a", "x")),
            ("U", (1, "c", "x")),
            ("D", (1, "c", "x")),
            ("I", (3, "d", "z")),
        ]

    async def test_an_upsert_deletes_nothing(self, world: World) -> None:
        await world.create(CUSTOMERS)
        upsert = "insert into customers values (2, 'b', 'x') on conflict (email) do update set name = excluded.name"
        world.run("insert into customers values (1, 'a', 'x')", upsert, upsert.replace("'b'", "'c'"))
        assert flat(await world.changes("customers"))[1:] == [("U", (1, "b", "x")), ("U", (1, "c", "x"))]

    async def test_children_that_go_with_a_replaced_row_are_told(self, world: World) -> None:
        await world.create(
            CUSTOMERS,
            "create table sites (id integer primary key, customer references customers on delete cascade)",
        )
        world.run(
            "pragma foreign_keys = on",
            "insert into customers values (1, 'a', 'x')",
            "insert into sites values (5, 1)",
            "replace into customers values (2, 'b', 'x')",
        )
        assert flat(await world.changes("customers", "sites"), "sites")[1:] == [("D", (5, 1))]

    async def test_a_program_that_has_recursive_triggers_on_is_understood(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "pragma recursive_triggers = on",
            "insert into customers values (1, 'a', 'x')",
            "insert or replace into customers values (2, 'b', 'x')",
        )
        state: dict[WireRow, WireRow] = {}
        for batch in await world.changes("customers"):
            replay(state, batch.segments[0].tables["customers"])
        assert list(state.values()) == [(2, "b", "x")]


async def test_an_insert_or_fail_that_fails_midway_tells_what_it_did(world: World) -> None:
    """SQLite does not note the journal's numbers down then."""
    await world.create(CUSTOMERS)
    with pytest.raises(apsw.ConstraintError):
        world.run("insert or fail into customers values (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'x')")
    assert world.value("select count(*) from customers") == 2
    assert [row[0] for _, row in flat(await world.changes("customers"))] == [1, 2]


async def test_users_see_their_own_last_insert_rowid_and_changes(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("insert into customers values (41, 'a', 'x')", "insert into customers (name) values ('b')")
    assert world.value("select last_insert_rowid()") == 42
    assert world.value("select changes()") == 1


async def test_capture_goes_on_when_the_marker_is_emptied(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("delete from concord_marker", "insert or ignore into customers values (1, 'a', 'x')")
    assert flat(await world.changes("customers")) == [("I", (1, "a", "x"))]


SCHEMAS = (
    "create table t (id integer primary key, a unique, b)",
    "create table t (id not null primary key, a, b)",
    "create table t (id text collate nocase primary key, a unique, b unique) without rowid",
    "create table t (id not null, a not null, b, primary key (id, a))",
    "create table t (id int not null primary key, a, b as (a || 'x') unique)",
    "create table t (a, b, id unique)",
)
IDS = st.sampled_from(["1", "2", "3", "'a'", "'A'", "'b'", "1.0", "x'61'"])
OTHERS = st.sampled_from(["1", "2", "'u'", "'U'", "null", "0.5", "x'0041'"])
VERBS = st.sampled_from(["insert or abort", "insert or replace", "insert or ignore", "insert or fail"])


def _insert(verb: str, rows: list[tuple[str, str]]) -> str:
    return f"{verb} into t (id, a) values {', '.join(f'({i}, {a})' for i, a in rows)}"


def _update(verb: str, column: str, value: str, key: str) -> str:
    return f"update {verb} t set {column} = {value} where id = {key}"


def _upsert(key: str, value: str) -> str:
    return f"insert into t (id, a) values ({key}, {value}) on conflict do nothing"


def _delete(key: str) -> str:
    return f"delete from t where id = {key}"


INSERTS = st.builds(_insert, VERBS, st.lists(st.tuples(IDS, OTHERS), min_size=1, max_size=3))
UPDATES = st.builds(
    _update,
    st.sampled_from(["or abort", "or replace", "or ignore", "or fail"]),
    st.sampled_from(["id", "a"]),
    st.one_of(IDS, OTHERS),
    IDS,
)
UPSERTS = st.builds(_upsert, IDS, OTHERS)
DELETES = st.one_of(st.just("delete from t"), st.builds(_delete, IDS))
CONTROL = st.sampled_from(["begin", "commit", "rollback", "savepoint s", "rollback to s"])
STEPS = st.lists(
    st.one_of(INSERTS, INSERTS, UPDATES, UPSERTS, DELETES, CONTROL, st.sampled_from(["read", "purge"])), max_size=25
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=st.sampled_from(SCHEMAS), steps=STEPS, rows_max=st.integers(1, 6), copied=st.integers(0, 25))
def test_page_and_feed_together_always_are_the_table(schema: str, steps: list[str], rows_max: int, copied: int) -> None:
    """Whatever statements users run, and wherever in them the copy is taken and the feed is read and purged."""
    with tempfile.TemporaryDirectory() as directory:
        world = open_world(Path(directory))
        try:
            anyio.run(_follow, world, schema, steps, rows_max, copied)
        finally:
            world.users.close()


async def _follow(world: World, schema: str, steps: list[str], rows_max: int, copied: int) -> None:
    await world.create(schema)
    state: dict[WireRow, WireRow] = {}

    def take(batches: list[Batch]) -> None:
        for batch in batches:
            for segment in batch.segments:
                if "t" in segment.tables:
                    replay(state, segment.tables["t"])

    async with world.feed("t") as feed:
        for n, step in enumerate((*steps, "rollback", "read")):
            if n == min(copied, len(steps)):
                # Changes before the page are in it; those behind it come on top.
                take(await world.drain(feed, rows_max))
                state.clear()
                after: tuple[str, ...] | None = None
                while True:
                    chunk = await feed.chunk("t", after, rows_max)
                    indexes = [chunk.page.shape.index(name) for name in chunk.page.shape.key]
                    state |= {key_of(row, indexes): row for row in chunk.page.rows}
                    after = chunk.page.last_key
                    if after is None:
                        break
            if step == "read":
                take(await world.drain(feed, rows_max))
            elif step == "purge":
                feed.confirm(feed.position)
            else:
                try:
                    world.run(step)
                except apsw.Error:
                    continue
        rows = world.rows("select * from t" if "primary" in schema else "select *, rowid from t")
    assert sorted(map(repr, exact(state.values()))) == sorted(map(repr, exact(rows)))
