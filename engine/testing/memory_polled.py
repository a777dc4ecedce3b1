"""A memory database without a log: it is looked at now and then, and what differs from the last look has changed.

As unkind as polling is: what a row was between two looks nobody sees; a look may miss rows that changed (they were
committed late, with an older time) and finds no deletions; only every few looks all rows are compared. What is known
of the rows outlives the process, in `MemoryLooks`, as a file beside the hub would.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from engine.errors import PositionLost
from engine.model.change import DELETE, INSERT, UPDATE, Batch, Chunk, Segment, TableRows
from engine.model.position import WHOLE, Position
from engine.model.value import ABSENT, WireRow
from engine.testing.faults import Faults
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import KEEP_ALIVE_SECONDS, read_page
from engine.testing.memory_transaction import Key, key_indexes

SWEEP_LOOKS = 4
"""Every so many looks all rows are compared; the others miss what they miss."""
MISS_CHANCE = 0.3

Row = tuple[str, Key]
"""A row of a table, by its key."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `seen`: the marker, where it is another one than at the look before. `swept`: the marker
    when all rows were last compared: what is new now was not there then."""

    number: int
    swept: int
    seen: int | None
    time: int
    changes: tuple[tuple[str, int, WireRow], ...]
    """Table, operation and row."""


@dataclass(slots=True)
class MemoryLooks:
    """What is known of a database from looking at it, and what was found and is not confirmed yet.

    `known`: rows as they were last found. `written`: what our deliveries made of them since, noted before each of them
    commits, so it counts only when the marker says that it did. `wanted`: rows that a delivery did not find as they
    were last seen, to be read at the next look whatever has become of them.
    """

    known: dict[Row, WireRow] = field(default_factory=lambda: {})
    written: dict[Row, list[tuple[int, WireRow | None]]] = field(default_factory=lambda: {})
    wanted: set[Row] = field(default_factory=lambda: set())
    found: list[Look] = field(default_factory=lambda: [])
    number: int = 0
    seen: int = 0
    swept: int = 0
    is_begun: bool = False

    @property
    def head(self) -> Position:
        """The end of the next look."""
        return Position((self.number + 1, WHOLE))

    def begin(self, database: MemoryDatabase, tables: Sequence[str]) -> None:
        """Take everything for known as it is now."""
        self.known = {(table, key): row for table in tables for key, row in database.tables[table].rows.items()}
        self.written, self.wanted, self.found = {}, set(), []
        self.number, self.seen, self.is_begun = self.number + 1, _marker(database), True
        self.swept = self.seen

    def expected(self, row: Row, seq: int) -> WireRow | None:
        """The row as delivery `seq` has left it, else as it was last found; None where there was none."""
        for written, image in reversed(self.written.get(row, [])):
            if written <= seq:
                return image
        return self.known.get(row)

    def note(self, seq: int, rows: dict[Row, WireRow | None]) -> None:
        """Delivery `seq` is about to commit, and leaves these rows so."""
        for row, image in rows.items():
            self.written.setdefault(row, []).append((seq, image))

    def forget_undelivered(self, seq: int) -> None:
        """The newest delivery is `seq`: what was noted for later ones never happened."""
        for row, images in list(self.written.items()):
            self.written[row] = [(written, image) for written, image in images if written <= seq]

    def look(
        self, database: MemoryDatabase, tables: Sequence[str], *, is_sweep: bool, misses: Callable[[], bool]
    ) -> None:
        """Find what changed. Happens at one moment."""
        seq = _marker(database)
        changes: list[tuple[str, int, WireRow]] = []
        for table in tables:
            rows = database.tables[table].rows
            keys = {key for name, key in self.known | self.written if name == table} | rows.keys()
            keys |= {key for name, key in self.wanted if name == table}
            for key in database.sorted_keys(table, dict.fromkeys(keys, ())):
                row, image, was = (table, key), rows.get(key), self.expected((table, key), seq)
                is_asked = row in self.wanted or any(written <= seq for written, _ in self.written.get(row, ()))
                if image == was and not is_asked:
                    continue
                if not is_asked and not is_sweep and (image is None or misses()):
                    continue
                if image != was or row in self.wanted:
                    changes.append((table, *_change(database, row, image, was)))
                self._know(row, image, seq)
        self.number += 1
        seen = seq if seq != self.seen else None
        self.seen = seq
        if changes or seen is not None:
            self.found.append(Look(self.number, self.swept, seen, database.now(), tuple(changes)))
        if is_sweep:
            self.swept = seq

    def _know(self, row: Row, image: WireRow | None, seq: int) -> None:
        self.wanted.discard(row)
        self.written[row] = [(written, later) for written, later in self.written.get(row, []) if written > seq]
        if not self.written[row]:
            del self.written[row]
        if image is None:
            self.known.pop(row, None)
        else:
            self.known[row] = image

    def confirm(self, position: Position) -> None:
        self.found = [look for look in self.found if position < Position((look.number, WHOLE))]


def _change(database: MemoryDatabase, row: Row, image: WireRow | None, was: WireRow | None) -> tuple[int, WireRow]:
    if image is not None:
        return (UPDATE if was is not None else INSERT), image
    table, key = row
    shape = database.tables[table].shape
    values = dict(zip(key_indexes(shape), key, strict=True))
    return DELETE, tuple(values.get(n, ABSENT) for n in range(len(shape.columns)))


def _marker(database: MemoryDatabase) -> int:
    return 0 if database.marker is None else database.marker.seq


class PolledSource:
    """`engine.ports.Source` of a memory database that is looked at."""

    def __init__(self, database: MemoryDatabase, looks: MemoryLooks, faults: Faults | None = None) -> None:
        self.database = database
        self.looks = looks
        self.faults = faults or Faults.none()

    @asynccontextmanager
    async def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[PolledFeed]:
        assert not verify, "what a delivery has made of a row is not kept here"
        await self.faults.call(self.database.name, "feed")
        if after is None:
            self.looks.begin(self.database, tables)
        elif not self.looks.is_begun:
            raise PositionLost(
                f"what was known of the rows of {self.database.name} is gone",
                hint=f"Run `concord backfill {self.database.name}`.",
                system=self.database.name,
            )
        start = after or Position((self.looks.number, WHOLE))
        yield PolledFeed(self.database, self.looks, self.faults, start, tuple(tables))


class PolledFeed:
    """`engine.ports.Feed` over the looks at a memory database."""

    def __init__(
        self, database: MemoryDatabase, looks: MemoryLooks, faults: Faults, start: Position, tables: tuple[str, ...]
    ) -> None:
        self._database = database
        self._looks = looks
        self._faults = faults
        self._position = start
        self._tables = tables
        self._every = 0.1 if faults.is_quiet else faults.rng.choice((0.1, 1.0, 10.0))
        self._kept_alive_at = -KEEP_ALIVE_SECONDS
        self._confirmed: Position | None = None

    @property
    def position(self) -> Position:
        return self._position

    def confirm(self, position: Position) -> None:
        self._confirmed = position

    async def receive(self, rows_max: int) -> Batch:
        await self._faults.call(self._database.name, "receive")
        if self._confirmed is not None:
            self._looks.confirm(self._confirmed)
        if self._faults.strikes("cut"):
            rows_max = self._faults.rng.randint(1, min(rows_max, 3))
        while True:
            batch = self._next(rows_max)
            if batch.segments or anyio.current_time() >= self._kept_alive_at + KEEP_ALIVE_SECONDS:
                if not batch.segments:
                    self._kept_alive_at = anyio.current_time()
                self._position = batch.position
                return batch
            await anyio.sleep(self._every)
            self._faults.check_alive()
            is_sweep = self._faults.is_quiet or self._looks.number % SWEEP_LOOKS == 0
            self._looks.look(self._database, self._tables, is_sweep=is_sweep, misses=self._misses)

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        await self._faults.call(self._database.name, "chunk")
        place = Position((self._looks.number, WHOLE))
        page = read_page(self._database, table, after, rows_max, condition=condition)
        marker = self._database.marker
        # What a look has not found yet comes with the next one: it says since when it may have been there.
        keys = [tuple(row[n] for n in key_indexes(page.shape)) for row in page.rows]
        seq = _marker(self._database)
        page.rows = [
            row for key, row in zip(keys, page.rows, strict=True) if self._looks.expected((table, key), seq) is not None
        ]
        return Chunk(page, place, place, None if marker is None else (marker.hub_id, marker.seq))

    def _misses(self) -> bool:
        return self._faults.rng.random() < MISS_CHANCE

    def _next(self, rows_max: int) -> Batch:
        """What was found behind the position."""
        number, index = self._position.order
        for look in self._looks.found:
            start = 0 if look.number > number else index + 1 if look.number == number and index != WHOLE else None
            if start is None:
                continue
            segment = Segment(seen=look.seen, seen_at_least=look.swept)
            end = min(len(look.changes), start + rows_max)
            for table, op, row in look.changes[start:end]:
                shape = self._database.tables[table].shape
                segment.tables.setdefault(table, TableRows(shape)).add(op, row, look.time)
            is_whole = end == len(look.changes)
            return Batch(
                position=Position((look.number, WHOLE if is_whole else end - 1)),
                segments=[segment],
                is_whole=is_whole,
                has_more=not is_whole or look is not self._looks.found[-1],
                rows_read=end - start,
                committed_at=look.time,
            )
        return Batch(position=Position((max(self._looks.number, number), WHOLE)))
