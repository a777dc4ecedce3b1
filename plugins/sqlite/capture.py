"""The feed: the change journal, read behind a position.

SQLite has one writer at a time and readers see whole commits (https://www.sqlite.org/isolation.html), so what one read
transaction shows behind a position is a run of whole transactions, and a read that comes to the journal's end is whole.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from engine.errors import PositionLost, SourceUnready
from engine.model.change import DELETE, INSERT, UPDATE, Batch, Chunk, EventKind, Segment, TableEvent, TableRows
from engine.model.position import Position
from engine.model.table import Shape
from engine.model.value import WireRow
from engine.plugin import Site
from plugins.sqlite.catalog import PREFIX, read_shape
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, Row, Session, quoted, session
from plugins.sqlite.snapshot import key_bindings, read_page
from plugins.sqlite.triggers import captured_columns, journal_width

_OPS = {"I": INSERT, "U": UPDATE, "D": DELETE, "P": DELETE}
# What is confirmed is deleted in portions, each a transaction of a few milliseconds: users write in between.
PURGE_ROWS = 2_000
PURGE_SECONDS = 1.0


class SqliteSource:
    """`engine.ports.Source` of one SQLite file."""

    def __init__(self, site: Site, config: SqliteConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[SqliteFeed]:
        async with session(self.site, self.config) as opened:
            start = await opened.run(lambda connection: _start(connection, self.site.name, after))
            yield SqliteFeed(opened, self.config, start, tuple(tables), verify)


class SqliteFeed:
    """`engine.ports.Feed` over the journal."""

    def __init__(
        self, opened: Session, config: SqliteConfig, start: int, tables: tuple[str, ...], verify: frozenset[str]
    ) -> None:
        self._session = opened
        self._config = config
        self._at = start
        self._reader = _Reader(opened.system, tables, verify)
        self._confirmed = 0
        self._purged = 0
        self._purge_at = 0.0

    @property
    def position(self) -> Position:
        return Position((self._at,))

    def confirm(self, position: Position) -> None:
        self._confirmed = max(self._confirmed, position.order[0])

    async def receive(self, rows_max: int) -> Batch:
        while True:
            # Not interrupted once begun, so a batch is either returned or still in the journal.
            batch = await self._session.run(lambda connection: self._reader.read(connection, self._at, rows_max))
            if batch is not None:
                self._at = batch.position.order[0]
                return batch
            await self._purge()
            await anyio.sleep(self._config.poll_seconds)

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int) -> Chunk:
        def read(connection: Connection) -> Chunk:
            connection.execute("begin")
            try:
                page = read_page(connection, self._session.system, table, after, rows_max)
                head = Position((journal_head(connection),))
            finally:
                connection.execute("rollback")
            return Chunk(page=page, low=head, high=head)

        return await self._session.run(read, table)

    async def _purge(self) -> None:
        if self._confirmed <= self._purged or time.monotonic() < self._purge_at:
            return
        until = min(self._confirmed, max(self._purged, await self._session.run(_oldest) - 1) + PURGE_ROWS)
        if await self._session.run(lambda connection: _purge(connection, until)):
            self._purged = until
        self._purge_at = time.monotonic() + (PURGE_SECONDS if self._purged >= self._confirmed else 0.0)


def journal_head(connection: Connection) -> int:
    """The greatest id ever given, whether or not its row is still there."""
    row = connection.execute("select seq from sqlite_sequence where name = 'concord_journal'").fetchone()
    return int(row[0]) if row else 0


def _oldest(connection: Connection) -> int:
    row = connection.execute("select min(id) from concord_journal").fetchone()
    return int(row[0]) if row and row[0] is not None else journal_head(connection) + 1


def _start(connection: Connection, system: str, after: Position | None) -> int:
    if journal_width(connection) < 0:
        raise SourceUnready(
            f"system {system}: there is no change journal", hint=f"Run `concord setup {system}`.", system=system
        )
    row = connection.execute("select purged from concord_marker").fetchone()
    purged = int(row[0]) if row else 0
    if after is None:
        return purged
    (at,) = after.order
    if at < purged:
        raise PositionLost(
            f"system {system}: the journal begins behind {purged}, we stand at {at}",
            hint="Another hub has read this journal, or ours was restored from an older copy: run `concord compare`.",
            system=system,
        )
    if at > journal_head(connection):
        raise PositionLost(
            f"system {system}: the journal ends at {journal_head(connection)}, we stand at {at}",
            hint="The database was restored from an older copy, or set up anew: run `concord compare`.",
            system=system,
        )
    return at


def _purge(connection: Connection, until: int) -> bool:
    """Forget what is confirmed. Gives way at once to a user's write."""
    connection.set_busy_timeout(0)
    try:
        connection.execute("begin immediate")
    except Exception as error:
        if type(error).__name__ in ("BusyError", "LockedError", "ReadOnlyError"):
            return False
        raise
    finally:
        connection.set_busy_timeout(5000)
    try:
        connection.execute("delete from concord_journal where id <= ?", (until,))
        connection.execute("update concord_marker set purged = max(purged, ?)", (until,))
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    return True


@dataclass(slots=True)
class _Captured:
    """A table as its trigger journals it: `count` columns; None: it is not captured now."""

    shape: Shape
    count: int


