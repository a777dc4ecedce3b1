"""The feed: the change journal, read behind a position as others commit, and forgotten as it is confirmed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio
import apsw

from engine.errors import PositionLost, SourceUnready
from engine.model.change import Batch, Chunk
from engine.model.position import Position
from engine.plugin import Site
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, Session, session, snapshot, transaction
from plugins.sqlite.journal import JournalReader, journal_head, position_at
from plugins.sqlite.snapshot import read_page
from plugins.sqlite.triggers import journal_width

# What is confirmed is deleted in portions, each a transaction of about ten milliseconds: users write in between.
PURGE_ROWS = 10_000
# Fewer rows than that can wait: each portion is a commit, and a commit is a write to disk.
PURGE_SECONDS = 1.0
# When a user's write was in the way; it goes first.
PURGE_RETRY_SECONDS = 0.05


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
            start = await opened.run(lambda connection: _start(connection, self.site.name, after, bool(verify)))
            reader = JournalReader(self.site.name, tuple(tables), verify, start)
            await opened.run(reader.look)
            yield SqliteFeed(opened, self.config, reader)


class SqliteFeed:
    """`engine.ports.Feed` over the journal."""

    def __init__(self, opened: Session, config: SqliteConfig, reader: JournalReader) -> None:
        self._session = opened
        self._config = config
        self._reader = reader
        self._position = reader.position
        self._confirmed = 0
        self._purged = 0
        self._purge_at = 0.0

    @property
    def position(self) -> Position:
        return self._position

    def confirm(self, position: Position) -> None:
        self._confirmed = max(self._confirmed, position.order[0])

    async def receive(self, rows_max: int) -> Batch:
        while True:
            await self._purge()
            # Not interrupted once begun, and the position moves only with the batch: it is returned, or read again.
            batch = await self._session.run(lambda connection: self._reader.read(connection, max(rows_max, 1)))
            if batch is not None:
                self._position = batch.position
                return batch
            await anyio.sleep(self._config.poll_seconds)

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        def read(connection: Connection) -> Chunk:
            with snapshot(connection):
                page = read_page(connection, self._session.system, table, after, rows_max, condition)
                head = Position((journal_head(connection),))
                marker = connection.execute("select hub, seq from concord_marker").fetchone()
            delivery = (str(marker[0]), int(marker[1])) if marker and marker[0] else None
            return Chunk(page=page, low=head, high=head, delivery=delivery)

        return await self._session.run(read, table)

    async def _purge(self) -> None:
        """Forget a portion of what is confirmed, if one is due."""
        waiting = self._confirmed - self._purged
        now = time.monotonic()
        if waiting <= 0 or now < self._purge_at:
            return
        self._purge_at = now + PURGE_SECONDS
        until = await self._session.run(lambda connection: _purge(connection, self._config, self._confirmed))
        if until is None:
            self._purge_at = now + PURGE_RETRY_SECONDS
            return
        self._purged = until
        if self._confirmed - until >= PURGE_ROWS:
            self._purge_at = now


def _start(connection: Connection, system: str, after: Position | None, has_verify: bool) -> Position:
    if journal_width(connection) < 0:
        raise SourceUnready(
            f"system {system}: there is no change journal", hint=f"Run `concord setup {system}`.", system=system
        )
    found = connection.execute("select purged, verify from concord_marker").fetchone()
    purged, verify = (int(found[0]), bool(found[1])) if found else (0, has_verify)
    if verify is not has_verify:
        # Deliveries look at it: only then do they journal what they write.
        with transaction(connection):
            connection.execute("update concord_marker set verify = ?", (has_verify,))
    number = purged if after is None else after.order[0]
    head = journal_head(connection)
    row = connection.execute("select at from concord_journal where id = ?", (number,)).fetchone()
    position = position_at(number, int(row[0]) if row else 0)
    if after is None:
        return position
    if number < purged:
        raise PositionLost(
            f"system {system}: its change journal begins behind {purged}, we stand at {number}",
            hint="Another hub has read this journal, or ours was restored from an older copy: run `concord compare`.",
            system=system,
        )
    if number > head:
        raise PositionLost(
            f"system {system}: its change journal ends at {head}, we stand at {number}",
            hint="The database was restored from an older copy, or set up anew: run `concord compare`.",
            system=system,
        )
    if after.token and after != position:
        raise PositionLost(
            f"system {system}: row {number} of its change journal is not the one that we have read",
            hint="The database was restored from an older copy, or set up anew: run `concord compare`.",
            system=system,
        )
    return position


def _purge(connection: Connection, config: SqliteConfig, confirmed: int) -> int | None:
    """Forget rows before `confirmed`, its own not: it is the sign by which the journal is known again, and keeps
    SQLite from using its number twice. Returns up to where; None when a user's write is under way."""
    connection.set_busy_timeout(0)
    try:
        with transaction(connection):
            row = connection.execute("select min(id) from concord_journal").fetchone()
            oldest = int(row[0]) if row and row[0] is not None else confirmed
            until = min(confirmed, oldest + PURGE_ROWS)
            connection.execute("delete from concord_journal where id < ?", (until,))
            connection.execute("update concord_marker set purged = max(purged, ?)", (until,))
    except (apsw.BusyError, apsw.LockedError, apsw.ReadOnlyError):
        return None
    finally:
        connection.set_busy_timeout(int(config.busy_timeout_seconds * 1000))
    return until
