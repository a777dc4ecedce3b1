"""Stage 1: one source's lane. What the feed hands over is canonicalized here and committed by a second task, one batch
behind; the source is told to forget only what the hub has durably committed.

The first copy of a table runs in the same lane: pages read beside the log are injected where the log has passed them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.errors import SourceError
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.change import READ, Chunk, TableRows
from engine.model.table import Shape
from engine.pipeline.canonicalize import (
    CanonicalBatch,
    Canonicalizer,
    CanonicalSegment,
    PlaceRows,
    changed_columns,
    wire_row,
)
from engine.pipeline.commit import Committer, Counts
from engine.pipeline.pace import keep_pace
from engine.pipeline.signals import Signals
from engine.pipeline.topology import SystemPart, Topology
from engine.ports import Feed

# One hub commit: enough that its fsync costs nothing per row, little enough for memory and for the next lane's turn.
BATCH_ROWS = 10_000
# A batch also ends when its rows come to this: ten thousand rows may be ten thousand documents.
BATCH_BYTES_MAX = 48 << 20
# What is decoded and canonicalized at once: few enough that the one finds in the processor's cache what the other left
# there. Measured with nine-column rows: whole batches take half as long again for the two.
SLICE_ROWS = 1_000
# One page of a first copy.
CHUNK_ROWS = 5_000
# A page is read again when rows in it changed meanwhile and the log did not show them whole; then somebody is told.
CHUNK_ATTEMPTS_MAX = 20

Committed = Callable[[Counts, CanonicalBatch], Awaitable[None]]


@dataclass(slots=True)
class _Copy:
    """A page that waits for the log to pass it."""

    chunk: Chunk
    seen: int
    touched: dict[int, set[str]] = field(default_factory=lambda: {})
    """Keys by place: two places of one table may have keys of different columns."""
    is_partial: bool = False
    """A touched row came without all its columns, so the log alone does not make up for the page's row."""
    attempts: int = 0


