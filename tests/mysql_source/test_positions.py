"""Going on behind every position, after cuts and restarts, and refusing where the log is not there any more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.change import Batch
from engine.model.position import Position
from engine.ports import Feed
from engine.testing.mariadb import start_mariadb
from plugins.mysql.capture import MysqlSource
from tests.mysql_source.support import (
    MARKER,
    Change,
    Reading,
    World,
    changes_of,
    make_world,
    read_all,
    read_to,
    run,
)

pytestmark = pytest.mark.anyio

_MINIMAL = "set session binlog_row_image = 'MINIMAL'"


def _history(world: World) -> None:
    world.run("create table t (id int primary key, pad varchar(3000))", "create table u (id int primary key)", *MARKER)


def _work(world: World) -> None:
    for n in range(0, 40, 4):
        world.run(f"insert into t values ({n}, 'a')", f"insert into u values ({n})")
        world.commit(f"insert into t values ({n + 1}, 'b')", f"update t set pad = 'c' where id = {n}")
        world.commit(f"update concord_marker set seq = {n + 1}", f"insert into t values ({n + 2}, 'e')")
        if n % 12 == 0:
            world.run("flush binary logs")
    world.run("insert into t select seq + 1000, repeat('p', 3000) from seq_1_to_20")
    world.commit("update concord_marker set seq = 100", "update t set pad = repeat('q', 2999) where id > 1000")
    world.run("delete from t where id < 8")


def _flat(reading: Reading) -> list[Change]:
    """Changes with what the engine knows at each: the last seq that was seen."""
    seen: int | None = None
    found: list[Change] = []
    for segment in reading.segments:
        seen = segment.seen if segment.seen is not None else seen
        for name, rows in segment.echoes.items():
            found += [Change(seen, f"echo {name}", chr(op), row) for op, row in zip(rows.ops, rows.rows, strict=True)]
        found += [Change(seen, c.table, c.op, c.row, c.old) for c in changes_of(segment)]
    return found


async def test_from_every_position_the_rest_comes_exactly(world: World) -> None:
    _history(world)
    async with world.feed(verify=("t",)) as feed:
        start = feed.position
    _work(world)
    end = world.end()
    async with world.feed(start, verify=("t",)) as feed:
        whole = await read_to(feed, end, rows_max=2)
    assert len(whole.batches) >= 30
    assert all(batch.is_whole == (batch.position.order[2] == 0) for batch in whole.batches)
    assert not all(batch.is_whole for batch in whole.batches)
    orders = [start.order, *(batch.position.order for batch in whole.batches)]
    assert orders == sorted(orders)
    everything = _flat(whole)
    for n, batch in enumerate(whole.batches):
        async with world.feed(batch.position, verify=("t",)) as feed:
            assert feed.position == batch.position
            rest = await read_to(feed, end, rows_max=(2, 7, 1000)[n % 3])
        before = _flat(Reading(whole.batches[: n + 1]))
        # Only rows behind the position: the seq that was seen before it is the engine's to remember.
        got = [(c.table, c.op, c.row, c.old) for c in _flat(rest)]
        assert got == [(c.table, c.op, c.row, c.old) for c in everything[len(before) :]]


async def test_the_seq_is_seen_again_when_a_delivery_goes_on(world: World) -> None:
    _history(world)
    world.run("insert into t select seq, repeat('p', 3000) from seq_1_to_20")
    async with world.feed(verify=("t",)) as feed:
        world.commit("update concord_marker set seq = 100", "update t set pad = repeat('q', 2999)")
        world.run("insert into t values (100, 'x')")
        end = world.end()
        part = await feed.receive(2)
        assert not part.is_whole
        assert part.has_more
    async with world.feed(part.position, verify=("t",)) as feed:
        rest = await read_to(feed, end)
    assert {segment.seen for segment in rest.segments} == {100}
    assert len(rest.segments[0].echoes["t"].rows) + len(part.segments[-1].echoes["t"].rows) == 20
    assert [c.row for c in rest.changes] == [("100", "x")]


async def test_a_cut_connection_is_an_error_and_nothing_is_lost(world: World) -> None:
    _history(world)
    async with world.feed() as feed:
        world.run("insert into t values (1, 'a')")
        first = await read_all(world, feed)
        position = feed.position
        for (number,) in world.run("select id from information_schema.processlist where command = 'Binlog Dump'"):
            world.run(f"kill {number}")
        world.run("insert into t values (2, 'b')")
        with pytest.raises(SystemUnreachable):
            await read_to(feed, (10**9, 0))
    async with world.feed(position) as feed:
        second = await read_all(world, feed)
    assert first.rows() + second.rows() == [("1", "a"), ("2", "b")]


async def test_cancellation_loses_nothing_and_closes_the_connection(world: World) -> None:
    _history(world)
    found: list[object] = []
    async with world.feed() as feed:
        for n in range(20):
            world.run(f"insert into t (id) values ({n})")
            if n == 10:
                world.run("alter table t add x int")
            with anyio.move_on_after(0.003 * (n % 4)):
                found += [c.row[0] for s in (await feed.receive(1)).segments for c in changes_of(s)]
        with anyio.move_on_after(5):
            while len(found) < 20:
                found += [c.row[0] for s in (await feed.receive(10)).segments for c in changes_of(s)]
    assert found == [str(n) for n in range(20)]
    with anyio.fail_after(10):
        while world.run("select id from information_schema.processlist where command = 'Binlog Dump'"):
            world.run("flush binary logs")
            await anyio.sleep(0.1)


async def test_the_end_of_the_log_is_told(world: World) -> None:
    """`has_more` is true until what was there has been read, and false then."""
    _history(world)
    async with world.feed() as feed:
        start = feed.position
    for n in range(50):
        world.run(f"insert into t values ({n}, 'a')")
    async with world.feed(start) as feed:
        rows = 0
        with anyio.fail_after(10):
            while True:
                batch = await feed.receive(7)
                rows += batch.rows_read
                if not batch.has_more:
                    break
        assert rows == 50
        assert feed.position.order == (*world.end(), 0)


async def test_several_domains(world: World) -> None:
    _history(world)
    async with world.feed() as feed:
        start = feed.position
    for n in range(6):
        world.run(f"set session gtid_domain_id = {n % 3}", f"insert into t values ({n}, 'a')")
    end = world.end()
    async with world.feed(start) as feed:
        whole = await read_to(feed, end, rows_max=1)
    assert [row[0] for row in whole.rows()] == ["0", "1", "2", "3", "4", "5"]
    for n, batch in enumerate(whole.batches):
        async with world.feed(batch.position) as feed:
            rest = await read_to(feed, end)
        assert rest.rows() == Reading(whole.batches[n + 1 :]).rows()


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="concord-mariadb-") as name, start_mariadb(Path(name)) as server:
        world = make_world(server, tmp_path)
        yield world
        world.close()


async def test_a_purged_log_is_told(world: World) -> None:
    _history(world)
    async with world.feed() as feed:
        start = feed.position
    world.run("insert into t values (1, 'a')", "flush binary logs")
    ((file, *_),) = world.run("show master status")
    async with world.feed(start) as feed:
        read = await read_all(world, feed)
        assert read.rows() == [("1", "a")]
        behind = feed.position
    with anyio.fail_after(10):
        # Files that a dump reads are kept, and a dump that was cut goes on for a moment.
        while len(world.run("show binary logs")) > 1:
            world.run(f"purge binary logs to '{file}'")
            await anyio.sleep(0.05)
    with pytest.raises(PositionLost, match="concord backfill crm"):
        async with world.feed(start):
            pass
    # Nothing behind this one is gone.
    world.run("insert into t values (2, 'b')")
    async with world.feed(behind) as feed:
        assert (await read_all(world, feed)).rows() == [("2", "b")]


async def test_another_log_is_told(own_world: World) -> None:
    world = own_world
    _history(world)
    async with world.feed() as feed:
        world.run("insert into t values (100, 'a')")
        await read_all(world, feed)
        start = feed.position
    world.run("set global server_id = 9")
    with pytest.raises(PositionLost, match="server is 9, not 1"):
        async with world.feed(start):
            pass
    await anyio.sleep(1.1)
    world.run("set global server_id = 1", "reset master")
    with pytest.raises(PositionLost, match="ends before our position"):
        async with world.feed(start):
            pass
    # The same names for other transactions, in a log that has grown past our position.
    for n in range(60):
        world.run(f"insert into t values ({n}, 'a')")
    with pytest.raises(PositionLost):
        async with world.feed(start) as feed:
            await read_all(world, feed)
    with pytest.raises(PositionLost, match="none of a binary log"):
        async with world.feed(Position(order=(1, 2), token="x")):
            pass


async def test_a_restarted_server_goes_on(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="concord-mariadb-") as name:
        with start_mariadb(Path(name)) as server:
            world = make_world(server, tmp_path)
            _history(world)
            async with world.feed() as feed:
                world.run("insert into t values (1, 'a')")
                await read_all(world, feed)
                position = feed.position
            world.run("insert into t values (2, 'b')")
        with start_mariadb(Path(name)) as server:
            again = make_world(server, tmp_path)
            again.run(f"use {world.database}")
            source = MysqlSource(again.site, msgspec.structs.replace(again.config, database=world.database))
            again.run("insert into t values (3, 'c')")
            async with source.feed(position, ("t",), frozenset()) as feed:
                found = await read_all(again, feed)  # type: ignore[arg-type]
            assert found.rows() == [("2", "b"), ("3", "c")]


async def _changes(feed: Feed) -> Batch:
    """The next batch that has any: the server's heartbeat makes one without."""
    while not (batch := await feed.receive(1000)).segments:
        pass
    return batch


