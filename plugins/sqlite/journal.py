"""Reads the change journal: what stands behind an id becomes a batch.

SQLite has one writer at a time and readers see whole commits (https://www.sqlite.org/isolation.html), so what one read
transaction shows is a run of whole transactions: up to its greatest id everything is whole. Where a long journal is
read in portions, the greatest id of the first look is such a boundary too, and so is the beginning of each delivery.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from engine.errors import PositionLost
from engine.model.change import DELETE, INSERT, UPDATE, Batch, EventKind, Segment, TableEvent, TableRows
from engine.model.position import Position
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from plugins.sqlite.catalog import list_tables, read_shape
from plugins.sqlite.connect import Connection, Row, snapshot
from plugins.sqlite.triggers import FIRST_VALUE, captured, essential_triggers, installed, journal_width, trigger_name
from plugins.sqlite.values import read_rows

_OPS = {"I": INSERT, "U": UPDATE, "D": DELETE}
_CREATE = "Give the table its name back, or create it again and run `concord setup {}`"
# Made here, not where it is used: threads that ask msgspec 0.22 for one struct's decoder at once end the process.
_decode_shape = msgspec.json.Decoder(Shape).decode
_FIXED = ("id", "op", "layout", "at", "delivery")


def journal_head(connection: Connection) -> int:
    """The greatest id ever given, whether or not its row is still there.

    SQLite does not note it down when an `insert or fail` fails in the middle; then the rows alone know.
    """
    row = connection.execute(
        "select max(coalesce((select seq from sqlite_sequence where name = 'concord_journal'), 0),"
        " coalesce((select max(id) from concord_journal), 0))"
    ).fetchone()
    return int(row[0]) if row else 0


def read_layouts(connection: Connection) -> dict[int, Shape]:
    """Number → the table, as set-up found it, whose rows were journalled under that number; in order."""
    rows = connection.execute("select id, shape from concord_layout order by id")
    return {int(number): _decode_shape(document) for number, document in rows}


def position_at(number: int, at: int) -> Position:
    """The position of a journal row. Its time tells it from another row of that number, in another journal."""
    return Position((number,), str(at) if number else "")


@dataclass(slots=True)
class _Captured:
    """How rows of one layout are read: `picks[n]` is the index of the shape's column n among the row's values, None
    where it was not captured; without picks the values are in the columns' order."""

    shape: Shape
    count: int
    picks: tuple[int | None, ...] | None = None

    def row(self, values: list[Wire]) -> WireRow:
        if self.picks is None:
            return tuple(values[: self.count])
        return tuple(ABSENT if n is None else values[n] for n in self.picks)