class Capturer:
    """One source's lane over one open feed."""

    def __init__(
        self,
        hub: SqliteHub,
        topology: Topology,
        system: SystemPart,
        feed: Feed,
        signals: Signals,
        on_commit: Committed,
    ) -> None:
        self.hub = hub
        self.topology = topology
        self.system = system
        self.feed = feed
        self.signals = signals
        self.on_commit = on_commit
        self.canonicalizer = Canonicalizer(system)
        self.committer = Committer(topology, system)
        self._seen = 0
        self._is_new = False
        self._to_copy: list[tuple[str, tuple[str, ...] | None]] = []
        self._copy: _Copy | None = None

    async def run(self) -> None:
        """Capture until cancelled or something fails. Raises the feed's and the hub's errors."""
        self._seen, self._to_copy, self._is_new = await self.hub.read(self._progress)
        send, receive = anyio.create_memory_object_stream[CanonicalBatch](1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._capture, send, name=f"capture {self.system.name}")
            tasks.start_soon(self._commit, receive, name=f"commit {self.system.name}")

    def _progress(self, tx: HubTransaction) -> tuple[int, list[tuple[str, tuple[str, ...] | None]], bool]:
        done: dict[int, tuple[bytes | None, int]] = {
            place: (key, is_done) for place, key, is_done in tx.rows("select place, last_key, is_done from snapshot")
        }
        to_copy: list[tuple[str, tuple[str, ...] | None]] = []
        for table in self.system.tables:
            states = [done.get(part.id, (None, 0)) for part in self.system.places if part.place.table == table]
            if all(is_done for _, is_done in states):
                continue
            keys = [msgspec.msgpack.decode(key, type=tuple[str, ...]) if key else None for key, _ in states]
            to_copy.append((table, keys[0] if len(set(keys)) == 1 else None))
        stored = tx.position(self.system.id)
        # Where the log was lost and opened anew, the place where it begins is another one than the hub knows.
        return tx.seen(self.system.id), to_copy, stored is None or stored.order != self.feed.position.order

    async def _capture(self, send: MemoryObjectSendStream[CanonicalBatch]) -> None:
        # When nobody receives any more, the other task has failed, and its error says why.
        with suppress(_CommitEnded):
            await self._read_on(send)

    async def _read_on(self, send: MemoryObjectSendStream[CanonicalBatch]) -> None:
        async with send:
            if self._is_new:
                # A log to which nobody adds anything has been read to its end as well.
                await _hand_on(send, CanonicalBatch(self.feed.position, [], True, 0, 0, 0))
            await self._start_copy()
            while True:
                if self._copy is not None and self._has_passed(self._copy):
                    await _hand_on(send, self._inject(self._copy))
                    await self._start_copy()
                    continue
                # Cancelled here, a batch is lost with this lane; the feed is opened again where the hub is.
                await _hand_on(send, await self._receive_batch())

    async def _receive_batch(self) -> CanonicalBatch:
        """What is there, up to about `BATCH_ROWS`, slice by slice.

        Ends inside a transaction only where that is too large to be taken whole: until its end nothing is delivered.
        """
        batch = await self._receive()
        unfinished = 0 if batch.is_whole else batch.rows_read
        while batch.has_more and unfinished < BATCH_ROWS and batch.size < BATCH_BYTES_MAX:
            if batch.rows_read >= (2 * BATCH_ROWS if unfinished else BATCH_ROWS):
                break
            following = await self._receive()
            unfinished = 0 if following.is_whole else unfinished + following.rows_read
            batch.extend(following)
        return batch

    async def _receive(self) -> CanonicalBatch:
        batch = self.canonicalizer.canonicalize(await self.feed.receive(SLICE_ROWS))
        for segment in batch.segments:
            self._seen = max(self._seen, segment.seen or 0)
            if self._copy is not None:
                _touch(self._copy, segment.rows)
        return batch

    async def _commit(self, receive: MemoryObjectReceiveStream[CanonicalBatch]) -> None:
        async with receive:
            async for batch in receive:
                await self._wait_settled(
                    max((segment.seen or segment.seen_at_read or 0 for segment in batch.segments), default=0)
                )
                counts = await self.hub.transact(lambda tx, batch=batch: self.committer.commit(tx, batch))
                if batch.position is not None:
                    self.feed.confirm(batch.position)
                if counts.entries:
                    self.signals.journal.ring()
                if batch.done:
                    self.signals.cursor[self.system.id].ring()
                await self.on_commit(counts, batch)
                await keep_pace(self.signals, counts.entries, counts.last_seq)

    async def _wait_settled(self, seen: int) -> None:
        """Rows behind our delivery `seen` may be rows that it made: wait until the hub knows whose they are."""
        if not seen:
            return
        number, waiting = self.system.id, self.signals.waiting
        try:
            while True:
                event = self.signals.cursor[number].next
                cursor, last = await self.hub.read(lambda tx: (tx.system(number, "cursor")[0], tx.last_seq))
                if cursor >= seen or last < seen or not self.system.is_target:
                    return
                waiting.add(number)
                await event.wait()
        finally:
            waiting.discard(number)

    async def _start_copy(self) -> None:
        """Read the next page of a table that is not copied yet."""
        attempts = 0
        if self._copy is not None and self._copy.is_partial:
            attempts = self._copy.attempts + 1
            if attempts > CHUNK_ATTEMPTS_MAX:
                raise SourceError(
                    f"system {self.system.name}: rows of {self._copy.chunk.page.shape.name} change faster than they"
                    " can be copied",
                    hint="Start the first copy at a quieter time.",
                    system=self.system.name,
                )
        self._copy = None
        if self._to_copy:
            table, after = self._to_copy[0]
            seen = self._seen
            self._copy = _Copy(await self.feed.chunk(table, after, CHUNK_ROWS), seen, attempts=attempts)

    def _has_passed(self, copy: _Copy) -> bool:
        return copy.chunk.high <= self.feed.position

    def _inject(self, copy: _Copy) -> CanonicalBatch:
        """The page as a batch of its own, without the rows that the log has told about meanwhile."""
        page = copy.chunk.page
        batch = CanonicalBatch(None, [], is_whole=True, rows_read=0, rows_echoed=0, committed_at=0)
        if copy.is_partial:
            return batch
        table, _ = self._to_copy[0]
        rows = TableRows(page.shape, bytearray([READ]) * len(page.rows), page.rows, [page.read_at] * len(page.rows))
        found = self.canonicalizer.place_rows({table: rows})
        for place in found:
            if touched := copy.touched.get(place.part.id):
                _drop(place, touched)
        batch.rows_read = len(page.rows)
        seen, delivery = copy.seen, copy.chunk.delivery
        if delivery is not None and delivery[0] == self.topology.hub_id:
            # The page shows what was delivered by then, however far the log has been read.
            seen = max(seen, delivery[1])
        batch.segments.append(CanonicalSegment(None, [], found, seen_at_read=seen))
        last = None if page.last_key is None else msgspec.msgpack.encode(page.last_key)
        parts = [part for part in self.system.places if part.place.table == table]
        batch.done = [(part.id, last, len(page.rows)) for part in parts]
        if page.last_key is None:
            self._to_copy.pop(0)
        else:
            self._to_copy[0] = (table, page.last_key)
        return batch