@pytest.mark.parametrize(
    ("statements", "wanted"),
    [
        (("set session binlog_format = 'STATEMENT'", "update t set pad = 'x'"), "global binlog_format = 'ROW'"),
        (("set session binlog_row_image = 'MINIMAL'", "update t set pad = 'x'"), "global binlog_row_image = 'FULL'"),
        (("set session binlog_row_image = 'NOBLOB'", "update t set pad = 'x'"), "global binlog_row_image = 'FULL'"),
        (("set session binlog_row_image = 'MINIMAL'", "insert into t (id) values (9)"), "binlog_row_image = 'FULL'"),
        (("xa start 'x'", "update t set pad = 'x'", "xa end 'x'", "xa prepare 'x'", "xa commit 'x'"), "`xa recover`"),
        (
            (
                "begin",
                "update t set pad = 'x'",
                "savepoint s",
                "insert into isam values (1)",
                "rollback to s",
                "commit",
            ),
            "without transactions",
        ),
        (("begin", "insert into t values (7, 'x', 'y')", _MINIMAL, "update t set pad = 'x'", "commit"), "row_image"),
    ],
)
async def test_where_there_is_no_reading_on_is_told_for_good(
    world: World, statements: tuple[str, ...], wanted: str
) -> None:
    """What stands before is handed out and kept, and the place behind it, so that the log can be begun anew."""
    world.run("create table t (id int primary key, pad varchar(20), doc text)")
    world.run("create table isam (id int primary key) engine = MyISAM")
    async with world.feed() as feed:
        world.run("insert into t values (1, 'a', 'b')")
        run(world.other(), *statements)
        world.run("insert into t values (2, 'c', 'd')")
        batch = await feed.receive(1000)
        assert [change.row for segment in batch.segments for change in changes_of(segment)] == [("1", "a", "b")]
        assert batch.is_whole
        assert not batch.has_more
        feed.confirm(batch.position)
        with pytest.raises(PositionLost, match=wanted) as told:
            await _changes(feed)
        # Where the server sends the log in pieces, the end of it comes in a batch behind that one.
        end = feed.position
    assert "concord backfill crm" in told.value.hint
    with pytest.raises(PositionLost) as again:
        async with world.feed(end):
            pass
    assert (again.value.message, again.value.hint) == (told.value.message, told.value.hint)
    async with world.feed() as feed:
        world.run("insert into t values (3, 'e', 'f')")
        assert (await read_all(world, feed)).rows() == [("3", "e", "f")]


