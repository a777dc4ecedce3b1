"""Deliveries that went to the wrong row, because a user changed keys while they were on their way.

A delivery writes under the keys that the hub knows. A user may have given a row another key meanwhile, and the old key
to another row. The log shows the change of keys before that delivery, so when it is captured it is known which entries
may have gone astray: those of the record that had the key which the system had not seen by then. They are delivered
again under the new key. When the log comes to that delivery, whichever record has the old key is the one that was hit:
what it was hit with is remembered as what the row holds, and the record is written again.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.hub.exceptions import Overlay, Stretch
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import Entry
from engine.pipeline.again import append_again
from engine.pipeline.topology import EntityPart, PlacePart, SystemPart, Topology


def leave_key(
    tx: HubTransaction, system: SystemPart, entity: EntityPart, part: PlacePart, key: str, rid: int, seen: int
) -> None:
    """Record `rid` has this key no more, since a moment at which the system had seen delivery `seen`."""
    last = tx.last_seq
    gone = list(_unseen(tx, system, rid, seen, last))
    current = tx.current(rid)
    if not gone or current is None:
        return
    tx.add_astray(part.id, key, rid, last)
    if rid in tx.left_of(part.id):
        tx.open_stretch(system.id, rid, gone[-1].seq)
        return
    if current.value(ALIVE) is False:
        # Deleted: whether or not that arrived, it is no row that users of this key could miss.
        mask = 1 << ALIVE
    else:
        mask = _mask(gone, entity)
    good = append_again(tx, current, mask, system.bit).seq
    stretches = tx.stretches(system.id, rid)
    if stretches and stretches[-1].good is None:
        tx.set_stretch(system.id, rid, Stretch(stretches[-1].refused, good))
    tx.set_stretch(system.id, rid, Stretch(gone[-1].seq, good))


def take_hits(tx: HubTransaction, topology: Topology, system: SystemPart, previous: int, seen: int) -> None:
    """The log shows the deliveries after `previous` up to `seen`: what went astray in them hit the records which have
    the keys at this place of the log."""
    for part in system.places:
        astray = tx.astray(part.id)
        if not astray:
            continue
        entity = topology.entities[part.entity.id]
        known = tx.load_keys(part.id, list(astray))
        for key, others in astray.items():
            rid = known.get(key)
            if rid is None:
                continue
            for other, until in others.items():
                hits = list(_unseen(tx, system, other, previous, min(seen, until)))
                if hits and other != rid:
                    _make_up_for(tx, system, entity, rid, hits)
        tx.sweep_astray(part.id, seen)


def _make_up_for(tx: HubTransaction, system: SystemPart, entity: EntityPart, rid: int, hits: list[Entry]) -> None:
    entry = tx.current(rid)
    assert entry is not None
    mask = _mask(hits, entity)
    until = append_again(tx, entry, mask, system.bit).seq
    # What the row holds until then is nobody's change; who does change it had seen the version that stood there.
    for n in range(1, len(entry.values)):
        if mask >> n & 1 and hits[0].value(n) != entry.value(n):
            tx.set_overlay(system.id, rid, n, Overlay(hits[0].value(n), entry.stamp(n), until))
    if hits[0].value(ALIVE) is False:
        tx.set_overlay(system.id, rid, ALIVE, Overlay(False, entry.stamp(ALIVE), until))


def _unseen(tx: HubTransaction, system: SystemPart, rid: int, seen: int, until: int) -> Iterator[Entry]:
    """The record's entries for this system behind `seen`, newest first."""
    entry = tx.current(rid)
    while entry is not None and entry.seq > seen:
        if entry.seq <= until and entry.concerned & system.bit:
            yield entry
        entry = tx.version(entry.prev)


def _mask(entries: list[Entry], entity: EntityPart) -> int:
    mask = 0
    for entry in entries:
        mask |= entry.mask
    return entity.full if mask & 1 << ALIVE else entity.widen(mask)