class _CommitEnded(Exception):
    """The task that commits does not receive any more."""


async def _hand_on(send: MemoryObjectSendStream[CanonicalBatch], batch: CanonicalBatch) -> None:
    try:
        await send.send(batch)
    except anyio.BrokenResourceError as error:
        raise _CommitEnded from error


def _touch(copy: _Copy, found: list[PlaceRows]) -> None:
    table = copy.chunk.page.shape.name
    for rows in found:
        if rows.part.place.table == table:
            touched = copy.touched.setdefault(rows.part.id, set())
            touched.update(rows.keys)
            touched.update(rows.old_keys.values())
            copy.is_partial = copy.is_partial or bool(rows.partial())


def _drop(rows: PlaceRows, touched: set[str]) -> None:
    kept = [n for n, key in enumerate(rows.keys) if key not in touched]
    if len(kept) == len(rows.keys):
        return
    rows.keys = [rows.keys[n] for n in kept]
    rows.records = [rows.records[n] for n in kept]
    rows.times = [rows.times[n] for n in kept]
    rows.ops = bytearray(rows.ops[n] for n in kept)
    rows.problems = {i: rows.problems[n] for i, n in enumerate(kept) if n in rows.problems}
    rows.documents = {i: rows.documents[n] for i, n in enumerate(kept) if n in rows.documents}


def replay_parked(tx: HubTransaction, topology: Topology, system: SystemPart, shapes: dict[str, Shape]) -> Counts:
    """Read rows of a source that were set aside again, under the mapping and shapes of now; what still cannot be read
    stays. `seen` is what it was when they were captured: what came since is concurrent.

    A row that was captured under a column which is there no more, while another one is that the row does not have, may
    have that one's value under the old name, or not: such a row has to be read from its table."""
    canonicalizer, committer, counts = Canonicalizer(system), Committer(topology, system), Counts()
    first = tx.last_seq
    for part in system.places:
        shape = shapes.get(part.place.table)
        if shape is None:
            continue
        parked = tx.rows(
            "select id, seen, parked_at, doc from parked where direction = 'source' and place = ? order by id",
            (part.id,),
        )
        for number, seen, at, document in parked:
            if document is None:
                # Only a part of the row was ever there; it has to be read from its table.
                continue
            gone, new = changed_columns(shape, document)
            if gone and new:
                message = f"system {system.name}, table {shape.name}: the row was captured with the column {gone[0]},"
                hint = f"Run `concord backfill {system.name}`, which reads the table's rows as they are now."
                tx.write(
                    "update parked set message = ?, hint = ? where id = ?",
                    (f"{message} which is gone, and without {new[0]}, which has come", hint, number),
                )
                continue
            table = TableRows(shape, bytearray([READ]), [wire_row(shape, document)], [at])
            for rows in canonicalizer.place_rows({part.place.table: table}):
                if rows.part is part:
                    committer.take_rows(tx, rows, seen, counts)
    if tx.last_seq > first:
        tx.mark_boundary()
    counts.entries = tx.last_seq - first
    counts.last_seq = tx.last_seq
    return counts
