"""Goal: whatever a migration does to a captured table, the feed tells it or goes on rightly; rows journalled before it
are read as what they were.

Method: the statements of real migrations (SQLite's own twelve-step rebuild, renames, added columns) between changes,
with a feed running through them and with one opened afterwards.
"""

from __future__ import annotations

import apsw
import pytest

from engine.errors import PositionLost, SourceUnready
from engine.model.change import Batch, EventKind, TableEvent
from engine.model.value import ABSENT
from engine.ports import Feed, Role
from tests.sqlite.support import World, echoes, flat, insert

pytestmark = pytest.mark.anyio
BOTH = Role.SOURCE | Role.TARGET
CUSTOMERS = "create table customers (id integer primary key, name text, email text)"
REBUILD = (
    "create table new_customers (email text, id integer primary key, name text, phone text);"
    " insert into new_customers (id, name, email) select id, name, email from customers;"
    " drop table customers; alter table new_customers rename to customers"
)


def events(batches: list[Batch]) -> list[TableEvent]:
    return [event for batch in batches for segment in batch.segments for event in segment.events]


async def settle(world: World, feed: Feed) -> list[Batch]:
    """What the feed tells up to a change that is made now."""
    world.run("create table if not exists bell (n)", "insert into bell values (1)")
    batches = await world.drain(feed)
    return batches or [await feed.receive(100)]


async def test_a_rebuilt_table_is_told_to_be_captured_no_more(world: World) -> None:
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run("insert into customers values (1, 'a', 'x')")
        await world.drain(feed)
        world.run(f"begin; {REBUILD}; commit")
        (event,) = events([await feed.receive(100)])
        assert (event.kind, event.table) == (EventKind.UNPUBLISHED, "customers")
        assert "concord setup crm" in event.detail
        await world.setup("customers")
        world.run("insert into customers (id, name, phone) values (2, 'b', '5')")
        batches = await world.drain(feed)
    (event,) = events(batches)
    assert event.kind is EventKind.RESHAPED
    assert event.shape is not None
    assert [column.name for column in event.shape.columns] == ["email", "id", "name", "phone"]
    assert flat(batches) == [("I", (None, 2, "b", "5"))]


@pytest.mark.parametrize("is_set_up_again", [False, True])
async def test_rows_journalled_before_a_rebuild_are_read_as_what_they_were(
    world: World, *, is_set_up_again: bool
) -> None:
    """The new columns stand in another order, and one was not there."""
    await world.create(CUSTOMERS)
    world.run("insert into customers values (1, 'a', 'x')", f"begin; {REBUILD}; commit")
    if is_set_up_again:
        await world.setup("customers")
    batches = await world.changes("customers")
    assert flat(batches) == [("I", ("x", 1, "a", ABSENT))]
    assert [event.kind for event in events(batches)] == ([] if is_set_up_again else [EventKind.UNPUBLISHED])


