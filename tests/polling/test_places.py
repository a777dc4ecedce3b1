"""Goal: a place is taken up where what is known of the rows is as of that place, and is lost otherwise.

Method: the file that knows the rows removed, put back from an older copy, and made anew; tables that come into the
mapping, go away, are emptied.
"""

from __future__ import annotations

import shutil

import pytest

from engine.errors import PositionLost, SourceUnready
from engine.model.change import EventKind
from engine.testing.contract import flat
from plugins.polling import capture, look
from plugins.polling.config import state_path
from plugins.polling.values import key_values
from tests.polling.support import Polled


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "KEEP_ALIVE_SECONDS", 0.0)


@pytest.mark.anyio
async def test_without_the_file_the_place_is_lost(sqlite: Polled) -> None:
    table = sqlite.create("customers", "name")
    await sqlite.setup(table)
    async with sqlite.feed(table) as feed:
        place = feed.position
    state_path(sqlite.site, sqlite.config).unlink()
    with pytest.raises(PositionLost) as lost:
        await sqlite.changes(table, after=place)
    assert "concord backfill erp" in lost.value.hint
    async with sqlite.feed(table) as feed:
        assert feed.position != place, "from now on"


@pytest.mark.anyio
async def test_a_file_made_anew_is_not_the_file(sqlite: Polled) -> None:
    """Whatever the number of its looks."""
    table = sqlite.create("customers", "name")
    await sqlite.setup(table)
    async with sqlite.feed(table) as feed:
        place = feed.position
    state_path(sqlite.site, sqlite.config).unlink()
    async with sqlite.feed(table) as feed:
        await sqlite.drain(feed)
    with pytest.raises(PositionLost):
        await sqlite.changes(table, after=place)


@pytest.mark.anyio
async def test_an_older_copy_of_the_file_is_not_taken_for_the_file(sqlite: Polled) -> None:
    table = sqlite.create("customers", "name")
    await sqlite.setup(table)
    path = state_path(sqlite.site, sqlite.config)
    async with sqlite.feed(table) as feed:
        place = feed.position
    shutil.copy(path, path.with_name("copy"))
    async with sqlite.feed(table, after=place) as feed:
        sqlite.users.transaction("insert into customers values (1, 'A')")
        place = (await sqlite.drain(feed))[-1].position
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    shutil.copy(path.with_name("copy"), path)
    with pytest.raises(PositionLost):
        await sqlite.changes(table, after=place)


@pytest.mark.anyio
async def test_what_was_confirmed_is_not_told_again(sqlite: Polled) -> None:
    table = sqlite.create("customers", "name")
    await sqlite.setup(table)
    async with sqlite.feed(table) as feed:
        start = feed.position
        sqlite.users.transaction("insert into customers values (1, 'A')")
        batches = await sqlite.drain(feed)
        feed.confirm(batches[-1].position)
        await feed.receive(1)
    with pytest.raises(PositionLost):
        await sqlite.changes(table, after=start)
    assert flat(await sqlite.changes(table, after=batches[-1].position), table) == []


@pytest.mark.anyio
async def test_a_table_that_joins_is_known_as_it_is_then(sqlite: Polled) -> None:
    first, second = sqlite.create("customers", "name"), sqlite.create("sites", "name")
    await sqlite.setup(first, second)
    async with sqlite.feed(first) as feed:
        place = feed.position
    sqlite.users.transaction("insert into customers values (1, 'A')", "insert into sites values (7, 'before')")
    async with sqlite.feed(first, second, after=place) as feed:
        sqlite.users.transaction("insert into sites values (8, 'after')")
        # The table that was there before may be due first.
        batches = [*await sqlite.drain(feed), *await sqlite.drain(feed)]
    assert flat(batches, first) == [("I", ("1", "A"))]
    assert flat(batches, second) == [("I", ("8", "after"))]


