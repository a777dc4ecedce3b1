"""Pages beside the running log: what they promise, while users write."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from typing import Any

import anyio
import msgspec
import pymysql
import pytest

from engine.errors import SourceUnready
from engine.model.change import DELETE
from engine.model.position import Position
from engine.model.value import WireRow
from plugins.mysql import capture
from plugins.mysql.capture import MysqlSource
from tests.mysql_source.support import MARKER, World, read_to, run

pytestmark = pytest.mark.anyio


async def test_a_page_of_an_idle_table(world: World) -> None:
    world.run("create table t (a int, b varchar(20), c int, primary key (a, b))")
    world.run("insert into t select seq % 3, concat('k', seq), seq from seq_1_to_10")
    async with world.feed() as feed:
        rows: list[WireRow] = []
        after: tuple[str, ...] | None = None
        while True:
            chunk = await feed.chunk("t", after, 3)
            assert chunk.low.order == feed.position.order
            assert chunk.high <= feed.position
            assert chunk.delivery is None
            rows += chunk.page.rows
            after = chunk.page.last_key
            if after is None:
                break
    assert len(rows) == 10
    assert rows == sorted(rows, key=lambda row: (int(str(row[0])), str(row[1])))


async def test_a_position_alone_reaches_the_page(world: World) -> None:
    """What others write moves `high`; the feed gets there without a change of the tables that take part."""
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    async with world.feed() as feed:
        world.run("insert into u values (1)", "flush binary logs")
        chunk = await feed.chunk("t", None, 3)
        with anyio.fail_after(10):
            while feed.position < chunk.high:
                await feed.receive(10)


async def test_pages_and_changes_make_the_table(world: World) -> None:
    """As the engine does it: rows of a page whose key changed behind `low` are dropped, the others wait for `high`."""
    world.run("create table t (id int primary key, v int)", "insert into t select seq, 0 from seq_1_to_300")
    stopped = threading.Event()

    def write(seed: int) -> None:
        user: Any = world.other()
        chance = random.Random(seed)
        with user.cursor() as cursor:
            while not stopped.is_set():
                id = chance.randrange(1, 400)
                match chance.randrange(4):
                    case 0:
                        cursor.execute(f"delete from t where id = {id}")
                    case 1:
                        cursor.execute(f"replace into t values ({id}, {chance.randrange(1000)})")
                    case 2:
                        cursor.execute("flush binary logs" if chance.randrange(40) == 0 else "select 1")
                    case _:
                        cursor.execute(f"update t set v = {chance.randrange(1000)} where id between {id} and {id + 3}")
        user.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    table: dict[object, WireRow] = {}
    # The place at which each key was last changed.
    touched: dict[object, Position] = {}
    for thread in threads:
        thread.start()
    try:
        async with world.feed() as feed:
            after: tuple[str, ...] | None = None
            is_done = False
            while not is_done:
                chunk = await feed.chunk("t", after, 20)
                with anyio.fail_after(20):
                    while feed.position < chunk.high or chunk.low == feed.position:
                        _apply(table, touched, await feed.receive(50))
                for row in chunk.page.rows:
                    if not chunk.low < touched.get(row[0], Position(order=(0,))):
                        table[row[0]] = row
                after = chunk.page.last_key
                is_done = after is None
            stopped.set()
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
            end = world.end()
            with anyio.fail_after(20):
                while feed.position.order < (*end, 0):
                    _apply(table, touched, await feed.receive(50))
    finally:
        stopped.set()
    assert sorted(table.values(), key=lambda row: int(str(row[0]))) == world.run("select * from t order by id")


def _apply(table: dict[object, WireRow], touched: dict[object, Position], batch: Any) -> None:
    for segment in batch.segments:
        for rows in segment.tables.values():
            for n, (op, row) in enumerate(zip(rows.ops, rows.rows, strict=True)):
                for key in (row[0], rows.old[n][0] if n in rows.old else row[0]):
                    touched[key] = batch.position
                    table.pop(key, None)
                if op != DELETE:
                    table[row[0]] = row


async def test_the_log_begins_when_distributed_transactions_have_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows stand before its beginning; nothing but a page can show them."""
    world.run("create table t (id int primary key)")
    name, user = f"'{world.database}'", world.other()
    run(user, f"xa start {name}", "insert into t values (1)", f"xa end {name}", f"xa prepare {name}")
    rows: list[WireRow] = []

    async def copy() -> None:
        async with world.feed() as feed:
            rows.extend((await feed.chunk("t", None, 10)).page.rows)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(capture, "DISTRIBUTED_SECONDS_MAX", 0.0)
            with pytest.raises(SourceUnready, match="Run: xa recover;"):
                async with world.feed():
                    pass
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(copy)
            await anyio.sleep(0.3)
            run(user, f"xa commit {name}")
    finally:
        # Nobody else can drop the table before.
        with suppress(pymysql.Error):
            run(user, f"xa rollback {name}")
        user.close()
    assert rows == [("1",)]


async def test_the_rest_is_read_after_pages(world: World) -> None:
    world.run("create table t (id int primary key)")
    async with world.feed() as feed:
        await feed.chunk("t", None, 10)
        world.run("insert into t values (1)")
        found = await read_to(feed, world.end())
    assert found.rows() == [("1",)]


async def test_a_page_names_the_newest_delivery_that_its_rows_have(world: World) -> None:
    """While deliveries land: each writes its seq into the row, so the page itself says which one it shows."""
    world.run("create table t (id int primary key, v bigint)", "insert into t values (1, 0)", *MARKER)
    async with world.feed() as feed:
        assert (await feed.chunk("t", None, 10)).delivery is None
    world.run("update concord_marker set hub_id = 'hub', epoch = 1, writes = 1")
    stopped = threading.Event()

    def deliver() -> None:
        user, seq = world.other(), 0
        with user.cursor() as cursor:
            while not stopped.is_set():
                seq += 1
                cursor.execute("begin")
                cursor.execute(f"update concord_marker set seq = {seq}, writes = writes + 1")
                cursor.execute(f"update t set v = {seq}")
                cursor.execute("commit")
        user.close()

    writer = threading.Thread(target=deliver)
    writer.start()
    found: set[tuple[str, int] | None] = set()
    try:
        async with world.feed() as feed:
            while len(found) < 10:
                chunk = await feed.chunk("t", None, 10)
                ((_, seq),) = chunk.page.rows
                assert chunk.delivery == ("hub", int(str(seq)))
                found.add(chunk.delivery)
    finally:
        stopped.set()
        await anyio.to_thread.run_sync(writer.join)


async def test_whoever_may_not_read_the_marker_reads_pages(world: World) -> None:
    user = f"{world.database}_reader"
    world.run("create table t (id int primary key)", "insert into t values (1)", *MARKER)
    world.run("update concord_marker set hub_id = 'hub', seq = 7", f"create user {user}")
    world.run(f"grant replication slave, binlog monitor on *.* to {user}", f"grant select on t to {user}")
    config = msgspec.structs.replace(world.config, user=user)
    try:
        async with MysqlSource(world.site, config).feed(None, ("t",), frozenset()) as feed:
            chunk = await feed.chunk("t", None, 10)
    finally:
        world.run(f"drop user {user}")
    assert (chunk.page.rows, chunk.delivery) == ([("1",)], None)
