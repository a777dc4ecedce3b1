"""Stage 2: rows of a batch become records. Pure: no I/O, no hub; only readers compiled from the mapping."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from engine.errors import TableHeld, ValueRefused
from engine.model.change import DELETE, Batch, Segment, TableEvent, TableRows
from engine.model.position import Position
from engine.model.table import Shape
from engine.model.value import ABSENT, CanonicalRow, Wire, WireRow
from engine.pipeline.joined import Joiner, RawRows
from engine.pipeline.topology import PlacePart, SystemPart
from engine.ports import Reader


@dataclass(slots=True)
class PlaceRows:
    """Changes of one place in log order; the lists run parallel. `records[i]` is None for a delete, for a row that does
    not take part, and for one with a problem. `references`: (field index, number of the place its keys belong to)."""

    part: PlacePart
    references: tuple[tuple[int, int], ...]
    mask: int
    ops: bytearray
    keys: list[str]
    records: list[CanonicalRow | None]
    times: list[int]
    old_keys: dict[int, str]
    problems: dict[int, ValueRefused | TableHeld]
    documents: dict[int, bytes]
    """The wire rows of those with a problem, as `wire_document` spells them."""

    def partial(self) -> dict[int, int]:
        """Rows that do not have all that the mapping reads, by index: the first field that was not sent."""
        found: dict[int, int] = {}
        for i, record in enumerate(self.records):
            if record is not None and ABSENT in record:
                first = next((n for n, v in enumerate(record) if v is ABSENT and self.mask >> n & 1), None)
                if first is not None:
                    found[i] = first
        return found

    def refuse(self, n: int, problem: ValueRefused) -> None:
        """Set a row aside that was read. Without its document: a part of it is not known."""
        self.records[n] = None
        self.problems[n] = problem

    def extend(self, following: PlaceRows) -> None:
        """Add rows of the same place, read in the same way."""
        count = len(self.keys)
        # Places of one table share these two.
        self.ops = self.ops + following.ops
        self.times = self.times + following.times
        self.keys += following.keys
        self.records += following.records
        self.old_keys |= {count + n: key for n, key in following.old_keys.items()}
        self.problems |= {count + n: problem for n, problem in following.problems.items()}
        self.documents |= {count + n: document for n, document in following.documents.items()}


@dataclass(slots=True)
class CanonicalSegment:
    """`Segment`, in canonical terms. `seen`: None leaves it as it was. `is_read`: found by a snapshot, not changed."""

    seen: int | None
    events: list[TableEvent]
    rows: list[PlaceRows]
    echoes: list[PlaceRows] = field(default_factory=lambda: [])
    seen_at_read: int | None = None
    """For rows of a snapshot: what the system had seen when they were read."""
    seen_at_least: int | None = None
    raw: list[RawRows] = field(default_factory=lambda: [])
    """Rows of tables that are put together with others when they are committed; `raw_echoes` likewise."""
    raw_echoes: list[RawRows] = field(default_factory=lambda: [])

    def try_extend(self, following: CanonicalSegment) -> bool:
        """Take in the rows of the next segment, if nothing stands between them; False when something does, or they are
        of tables that have no rows here."""
        if following.seen is not None or following.events or following.echoes or following.raw_echoes:
            return False
        if following.seen_at_least != self.seen_at_least:
            return False
        own = {(rows.part.id, rows.references, rows.mask): rows for rows in self.rows}
        found = [own.get((rows.part.id, rows.references, rows.mask)) for rows in following.rows]
        # What a transaction does to joined tables must stay together, whatever other tables it changes; they are put in
        # order when they are committed.
        if None in found and not (self.raw or following.raw):
            return False
        tables = {raw.table: raw for raw in self.raw}
        if any(raw.table in tables and raw.rows.shape != tables[raw.table].rows.shape for raw in following.raw):
            return False
        for raw in following.raw:
            if raw.table in tables:
                tables[raw.table].extend(raw)
            else:
                self.raw.append(raw)
        for rows, more in zip(found, following.rows, strict=True):
            if rows is None:
                self.rows.append(more)
            else:
                rows.extend(more)
        return True


@dataclass(frozen=True, slots=True)
class BackfillPage:
    """How far a backfill has come. `last_key`: packed, None at the table's end; `rate`: rows a second."""

    number: int
    table: str
    last_key: bytes | None
    rows: int
    rate: float


