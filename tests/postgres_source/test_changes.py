"""Goal: every kind of change arrives as what it was, and whatever else happens to a table is told.
Method: a user's connection makes changes in a real database; the feed's batches are compared with them."""

from __future__ import annotations

import anyio
import pytest

from engine.errors import SourceUnready
from engine.model.change import EventKind
from engine.model.table import Kind
from engine.model.value import ABSENT, WireRow
from engine.ports import Role
from plugins.postgres.capture import PostgresFeed
from tests.postgres_source.support import World, drain, flat

pytestmark = pytest.mark.anyio
# Longer than a page can hold, and not compressible: kept out of line.
LONG = "(select string_agg(md5(n::text), '') from generate_series(1, 400) n)"


async def test_changes_come_in_commit_order_with_time_and_operation(world: World) -> None:
    world.run("create table a (id int primary key, v text)", "create table b (id int primary key, v text)")
    await world.setup("a", "public.b")
    world.run("insert into a values (1, 'x'), (2, null)")
    world.transaction("insert into b values (1, 'y')", "update a set v = '' where id = 1", "delete from a where id = 2")

    batches = await world.changes("a", "public.b")

    assert flat(batches, "a") == [
        ("I", "a", ("1", "x")),
        ("I", "a", ("2", None)),
        ("U", "a", ("1", "")),
        ("D", "a", ("2", ABSENT)),
    ]
    assert flat(batches, "public.b") == [("I", "public.b", ("1", "y"))]
    assert sum(batch.rows_read for batch in batches) == 5
    assert sum(batch.rows_echoed for batch in batches) == 0
    times = [time for batch in batches for s in batch.segments for t in s.tables.values() for time in t.times]
    (now,) = world.rows("select (extract(epoch from clock_timestamp()) * 1e6)::bigint")[0]
    assert all(0 <= now - time < 60_000_000 for time in times)
    assert max(batch.committed_at for batch in batches) == max(times)


async def test_an_unchanged_long_value_is_absent_not_null(world: World) -> None:
    world.run("create table t (id int primary key, long text, n int)")
    await world.setup("t")
    world.run(f"insert into t values (1, {LONG}, 1)", "update t set n = 2", "update t set long = null")
    long = world.rows(f"select {LONG}")[0][0]

    changes = flat(await world.changes("t"))

    assert changes == [("I", "t", ("1", long, "1")), ("U", "t", ("1", ABSENT, "2")), ("U", "t", ("1", None, "2"))]


async def test_an_unchanged_long_value_is_taken_from_a_full_old_row(world: World) -> None:
    world.run("create table t (id int primary key, long text, n int)", "alter table t replica identity full")
    await world.setup("t")
    world.run(f"insert into t values (1, {LONG}, 1)", "update t set n = 2", "delete from t")
    long = world.rows(f"select {LONG}")[0][0]

    batches = await world.changes("t")

    assert flat(batches)[1:] == [("U", "t", ("1", long, "2")), ("D", "t", ("1", long, "2"))]
    assert not batches[0].segments[0].tables["t"].old


async def test_a_change_of_the_key_brings_the_old_key(world: World) -> None:
    world.run("create table t (a int, v text, b text, primary key (b, a))")
    world.run("create table f (a int primary key, v text)", "alter table f replica identity full")
    await world.setup("t", "f")
    world.run("insert into t values (1, 'v', 'b')", "update t set a = 2", "update t set v = 'w'")
    world.run("insert into f values (1, 'v')", "update f set a = 2", "update f set v = 'w'")

    batches = await world.changes("t", "f")

    # Each row with its old key; where the batches end is the server's affair.
    found: dict[str, list[tuple[WireRow, WireRow | None]]] = {"t": [], "f": []}
    for table in found:
        for rows in (s.tables[table] for batch in batches for s in batch.segments if table in s.tables):
            found[table] += [(row, rows.old.get(n)) for n, row in enumerate(rows.rows)]
    assert found["t"] == [(("1", "v", "b"), None), (("2", "v", "b"), ("1", ABSENT, "b")), (("2", "w", "b"), None)]
    assert [old for _, old in found["f"]] == [None, ("1", "v"), None]


async def test_a_key_kept_out_of_line_is_known_in_every_row(world: World) -> None:
    world.run("create table t (k text primary key, n int)", "alter table t alter k set storage external")
    await world.setup("t")
    long = world.rows("select string_agg(md5(n::text), '') from generate_series(1, 70) n")[0][0]
    world.run(f"insert into t values ('{long}', 1)", "update t set n = 2", "delete from t")

    changes = flat(await world.changes("t"))

    assert changes == [("I", "t", (long, "1")), ("U", "t", (long, "2")), ("D", "t", (long, ABSENT))]


