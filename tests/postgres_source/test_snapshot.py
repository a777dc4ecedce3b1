"""Goal: pages read beside the running log join it without gap or overlap.
Method: writers change a table as fast as they can while chunks are read and the feed goes on; the engine's rule (drop
chunk rows whose key the feed touched behind `low`, take the others once it has passed `high`) must rebuild the table.
For the one race that speed does not bring about, a synchronous standby that never answers holds a commit open."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from engine.errors import SourceUnready
from engine.model.change import Batch, Chunk
from engine.model.value import WireRow
from engine.ports import Feed
from engine.testing.postgres import start_postgres
from plugins.postgres.capture import PostgresFeed
from tests.postgres_source.support import World, drain, flat, make_world, replay

pytestmark = pytest.mark.anyio
# So many that most are written to seldom: a row that a chunk took too old is not mended by the next change of it.
KEYS = 4000


class Copy:
    """The engine's side of a first copy: one chunk at a time, beside the log."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.state: dict[WireRow, WireRow] = {}
        self._history: list[tuple[tuple[int, ...], set[WireRow]]] = []

    def take(self, batch: Batch) -> None:
        touched: set[WireRow] = set()
        for segment in batch.segments:
            rows = segment.tables.get(self._table)
            if rows is not None:
                replay(self.state, rows)
                touched |= {(row[0],) for row in rows.rows} | {(row[0],) for row in rows.old.values()}
        self._history.append((batch.position.order, touched))

    def join(self, chunk: Chunk) -> None:
        newer = {key for order, keys in self._history if order > chunk.low.order for key in keys}
        for row in chunk.page.rows:
            if (row[0],) not in newer:
                self.state[row[0],] = row


async def copy_table(feed: Feed, copy: Copy, chance: random.Random) -> int:
    """Copy all of the table, the feed going on meanwhile; returns the number of chunks."""
    chunks, after = 0, None
    while True:
        chunk: list[Chunk] = []

        async def read(after: tuple[str, ...] | None = after, chunk: list[Chunk] = chunk) -> None:
            chunk.append(await feed.chunk("t", after, chance.choice((30, 150))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            while not chunk:
                copy.take(await feed.receive(20))
        while feed.position < chunk[0].high:
            copy.take(await feed.receive(20))
        copy.join(chunk[0])
        chunks += 1
        if (after := chunk[0].page.last_key) is None:
            return chunks


def write_until(stop: threading.Event, dsn: str, seed: int) -> None:
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as session:
        if seed % 2:
            # Visible to others before it is on disk: the log's end on disk says nothing about these.
            session.execute("set synchronous_commit = off")
        while not stop.is_set():
            with suppress(psycopg.errors.DeadlockDetected), session.transaction():
                for _ in range(chance.choice((1, 1, 1, 6))):
                    key, new = chance.randrange(KEYS), chance.randrange(KEYS)
                    what = chance.random()
                    if what < 0.4:
                        sql = f"insert into t values ({key}, random()) on conflict (id) do update set v = excluded.v"
                    elif what < 0.7:
                        sql = f"update t set v = random() where id = {key}"
                    elif what < 0.85:
                        sql = f"delete from t where id = {key}"
                    else:
                        sql = (
                            f"update t set id = {new} where id = {key} and not exists (select from t where id = {new})"
                        )
                    with suppress(psycopg.errors.UniqueViolation), session.transaction():
                        session.execute(sql.encode())


@pytest.mark.parametrize("seed", range(3))
async def test_chunks_and_feed_rebuild_the_table_under_writers(world: World, seed: int) -> None:
    world.run("create table t (id int primary key, v float8)")
    world.run(f"insert into t select n, n from generate_series(1, {KEYS}, 2) n")
    await world.setup("t")
    stop = threading.Event()
    writers = [threading.Thread(target=write_until, args=(stop, world.dsn, seed * 10 + n)) for n in range(3)]
    copy = Copy("t")
    async with world.feed("t") as feed:
        for writer in writers:
            writer.start()
        try:
            chunks = await copy_table(feed, copy, random.Random(seed))
        finally:
            stop.set()
            for writer in writers:
                await anyio.to_thread.run_sync(writer.join)
        for batch in await drain(feed, world.end()):
            copy.take(batch)

    assert chunks > 3
    expected = {(str(key),): (str(key), value) for key, value in world.rows("select id, v::text from t")}
    assert copy.state == expected


async def test_a_chunk_waits_for_a_commit_that_was_read_before_it_could_be_seen(tmp_path: Path) -> None:
    with start_postgres(tmp_path / "server") as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        world.run("create table t (id int primary key, v text)")
        await world.setup("t")
        world.run("alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()")
        insert = threading.Thread(target=_insert, args=(world.dsn,))
        insert.start()
        chunk: list[Chunk] = []
        early: list[Chunk] = []
        async with world.feed("t") as feed:
            assert isinstance(feed, PostgresFeed)
            first = await feed.receive(10)
            # The row is out, while its transaction still waits and nobody else can see it.
            seen_by_others = world.rows("select * from t")

            async def read() -> None:
                chunk.append(await feed.chunk("t", None, 10))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                # Several looks at the snapshot; each must find that it lacks the transaction.
                for _ in range(20):
                    await anyio.sleep(0.01)
                early += chunk
                world.run("set synchronous_commit = local", "alter system reset synchronous_standby_names")
                world.run("select pg_reload_conf()")
        insert.join()
        world.users.close()

    assert flat([first]) == [("I", "t", ("1", "waiting"))]
    assert seen_by_others == []
    assert early == []
    assert chunk[0].page.rows == [("1", "waiting")]
    assert first.position <= chunk[0].low


def _insert(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("insert into t values (1, 'waiting')")


async def test_an_idle_server_still_reaches_the_end_of_a_chunk(world: World) -> None:
    world.run("create table t (id int primary key)", "insert into t select generate_series(1, 10)")
    await world.setup("t")
    # An open transaction has written log that nobody is in a hurry to put on disk.
    open_one: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(world.dsn)
    async with world.feed("t") as feed:
        open_one.execute("insert into t select generate_series(11, 20)")
        chunk = await feed.chunk("t", None, 5)
        while feed.position < chunk.high:
            await feed.receive(10)
    open_one.close()

    assert chunk.page.last_key == ("5",)
    assert chunk.page.rows == [(str(n),) for n in range(1, 6)]
    assert chunk.low < chunk.high


async def test_generated_columns_are_in_pages_as_in_the_log(world: World) -> None:
    world.run("create table t (id int primary key, twice int generated always as (id * 2) stored, v text)")
    await world.setup("t")
    world.run("insert into t (id, v) values (1, 'a')")

    batches = await world.changes("t")
    page = await world.system.page("t", None, 10)

    rows = batches[0].segments[0].tables["t"]
    assert page.rows == rows.rows
    assert page.shape == rows.shape


async def test_a_table_that_has_no_pages_is_told_with_its_system(world: World) -> None:
    world.run("create table keyless (id int)", "create table pair (a int, b int, primary key (a, b))")
    for table, after, said in (
        ("nowhere", None, "system crm: there is no table nowhere"),
        ("keyless", None, "system crm, table keyless: it has no primary key"),
        ("pair", ("1",), "system crm, table pair: the key has 2 columns, not 1"),
    ):
        with pytest.raises(SourceUnready, match=said) as told:
            await world.system.page(table, after, 10)
        assert told.value.hint
