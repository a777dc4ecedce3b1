"""Goal: a delivery is there as a whole with its marker or not at all, a repeated one doubles nothing, an older daemon
is shut out, and every refusal says which row and column it is about, what to do, and no value.

Method: real files; constraints of every kind run into on purpose; processes that are killed in the middle of a delivery
and between its commit and their answer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import apsw
import pytest

from engine.errors import ConcordError, Disposition, Fenced, RowRefused, SystemUnreachable, TargetBusy, TargetUnready
from engine.model.value import WireRow
from engine.ports import Assigned, TableWrite, TargetSession, WriteKind
from plugins.sqlite.apply import SqliteTargetSession
from plugins.sqlite.connect import Connection
from tests.sqlite.support import (
    EPOCH,
    HUB,
    SECONDS_MAX,
    World,
    assign,
    delete,
    echoes,
    end,
    flat,
    hear,
    insert,
    make_write,
    open_world,
    run_python,
    update,
)

pytestmark = pytest.mark.anyio
SECRET = "4711-secret"
CUSTOMERS = "create table customers (id integer primary key, name text, email text unique)"
COLUMNS = ("id", "name", "email")
ANNA = (1, "Anna", "a@example")
TIDY = (
    "create trigger tidy after insert on customers begin"
    " update customers set name = trim(new.name) where id = new.id; end"
)


def connection_of(session: TargetSession) -> Connection:
    """To make its disk full or its limits narrow."""
    return cast("SqliteTargetSession", session)._session.connection  # pyright: ignore[reportPrivateUsage]


class TestMarker:
    async def test_it_is_the_first_row_of_the_delivery_in_the_log(self, world: World) -> None:
        await world.create(CUSTOMERS, TIDY)
        async with world.session() as session:
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
        ops = [op for (op,) in world.rows("select op from concord_journal order by id")]
        assert ops[0] == "M"
        assert len(ops) > 1
        assert world.rows("select distinct delivery from concord_journal") == [(1,)]

    async def test_it_is_there_with_the_rows_and_not_before(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            async with session.delivery(8) as delivery:
                await delivery.write(insert("customers", COLUMNS, [ANNA]))
                assert world.marker() == (HUB, EPOCH, 0, 0)
            assert world.marker() == (HUB, EPOCH, 8, 0)
        assert world.rows("select * from customers") == [ANNA]

    async def test_a_delivery_that_fails_leaves_neither(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            with pytest.raises(RowRefused):
                await world.deliver(session, insert("customers", COLUMNS, [ANNA, (2, "b", ANNA[2])]))
            assert world.marker() == (HUB, EPOCH, 0, 0)
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
        assert world.rows("select * from customers") == [ANNA]
        assert world.rows("select op, c0 from concord_journal") == [("M", 2)]

    async def test_a_cancelled_delivery_leaves_neither_and_no_lock(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            with anyio.CancelScope() as scope:
                async with session.delivery(8) as delivery:
                    await delivery.write(insert("customers", COLUMNS, [ANNA]))
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
            world.users.set_busy_timeout(0)
            world.run("insert into customers values (2, 'b', 'b')")
        assert world.rows("select id from customers") == [(2,)]

    async def test_one_cancelled_while_it_waits_for_the_lock_leaves_none(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session, anyio.create_task_group() as tasks:
            world.run("begin immediate")
            started = anyio.Event()

            async def deliver() -> None:
                started.set()
                async with session.delivery(8) as delivery:
                    await delivery.write(insert("customers", COLUMNS, [ANNA]))

            tasks.start_soon(deliver)
            await started.wait()
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
            world.run("commit")
        world.users.set_busy_timeout(0)
        world.run("insert into customers values (2, 'b', 'b')")
        assert world.marker()[2:] == (0, 0)

    async def test_an_empty_delivery_moves_it(self, world: World) -> None:
        await world.create(CUSTOMERS)
        await world.deliver_alone()
        assert world.marker() == (HUB, EPOCH, 1, 0)
        (batch,) = await world.changes("customers")
        assert [segment.seen for segment in batch.segments] == [1]

    async def test_what_users_write_behind_it_is_told_behind_it(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (5, 'before', 'b')")
        await world.deliver_alone(insert("customers", COLUMNS, [ANNA]))
        world.run("update customers set name = 'behind' where id = 1")
        (batch,) = await world.changes("customers")
        assert [segment.seen for segment in batch.segments] == [None, 1]
        assert flat([batch]) == [("I", (5, "before", "b")), ("U", (1, "behind", "a@example"))]


class TestClaim:
    async def test_an_older_daemon_is_shut_out_from_then_on(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session(epoch=3) as older, world.session(epoch=4) as later:
            with pytest.raises(Fenced) as caught:
                await world.deliver(older, insert("customers", COLUMNS, [ANNA]))
            assert caught.value.disposition is Disposition.HALT
            with pytest.raises(Fenced):
                await older.claim(HUB, 3)
            await world.deliver(later, insert("customers", COLUMNS, [ANNA]))
            assert world.marker()[:2] == (HUB, 4)
            assert not connection_of(older).in_transaction

    async def test_the_seq_of_the_last_delivery_is_told(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session, session.delivery(42):
            pass
        async with world.session(epoch=4) as session:
            assert await session.claim(HUB, 5) == 42

    async def test_another_hub_is_turned_away(self, world: World) -> None:
        await world.create(CUSTOMERS)
        await world.deliver_alone()
        with pytest.raises(TargetUnready, match="another hub"):
            async with world.session(hub="another"):
                pass
        assert world.marker()[0] == HUB

    async def test_without_set_up_it_says_so(self, world: World) -> None:
        world.run(CUSTOMERS)
        with pytest.raises(TargetUnready, match="not there") as caught:
            async with world.session():
                pass
        assert caught.value.hint == "Run `concord setup crm`."

    async def test_a_marker_that_was_emptied_stops_delivery(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            world.run("delete from concord_marker")
            with pytest.raises(TargetUnready, match="row is gone"):
                await world.deliver(session)

    async def test_a_teardown_under_an_open_connection_stops_delivery(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            await world.system.teardown()
            with pytest.raises(ConcordError) as caught:
                await world.deliver(session)
        assert caught.value.disposition is Disposition.HALT
        assert "setup" in caught.value.hint


class TestRepeating:
    async def test_writes_done_twice_are_done_once(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (2, 'old', 'b'), (3, 'old', 'c')")
        writes = (
            insert("customers", COLUMNS, [ANNA]),
            update("customers", ("id", "name"), [(2, "new")]),
            delete("customers", [(3,)]),
        )
        async with world.session() as session:
            first = await world.deliver(session, *writes)
            wanted = world.rows("select * from customers order by id")
            assert wanted == [ANNA, (2, "new", "b")]
            assert await world.deliver(session, *writes) == first
        assert world.rows("select * from customers order by id") == wanted

    async def test_rows_of_an_update_that_are_not_there_are_told_by_index(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (2, 'old', 'b')")
        (result,) = await world.deliver_alone(update("customers", ("id", "name"), [(1, "x"), (2, "y"), (3, "z")]))
        assert result.missing == (0, 2)
        assert world.rows("select id, name from customers") == [(2, "y")]

    async def test_a_row_of_nothing_but_its_key(self, world: World) -> None:
        await world.create("create table t (id integer primary key)")
        write = insert("t", ("id",), [(1,), (2,)])
        assert [
            len(r.missing) for r in await world.deliver_alone(write, write, update("t", ("id",), [(1,), (9,)]))
        ] == [
            0,
            0,
            1,
        ]
        assert world.rows("select id from t") == [(1,), (2,)]

    @pytest.mark.parametrize(
        "table",
        [
            "create table t (a not null, b not null, c, primary key (b, a))",
            "create table t (a not null, b not null, c, primary key (a, b)) without rowid",
            "create table t (id integer primary key, a, b, c, unique (a, b))",
            "create table t (a, b, c)",
        ],
    )
    async def test_composite_and_other_keys(self, world: World, table: str) -> None:
        """A mapping may call a key what no constraint does."""
        await world.create(table)
        key = ("a", "b")
        writes = (
            insert("t", ("a", "b", "c"), [(1, "x", 1), (1, "y", 1)], key),
            insert("t", ("a", "b", "c"), [(1, "x", 2)], key),
            update("t", ("c", "b", "a"), [(3, "y", 1)], key),
        )
        await world.deliver_alone(*writes)
        assert world.rows("select a, b, c from t order by b") == [(1, "x", 2), (1, "y", 3)]
        await world.deliver_alone(delete("t", [(1, "x")], key))
        assert world.rows("select b from t") == [("y",)]

    async def test_names_of_any_kind(self, world: World) -> None:
        await world.create('create table "or\'der ""x""" ("sel ect" integer primary key, "v;--" text)')
        table, columns = 'or\'der "x"', ("sel ect", "v;--")
        await world.deliver_alone(
            insert(table, columns, [(1, "a"), (2, "b")], columns[:1]),
            update(table, columns, [(1, "c")], columns[:1]),
            delete(table, [(2,)], columns[:1]),
        )
        assert world.rows('select * from "or\'der ""x"""') == [(1, "c")]


