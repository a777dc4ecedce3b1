"""How fast rows of a MariaDB's binary log are decoded: Concord and the library mysql-replication, over the same log.

    pip install '.[benchmarks]'
    python -m benchmarks.decoding --json

    feed      all of Concord's source, from a connection to batches of rows as the engine takes them
    memory    its decoding alone: from events in memory to the same batches, checksums included
    library   BinLogStreamReader, from a connection to rows as dictionaries

The library cannot do without a connection, so `feed` is what compares with it. One process, one thread each. Two
shapes of log: one row in an event, as statements of one row make it, and as many as fit, of one large statement.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import anyio

from benchmarks.consumer import RunVoid
from benchmarks.machine import OTHERS_CORES_MAX, load, machine_facts, read_counters, share_between
from benchmarks.mariadb import OPTIONS, Shop, fresh_shop
from benchmarks.report import common_arguments, print_report, say, spread, table_of
from benchmarks.workloads import WORKLOADS
from engine.model.position import Position
from engine.plugin import Site
from engine.testing.mariadb import MariadbServer, start_mariadb
from plugins.mysql.capture import MysqlFeed, MysqlSource, load_catalogue
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import connect_now
from plugins.mysql.gather import Gatherer, Stop
from plugins.mysql.position import resume_at

# What a lane asks for at once.
BATCH_ROWS: Final = 5000
READ_SECONDS_MAX: Final = 300.0
HEADER_BYTES: Final = 19
LIBRARY: Final = "mysql-replication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A stretch of the binary log with nothing in it but inserts into the one table."""

    site: Site
    config: MysqlConfig
    server: MariadbServer
    rows: int
    start: Position
    file: str
    offset: int
    gtid: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="concord-bench-") as name:
            directory = Path(name)
            with start_mariadb(directory / "mariadb", OPTIONS) as server:
                found = measure(server, directory, rows=options.rows, repetitions=options.repetitions)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    machine = {**machine_facts(), "load_after": load()}
    document: dict[str, Any] = {"benchmark": "decoding", **found, "void": [], "machine": machine}
    print_report(document, tables(document), as_json=options.json)
    return 0


def measure(server: MariadbServer, directory: Path, *, rows: int, repetitions: int) -> dict[str, Any]:
    """Rates of all three over a log of either shape, of the library only where it is installed. Raises `RunVoid` when
    one reads other than all rows."""
    ways: dict[str, Callable[[Log], int]] = {"feed": _feed, "memory": _memory}
    if find_spec("pymysqlreplication") is not None:
        ways["library"] = _library
    else:
        say(f"{LIBRARY} is not installed (pip install '.[benchmarks]'): Concord alone")
    shapes: dict[str, Callable[[Shop], None]] = {
        "single": lambda shop: shop.write(WORKLOADS["insert-100"], rows),
        "many": lambda shop: shop.write_at_once(rows),
    }
    found: dict[str, Any] = {}
    for shape, write in shapes.items():
        with fresh_shop(server) as shop:
            found[shape] = _rates(_write(shop, directory, rows, write), shape, ways, repetitions)
    return {"rows": rows, "library": _library_version(), "shapes": found}


def tables(document: dict[str, Any]) -> list[Any]:
    """For people."""
    rows: list[Sequence[object]] = []
    for shape, found in document["shapes"].items():
        rates = found["rows_per_s"]
        rows += [(f"{shape} {way}", rate.median, found.get(f"{way}_times_library")) for way, rate in rates.items()]
    return [table_of(f"decoding a binary log of {document['rows']:,} rows", ("", "rows/s", "times library"), rows)]


