"""Stage 1: one source's lane. What the feed hands over is canonicalized here and committed by a second task, one batch
behind; the source is told to forget only what the hub has durably committed.

Tables that are read beside the log (`copies.py`) come in the same lane, a page at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.change import READ, Batch, TableRows
from engine.model.table import Shape
from engine.pipeline.canonicalize import (
    CanonicalBatch,
    Canonicalizer,
    changed_columns,
    wire_row,
)
from engine.pipeline.commit import Committer, Counts
from engine.pipeline.copies import Copies
from engine.pipeline.derive import Deriver
from engine.pipeline.joined import Joiner
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

Committed = Callable[[Counts, CanonicalBatch], Awaitable[None]]


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
        joiner: Joiner | None = None,
    ) -> None:
        self.hub = hub
        self.topology = topology
        self.system = system
        self.feed = feed
        self.signals = signals
        self.on_commit = on_commit
        self.canonicalizer = Canonicalizer(system, joiner)
        self.committer = Committer(topology, system, self.canonicalizer)
        self.copies = Copies(hub, topology.hub_id, system, feed, self.canonicalizer)
        self._seen = 0
        self._is_new = False

    async def run(self) -> None:
        """Capture until cancelled or something fails. Raises the feed's and the hub's errors."""
        self._seen, self._is_new = await self.hub.transact(self._progress)
        send, receive = anyio.create_memory_object_stream[CanonicalBatch](1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._capture, send, name=f"capture {self.system.name}")
            tasks.start_soon(self._commit, receive, name=f"commit {self.system.name}")

    def _progress(self, tx: HubTransaction) -> tuple[int, bool]:
        if self.canonicalizer.joiner is not None:
            self.canonicalizer.joiner.register(tx)
        self.copies.load(tx)
        stored = tx.position(self.system.id)
        # Where the log was lost and opened anew, the place where it begins is another one than the hub knows.
        return tx.seen(self.system.id), stored is None or stored.order != self.feed.position.order

    async def _capture(self, send: MemoryObjectSendStream[CanonicalBatch]) -> None:
        # When nobody receives any more, the other task has failed, and its error says why.
        with suppress(_CommitEnded):
            await self._read_on(send)

    async def _read_on(self, send: MemoryObjectSendStream[CanonicalBatch]) -> None:
        async with send:
            if self._is_new:
                # A log to which nobody adds anything has been read to its end as well.
                await _hand_on(send, CanonicalBatch(self.feed.position, [], True, 0, 0, 0))
            while True:
                if self.copies.due_in() == 0:
                    await self.copies.read(self._seen)
                # Cancelled here, a batch is lost with this lane; the feed is opened again where the hub is.
                batch = self.copies.take() or await self._receive_batch()
                if batch is not None:
                    await _hand_on(send, batch)

    async def _receive_batch(self) -> CanonicalBatch | None:
        """What is there, up to about `BATCH_ROWS`, slice by slice. None: a page is due.

        Ends inside a transaction only where that is too large to be taken whole: until its end nothing is delivered.
        """
        received = None
        with anyio.move_on_after(self.copies.due_in()):
            received = await self.feed.receive(SLICE_ROWS)
        if received is None:
            return None
        batch = self._canonical(received)
        unfinished = 0 if batch.is_whole else batch.rows_read
        while batch.has_more and unfinished < BATCH_ROWS and batch.size < BATCH_BYTES_MAX:
            if batch.rows_read >= (2 * BATCH_ROWS if unfinished else BATCH_ROWS):
                break
            following = self._canonical(await self.feed.receive(SLICE_ROWS))
            unfinished = 0 if following.is_whole else unfinished + following.rows_read
            batch.extend(following)
        return batch

    def _canonical(self, received: Batch) -> CanonicalBatch:
        batch = self.canonicalizer.canonicalize(received)
        for segment in batch.segments:
            self._seen = max(self._seen, segment.seen or 0)
            self.copies.touch(segment.rows)
            self.copies.touch_raw(segment.raw)
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


class _CommitEnded(Exception):
    """The task that commits does not receive any more."""


async def _hand_on(send: MemoryObjectSendStream[CanonicalBatch], batch: CanonicalBatch) -> None:
    try:
        await send.send(batch)
    except anyio.BrokenResourceError as error:
        raise _CommitEnded from error


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
    if topology.workflows:
        # Whether a row that was set aside had just changed then, nobody knows any more; that a record has, is certain.
        Deriver(topology).derive(tx, first, only_known=True)
    if tx.last_seq > first:
        tx.mark_boundary()
    counts.entries = tx.last_seq - first
    counts.last_seq = tx.last_seq
    return counts
