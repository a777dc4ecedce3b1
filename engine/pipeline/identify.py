"""Stage 3: which record is a row, and which records do its references mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import PLACEHOLDER, Entry
from engine.model.value import ABSENT, CanonicalRow
from engine.pipeline.topology import EntityPart, PlacePart, Topology

if TYPE_CHECKING:
    from engine.pipeline.canonicalize import PlaceRows


def resolve_references(
    tx: HubTransaction, topology: Topology, rows: PlaceRows, stale: dict[int, int] | None = None
) -> list[CanonicalRow | None]:
    """The records with keys in reference fields replaced by rids; a placeholder is made for a key never seen.

    `stale` collects, by index of the row, the mask of fields that refer to a row which is about to be deleted as one
    too many: they mean its record, and are to be written with its other key.
    """
    records = list(rows.records)
    for index, place in rows.references:
        texts = {str(r[index]) for r in records if r is not None and r[index] is not None and r[index] is not ABSENT}
        known = tx.load_rids(place, texts)
        for text in sorted(texts - known.keys()):
            add_placeholder(tx, topology.places[place], text)
        known = tx.load_rids(place, texts)
        for i, record in enumerate(records):
            if record is not None and record[index] is not None and record[index] is not ABSENT:
                rid = known[str(record[index])]
                means = tx.alias(rid)
                if means != rid and stale is not None:
                    stale[i] = stale.get(i, 0) | 1 << index
                records[i] = (*record[:index], means, *record[index + 1 :])
    return records


def add_placeholder(tx: HubTransaction, part: PlacePart, key: str) -> int:
    """A record that something refers to; its row will fill it when it comes."""
    seq = tx.last_seq + 1
    values = (None,) * len(part.entity.fields)
    tx.append(Entry(seq, seq, part.entity.id, 0, 0, 0, 0, 0, PLACEHOLDER, 0, values))
    tx.link(part.id, key, seq)
    return seq


def candidates(
    tx: HubTransaction, entity: EntityPart, part: PlacePart, record: CanonicalRow, seen: int, *, is_read: bool
) -> tuple[list[int], bool]:
    """Records that the row may be, by the first match rule that finds any; whether it is the first of them for sure.

    Not among them: deleted records, those whose fields have changed since, so that the key they once had is no longer
    theirs, and records that have another row in this place; unless that row is one of ours which was on its way when
    this one was written (`seen`): then nobody meant there to be two.

    Of a row that was changed, its users made it another one. Where rows are only read (`is_read`), one came before the
    other, which says nothing: one of them may be a double, or the wrong one linked. Who has a row here, and others in
    other systems, is then asked about.
    """
    assert entity.match_keys is not None
    keys = entity.match_keys(tuple(None if v is ABSENT else v for v in record))
    if not keys:
        return [], False
    found = tx.matches(part.entity.id, keys)
    for key in keys:
        fitting: set[int] = set()
        held: set[int] = set()
        for rid in found.get(key, ()):
            means = tx.alias(rid)
            entry = tx.current(means)
            if entry is None or entry.value(ALIVE) is False or key not in entity.match_keys(entry.values):
                continue
            if not _has_row(tx, part, means, seen):
                fitting.add(means)
            elif is_read and _is_shared(tx, part, means):
                held.add(means)
        if fitting:
            return sorted(fitting), len(fitting) == 1
        if held:
            return sorted(held), False
    return [], False


def _is_shared(tx: HubTransaction, part: PlacePart, rid: int) -> bool:
    systems = tx.rows("select p.system from link l join place p on p.id = l.place where l.rid = ?", (rid,))
    return any(system != part.system for (system,) in systems)


def _has_row(tx: HubTransaction, part: PlacePart, rid: int, seen: int) -> bool:
    linked = tx.linked_by(part.id, rid)
    return linked is not None and linked[1] <= seen
