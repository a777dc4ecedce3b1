"""What a source reports: batches of row changes, columns of rows rather than objects, because a batch has thousands."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from engine.model.position import Position
from engine.model.table import Shape
from engine.model.value import WireRow

INSERT: Final = 73  # ord("I")
UPDATE: Final = 85  # ord("U")
DELETE: Final = 68  # ord("D")
READ: Final = 82  # ord("R"): a row found by a snapshot, not a change that somebody made


@dataclass(slots=True)
class TableRows:
    """Changes of one table within one segment, in log order. The lists run in parallel.

    `rows[i]` is the row after the change under `shape`; for a delete the old row, of which only the key columns need
    be there, the others ABSENT. `times[i]` is the commit time, microseconds since 1970 UTC. `old[i]` is there only
    where an update changed the key: the old row, key columns at least. A shape change in mid-segment starts a new
    segment.
    """

    shape: Shape
    ops: bytearray = field(default_factory=bytearray)
    rows: list[WireRow] = field(default_factory=lambda: [])
    times: list[int] = field(default_factory=lambda: [])
    old: dict[int, WireRow] = field(default_factory=lambda: {})

    def add(self, op: int, row: WireRow, time: int, old: WireRow | None = None) -> None:
        if old is not None:
            self.old[len(self.rows)] = old
        self.ops.append(op)
        self.rows.append(row)
        self.times.append(time)


class EventKind(enum.Enum):
    """What else a log tells about a table."""

    RESHAPED = "reshaped"
    """The table's columns are not what they were; `shape` is the new one."""
    TRUNCATED = "truncated"
    DROPPED = "dropped"
    UNPUBLISHED = "unpublished"
    """The table is no longer captured (taken out of the publication, trigger dropped)."""


@dataclass(slots=True, frozen=True)
class TableEvent:
    """Something other than a row change. `detail`: a sentence for people, and the SQL that mends it."""

    kind: EventKind
    table: str
    shape: Shape | None = None
    detail: str = ""


@dataclass(slots=True)
class Segment:
    """A stretch of the log between two of our markers or table events.

    `seen` is the seq of the marker that stands before these rows, None when no marker does. `events` happened before
    the rows. `echoes` are the rows which our delivery `seen` itself wrote, as the log shows them; a source sends them
    only for tables it was asked to verify (see `Source.feed`).

    `seen_at_least`: of a system that is polled, which shows a row some time after it was made. What the system had
    seen, at least, when rows of this segment that nobody knew came to take part; None where that is what it has seen.
    """

    seen: int | None = None
    seen_at_least: int | None = None
    events: list[TableEvent] = field(default_factory=lambda: [])
    tables: dict[str, TableRows] = field(default_factory=lambda: {})
    echoes: dict[str, TableRows] = field(default_factory=lambda: {})


@dataclass(slots=True)
class Batch:
    """What a feed hands over at once.

    `position`: everything up to it is in this batch or an earlier one. `is_whole` is False when the batch ends inside
    a source transaction (one too large to hold in memory); its rest comes in the next batches of the same feed.
    `has_more`: more is there already, so that the next `receive` waits for nobody to write; always where `is_whole` is
    False.
    `rows_read` counts row changes including those of our own deliveries (`rows_echoed`), for the accounts: what was
    read and is in no segment was an echo.
    """

    position: Position
    segments: list[Segment] = field(default_factory=lambda: [])
    is_whole: bool = True
    has_more: bool = False
    rows_read: int = 0
    rows_echoed: int = 0
    size: int = 0
    """Bytes of its rows, about; 0 when unknown."""
    committed_at: int = 0
    """Commit time of the last transaction in it, microseconds since 1970 UTC; 0 when unknown."""


@dataclass(slots=True)
class Page:
    """Rows of one table in key order, from one snapshot. `last_key`: go on behind it; None at the table's end.

    Keys are texts as `Reader.keys` would spell their columns, in `Shape.key` order. `read_at`: database time of the
    read, microseconds since 1970 UTC.
    """

    shape: Shape
    rows: list[WireRow]
    last_key: tuple[str, ...] | None
    read_at: int


@dataclass(slots=True)
class Chunk:
    """A page read beside a running feed.

    Its rows show the effect of all transactions at or before `low` and possibly of later ones up to `high`; `low` is
    not before what the feed had handed out when it was asked. So changes
    that the feed reports behind `low` are newer than the rows here, or contained in them; the engine drops rows whose
    key the feed touched behind `low` and takes the others once the feed has passed `high`.
    """

    page: Page
    low: Position
    high: Position
    delivery: tuple[str, int] | None = None
    """The marker as the page's snapshot shows it: hub id and seq of the newest delivery that the rows have; None where
    there is none."""
