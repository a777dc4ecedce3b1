"""The log of a memory database as `engine.ports.Source`.

As unkind as the contract allows: large transactions come in parts, transactions of tables that take no part only move
the position, old images may be keys alone, a chunk's `low` may lie well before its rows and its `high` behind them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio

from engine.errors import SourceUnready, SystemUnreachable
from engine.model.change import DELETE, UPDATE, Batch, Chunk, Page, Segment, TableEvent, TableRows
from engine.model.position import WHOLE, Position
from engine.model.value import ABSENT, WireRow
from engine.testing.faults import Faults
from engine.testing.memory import LoggedTransaction, MemoryDatabase, key_texts
from engine.testing.memory_transaction import LoggedChange, key_indexes

KEEP_ALIVE_SECONDS = 1.0
"""A batch that only moves the position comes at most once in this time."""
LOWS_KEPT = 8
"""Positions handed out that a chunk may choose its `low` from."""


class MemorySource:
    """`engine.ports.Source` of a memory database."""

    def __init__(self, database: MemoryDatabase, faults: Faults | None = None) -> None:
        self.database = database
        self.faults = faults or Faults.none()

    @asynccontextmanager
    async def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[MemoryFeed]:
        database = self.database
        await self.faults.call(database.name, "feed")
        start = after or database.beginning
        if start is None:
            raise SourceUnready(
                f"{database.name} keeps no log for us: nobody has said from where",
                hint=f"Run `concord setup {database.name}`.",
                system=database.name,
            )
        database.log_behind(start)
        yield MemoryFeed(database, self.faults, start, frozenset(tables), verify)


class MemoryFeed:
    """`engine.ports.Feed` of a memory database. After an error it stays broken: open another."""

    def __init__(
        self,
        database: MemoryDatabase,
        faults: Faults,
        start: Position,
        tables: frozenset[str],
        verify: frozenset[str],
    ) -> None:
        self._database = database
        self._faults = faults
        self._position = start
        self._tables = tables
        self._verify = verify
        self._confirmed: Position | None = None
        self._is_broken = False
        self._kept_alive_at = -KEEP_ALIVE_SECONDS

    @property
    def position(self) -> Position:
        return self._position

    async def receive(self, rows_max: int) -> Batch:
        await self._call("receive")
        self._send_confirmation()
        if self._faults.strikes("cut"):
            rows_max = self._faults.rng.randint(1, min(rows_max, 3))
        while True:
            # From looking to waiting nothing is awaited, so no commit can come between unseen.
            batch = self._next(rows_max)
            wait_seconds = KEEP_ALIVE_SECONDS
            if batch is not None:
                wait_seconds = self._kept_alive_at + KEEP_ALIVE_SECONDS - anyio.current_time()
                if batch.segments or wait_seconds <= 0:
                    self._hand_out(batch)
                    return batch
            await self._wait(wait_seconds if batch is not None else None)
            self._faults.check_alive()

    def confirm(self, position: Position) -> None:
        if self._confirmed is None or self._confirmed < position:
            self._confirmed = position

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        await self._call("chunk")
        faults = self._faults
        low = self._database.head if faults.is_quiet else self._position
        as_of = self._database.head_number
        if faults.strikes("stale"):
            # A snapshot may not show yet what the log shows already: a commit is logged before it is visible. What was
            # handed out it does show, a transaction of which only a part was handed out too.
            as_of = faults.rng.randint(max(low.order[0], self._database.oldest_view(table)), as_of)
        page = read_page(self._database, table, after, rows_max, as_of, condition)
        await faults.delay()
        faults.check_alive()
        return Chunk(page, low, self._database.head, self._database.delivery_as_of(as_of))

    def _next(self, rows_max: int) -> Batch | None:
        """What stands behind the position, as far as `rows_max`; None at the end of the log."""
        builder = _Builder(self._tables, self._verify)
        number, index = self._position.order
        position, is_whole, committed_at = self._position, True, 0
        for transaction in self._database.log_behind(self._position):
            start = index + 1 if transaction.number == number and index != WHOLE else 0
            rows = builder.count(transaction, start)
            if builder.rows_read and builder.rows_read + rows > rows_max:
                break
            end = builder.add(transaction, start, rows_max)
            is_whole = end == len(transaction.changes)
            position = Position((transaction.number, WHOLE if is_whole else end - 1))
            committed_at = transaction.time
            if not is_whole or builder.rows_read >= rows_max:
                break
        if position == self._position:
            return None
        return Batch(
            position=position,
            segments=builder.segments,
            is_whole=is_whole,
            has_more=not is_whole or position.order[0] < self._database.head_number,
            rows_read=builder.rows_read,
            rows_echoed=builder.rows_echoed,
            committed_at=committed_at,
        )

    def _hand_out(self, batch: Batch) -> None:
        self._position = batch.position
        if not batch.segments:
            self._kept_alive_at = anyio.current_time()

    async def _wait(self, seconds: float | None) -> None:
        """Until the next commit, but no longer than `seconds`."""
        event = self._database.watch()
        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._database.unwatch(event)

    def _send_confirmation(self) -> None:
        if self._confirmed is not None:
            self._database.confirm(self._confirmed)

    async def _call(self, name: str) -> None:
        if self._is_broken:
            raise SystemUnreachable(f"the feed of {self._database.name} is broken", hint="Open another.")
        try:
            await self._faults.call(self._database.name, name)
        except SystemUnreachable:
            self._is_broken = True
            raise


class _Builder:
    """Segments of one batch, from transactions and parts of transactions."""

    def __init__(self, tables: frozenset[str], verify: frozenset[str]) -> None:
        self.segments: list[Segment] = []
        self.rows_read = 0
        self.rows_echoed = 0
        self._tables = tables
        self._verify = verify

    def count(self, transaction: LoggedTransaction, start: int) -> int:
        """Rows of tables that take part."""
        return sum(
            isinstance(change, LoggedChange) and change.shape.name in self._tables
            for change in transaction.changes[start:]
        )

    def add(self, transaction: LoggedTransaction, start: int, rows_max: int) -> int:
        """Add the changes from `start` until there are `rows_max` rows; returns the index behind the last one."""
        if transaction.seq is not None:
            # The rest of a delivery repeats the marker: its first part may have come in an earlier batch.
            self.segments.append(Segment(seen=transaction.seq))
        for index, change in enumerate(transaction.changes[start:], start):
            if isinstance(change, TableEvent):
                if change.table in self._tables:
                    self._add_event(change)
            elif change.shape.name in self._tables:
                self._add_row(transaction, change)
                if self.rows_read >= rows_max:
                    return index + 1
        return len(transaction.changes)

    def _add_event(self, event: TableEvent) -> None:
        if not self.segments or self.segments[-1].tables or self.segments[-1].echoes:
            self.segments.append(Segment())
        self.segments[-1].events.append(event)

    def _add_row(self, transaction: LoggedTransaction, change: LoggedChange) -> None:
        self.rows_read += 1
        name = change.shape.name
        is_echo = transaction.seq is not None
        if is_echo:
            self.rows_echoed += 1
            if name not in self._verify:
                return
        if not self.segments:
            self.segments.append(Segment())
        tables = self.segments[-1].echoes if is_echo else self.segments[-1].tables
        rows = tables.get(name)
        if rows is None:
            rows = tables[name] = TableRows(change.shape)
        assert rows.shape is change.shape, "a change of shape starts a new segment"
        rows.add(change.op, _sent_row(change), transaction.time, _sent_old(change) if change.moves_key else None)


def read_page(
    database: MemoryDatabase,
    table: str,
    after: tuple[str, ...] | None,
    rows_max: int,
    as_of: int | None = None,
    condition: str = "",
) -> Page:
    """Rows in key order behind `after`, of now or as they were behind commit `as_of`. The only condition that this
    database understands is `column = 'value'`."""
    rows = database.tables[table].rows
    if as_of is not None and as_of != database.head_number:
        rows = database.rows_as_of(table, as_of)
    if condition:
        column, _, value = condition.partition(" = ")
        index = database.tables[table].shape.index(column)
        assert index is not None, f"no column {column}"
        rows = {key: row for key, row in rows.items() if row[index] == value.strip("'")}
    keys = database.keys_behind(table, after, rows)
    found = keys[:rows_max]
    last_key = key_texts(found[-1]) if len(keys) > len(found) else None
    return Page(database.tables[table].shape, [rows[key] for key in found], last_key, database.now())


def _sent_row(change: LoggedChange) -> WireRow:
    """The row as the log sends it: the old one for a delete, without unchanged toasted columns for an update."""
    if change.op == DELETE:
        return _sent_old(change)
    assert change.after is not None
    if change.op == UPDATE and change.toasted:
        assert change.before is not None
        return tuple(
            ABSENT if column.name in change.toasted and old == new else new
            for column, old, new in zip(change.shape.columns, change.before, change.after, strict=True)
        )
    return change.after


def _sent_old(change: LoggedChange) -> WireRow:
    assert change.before is not None
    if change.has_full_images:
        return change.before
    keys = key_indexes(change.shape)
    return tuple(value if n in keys else ABSENT for n, value in enumerate(change.before))
