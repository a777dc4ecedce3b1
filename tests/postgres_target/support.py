"""A system to write to, and short words for what the tests do with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Role, TableWrite, TargetSession, WriteKind, WriteResult
from plugins.postgres.apply import PostgresTarget
from plugins.postgres.config import PostgresConfig
from plugins.postgres.setup import PostgresSystem

HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
EPOCH = 3


@dataclass(slots=True)
class World:
    """One database with the target on it, and a connection of its users."""

    dsn: str
    target: PostgresTarget
    site: Site
    users: psycopg.Connection[tuple[Any, ...]]
    seq: int = field(default=0)

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.users.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.users.execute(query.encode()).fetchall()

    def marker(self) -> tuple[Any, ...]:
        return self.rows("select hub, epoch, seq from concord.marker")[0]

    @property
    def database(self) -> str:
        return str(self.rows("select current_database()")[0][0])

    @asynccontextmanager
    async def role(self, name: str) -> AsyncGenerator[World]:
        """The same target over a login that has no privileges but on our own tables; gone afterwards."""
        self.run(f"create role {name} login", f"grant usage on schema concord to {name}")
        self.run(f"grant select, insert, update on all tables in schema concord to {name}")
        try:
            config = PostgresConfig(dsn=self.dsn.replace("user=postgres", f"user={name}"))
            yield World(self.dsn, PostgresTarget(self.site, config), self.site, self.users)
        finally:
            self.run(f"drop owned by {name}", f"drop role {name}")

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


async def make_world(dsn: str, directory: Path, **options: Any) -> World:
    site = Site(name="crm", directory=directory, work_directory=directory / "crm")
    config = PostgresConfig(dsn=dsn, **options)
    await PostgresSystem(site, config).setup((), Role.TARGET)
    return World(dsn, PostgresTarget(site, config), site, psycopg.connect(dsn, autocommit=True))


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
