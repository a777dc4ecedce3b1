"""Goal: transactions that the server sends before they commit come out like any other: whole, in commit order, without
what was rolled back.
Method: logical_decoding_work_mem at its least, so that a few hundred rows are streamed; several connections interleave
large transactions with savepoints rolled back and released, schema changes and whole rollbacks; the result is compared
with the tables and with a reader for which nothing was streamed."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest

from engine.model.change import Batch
from plugins.postgres.capture import PostgresFeed
from tests.postgres_source.support import World, drain, flat, replay_all

pytestmark = pytest.mark.anyio
Session = psycopg.Connection[tuple[Any, ...]]
WIDE = "repeat(md5(random()::text), 6)"


@pytest.fixture
async def streaming(world: World) -> World:
    database = world.rows("select current_database()")[0][0]
    world.run(f"alter database {database} set logical_decoding_work_mem = '64kB'")
    world.run("create table t (id int primary key, v text)", "create table u (id int primary key, v text)")
    await world.setup("t", "u")
    return world


def spooled(feed: object) -> int:
    assert isinstance(feed, PostgresFeed)
    return feed.spooled_bytes


def is_streamed(batches: list[Batch]) -> bool:
    return any(not batch.is_whole for batch in batches)


async def test_interleaved_streams_come_out_whole_and_in_commit_order(streaming: World) -> None:
    sessions: list[Session] = [psycopg.connect(streaming.dsn) for _ in range(4)]
    try:
        for round in range(6):
            for n, session in enumerate(sessions):
                start = n * 100_000 + round * 300
                session.execute(
                    f"insert into t select n, {WIDE} from generate_series({start}, {start + 299}) n".encode()
                )
        sessions[2].commit()
        sessions[1].rollback()
        sessions[0].commit()
        streaming.run("insert into u values (1, 'between')")
        sessions[3].commit()
    finally:
        for session in sessions:
            session.close()
    end = streaming.end()
    async with streaming.feed("t", "u") as feed:
        batches = await drain(feed, end, 500)
        assert spooled(feed) > 1_000_000
    changes = flat(batches)
    blocks = [int(str(row[0])) // 100_000 for _, name, row in changes if name == "t"]

    assert blocks == [2] * 1800 + [0] * 1800 + [3] * 1800
    assert len(changes) == 3 * 1800 + 1
    assert all(sum(len(t.rows) for s in b.segments for t in s.tables.values()) <= 1000 for b in batches)
    assert sorted(replay_all(batches, "t").values()) == sorted(
        (str(a), b) for a, b in streaming.rows("select id, v from t")
    )


async def test_what_was_rolled_back_to_a_savepoint_is_left_out(streaming: World) -> None:
    with streaming.users.transaction():
        streaming.run(f"insert into t select n, {WIDE} from generate_series(1, 500) n")
        streaming.run("savepoint a", f"insert into t select n, {WIDE} from generate_series(1001, 1500) n")
        streaming.run("savepoint b", f"insert into u select n, {WIDE} from generate_series(1, 500) n")
        streaming.run("release savepoint b", "update t set v = 'lost' where id <= 300", "rollback to savepoint a")
        streaming.run("savepoint c", f"insert into u select n, {WIDE} from generate_series(2001, 2500) n")
        streaming.run("release savepoint c", "update t set v = 'kept' where id <= 300")
    end = streaming.end()
    async with streaming.feed("t", "u") as feed:
        batches = await drain(feed, end)
        assert spooled(feed) > 300_000

    assert [int(str(row[0])) for op, _, row in flat(batches, "t") if op == "I"] == list(range(1, 501))
    assert [int(str(row[0])) for _, _, row in flat(batches, "u")] == list(range(2001, 2501))
    assert {row[1] for op, _, row in flat(batches, "t") if op == "U"} == {"kept"}


async def test_a_schema_change_rolled_back_inside_a_stream_leaves_no_trace(streaming: World) -> None:
    with streaming.users.transaction():
        streaming.run(f"insert into t select n, {WIDE} from generate_series(1, 500) n")
        streaming.run("savepoint a", "alter table t add w int default 7")
        streaming.run(f"insert into t select n, {WIDE}, n from generate_series(501, 1000) n", "rollback to savepoint a")
        streaming.run(f"insert into t select n, {WIDE} from generate_series(1001, 1500) n")
    streaming.run("insert into t values (0, 'after')")
    end = streaming.end()
    async with streaming.feed("t", "u") as feed:
        batches = await drain(feed, end)
        assert spooled(feed) > 150_000

    assert not [event for batch in batches for segment in batch.segments for event in segment.events]
    assert {len(row) for _, _, row in flat(batches)} == {2}
    assert [int(str(row[0])) for _, _, row in flat(batches)] == [*range(1, 501), *range(1001, 1501), 0]


async def test_a_schema_change_inside_a_stream_comes_with_its_rows(streaming: World) -> None:
    with streaming.users.transaction():
        streaming.run(f"insert into t select n, {WIDE} from generate_series(1, 500) n")
        streaming.run("alter table t add w int default 7")
        streaming.run(f"insert into t select n, {WIDE} from generate_series(501, 1000) n")
    streaming.run("insert into t values (0, 'after', 1)")

    batches = await streaming.changes("t", "u")

    rows = [row for _, _, row in flat(batches)]
    assert [len(row) for row in rows] == [2] * 500 + [3] * 501
    events = [event.table for batch in batches for segment in batch.segments for event in segment.events]
    assert events == ["t"]


async def test_a_streamed_delivery_is_an_echo(streaming: World) -> None:
    streaming.transaction(
        "update concord.marker set seq = 4", f"insert into t select n, {WIDE} from generate_series(1, 1000) n"
    )
    streaming.run("insert into u values (1, 'user')")
    end = streaming.end()
    async with streaming.feed("t", "u") as feed:
        batches = await drain(feed, end)
        assert spooled(feed) > 100_000

    assert flat(batches) == [("I", "u", ("1", "user"))]
    assert sum(batch.rows_echoed for batch in batches) == 1001


async def test_no_spool_file_outlives_its_transaction_or_its_feed(streaming: World) -> None:
    directory = streaming.site.work_directory / "streams"
    open_one: Session = psycopg.connect(streaming.dsn)
    try:
        open_one.execute(f"insert into u select n, {WIDE} from generate_series(1, 2000) n".encode())
        streaming.run(f"insert into t select n, {WIDE} from generate_series(1, 1000) n")
        end = streaming.end()
        async with streaming.feed("t", "u") as feed:
            await drain(feed, end)
            during = len(list(directory.iterdir()))
            open_one.rollback()
            await drain(feed, streaming.end())
            after = len(list(directory.iterdir()))
        (directory / "00000001.stream").write_bytes(b"of a daemon that was killed")
        async with streaming.feed("t", "u"):
            left = len(list(directory.iterdir()))
    finally:
        open_one.close()

    assert (during, after, left) == (1, 0, 0)


@pytest.mark.parametrize("seed", range(4))
async def test_random_interleavings_equal_a_reader_for_which_nothing_was_streamed(streaming: World, seed: int) -> None:
    chance = random.Random(seed)
    churn(streaming, chance)
    end = streaming.end()
    async with streaming.feed("t", "u") as feed:
        streamed = await drain(feed, end, 300)
        assert spooled(feed) > 0
    database = streaming.rows("select current_database()")[0][0]
    streaming.run(f"alter database {database} set logical_decoding_work_mem = '1GB'")
    async with streaming.feed("t", "u") as feed:
        plain = await drain(feed, end, 300)
        assert spooled(feed) == 0

    assert flat(streamed, "t") == flat(plain, "t")
    assert flat(streamed, "u") == flat(plain, "u")
    for table in ("t", "u"):
        expected = sorted((str(a), b) for a, b in streaming.rows(f"select id, v from {table}"))
        assert sorted(replay_all(streamed, table).values()) == expected


def churn(world: World, chance: random.Random) -> None:
    """Sessions that write rows of their own, taking turns, with savepoints released, rolled back and nested."""
    sessions: list[Session] = [psycopg.connect(world.dsn) for _ in range(4)]
    depth = [0] * len(sessions)
    next_id = 0
    try:
        for _ in range(120):
            n = chance.randrange(len(sessions))
            session, act = sessions[n], chance.random()
            if act < 0.55:
                table, count = chance.choice("tu"), chance.choice((1, 20, 200))
                values = (
                    f"select n * {len(sessions)} + {n}, {WIDE} from generate_series({next_id}, {next_id + count}) n"
                )
                session.execute(f"insert into {table} {values}".encode())
                next_id += count + 1
            elif act < 0.65:
                table = chance.choice("tu")
                mine = f"id % {len(sessions)} = {n} and id > {next_id * len(sessions) - 900}"
                session.execute(f"update {table} set v = {WIDE} where {mine}".encode())
            elif act < 0.78:
                depth[n] += 1
                session.execute(f"savepoint s{depth[n]}".encode())
            elif act < 0.93 and depth[n]:
                how = chance.choice(("release savepoint", "rollback to savepoint"))
                depth[n] = chance.randint(1, depth[n])
                session.execute(f"{how} s{depth[n]}".encode())
                depth[n] -= how.startswith("release")
            elif act > 0.93:
                chance.choice((session.commit, session.commit, session.rollback))()
                depth[n] = 0
        for session in sessions:
            session.commit()
    finally:
        for session in sessions:
            session.close()
