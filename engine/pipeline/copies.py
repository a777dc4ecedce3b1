"""Pages of tables that are read beside the log, by one source's lane: first copies, then backfills.

A page is read in a snapshot between two positions of the log. It waits until the log has passed the second one, loses
the rows that the log told about meanwhile, which are newer, and is then a batch like others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.errors import ConcordError, Disposition, SourceError
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.change import READ, Chunk, TableRows
from engine.pipeline.backfill import Backfill, backfills, fail_backfill
from engine.pipeline.canonicalize import BackfillPage, CanonicalBatch, Canonicalizer, CanonicalSegment, PlaceRows
from engine.pipeline.joined import RawRows, copies_left
from engine.pipeline.topology import SystemPart
from engine.ports import Feed

PAGE_ROWS = 5_000
# A page is read again when rows in it changed meanwhile and the log did not show them whole; then somebody is told.
ATTEMPTS_MAX = 20


@dataclass(slots=True)
class _Page:
    """A page that waits for the log to pass it."""

    chunk: Chunk
    seen: int
    touched: dict[int, set[str]] = field(default_factory=lambda: {})
    """Keys by place: two places of one table may have keys of different columns."""
    touched_raw: set[str] = field(default_factory=lambda: set())
    """Keys of a table that is joined, or joins others."""
    is_partial: bool = False
    """A touched row came without all its columns, so the log alone does not make up for the page's row."""


@dataclass(slots=True)
class _Pace:
    """How fast the present backfill goes in this life of the lane."""

    number: int
    began: float
    rows: int = 0