async def test_truncate_is_told_before_the_rows_that_follow(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    await world.setup("t", "u")
    world.transaction("insert into t values (1)", "truncate t, u", "insert into t values (2)")

    batches = await world.changes("t", "u")

    first, second = [segment for batch in batches for segment in batch.segments]
    assert first.tables["t"].rows == [("1",)]
    assert [(event.kind, event.table) for event in second.events] == [
        (EventKind.TRUNCATED, "t"),
        (EventKind.TRUNCATED, "u"),
    ]
    assert second.tables["t"].rows == [("2",)]


async def test_a_new_shape_is_told_and_starts_a_segment(world: World) -> None:
    world.run("create table t (id int primary key, v varchar(5), gone int)")
    await world.setup("t")
    world.run("insert into t values (1, 'a', 0)")
    world.run("alter table t add n numeric(8,2) not null default 1.5", "alter table t drop gone")
    world.run("insert into t values (2, 'b', 2)")
    world.run(
        "alter table t alter v type varchar(9)", "alter table t rename n to m", "insert into t values (3, 'c', 3)"
    )

    segments = [segment for batch in await world.changes("t") for segment in batch.segments]

    assert [[event.kind for event in s.events] for s in segments] == [[], [EventKind.RESHAPED], [EventKind.RESHAPED]]
    assert [s.tables["t"].rows for s in segments] == [[("1", "a", "0")], [("2", "b", "2.00")], [("3", "c", "3.00")]]
    shapes = [s.tables["t"].shape for s in segments]
    assert [[column.name for column in shape.columns] for shape in shapes] == [
        ["id", "v", "gone"],
        ["id", "v", "n"],
        ["id", "v", "m"],
    ]
    assert [shape.columns[1].length for shape in shapes] == [5, 5, 9]
    # The catalogue had moved on when these rows were read; their types still are what they were.
    assert [shape.columns[2].kind for shape in shapes] == [Kind.INTEGER, Kind.DECIMAL, Kind.DECIMAL]
    assert [shape.columns[2].scale for shape in shapes] == [None, 2, 2]
    assert segments[1].events[0].shape == shapes[1]
    details = [segment.events[0].detail for segment in segments[1:]]
    assert details[0].startswith("column gone dropped, column n added (numeric")
    assert "column n dropped, column m added (numeric" in details[1]
    assert "column v is character varying(9), was" in details[1]


async def test_shape_changes_while_the_feed_runs(world: World) -> None:
    world.run("create table t (id int primary key, v text)")
    await world.setup("t")
    async with world.feed("t") as feed:
        world.run("insert into t values (1, 'a')")
        before = await drain(feed, world.end())
        world.run("alter table t add w text default 'w'", "insert into t values (2, 'b')")
        after = await drain(feed, world.end())

    assert flat(before) == [("I", "t", ("1", "a"))]
    assert flat(after) == [("I", "t", ("2", "b", "w"))]
    (segment,) = [segment for batch in after for segment in batch.segments]
    assert [event.kind for event in segment.events] == [EventKind.RESHAPED]
    assert segment.events[0].detail == "column w added (text)"
    assert segment.tables["t"].shape == (await world.system.shapes(["t"]))["t"]


async def test_a_new_label_of_an_enum_is_told_without_a_row(world: World) -> None:
    world.run("create type mood as enum ('a')", "create table t (id int primary key, m mood)")
    await world.setup("t")
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("insert into t values (1, 'a')")
        await drain(feed, world.end())
        world.run("alter type mood add value 'b'")
        await feed.look()
        batch = await feed.receive(10)

    assert [event.kind for event in batch.segments[0].events] == [EventKind.RESHAPED]
    shape = batch.segments[0].events[0].shape
    assert shape is not None
    assert shape.columns[1].labels == ("a", "b")
    assert batch.segments[0].events[0].detail == "column m allows b now"


async def test_what_became_of_a_table_is_told_column_by_column(world: World) -> None:
    world.run("create table t (id int not null, a int, b text, c int, primary key (id))")
    await world.setup("t")
    changes = {
        "alter table t alter a type bigint, drop b": "column b dropped, column a is bigint, was integer",
        "alter table t alter c set not null, alter c set default 5": "column c must not be null now, has a default now",
        "alter table t alter c drop not null, alter c drop default": "column c may be null now,"
        " has no default any more",
        "alter table t add unique (a)": "its unique constraints are others",
        "alter table t drop constraint t_pkey, add primary key (id, c)": "column c must not be null now,"
        " key is (id, c), was (id)",
        "create trigger x before insert on t for each row execute function suppress_redundant_updates_trigger()": "it"
        " has triggers now",
    }
    told: list[str] = []
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("insert into t values (1, 1, 'x', 1)")
        await drain(feed, world.end())
        for change in changes:
            # New columns are told by the log with the next row, the rest by a look.
            world.run(change, "update t set a = a + 1")
            await feed.look()
            batches = await drain(feed, world.end())
            told += [e.detail for batch in batches for segment in batch.segments for e in segment.events]
    assert told == list(changes.values())


async def test_tables_that_vanish_or_are_taken_out_are_told_once(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    await world.setup("t", "u")
    async with world.feed("t", "u") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("alter publication concord_crm drop table t", "drop table u")
        await feed.look()
        batch = await feed.receive(10)
        await feed.look()
        later = await drain(feed, world.end())

    events = [(event.kind, event.table) for event in batch.segments[0].events]
    assert events == [(EventKind.UNPUBLISHED, "t"), (EventKind.DROPPED, "u")]
    assert 'alter publication "concord_crm" add table "public"."t"' in batch.segments[0].events[0].detail
    assert not [segment for batch in later for segment in batch.segments]


async def test_a_table_that_was_taken_out_and_put_back_between_two_looks_is_told(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    await world.setup("t", "u")
    async with world.feed("t", "u") as feed:
        assert isinstance(feed, PostgresFeed)
        await feed.look()
        world.run(
            "alter publication concord_crm drop table t",
            "insert into t values (1)",
            "alter publication concord_crm add table t",
        )
        await feed.look()
        batches = await drain(feed, world.end())
        await feed.look()
        # That it is put back after it was told to be away is the cure, and told once.
        world.run("alter publication concord_crm drop table u")
        await feed.look()
        world.run("alter publication concord_crm add table u")
        await feed.look()
        batches += await drain(feed, world.end())
    events = [event for batch in batches for segment in batch.segments for event in segment.events]
    assert [(event.kind, event.table) for event in events] == [
        (EventKind.UNPUBLISHED, "t"),
        (EventKind.UNPUBLISHED, "u"),
    ]
    assert "put back" in events[0].detail


@pytest.mark.parametrize(
    "change", ["drop table concord.marker", "set (publish = 'insert')", "set (publish = 'insert, delete, truncate')"]
)
async def test_a_publication_that_does_not_send_what_it_must_ends_the_feed(world: World, change: str) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run(f"alter publication concord_crm {change}")
        with pytest.raises(SourceUnready, match="publication concord_crm") as told:
            await feed.look()
    assert "concord backfill crm" in (told.value.hint or "")
    with pytest.raises(SourceUnready, match="publication concord_crm"):
        async with world.feed("t"):
            pass


async def test_a_publication_that_filters_rows_holds_the_table(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    if int(world.rows("show server_version_num")[0][0]) < 150_000:
        return  # Row filters came with PostgreSQL 15.
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("alter publication concord_crm set table t where (id > 5), concord.marker")
        await feed.look()
        batch = await feed.receive(10)
    (event,) = batch.segments[0].events
    assert (event.kind, event.table) == (EventKind.UNPUBLISHED, "t")
    assert "filters its rows" in event.detail


async def test_a_table_missing_at_the_start_is_told_first(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    async with world.feed("t", "nothere") as feed:
        batch = await feed.receive(10)

    assert [(event.kind, event.table) for event in batch.segments[0].events] == [(EventKind.DROPPED, "nothere")]


async def test_rows_of_tables_that_take_no_part_only_move_the_position(world: World) -> None:
    world.run("create table t (id int primary key)", "create table other (id int primary key)")
    await world.setup("t", "other")
    async with world.feed("t") as feed:
        start = feed.position
        world.run("insert into other select generate_series(1, 100)")
        end = world.end()
        batches = await drain(feed, end)

    assert not flat(batches)
    assert all(not batch.segments and batch.rows_read == 0 for batch in batches)
    assert start < batches[-1].position


async def test_names_are_taken_literally(world: World) -> None:
    world.run('create schema "S.x"', 'create table "S.x"."T""q" ("Id" int primary key, "select" text)')
    name = '"S.x"."T""q"'
    await world.setup(name)
    world.run('insert into "S.x"."T""q" values (1, \'a\')')

    batches = await world.changes(name)

    assert flat(batches) == [("I", name, ("1", "a"))]
    assert name in await world.system.shapes()
    assert (await world.system.page(name, ("0",), 5)).rows == [("1", "a")]


async def test_a_partitioned_table_is_one_table(world: World) -> None:
    world.run("create table p (id int, part int, primary key (id, part)) partition by list (part)")
    world.run("create table p1 partition of p for values in (1)", "create table p2 partition of p for values in (2)")
    await world.setup("p")
    world.run("insert into p values (1, 1), (2, 2)", "update p set part = 2 where id = 1")

    changes = flat(await world.changes("p"))

    assert changes[:2] == [("I", "p", ("1", "1")), ("I", "p", ("2", "2"))]
    assert sorted(changes[2:]) == sorted([("D", "p", ("1", "1")), ("I", "p", ("1", "2"))])
    assert set(await world.system.shapes()) == {"public.p"}


async def test_the_log_of_a_slot_made_before_its_publication_is_refused_with_a_way_out(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t", role=Role.SOURCE)
    world.run("drop publication concord_crm")

    with pytest.raises(SourceUnready, match="publication concord_crm does not exist") as refusal:
        async with world.feed("t"):
            pass

    assert refusal.value.hint


async def test_a_cancelled_receive_loses_nothing(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    changes: list[tuple[str, str, object]] = []
    async with world.feed("t") as feed:
        for start in range(0, 500, 50):
            world.run(f"insert into t select generate_series({start}, {start + 49})")
            # Wherever cancellation strikes: at once, in the wait, in the middle of the transaction.
            with anyio.move_on_after(start / 100_000):
                changes += flat([await feed.receive(7)])
        changes += flat(await drain(feed, world.end(), 7))

    assert [row for _, _, row in changes] == [(str(n),) for n in range(500)]
