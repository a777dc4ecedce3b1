"""Stage 6, last half: what the hub remembers of a delivery, and of what a target refused. Hub side only, no target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from engine.hub.aside import Parked
from engine.hub.exceptions import Stretch
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import Entry
from engine.pipeline.again import append_again
from engine.pipeline.doubles import Doubles
from engine.pipeline.gather import Gathered, document
from engine.pipeline.topology import SystemPart, Topology
from engine.ports import KeyRule

RETRY_SECONDS_MIN = 15.0
RETRY_SECONDS_MAX = 3600.0
# Refusals by a writer, which was compiled for a table as it was at some time.
SHAPE_CODES = ("value.refused", "table.held")
CHANGED = "changed"
"""Reason of a record whose row was left out, because it was not what its source had last shown."""


class Refusal(msgspec.Struct):
    """A record that the target would not have. `first`: seq of the entry that should have reached it."""

    first: int
    parked: Parked


class Prepared(msgspec.Struct):
    """What the hub must know of a delivery before the target commits it: who did not get what."""

    refusals: list[Refusal]


_decode_prepared = msgspec.msgpack.Decoder(Prepared).decode


class NewLinks:
    """Crosswalk rows of new rows, by place: keys and rids."""

    def __init__(self) -> None:
        self.places: dict[int, tuple[list[str], list[int]]] = {}

    def add(self, place: int, key: str, rid: int) -> None:
        keys, rids = self.places.setdefault(place, ([], []))
        keys.append(key)
        rids.append(rid)

    def extend(self, place: int, keys: Sequence[str], rids: Sequence[int]) -> None:
        known = self.places.setdefault(place, ([], []))
        known[0].extend(keys)
        known[1].extend(rids)


@dataclass(slots=True)
class Outcome:
    """What a delivery did, so far."""

    links: NewLinks = field(default_factory=NewLinks)
    refusals: list[Refusal] = field(default_factory=lambda: [])
    rids: set[int] = field(default_factory=lambda: set())
    changed: set[int] = field(default_factory=lambda: set())
    rows_written: int = 0
    rows_missing: int = 0
    tables: dict[str, int] = field(default_factory=lambda: {})
    is_written: bool = False


def prepare(tx: HubTransaction, system: SystemPart, seq: int, refusals: list[Refusal]) -> None:
    """Note refusals before the target's commit: after it, a crash could not tell them from what was delivered."""
    document = msgspec.msgpack.encode(Prepared(refusals))
    tx.write("insert or replace into prepared values (?, ?, ?)", (system.id, seq, document))


def prepared(tx: HubTransaction, system: SystemPart, seq: int) -> list[Refusal]:
    """The refusals noted for delivery `seq`, none when there were none."""
    found = tx.rows("select doc from prepared where system = ? and seq = ?", (system.id, seq))
    return _decode_prepared(found[0][0]).refusals if found else []


def settle(
    tx: HubTransaction, topology: Topology, system: SystemPart, seq: int, outcome: Outcome, *, is_sure: bool = False
) -> None:
    """The target holds everything up to `seq` but the refusals: move the cursor. `is_sure`: no new row's key or record
    can be linked already."""
    refused = {refusal.parked.rid for refusal in outcome.refusals}
    _unpark(tx, system, outcome.rids - refused)
    for refusal in outcome.refusals:
        _park(tx, system, refusal)
    if is_sure:
        for place, (keys, rids) in outcome.links.places.items():
            tx.link_all(place, keys, rids, seq)
        linked = [rids for _, rids in outcome.links.places.values()]
    else:
        linked = add_links(tx, topology, system, outcome.links, seq)
    tx.write(
        "update system set cursor = max(cursor, ?1), marker = case when ?2 then ?1 else marker end,"
        " delivered_at = case when ?2 then ?3 else delivered_at end, rows_written = rows_written + ?4,"
        " rows_missing = rows_missing + ?5 where id = ?6",
        (seq, outcome.is_written, tx.clock.now(), outcome.rows_written, outcome.rows_missing, system.id),
    )
    tx.write("delete from prepared where system = ?", (system.id,))
    _retry_waiting(tx, topology, system, linked)
    for rid in sorted(outcome.changed - _braked(tx, system)):
        retry(tx, topology, system, rid)
    tx.mark_boundary()


def _unpark(tx: HubTransaction, system: SystemPart, rids: set[int]) -> None:
    waiting = {rid for (rid,) in tx.rows(
        "select rid from parked where direction = 'target' and system = ?", (system.id,)
    )}  # fmt: skip
    for rid in waiting & rids:
        if any(good is None for _, good in tx.stretches(system.id, rid)):
            # What was on its way when the record was parked has arrived, and nothing else does.
            continue
        tx.write("delete from parked where direction = 'target' and system = ? and rid = ?", (system.id, rid))


def _park(tx: HubTransaction, system: SystemPart, refusal: Refusal) -> None:
    parked = refusal.parked
    assert parked.rid is not None
    tx.open_stretch(system.id, parked.rid, refusal.first)
    tx.park(parked)
    found = tx.rows(
        "select attempts from parked where direction = 'target' and system = ? and rid = ?", (system.id, parked.rid)
    )
    pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(found[0][0] - 1, 20))
    # Not all at once: records refused together are tried again over half the pause.
    pause *= 1 + parked.rid % 64 / 128
    tx.write(
        "update parked set try_after = ? where direction = 'target' and system = ? and rid = ?",
        (tx.clock.now() + int(pause * 1_000_000), system.id, parked.rid),
    )