@dataclass(slots=True)
class JournalReader:
    """Turns journal rows into batches. Runs in the session's thread, one call at a time."""

    system: str
    tables: tuple[str, ...]
    verify: frozenset[str]
    position: Position
    _schema_version: int = -1
    _data_version: int = -1
    _whole_until: int = 0
    """Transactions are whole up to this id."""
    _has_reached: bool = True
    """Everything up to `_whole_until` has been handed out."""
    _layouts: dict[int, _Captured] = field(default_factory=lambda: {})
    _known: dict[str, tuple[Shape, Shape]] = field(default_factory=lambda: {})
    """Tables as they are, and as they are captured."""
    _missing: dict[str, EventKind] = field(default_factory=lambda: {})
    _events: list[TableEvent] = field(default_factory=lambda: [])
    """Seen and not handed out yet."""

    def look(self, connection: Connection) -> None:
        """See what the tables are at the beginning: later changes are events."""
        with snapshot(connection):
            self._look(connection)

    def read(self, connection: Connection, rows_max: int) -> Batch | None:
        """What stands behind the position, None when nothing does and nothing changed."""
        version = _pragma(connection, "data_version")
        if version == self._data_version:
            return None
        (after,) = self.position.order
        with snapshot(connection):
            self._look(connection)
            head = journal_head(connection)
            if self._has_reached:
                self._whole_until = head
            rows = _fetch(connection, after, self._whole_until, rows_max)
        self._has_reached = after + len(rows) == self._whole_until
        if rows and rows[-1][0] != after + len(rows):
            raise self._torn(after)
        # The version of before the transaction: a commit may have come in between the two looks.
        self._data_version = version if self._has_reached and self._whole_until == head else -1
        if not self._has_reached and len(rows) < rows_max:
            raise self._torn(after)
        if not rows and not self._events:
            return None
        is_whole = self._has_reached
        if not is_whole and (cut := _last_delivery(rows)):
            rows, is_whole = rows[:cut], True
        events, self._events = self._events, []
        batch = self._batch(rows, events)
        batch.is_whole = is_whole
        batch.has_more = not self._has_reached
        self.position = batch.position
        return batch

    def _batch(self, rows: list[Row], events: list[TableEvent]) -> Batch:
        position = position_at(rows[-1][0], rows[-1][3]) if rows else self.position
        batch = Batch(position=position)
        segment = Segment(events=[event for event in events if event.kind is EventKind.RESHAPED])
        batch.segments.append(segment)
        has_effects = any(live.has_triggers for live, _ in self._known.values())
        old: WireRow | None = None
        count = echoed = 0
        for _, op, layout, at, delivery, *values in rows:
            if op == "M":
                segment = Segment(seen=values[0])
                batch.segments.append(segment)
                continue
            captured = self._layouts.get(layout)
            if captured is None or op in "P-":
                continue
            row = captured.row(values)
            if op == "K":
                old = row
                continue
            count += 1
            tables, before, old = segment.tables, old, None
            name = captured.shape.name
            if delivery:
                echoed += 1
                if name not in self.verify and not has_effects:
                    continue
                tables = segment.echoes
            table = tables.get(name)
            if table is None or table.shape is not captured.shape:
                if table is not None:
                    segment = Segment()
                    batch.segments.append(segment)
                    tables = segment.echoes if delivery else segment.tables
                table = tables[name] = TableRows(captured.shape)
            table.add(_OPS[op], row, at, before)
        batch.segments.append(Segment(events=[event for event in events if event.kind is not EventKind.RESHAPED]))
        batch.segments = [s for s in batch.segments if s.tables or s.echoes or s.events or s.seen is not None]
        batch.rows_read, batch.rows_echoed = count, echoed
        batch.committed_at = rows[-1][3] if rows else 0
        return batch

    def _look(self, connection: Connection) -> None:
        """Whether tables and triggers are still what they were. Cheap: the schema's version tells."""
        version = _pragma(connection, "schema_version")
        if version == self._schema_version:
            return
        self._schema_version = version
        layouts = read_layouts(connection)
        tables = list_tables(connection)
        present = installed(connection)
        events = self._events
        self._layouts = {}
        for name in self.tables:
            shape, active, names = None, 0, ()
            if name not in tables:
                events.extend(self._miss(name, EventKind.DROPPED, _CREATE.format(self.system)))
            elif any(present.get(trigger, ("", ""))[0] != name for trigger in essential_triggers(name)):
                # Whether somebody dropped the triggers, or the table with them and made it anew.
                detail = f"Run `concord setup {self.system}`, for its triggers are gone"
                events.extend(self._miss(name, EventKind.UNPUBLISHED, detail))
                shape = read_shape(connection, name)
            else:
                active, names = captured(present[trigger_name(name, "insert")][1])
                live = read_shape(connection, name)
                shape = _only(live, names)
                events.extend(self._compare(name, shape, live))
            for number, stored in layouts.items():
                if stored.name == name:
                    columns = names if number == active else tuple(column.name for column in stored.columns)
                    self._layouts[number] = _capture(columns, stored, shape)

    def _compare(self, name: str, shape: Shape, live: Shape) -> list[TableEvent]:
        before, was_missing = self._known.get(name), self._missing.pop(name, None)
        self._known[name] = (live, shape)
        details: list[str] = []
        if was_missing is not None:
            details.append("it is captured again; what changed meanwhile is for `concord backfill` to find")
        if before is not None and before != (live, shape):
            details.append("its columns, constraints or triggers changed")
        if details and len(shape.columns) < len(live.columns):
            details.append(f"it has columns that are not captured; run `concord setup {self.system}`")
        return [TableEvent(EventKind.RESHAPED, name, shape, "; ".join(details))] if details else []

    def _miss(self, name: str, kind: EventKind, detail: str) -> list[TableEvent]:
        if self._missing.get(name) is kind:
            return []
        self._missing[name] = kind
        return [TableEvent(kind, name, None, detail)]

    def _torn(self, after: int) -> PositionLost:
        return PositionLost(
            f"system {self.system}: rows of its change journal behind {after} are gone, and we never read them",
            hint=f"Find out who deletes from concord_journal; then run `concord compare {self.system}`.",
            system=self.system,
        )


def _fetch(connection: Connection, after: int, until: int, rows_max: int) -> list[Row]:
    """About `rows_max` rows; never ending inside a delivery of ours or between an old row and its new one."""
    values = [f"c{n}" for n in range(journal_width(connection))]
    rest = "from concord_journal where id > ? and id <= ? order by id limit ?"
    rows = read_rows(connection, _FIXED, values, rest, (after, until, rows_max))
    if len(rows) == rows_max:
        number, op, _, _, delivery = rows[-1][:FIRST_VALUE]
        if delivery:
            more = "from concord_journal where id > ? and id <= ? and delivery = ? order by id"
            rows += read_rows(connection, _FIXED, values, more, (number, until, delivery))
        elif op == "K":
            rows += read_rows(connection, _FIXED, values, rest, (number, until, 1))
    return rows


def _last_delivery(rows: list[Row]) -> int:
    """Index of the last marker; transactions are whole before it."""
    return next((n for n in range(len(rows) - 1, 0, -1) if rows[n][1] == "M"), 0)


def _only(live: Shape, names: tuple[str, ...]) -> Shape:
    """The shape of what is captured of a table."""
    if names == tuple(column.name for column in live.columns):
        return live
    known = {column.name: column for column in live.columns}
    return msgspec.structs.replace(live, columns=tuple(known[name] for name in names if name in known))


def _capture(columns: tuple[str, ...], stored: Shape, shape: Shape | None) -> _Captured:
    """How rows with these columns are read under the shape of now; under their own when the key is not in them."""
    if shape is None or not set(shape.key) <= set(columns):
        return _Captured(stored, len(stored.columns))
    picks = tuple(columns.index(c.name) if c.name in columns else None for c in shape.columns)
    return _Captured(shape, len(picks), None if picks == tuple(range(len(picks))) else picks)


def _pragma(connection: Connection, name: str) -> int:
    row = connection.execute(f"pragma {name}").fetchone()
    return int(row[0]) if row else 0
