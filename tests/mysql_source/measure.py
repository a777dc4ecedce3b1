"""How fast rows of a binary log are decoded, beside the library mysql-replication on the same bytes.

    python -m tests.mysql_source.measure            rows per second of both, one core
    python -m tests.mysql_source.measure feed       of the whole feed, from a server on this machine

The library is not a dependency: `pip install mysql-replication` first. "decoding" is from events in memory to batches;
the library cannot do without a connection, so its number is to be compared with "feed", which has one too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from engine.testing.mariadb import start_mariadb
from plugins.mysql.capture import MysqlFeed
from tests.mysql_source.support import World, make_world, read_all

ROWS = 100_000
TABLE = (
    "create table t (id bigint primary key, name varchar(60), email varchar(80), balance decimal(12,2), visits int,"
    " is_active tinyint(1), born date, created datetime, changed timestamp)"
)
FILL = (
    "insert into t select seq, concat('customer ', seq), concat('c', seq, '@example.net'), seq * 1.37, seq % 1000,"
    " seq % 2, date_add('1950-01-01', interval seq % 20000 day), date_add('2020-01-01', interval seq * 37 second),"
    f" from_unixtime(1600000000 + seq * 61) from seq_1_to_{ROWS}"
)


async def measure(world: World) -> None:
    world.run(TABLE)
    name, offset, *_ = world.run("show master status")[0]
    async with world.feed() as feed:
        world.run(FILL)
        began = time.perf_counter()
        reading = await read_all(world, feed, 5000)
        took = time.perf_counter() - began
    rows = sum(batch.rows_read for batch in reading.batches)
    print(f"feed             {rows} rows in {took:.2f} s, {rows / took:,.0f} rows/s")
    await anyio.lowlevel.checkpoint()
    if "feed" not in sys.argv:
        bodies = _events(world, str(name), int(offset))
        _ours(world, bodies)
        _library(world, str(name), int(offset))


def _events(world: World, name: str, offset: int) -> list[bytes]:
    raw = (world.server.directory / "data" / name).read_bytes()
    found: list[bytes] = []
    while offset + 19 <= len(raw):
        size = int.from_bytes(raw[offset + 9 : offset + 13], "little")
        found.append(raw[offset : offset + size])
        offset += size
    return found


def _ours(world: World, events: list[bytes]) -> None:
    from engine.model.position import Position
    from plugins.mysql.capture import load_catalogue
    from plugins.mysql.connect import connect_now
    from plugins.mysql.gather import Gatherer, Stop
    from plugins.mysql.position import resume_at

    connection = connect_now(world.site, world.config)
    catalogue = load_catalogue(connection, world.config, ("t",))
    connection.close()
    resume = resume_at(Position(order=(0, 0, 0), token="1 - 0 binlog.000000"), system="crm")
    best = 0.0
    for _ in range(3):
        gatherer = Gatherer(system="crm", resume=resume, has_checksum=True)
        wire: Any = None
        feed: Any = MysqlFeed(world.site, world.config, wire, gatherer, catalogue.end, ("t",), frozenset())
        feed.inspect(catalogue)
        gatherer.rows_max = 5000
        rows, began = 0, time.perf_counter()
        stream = iter(events)
        while True:
            stop = gatherer.take(stream)
            if stop is Stop.TABLE:
                coroutine = feed._install(gatherer.unknown)
                try:
                    coroutine.send(None)
                except StopIteration:
                    continue
            rows += gatherer.batch(catalogue.end).rows_read
            if stop is Stop.DRY:
                break
        best = max(best, rows / (time.perf_counter() - began))
    print(f"decoding         {best:,.0f} rows/s, checksums and batches included")


def _library(world: World, name: str, offset: int) -> None:
    # By name: it need not be installed for anything else.
    library: Any = import_module("pymysqlreplication")
    row_events: Any = import_module("pymysqlreplication.row_event")
    reader = library.BinLogStreamReader(
        connection_settings={"unix_socket": str(world.server.socket_path), "user": "root", "passwd": ""},
        server_id=77,
        log_file=name,
        log_pos=offset,
        resume_stream=True,
        blocking=False,
        only_events=[row_events.WriteRowsEvent],
        is_mariadb=True,
        verify_checksum=True,
    )
    rows, began = 0, time.perf_counter()
    for event in reader:
        rows += len(event.rows)
    took = time.perf_counter() - began
    reader.close()
    print(f"mysql-replication {rows} rows in {took:.2f} s, {rows / took:,.0f} rows/s")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, start_mariadb(Path(directory) / "server") as server:
        world = make_world(server, Path(directory))
        anyio.run(measure, world)


if __name__ == "__main__":
    main()
