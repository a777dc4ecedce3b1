"""Changes of users, as a feed reports them."""

from __future__ import annotations

import pytest

from engine.model.change import EventKind
from tests.mysql_source.support import MARKER, World, read_all

pytestmark = pytest.mark.anyio


async def test_a_transaction_stays_together(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    async with world.feed(tables=("t", "u")) as feed:
        world.commit("insert into t values (1)", "insert into u values (1)", "insert into t values (2)")
        found = await read_all(world, feed)
    assert [(c.table, c.row) for c in found.changes] == [("t", ("1",)), ("t", ("2",)), ("u", ("1",))]
    assert len(found.batches) == 1


async def test_echoes_are_decoded_for_verified_tables(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)", *MARKER)
    async with world.feed(tables=("t", "u"), verify=("u",)) as feed:
        world.commit("update concord_marker set seq = 7", "insert into t values (2)", "insert into u values (3)")
        found = await read_all(world, feed)
    (segment,) = found.segments
    assert segment.seen == 7
    assert segment.tables == {}
    assert [rows.rows for rows in segment.echoes.values()] == [[("3",)]]


async def test_a_marker_row_that_is_not_the_first_makes_no_echo(world: World) -> None:
    world.run("create table t (id int primary key)", *MARKER)
    async with world.feed() as feed:
        world.commit("insert into t values (1)", "update concord_marker set seq = 9", "insert into t values (2)")
        found = await read_all(world, feed)
    assert [(c.seen, c.row) for c in found.changes] == [(None, ("1",)), (9, ("2",))]


async def test_what_is_rolled_back_is_not_reported(world: World) -> None:
    world.run("create table t (id int primary key)", "create table m (id int primary key) engine = MyISAM")
    async with world.feed() as feed:
        world.run("begin", "insert into t values (1)", "savepoint s", "insert into t values (2)", "rollback to s")
        world.run("insert into t values (3)", "commit")
        world.run("begin", "insert into t values (4)", "insert into m values (1)", "rollback")
        world.run("insert into t values (5)")
        found = await read_all(world, feed)
    assert found.rows() == [("1",), ("3",), ("5",)]


async def test_a_column_more(world: World) -> None:
    world.run("create table t (id int primary key, a int)")
    async with world.feed() as feed:
        world.run(
            "insert into t values (1, 1)", "alter table t add b varchar(5) first", "insert into t values ('x', 2, 2)"
        )
        world.run("alter table t drop a", "insert into t values ('y', 3)")
        found = await read_all(world, feed)
    assert found.rows() == [("1", "1"), ("x", "2", "2"), ("y", "3")]
    reshaped = [e for e in found.events if e.kind is EventKind.RESHAPED]
    assert [[c.name for c in e.shape.columns] for e in reshaped if e.shape] == [["b", "id", "a"], ["b", "id"]]


async def test_truncation_and_drop(world: World) -> None:
    world.run("create table t (id int primary key)")
    async with world.feed() as feed:
        world.run("insert into t values (1)", "truncate table t", "insert into t values (2)")
        world.run("drop table t", "create table t (id int primary key)", "insert into t values (3)")
        found = await read_all(world, feed)
        world.run("drop table t")
        gone = await read_all(world, feed)
    assert found.rows() == [("1",), ("2",), ("3",)]
    assert [e.kind for e in found.events] == [EventKind.TRUNCATED, EventKind.TRUNCATED]
    assert [e.kind for e in gone.events] == [EventKind.DROPPED]


async def test_a_table_made_from_a_query(world: World) -> None:
    world.run("create table t (id int primary key)")
    async with world.feed() as feed:
        world.run("create table u as select seq as id from seq_1_to_5", "insert into t values (1)")
        world.run("create or replace table t (id int primary key) as select seq as id from seq_1_to_3")
        world.run("xa start 'x'", "insert into u values (1)", "xa end 'x'", "xa prepare 'x'", "xa commit 'x'")
        world.run("insert into t values (4)")
        found = await read_all(world, feed)
    assert found.rows() == [("1",), ("1",), ("2",), ("3",), ("4",)]
    assert [e.kind for e in found.events] == [EventKind.TRUNCATED]


async def test_compressed_events(world: World) -> None:
    world.run("create table t (id int primary key, name text)", "set global log_bin_compress = 1")
    try:
        world.user = world.other()
        async with world.feed() as feed:
            world.run(
                "insert into t select seq, repeat('x', 300) from seq_1_to_50", "update t set name = repeat('y', 300)"
            )
            world.run("delete from t")
            found = await read_all(world, feed)
    finally:
        world.run("set global log_bin_compress = 0")
    assert [c.op for c in found.changes] == ["I"] * 50 + ["U"] * 50 + ["D"] * 50
    assert {c.row[1] for c in found.changes if c.op == "U"} == {"y" * 300}


async def test_a_table_that_is_learnt_in_the_middle_of_anothers_statement(world: World) -> None:
    """Rows of a table whose description is read again between its table map and its rows stay in the batch."""
    world.run("create table t (id int primary key, v int)", "create table u (id int primary key, v int)")
    async with world.feed(tables=("t", "u")) as feed:
        world.run("insert into t select seq, 0 from seq_1_to_3", "insert into u select seq, 0 from seq_1_to_3")
        await read_all(world, feed)
        # Both tables look different now, so that the second table map makes the feed forget the first one's.
        world.run("alter table u add w int", "alter table t add w int")
        world.run("update t join u using (id) set t.v = 1, u.v = 1")
        first = await read_all(world, feed, rows_max=1)
        world.run("update t join u using (id) set t.v = 2, u.v = 2")
        second = await read_all(world, feed, rows_max=1)
    for found, value in ((first, "1"), (second, "2")):
        assert sorted((c.table, *c.row) for c in found.changes) == [
            (table, str(n), value, None) for table in ("t", "u") for n in (1, 2, 3)
        ]
