"""A database file that takes part, and short words for what the tests do with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import apsw

from engine.model.change import DELETE, Batch, TableRows
from engine.model.position import Position
from engine.model.value import Wire, WireRow
from engine.plugin import Site
from engine.ports import Feed, Role, TableWrite, TargetSession, WriteKind, WriteResult
from plugins.sqlite.apply import SqliteTarget
from plugins.sqlite.capture import SqliteSource
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection
from plugins.sqlite.journal import journal_head
from plugins.sqlite.setup import SqliteSystem

# Far above what any of it takes; a hang shall fail the test and not the run.
SECONDS_MAX = 60
HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
EPOCH = 3


@dataclass(slots=True)
class World:
    """One file with the plugin's objects for it, and a connection of its users."""

    path: Path
    config: SqliteConfig
    users: Connection
    seq: int = field(default=0)

    @property
    def site(self) -> Site:
        return Site(name="crm", directory=self.path.parent, work_directory=self.path.parent / "work")

    @property
    def system(self) -> SqliteSystem:
        return SqliteSystem(self.site, self.config)

    def run(self, *statements: str) -> None:
        """Each statement is a transaction."""
        for statement in statements:
            self.users.execute(statement)

    def rows(self, query: str, *bindings: object) -> list[tuple[Any, ...]]:
        return list(self.users.execute(query, bindings))

    def value(self, query: str) -> Any:
        return self.rows(query)[0][0]

    def head(self) -> int:
        """The end of the journal for everybody else: without what a user's transaction is about to add."""
        reader = connect(self.path)
        try:
            return journal_head(reader)
        finally:
            reader.close()

    async def setup(self, *tables: str, role: Role = Role.SOURCE | Role.TARGET) -> None:
        await self.system.setup(tables, role)

    async def create(self, *statements: str) -> None:
        """Tables of the user, and set-up for all of them."""
        self.run(*statements)
        await self.setup(*await self.system.shapes())

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        with anyio.fail_after(SECONDS_MAX):
            async with SqliteSource(self.site, self.config).feed(after, tables, verify) as feed:
                yield feed

    async def drain(self, feed: Feed, rows_max: int = 1000) -> list[Batch]:
        """Receive until the feed has passed what is committed now."""
        head, batches = self.head(), list[Batch]()
        while feed.position.order < (head,):
            batches.append(await feed.receive(rows_max))
        return batches

    async def changes(self, *tables: str, after: Position | None = None, rows_max: int = 1000) -> list[Batch]:
        """All batches up to now, from a feed of its own; nothing is confirmed."""
        async with self.feed(*tables, after=after) as feed:
            return await self.drain(feed, rows_max)

    @asynccontextmanager
    async def session(self, *tables: str, epoch: int = EPOCH, hub: str = HUB) -> AsyncGenerator[TargetSession]:
        with anyio.fail_after(SECONDS_MAX):
            async with SqliteTarget(self.site, self.config).open(tables) as session:
                await session.claim(hub, epoch)
                yield session

    async def deliver(self, session: TargetSession, *writes: TableWrite) -> list[WriteResult]:
        """The writes as one delivery with the next seq."""
        self.seq += 1
        async with session.delivery(self.seq) as delivery:
            return [await delivery.write(write) for write in writes]

    async def deliver_alone(self, *writes: TableWrite) -> list[WriteResult]:
        async with self.session() as session:
            return await self.deliver(session, *writes)

    def marker(self) -> tuple[Any, ...]:
        return self.rows("select hub, epoch, seq, active from concord_marker")[0]

    def process(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """A program of another user, in a process of its own: Python with `connection` open on the file."""
        opening = (
            "import sqlite3, sys, time\n"
            f"connection = sqlite3.connect({str(self.path)!r}, isolation_level=None, timeout=30)\n"
        )
        return run_python(opening + program, *arguments)


def open_world(directory: Path, *, journal_mode: str = "wal", **options: Any) -> World:
    path = directory / "crm.db"
    users = connect(path)
    users.execute(f"pragma journal_mode = {journal_mode}").close()
    users.execute("pragma synchronous = off")
    return World(path, SqliteConfig(path=path.name, poll_seconds=0.01, **options), users)


def connect(path: Path) -> Connection:
    connection = cast("Connection", apsw.Connection(str(path)))
    connection.set_busy_timeout(30_000)
    # As nearly every program has it; this build of SQLite has another default.
    connection.execute("pragma recursive_triggers = off")
    return connection


def run_python(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """The next line that the process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def flat(batches: Iterable[Batch], table: str | None = None) -> list[tuple[str, WireRow]]:
    """(operation, row) of all segments."""
    found: list[tuple[str, WireRow]] = []
    for batch in batches:
        for segment in batch.segments:
            for name, rows in segment.tables.items():
                if table in (None, name):
                    found += [(chr(op), row) for op, row in zip(rows.ops, rows.rows, strict=True)]
    return found


def echoes(batches: Iterable[Batch], table: str) -> list[tuple[int | None, str, WireRow]]:
    """(seen, operation, row) of all echoes."""
    return [
        (segment.seen, chr(op), row)
        for batch in batches
        for segment in batch.segments
        if table in segment.echoes
        for op, row in zip(segment.echoes[table].ops, segment.echoes[table].rows, strict=True)
    ]


def replay(state: dict[WireRow, WireRow], rows: TableRows) -> None:
    """Do to `state` what was done to the table. Keys are told apart to the letter, as a mapping does."""
    indexes = [rows.shape.index(name) for name in rows.shape.key]
    for index, (op, row) in enumerate(zip(rows.ops, rows.rows, strict=True)):
        if index in rows.old:
            state.pop(key_of(rows.old[index], indexes), None)
        key = key_of(row, indexes)
        if op == DELETE:
            state.pop(key, None)
        else:
            state[key] = row


def key_of(row: WireRow, indexes: Sequence[int | None]) -> WireRow:
    """1, 1.0 and True are one key of a dict and three keys of a table."""
    return tuple(repr(row[n]) for n in indexes if n is not None)


def exact(rows: Iterable[Sequence[object]]) -> list[tuple[tuple[str, object], ...]]:
    """Rows that compare by type too."""
    return [tuple((type(value).__name__, value) for value in row) for row in rows]


def insert(table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str] = ("id",)) -> TableWrite:
    return make_write(WriteKind.INSERT, table, columns, rows, key)


def update(table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str] = ("id",)) -> TableWrite:
    return make_write(WriteKind.UPDATE, table, columns, rows, key)


def delete(table: str, rows: Sequence[WireRow], key: Sequence[str] = ("id",)) -> TableWrite:
    return make_write(WriteKind.DELETE, table, key, rows, key)


def assign(
    table: str, columns: Sequence[str], rows: Sequence[WireRow], rids: Sequence[int], key: str = "id"
) -> TableWrite:
    """An insert whose keys the table hands out."""
    write = make_write(WriteKind.INSERT, table, columns, rows, (key,))
    write.rids, write.assigned = list(rids), key
    return write


def make_write(
    kind: WriteKind, table: str, columns: Sequence[str], rows: Sequence[WireRow], key: Sequence[str]
) -> TableWrite:
    return TableWrite(
        table=table,
        place=table,
        kind=kind,
        columns=tuple(columns),
        key=tuple(key),
        rows=list(rows),
        rids=list(range(1, len(rows) + 1)),
    )


def is_same(a: Wire, b: Wire) -> bool:
    return type(a) is type(b) and a == b