@dataclass(slots=True)
class _Reader:
    """Turns journal rows into batches. Runs in the session's thread, one call at a time."""

    system: str
    tables: tuple[str, ...]
    verify: frozenset[str]
    schema_version: int = -1
    data_version: int = -1
    captured: dict[str, _Captured] = field(default_factory=lambda: {})
    missing: dict[str, EventKind] = field(default_factory=lambda: {})

    def read(self, connection: Connection, after: int, rows_max: int) -> Batch | None:
        """What stands behind `after`, None when nothing does and nothing changed."""
        version = _pragma(connection, "data_version")
        if version == self.data_version and after >= 0:
            return None
        connection.execute("begin")
        try:
            events = self._look(connection)
            rows = list(
                connection.execute(
                    "select * from concord_journal where id > ? order by id limit ?", (after, rows_max + 1)
                )
            )
            is_whole = len(rows) <= rows_max
            rows = rows[:rows_max]
            batch = self._batch(connection, after, rows, events, is_whole=is_whole)
        finally:
            connection.execute("rollback")
        # Only now: a commit between the two looks would otherwise be taken for seen.
        self.data_version = version if is_whole else -1
        return batch if rows or events else None

    def _batch(
        self, connection: Connection, after: int, rows: list[Row], events: list[TableEvent], *, is_whole: bool
    ) -> Batch:
        batch = Batch(position=Position((rows[-1][0] if rows else after,)), is_whole=is_whole, rows_read=0)
        segment = Segment(events=events)
        batch.segments.append(segment)
        old_keys: dict[str, WireRow] = {}
        for number, op, name, at, delivery, *values in rows:
            batch.committed_at = at
            if op == "M":
                segment = Segment(seen=values[0])
                batch.segments.append(segment)
                continue
            captured = self.captured.get(name)
            if captured is None:
                continue
            row = tuple(values[: captured.count])
            if op == "K":
                old_keys[name] = row
                continue
            if op == "P" and not self._is_gone(connection, captured.shape, row, number):
                continue
            batch.rows_read += 1
            old = old_keys.pop(name, None)
            tables = segment.tables
            if delivery:
                batch.rows_echoed += 1
                if name not in self.verify:
                    continue
                tables = segment.echoes
            table = tables.get(name)
            if table is None:
                table = tables[name] = TableRows(captured.shape)
            table.add(_OPS[op], row, at, old)
        batch.segments = [s for s in batch.segments if s.tables or s.echoes or s.events or s.seen is not None]
        return batch

    def _is_gone(self, connection: Connection, shape: Shape, row: WireRow, number: int) -> bool:
        """Whether a row that REPLACE may have deleted is not there. One that came back later is in the journal
        again."""
        where = " and ".join(f"{quoted(name)} is ?" for name in shape.key)
        found = connection.execute(
            f"select 1 from {quoted(shape.name)} where {where}", key_bindings(shape, row)
        ).fetchone()
        return found is None

    def _look(self, connection: Connection) -> list[TableEvent]:
        """Whether tables and triggers are still what they were. Cheap: the schema's version tells."""
        version = _pragma(connection, "schema_version")
        if version == self.schema_version:
            return []
        is_first = self.schema_version < 0
        self.schema_version = version
        tables = _schema(connection, "table")
        triggers = _schema(connection, "trigger")
        events: list[TableEvent] = []
        for name in self.tables:
            sql = triggers.get(f"{PREFIX}{name}_insert")
            if name not in tables:
                events.extend(self._miss(name, EventKind.DROPPED, "the table is gone"))
            elif sql is None:
                hint = f"its triggers are gone; run `concord setup {self.system}`, then `concord compare`"
                events.extend(self._miss(name, EventKind.UNPUBLISHED, hint))
            else:
                self.missing.pop(name, None)
                shape = read_shape(connection, name)
                columns = captured_columns(sql)
                known = {column.name: column for column in shape.columns}
                seen = Shape(
                    name=name,
                    columns=tuple(known[c] for c in columns if c in known),
                    form=shape.form,
                    key=shape.key,
                    unique=shape.unique,
                    has_triggers=shape.has_triggers,
                )
                before = self.captured.get(name)
                if not is_first and before is not None and before.shape != seen:
                    events.append(TableEvent(EventKind.RESHAPED, name, seen, "its columns changed"))
                elif len(columns) < len(shape.columns) and not is_first:
                    hint = f"it has columns that are not captured yet; run `concord setup {self.system}`"
                    events.append(TableEvent(EventKind.RESHAPED, name, seen, hint))
                self.captured[name] = _Captured(seen, len(columns))
        return events

    def _miss(self, name: str, kind: EventKind, detail: str) -> list[TableEvent]:
        self.captured.pop(name, None)
        if self.missing.get(name) is kind:
            return []
        self.missing[name] = kind
        return [TableEvent(kind, name, None, detail)]


def _schema(connection: Connection, kind: str) -> dict[str, str]:
    rows = connection.execute("select name, sql from sqlite_schema where type = ?", (kind,))
    return {str(name): str(sql) for name, sql in rows}


def _pragma(connection: Connection, name: str) -> int:
    row = connection.execute(f"pragma {name}").fetchone()
    return int(row[0]) if row else 0
