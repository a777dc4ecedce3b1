"""Two PostgreSQL servers of our own, databases in them, and the comparison of what two databases hold.

Both consumers of a run use these servers, with these settings. What they do with them is in `native` and `concord`.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.workloads import create_table
from engine.testing.postgres import PostgresServer, start_postgres

SETTINGS: Final = {
    # As in production. The engine's own hub waits for the disk whatever the servers do, so with fsync off a comparison
    # would be about the hub's disk against nothing.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    # A checkpoint or an autovacuum in the one run and not in the other would be most of the spread.
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    # A change's latency is read from the commit timestamps of both servers, after the fact: nothing asks the target
    # while it works. Both consumers of a throughput run pay for it alike.
    "track_commit_timestamp": "on",
    # The launcher starts the apply worker of one subscription at most this often; the default is 5 s.
    "wal_retrieve_retry_interval": "100ms",
}

_names = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A source server and a target server, running. `directory` is ours until the end of the run."""

    source: PostgresServer
    target: PostgresServer
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Databases:
    """One database at the source and one at the target for each consumer, all with the empty table."""

    pair: Pair
    name: str
    consumers: tuple[str, ...]

    @property
    def source_dsn(self) -> str:
        return self.pair.source.dsn(self.name)

    def target_name(self, consumer: str) -> str:
        return f"{self.name}_{consumer}"

    def target_dsn(self, consumer: str) -> str:
        return self.pair.target.dsn(self.target_name(consumer))

    def directory(self, consumer: str) -> Path:
        """A folder for the consumer's own files."""
        path = self.pair.directory / self.target_name(consumer)
        path.mkdir(exist_ok=True)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Every row of a table in key order: how many, and the SHA-256 of their text."""

    rows: int
    sha256: str


@contextmanager
def start_pair(directory: Path | None = None) -> Generator[Pair]:
    """Run two servers, in `directory` or in one that is removed afterwards."""
    with ExitStack() as stack:
        root = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-bench-")))
        source = stack.enter_context(start_postgres(root / "source", SETTINGS))
        target = stack.enter_context(start_postgres(root / "target", SETTINGS))
        yield Pair(source=source, target=target, directory=root)


@contextmanager
def fresh_databases(pair: Pair, consumers: Iterable[str]) -> Generator[Databases]:
    """New databases; dropped at the end with the slots in them. Subscriptions must be gone by then."""
    databases = Databases(pair=pair, name=f"bench_{next(_names)}", consumers=tuple(consumers))
    made: list[tuple[PostgresServer, str]] = []
    try:
        targets = [(pair.target, databases.target_name(consumer)) for consumer in databases.consumers]
        for server, name in [(pair.source, databases.name), *targets]:
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
                admin.execute(f"create database {name}".encode())
            made.append((server, name))
            create_table(server.dsn(name))
        yield databases
    finally:
        for server, name in made:
            server.drop_database(name)


def settle(databases: Databases) -> None:
    """Bring all databases to the same rest before something is timed: statistics, hint bits, a checkpoint."""
    for dsn in (databases.source_dsn, *(databases.target_dsn(name) for name in databases.consumers)):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("vacuum analyze public.bench")
    for server in (databases.pair.source, databases.pair.target):
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
            connection.execute("checkpoint")


def read_contents(dsn: str) -> Contents:
    """All of the table."""
    digest = hashlib.sha256()
    rows = 0
    with psycopg.connect(dsn) as connection:
        connection.execute("set timezone = 'UTC'")
        with connection.cursor().copy("copy (select * from public.bench order by id) to stdout") as copy:
            for row in copy:
                digest.update(row)
                rows += 1
    return Contents(rows=rows, sha256=digest.hexdigest())


def committed_at(dsn: str, id: int) -> float:
    """When this server's user committed the row, seconds since 1970."""
    sql = "select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from public.bench where id = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(sql, (id,)).fetchone()
    if row is None:
        raise LookupError("the row is not there")
    return row[0]


def has_row(connection: psycopg.Connection, id: int) -> bool:
    """Whether a committed row of this id is there."""
    # Planned anew each time: a plan kept from when the table was empty reads all of it, a hundred times a second, and
    # takes half a core from whoever began to deliver a little later.
    return connection.execute("select from public.bench where id = %s", (id,), prepare=False).rowcount == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot at a source: where a consumer reads."""

    dsn: str
    name: str

    def reading_since(self) -> float | None:
        """When the connection that reads from it was made, seconds since 1970; None while nobody reads."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(
                "select extract(epoch from r.backend_start)::float8 from pg_replication_slots s"
                " join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = %s",
                (self.name,),
            ).fetchone()
        return None if row is None else row[0]

    def release(self) -> None:
        """Nothing is to be done: the server sees by itself that the reader has gone."""
