"""A database in memory: what outlives a process in tests, with the properties of a real one that the engine relies on.

Tables with keys and constraints, transactions, a commit-ordered log with full row images, the marker and identity rows
that deliveries leave. Plain objects and synchronous, so that it may live on while lives of the engine come and go. The
ports on top of it are in `memory_source`, `memory_target` and `memory_system`. It knows no SQL and no isolation levels:
a transaction happens at one moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import anyio

from engine.errors import PositionLost
from engine.model.change import EventKind, TableEvent
from engine.model.position import WHOLE, Position
from engine.model.table import Form, Kind, Shape
from engine.model.value import Wire, WireRow
from engine.ports import Assigned
from engine.testing.memory_transaction import ForeignKey, Key, LoggedChange, MemoryTable, MemoryTransaction

START_MICROSECONDS = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class LoggedTransaction:
    """One commit. `seq` is that of our marker where the transaction was a delivery or a claim, else None."""

    number: int
    time: int
    seq: int | None
    changes: tuple[LoggedChange | TableEvent, ...]


@dataclass(frozen=True, slots=True)
class Marker:
    """The row that our deliveries leave in the database."""

    hub_id: str
    epoch: int
    seq: int


def ticking_clock() -> Callable[[], int]:
    """A clock without time: every look is a millisecond later."""
    ticks = itertools.count(START_MICROSECONDS, 1000)
    return lambda: next(ticks)


@dataclass(slots=True)
class MemoryDatabase:
    """One database. `now` is its clock, microseconds since 1970 UTC; commit times come from it.

    `log` holds the transactions that are kept, the first of them number `kept_from`. `beginning`: where capture begins
    when it has no position yet, set by set-up. `confirmed`: what the reader of the log has said it needs no more.
    """

    name: str
    form: Form = Form.TEXT
    now: Callable[[], int] = field(default_factory=ticking_clock)
    tables: dict[str, MemoryTable] = field(default_factory=lambda: {})
    log: list[LoggedTransaction] = field(default_factory=lambda: [])
    kept_from: int = 1
    beginning: Position | None = None
    confirmed: Position | None = None
    marker: Marker | None = None
    has_marker_table: bool = False
    identity: list[Assigned] = field(default_factory=lambda: [])
    watchers: list[anyio.Event] = field(default_factory=lambda: [])

    def create_table(
        self,
        shape: Shape,
        *,
        foreign_keys: Sequence[ForeignKey] = (),
        toasted: Sequence[str] = (),
        has_full_images: bool = True,
        store: Callable[[WireRow], WireRow] | None = None,
    ) -> MemoryTable:
        """Add a table; those it refers to must be there.

        `toasted` columns are not sent (ABSENT) by updates that leave them as they were. Without `has_full_images` the
        log shows key columns only where it shows an old row. `store` is what the table makes of every row written to
        it, as a trigger or a rounding column type would.
        """
        assert shape.form is self.form, "a system spells all its values in one form"
        assert shape.key, "a memory table needs a key"
        table = MemoryTable(
            shape=shape,
            foreign_keys=tuple(foreign_keys),
            toasted=frozenset(toasted),
            has_full_images=has_full_images,
            store=store,
        )
        for foreign_key in foreign_keys:
            parent = table if foreign_key.table == shape.name else self.tables[foreign_key.table]
            parent.referred_by.append((table, foreign_key))
        self.tables[shape.name] = table
        return table

    @contextmanager
    def transaction(self) -> Generator[MemoryTransaction]:
        """A user's transaction: commits when the block ends, rolls back when it raises.

        Constraint violations raise `RowRefused`; the statement that raised one holds nothing, and the user may go on.
        """
        transaction = MemoryTransaction(self.name, self.tables)
        try:
            yield transaction
        except BaseException:
            transaction.roll_back()
            raise
        self.append(None, transaction.changes)

    def append(self, seq: int | None, changes: Sequence[LoggedChange | TableEvent]) -> None:
        """Log a commit and wake whoever waits for the log. An empty transaction leaves no trace."""
        if not changes and seq is None:
            return
        self.log.append(LoggedTransaction(self.head_number + 1, self.now(), seq, tuple(changes)))
        self._wake()

    def alter(self, table: str, shape: Shape, convert: Callable[[dict[str, Wire]], dict[str, Wire]]) -> None:
        """Give a table another shape; `convert` makes the new row of an old one, by column name."""
        old = self.tables[table]
        assert shape.name == table
        assert shape.key == old.shape.key, "the key of a memory table cannot be altered"
        rows = [convert(old.named(row)) for row in old.rows.values()]
        old.rebuild(shape, [tuple(row[column.name] for column in shape.columns) for row in rows])
        self.append(None, [TableEvent(EventKind.RESHAPED, table, shape)])

    def rows(self, table: str) -> list[dict[str, Wire]]:
        """The table's rows by column name, in key order."""
        found = self.tables[table]
        return [found.named(found.rows[key]) for key in self.sorted_keys(table)]

    def row(self, table: str, *key: Wire) -> dict[str, Wire] | None:
        found = self.tables[table]
        row = found.rows.get(key)
        return None if row is None else found.named(row)

    # Positions: (number of the commit, index of the change in it or WHOLE).

    @property
    def head_number(self) -> int:
        return self.kept_from + len(self.log) - 1

    def delivery_as_of(self, number: int) -> tuple[str, int] | None:
        """The marker as it was behind commit `number`: hub id and seq; None when the log does not tell any more."""
        if self.marker is None or number == self.head_number:
            return None if self.marker is None else (self.marker.hub_id, self.marker.seq)
        for transaction in reversed(self.log):
            if transaction.seq is not None and transaction.number <= number:
                return self.marker.hub_id, transaction.seq
        return None

    @property
    def head(self) -> Position:
        """The end of the log."""
        return Position((self.head_number, WHOLE))

    def log_behind(self, position: Position) -> Sequence[LoggedTransaction]:
        """Transactions of which something stands behind `position`; the first may be known in part."""
        number, index = position.order
        first = number + 1 if index == WHOLE else number
        if first < self.kept_from:
            raise PositionLost(
                f"the log of {self.name} begins at {self.kept_from}, behind our position {number}",
                hint=f"Run `concord resync {self.name}`.",
                system=self.name,
                position=number,
                kept_from=self.kept_from,
            )
        return self.log[first - self.kept_from :]

    def confirm(self, position: Position) -> None:
        """The reader of the log needs nothing at or before `position`. Never goes back."""
        if self.confirmed is None or self.confirmed < position:
            self.confirmed = position

    def forget_confirmed(self) -> int:
        """Drop what was confirmed from the log, as a database does when it pleases; returns how many commits."""
        if self.confirmed is None:
            return 0
        number, index = self.confirmed.order
        return self._forget(number if index == WHOLE else number - 1)

    def lose_log(self) -> None:
        """Drop the whole log, confirmed or not: an invalidated slot, a purged binlog."""
        self._forget(self.head_number)

    def _forget(self, through: int) -> int:
        count = max(0, through - self.kept_from + 1)
        del self.log[:count]
        self.kept_from += count
        return count

    def oldest_view(self, table: str) -> int:
        """Number of the oldest commit behind which `rows_as_of` still knows the table."""
        for transaction in reversed(self.log):
            if any(isinstance(change, TableEvent) and change.table == table for change in transaction.changes):
                return transaction.number
        return self.kept_from - 1

    def rows_as_of(self, table: str, number: int) -> dict[Key, WireRow]:
        """The table as it was behind commit `number`, which must not be older than `oldest_view`."""
        rows = dict(self.tables[table].rows)
        for transaction in reversed(self.log_behind(Position((number, WHOLE)))):
            for change in reversed(transaction.changes):
                if isinstance(change, LoggedChange) and change.shape.name == table:
                    change.undo(rows)
        return rows

    def sorted_keys(self, table: str, rows: Mapping[Key, WireRow] | None = None) -> list[Key]:
        """Keys in the order of `page`: numbers by size, everything else as text."""
        return sorted(self.tables[table].rows if rows is None else rows, key=self._order(table))

    def keys_behind(self, table: str, after: Sequence[str] | None, rows: Mapping[Key, WireRow]) -> list[Key]:
        keys = self.sorted_keys(table, rows)
        if after is None:
            return keys
        order = self._order(table)
        bound = order(tuple(after))
        return [key for key in keys if order(key) > bound]

    def _order(self, table: str) -> Callable[[Key], Any]:
        found = self.tables[table]
        spell = [int if found.column(name).kind is Kind.INTEGER else str for name in found.shape.key]
        if len(spell) == 1:
            (only,) = spell
            return lambda key: only(cast(str, key[0]))
        return lambda key: [each(cast(str, value)) for each, value in zip(spell, key, strict=True)]

    def claim(self, hub_id: str, epoch: int) -> None:
        """Put a marker with `epoch`; logged like every write of the marker row."""
        seq = 0 if self.marker is None else self.marker.seq
        self.marker = Marker(hub_id, epoch, seq)
        self.append(seq, ())

    def deliver(self, seq: int, changes: Sequence[LoggedChange | TableEvent], assigned: Sequence[Assigned]) -> None:
        """Commit a delivery: marker, rows and identity rows at once."""
        assert self.marker is not None
        assert seq >= self.marker.seq, f"delivery {seq} to {self.name} behind delivery {self.marker.seq}"
        self.marker = replace(self.marker, seq=seq)
        self.identity.extend(assigned)
        self.append(seq, changes)

    def watch(self) -> anyio.Event:
        """An event that the next commit sets; give it back with `unwatch`."""
        event = anyio.Event()
        self.watchers.append(event)
        return event

    def unwatch(self, event: anyio.Event) -> None:
        if event in self.watchers:
            self.watchers.remove(event)

    def _wake(self) -> None:
        watchers, self.watchers = self.watchers, []
        for event in watchers:
            event.set()


def key_texts(key: Key) -> tuple[str, ...]:
    """A key as `Page.last_key` spells it."""
    return tuple(str(value) for value in key)
