"""Goal: whatever the owner's programs and schema do that was not made with Concord in mind, their changes are told,
their programs work as before, and what our connection does is what theirs would.

Method: each suspicion is a test: triggers and cascades of the owner, other connections' settings, attached and
temporary tables, functions that only the application has, names that collide with ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import apsw
import pytest

from engine.errors import RowRefused
from engine.model.value import WireRow
from engine.ports import Role
from tests.sqlite.support import World, echoes, flat, insert, open_world, replay, update

pytestmark = pytest.mark.anyio
BOTH = Role.SOURCE | Role.TARGET
CUSTOMERS = "create table customers (id integer primary key, name text, email text unique)"
ANNA = (1, "Anna", "a")


async def rows_of(world: World, table: str) -> list[WireRow]:
    """What the feed alone makes of the table."""
    state: dict[WireRow, WireRow] = {}
    for batch in await world.changes(table):
        for segment in batch.segments:
            if table in segment.tables:
                replay(state, segment.tables[table])
    return sorted(state.values(), key=repr)


@pytest.fixture
def program(world: World) -> Iterator[sqlite3.Connection]:
    """Another SQLite than ours, of another version, as Python has it."""
    with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
        yield connection


async def test_another_make_of_sqlite_writes_and_is_told(world: World, program: sqlite3.Connection) -> None:
    await world.create(CUSTOMERS)
    for statement in (
        "pragma trusted_schema = off",
        "insert into customers values (1, 'a', 'x'), (2, 'b', 'y')",
        "replace into customers values (3, 'c', 'x')",
        "update or replace customers set id = 2 where id = 3",
        "insert into customers values (9, 'd', 'x') on conflict (email) do update set name = excluded.name",
        "update or ignore customers set email = 'x'",
    ):
        program.execute(statement)
    assert await rows_of(world, "customers") == [(2, "d", "x")] == world.rows("select * from customers")


async def test_a_program_that_stays_connected_lives_through_set_up_and_teardown(
    world: World, program: sqlite3.Connection
) -> None:
    """It knows the schema of before until SQLite tells it otherwise."""
    world.run(CUSTOMERS)
    add = "insert into customers (name) values ('a')"
    program.execute(add)
    await world.setup("customers")
    program.execute(add)
    program.execute("insert into customers (name) values ('new to it')")
    assert [row[0] for _, row in flat(await world.changes("customers"))] == [2, 3]
    await world.system.teardown()
    program.execute(add)
    program.execute("update customers set name = 'never said before'")
    assert world.rows("select distinct name from customers") == [("never said before",)]


async def test_set_up_waits_for_a_program_in_mid_transaction_and_misses_nothing(world: World) -> None:
    world.run(CUSTOMERS)
    world.run("begin immediate; insert into customers values (1, 'before', 'x')")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.setup, "customers")
        await anyio.wait_all_tasks_blocked()
        world.run("insert into customers values (2, 'before', 'y'); commit")
    world.run("insert into customers values (3, 'behind', 'z')")
    assert [row[0] for _, row in flat(await world.changes("customers"))] == [3]
    async with world.feed("customers") as feed:
        assert [row[0] for row in (await feed.chunk("customers", None, 10)).page.rows] == [1, 2, 3]


class TestTriggersOfTheOwner:
    async def test_one_that_touches_its_own_row_does_not_run_into_itself_in_a_delivery(self, world: World) -> None:
        """The SQLite that we bring along has recursive triggers on unless told otherwise."""
        await world.create(
            "create table t (id integer primary key, name, version integer default 0)",
            "create trigger touch after update on t begin update t set version = version + 1 where id = new.id; end",
        )
        await world.deliver_alone(insert("t", ("id", "name"), [(1, "a")]), update("t", ("id", "name"), [(1, "b")]))
        assert world.rows("select * from t") == [(1, "b", 1)]
        assert echoes(await world.changes("t"), "t")[-1] == (1, "U", (1, "b", 1))

    async def test_one_that_writes_other_rows_of_its_table_is_told(self, world: World) -> None:
        await world.create(
            "create table t (id integer primary key, n)",
            "create trigger twin after insert on t when new.id < 100 begin insert into t values (new.id + 100, 0); end",
        )
        world.run("insert into t values (1, 1), (2, 2)")
        assert await rows_of(world, "t") == [(1, 1), (101, 0), (102, 0), (2, 2)]

    async def test_one_that_writes_through_a_view_is_told(self, world: World) -> None:
        await world.create(
            CUSTOMERS,
            "create view people as select id, name from customers",
            "create trigger people_in instead of insert on people begin"
            " insert into customers (id, name) values (new.id, new.name); end",
            "create trigger people_out instead of delete on people begin delete from customers where id = old.id; end",
        )
        world.run("insert into people values (1, 'a'), (2, 'b')", "delete from people where id = 1")
        assert [op for op, _ in flat(await world.changes("customers"))] == ["I", "I", "D"]

    @pytest.mark.parametrize("word", ["abort", "fail", "rollback", "ignore"])
    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_one_that_raises_leaves_the_journal_as_it_leaves_the_table(
        self, world: World, word: str, when: str
    ) -> None:
        said = "ignore" if word == "ignore" else f"{word}, 'no'"
        await world.create(
            CUSTOMERS,
            f"create trigger guard {when} insert on customers when new.id = 3 begin select raise({said}); end",
        )
        world.run("insert into customers values (1, 'a', 'x')", "begin", "insert into customers values (7, 'q', 'q')")
        try:
            world.run("insert or replace into customers values (2, 'b', 'y'), (3, 'c', 'x'), (4, 'd', 'z')")
        except apsw.ConstraintError:
            assert word != "ignore"
        world.run("commit" if world.users.in_transaction else "select 1", "insert into customers values (5, 'e', 'w')")
        assert await rows_of(world, "customers") == sorted(world.rows("select * from customers"), key=repr)

    async def test_one_that_needs_the_applications_functions_parks_the_row_and_says_which(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("create trigger notify after insert on customers begin select tell_app(new.id); end")
        with pytest.raises(RowRefused, match="tell_app") as caught:
            await world.deliver_alone(insert("customers", ("id", "name"), [(1, "secret")]))
        assert caught.value.reason == "table"
        assert "secret" not in str(caught.value)

    async def test_one_called_like_ours_stays_the_owners(self, world: World) -> None:
        await world.create(
            CUSTOMERS,
            "create table concord_members (id integer primary key)",
            "create trigger concord_greet after insert on customers begin"
            " insert into concord_members values (new.id); end",
        )
        assert "concord_members" in await world.system.shapes()
        await world.setup("customers")
        await world.deliver_alone(insert("customers", ("id", "name", "email"), [ANNA]))
        assert world.rows("select * from concord_members") == [(1,)]
        await world.system.teardown()
        assert world.rows("select name from sqlite_schema where type = 'trigger'") == [("concord_greet",)]
        assert world.rows("select * from concord_members") == [(1,)]


class TestCascades:
    async def test_keys_that_move_with_their_parent_are_told_with_their_old_rows(self, world: World) -> None:
        await world.create(
            CUSTOMERS,
            "create table sites (customer references customers on update cascade on delete set null, n,"
            " primary key (customer, n))",
        )
        world.run(
            "pragma foreign_keys = on",
            "insert into customers values (1, 'a', 'x')",
            "insert into sites values (1, 5)",
            "update customers set id = 8",
            "delete from customers",
        )
        assert await rows_of(world, "sites") == [(None, 5)]

    async def test_a_tree_that_goes_with_its_root_is_told_leaf_by_leaf(self, world: World) -> None:
        await world.create("create table t (id integer primary key, parent references t on delete cascade)")
        world.run(
            "pragma foreign_keys = on",
            "insert into t values (1, null), (2, 1), (3, 2), (4, 3), (5, null)",
            "delete from t where id = 1",
        )
        assert await rows_of(world, "t") == [(5, None)]

    async def test_a_tree_written_children_first_in_a_delivery_of_its_own_order(self, world: World) -> None:
        """A row that refers to a later one of the same write is refused by its index, and the write may be split."""
        await world.create("create table t (id integer primary key, parent references t)")
        with pytest.raises(RowRefused) as caught:
            await world.deliver_alone(insert("t", ("id", "parent"), [(1, None), (3, 2), (2, 1)]))
        assert (caught.value.reason, caught.value.row_index) == ("foreign_key", 1)


class TestOtherTables:
    async def test_writes_through_an_attached_name_are_told(self, world: World, tmp_path: Path) -> None:
        await world.create(CUSTOMERS)
        with closing(sqlite3.connect(tmp_path / "other.db", isolation_level=None)) as program:
            program.execute("create table customers (id integer primary key, name, email)")
            program.execute("create table concord_journal (id, op, layout, at, delivery, c0, c1, c2)")
            program.execute("attach ? as crm", (str(world.path),))
            program.execute("insert into crm.customers values (1, 'a', 'x')")
            program.execute("replace into crm.customers values (2, 'b', 'x')")
            program.execute("insert into customers values (9, 'other', 'x')")
            assert program.execute("select count(*) from main.concord_journal").fetchone() == (0,)
        assert await rows_of(world, "customers") == [(2, "b", "x")]

    async def test_temporary_tables_of_the_same_names_take_nothing_away(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "create temp table concord_journal as select * from main.concord_journal",
            "create temp table concord_marker (active)",
            "create temp table customers (id, name, email)",
            "insert into temp.customers values (8, 'temp', 'x')",
            "insert into main.customers values (1, 'a', 'x')",
            "replace into main.customers values (2, 'b', 'x')",
        )
        assert await rows_of(world, "customers") == [(2, "b", "x")]

    @pytest.mark.parametrize("name", ["new", "old", "present", "victim", "still", "main", "t_before", "x'I',9"])
    async def test_tables_of_any_name_do_not_get_into_each_others_way(self, world: World, name: str) -> None:
        """`t` has a trigger before inserts, and `t_before` one after them."""
        quoted = f'"{name}"'
        await world.create(
            "create table t (id integer primary key, a unique)",
            f"create table {quoted} (id integer primary key, a unique)",
        )
        assert await world.system.plan(["t", name], BOTH) == ()
        for table in ("t", quoted):
            world.run(f"insert into {table} values (1, 'x')", f"replace into {table} values (2, 'x')")
        assert await rows_of(world, "t") == [(2, "x")]
        assert await rows_of(world, name) == [(2, "x")]


class TestSchemaChanges:
    async def test_a_column_goes_without_a_teardown_when_the_tables_triggers_go_first(self, world: World) -> None:
        """What the chapter says to do; the place in the log stays."""
        await world.create(CUSTOMERS)
        world.run("insert into customers values (1, 'a', 'x')")
        position = (await world.changes("customers"))[-1].position
        drops = [
            f'drop trigger "{name}"' for (name,) in world.rows("select name from sqlite_schema where type='trigger'")
        ]
        world.run("begin", *drops, "alter table customers drop column name", "commit")
        await world.setup("customers")
        world.run("update customers set email = 'y'")
        assert flat(await world.changes("customers", after=position)) == [("U", (1, "y"))]

    async def test_vacuum_keeps_the_place_in_the_log(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (1, 'a', 'x')")
        position = (await world.changes("customers"))[-1].position
        world.run("vacuum", "insert into customers values (2, 'b', 'y')")
        assert flat(await world.changes("customers", after=position)) == [("I", (2, "b", "y"))]

    async def test_a_new_unique_index_is_told_as_set_up_still_to_do(self, world: World) -> None:
        """What REPLACE deletes for it is not captured before."""
        await world.create(CUSTOMERS)
        world.run("create unique index by_name on customers (name)")
        assert await world.system.plan(["customers"], BOTH) != ()
        await world.setup("customers")
        world.run("insert into customers values (1, 'a', 'x')", "replace into customers values (2, 'a', 'y')")
        assert await rows_of(world, "customers") == [(2, "a", "y")]

    async def test_a_switch_of_the_journal_mode_under_a_feed_is_not_noticed(self, tmp_path: Path) -> None:
        world = open_world(tmp_path, journal_mode="delete")
        await world.create(CUSTOMERS)
        async with world.feed("customers") as feed:
            world.run("insert into customers values (1, 'a', 'x')")
            await world.drain(feed)
            assert world.value("pragma journal_mode = wal") == "wal"
            world.run("insert into customers values (2, 'b', 'y')")
            assert flat(await world.drain(feed)) == [("I", (2, "b", "y"))]
        world.users.close()


async def test_an_index_by_a_collation_of_the_applications_is_found_by_the_check(world: World) -> None:
    with closing(sqlite3.connect(world.path)) as program:
        program.create_collation("german", lambda a, b: (a > b) - (a < b))
        program.execute("create table t (k text collate german primary key, v)")
    found = await world.system.check(["t"], Role.TARGET)
    assert any("german" in finding.message and finding.is_fatal for finding in found)
