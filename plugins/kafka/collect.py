"""What is gathered for the next batch: rows in segments, our own deliveries apart from the users' changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.model.change import EventKind, Segment, TableEvent, TableRows
from engine.model.table import Shape
from engine.model.value import WireRow


@dataclass(slots=True)
class Rows:
    """Some changes of one table under one shape, in order; the lists run parallel. `old`: by index."""

    table: str
    shape: Shape
    ops: bytes | bytearray
    rows: list[WireRow]
    times: list[int]
    old: dict[int, WireRow] = field(default_factory=lambda: {})
    size: int = 0


@dataclass(slots=True)
class Collector:
    """`rows` counts those of our own deliveries, `rows_echoed`, too; `size` is in bytes."""

    segments: list[Segment] = field(default_factory=lambda: [])
    rows: int = 0
    rows_echoed: int = 0
    size: int = 0
    committed_at: int = 0

    @property
    def is_empty(self) -> bool:
        return not self.segments and not self.rows

    def event(self, kind: EventKind, table: str, shape: Shape | None = None, detail: str = "") -> None:
        """Something happened to a table, before the rows that come next."""
        segment = self.segments[-1] if self.segments else None
        if segment is None or segment.tables or segment.echoes:
            segment = self.new_segment(segment.seen if segment else None)
        segment.events.append(TableEvent(kind, table, shape, detail))

    def new_segment(self, seen: int | None) -> Segment:
        """Begin a segment behind the marker `seen`."""
        segment = Segment(seen=seen)
        self.segments.append(segment)
        return segment

    def add(self, found: Rows) -> None:
        """Changes of users, or rows that were read."""
        segment = self.segments[-1] if self.segments else self.new_segment(None)
        table = segment.tables.get(found.table)
        if table is not None and table.shape is not found.shape and table.shape != found.shape:
            segment = self.new_segment(segment.seen)
            table = None
        if table is None:
            table = segment.tables[found.table] = TableRows(found.shape)
        self._extend(table, found)

    def add_echo(self, seq: int, found: Rows) -> None:
        """Rows of our delivery `seq`, for a table under verification."""
        segment = self.segments[-1] if self.segments else None
        if segment is None or segment.seen != seq or segment.tables:
            # The delivery goes on from the batch before.
            segment = self.new_segment(seq)
        table = segment.echoes.get(found.table)
        if table is not None and table.shape != found.shape:
            segment, table = self.new_segment(seq), None
        if table is None:
            table = segment.echoes[found.table] = TableRows(found.shape)
        self._extend(table, found)
        self.rows_echoed += len(found.rows)

    def pass_echoes(self, count: int) -> None:
        """Rows of our own that nobody asks for."""
        self.rows += count
        self.rows_echoed += count

    def pass_rows(self, count: int, times: Sequence[int] = ()) -> None:
        """Rows of tables that say nothing to the engine: the marker's and the heartbeat's."""
        self.rows += count
        self.rows_echoed += count

    def _extend(self, table: TableRows, found: Rows) -> None:
        first = len(table.rows)
        for index, row in found.old.items():
            table.old[first + index] = row
        table.ops += found.ops
        table.rows += found.rows
        table.times += found.times
        self.rows += len(found.rows)
        self.size += found.size
