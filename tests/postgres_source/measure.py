"""How fast capture decodes, and how fast it receives and decodes, for rows of nine columns. No test: run it by hand.

    python -m tests.postgres_source.measure

Decoding is counted in our process's CPU time, the best of three; the other by the clock and by CPU time both, because
there the walsender and whoever else uses the machine have their part.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from pathlib import Path

import anyio

from engine.model.position import Position
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import WireRow
from engine.testing.postgres import start_postgres
from plugins.postgres.compile import compile_decoders
from plugins.postgres.decode import RelationColumn, RelationMessage
from plugins.postgres.gather import Gatherer, Relation, Stop
from plugins.postgres.position import Cluster, Resume
from plugins.postgres.spool import Spool
from tests.postgres_source.support import World, make_world
from tests.postgres_source.test_decode import ID, encode_insert, encode_relation, encode_update

ROWS = 200_000
ROW = (
    *("123456", "Customer number 123456", "customer123456@example.com", "+49 30 1234567", "active"),
    *("2024-02-29 13:05:00.25+00", "12345.67", "t", "some street 12, 12345 Berlin"),
)
SQL = (
    "{0}, 'Customer number ' || {0}, 'customer' || {0} || '@example.com', '+49 30 1234567', 'active', now(), 12345.67,"
    " true, 'some street 12, 12345 Berlin'"
)
FILL = """do $$ begin for k in 1..{count} loop {statement}; commit; end loop; end $$"""


def decode_rate(message: bytes, rows_per_transaction: int) -> float:
    """Rows a second of decoding and gathering."""
    names = [f"c{n}" for n in range(len(ROW))]
    columns = tuple(RelationColumn(name, 25, -1, name == "c0") for name in names)
    shown = tuple(Column(name=name, kind=Kind.TEXT, type="text") for name in names)
    relation = Relation(
        name="t",
        message=encode_relation(RelationMessage(ID, "public", "t", "d", columns)),
        decoders=compile_decoders(len(ROW), identity=(0,), keys=(0,)),
        shape=Shape(name="t", columns=shown, form=Form.TEXT),
    )
    messages: list[bytes] = []
    for lsn in range(100, 100 + 100 * ROWS // rows_per_transaction, 100):
        messages.append(struct.pack(">cQq4s", b"B", lsn, 1000, b"\0\0\0\1"))
        messages += [message] * rows_per_transaction
        messages.append(struct.pack(">cBQQq", b"C", 0, lsn, lsn + 50, 1000))
    best = float("inf")
    for _ in range(3):
        spool = Spool(Path("/nonexistent"), system="t")
        cluster = Cluster(identifier="1", timeline=1)
        gatherer = Gatherer(system="t", cluster=cluster, resume=Resume(lsn=0), spool=spool, rows_max=10_000)
        gatherer.install(relation)
        stream, stop = iter(messages), Stop.FULL
        start = time.process_time()
        while stop is not Stop.DRY:
            stop = gatherer.take(stream)
            gatherer.batch(0, Position((0, 0)))
        best = min(best, time.process_time() - start)
    return ROWS / best


async def receive_rate(world: World, label: str) -> None:
    """Read what has been written since the last time, and say how fast that was."""
    end = world.end()
    rows, wall, cpu, batches = 0, 0.0, 0.0, 0
    async with world.feed("t") as feed:
        first = await feed.receive(10_000)
        wall, cpu = time.perf_counter(), time.process_time()
        while feed.position.order < (end - 1, 0):
            batch = await feed.receive(10_000)
            rows, batches = rows + batch.rows_read, batches + 1
            feed.confirm(batch.position)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rates = f"{rows / wall / 1000:.0f}k rows/s by the clock, {rows / cpu / 1000:.0f}k per CPU second"
    sys.stdout.write(f"{label:42}{rates}, {batches} batches, first {first.rows_read}\n")


async def end_to_end(directory: Path) -> None:
    with start_postgres(directory / "server", {"shared_buffers": "512MB", "max_wal_size": "4GB"}) as server:
        world = make_world(server.dsn("postgres"), directory)
        types = "id int primary key, a text, b text, c text, d text, e timestamptz, f numeric, g bool, h text"
        world.run(f"create table t ({types})")
        await world.setup("t")
        hundred = "insert into t select " + SQL.format("i") + " from generate_series(k * 100, k * 100 + 99) i"
        world.run(FILL.format(count=3000, statement=hundred))
        await receive_rate(world, "receive, 100-row inserts")
        change = "update t set a = 'changed ' || id where id between k * 100 and k * 100 + 99"
        world.run(FILL.format(count=3000, statement=change))
        await receive_rate(world, "receive, 100-row updates")
        one = f"insert into t select {SQL.format('(1000000 + k)')}"
        world.run(FILL.format(count=150_000, statement=one))
        await receive_rate(world, "receive, single-row inserts")
        world.users.close()


def main() -> None:
    nulls: WireRow = tuple(None if n in (2, 6) else value for n, value in enumerate(ROW))
    umlaut: WireRow = (ROW[0], "Müller GmbH", *ROW[2:])
    for label, message, size in (
        ("decode, 100-row inserts", encode_insert(ROW), 100),
        ("decode, 100-row inserts, two nulls", encode_insert(nulls), 100),
        ("decode, 100-row inserts, an umlaut", encode_insert(umlaut), 100),
        ("decode, 100-row updates", encode_update(ROW), 100),
        ("decode, single-row inserts", encode_insert(ROW), 1),
    ):
        sys.stdout.write(f"{label:42}{decode_rate(message, size) / 1000:.0f}k rows per CPU second\n")
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(end_to_end, Path(directory))


if __name__ == "__main__":
    main()
