"""A system to write to, and short words for what the tests do with it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.model.change import Page
from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Role, TableWrite, TargetSession, WriteKind, WriteResult
from engine.testing.mariadb import MariadbServer
from plugins.mysql.apply import MysqlTarget
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import Connection, connect_now
from plugins.mysql.setup import MysqlSystem

HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
EPOCH = 3
_names = itertools.count(1)


@dataclass(slots=True)
class World:
    """One database with the target on it, and a connection of its users."""

    server: MariadbServer
    database: str
    site: Site
    config: MysqlConfig
    users: Connection
    seq: int = field(default=0)

    @property
    def target(self) -> MysqlTarget:
        return MysqlTarget(self.site, self.config)

    @property
    def system(self) -> MysqlSystem:
        return MysqlSystem(self.site, self.config)

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.users.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.users.rows(query)]

    def marker(self) -> tuple[Any, ...]:
        return self.rows("select hub_id, epoch, seq from concord_marker")[0]

    async def page(self, table: str, after: tuple[str, ...] | None = None, rows_max: int = 1000) -> Page:
        return await self.system.page(table, after, rows_max)

    @asynccontextmanager
    async def session(self, *tables: str, epoch: int = EPOCH) -> AsyncGenerator[TargetSession]:
        async with self.target.open(tables) as session:
            await session.claim(HUB, epoch)
            yield session

    async def deliver(self, session: TargetSession, *writes: TableWrite) -> list[WriteResult]:
        """The writes as one delivery with the next seq."""
        self.seq += 1
        async with session.delivery(self.seq) as delivery:
            return [await delivery.write(write) for write in writes]

    async def deliver_alone(self, *writes: TableWrite) -> list[WriteResult]:
        """The writes as one delivery of a session of its own."""
        async with self.session(*{write.table for write in writes}) as session:
            return await self.deliver(session, *writes)

    def close(self) -> None:
        self.run(f"drop database if exists `{self.database}`")
        self.users.close()


async def make_world(server: MariadbServer, directory: Path, **options: Any) -> World:
    database = f"test_{next(_names)}"
    server.execute(f"create database {database} character set utf8mb4")
    site = Site(name="crm", directory=directory, work_directory=directory / "crm")
    config = MysqlConfig(host="127.0.0.1", port=server.port, user="root", database=database, tls="off", **options)
    await MysqlSystem(site, config).setup((), Role.TARGET)
    return World(server, database, site, config, connect_now(site, config))


def insert(
    table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str] = ("id",), **options: Any
) -> TableWrite:
    return _write(WriteKind.INSERT, table, columns, rows, key, **options)


def update(table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str] = ("id",)) -> TableWrite:
    return _write(WriteKind.UPDATE, table, columns, rows, key)


def delete(table: str, key: Sequence[str], rows: Sequence[WireRow]) -> TableWrite:
    return _write(WriteKind.DELETE, table, key, rows, key)


def _write(
    kind: WriteKind, table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str], **options: Any
) -> TableWrite:
    values: dict[str, Any] = {"place": table, "rids": list(range(1, len(rows) + 1)), **options}
    return TableWrite(table=table, kind=kind, columns=tuple(columns), key=tuple(key), rows=list(rows), **values)