def add_links(tx: HubTransaction, topology: Topology, system: SystemPart, links: NewLinks, seq: int) -> list[list[int]]:
    """Crosswalk rows of new rows; returns the records linked.

    Users write at the same time. A row that meanwhile came with the same key belongs to the record its capture made:
    that record is written again over ours, and ours stays without a row. A record that meanwhile got a row of a user's
    has two now: ours goes, as a deletion that concerns this target alone. Some databases hand a deleted row's key out
    again (SQLite's rowid): the key of a record that is deleted, and that the database has just given, is ours.
    """
    linked: list[list[int]] = []
    doubles = Doubles(tx, topology)
    for place, (new_keys, new_rids) in links.places.items():
        known = dict(tx.load_rids(place, new_keys))
        keys = tx.keys_of(place, new_rids)
        if not keys and known.keys().isdisjoint(new_keys):
            tx.link_all(place, new_keys, new_rids, seq)
            linked.append(new_rids)
            continue
        found: list[int] = []
        is_given = topology.places[place].place.key_rule is KeyRule.ASSIGNED
        for key, rid in zip(new_keys, new_rids, strict=True):
            owner = known.get(key)
            if owner == rid:
                found.append(rid)
            elif owner is not None and rid not in keys and is_given and _is_deleted(tx, owner):
                tx.relink(place, key, rid, seq)
                found.append(rid)
            elif owner is not None:
                _give_back(tx, topology, system, owner)
            elif rid in keys:
                doubles.add(topology.places[place], key, rid)
            else:
                tx.link(place, key, rid, seq)
                found.append(rid)
        linked.append(found)
    doubles.remove()
    return linked


def _is_deleted(tx: HubTransaction, rid: int) -> bool:
    entry = tx.current(rid)
    return entry is not None and entry.value(ALIVE) is False


def _give_back(tx: HubTransaction, topology: Topology, system: SystemPart, owner: int) -> None:
    entry = tx.current(owner)
    if entry is not None:
        append_again(tx, entry, topology.entities[entry.entity].full, system.bit)


def retry(tx: HubTransaction, topology: Topology, system: SystemPart, rid: int) -> bool:
    """Journal a parked record again for this target alone, so that it is delivered in order like everything else. Not
    one whose row takes no part now: it gets everything when it does again."""
    stretches = tx.stretches(system.id, rid)
    if not stretches or stretches[-1].good is not None:
        return False
    entry = tx.current(rid)
    assert entry is not None
    if has_left(tx, system, entry):
        return False
    again = append_again(tx, entry, topology.entities[entry.entity].full, system.bit)
    tx.set_stretch(system.id, rid, Stretch(stretches[-1].refused, again.seq))
    return True


def retry_reread(tx: HubTransaction, topology: Topology, system: SystemPart, rids: Collection[int]) -> None:
    """The source has read the rows of these records again: what was left out because they had changed is due."""
    waiting = tx.rows(
        "select rid from parked where direction = 'target' and system = ? and reason = ?", (system.id, CHANGED)
    )
    for (rid,) in waiting:
        if rid in rids:
            retry(tx, topology, system, rid)


def _braked(tx: HubTransaction, system: SystemPart) -> set[int]:
    """Records that wait for a person, whatever comes of them meanwhile."""
    rows = tx.rows("select rid from parked where direction = 'target' and system = ? and reason = 'loop'", (system.id,))
    return {rid for (rid,) in rows}


def has_left(tx: HubTransaction, system: SystemPart, entry: Entry) -> bool:
    """Whether the record's row at this system takes no part now."""
    return any(entry.rid in tx.left_of(part.id) for part in system.places_of(entry.entity))


def make_due(tx: HubTransaction, system: SystemPart, *, only_of_shape: bool = False) -> None:
    """What is parked at this target is tried again at its next quiet moment, but what waits for a person.
    `only_of_shape`: what the writers refused for the shape of a table, or the target for the lack of one."""
    which = f" and (code in {SHAPE_CODES} or reason = 'table')" if only_of_shape else " and reason <> 'loop'"
    tx.write(f"update parked set try_after = 0 where direction = 'target' and system = ?{which}", (system.id,))


def retry_due(tx: HubTransaction, topology: Topology, system: SystemPart) -> int:
    """Try again what has waited long enough; returns how many."""
    rows = tx.rows(
        "select rid from parked where direction = 'target' and system = ? and try_after <= ? limit 1000",
        (system.id, tx.clock.now()),
    )
    count = sum(retry(tx, topology, system, rid) for (rid,) in rows)
    if count:
        tx.mark_boundary()
    return count


def _retry_waiting(tx: HubTransaction, topology: Topology, system: SystemPart, linked: list[list[int]]) -> None:
    """Records that waited for one which has a row now."""
    waiting = tx.rows(
        "select rid, waits_for from parked where direction = 'target' and system = ? and waits_for is not null",
        (system.id,),
    )
    if not waiting:
        return
    found = set(chain.from_iterable(linked))
    for rid, waits_for in waiting:
        if waits_for in found:
            retry(tx, topology, system, rid)


def recover_links(topology: Topology, gathered: Gathered, refused: set[int], links: NewLinks) -> None:
    """Add the links that a committed delivery made whose settling was lost: keys are made the same way again.

    A record that a user's row was linked to since may have got a row from that delivery as well. Where its key can be
    nobody else's, the link is given back all the same, and `add_links` has the row deleted if it is there.
    """
    for items in gathered.items.values():
        for item in items:
            if item.rid in refused:
                continue
            if item.is_new and item.key is not None:
                links.add(item.part.id, item.key, item.rid)
            elif item.part.place.key_rule is KeyRule.UUID and item.mask & 1 << ALIVE:
                allocate = item.part.place.allocate(item.part.entity)
                (key,) = allocate(topology.hub_id, [item.rid], [document(item.part, item.entry)])
                links.add(item.part.id, key, item.rid)
