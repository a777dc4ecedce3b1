"""Stages 3 to 5 for one batch: which record is it, what wins, and writing that down, in one hub transaction.

The usual row takes a straight line: a record unknown, or one whose every version the system had seen, so that no
conflict is possible; `bulk` takes whole batches of such rows. Whatever is rare leaves the line early, for `slow`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import HubError
from engine.hub.aside import Parked
from engine.hub.transaction import HubTransaction
from engine.model.births import mask_of
from engine.model.change import DELETE, READ, EventKind, TableEvent
from engine.model.record import CHANGE, PLACEHOLDER, Entry
from engine.model.value import ABSENT, CanonicalRow
from engine.pipeline.astray import take_hits
from engine.pipeline.backfill import note_page
from engine.pipeline.bulk import Arrived, take_changes, take_newcomers
from engine.pipeline.canonicalize import CanonicalBatch, Canonicalizer, CanonicalSegment, PlaceRows
from engine.pipeline.derive import Deriver
from engine.pipeline.echoes import take_echoes
from engine.pipeline.identify import resolve_references
from engine.pipeline.joined import RawRows, note_copied
from engine.pipeline.settle import retry_reread
from engine.pipeline.slow import Slow
from engine.pipeline.topology import SystemPart, Topology, unwritten
from engine.pipeline.values import changed, merged, stored

VALUE_HINT = "Correct the value in the row, which is then read again; or the mapping, and start the daemon again."
HELD = {
    EventKind.DROPPED: "the table is gone, and its records wait as they are",
    EventKind.UNPUBLISHED: "its changes are not captured any more",
    EventKind.TRUNCATED: "it was truncated, which deletes nothing elsewhere",
}
"""What an event that is no change of a shape means for the table."""


@dataclass(slots=True)
class Counts:
    """What became of a batch: success = read − echoed − filtered − parked."""

    read: int = 0
    echoed: int = 0
    filtered: int = 0
    parked: int = 0
    entries: int = 0
    conflicts: int = 0
    reviews: int = 0
    tables: set[str] = field(default_factory=lambda: set())
    last_seq: int = 0
    parked_as: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=lambda: {})
    """By place and code: how many rows were parked, and message and hint of the first, for the log."""


class Committer:
    """Commits one source's batches. Holds nothing between batches."""

    def __init__(self, topology: Topology, system: SystemPart, canonicalizer: Canonicalizer | None = None) -> None:
        """`canonicalizer`: for systems with joined tables, whose rows are put together here."""
        self.topology = topology
        self.system = system
        self._canonicalizer = canonicalizer
        self._deriver = Deriver(topology) if topology.workflows else None

    def commit(self, tx: HubTransaction, batch: CanonicalBatch) -> Counts:
        """Write everything in `batch` into the hub, its position included."""
        first = tx.last_seq
        counts = Counts(read=batch.rows_read, echoed=batch.rows_echoed)
        (seen, before, cursor) = tx.system(self.system.id, "seen, seen_before, cursor")
        for segment in batch.segments:
            if segment.seen is not None:
                if segment.seen > cursor:
                    raise _unknown_delivery(self.system, segment.seen, cursor)
                if segment.seen > seen:
                    before, seen = seen, segment.seen
                    tx.set_seen(self.system.id, seen, before)
                    take_hits(tx, self.topology, self.system, before, seen)
                for rows in (*segment.echoes, *self._put_together(tx, segment.raw_echoes)):
                    counts.conflicts += take_echoes(self.topology, self.system, tx, rows, before, seen)
            if segment.seen_at_read is not None and segment.seen_at_read > cursor:
                raise _unknown_delivery(self.system, segment.seen_at_read, cursor)
            segment.rows = self._in_order([*segment.rows, *self._put_together(tx, segment.raw)])
            self._segment(tx, segment, seen if segment.seen_at_read is None else segment.seen_at_read, counts)
        if self._deriver is not None and (batch.done or batch.copied):
            # What a first copy shows has not just happened.
            self._deriver.take_in(tx, first)
        elif self._deriver is not None:
            self._deriver.derive(tx, first, only_known=batch.backfill is not None)
        for place, last_key, rows in batch.done:
            tx.write(
                "insert into snapshot (place, last_key, is_done, rows_read) values (?1, ?2, ?3, ?4) on conflict (place)"
                " do update set last_key = ?2, is_done = ?3, rows_read = rows_read + ?4",
                (place, last_key, last_key is None, rows),
            )
        for table, last_key in batch.copied:
            note_copied(tx, self.system, table, last_key)
        if batch.backfill is not None:
            note_page(tx, batch.backfill)
        if batch.position is not None:
            tx.set_position(
                self.system.id,
                batch.position,
                batch.committed_at,
                read=counts.read,
                echoed=counts.echoed,
                filtered=counts.filtered,
                parked=counts.parked,
            )
            tx.add_boundary(self.system.id, is_whole=batch.is_whole)
        else:
            tx.mark_boundary()
        counts.last_seq = tx.last_seq
        counts.entries = tx.last_seq - first
        return counts

    def _put_together(self, tx: HubTransaction, raws: list[RawRows]) -> list[PlaceRows]:
        if not raws:
            return []
        assert self._canonicalizer is not None
        joiner = self._canonicalizer.joiner
        assert joiner is not None
        tables, refused = joiner.put_together(tx, raws)
        found = self._canonicalizer.place_rows(tables, is_whole=True)
        for rows in found:
            for n, problem in refused.get(rows.part.place.table, {}).items():
                if n not in rows.problems:
                    rows.refuse(n, problem)
        return found

    def _in_order(self, rows: list[PlaceRows]) -> list[PlaceRows]:
        """Parents first, as the places stand."""
        if not self.system.joins.joins:
            return rows
        order = {part.id: n for n, part in enumerate(self.system.places)}
        return sorted(rows, key=lambda rows: order[rows.part.id])

    def _segment(self, tx: HubTransaction, segment: CanonicalSegment, seen: int, counts: Counts) -> None:
        for event in segment.events:
            if event.kind is not EventKind.RESHAPED:
                self._hold_table(tx, event)
            counts.tables.add(event.table)
        for rows in segment.rows:
            self.take_rows(tx, rows, seen, counts, segment.seen_at_least)

    def _hold_table(self, tx: HubTransaction, event: TableEvent) -> None:
        name = self.system.name
        message = f"system {name}, table {event.table}: {HELD[event.kind]}"
        hint = f"{event.detail.rstrip(';.') or 'Mend that'}; then run `concord backfill {name}`."
        tx.write(
            "insert or replace into held (system, name, message, hint, since, is_uncaptured) values (?, ?, ?, ?, ?, ?)",
            (self.system.id, event.table, message, hint, tx.clock.now(), event.kind is EventKind.UNPUBLISHED),
        )

    def take_rows(
        self, tx: HubTransaction, rows: PlaceRows, seen: int, counts: Counts, seen_at_least: int | None = None
    ) -> None:
        """Stages 3 to 5 for the changes of one place, in log order."""
        part, system, bit = rows.part, self.system.id, self.system.bit
        place = part.id
        entity = self.topology.entities[part.entity.id]
        others = entity.concerned & ~bit
        # `alive` is no field like the others here: a record that comes or goes is worth a second look.
        contested = entity.contested(system) | 1 | unwritten(part, entity, system)
        slow = Slow(self.topology, self.system, tx, seen_at_least, is_read=rows.ops[:1] == bytearray([READ]))
        known = tx.load_keys(place, rows.keys)
        stale: dict[int, int] = {}
        records = resolve_references(tx, self.topology, rows, stale) if rows.references else rows.records
        latest_time = tx.clock.now() + self.topology.clock_skew
        arrived = Arrived(
            entity=entity, system=self.system, rows=rows, records=records, known=known, latest_time=latest_time
        )
        if take_newcomers(tx, arrived) or take_changes(tx, arrived, seen):
            for i, mask in stale.items():
                slow.rewrite(part, rows.keys[i], mask)
            return
        entries = tx.entries
        overlaid, stretched, undecided = tx.overlaid(system), tx.stretched(system), tx.undecided
        left, parked = tx.left_of(place), tx.parked_keys(place)
        entity_id, has_matches = part.entity.id, entity.match_keys is not None
        partial = rows.partial()
        append, link, keys, times, old_keys = tx.append, tx.link, rows.keys, rows.times, rows.old_keys
        for i, record in enumerate(records):
            key = keys[i]
            if record is None or i in old_keys or key in parked:
                self._rare(slow, rows, record, i, partial.get(i), seen, counts)
                continue
            time = times[i] if times[i] < latest_time else latest_time
            rid = known.get(key)
            if i in partial and slow.is_news(part, rid):
                self._park_partial(tx, rows, i, partial[i], seen, counts)
                continue
            if rid is None:
                if has_matches:
                    slow.newcomer(part, entity, key, record, time, seen)
                    continue
                seq = tx.last_seq + 1
                values = stored(record)
                append(Entry(seq, seq, entity_id, system, time, mask_of(values), others, 0, CHANGE, 0, values))
                link(place, key, seq)
                continue
            entry = entries.get(rid) or slow.current(rid)
            values = entry.values
            held = entry.seq <= seen or (entry.origin == system and not entry.concerned & bit and entry.foreign <= seen)
            is_plain = held and entry.kind != PLACEHOLDER
            if not is_plain or rid in overlaid or rid in stretched or rid in undecided or rid in left:
                slow.take(part, entity, rid, key, record, time, seen)
                continue
            if record == values:
                continue
            mask = changed(record, values)
            if mask & contested:
                slow.take(part, entity, rid, key, record, time, seen)
                continue
            if not mask:
                continue
            mask = entity.widen(mask)
            seq = tx.last_seq + 1
            document = merged(record, values) if ABSENT in record else stored(record)
            foreign = entry.foreign if entry.origin == system and not entry.concerned & bit else entry.seq
            older = entry.stamps_without(mask)
            append(Entry(seq, rid, entity_id, system, time, mask, others, entry.seq, CHANGE, foreign, document, older))
            if mask & entity.match_mask:
                slow.remember_matches(entity, rid, document)
        for i, mask in stale.items():
            slow.rewrite(part, keys[i], mask)
        slow.finish()
        if stretched and self.system.is_target:
            retry_reread(tx, self.topology, self.system, stretched.intersection(known.values()))
        counts.conflicts += slow.conflicts
        counts.reviews += slow.reviews

    def _rare(
        self,
        slow: Slow,
        rows: PlaceRows,
        record: CanonicalRow | None,
        i: int,
        missing: int | None,
        seen: int,
        counts: Counts,
    ) -> None:
        """A delete, a key that changed, a row that does not take part or could not be read."""
        part, key = rows.part, rows.keys[i]
        entity = self.topology.entities[part.entity.id]
        tx = slow.tx
        time = min(rows.times[i], tx.clock.now() + self.topology.clock_skew)
        old_key = rows.old_keys.get(i)
        if old_key is not None:
            slow.move_key(part, entity, old_key, key, seen)
        if rows.ops[i] == DELETE:
            slow.unpark_row(part, key)
            slow.delete(part, entity, key, time, seen)
        elif i in rows.problems:
            problem = rows.problems[i]
            field = str(problem.context["field"]) if "field" in problem.context else None
            reason = "value" if problem.code == "value.refused" else "table"
            hint = problem.hint or VALUE_HINT
            self._park(tx, rows, i, seen, counts, (problem.code, reason, problem.message, hint, field))
        elif record is None:
            slow.unpark_row(part, key)
            slow.leave(part, key)
            counts.filtered += 1
        elif missing is not None and slow.is_news(part, tx.load_keys(part.id, [key]).get(key)):
            self._park_partial(tx, rows, i, missing, seen, counts)
        else:
            slow.unpark_row(part, key)
            slow.take_row(part, entity, key, record, time, seen)

    def _park_partial(
        self, tx: HubTransaction, rows: PlaceRows, i: int, missing: int, seen: int, counts: Counts
    ) -> None:
        """A row of which nothing was known, and the log has only what its last change changed: PostgreSQL keeps long
        values beside the row and does not log those that stay as they are."""
        name, table = self.system.name, rows.part.place.table
        field = rows.part.entity.fields[missing].name
        message = f"system {name}, table {table}: a row begins to take part, and its log does not tell its {field}"
        hint = (
            f"Run `concord backfill {name}`, which reads whole rows; let the table log them whole to be spared that"
            " (PostgreSQL: alter table … replica identity full)."
        )
        self._park(tx, rows, i, seen, counts, ("row.partial", "table", message, hint, field))

    def _park(
        self,
        tx: HubTransaction,
        rows: PlaceRows,
        i: int,
        seen: int,
        counts: Counts,
        why: tuple[str, str, str, str, str | None],
    ) -> None:
        """Set a row aside. `why`: code, reason, message, hint, field."""
        code, reason, message, hint, field = why
        tx.park(
            Parked(
                system=self.system.id, direction="source", place=rows.part.id, rid=None, key=rows.keys[i],
                seq=tx.last_seq, seen=seen, code=code, reason=reason, message=message, hint=hint, field=field,
                doc=rows.documents.get(i),
            )
        )  # fmt: skip
        counts.parked += 1
        known = counts.parked_as.get((rows.part.name, code), (0, message, hint))
        counts.parked_as[rows.part.name, code] = (known[0] + 1, *known[1:])


def _unknown_delivery(system: SystemPart, seen: int, cursor: int) -> HubError:
    hint = f"Restore a newer hub, or run `concord teardown {system.name}` and set up again."
    if not system.is_target:
        hint = (
            f"If the daemon was cut off before {system.name} became one that is only read, run it once with"
            f' mode = "live" there, so that it can settle what it had delivered. Else: {hint}'
        )
    return HubError(
        f"the log of {system.name} shows delivery {seen}, the hub knows of {cursor}", hint=hint, system=system.name
    )
