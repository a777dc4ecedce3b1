"""The rows of the next batch: put into segments, ours apart from the users'; taken back where nothing committed."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import MalformedLog, PositionLost
from engine.model.change import DELETE, INSERT, UPDATE, EventKind, Segment, TableEvent, TableRows
from engine.model.table import Shape
from plugins.mysql.compile import Decoders
from plugins.mysql.events import UPDATE_ROWS, WRITE_ROWS, RowsHead


@dataclass(slots=True)
class Relation:
    """How to treat the rows of one table map. `shape` None: the marker, or a table that takes no part."""

    name: str
    decoders: Decoders | None = None
    shape: Shape | None = None
    columns_present: bytes = b""
    """The columns that an image must have: all but those that the database computes."""
    is_verified: bool = False
    marker_seq: int | None = None
    """The marker's column seq; None for all other tables."""
    rows: TableRows | None = None


@dataclass(slots=True)
class _Mark:
    """What was gathered before a transaction, to go back to when it turns out not to have committed."""

    segments: int
    tables: dict[str, int]
    rows: int
    rows_echoed: int
    size: int


@dataclass(slots=True)
class Transaction:
    """The transaction being read. `start`: its offset; `count`: rows events so far; `skip`: those handed out before.

    `is_single`: one statement, without an event that ends it.
    """

    start: int
    gtid: str
    domain: int
    time: int
    skip: int = 0
    count: int = 0
    is_single: bool = False
    is_prepared: bool = False
    has_first: bool = False
    is_echo: bool = False
    seq: int = 0
    has_rows: bool = False
    is_handed_out: bool = False
    """Whether a part of it has been."""
    mark: _Mark | None = None


