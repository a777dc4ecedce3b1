"""What a system made of our own delivery, where its triggers and cascades may have made more of it than we wrote.

A field that the delivery wrote and that reads differently now is stored so by this system (trimmed, rounded, set by a
trigger): that is remembered as what it holds, and is no change. A field or row that the delivery did not write was
changed by the system itself, on top of the delivery: that is a change like any other. So is the number that a new row
got as its key, where that is a mapped field.
"""

from __future__ import annotations

from engine.hub.exceptions import Overlay
from engine.hub.transaction import HubTransaction
from engine.model.change import DELETE
from engine.model.entity import ALIVE
from engine.model.record import Entry, Value, bits
from engine.model.value import ABSENT, CanonicalRow
from engine.pipeline.canonicalize import PlaceRows
from engine.pipeline.identify import resolve_references
from engine.pipeline.resolve import NEVER
from engine.pipeline.slow import Slow
from engine.pipeline.topology import SystemPart, Topology, unwritten


def take_echoes(
    topology: Topology, system: SystemPart, tx: HubTransaction, rows: PlaceRows, previous: int, seen: int
) -> int:
    """Rows that the log shows inside delivery `seen`; `previous` is the delivery before it. Returns conflicts
    recorded."""
    slow = Slow(topology, system, tx)
    own = rows.part.place.own_fields(rows.part.entity)
    part, entity = rows.part, topology.entities[rows.part.entity.id]
    records = resolve_references(tx, topology, rows) if rows.references else rows.records
    for i, (key, record) in enumerate(zip(rows.keys, records, strict=True)):
        rid = tx.load_keys(part.id, [key]).get(key)
        if rows.ops[i] == DELETE:
            if rid is not None:
                slow.apply(entity, rid, {ALIVE: False}, rows.times[i], seen)
            continue
        if record is None:
            continue
        if rid is None:
            slow.newcomer(part, entity, key, record, rows.times[i], seen)
            continue
        chain = slow.chain(rid, previous)
        version = next((entry for entry in chain if entry.seq <= seen), None)
        if version is None:
            continue
        written = _written(chain, system.bit, previous, seen) & ~own
        _learn(tx, system.id, version, record, written)
        others: dict[int, Value] = {n: v for n, v in enumerate(record) if v is not ABSENT and not written >> n & 1}
        for n in bits(unwritten(part, entity, system.id)):
            # Never written there: what others have set did not arrive; what nobody has, the system may have set.
            if version.value(n) is not None:
                others.pop(n, None)
        slow.apply(entity, rid, others, rows.times[i], seen)
    slow.finish()
    return slow.conflicts


def _written(chain: list[Entry], bit: int, previous: int, seen: int) -> int:
    """Mask of the fields of one record that the delivery wrote; all of them where it wrote the whole row."""
    mask = 0
    for entry in chain:
        if previous < entry.seq <= seen and entry.concerned & bit:
            mask |= -1 if entry.mask & 1 << ALIVE else entry.mask
    return mask


def _learn(tx: HubTransaction, system: int, version: Entry, record: CanonicalRow, written: int) -> None:
    for n, value in enumerate(record):
        if value is ABSENT or not written >> n & 1:
            continue
        if value != version.value(n):
            tx.set_overlay(system, version.rid, n, Overlay(value, version.stamp(n), NEVER))
        else:
            tx.drop_overlay(system, version.rid, n)
