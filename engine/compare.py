"""Do the systems agree? Every mapped row of every system against the canonical record, field by field.

Exact when nobody writes; while they do, records with changes on their way are counted apart, not as differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from engine.errors import ConcordError, SystemUnreachable
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import Entry, Value
from engine.model.table import Shape
from engine.model.value import ABSENT, CanonicalRow, WireRow
from engine.pipeline.canonicalize import Canonicalizer
from engine.pipeline.resolve import NEVER
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import Deletes, KeyRule, Reader, System, Writer

PAGE_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One disagreement. `kind`: "field" (values differ), "missing" (no row there), "extra" (a row nobody knows),
    "deleted" (a row of a deleted record), "unreadable" (the mapping cannot read the row), "parked" (known, waiting)."""

    entity: str
    system: str
    table: str
    key: str
    rid: int | None
    kind: str
    field: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A `Difference`, for whoever wants the values. `record`: what the row says, without a row None; `entry`: the
    record's, where there is one; `fields`: indexes of those that differ."""

    kind: str
    key: str
    rid: int | None
    fields: Sequence[int] = ()
    record: CanonicalRow | None = None
    entry: Entry | None = None


@dataclass(slots=True, kw_only=True)
class Agreement:
    """One entity in one system."""

    entity: str
    system: str
    table: str
    rows: int = 0
    agree: int = 0
    on_their_way: int = 0
    parked: int = 0
    differ: int = 0
    differences: list[Difference] = field(default_factory=lambda: [])
    problem: str = ""
    """Why the table could not be read to its end; the counts are of what was read until then."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a system makes of a value by its mapping (rounded, cut), where no log of it is read that would tell."""

    place: PlacePart
    shape: Shape
    reader: Reader
    writer: Writer

    def is_of(self, key: str, row: WireRow, record: CanonicalRow, index: int, entry: Entry) -> bool:
        """Whether the record's value, written to the row, would read as it does."""
        document = tuple(entry.value(n) for n in range(len(self.place.entity.fields)))
        if index in dict(self.place.entity.references) or not self.writer.mask >> index & 1:
            return False
        written = self.writer.update(1 << index, [key], [document])
        made = written.rows[0]
        if made is None:
            return False
        values = dict(zip(written.columns, made, strict=True))
        again = tuple(values.get(column.name, old) for column, old in zip(self.shape.columns, row, strict=True))
        back = self.reader.read([again]).records[0]
        return back is not None and back[index] == record[index]


