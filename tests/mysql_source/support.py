"""What the tests of the source share: a database with users, a source, and reading it to its end."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pymysql

from engine.model.change import Batch, Segment, TableEvent
from engine.model.position import Position
from engine.model.value import ABSENT, WireRow
from engine.plugin import Site
from engine.testing.mariadb import MariadbServer
from plugins.mysql.capture import MysqlFeed, MysqlSource
from plugins.mysql.config import MysqlConfig

READ_SECONDS_MAX = 30.0
MARKER = (
    "create table concord_marker (id tinyint not null primary key, hub_id varchar(64) character set ascii, epoch bigint"
    " not null, seq bigint not null, writes bigint not null default 0) engine = InnoDB",
    "insert into concord_marker (id, epoch, seq) values (1, 0, 0)",
)
_names = itertools.count(1)


@dataclass(slots=True)
class Change:
    """One row change, for comparing: what was seen before it, table, operation, row, old row."""

    seen: int | None
    table: str
    op: str
    row: WireRow
    old: WireRow | None = None


@dataclass(slots=True)
class Reading:
    """What was read of a feed."""

    batches: list[Batch] = field(default_factory=lambda: list[Batch]())

    @property
    def segments(self) -> list[Segment]:
        return [segment for batch in self.batches for segment in batch.segments]

    @property
    def changes(self) -> list[Change]:
        return [change for segment in self.segments for change in changes_of(segment)]

    @property
    def events(self) -> list[TableEvent]:
        return [event for segment in self.segments for event in segment.events]

    def rows(self, table: str = "t") -> list[WireRow]:
        return [change.row for change in self.changes if change.table == table]


def changes_of(segment: Segment) -> list[Change]:
    return [
        Change(segment.seen, name, chr(op), row, rows.old.get(n))
        for name, rows in segment.tables.items()
        for n, (op, row) in enumerate(zip(rows.ops, rows.rows, strict=True))
    ]


@dataclass(slots=True)
class World:
    server: MariadbServer
    database: str
    source: MysqlSource
    site: Site
    config: MysqlConfig
    user: Any

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each committed by itself; the rows of the last one."""
        return run(self.user, *statements)

    def commit(self, *statements: str) -> None:
        """Run statements as one transaction."""
        self.run("begin", *statements, "commit")

    def other(self) -> Any:
        """Another connection."""
        return connect(self.server, self.database)

    @asynccontextmanager
    async def feed(
        self, after: Position | None = None, tables: Sequence[str] = ("t",), verify: Sequence[str] = ()
    ) -> AsyncGenerator[MysqlFeed]:
        async with self.source.feed(after, tables, frozenset(verify)) as feed:
            yield cast("MysqlFeed", feed)

    def end(self) -> tuple[int, int]:
        """Where the log ends: number of the file and offset."""
        file, offset, *_ = self.run("show master status")[0]
        return int(str(file).rpartition(".")[2]), int(offset)

    def close(self) -> None:
        self.user.close()
        self.server.execute(f"drop database if exists {self.database}")


def connect(server: MariadbServer, database: str) -> Any:
    return pymysql.Connection(
        ssl_disabled=True,
        unix_socket=str(server.socket_path),
        user="root",
        database=database,
        charset="utf8mb4",
        autocommit=True,
        conv={},
    )


def run(connection: Any, *statements: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]


def make_world(server: MariadbServer, directory: Path, **options: Any) -> World:
    database = f"w{next(_names)}"
    server.execute(f"create database {database}")
    site = Site(name="crm", directory=directory, work_directory=directory / "work")
    config = MysqlConfig(database=database, user="root", unix_socket=str(server.socket_path), tls="off", **options)
    return World(server, database, MysqlSource(site, config), site, config, connect(server, database))


async def read_to(feed: MysqlFeed, end: tuple[int, int], rows_max: int = 1000) -> Reading:
    """Read until everything before `end` of the log has been handed out."""
    reading = Reading()
    with anyio.fail_after(READ_SECONDS_MAX):
        while feed.position.order < (*end, 0):
            reading.batches.append(await feed.receive(rows_max))
            feed.confirm(feed.position)
    return reading


async def read_all(world: World, feed: MysqlFeed, rows_max: int = 1000) -> Reading:
    """Read all that is in the log now."""
    return await read_to(feed, world.end(), rows_max)


def is_there(value: object) -> bool:
    return value is not ABSENT