@dataclass(slots=True)
class CanonicalBatch:
    """`Batch`, in canonical terms. `position`: None leaves it as it was (rows of a snapshot)."""

    position: Position | None
    segments: list[CanonicalSegment]
    is_whole: bool
    rows_read: int
    rows_echoed: int
    committed_at: int
    has_more: bool = False
    size: int = 0
    done: list[tuple[int, bytes | None, int]] = field(default_factory=lambda: [])
    """Snapshot progress: (place number, last key, rows)."""
    backfill: BackfillPage | None = None
    copied: list[tuple[str, bytes | None]] = field(default_factory=lambda: [])
    """Progress of tables that are joined, or join others: (table, last key)."""

    def extend(self, following: CanonicalBatch) -> None:
        """Take in the batch that the same feed handed over next."""
        self.position, self.is_whole, self.has_more = following.position, following.is_whole, following.has_more
        self.rows_read += following.rows_read
        self.rows_echoed += following.rows_echoed
        self.size += following.size
        self.committed_at = following.committed_at or self.committed_at
        for segment in following.segments:
            if not (self.segments and self.segments[-1].try_extend(segment)):
                self.segments.append(segment)


class Canonicalizer:
    """One system's readers, compiled when a shape is first met. `held`: tables whose mapping does not fit any more."""

    def __init__(self, system: SystemPart, joiner: Joiner | None = None) -> None:
        self.system = system
        self.joiner = joiner
        self._places: dict[str, list[PlacePart]] = {}
        for part in system.places:
            self._places.setdefault(part.place.table, []).append(part)
        self._readers: dict[tuple[int, Shape], Reader | TableHeld] = {}
        self._latest: dict[int, tuple[Shape, Reader | TableHeld]] = {}

    def canonicalize(self, batch: Batch) -> CanonicalBatch:
        """Everything in `batch`, tables in the order of the mapping (parents first)."""
        return CanonicalBatch(
            position=batch.position,
            segments=[self._segment(segment) for segment in batch.segments],
            is_whole=batch.is_whole,
            has_more=batch.has_more,
            rows_read=batch.rows_read,
            rows_echoed=batch.rows_echoed,
            committed_at=batch.committed_at,
            size=batch.size,
        )

    def _segment(self, segment: Segment) -> CanonicalSegment:
        found = CanonicalSegment(
            seen=segment.seen,
            events=segment.events,
            rows=self.place_rows(segment.tables),
            echoes=self.place_rows(segment.echoes) if segment.echoes else [],
            seen_at_least=segment.seen_at_least,
        )
        if self.joiner is not None:
            found.events = self.joiner.events(segment.events)
            found.raw = self.raw_rows(segment.tables)
            found.raw_echoes = self.raw_rows(segment.echoes)
        return found

    def raw_rows(self, tables: dict[str, TableRows]) -> list[RawRows]:
        """The rows of tables that are joined, or join others."""
        if self.joiner is None:
            return []
        bases = self.joiner.plan.bases
        return [self.joiner.raw(table, rows) for table, rows in tables.items() if table in bases and rows.rows]

    def place_rows(self, tables: dict[str, TableRows], *, is_whole: bool = False) -> list[PlaceRows]:
        """The rows of each place that has any; those of tables with joins only when they have been put together."""
        found: list[PlaceRows] = []
        apart = () if self.joiner is None else self.system.joins.joins
        for table, parts in self._places.items():
            rows = tables.get(table)
            if rows is not None and rows.rows and (is_whole or table not in apart):
                found.extend(self._read(part, rows) for part in parts)
        return found

    def reader(self, part: PlacePart, shape: Shape) -> Reader | TableHeld:
        """The compiled reader, or why there is none."""
        latest = self._latest.get(part.id)
        if latest is not None and latest[0] is shape:
            return latest[1]
        reader = self._readers.get((part.id, shape))
        if reader is None:
            try:
                reader = part.place.reader(shape, part.entity)
            except TableHeld as error:
                reader = error
            self._readers[part.id, shape] = reader
        self._latest[part.id] = (shape, reader)
        return reader

    def _read(self, part: PlacePart, table: TableRows) -> PlaceRows:
        reader = self.reader(part, table.shape)
        if isinstance(reader, TableHeld):
            return self._held(part, table, reader)
        references = tuple((n, self.system.place(name).id) for n, name in reader.references)
        old_keys = dict(zip(table.old, _keys(reader, list(table.old.values())), strict=True)) if table.old else {}
        if DELETE not in table.ops:
            read = reader.read(table.rows)
            keys, records = read.keys, read.records
            problems: dict[int, ValueRefused | TableHeld] = {**read.problems}
        else:
            keys = _keys(reader, table.rows)
            records: list[CanonicalRow | None] = [None] * len(keys)
            kept = [n for n, op in enumerate(table.ops) if op != DELETE]
            read = reader.read([table.rows[n] for n in kept])
            for n, record in zip(kept, read.records, strict=True):
                records[n] = record
            problems = {kept[n]: problem for n, problem in read.problems.items()}
        documents = {n: wire_document(table.shape, table.rows[n]) for n in problems}
        for n in problems:
            if not keys[n]:
                # Its record stays where it was known: under no key nobody would find it again.
                old_keys.pop(n, None)
        return PlaceRows(
            part, references, reader.mask, table.ops, keys, records, table.times, old_keys, problems, documents
        )

    def _held(self, part: PlacePart, table: TableRows, held: TableHeld) -> PlaceRows:
        """Rows of a table that the mapping cannot read: all of them are set aside, none is lost."""
        keys = held_keys(part, table.shape, table.rows, held)
        old_keys = dict(zip(table.old, held_keys(part, table.shape, list(table.old.values()), held), strict=True))
        problems: dict[int, ValueRefused | TableHeld] = dict.fromkeys(range(len(keys)), held)
        documents = {n: wire_document(table.shape, row) for n, row in enumerate(table.rows)}
        records: list[CanonicalRow | None] = [None] * len(keys)
        return PlaceRows(part, (), 0, table.ops, keys, records, table.times, old_keys, problems, documents)