class Copies:
    """What one lane has still to read, and the page that it has read last."""

    def __init__(
        self, hub: SqliteHub, hub_id: str, system: SystemPart, feed: Feed, canonicalizer: Canonicalizer
    ) -> None:
        self._hub, self._hub_id, self._system, self._feed = hub, hub_id, system, feed
        self._canonicalizer, self._clock = canonicalizer, hub.clock
        self._first: list[tuple[str, tuple[str, ...] | None]] = []
        self._backfills: list[Backfill] = []
        self._page: _Page | None = None
        self._attempts = 0
        self._pace = _Pace(0, 0.0)
        self._due = 0.0

    def load(self, tx: HubTransaction) -> None:
        """Where all of them stand."""
        done: dict[int, tuple[bytes | None, int]] = {
            place: (key, is_done) for place, key, is_done in tx.rows("select place, last_key, is_done from snapshot")
        }
        # What is joined comes first: a row is put together when its own table is read.
        for table, packed in copies_left(tx, self._system):
            self._first.append((table, msgspec.msgpack.decode(packed, type=tuple[str, ...]) if packed else None))
        left = {table for table, _ in self._first}
        for table in self._system.tables:
            if table in left:
                continue
            states = [done.get(part.id, (None, 0)) for part in self._system.places if part.place.table == table]
            if all(is_done for _, is_done in states):
                continue
            keys = [msgspec.msgpack.decode(key, type=tuple[str, ...]) if key else None for key, _ in states]
            self._first.append((table, keys[0] if len(set(keys)) == 1 else None))
        self._backfills = backfills(tx, self._system)

    def touch(self, found: Iterable[PlaceRows]) -> None:
        """The log has told about these rows."""
        page = self._page
        if page is None:
            return
        table = page.chunk.page.shape.name
        for rows in found:
            if rows.part.place.table == table:
                touched = page.touched.setdefault(rows.part.id, set())
                touched.update(rows.keys)
                touched.update(rows.old_keys.values())
                page.is_partial = page.is_partial or bool(rows.partial())

    def touch_raw(self, found: Iterable[RawRows]) -> None:
        page = self._page
        if page is None:
            return
        for raw in found:
            if raw.table == page.chunk.page.shape.name:
                page.touched_raw.update(raw.keys, raw.old_keys.values())
                page.is_partial = page.is_partial or raw.is_partial(self._system.joins.bases[raw.table].used)

    def due_in(self) -> float | None:
        """Seconds until `read` is to be called; None: nothing is left to read, or a page waits for the log."""
        if self._page is not None or not (self._first or self._backfills):
            return None
        return 0.0 if self._first else max(0.0, self._due - self._clock.monotonic())

    async def read(self, seen: int) -> None:
        """Read the next page. `seen`: of the log as far as it has been handed out."""
        if self._attempts > ATTEMPTS_MAX:
            table = self._first[0][0] if self._first else self._backfills[0].table
            raise SourceError(
                f"system {self._system.name}: rows of {table} change faster than they can be copied",
                hint="Start the first copy at a quieter time.",
                system=self._system.name,
            )
        if self._first:
            table, after = self._first[0]
            self._page = _Page(await self._feed.chunk(table, after, PAGE_ROWS), seen)
        elif self._backfills:
            chunk = await self._read_backfill(self._backfills[0])
            self._page = None if chunk is None else _Page(chunk, seen)

    async def _read_backfill(self, job: Backfill) -> Chunk | None:
        """None: it cannot be read, which is on record. That must not keep the log from being read."""
        now = self._clock.monotonic()
        if self._pace.number != job.id:
            self._pace = _Pace(job.id, now)
        rows = PAGE_ROWS
        if job.rows_per_s is not None:
            # A page a second, or a full one when it is due.
            rows = min(PAGE_ROWS, job.rows_per_s)
            self._due = now + rows / job.rows_per_s
        try:
            return await self._feed.chunk(job.table, job.after, rows, job.condition)
        except ConcordError as error:
            if error.disposition is not Disposition.HALT:
                raise
            message = str(error)
            await self._hub.transact(lambda tx: fail_backfill(tx, job.id, message))
            self._backfills.pop(0)
            return None

    def take(self) -> CanonicalBatch | None:
        """The page as a batch of its own, without the rows that the log has told about, when the log has passed it."""
        page = self._page
        if page is None or not page.chunk.high <= self._feed.position:
            return None
        self._page, self._attempts = None, self._attempts + 1 if page.is_partial else 0
        batch = CanonicalBatch(None, [], is_whole=True, rows_read=0, rows_echoed=0, committed_at=0)
        if page.is_partial:
            return batch
        found, count = page.chunk.page, len(page.chunk.page.rows)
        time = found.read_at if self._first else min(found.read_at, self._backfills[0].ordered_at)
        rows = TableRows(found.shape, bytearray([READ]) * count, found.rows, [time] * count)
        places = self._canonicalizer.place_rows({found.shape.name: rows})
        for place in places:
            if touched := page.touched.get(place.part.id):
                _drop(place, touched)
        batch.rows_read = count
        seen, delivery = page.seen, page.chunk.delivery
        if delivery is not None and delivery[0] == self._hub_id:
            # The page shows what was delivered by then, however far the log has been read.
            seen = max(seen, delivery[1])
        raws = self._canonicalizer.raw_rows({found.shape.name: rows})
        for raw in raws:
            raw.drop(page.touched_raw)
        batch.segments.append(CanonicalSegment(None, [], places, seen_at_read=seen, raw=raws))
        self._go_on(batch, found.last_key, count)
        return batch

    def _go_on(self, batch: CanonicalBatch, last_key: tuple[str, ...] | None, count: int) -> None:
        """Note in the batch how far its table is read, and here what is to be read next."""
        packed = None if last_key is None else msgspec.msgpack.encode(last_key)
        if self._first:
            table, _ = self._first[0]
            parts = [part for part in self._system.places if part.place.table == table]
            batch.done = [(part.id, packed, count) for part in parts]
            if table in self._system.joins.bases:
                batch.copied = [(table, packed)]
            self._first[:1] = [] if last_key is None else [(table, last_key)]
            return
        job = self._backfills[0]
        self._pace.rows += count
        seconds = max(self._clock.monotonic() - self._pace.began, 1e-3)
        batch.backfill = BackfillPage(job.id, job.table, packed, count, self._pace.rows / seconds)
        self._backfills[:1] = [] if last_key is None else [job.behind(last_key)]
        if last_key is None:
            self._due = 0.0


def _drop(rows: PlaceRows, touched: set[str]) -> None:
    kept: Sequence[int] = [n for n, key in enumerate(rows.keys) if key not in touched]
    if len(kept) == len(rows.keys):
        return
    rows.keys = [rows.keys[n] for n in kept]
    rows.records = [rows.records[n] for n in kept]
    rows.times = [rows.times[n] for n in kept]
    rows.ops = bytearray(rows.ops[n] for n in kept)
    rows.problems = {i: rows.problems[n] for i, n in enumerate(kept) if n in rows.problems}
    rows.documents = {i: rows.documents[n] for i, n in enumerate(kept) if n in rows.documents}
