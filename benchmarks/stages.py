"""The rate of each stage alone, over the same rows: where the time of the whole goes, and what a change has changed.

    python -m benchmarks.stages --json

    capture   the log from the walsender, as batches of decoded rows (socket and server included)
    decode    the same messages from memory: decoding and gathering alone
    map       rows to canonical records
    resolve   identify, resolve and journal, in a hub in memory
    hub       the same in a hub on disk, durable batch by batch: what it takes longer than `resolve` is the disk's share
    gather    journal to rows of the target, and the cursor: a delivery to a target that takes everything at once
    apply     those rows into the target, with marker and commit

In the daemon stages overlap, as far as there are cores: the whole is faster than the sum and slower than the slowest.
`cpu_us_per_row` is this process's processor time; at `capture` and `apply` the servers' comes on top.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import apsw
import psycopg

from benchmarks import concord
from benchmarks.concord import STOP_SECONDS_MAX, Concord, concord_consumer, slot_of
from benchmarks.consumer import RunVoid, bring_up, wait_stopped
from benchmarks.machine import load, machine_facts
from benchmarks.report import common_arguments, print_report, say, spread, table_of
from benchmarks.servers import Databases, Pair, Slot, fresh_databases, settle, start_pair
from benchmarks.workloads import TABLE, WORKLOADS, Workload, preload, write, write_end
from engine.assemble import load_meaning, register
from engine.config.load import load_config
from engine.config.model import Config
from engine.hub.database import Database, open_database
from engine.hub.sqlite import memory_hub, open_hub
from engine.model.change import Batch
from engine.model.table import Shape
from engine.pipeline.canonicalize import CanonicalBatch, Canonicalizer
from engine.pipeline.capture import BATCH_ROWS
from engine.pipeline.commit import Committer
from engine.pipeline.deliver import Deliverer
from engine.ports import Assigned, Delivery, TableWrite, WriteKind, WriteResult
from engine.runtime.clock import SystemClock
from plugins.postgres.compile import compile_decoders
from plugins.postgres.gather import Gatherer, Relation, Stop
from plugins.postgres.position import Cluster, Resume, before
from plugins.postgres.spool import Spool

STAGES = ("capture", "decode", "map", "resolve", "hub", "gather", "apply")
USUAL = ("insert-1", "update-1")


@dataclass(slots=True)
class Meter:
    """Seconds and processor seconds of each repetition of each stage."""

    rows: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {})

    def measure(self, stage: str) -> _Lap:
        """A block whose time counts as one repetition of the stage."""
        return _Lap(self, stage)


@dataclass(slots=True)
class _Lap:
    meter: Meter
    stage: str
    began: float = 0.0
    cpu_began: float = 0.0

    def __enter__(self) -> None:
        gc.collect()
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.meter.seconds.setdefault(self.stage, []).append(time.perf_counter() - self.began)
        self.meter.cpu.setdefault(self.stage, []).append(time.process_time() - self.cpu_began)


@dataclass(slots=True)
class Keeper:
    """A target that takes everything and keeps what it was to write."""

    marker: int
    writes: list[TableWrite] = field(default_factory=lambda: [])

    async def claim(self, hub_id: str, epoch: int) -> int:
        return self.marker

    def delivery(self, seq: int) -> AbstractAsyncContextManager[Delivery]:
        return self._delivery(seq)

    @asynccontextmanager
    async def _delivery(self, seq: int) -> AsyncGenerator[Delivery]:
        yield self
        self.marker = seq

    async def write(self, write: TableWrite) -> WriteResult:
        self.writes.append(write)
        return WriteResult()

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        return ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void."""
    options = _parser().parse_args(arguments)
    try:
        with start_pair() as pair:
            document = measure(pair, options.workload or USUAL, rows=options.rows, repetitions=options.repetitions)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    tables = [
        table_of(
            f"{name}: {document['rows']:,} rows, {document['repetitions']} repetitions",
            ("stage", "rows/s", "least", "greatest", "CPU us/row"),
            [
                (stage, found["rows_per_s"].median, found["rows_per_s"].least, found["rows_per_s"].greatest,
                 found["cpu_us_per_row"].median)
                for stage, found in stages.items()
            ],
        )
        for name, stages in document["workloads"].items()
    ]  # fmt: skip
    print_report(document, tables, as_json=options.json)
    return 0