def _keys(reader: Reader, rows: list[WireRow]) -> list[str]:
    """The rows' keys; "" where a row has none (a key column that is null, which no record can have)."""
    try:
        return reader.keys(rows)
    except ValueRefused:
        return [_key(reader, row) for row in rows]


def _key(reader: Reader, row: WireRow) -> str:
    try:
        return reader.keys([row])[0]
    except ValueRefused:
        return ""


def held_keys(part: PlacePart, shape: Shape, rows: list[WireRow], held: TableHeld) -> list[str]:
    """Keys of rows without a reader. Where the mapped key columns are gone the table's own key takes their place: they
    may have been given other names. Raises `held` when that has another number of columns."""
    indexes = [shape.index(name) for name in part.place.key]
    if None in indexes:
        if len(shape.key) != len(part.place.key):
            raise held
        indexes = [shape.index(name) for name in shape.key]
    columns = [n for n in indexes if n is not None]
    keys: list[str] = []
    for row in rows:
        texts = [str(row[n]) for n in columns]
        keys.append(texts[0] if len(texts) == 1 else msgspec.json.encode(texts).decode())
    return keys


def wire_document(shape: Shape, row: WireRow) -> bytes:
    """A wire row by column names, to be read again under a later shape; columns that were not sent are left out."""
    names = [column.name for column in shape.columns]
    return msgspec.msgpack.encode({n: v for n, v in zip(names, row, strict=True) if v is not ABSENT})


def changed_columns(shape: Shape, document: bytes) -> tuple[list[str], list[str]]:
    """Columns of `wire_document` that the table does not have any more, and those of the table that it lacks."""
    names = msgspec.msgpack.decode(document).keys()
    return [n for n in names if shape.index(n) is None], [c.name for c in shape.columns if c.name not in names]


def wire_row(shape: Shape, document: bytes) -> WireRow:
    """The row of `wire_document` under `shape`."""
    # Untyped: msgspec takes no type that is text or bytes, though msgpack tells the two apart.
    values: dict[str, Wire] = msgspec.msgpack.decode(document)
    return tuple(values.get(column.name, ABSENT) for column in shape.columns)