@pytest.mark.anyio
async def test_spans_stay_in_the_order_of_their_keys_however_often_they_are_cut(
    kit: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "SPAN_ROWS", 3)
    table = kit.create("customers", "name")
    kit.users.transaction(*(f"insert into customers values ({n}, 'n')" for n in range(0, 900, 3)))
    await kit.setup(table)
    async with kit.feed(table) as feed:
        assert await kit.found(feed, table) == []
        kit.users.transaction(*(f"insert into customers values ({n}, 'n')" for n in range(301, 600, 3)))
        assert len(await kit.found(feed, table)) == 100
        assert await kit.found(feed, table) == []
        kit.users.transaction("delete from customers where id = 450")
        assert [row[0] for _, row in await kit.found(feed, table)] == ["450"]
        looks = feed._looker.looks  # pyright: ignore
        bounds = [upto for (upto,) in looks.rows("select upto from span order by place")]  # pyright: ignore
    assert bounds[-1] is None
    numbers = [int(str(key_values(str(upto))[0])) for upto in bounds[:-1]]  # pyright: ignore
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 90


@pytest.mark.anyio
async def test_a_table_of_many_rows_that_is_empty_is_held(kit: Polled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "EMPTIED_ROWS", 3)
    table = kit.create("customers", "name")
    kit.users.transaction(*(f"insert into customers values ({n}, 'n')" for n in range(5)))
    await kit.setup(table)
    async with kit.feed(table) as feed:
        kit.users.transaction("delete from customers")
        batches = await kit.drain(feed)
        events = [event.kind for batch in batches for segment in batch.segments for event in segment.events]
        assert events == [EventKind.TRUNCATED]
        assert flat(batches, table) == []
        kit.users.transaction("insert into customers values (9, 'new')")
        assert await kit.found(feed, table) == [("I", ("9", "new"))]


@pytest.mark.anyio
async def test_a_table_that_is_gone_is_told_once_and_goes_on_when_it_is_back(kit: Polled) -> None:
    table = kit.create("customers", "name")
    kit.users.transaction("insert into customers values (1, 'A')")
    await kit.setup(table)
    async with kit.feed(table) as feed:
        kit.users.transaction("alter table customers rename to elsewhere")
        batches = [*await kit.drain(feed), *await kit.drain(feed)]
        events = [event.kind for batch in batches for segment in batch.segments for event in segment.events]
        assert events == [EventKind.DROPPED]
        kit.users.transaction("update elsewhere set name = 'B'")
        kit.users.transaction("alter table elsewhere rename to customers")
        assert await kit.found(feed, table) == [("U", ("1", "B"))]


@pytest.mark.anyio
async def test_without_set_up_nothing_is_read(kit: Polled) -> None:
    table = kit.create("customers", "name")
    with pytest.raises(SourceUnready) as unready:
        async with kit.feed(table):
            pass
    assert unready.value.hint == "Run `concord setup erp`."


@pytest.mark.anyio
async def test_a_table_without_a_key_is_not_read_but_by_one_that_is_named(kit: Polled) -> None:
    kit.users.transaction(f"create table log (number integer not null, line {kit.text})")
    table = kit.schema + "log"
    await kit.setup(table)
    with pytest.raises(SourceUnready) as unready:
        async with kit.feed(table):
            pass
    assert "key" in unready.value.hint
    kit.tune(table, key=("number",))
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into log values (1, 'x')")
        assert await kit.found(feed, table) == [("I", ("1", "x"))]


@pytest.mark.anyio
async def test_an_ignored_column_is_neither_read_nor_compared(kit: Polled) -> None:
    table = kit.create("customers", "name", "visited")
    kit.users.transaction("insert into customers values (1, 'A', 'x')")
    kit.tune(table, ignore=("visited",))
    await kit.setup(table)
    async with kit.feed(table) as feed:
        kit.users.transaction("update customers set visited = 'y'")
        assert await kit.found(feed, table) == []
        kit.users.transaction("update customers set name = 'B'")
        assert await kit.found(feed, table) == [("U", ("1", "B"))]