@dataclass(slots=True)
class Collector:
    """What was gathered for the next batch. `rows` counts those of our own deliveries, `rows_echoed`, too; `size` is in
    bytes."""

    system: str
    segments: list[Segment] = field(default_factory=lambda: [])
    rows: int = 0
    rows_echoed: int = 0
    size: int = 0
    _using: list[Relation] = field(default_factory=lambda: [])
    """The relations that know where in the last segment their rows go."""

    def event(self, kind: EventKind, table: str, shape: Shape | None = None, detail: str = "") -> None:
        """Something happened to a table, before the rows that come next."""
        segment = self.segments[-1] if self.segments else None
        if segment is None or segment.tables or segment.echoes:
            segment = self.new_segment(segment.seen if segment else None)
        segment.events.append(TableEvent(kind, table, shape, detail))

    def _check_images(self, relation: Relation, head: RowsHead) -> None:
        """Refuse images without all columns: what is missing would be taken for unchanged, or for the default."""
        wanted = int.from_bytes(relation.columns_present, "little")
        for present in (head.present, head.present_after):
            if wanted & ~int.from_bytes(present, "little"):
                raise PositionLost(
                    f"system {self.system}, table {relation.name}: the log has rows without all of their columns",
                    hint="Run: set global binlog_row_image = 'FULL'; then end the sessions that began before, and"
                    f" run `concord backfill {self.system}`.",
                )

    def _pass_marker(
        self, transaction: Transaction, relation: Relation, decoders: Decoders, kind: int, head: RowsHead
    ) -> None:
        """A row of the marker: of our delivery; or one that is not the first, or no update, as no delivery of ours is.

        The rows around such a one stay changes of the system's users. Were one of ours taken for a change, it would be
        found to change nothing; were a user's change taken for ours, it would be lost.
        """
        count = decoders.images(head) // (2 if kind in UPDATE_ROWS else 1)
        self.rows += count
        self.rows_echoed += count
        if kind in UPDATE_ROWS and not (transaction.is_echo and transaction.count == 1):
            seq = self.marker_seq(relation, head)
            if not transaction.is_echo:
                self.new_segment(seq)

    def marker_seq(self, relation: Relation, head: RowsHead) -> int:
        """The seq in an update of the marker."""
        assert relation.decoders is not None, "the marker has decoders"
        assert relation.marker_seq is not None, "it is the marker"
        rows, _ = relation.decoders.updates(head)
        try:
            return int(str(rows[-1][relation.marker_seq]))
        except (ValueError, IndexError) as error:
            raise MalformedLog(f"system {self.system}: the marker's seq is no number") from error

    def _add_echo(
        self,
        transaction: Transaction,
        relation: Relation,
        decoders: Decoders,
        shape: Shape,
        kind: int,
        head: RowsHead,
    ) -> None:
        if not relation.is_verified:
            count = decoders.images(head) // (2 if kind in UPDATE_ROWS else 1)
        else:
            segment = self.segments[-1] if self.segments else None
            if segment is None or segment.seen != transaction.seq or segment.tables:
                # The delivery goes on from the batch before.
                segment = self.new_segment(transaction.seq)
            rows = segment.echoes.get(relation.name)
            if rows is None or rows.shape != shape:
                if rows is not None:
                    segment = self.new_segment(transaction.seq)
                rows = segment.echoes[relation.name] = TableRows(shape)
            count = _add(rows, decoders, kind, head, transaction.time)
        self.rows += count
        self.rows_echoed += count

    def add(self, transaction: Transaction, relation: Relation, kind: int, head: RowsHead) -> None:
        """Add the rows of a rows event, whoever made them."""
        decoders, shape = relation.decoders, relation.shape
        assert decoders is not None, "a table without decoders takes no part"
        self.size += len(head.body)
        if shape is None:
            self._pass_marker(transaction, relation, decoders, kind, head)
        elif transaction.is_echo:
            self._add_echo(transaction, relation, decoders, shape, kind, head)
        else:
            self._check_images(relation, head)
            rows = relation.rows or self._rows_of(relation, shape)
            self.rows += _add(rows, decoders, kind, head, transaction.time)

    def _rows_of(self, relation: Relation, shape: Shape) -> TableRows:
        segment = self.segments[-1] if self.segments else self.new_segment(None)
        found = segment.tables.get(relation.name)
        if found is not None and found.shape != shape:
            segment = self.new_segment(segment.seen)
            found = None
        if found is None:
            found = segment.tables[relation.name] = TableRows(shape)
        relation.rows = found
        self._using.append(relation)
        return found

    def new_segment(self, seen: int | None) -> Segment:
        """Begin a segment behind the marker `seen`."""
        self.forget_rows()
        segment = Segment(seen=seen)
        self.segments.append(segment)
        return segment

    def forget_rows(self) -> None:
        """What comes next goes into other rows: a segment or a batch has ended."""
        for relation in self._using:
            relation.rows = None
        self._using.clear()

    def mark(self, transaction: Transaction) -> None:
        """Note where the rows of a transaction begin, once."""
        if transaction.mark is None and not transaction.is_handed_out:
            segment = self.segments[-1] if self.segments else Segment()
            tables = {name: len(rows.rows) for name, rows in segment.tables.items()}
            transaction.mark = _Mark(len(self.segments), tables, self.rows, self.rows_echoed, self.size)

    def undo(self, transaction: Transaction) -> None:
        """Forget the rows of a transaction that is in the log and did not commit."""
        mark = transaction.mark
        if mark is None:
            if transaction.has_rows or transaction.skip:
                raise PositionLost(
                    f"system {self.system}: a large transaction of which a part has been taken over was rolled back",
                    hint=f"Run `concord backfill {self.system}`, then `concord compare`.",
                )
            return
        self.forget_rows()
        del self.segments[mark.segments :]
        self.rows, self.rows_echoed, self.size = mark.rows, mark.rows_echoed, mark.size
        if not self.segments:
            return
        tables = self.segments[-1].tables
        for name in list(tables):
            rows, count = tables[name], mark.tables.get(name, 0)
            if not count:
                del tables[name]
                continue
            del rows.rows[count:], rows.ops[count:], rows.times[count:]
            for index in [index for index in rows.old if index >= count]:
                del rows.old[index]


def _add(rows: TableRows, decoders: Decoders, kind: int, head: RowsHead, time: int) -> int:
    """Decode a rows event into `rows`; gives their count."""
    if kind in UPDATE_ROWS:
        found, old = decoders.updates(head)
        first = len(rows.rows)
        for index, was in old.items():
            rows.old[first + index] = was
        op = UPDATE
    else:
        found = decoders.rows(head)
        op = INSERT if kind in WRITE_ROWS else DELETE
    count = len(found)
    rows.rows += found
    rows.ops += bytes((op,)) * count
    rows.times += [time] * count
    return count
