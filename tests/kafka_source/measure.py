"""How fast topics become batches: nine-column rows that Debezium brought, one partition a table.

    python -m tests.kafka_source.measure [rows]

Prints, for transactions of one row and of a hundred, with schemas in the messages and without: rows a second by the
clock and by processor time of the process, and its peak memory.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from engine.plugin import Site
from engine.testing.kafka.cluster import start_cluster
from engine.testing.postgres import start_postgres
from plugins.kafka import plugin
from plugins.kafka.config import KafkaConfig
from tests.kafka_source.kit import HEARTBEAT, DebeziumKit, PostgresUsers

TABLE = """create table customers (id bigint primary key, name text, email text, phone text, credit numeric(12, 2),
    since date, changed timestamptz, is_vip boolean, visits integer)"""
ROW = (
    "insert into customers select n, 'Customer ' || n, 'mail' || n || '@example.net', '+49 30 ' || n, n % 1000 + 0.25,"
    " date '2020-01-01' + n % 1000, now(), n % 2 = 0, n % 77 from generate_series({first}, {last}) n"
)


async def _measure(kit: DebeziumKit, rows: int, per_transaction: int, first: int) -> None:
    async with kit.feed("public.customers") as feed:
        start = feed.position
        for n in range(first, first + rows, per_transaction):
            kit.users.transaction(ROW.format(first=n, last=n + per_transaction - 1))
        await kit.synchronise()
    found, clock, processor = 0, time.monotonic(), time.process_time()
    async with kit.feed("public.customers", after=start) as feed:
        while found < rows:
            batch = await feed.receive(1000)
            found += sum(len(t.rows) for s in batch.segments for t in s.tables.values())
    clock, processor = time.monotonic() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{per_transaction:4d} rows a transaction, schemas {str(kit.schemas).lower():5}: {rows / clock:8,.0f} rows/s"
        " by the"
        f" clock, {rows / processor:8,.0f} per CPU second, {peak} MB",
        flush=True,
    )


def _folder(name: str) -> Path:
    """One that the server may read, which runs as another user."""
    directory = Path(name)
    directory.chmod(0o755)
    (directory / "pg").mkdir(mode=0o755)
    return directory


async def _run(rows: int) -> None:
    with TemporaryDirectory(prefix="concord-measure-", ignore_cleanup_errors=True) as name:
        directory = _folder(name)
        with start_postgres(directory / "pg") as server, start_cluster(directory / "kafka") as cluster:
            for schemas in (False, True):
                database = f"measure_{str(schemas).lower()}"
                with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
                    admin.execute(f"create database {database}".encode())
                dsn = server.dsn(database)
                kit = DebeziumKit(
                    plugin=plugin,
                    site=Site(name="crm", directory=directory, work_directory=directory / "work"),
                    config=KafkaConfig(
                        servers=(cluster.broker.bootstrap,),
                        prefix=database,
                        database={"plugin": "postgres", "dsn": dsn},
                        heartbeat=HEARTBEAT,
                    ),
                    users=PostgresUsers(dsn),
                    schema="public.",
                    cluster=cluster,
                    dsn=dsn,
                    prefix=database,
                    schemas=schemas,
                    settings={"heartbeat.interval.ms": "2000"},
                )
                try:
                    kit.users.transaction(TABLE)
                    await kit.setup("public.customers")
                    await _measure(kit, rows, 100, 1)
                    await _measure(kit, rows // 4, 1, 10_000_000)
                finally:
                    kit.close()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
