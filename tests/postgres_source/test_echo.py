"""Goal: our own deliveries never come back as changes, and tell exactly what stands before and behind them.
Method: transactions shaped like deliveries (the marker first) among those of users; segments and accounts compared."""

from __future__ import annotations

import pytest

from engine.model.change import Batch, Segment
from tests.postgres_source.support import World, drain, flat

pytestmark = pytest.mark.anyio
MARK = "update concord.marker set seq = {}, written_at = now()"


def segments_of(batches: list[Batch]) -> list[Segment]:
    return [segment for batch in batches for segment in batch.segments]


async def ready(world: World) -> World:
    world.run("create table t (id int primary key, v text)", "create table u (id int primary key)")
    await world.setup("t", "u")
    return world


async def test_a_delivery_is_skipped_and_says_what_was_seen(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1, 'user')")
    world.transaction(MARK.format(7), "insert into t values (2, 'ours')", "update t set v = 'ours' where id = 1")
    world.run("insert into u values (1)")
    world.transaction(MARK.format(9), "delete from u")
    world.run("insert into t values (3, 'user')")

    batches = await world.changes("t", "u")

    found = segments_of(batches)
    assert [segment.seen for segment in found] == [None, 7, 9]
    assert [{name: rows.rows for name, rows in segment.tables.items()} for segment in found] == [
        {"t": [("1", "user")]},
        {"u": [("1",)]},
        {"t": [("3", "user")]},
    ]
    assert not any(segment.echoes for segment in found)
    assert sum(batch.rows_read for batch in batches) == 8
    assert sum(batch.rows_echoed for batch in batches) == 5


async def test_rows_to_verify_come_as_echoes_of_their_delivery(world: World) -> None:
    await ready(world)
    world.transaction(MARK.format(3), "insert into t values (1, 'ours')", "insert into u values (1)")
    world.transaction("insert into t values (2, 'user')")
    world.transaction(MARK.format(4), "update t set id = 5 where id = 1", "delete from t where id = 5")
    end = world.end()
    async with world.feed("t", "u", verify=frozenset({"t"})) as feed:
        batches = await drain(feed, end)

    # Where a batch ends behind the first delivery, what comes in the next one has no marker before it there.
    first, *between, second = segments_of(batches)
    assert (first.seen, [segment.seen for segment in between], second.seen) in ((3, [], 4), (3, [None], 4))
    assert {name: rows.rows for name, rows in first.echoes.items()} == {"t": [("1", "ours")]}
    assert [row for segment in (first, *between) if "t" in segment.tables for row in segment.tables["t"].rows] == [
        ("2", "user")
    ]
    assert bytes(second.echoes["t"].ops) == b"UD"
    assert list(second.echoes["t"].old) == [0]
    assert sum(batch.rows_echoed for batch in batches) == 6


async def test_a_claim_of_the_marker_is_ours_too(world: World) -> None:
    await ready(world)
    world.transaction(MARK.format(5))
    world.run("update concord.marker set epoch = epoch + 1")
    world.run("insert into t values (1, 'user')")

    found = segments_of(await world.changes("t"))

    # Two, or one more where a batch ends behind the claim; what comes in another batch has no marker before it there.
    assert found[0].seen == 5
    assert {segment.seen for segment in found} <= {5, None}
    assert found[-1].tables["t"].rows == [("1", "user")]


async def test_a_marker_that_is_not_first_hides_no_row(world: World) -> None:
    await ready(world)
    world.transaction("insert into t values (1, 'a')", MARK.format(8), "insert into t values (2, 'b')")

    batches = await world.changes("t")

    found = segments_of(batches)
    assert [segment.seen for segment in found] == [None, 8]
    assert [segment.tables["t"].rows for segment in found] == [[("1", "a")], [("2", "b")]]
    assert sum(batch.rows_read - batch.rows_echoed for batch in batches) == 2


async def test_a_delivery_in_parts_is_an_echo_to_its_end(world: World) -> None:
    await ready(world)
    world.transaction(MARK.format(6), "insert into t select n, 'ours' from generate_series(1, 50) n")
    world.run("insert into t values (99, 'user')")
    end = world.end()
    async with world.feed("t", verify=frozenset({"t"})) as feed:
        batches = await drain(feed, end, 8)

    assert flat(batches) == [("I", "t", ("99", "user"))]
    parts = [segment for segment in segments_of(batches) if segment.echoes]
    assert len(parts) > 3
    assert {segment.seen for segment in parts} == {6}
    echoed = [row for segment in parts for row in segment.echoes["t"].rows]
    assert echoed == [(str(n), "ours") for n in range(1, 51)]
    assert sum(batch.rows_echoed for batch in batches) == 51


async def test_a_delivery_resumed_in_its_middle_is_still_an_echo(world: World) -> None:
    await ready(world)
    world.transaction(MARK.format(6), "insert into t select n, 'ours' from generate_series(1, 50) n")
    world.run("insert into t values (99, 'user')")
    end = world.end()
    async with world.feed("t") as feed:
        part = await feed.receive(10)
    async with world.feed("t", after=part.position, verify=frozenset({"t"})) as feed:
        rest = await drain(feed, end)

    assert not part.is_whole
    assert flat([part]) == []
    assert flat(rest) == [("I", "t", ("99", "user"))]
    assert part.rows_echoed + sum(batch.rows_echoed for batch in rest) == 51
    echoed = [row for segment in segments_of(rest) if segment.echoes for row in segment.echoes["t"].rows]
    assert echoed == [(str(n), "ours") for n in range(10, 51)]


async def test_setting_up_the_marker_is_no_delivery(world: World) -> None:
    await ready(world)
    world.transaction("delete from concord.marker", "insert into concord.marker values (1, null, 0, 0)")
    world.transaction("insert into t values (1, 'a')")

    batches = await world.changes("t")

    assert flat(batches) == [("I", "t", ("1", "a"))]
    assert [segment.seen for segment in segments_of(batches)] == [None]
