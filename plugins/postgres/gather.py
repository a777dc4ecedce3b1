"""pgoutput messages become batches: transactions, segments, our own deliveries, large transactions in parts.

`Gatherer.take` is fed messages, from the socket or from a spooled transaction, until it has a reason to stop. It never
waits. What it has gathered stays in it between calls, so a reader that is cancelled loses nothing.

Our own delivery is a transaction whose first row change updates `concord.marker`. Its other rows are counted and not
decoded, unless their table is to be verified.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.errors import MalformedLog
from engine.model.change import Batch, EventKind, Segment, TableEvent, TableRows
from engine.model.position import WHOLE, Position
from engine.model.table import Shape
from plugins.postgres.compile import MANY_ROWS, Decoders
from plugins.postgres.decode import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    MESSAGE,
    ORIGIN,
    RELATION,
    STREAM_ABORT,
    STREAM_COMMIT,
    STREAM_START,
    STREAM_STOP,
    TRUNCATE,
    TYPE,
    UPDATE,
    Begin,
    StreamCommit,
    decode_begin,
    decode_commit,
    decode_stream_abort,
    decode_stream_commit,
    decode_stream_start,
    decode_truncate,
    malformed,
)
from plugins.postgres.position import Cluster, Resume, before, behind_transaction, inside_transaction
from plugins.postgres.spool import Spool

_TRUNCATED: Final = "Delete records that are to go elsewhere too, or bring all rows back: `concord rewrite --missing`"
# A batch also ends when its messages come to this: a thousand rows may be a thousand documents.
BATCH_BYTES_MAX: Final = 16 << 20
# Messages between two looks at the clock and at other tasks, where they bring no rows (deliveries, other tables).
MESSAGES_MAX: Final = 50_000


_ROWS: Final = frozenset((INSERT, UPDATE, DELETE))


class Stop(enum.Enum):
    """Why `Gatherer.take` returned."""

    DRY = "no more messages"
    FULL = "a batch is full"
    RELATION = "a table is new or looks different"
    STREAM = "a streamed transaction has committed"


@dataclass(slots=True)
class Relation:
    """A table as the running log knows it. `shape` is None for a table that takes no part."""

    name: str
    message: bytes
    decoders: Decoders
    shape: Shape | None
    is_marker: bool = False
    is_verified: bool = False
    marker_seq: int = 0
    """Index of the column `seq`, of the marker."""
    rows: TableRows | None = None
    """Where rows go in the present segment; None before the first one."""
    waiting: list[bytes] = field(default_factory=lambda: [])
    """Messages that bring a row each, to be decoded together: the last ones of `rows`."""

    def decode(self) -> None:
        """Decode what waits."""
        if self.waiting and self.rows is not None:
            waiting, self.waiting = self.waiting, []
            self.rows.rows.extend(self.decoders.inserts(waiting))


@dataclass(slots=True)
class _Transaction:
    """The transaction that is being read. `is_plain`: its first row was seen, nothing is to be skipped, not ours."""

    begin: Begin
    count: int = 0
    skip: int = 0
    is_plain: bool = False
    is_echo: bool = False
    has_first: bool = False
    seq: int = 0


@dataclass(slots=True)
class Gatherer:
    """Gathers for one feed. `xids`: 4 bytes for each transaction begun, for `Feed.chunk`."""

    system: str
    cluster: Cluster
    resume: Resume
    spool: Spool
    relations: dict[bytes, Relation] = field(default_factory=lambda: {})
    xids: bytearray = field(default_factory=bytearray)
    unknown: bytes = b""
    """The relation message that made `take` stop."""
    committed: StreamCommit | None = None
    """The streamed transaction that made `take` stop."""
    rows_max: int = 0
    _transaction: _Transaction | None = None
    _segments: list[Segment] = field(default_factory=lambda: [])
    _ended: tuple[int, int] | None = None
    """Final and end LSN of the last whole transaction; made a position only once a batch."""
    _rows_echoed: int = 0
    _rows: int = 0
    _bytes: int = 0
    _committed_at: int = 0
    _is_streaming: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether a transaction is being read."""
        return self._transaction is not None

    @property
    def has_changes(self) -> bool:
        """Whether a batch made now would hold more than a position."""
        return bool(self._segments) or self._rows > 0

    @property
    def rows(self) -> int:
        """Row changes gathered for the next batch, echoes among them."""
        return self._rows

    def has_moved(self, wal_end: int, last: Position) -> bool:
        """Whether a batch made now would stand behind `last`."""
        if self._transaction is not None:
            return False
        lsn = wal_end - 1 if self._ended is None else max(wal_end - 1, self._ended[0])
        return (lsn, WHOLE) > last.order

    def take(self, messages: Iterator[bytes]) -> Stop:
        """Consume messages until there are no more, the batch is full, or something needs the outside world."""
        relations = self.relations
        transaction = self._transaction
        others = 0
        message = next(messages, None)
        while message is not None:
            kind = message[0]
            if self._is_streaming and kind != STREAM_STOP:
                self.spool.add(message)
                others += 1
                if others > MESSAGES_MAX:
                    return Stop.FULL
            elif kind in _ROWS:
                relation = relations.get(message[1:5])
                if transaction is None or relation is None:
                    raise malformed("row before its begin or relation", message)
                transaction.count += 1
                if not transaction.is_plain and not self._is_change(transaction, relation, message):
                    others += 1
                elif relation.shape is not None:
                    rows = relation.rows or self._rows_of(relation, relation.shape)
                    if kind == INSERT or (kind == UPDATE and message[5:6] == b"N"):
                        if message[5:8] != relation.decoders.head:
                            raise malformed("row", message)
                        message = self._take_run(message, messages, transaction, rows, relation.waiting)
                        if len(relation.waiting) >= MANY_ROWS:
                            relation.decode()
                        if message is not None:
                            continue
                    else:
                        relation.decode()
                        old = None
                        if kind == DELETE:
                            row = relation.decoders.delete(message)
                        else:
                            row, old = relation.decoders.update(message)
                        rows.add(kind, row, transaction.begin.time, old)
                        self._rows += 1
                        self._bytes += len(message)
                elif relation.is_marker:
                    self._pass_marker(relation, message)
                else:
                    others += 1
                if (self._rows >= self.rows_max or self._bytes >= BATCH_BYTES_MAX) and self._is_full():
                    return Stop.FULL
                if others > MESSAGES_MAX:
                    return Stop.FULL
            elif kind == BEGIN:
                transaction = self.begin(decode_begin(message))
            elif kind == COMMIT:
                self.end(decode_commit(message))
                transaction = None
                if self._rows >= self.rows_max or self._bytes >= BATCH_BYTES_MAX or others > MESSAGES_MAX:
                    return Stop.FULL
                others += 1
            elif kind == RELATION:
                known = relations.get(message[1:5])
                if known is None or known.message != message:
                    self.unknown = message
                    return Stop.RELATION
            elif (stop := self._rare(kind, message)) is not None:
                return stop
            message = next(messages, None)
        return Stop.DRY

    def _take_run(
        self,
        message: bytes,
        messages: Iterator[bytes],
        transaction: _Transaction,
        rows: TableRows,
        waiting: list[bytes],
    ) -> bytes | None:
        """Take a row, and those behind it that are of the same kind and table: of them nothing else is looked at.

        Returns the message behind, which is another one; None when none was read, as at the end or where a batch may
        be full. `transaction` has counted the first row.
        """
        head, first = message[:8], len(waiting)
        add, size = waiting.append, len(message)
        add(message)
        left = min(2 * self.rows_max - self._rows, self.rows_max + transaction.skip - transaction.count + 1)
        room = BATCH_BYTES_MAX - self._bytes
        following: bytes | None = None
        if left > 1 and size < room:
            for following in messages:
                if following[:8] != head:
                    break
                add(following)
                size += len(following)
                left -= 1
                if left == 1 or size >= room:
                    following = None
                    break
            else:
                following = None
        count = len(waiting) - first
        rows.ops += head[:1] * count
        rows.times += [transaction.begin.time] * count
        transaction.count += count - 1
        self._rows += count
        self._bytes += size
        return following

    def begin(self, begin: Begin) -> _Transaction:
        """A transaction begins: of a 'B' message, or a streamed one that has committed."""
        if self._transaction is not None:
            raise MalformedLog(f"system {self.system}: a transaction begins inside another")
        self.xids += begin.xid
        skip = 0
        if begin.final_lsn < self.resume.lsn:
            # The server was asked for later ones; whatever it thinks, these have been handed out.
            skip = 2**62
        elif begin.final_lsn == self.resume.final_lsn:
            skip = self.resume.skip
        self._transaction = _Transaction(begin, skip=skip)
        return self._transaction

    def end(self, end_lsn: int) -> None:
        """The transaction ends; its commit record does at `end_lsn`."""
        transaction = self._transaction
        if transaction is None:
            raise MalformedLog(f"system {self.system}: a commit without a begin")
        self._transaction = None
        begin = transaction.begin
        if begin.final_lsn >= self.resume.lsn:
            self._ended = (begin.final_lsn, end_lsn)
            self._committed_at = begin.time

    def event(self, kind: EventKind, table: str, shape: Shape | None = None, detail: str = "") -> None:
        """Something happened to a table, before the rows that come next."""
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.tables or segment.echoes:
            segment = self._new_segment(segment.seen if segment else None)
        segment.events.append(TableEvent(kind, table, shape, detail))

    def install(self, relation: Relation) -> None:
        """Decode what follows of this table with `relation`."""
        known = self.relations.get(relation.message[1:5])
        if known is not None:
            known.decode()
        self.relations[relation.message[1:5]] = relation

    def batch(self, wal_end: int, last: Position) -> Batch:
        """Hand out what was gathered. `wal_end` as of `Wire`; `last`: the position of the batch before this one."""
        self._forget_rows()
        transaction = self._transaction
        position = last if self._ended is None else behind_transaction(*self._ended, self.cluster)
        is_whole = True
        if transaction is not None and transaction.count > transaction.skip:
            position = inside_transaction(transaction.begin.final_lsn, transaction.count, self.cluster)
            is_whole = False
        elif transaction is None and position.order < (wal_end - 1, WHOLE):
            position = before(wal_end, self.cluster)
        batch = Batch(
            position=position,
            segments=self._segments,
            is_whole=is_whole,
            rows_read=self._rows,
            rows_echoed=self._rows_echoed,
            size=self._bytes,
            committed_at=self._committed_at if is_whole or transaction is None else transaction.begin.time,
        )
        self._segments = []
        self._ended = None
        self._rows = self._rows_echoed = self._bytes = self._committed_at = 0
        return batch

    def _is_full(self) -> bool:
        """Whether to cut here, inside a transaction: only where it is too large to be taken whole."""
        transaction = self._transaction
        alone = transaction is not None and transaction.count - transaction.skip >= self.rows_max
        return alone or self._rows >= 2 * self.rows_max or self._bytes >= BATCH_BYTES_MAX

    def _is_change(self, transaction: _Transaction, relation: Relation, message: bytes) -> bool:
        """Look at a row that may be the first one, one to skip, or our own; False when it is no change to report."""
        if not transaction.has_first:
            transaction.has_first = True
            if relation.is_marker and message[0] == UPDATE:
                transaction.is_echo = True
                transaction.seq = self._marker_seq(relation, message)
                if transaction.skip == 0:
                    self._new_segment(transaction.seq)
        if transaction.count <= transaction.skip:
            return False
        if not transaction.is_echo:
            transaction.is_plain = True
            return True
        self._count_echo()
        if relation.is_verified and relation.shape is not None:
            self._add_echo(transaction, relation, relation.shape, message)
        return False

    def _pass_marker(self, relation: Relation, message: bytes) -> None:
        """A marker row that is not the first of its transaction, or not an update: no delivery of ours looks so.

        The rows around it stay changes of the system's users. Were one of ours taken for a change, it would be found
        to change nothing; were a user's change taken for ours, it would be lost.
        """
        self._count_echo()
        if message[0] == UPDATE:
            self._new_segment(self._marker_seq(relation, message))

    def _marker_seq(self, relation: Relation, message: bytes) -> int:
        row, _ = relation.decoders.update(message)
        value = row[relation.marker_seq]
        try:
            return int(str(value))
        except ValueError as error:
            raise MalformedLog(f"system {self.system}: the marker's seq is no number") from error

    def _count_echo(self) -> None:
        self._rows += 1
        self._rows_echoed += 1

    def _add_echo(self, transaction: _Transaction, relation: Relation, shape: Shape, message: bytes) -> None:
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.seen != transaction.seq:
            # The delivery goes on from the batch before.
            segment = self._new_segment(transaction.seq)
        rows = segment.echoes.get(relation.name)
        if rows is None:
            rows = segment.echoes[relation.name] = TableRows(shape)
        kind = message[0]
        old = None
        if kind == INSERT:
            row = relation.decoders.insert(message)
        elif kind == DELETE:
            row = relation.decoders.delete(message)
        else:
            row, old = relation.decoders.update(message)
        rows.add(kind, row, transaction.begin.time, old)
        self._bytes += len(message)

    def _rows_of(self, relation: Relation, shape: Shape) -> TableRows:
        segment = self._segments[-1] if self._segments else self._new_segment(None)
        found = segment.tables.get(relation.name)
        if found is not None and found.shape != shape:
            segment = self._new_segment(segment.seen)
            found = None
        if found is None:
            found = segment.tables[relation.name] = TableRows(shape)
        relation.rows = found
        return found

    def _new_segment(self, seen: int | None) -> Segment:
        self._forget_rows()
        segment = Segment(seen=seen)
        self._segments.append(segment)
        return segment

    def _forget_rows(self) -> None:
        for relation in self.relations.values():
            relation.decode()
            relation.rows = None

    def _rare(self, kind: int, message: bytes) -> Stop | None:
        if kind == STREAM_START:
            xid, is_first = decode_stream_start(message)
            self.spool.start(xid, is_first=is_first)
            self._is_streaming = True
        elif kind == STREAM_STOP:
            self.spool.stop()
            self._is_streaming = False
        elif kind == STREAM_ABORT:
            self.spool.abort(*decode_stream_abort(message))
        elif kind == STREAM_COMMIT:
            self.committed = decode_stream_commit(message)
            return Stop.STREAM
        elif kind == TRUNCATE:
            self._truncate(message)
        elif kind not in (TYPE, ORIGIN, MESSAGE):
            raise malformed("unknown", message)
        return None

    def _truncate(self, message: bytes) -> None:
        transaction = self._transaction
        if transaction is None:
            raise malformed("truncate outside a transaction", message)
        if transaction.is_echo or transaction.count < transaction.skip:
            return
        for id in decode_truncate(message).relations:
            relation = self.relations.get(id)
            if relation is not None and relation.shape is not None:
                self.event(EventKind.TRUNCATED, relation.name, relation.shape, _TRUNCATED)