async def test_rows_of_a_table_that_was_dropped_are_told_before_that(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("insert into customers values (1, 'a', 'x')", "drop table customers")
    (batch,) = await world.changes("customers")
    assert flat([batch]) == [("I", (1, "a", "x"))]
    assert [event.kind for event in batch.segments[-1].events] == [EventKind.DROPPED]


async def test_an_event_is_told_once(world: World) -> None:
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run("drop table customers")
        assert [event.kind for event in events([await feed.receive(100)])] == [EventKind.DROPPED]
        world.run("create table a (n)", "create table b (n)", f"{CUSTOMERS}")
        assert [event.kind for event in events([await feed.receive(100)])] == [EventKind.UNPUBLISHED]


async def test_a_renamed_column_is_captured_on_without_set_up(world: World) -> None:
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run(
            "insert into customers values (1, 'a', 'x')",
            "alter table customers rename column email to mail",
            "update customers set mail = 'y'",
        )
        batches = await world.drain(feed)
    assert flat(batches) == [("I", (1, "a", "x")), ("U", (1, "a", "y"))]
    assert batches[0].segments[0].tables["customers"].shape.columns[2].name == "mail"
    assert [step.summary for step in await world.system.plan(["customers"], BOTH)] == [
        "capture the changes of customers"
    ]
    await world.setup("customers")
    assert flat(await world.changes("customers")) == [("I", (1, "a", "x")), ("U", (1, "a", "y"))]


async def test_an_added_column_is_told_and_captured_after_set_up(world: World) -> None:
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run("insert into customers values (1, 'a', 'x')")
        await world.drain(feed)
        world.run("alter table customers add column phone text default '0'", "update customers set name = 'b'")
        batches = await world.drain(feed)
        assert "concord setup crm" in events(batches)[0].detail
        assert flat(batches) == [("U", (1, "b", "x"))]
        await world.setup("customers")
        world.run("update customers set phone = '7'")
        batches = await world.drain(feed)
        assert [event.kind for event in events(batches)] == [EventKind.RESHAPED]
        assert flat(batches) == [("U", (1, "b", "x", "7"))]
    # All of it again, by a feed that was not there.
    assert [row[-1] for _, row in flat(await world.changes("customers"))] == [ABSENT, ABSENT, "7"]


async def test_triggers_that_followed_a_renamed_table_are_not_taken_for_its_successors(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("alter table customers rename to old_customers", CUSTOMERS)
    assert [event.kind for event in events(await world.changes("customers") or [await first(world)])] == [
        EventKind.UNPUBLISHED
    ]
    await world.setup("customers")
    world.run("insert into old_customers values (1, 'old', 'x')", "insert into customers values (1, 'new', 'x')")
    assert flat(await world.changes("customers")) == [("I", (1, "new", "x"))]


async def first(world: World) -> Batch:
    async with world.feed("customers") as feed:
        return await feed.receive(100)


async def test_one_trigger_that_is_gone_is_enough_to_tell(world: World) -> None:
    await world.create(CUSTOMERS)
    world.run("drop trigger concord_customers_delete")
    assert [event.kind for event in events([await first(world)])] == [EventKind.UNPUBLISHED]
    assert any("setup" in finding.path for finding in await world.system.check(["customers"], BOTH))


async def test_a_change_of_other_tables_is_no_event(world: World) -> None:
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run("create table other (n)", "create index i on customers (name)")
        world.run("insert into customers values (1, 'a', 'x')")
        assert events(await world.drain(feed)) == []


async def test_a_trigger_made_while_the_feed_runs_shows_in_the_shape_and_in_echoes(world: World) -> None:
    """Or what it does inside our deliveries would be lost until the next start."""
    await world.create(CUSTOMERS)
    async with world.feed("customers") as feed:
        world.run(
            "create trigger tidy after insert on customers begin"
            " update customers set name = trim(new.name) where id = new.id; end"
        )
        (event,) = events(await settle(world, feed))
        assert event.shape is not None
        assert event.shape.has_triggers
        await world.deliver_alone(insert("customers", ("id", "name"), [(1, " a ")]))
        assert [row for _, _, row in echoes(await world.drain(feed), "customers")][-1] == (1, "a", None)


async def test_dropping_a_captured_column_is_refused_by_sqlite_until_teardown(world: World) -> None:
    """What the chapter says about migrations."""
    await world.create(CUSTOMERS)
    with pytest.raises(apsw.SQLError, match="error in trigger"):
        world.run("alter table customers drop column email")
    await world.system.teardown()
    world.run("alter table customers drop column email")


@pytest.mark.parametrize("table", ["concord_journal", "concord_layout"])
async def test_set_up_makes_a_journal_that_somebody_dropped_anew_and_its_place_is_lost(
    world: World, table: str
) -> None:
    await world.create(CUSTOMERS)
    world.run("insert into customers values (1, 'a', 'x'), (2, 'b', 'y')")
    position = (await world.changes("customers"))[-1].position
    world.run("update concord_marker set purged = 2", f"drop table {table}")
    with pytest.raises(SourceUnready, match=r"no change journal|Concord's own tables"):
        await world.changes("customers", after=position)
    await world.setup("customers")
    world.rows("select 1 from customers")
    world.run("insert into customers values (3, 'c', 'z')")
    with pytest.raises(PositionLost):
        await world.changes("customers", after=position)
    # A hub that begins here misses nothing of what came since.
    assert flat(await world.changes("customers")) == [("I", (3, "c", "z"))]


async def test_a_table_wider_than_the_journal_is_found_by_the_check(world: World) -> None:
    columns = [f"c{n}" for n in range(1995)]
    world.run(f"create table wide (id integer primary key, {', '.join(columns[1:])})")
    await world.setup("wide")
    world.run("insert into wide (id) values (1)")
    assert len(flat(await world.changes("wide"))[0][1]) == 1995
    world.run(f"create table wider (id integer primary key, {', '.join(columns)})")
    found = await world.system.check(["wider"], BOTH)
    assert any("1996 columns" in finding.message and finding.is_fatal for finding in found)