class Comparison:
    """Compares one system after another over one hub snapshot; keeps at most `differences_max` of each place."""

    def __init__(
        self,
        tx: HubTransaction,
        topology: Topology,
        differences_max: int = 100,
        *,
        is_ahead: bool = False,
        found: Callable[[PlacePart, Found], None] = lambda place, found: None,
    ) -> None:
        """`is_ahead`: nothing has been delivered yet. Then everything counts that would be, and what a system makes of
        a value is worked out. `found` is told of each difference."""
        self.tx = tx
        self.topology = topology
        self.differences_max = differences_max
        self.is_ahead = is_ahead
        self._found = found
        self.unread: list[ConcordError] = []
        """Of the tables that could not be read, in their order."""

    async def compare(
        self,
        part: SystemPart,
        system: System,
        entities: frozenset[str],
        progress: Callable[[str, int], None] = lambda table, rows: None,
    ) -> list[Agreement]:
        """Every place of one system; `entities` empty: all. A table that cannot be read keeps no other from it."""
        found: list[Agreement] = []
        down: SystemUnreachable | None = None
        for place in part.places:
            if entities and place.entity.name not in entities:
                continue
            found.append(Agreement(entity=place.entity.name, system=part.name, table=place.place.table))
            try:
                if down is not None:
                    # Waiting for it once is enough.
                    raise down
                await self._place(found[-1], part, place, system, progress)
            except ConcordError as error:
                down = error if isinstance(error, SystemUnreachable) else down
                self.unread.append(error)
                found[-1].problem = error.message
        return found

    async def _place(
        self,
        result: Agreement,
        part: SystemPart,
        place: PlacePart,
        system: System,
        progress: Callable[[str, int], None],
    ) -> None:
        canonicalizer = Canonicalizer(part)
        seen_rids: set[int] = set()
        after: tuple[str, ...] | None = None
        pending = set[int]() if self.is_ahead else self._pending(part)
        parked = self._parked(part)
        while True:
            page = await system.page(place.place.table, after, PAGE_ROWS)
            reader = canonicalizer.reader(place, page.shape)
            if isinstance(reader, Exception):
                raise reader
            read = reader.read(page.rows)
            references = [(n, part.place(name).id) for n, name in reader.references]
            stored = None
            if place.place.is_lossy and (self.is_ahead or not part.is_source):
                stored = _Stored(place, page.shape, reader, place.place.writer(page.shape, place.entity))
            rids = self.tx.load_keys(place.id, read.keys)
            known = {n: self._referred(read.records, n, other) for n, other in references}
            for i, (key, record) in enumerate(zip(read.keys, read.records, strict=True)):
                if record is None and i not in read.problems:
                    continue
                result.rows += 1
                rid = rids.get(key)
                if rid is not None:
                    seen_rids.add(rid)
                if i in read.problems:
                    self._add(result, place, Found("unreadable", key, rid), read.problems[i].message)
                    continue
                assert record is not None
                held = None if stored is None else partial(stored.is_of, key, page.rows[i], record)
                self._row(result, part, place, key, rid, record, known, pending, parked, held)
            progress(place.place.table, result.rows)
            after = page.last_key
            if after is None:
                break
        self._missing(result, part, place, seen_rids, pending, parked)

    def _referred(self, records: Iterable[CanonicalRow | None], index: int, place: int) -> dict[str, int]:
        texts = {str(r[index]) for r in records if r is not None and r[index] is not None and r[index] is not ABSENT}
        return self.tx.load_rids(place, texts)

    def _pending(self, part: SystemPart) -> set[int]:
        """Records with changes that this system has not got yet, or whose delivery its log has not shown."""
        (cursor,) = self.tx.system(part.id, "cursor")
        last = self.tx.last_seq
        return {entry.rid for entry in self.tx.read_journal(cursor, last)} if last > cursor else set()

    def _parked(self, part: SystemPart) -> set[int]:
        """Records that this system refused, and that wait. One that was given up does not."""
        rows = self.tx.rows("select rid from parked where direction = 'target' and system = ?", (part.id,))
        return {rid for (rid,) in rows}

    def _row(
        self,
        result: Agreement,
        part: SystemPart,
        place: PlacePart,
        key: str,
        rid: int | None,
        record: CanonicalRow,
        known: dict[int, dict[str, int]],
        pending: set[int],
        parked: set[int],
        is_stored: Callable[[int, Entry], bool] | None,
    ) -> None:
        if rid is None:
            if record[ALIVE] is not False:
                self._add(result, place, Found("extra", key, None, (), record), "its row is in no record yet")
            return
        entry = self.tx.current(rid)
        assert entry is not None
        fields = self._differing(part, rid, entry, record, known)
        if self.is_ahead or not part.is_source:
            # Nobody has read what this system sets by itself.
            own = place.place.own_fields(place.entity)
            fields = [n for n in fields if not own >> n & 1]
        if is_stored is not None:
            fields = [n for n in fields if not is_stored(n, entry)]
        if not fields:
            result.agree += 1
        elif rid in pending:
            result.on_their_way += 1
        elif entry.value(ALIVE) is False and place.place.deletes is Deletes.KEEP:
            # The row stays, whatever becomes of its record: the mapping says so.
            result.agree += 1
        elif fields == [ALIVE] and entry.value(ALIVE) is False:
            found = Found("deleted", key, rid, (), record, entry)
            self._add(result, place, found, "the record is deleted, the row is there")
        else:
            kind = "parked" if rid in parked else "field"
            self._add(result, place, Found(kind, key, rid, fields, record, entry), "")

    def _differing(
        self, part: SystemPart, rid: int, entry: Entry, record: CanonicalRow, known: dict[int, dict[str, int]]
    ) -> list[int]:
        fields: list[int] = []
        for n, value in enumerate(record):
            if value is ABSENT:
                continue
            canonical: Value = entry.value(n)
            held: Value = value
            if n in known and value is not None:
                held = self.tx.alias(known[n].get(str(value), -1))
                canonical = self.tx.alias(canonical) if isinstance(canonical, int) else canonical
            if held != canonical and not self._is_stored_so(part, rid, entry, n, held):
                fields.append(n)
        return fields

    def _is_stored_so(self, part: SystemPart, rid: int, entry: Entry, index: int, held: Value) -> bool:
        """Whether this system is known to store the current value differently (trimmed, rounded, by a trigger)."""
        overlay = self.tx.overlays(part.id, rid).get(index)
        if overlay is None or overlay.value != held:
            return False
        # What lost has no stamp either; but nothing can lose against what nobody has set.
        return overlay.stamp is not None or (overlay.until == NEVER and entry.stamp(index) is None)

    def _missing(
        self,
        result: Agreement,
        part: SystemPart,
        place: PlacePart,
        present: set[int],
        pending: set[int],
        parked: set[int],
    ) -> None:
        """Living records that have, or should have, a row here and have none."""
        last = self.tx.last_seq
        for after in range(0, last, PAGE_ROWS):
            rids = [rid for (rid,) in self.tx.rows(
                "select rid from record where rid > ?1 and rid <= ?2 union"
                " select seq from journal where seq > ?1 and seq <= ?2",
                (after, after + PAGE_ROWS),
            )]  # fmt: skip
            entries = self.tx.load_records(rids)
            absent = [
                rid for rid in rids
                if rid not in present and rid in entries and entries[rid].entity == place.entity.id
                and entries[rid].value(ALIVE) and self.tx.alias(rid) == rid
            ]  # fmt: skip
            keys = self.tx.keys_of(place.id, absent)
            elsewhere: set[int] = set()
            for other in part.places_of(place.entity.id):
                if other.id != place.id:
                    elsewhere.update(self.tx.keys_of(other.id, absent))
            left = self.tx.left_of(place.id)
            accepts = place.place.accepts(place.entity)
            for rid in absent:
                if rid in left or rid in elsewhere or rid in self.tx.undecided:
                    continue
                if rid not in keys and (
                    not part.is_target
                    or place.place.key_rule is KeyRule.NONE
                    or (accepts is not None and not accepts(entries[rid].values))
                ):
                    continue
                if rid in pending:
                    result.on_their_way += 1
                    continue
                kind = "parked" if rid in parked else "missing"
                self._add(result, place, Found(kind, keys.get(rid, ""), rid, (), None, entries[rid]), "no row")

    def _add(self, result: Agreement, place: PlacePart, found: Found, detail: str) -> None:
        self._found(place, found)
        if found.kind == "parked":
            # Known, on its list, and no drift that nobody has noticed.
            result.parked += 1
        else:
            result.differ += 1
        if len(result.differences) < self.differences_max:
            result.differences.append(
                Difference(
                    entity=result.entity,
                    system=result.system,
                    table=place.place.table,
                    key=found.key,
                    rid=found.rid,
                    kind=found.kind,
                    field=", ".join(place.entity.fields[n].name for n in found.fields) or None,
                    detail=detail,
                )
            )


def differences(agreements: Sequence[Agreement]) -> int:
    """How many rows or records disagree; those on their way and those parked are counted apart."""
    return sum(agreement.differ for agreement in agreements)
