"""Pages beside the running log: what they promise, while users write."""

from __future__ import annotations

import random
import threading
from typing import Any

import anyio
import pytest

from engine.model.change import DELETE
from engine.model.position import Position
from engine.model.value import WireRow
from tests.mysql_source.support import World, read_to

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


async def test_the_rest_is_read_after_pages(world: World) -> None:
    world.run("create table t (id int primary key)")
    async with world.feed() as feed:
        await feed.chunk("t", None, 10)
        world.run("insert into t values (1)")
        found = await read_to(feed, world.end())
    assert found.rows() == [("1",)]