async def test_columns_without_names_are_refused_whatever_the_catalogue_calls_them_now(world: World) -> None:
    """Two columns of one type change names: by the catalogue alone each would get the other's values."""
    world.run("create table t (id int primary key, a int, b int)")
    async with world.feed() as feed:
        world.run("set global binlog_row_metadata = 'NO_LOG'", "flush tables")
        try:
            world.run("insert into t values (1, 10, 20)", "alter table t change a b int, change b a int")
        finally:
            world.run("set global binlog_row_metadata = 'FULL'", "flush tables")
        with pytest.raises(PositionLost, match="binlog_row_metadata = 'FULL'; flush tables;"):
            await read_all(world, feed)
    async with world.feed() as feed:
        world.run("insert into t values (2, 30, 40)")
        assert (await read_all(world, feed)).rows() == [("2", "30", "40")]


@pytest.mark.parametrize(
    ("setting", "value", "usual"),
    [
        ("binlog_format", "MIXED", "ROW"),
        ("binlog_row_image", "NOBLOB", "FULL"),
        ("binlog_row_metadata", "MINIMAL", "FULL"),
    ],
)
async def test_a_log_that_is_not_all_rows_is_not_opened(world: World, setting: str, value: str, usual: str) -> None:
    world.run("create table t (id int primary key)", f"set global {setting} = '{value}'")
    try:
        with pytest.raises(SourceUnready, match=f"set global {setting} = '{usual}';"):
            async with world.feed():
                pass
    finally:
        world.run(f"set global {setting} = '{usual}'")


async def test_two_replicas_of_one_number_are_told_of_each_other(world: World) -> None:
    world.run("create table t (id int primary key)")
    source = MysqlSource(world.site, msgspec.structs.replace(world.config, server_id=77))
    async with source.feed(None, ("t",), frozenset()) as first, source.feed(None, ("t",), frozenset()):
        with anyio.fail_after(10), pytest.raises(SystemUnreachable, match="Choose another server_id"):
            await first.receive(10)