class TestAssignedKeys:
    async def test_keys_are_told_and_kept_beside_the_marker(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run("insert into customers values (70, 'x', 'x')")
        async with world.session() as session:
            (result,) = await world.deliver(session, self.write("a", "b"))
            assert result.keys == ("71", "72")
            assert await session.assigned(0) == (
                Assigned(rid=11, place="customers", key="71", seq=1),
                Assigned(rid=12, place="customers", key="72", seq=1),
            )
            assert await session.assigned(1) == ()

    async def test_a_delivery_repeated_after_a_lost_answer_keeps_the_keys(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            (first,) = await world.deliver(session, self.write("a", "b"))
            (again,) = await world.deliver(session, self.write("A", "b"))
        assert again == first
        assert world.rows("select id, email from customers") == [(1, "A"), (2, "b")]

    async def test_one_that_was_rolled_back_hands_out_nothing(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            with pytest.raises(RowRefused):
                await world.deliver(session, self.write("a", "a"))
            assert await session.assigned(0) == ()
        assert world.value("select count(*) from customers") == 0

    async def test_a_row_that_a_user_deleted_since_is_made_anew(self, world: World) -> None:
        await world.create("create table customers (id integer primary key autoincrement, name, email)")
        async with world.session() as session:
            await world.deliver(session, self.write("a"))
            world.run("delete from customers")
            (again,) = await world.deliver(session, self.write("a"))
            assert again.keys == ("2",)
            assert [found.key for found in await session.assigned(0)] == ["2"]

    @pytest.mark.parametrize("counts", ["", " autoincrement"])
    async def test_the_key_of_a_row_whose_deletion_nobody_has_read_is_not_given_again(
        self, world: World, counts: str
    ) -> None:
        await world.create(f"create table customers (id integer primary key{counts}, name, email)")
        world.run("insert into customers values (1, 'x', 'x'), (7, 'y', 'y'), (9, 'z', 'z')")
        world.run("delete from customers where id = 9")
        world.run("delete from customers where id = 7")
        async with world.session() as session:
            (result,) = await world.deliver(session, self.write("a", "b"))
        assert result.keys == ("10", "11")

    async def test_a_process_killed_between_commit_and_answer_made_no_second_row(self, world: World) -> None:
        await world.create(CUSTOMERS)
        kill(world, commits=True)
        async with world.session() as session:
            assert await session.claim(HUB, EPOCH) == 1
            assert [found.key for found in await session.assigned(0)] == ["1"]
            world.seq = 1
            (again,) = await world.deliver(session, self.write("a"))
        assert again.keys == ("1",)
        assert world.rows("select id, email from customers where email = 'a'") == [(1, "a")]

    async def test_a_table_without_a_primary_key_hands_out_rowids(self, world: World) -> None:
        await world.create("create table t (n)")
        (result,) = await world.deliver_alone(assign("t", ("n",), [("x",), ("y",)], [1, 2], key="rowid"))
        assert result.keys == ("1", "2")

    def write(self, *emails: str) -> TableWrite:
        return assign("customers", ("email",), [(email,) for email in emails], [11, 12][: len(emails)])


def kill(world: World, *, commits: bool) -> None:
    """A daemon that is killed with a delivery written, and committed or not."""
    program = (
        "import anyio, sys\n"
        "from pathlib import Path\n"
        "from tests.sqlite.support import *\n"
        "world = World(Path(sys.argv[1]), SqliteConfig(path='crm.db'), connect(Path(sys.argv[1])))\n"
        "async def main():\n"
        "    async with world.session() as session:\n"
        "        async with session.delivery(1) as delivery:\n"
        "            await delivery.write(assign('customers', ('email',), [('a',)], [11]))\n"
        "            rows = [(n, 'long' * 200, str(n)) for n in range(1000, 3000)]\n"
        "            await delivery.write(insert('customers', ('id', 'name', 'email'), rows))\n"
        f"            {'pass' if commits else 'halt()'}\n"
        "        halt()\n"
        "def halt(): print('written', flush=True); sys.stdin.readline()\n"
        "anyio.run(main)\n"
    )
    daemon = run_python(program, str(world.path))
    try:
        assert hear(daemon) == "written"
    finally:
        end(daemon)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_a_process_killed_in_the_middle_of_a_delivery_leaves_nothing(tmp_path: Path, journal_mode: str) -> None:
    world = open_world(tmp_path, journal_mode=journal_mode)
    await world.create(CUSTOMERS, TIDY)
    world.run("insert into customers values (900, 'mine', 'mine')")
    before = world.head()
    kill(world, commits=False)
    assert world.rows("select * from customers") == [(900, "mine", "mine")]
    assert world.marker()[2:] == (0, 0)
    assert world.head() == before
    world.run("insert into customers values (901, 'next', 'next')")
    assert {row[0] for _, row in flat(await world.changes("customers"))} == {900, 901}
    assert world.value("pragma integrity_check") == "ok"
    world.users.close()


REFUSALS: dict[str, tuple[str, WireRow, str, str]] = {
    "unique": ("a text unique, b", (2, SECRET, 1), "unique", "a"),
    "unique of several": ("a, b, unique (a, b)", (2, SECRET, 1), "unique", "a, b"),
    "unique that says replace": ("a unique on conflict replace, b", (2, SECRET, 1), "unique", "a"),
    "unique that says ignore": ("a unique on conflict ignore, b", (2, SECRET, 1), "unique", "a"),
    "not null": ("a text, b text not null", (2, SECRET, None), "not_null", "b"),
    "not null that says ignore": ("a, b not null on conflict ignore", (2, SECRET, None), "not_null", "b"),
    "check": ("a, b constraint positive check (b > 0)", (2, SECRET, -1), "check", "positive"),
    "foreign key": ("a references parents, b", (2, SECRET, 1), "foreign_key", ""),
    "deferred key": ("a references parents deferrable initially deferred, b", (2, SECRET, 1), "foreign_key", ""),
    "strict": ("a any, b integer", (2, 1, SECRET), "value", "b"),
    "key that is no integer": ("a, b", (SECRET, 1, 1), "value", ""),
    "generated": ("a, b as (a)", (2, SECRET, 1), "table", ""),
    "gone column": ("a", (2, SECRET, 1), "table", "b"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSALS)
    async def test_every_kind_names_its_row_and_column_and_no_value(self, world: World, name: str) -> None:
        columns, row, reason, names = REFUSALS[name]
        world.run("create table parents (id primary key)")
        world.run(f"create table t (id integer primary key, {columns}){' strict' if name == 'strict' else ''}")
        if reason == "unique":
            world.run(f"insert into t (id, a, b) values (1, '{SECRET}', 1)")
        before = world.rows("select * from t")
        await world.setup("t")
        refused = await self.refuse(world, insert("t", ("id", "a", "b"), [row]))
        assert (refused.reason, refused.disposition) == (reason, Disposition.PARK)
        assert refused.context["table"] == "t"
        assert refused.hint
        if names:
            assert names in refused.message
        assert world.rows("select * from t") == before

    @pytest.mark.parametrize("kind", [WriteKind.UPDATE, WriteKind.INSERT])
    async def test_the_row_is_known_by_its_index_and_its_neighbours_are_not_written(
        self, world: World, kind: WriteKind
    ) -> None:
        await world.create("create table t (id integer primary key, a check (typeof(a) = 'integer'))")
        world.run("insert into t values (1, 1), (2, 2), (3, 3)")
        write = make_write(kind, "t", ("id", "a"), [(1, 9), (2, 9), (3, SECRET)], ("id",))
        assert (await self.refuse(world, write)).row_index == 2
        assert world.rows("select a from t") == [(1,), (2,), (3,)]

    async def test_the_delivery_goes_on_without_what_was_refused(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session, session.delivery(1) as delivery:
            await delivery.write(insert("customers", COLUMNS, [ANNA]))
            with pytest.raises(RowRefused):
                await delivery.write(insert("customers", COLUMNS, [(2, "b", "b"), (3, "c", ANNA[2])]))
            await delivery.write(insert("customers", COLUMNS, [(4, "d", "d")]))
        assert world.rows("select id from customers") == [(1,), (4,)]
        assert world.marker()[2:] == (1, 0)

    async def test_a_row_that_others_refer_to_is_not_deleted(self, world: World) -> None:
        await world.create(CUSTOMERS, "create table sites (id integer primary key, customer references customers)")
        world.run("insert into customers values (1, 'a', 'a')", "insert into sites values (1, 1)")
        assert (await self.refuse(world, delete("customers", [(1,)]))).reason == "foreign_key"

    async def test_a_table_that_is_gone_parks_its_rows(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
            world.run("drop table customers")
            with pytest.raises(RowRefused, match="no table customers") as caught:
                await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
            assert caught.value.reason == "table"

    async def test_a_view_is_no_table_even_with_triggers_that_write_it(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.run(
            "create view people as select id, name from customers",
            "create trigger into_people instead of insert on people begin"
            " insert into customers (id) values (new.id); end",
        )
        assert "people" not in await world.system.shapes()
        assert (await self.refuse(world, insert("people", ("id",), [(1,)]))).reason == "table"

    async def test_what_a_trigger_of_the_owner_raises_is_a_refusal_without_its_words(self, world: World) -> None:
        """They may hold a value."""
        await world.create(CUSTOMERS)
        world.run(
            "create trigger guard before insert on customers begin"
            " select raise(abort, '4711-secret is not wanted'); end"
        )
        refused = await self.refuse(world, insert("customers", COLUMNS, [ANNA]))
        assert (refused.reason, refused.row_index) == ("other", 0)
        assert "trigger" in refused.message

    async def test_a_trigger_that_rolls_everything_back_costs_its_row_alone(self, world: World) -> None:
        """Also what comes behind it is written with the marker, not each row by itself."""
        await world.create(CUSTOMERS)
        world.run(
            "create trigger guard before insert on customers when new.id = 2 begin select raise(rollback, 'no'); end"
        )
        async with world.session() as session, session.delivery(1) as delivery:
            await delivery.write(insert("customers", COLUMNS, [ANNA]))
            first = await delivery.write(assign("customers", ("email",), [("x",)], [11]))
            with pytest.raises(RowRefused) as caught:
                await delivery.write(insert("customers", COLUMNS, [(5, "e", "e"), (2, "b", "b")]))
            assert caught.value.row_index == 1
            await delivery.write(insert("customers", COLUMNS, [(3, "c", "c")]))
            assert connection_of(session).in_transaction
            assert world.rows("select * from customers") == []
        assert first.keys == ("2",)
        assert world.rows("select id from customers order by id") == [(1,), (2,), (3,)]
        assert world.marker()[2:] == (1, 0)
        assert world.rows("select distinct delivery from concord_journal") == [(1,)]
        assert world.rows("select count(*) from concord_journal where op = 'M'") == [(1,)]

    @pytest.mark.parametrize(
        ("event", "write"),
        [
            ("insert", insert("customers", COLUMNS, [(2, "b", "b")])),
            ("insert", assign("customers", ("email",), [("b",)], [11])),
            ("update", insert("customers", COLUMNS, [ANNA])),
            ("update", update("customers", ("id", "name"), [(1, "b")])),
            ("delete", delete("customers", [(1,)])),
        ],
        ids=["insert", "assign", "upsert", "update", "delete"],
    )
    async def test_a_trigger_that_ignores_the_row_is_a_refusal(
        self, world: World, event: str, write: TableWrite
    ) -> None:
        """Or the hub would believe in what is not there."""
        await world.create(CUSTOMERS)
        world.run(
            "insert into customers values (1, 'Anna', 'a')",
            f"create trigger guard before {event} on customers begin select raise(ignore); end",
        )
        assert (await self.refuse(world, write)).reason == "other"

    async def test_a_known_key_whose_update_is_ignored_makes_no_second_row(self, world: World) -> None:
        await world.create(CUSTOMERS)
        write = assign("customers", ("email",), [("b",)], [11])
        await world.deliver_alone(write)
        world.run("create trigger guard before update on customers begin select raise(ignore); end")
        await self.refuse(world, write)
        assert world.value("select count(*) from customers") == 1

    async def test_what_is_too_large_is_refused(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            cast("apsw.Connection", connection_of(session)).limit(apsw.SQLITE_LIMIT_LENGTH, 10_000)
            with pytest.raises(RowRefused, match="too large") as caught:
                await world.deliver(session, insert("customers", COLUMNS, [ANNA, (2, SECRET * 2000, "b")]))
            assert (caught.value.reason, caught.value.row_index) == ("value", 1)
            assert SECRET not in str(caught.value)

    async def test_a_table_that_has_no_more_keys_is_no_full_disk(self, world: World) -> None:
        """SQLite calls it one."""
        await world.create("create table t (id integer primary key autoincrement, a)")
        world.run("insert into t values (9223372036854775807, 'last')")
        refused = await self.refuse(world, assign("t", ("a",), [(SECRET,)], [1]))
        assert (refused.reason, refused.row_index) == ("other", 0)
        assert "no more" in refused.message

    async def refuse(self, world: World, write: TableWrite) -> RowRefused:
        """Deliver the write; what it says holds no value."""
        async with world.session() as session:
            with pytest.raises(RowRefused) as caught:
                await world.deliver(session, write)
        said = f"{caught.value} {caught.value.context}"
        assert SECRET not in said
        return caught.value


class TestTroubles:
    """What is nobody's row's fault is tried again."""

    async def test_a_full_disk(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            full = connection_of(session)
            full.execute("pragma max_page_count = 1")
            row = (2, SECRET * 10_000, "b")
            await self.fail(world, session, insert("customers", COLUMNS, [ANNA, row]), "no space")
            assert world.value("select count(*) from customers") == 0
            full.execute("pragma max_page_count = 100000")
            await world.deliver(session, insert("customers", COLUMNS, [ANNA, row]))
        assert world.value("select count(*) from customers") == 2

    async def test_a_user_that_holds_the_lock(self, tmp_path: Path) -> None:
        world = open_world(tmp_path, busy_timeout_seconds=0.05)
        await world.create(CUSTOMERS)
        async with world.session() as session:
            world.run("begin immediate")
            await self.fail(world, session, insert("customers", COLUMNS, [ANNA]), "holds the database's write lock")
            world.run("commit")
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
        world.users.close()

    async def test_a_reader_that_keeps_a_commit_from_the_file(self, tmp_path: Path) -> None:
        """With a rollback journal a commit waits for readers; it may be tried again as a whole."""
        world = open_world(tmp_path, journal_mode="delete", busy_timeout_seconds=0.05)
        await world.create(CUSTOMERS)
        async with world.session() as session:
            world.run("begin; select * from customers")
            await self.fail(world, session, insert("customers", COLUMNS, [ANNA]), "holds")
            world.run("commit")
            assert world.marker()[2:] == (0, 0)
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
        world.users.close()

    async def test_a_database_that_may_only_be_read(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            connection_of(session).execute("pragma query_only = on")
            await self.fail(world, session, insert("customers", COLUMNS, [ANNA]), "read-only")

    async def test_a_file_that_is_taken_away_is_waited_for(self, world: World) -> None:
        await world.create(CUSTOMERS)
        world.users.close()
        for file in world.path.parent.iterdir():
            file.unlink()
        with pytest.raises(SystemUnreachable):
            await world.deliver_alone(insert("customers", COLUMNS, [ANNA]))
        assert not world.path.exists()

    async def fail(self, world: World, session: TargetSession, write: TableWrite, said: str) -> None:
        with pytest.raises(TargetBusy, match=said) as caught:
            await world.deliver(session, write)
        assert caught.value.disposition is Disposition.RETRY
        assert caught.value.hint
        assert SECRET not in f"{caught.value} {caught.value.context}"
        assert not connection_of(session).in_transaction


class TestSideEffects:
    """What triggers and cascades do inside a delivery is no change of a user, and must be seen all the same."""

    async def test_rows_without_any_are_not_journalled(self, world: World) -> None:
        await world.create(CUSTOMERS)
        await world.deliver_alone(insert("customers", COLUMNS, [ANNA]))
        assert world.rows("select op from concord_journal") == [("M",)]

    async def test_rows_of_a_table_under_verification_are(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.feed("customers", verify=frozenset({"customers"})) as feed:
            await world.deliver_alone(insert("customers", COLUMNS, [ANNA]))
            batches = await world.drain(feed)
        assert echoes(batches, "customers") == [(1, "I", ANNA)]
        assert flat(batches) == []

    async def test_what_a_trigger_writes_into_another_table_comes_as_an_echo(self, world: World) -> None:
        await world.create(
            CUSTOMERS,
            "create table visits (id integer primary key, customer)",
            "create trigger greet after insert on customers begin insert into visits (customer) values (new.id); end",
        )
        await world.deliver_alone(insert("customers", COLUMNS, [ANNA]))
        batches = await world.changes("customers", "visits")
        assert echoes(batches, "visits") == [(1, "I", (1, 1))]
        assert flat(batches) == []

    async def test_what_a_cascade_takes_away_comes_as_an_echo(self, world: World) -> None:
        await world.create(
            CUSTOMERS, "create table sites (id integer primary key, customer references customers on delete cascade)"
        )
        world.run("insert into customers values (1, 'a', 'a')", "insert into sites values (5, 1)")
        await world.deliver_alone(delete("customers", [(1,)]))
        batches = await world.changes("customers", "sites")
        assert echoes(batches, "sites") == [(1, "D", (5, 1))]
        assert [op for op, _ in flat(batches)] == ["I", "I"]

    async def test_a_trigger_made_under_an_open_connection_runs(self, world: World) -> None:
        await world.create(CUSTOMERS)
        async with world.session() as session:
            await world.deliver(session, insert("customers", COLUMNS, [ANNA]))
            world.run(TIDY)
            await world.deliver(session, insert("customers", COLUMNS, [(2, " b ", "b")]))
        assert world.rows("select name from customers where id = 2") == [("b",)]


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_medium_that_may_only_be_read_is_told_and_waited_for(journal_mode: str) -> None:
    """By a process without root's rights, which no permission binds."""
    program = (
        "import os, sys, anyio\n"
        "from pathlib import Path\n"
        "from engine.errors import ConcordError\n"
        "from tests.sqlite.support import *\n"
        "async def main(path):\n"
        "    world = open_world(path, journal_mode=sys.argv[2])\n"
        "    await world.create('create table t (id integer primary key)')\n"
        "    world.users.close()\n"
        "    (path / 'crm.db').chmod(0o444); path.chmod(0o555)\n"
        "    if os.getuid() == 0: os.setuid(65534)\n"
        "    try:\n"
        "        await world.deliver_alone(insert('t', ('id',), [(1,)]))\n"
        "    except ConcordError as error:\n"
        "        print(error.disposition.value, '|', error)\n"
        "anyio.run(main, Path(sys.argv[1]))\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        said, _ = run_python(program, directory, journal_mode).communicate(timeout=SECONDS_MAX)
        Path(directory).chmod(0o755)
    assert said.startswith("retry | system crm: the database is read-only")
