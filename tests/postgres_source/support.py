"""A system to capture from, and short words for what the tests do with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psycopg

from engine.model.change import DELETE, Batch, TableRows
from engine.model.position import Position
from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Feed, Role
from plugins.postgres.capture import PostgresSource
from plugins.postgres.config import PostgresConfig
from plugins.postgres.position import parse_lsn
from plugins.postgres.setup import PostgresSystem

# Far above what any of it takes; a hang shall fail the test and not the run.
SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class World:
    """One database with the plugin's objects for it, and a connection of its users."""

    dsn: str
    site: Site
    config: PostgresConfig
    system: PostgresSystem
    source: PostgresSource
    users: psycopg.Connection[tuple[Any, ...]]

    def run(self, *statements: str) -> None:
        """Each statement is a transaction."""
        for statement in statements:
            self.users.execute(statement.encode())

    def transaction(self, *statements: str) -> None:
        with self.users.transaction():
            self.run(*statements)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.users.execute(query.encode()).fetchall()

    def end(self) -> int:
        """An LSN behind everything committed so far, and written to disk, so that the walsender comes to it."""
        self.run("select pg_logical_emit_message(true, 'test', '')")
        return parse_lsn(self.rows("select pg_current_wal_flush_lsn()::text")[0][0])

    async def setup(self, *tables: str, role: Role = Role.SOURCE | Role.TARGET) -> None:
        await self.system.setup(tables, role)

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        with anyio.fail_after(SECONDS_MAX):
            async with self.source.feed(after, tables, verify) as feed:
                yield feed

    async def changes(self, *tables: str, after: Position | None = None, rows_max: int = 1000) -> list[Batch]:
        """All batches up to now, from a feed of its own; nothing is confirmed."""
        end = self.end()
        async with self.feed(*tables, after=after) as feed:
            return await drain(feed, end, rows_max)


def make_world(dsn: str, directory: Path, *, name: str = "crm", **options: Any) -> World:
    site = Site(name=name, directory=directory, work_directory=directory / name)
    config = PostgresConfig(dsn=dsn, **options)
    users = psycopg.connect(dsn, autocommit=True)
    return World(dsn, site, config, PostgresSystem(site, config), PostgresSource(site, config), users)


async def poll(is_done: Callable[[], bool]) -> None:
    """Wait until it is so."""
    with anyio.fail_after(SECONDS_MAX):
        while not is_done():  # noqa: ASYNC110 - a server sends no event for this
            await anyio.sleep(0.02)


async def drain(feed: Feed, end: int, rows_max: int = 1000) -> list[Batch]:
    """Receive until the feed has passed the LSN `end`."""
    batches: list[Batch] = []
    while feed.position.order < (end - 1, 0):
        batches.append(await feed.receive(rows_max))
    return batches


def flat(batches: Sequence[Batch], table: str | None = None) -> list[tuple[str, str, WireRow]]:
    """(operation, table, row) of all segments."""
    found: list[tuple[str, str, WireRow]] = []
    for batch in batches:
        for segment in batch.segments:
            for name, rows in segment.tables.items():
                if table in (None, name):
                    found += [(chr(op), name, row) for op, row in zip(rows.ops, rows.rows, strict=True)]
    return found


def replay(state: dict[WireRow, WireRow], rows: TableRows, keys: Sequence[int] = (0,)) -> None:
    """Do to `state` what was done to the table."""
    for index, (op, row) in enumerate(zip(rows.ops, rows.rows, strict=True)):
        old = rows.old.get(index)
        if old is not None:
            state.pop(tuple(old[k] for k in keys), None)
        key = tuple(row[k] for k in keys)
        if op == DELETE:
            state.pop(key, None)
        else:
            state[key] = row


def replay_all(batches: Sequence[Batch], table: str, keys: Sequence[int] = (0,)) -> dict[WireRow, WireRow]:
    state: dict[WireRow, WireRow] = {}
    for batch in batches:
        for segment in batch.segments:
            if table in segment.tables:
                replay(state, segment.tables[table], keys)
    return state