def _rates(log: Log, shape: str, ways: dict[str, Callable[[Log], int]], repetitions: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {way: [] for way in ways}
    is_quiet = True
    for repetition in range(repetitions):
        for way in list(ways)[:: 1 if repetition % 2 == 0 else -1]:
            before, began = read_counters(), time.perf_counter()
            read = ways[way](log)
            took = time.perf_counter() - began
            share = share_between(before, read_counters())
            if read != log.rows:
                raise RunVoid(f"{way} has read {read} rows of {log.rows}")
            is_quiet = is_quiet and share.other_cores + share.stolen_cores <= OTHERS_CORES_MAX
            rates[way].append(log.rows / took)
            say(f"decoding {shape} {repetition + 1}/{repetitions} {way}: {log.rows / took:,.0f} rows/s")
    medians = {way: spread(values, 0) for way, values in rates.items()}
    summary: dict[str, Any] = {"rows_per_s": medians, "is_quiet": is_quiet}
    if "library" in medians:
        for way in ("feed", "memory"):
            summary[f"{way}_times_library"] = round(medians[way].median / medians["library"].median, 2)
    return summary


def _write(shop: Shop, directory: Path, rows: int, write: Callable[[Shop], None]) -> Log:
    server = shop.server
    file, offset, *_ = server.execute("show master status")[0]
    gtid = str(server.execute("select @@gtid_binlog_pos")[0][0])
    config = MysqlConfig(database=shop.name, user="root", unix_socket=str(server.socket_path))
    site = Site(name="source", directory=directory, work_directory=directory / "work")
    start = anyio.run(_end, MysqlSource(site, config))
    write(shop)
    if server.execute("show master status")[0][0] != file:
        raise RunVoid("the log went on in another file; measure fewer rows")
    return Log(
        site=site,
        config=config,
        server=server,
        rows=rows,
        start=start,
        file=str(file),
        offset=int(str(offset)),
        gtid=gtid,
    )


async def _end(source: MysqlSource) -> Position:
    """Where the log ends now."""
    async with source.feed(None, ("bench",), frozenset()) as feed:
        return feed.position


def _feed(log: Log) -> int:
    async def read() -> int:
        rows = 0
        with anyio.fail_after(READ_SECONDS_MAX):
            source = MysqlSource(log.site, log.config)
            async with source.feed(log.start, ("bench",), frozenset()) as feed:
                while rows < log.rows:
                    batch = await feed.receive(BATCH_ROWS)
                    feed.confirm(batch.position)
                    rows += batch.rows_read
        return rows

    return anyio.run(read)


def _memory(log: Log) -> int:
    """What `_feed` does with each event, without waiting for any. Reading the file and the catalogue is in it, some
    milliseconds."""
    connection = connect_now(log.site, log.config)
    catalogue = load_catalogue(connection, log.config, ("bench",))
    connection.close()
    gatherer = Gatherer(system="source", resume=resume_at(log.start, system="source"), has_checksum=True)
    gatherer.rows_max = BATCH_ROWS
    # It never waits, so it needs no connection; and how a table is learnt is its own affair.
    wire: Any = None
    feed: Any = MysqlFeed(log.site, log.config, wire, gatherer, log.start, ("bench",), frozenset())
    feed.inspect(catalogue)
    rows, position = 0, log.start
    stream = iter(_events(log))
    while True:
        stop = gatherer.take(stream)
        if stop is Stop.TABLE:
            _run(feed._install(gatherer.unknown))
            continue
        batch = gatherer.batch(position)
        rows, position = rows + batch.rows_read, batch.position
        if stop is Stop.DRY:
            return rows


def _run(coroutine: Any) -> None:
    """A coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RunVoid("the table is not what the catalogue says")


def _events(log: Log) -> list[bytes]:
    raw = (log.server.directory / "data" / log.file).read_bytes()
    found: list[bytes] = []
    offset = log.offset
    while offset + HEADER_BYTES <= len(raw):
        # The length of an event stands in bytes 9 to 12 of its header.
        size = int.from_bytes(raw[offset + 9 : offset + 13], "little")
        found.append(raw[offset : offset + size])
        offset += size
    return found


def _library(log: Log) -> int:
    # By name: it need not be installed for anything else, and has no types.
    library: Any = import_module("pymysqlreplication")
    row_event: Any = import_module("pymysqlreplication.row_event")
    reader = library.BinLogStreamReader(
        connection_settings={"unix_socket": str(log.server.socket_path), "user": "root"},
        server_id=77,
        # By file and offset it begins at the beginning when the server is a MariaDB.
        auto_position=log.gtid,
        blocking=False,
        only_events=[row_event.WriteRowsEvent],
        only_tables=["bench"],
        is_mariadb=True,
        verify_checksum=True,
    )
    try:
        return sum(len(event.rows) for event in reader)
    finally:
        reader.close()


def _library_version() -> str | None:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("Rows of a binary log decoded a second, by Concord and by a library.")
    parser.add_argument("--rows", type=int, default=200_000, help="rows in the log (default 200000)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is measured (default 3)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
