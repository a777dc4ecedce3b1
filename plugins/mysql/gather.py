"""Events become batches: transactions, our own deliveries among them, and what statements did to tables. No I/O.

A transaction is everything between a GTID and the event that ends it, and stands in the log only once it has committed.
`Gatherer.take` goes on until the events run out or something needs the outside world, and says which.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.errors import MalformedLog, PositionLost
from engine.model.change import Batch, EventKind
from engine.model.position import Position
from plugins.mysql.collect import Collector, Relation, Transaction
from plugins.mysql.events import (
    ANONYMOUS_GTID,
    ARTIFICIAL,
    COMPLETED_XA,
    FORMAT_DESCRIPTION,
    GTID_MARIADB,
    GTID_MYSQL,
    GTID_TAGGED,
    HEADER_SIZE,
    HEARTBEAT,
    HEARTBEAT_2,
    PARTIAL_UPDATE,
    PREPARED_XA,
    QUERY,
    QUERY_COMPRESSED,
    ROTATE,
    ROWS,
    STANDALONE,
    TABLE_MAP,
    TRANSACTION_PAYLOAD,
    UPDATE_ROWS,
    XA_PREPARE,
    XID,
    Header,
    Query,
    checked_body,
    decode_format,
    decode_gtid,
    decode_gtid_mysql,
    decode_header,
    decode_query,
    decode_rotate,
    decode_rows_head,
    decode_xid,
    malformed,
    table_id_of,
)
from plugins.mysql.position import Resume, end_at, file_number, position_of

# A batch of large rows is full before it has many of them.
BATCH_BYTES_MAX: Final = 32 << 20
# Events of no interest in one go; then others of the event loop have their turn.
EVENTS_MAX: Final = 5_000

_INCIDENT: Final = 26
_IGNORABLE: Final = 0x80
# STOP, INTVAR, RAND, USER_VAR, BEGIN_LOAD_QUERY, IGNORABLE, ROWS_QUERY, PREVIOUS_GTIDS, contexts of group replication,
# MariaDB's ANNOTATE_ROWS, BINLOG_CHECKPOINT, GTID_LIST, START_ENCRYPTION.
_PASSED: Final = frozenset((0, 3, 5, 13, 14, 17, 18, 28, 29, 35, 36, 37, 160, 161, 163, 164))
_TRUNCATED: Final = "rows were removed by a statement, which the log does not list one by one"


class Stop(enum.Enum):
    """Why `Gatherer.take` has stopped."""

    DRY = "dry"
    """No more events have arrived."""
    FULL = "full"
    """The batch is full, or enough events of no interest have been read for one go."""
    TABLE = "table"
    """A table map that is not known; `unknown` is its body. Install it, then go on."""
    STATEMENT = "statement"
    """A statement that may mean something; `statement`. Look at it, then go on."""


@dataclass(slots=True)
class Gatherer:
    """Gathers for one feed. `file` and `offset`: what has been read, `gtids` the last whole transactions in it."""

    system: str
    resume: Resume
    has_checksum: bool
    rows_max: int = 0
    unknown: bytes = b""
    statement: Query | None = None
    file: str = ""
    offset: int = 0
    begun: int = 0
    """When the file was begun, seconds since 1970 UTC."""
    gtids: dict[int, str] = field(default_factory=lambda: {})
    is_caught_up: bool = False
    """Whether the server has said once that there was no more."""
    _known: dict[bytes, Relation | None] = field(default_factory=lambda: {})
    """By the table map's body without the table's id."""
    _tables: dict[int, Relation | None] = field(default_factory=lambda: {})
    _transaction: Transaction | None = None
    collected: Collector = field(init=False)
    _committed_at: int = 0

    def __post_init__(self) -> None:
        self.file, self.offset, self.begun = self.resume.file, self.resume.offset, self.resume.begun
        self.gtids = dict(self.resume.gtids)
        self.collected = Collector(self.system)

    @property
    def is_inside(self) -> bool:
        """Whether a transaction is being read."""
        return self._transaction is not None

    @property
    def has_changes(self) -> bool:
        """Whether a batch made now would hold more than a position."""
        return bool(self.collected.segments) or self.collected.rows > 0

    @property
    def order(self) -> tuple[int, ...]:
        """What has been read, comparable with positions; of whole transactions only."""
        transaction = self._transaction
        offset = self.offset if transaction is None else min(self.offset, transaction.start)
        return (file_number(self.file), offset, 0)

    def take(self, events: Iterator[bytes]) -> Stop:
        """Consume events until there are no more, the batch is full, or something needs the outside world."""
        others = 0
        for event in events:
            header = decode_header(event)
            kind = header.kind
            if kind == FORMAT_DESCRIPTION:
                self._begin_file(header, event)
                continue
            if kind == ROTATE:
                self._rotate(header, event)
                continue
            body = checked_body(event, has_checksum=self.has_checksum)
            self._advance(header)
            if kind in ROWS:
                if not self._take_rows(kind, body):
                    others += 1
                elif (
                    self.collected.rows >= self.rows_max or self.collected.size >= BATCH_BYTES_MAX
                ) and self._is_full():
                    return Stop.FULL
            elif kind == TABLE_MAP:
                self._tables[table_id_of(body)] = None
                relation = self._known.get(body[6:], self)
                if isinstance(relation, Gatherer):
                    self.unknown = body
                    return Stop.TABLE
                self._tables[table_id_of(body)] = relation
            elif kind == XID:
                decode_xid(body)
                self._end()
                others += 1
                if self._has_enough():
                    return Stop.FULL
            elif kind == GTID_MARIADB:
                self._begin_mariadb(header, body)
            elif kind in (QUERY, QUERY_COMPRESSED):
                if self._query(header, decode_query(kind, body)):
                    return Stop.STATEMENT
                others += 1
                if self.collected.rows >= self.rows_max and self._transaction is None:
                    return Stop.FULL
            else:
                self._rare(header, body)
            if others > EVENTS_MAX:
                return Stop.FULL
        return Stop.DRY

    def install(self, body: bytes, relation: Relation | None) -> None:
        """Treat the rows of the table map `body` so; None: as those of no interest."""
        if len(self._known) > 10_000:
            # Temporary tables and partitions come and go for years.
            self._known.clear()
        self._known[body[6:]] = relation
        self._tables[table_id_of(body)] = relation

    def forget(self, name: str) -> None:
        """Ask anew at the next table map of this table."""
        for body in [body for body, relation in self._known.items() if relation is not None and relation.name == name]:
            del self._known[body]

    def truncated(self, table: str) -> None:
        """A statement removed rows of the table."""
        self.collected.event(EventKind.TRUNCATED, table, None, _TRUNCATED)

    def batch(self, last: Position) -> Batch:
        """Hand out what was gathered; `last` is the position of the batch before this one."""
        collected = self.collected
        collected.forget_rows()
        transaction, server = self._transaction, self.resume.server
        is_whole, committed_at = True, self._committed_at
        if transaction is not None and transaction.count > transaction.skip and transaction.has_rows:
            is_whole, committed_at = False, transaction.time
            transaction.is_handed_out, transaction.mark = True, None
            position = position_of(server, self.file, transaction.start, transaction.count, self.gtids, self.begun)
        else:
            position = position_of(server, self.file, self.order[1], 0, self.gtids, self.begun)
        if position < last:
            position = last
        batch = Batch(
            position=position,
            segments=collected.segments,
            is_whole=is_whole,
            rows_read=collected.rows,
            rows_echoed=collected.rows_echoed,
            size=collected.size,
            committed_at=committed_at,
        )
        self.collected = Collector(self.system)
        self._committed_at = 0
        return batch

    def last_batch(self, last: Position, error: PositionLost) -> Batch:
        """Hand out the whole transactions before the place at which the log cannot be read on, and that place."""
        transaction = self._transaction
        if transaction is not None and transaction.mark is not None:
            self.collected.undo(transaction)
            transaction.has_rows = False
        batch = self.batch(last)
        batch.position = end_at(batch.position, error)
        return batch

    def _take_rows(self, kind: int, body: bytes) -> bool:
        """Take a rows event; False when there is nothing in it for the engine."""
        transaction = self._transaction
        if transaction is None:
            raise malformed("rows", body)
        table_id = table_id_of(body)
        relation = self._tables.get(table_id, self)
        if isinstance(relation, Gatherer):
            # An empty event whose only meaning is the end of a statement has an id of all ones.
            if table_id == 0xFFFFFF:
                return False
            raise MalformedLog(f"system {self.system}: rows of a table that the log has not named")
        transaction.count += 1
        if not transaction.has_first:
            transaction.has_first = True
            if relation is not None and relation.marker_seq is not None and kind in UPDATE_ROWS:
                transaction.is_echo = True
                transaction.seq = self.collected.marker_seq(relation, decode_rows_head(kind, body))
                if transaction.count > transaction.skip:
                    self.collected.mark(transaction)
                    self.collected.new_segment(transaction.seq)
        if relation is None or relation.decoders is None or transaction.count <= transaction.skip:
            return False
        if not transaction.has_rows:
            transaction.has_rows = True
            self.collected.mark(transaction)
        if transaction.is_prepared:
            raise self._distributed(f", table {relation.name}")
        self.collected.add(transaction, relation, kind, decode_rows_head(kind, body))
        return True

    def _has_enough(self) -> bool:
        return self.collected.rows >= self.rows_max or self.collected.size >= BATCH_BYTES_MAX

    def _is_full(self) -> bool:
        """Whether to cut here, inside a transaction: only where it is too large to be taken whole."""
        return (
            self.collected.rows >= 2 * self.rows_max or self.collected.size >= BATCH_BYTES_MAX or self._begins_batch()
        )

    def _begins_batch(self) -> bool:
        """Whether nothing of another transaction is in the batch, so that waiting for the end makes it no smaller."""
        return self._committed_at == 0

    def _distributed(self, where: str = "") -> PositionLost:
        return PositionLost(
            f"system {self.system}{where}: rows were changed in a distributed transaction (XA), whose outcome the log"
            " does not tell yet",
            hint="Keep XA transactions away from the mapped tables; end those that `xa recover` lists; then run"
            f" `concord backfill {self.system}`.",
        )

    def _another_log(self, trouble: str) -> PositionLost:
        return PositionLost(
            f"system {self.system}: this is not the log that we read before: {trouble}",
            hint=f"Run `concord backfill {self.system}`.",
        )

    def _begin_file(self, header: Header, event: bytes) -> None:
        """A format description: the first event of a file, with the time at which the file was begun."""
        self.has_checksum = decode_format(event)
        resume = self.resume
        if resume.begun and (self.file, header.time) != (resume.file, resume.begun) and self.file == resume.file:
            raise self._another_log(f"file {self.file} is another one of the same name")
        self.begun = header.time
        self._advance(header)

    def _begin_mariadb(self, header: Header, body: bytes) -> None:
        gtid = decode_gtid(body, header.server_id)
        transaction = self._begin(header, str(gtid), gtid.domain, header.time * 1_000_000)
        transaction.is_single = bool(gtid.flags & STANDALONE)
        transaction.is_prepared = bool(gtid.flags & PREPARED_XA) and not gtid.flags & COMPLETED_XA

    def _begin(self, header: Header, gtid: str, domain: int, time: int) -> Transaction:
        if self._transaction is not None:
            raise MalformedLog(f"system {self.system}: a transaction begins inside another")
        start = self.offset - header.size
        transaction = Transaction(start, gtid, domain, time)
        place, resume = (file_number(self.file), start), self.resume
        if place < (resume.number, resume.offset):
            # The server was asked for later ones; whatever it thinks, these have been handed out. Unless this is
            # another log than the one we read, in which the same names mean other transactions.
            transaction.skip = 2**62
            if self.gtids:
                raise self._another_log("what follows our position stands before it")
        elif place == (resume.number, resume.offset):
            transaction.skip = resume.skip
        self._transaction = transaction
        return transaction

    def _end(self) -> None:
        transaction = self._transaction
        if transaction is None:
            raise MalformedLog(f"system {self.system}: a transaction ends that never began")
        self._transaction = None
        if transaction.gtid:
            self.gtids[transaction.domain] = transaction.gtid
        if transaction.skip < 2**62:
            self._committed_at = transaction.time

    def _query(self, header: Header, query: Query) -> bool:
        """Take a statement; True when it must be looked at."""
        words = query.text[:40].upper().split()
        first = words[0].rstrip(";") if words else ""
        transaction = self._transaction
        if first in ("BEGIN", "START") and (first == "BEGIN" or words[1:2] == ["TRANSACTION"]):
            if transaction is None:
                self._begin(header, "", 0, header.time * 1_000_000)
            else:
                transaction.is_single = False
            return False
        if transaction is None:
            transaction = self._begin(header, "", 0, header.time * 1_000_000)
            transaction.is_single = True
        if first == "COMMIT" and not transaction.is_single:
            self._end()
            return False
        if first == "SAVEPOINT" and not transaction.is_single:
            return False
        if first == "ROLLBACK" and not transaction.is_single:
            self._roll_back(transaction, is_whole=words[1:2] != ["TO"])
            return False
        is_skipped = transaction.skip >= 2**62
        # MySQL creates a table with its first rows in one transaction, and says so at the statement's end.
        if transaction.is_single and query.text.rstrip().upper().endswith("START TRANSACTION"):
            transaction.is_single = False
        elif transaction.is_single or (first == "XA" and words[1:2] in (["COMMIT"], ["ROLLBACK"])):
            self._end()
        self.statement = query
        return first not in ("XA", "FLUSH", "GRANT", "REVOKE", "SET") and not is_skipped

    def _roll_back(self, transaction: Transaction, *, is_whole: bool) -> None:
        """A transaction is in the log that was rolled back, wholly or to a savepoint, because it also changed what
        cannot be: tables of engines without transactions. Which of its rows are of these the log does not say."""
        if transaction.has_rows:
            raise PositionLost(
                f"system {self.system}: a transaction that changed mapped tables and others was rolled back in part",
                hint="Run: alter table … engine = InnoDB; for the tables without transactions, or keep them out of"
                f" transactions that change mapped tables; then run `concord backfill {self.system}`.",
            )
        if is_whole:
            self._end()

    def _rotate(self, header: Header, event: bytes) -> None:
        """The log goes on in another file, or, where the server says so by itself, begins in this one."""
        body = event[HEADER_SIZE:]
        is_artificial = bool(header.flags & ARTIFICIAL) or not header.end
        if self.has_checksum:
            try:
                body = checked_body(event, has_checksum=True)
            except MalformedLog:
                # Before the first format description one may come without.
                if not is_artificial:
                    raise
        file, offset = decode_rotate(body)
        if not is_artificial:
            self._advance(header)
        try:
            file_number(file)
        except ValueError as error:
            raise malformed("rotation", event) from error
        if self._transaction is not None:
            # The server ended in the middle of writing a transaction; none of it has committed.
            self.collected.undo(self._transaction)
            self._transaction = None
        self.file, self.offset = file, min(offset, 4)
        self._tables.clear()

    def _advance(self, header: Header) -> None:
        """Note the event's end. It has 32 bits, so behind 4 GiB of one file they are counted on."""
        if not header.end or header.flags & ARTIFICIAL or header.kind in (HEARTBEAT, HEARTBEAT_2):
            return
        offset = (self.offset & ~0xFFFFFFFF) | header.end
        if offset < self.offset and self.offset - offset > 1 << 31:
            offset += 1 << 32
        self.offset = max(self.offset, offset)

    def _rare(self, header: Header, body: bytes) -> None:
        kind = header.kind
        if kind in (GTID_MYSQL, ANONYMOUS_GTID, GTID_TAGGED):
            _, time = decode_gtid_mysql(body) if kind != GTID_TAGGED else ("", 0)
            transaction = self._begin(header, "", 0, time or header.time * 1_000_000)
            transaction.is_single = True
        elif kind == XA_PREPARE:
            if self._transaction is not None and self._transaction.has_rows:
                self._transaction.is_prepared = True
                raise self._distributed()
            self._end()
        elif kind == PARTIAL_UPDATE:
            relation = self._tables.get(table_id_of(body))
            if relation is not None:
                raise PositionLost(
                    f"system {self.system}, table {relation.name}: the log has parts of json values",
                    hint="Run: set global binlog_row_value_options = ''; then end the sessions that began before, and"
                    f" run `concord backfill {self.system}`.",
                )
        elif kind == TRANSACTION_PAYLOAD:
            raise PositionLost(
                f"system {self.system}: the log has compressed transactions",
                hint="Run: set global binlog_transaction_compression = OFF; then end the sessions that began before,"
                f" and run `concord backfill {self.system}`.",
            )
        elif kind == _INCIDENT:
            raise PositionLost(
                f"system {self.system}: the server says that its log lacks events (an incident)",
                hint=f"Look at the server's log; then run `concord backfill {self.system}`.",
            )
        elif kind in (HEARTBEAT, HEARTBEAT_2):
            self.is_caught_up = True
        elif kind in _PASSED or header.flags & _IGNORABLE:
            return
        else:
            raise malformed(f"unknown ({kind})", body)