def measure(pair: Pair, workloads: Sequence[str], *, rows: int, repetitions: int) -> dict[str, Any]:
    """The whole run as a document."""
    machine = machine_facts(pair)
    found: dict[str, Any] = {}
    for name in workloads:
        workload = WORKLOADS[name]
        meter = Meter(rows)
        with fresh_databases(pair, (concord.NAME,)) as databases, concord_consumer(databases) as consumer:
            _prepare(databases, consumer, workload, rows)
            anyio.run(
                partial(_measure, databases, consumer, workload, meter, repetitions),
                backend_options={"use_uvloop": True},
            )
        found[name] = {
            stage: {
                "rows_per_s": spread([rows / seconds for seconds in meter.seconds[stage]], 0),
                "cpu_us_per_row": spread([seconds / rows * 1e6 for seconds in meter.cpu[stage]], 2),
            }
            for stage in STAGES
        }
    return {
        "benchmark": "stages",
        "rows": rows,
        "repetitions": repetitions,
        "workloads": found,
        "void": [],
        "machine": {**machine, "load_after": load()},
    }


def _prepare(databases: Databases, consumer: Concord, workload: Workload, rows: int) -> None:
    """The state in which the daemon would meet the workload: it knows the rows that are to be updated."""
    if workload.updates:
        preload(databases.source_dsn, workload, rows)
        bring_up(consumer, write_end(databases.source_dsn, 1))
    settle(databases)
    write(databases.source_dsn, workload, rows)


async def _measure(databases: Databases, consumer: Concord, workload: Workload, meter: Meter, repetitions: int) -> None:
    # As the daemon does: batches are acyclic, the collector would only walk them again and again.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    config = load_config(consumer.directory / "concord.toml")
    captured: list[Batch] = []
    for _ in range(repetitions):
        captured = await _capture(consumer, config, meter)
    shape = next(segment.tables[TABLE].shape for batch in captured for segment in batch.segments)
    captured.clear()
    # The server holds the slot until it has noticed that the feed has gone.
    wait_stopped(consumer, STOP_SECONDS_MAX)
    messages = _messages(slot_of(databases))
    decoded: list[Batch] = []
    for _ in range(repetitions):
        decoded = _decode(messages, shape, consumer.directory, meter)
    messages.clear()
    # Full batches, as they are in a daemon that has something to do; read alone, the log comes a few rows at a time.
    canonical = _map(config, decoded, meter, repetitions)
    decoded.clear()
    writes: list[TableWrite] = []
    for n in range(repetitions):
        _resolve(consumer.hub, config, canonical, meter)
        writes = await _commit_and_gather(consumer, config, canonical, meter, n)
    canonical.clear()
    for _ in range(repetitions):
        await _apply(databases, config, workload, writes, meter)


async def _capture(consumer: Concord, config: Config, meter: Meter) -> list[Batch]:
    """All batches of the workload, from the server. Nothing is confirmed, so it can be had again."""
    system = config.systems[0]
    assert system.plugin.source is not None
    source = system.plugin.source(system.site, system.options)
    position = await _position(consumer.hub)
    batches: list[Batch] = []
    rows = 0
    async with source.feed(position, (TABLE,), frozenset()) as feed:
        with meter.measure("capture"):
            while rows < meter.rows:
                batch = await feed.receive(BATCH_ROWS)
                rows += batch.rows_read
                batches.append(batch)
    return batches


async def _position(path: Path) -> Any:
    async with open_hub(path, SystemClock()) as hub:
        return await hub.read(lambda tx: tx.position(tx.rows("select id from system where name = 'source'")[0][0]))


def _messages(slot: Slot) -> list[bytes]:
    """What the walsender sends for the workload."""
    with psycopg.connect(slot.dsn) as connection:
        found = connection.execute(
            "select data from pg_logical_slot_peek_binary_changes(%s, null, null, 'proto_version', '2',"
            " 'publication_names', %s)",
            (slot.name, slot.name),
            binary=True,
        ).fetchall()
    return [data for (data,) in found]


def _decode(messages: list[bytes], shape: Shape, directory: Path, meter: Meter) -> list[Batch]:
    cluster = Cluster(identifier="0", timeline=1)
    gatherer = Gatherer(
        system="source", cluster=cluster, resume=Resume(lsn=1), spool=Spool(directory / "spool", system="source")
    )
    gatherer.rows_max = BATCH_ROWS
    last = before(1, cluster)
    batches: list[Batch] = []
    with meter.measure("decode"):
        rest = iter(messages)
        while (stop := gatherer.take(rest)) is not Stop.DRY:
            if stop is Stop.RELATION:
                decoders = compile_decoders(len(shape.columns), identity=(0,), keys=(0,))
                gatherer.install(Relation(name=TABLE, message=gatherer.unknown, decoders=decoders, shape=shape))
            else:
                batches.append(gatherer.batch(0, last))
                last = batches[-1].position
        batches.append(gatherer.batch(0, last))
    rows = sum(batch.rows_read for batch in batches)
    if rows < meter.rows:
        raise RunVoid(f"{rows} rows were decoded of {meter.rows}")
    return batches


def _map(config: Config, batches: list[Batch], meter: Meter, repetitions: int) -> list[CanonicalBatch]:
    meaning = load_meaning(config)
    topology = register(memory_hub(SystemClock()), config, meaning)
    canonical: list[CanonicalBatch] = []
    for _ in range(repetitions):
        canonicalizer = Canonicalizer(topology.named("source"))
        with meter.measure("map"):
            canonical = [canonicalizer.canonicalize(batch) for batch in batches]
    return canonical


def _resolve(path: Path, config: Config, batches: list[CanonicalBatch], meter: Meter) -> None:
    connection: Any = apsw.Connection(":memory:")
    with apsw.Connection(str(path)) as file, connection.backup("main", file, "main") as copy:
        copy.step()
    hub = memory_hub(SystemClock(), cast("Database", connection))
    topology = register(hub, config, load_meaning(config))
    committer = Committer(topology, topology.named("source"))
    with meter.measure("resolve"):
        for batch in batches:
            hub.transact_now(lambda tx, batch=batch: committer.commit(tx, batch))
    connection.close()


async def _commit_and_gather(
    consumer: Concord, config: Config, batches: list[CanonicalBatch], meter: Meter, number: int
) -> list[TableWrite]:
    """Over a copy of the hub, so that it can be done again."""
    path = consumer.directory / f"copy-{number}.sqlite"
    original = open_database(consumer.hub)
    original.execute("pragma wal_checkpoint(truncate)")
    original.close()
    shutil.copyfile(consumer.hub, path)
    async with open_hub(path, SystemClock()) as hub:
        topology = register(hub, config, load_meaning(config))
        committer = Committer(topology, topology.named("source"))
        with meter.measure("hub"):
            for batch in batches:
                await hub.transact(lambda tx, batch=batch: committer.commit(tx, batch))
        target = topology.named("target")
        keeper = Keeper(await hub.read(lambda tx: tx.system(target.id, "marker")[0]))
        shapes = (
            await config.systems[1]
            .plugin.system(config.systems[1].site, config.systems[1].options)
            .shapes(target.tables)
        )
        deliverer = Deliverer(hub, topology, target, keeper, shapes)
        await deliverer.start()
        with meter.measure("gather"):
            while await deliverer.step() is not None:
                pass
    rows = sum(len(write.rows) for write in keeper.writes)
    if rows != meter.rows:
        raise RunVoid(f"{rows} rows came out of the hub, {meter.rows} went in")
    return keeper.writes


async def _apply(
    databases: Databases, config: Config, workload: Workload, writes: list[TableWrite], meter: Meter
) -> None:
    if not workload.updates:
        with psycopg.connect(databases.target_dsn(concord.NAME), autocommit=True) as connection:
            connection.execute("truncate public.bench")
    system = config.systems[1]
    assert system.plugin.target is not None
    target = system.plugin.target(system.site, system.options)
    hub_id, epoch = _owner(databases.target_dsn(concord.NAME))
    async with target.open((TABLE,)) as session:
        seq = await session.claim(hub_id, epoch)
        with meter.measure("apply"):
            for number, write in enumerate(writes, 1):
                async with session.delivery(seq + number) as delivery:
                    result = await delivery.write(write)
                if write.kind is WriteKind.UPDATE and result.missing:
                    raise RunVoid(f"{len(result.missing)} rows to update are not at the target")


def _owner(dsn: str) -> tuple[str, int]:
    """Hub and epoch in the target's marker."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select hub, epoch from concord.marker").fetchone()
    if row is None:
        raise RunVoid("the target has no marker")
    return row


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("The rate of each stage alone.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each workload (default 100000)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each stage is measured (default 3)")
    parser.add_argument(
        "--workload", action="append", choices=sorted(WORKLOADS), help=f"which; default {', '.join(USUAL)}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
