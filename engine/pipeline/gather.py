"""Stage 6, first half: what a stretch of the journal means for one target. Reads the hub, writes nothing.

State-based: entries of one record become one write of its newest state in the stretch, of the fields that changed for
this target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from engine.errors import ValueRefused
from engine.hub.transaction import HubTransaction
from engine.model.births import Births
from engine.model.entity import ALIVE
from engine.model.record import CHANGE, Entry
from engine.model.value import CanonicalRow
from engine.pipeline.slow import JOINED
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.pipeline.values import has_any
from engine.ports import KeyRule

# What one read of the journal brings into memory. A delivery of more (one huge source transaction) goes chunk by chunk
# through the same target transaction.
CHUNK_ENTRIES = 10_000


@dataclass(slots=True)
class Item:
    """One record to write. `first`: seq of the first entry that concerned the target. `entry`: its newest in the chunk.

    `problem`: why its key could not be made.
    """

    rid: int
    first: int
    mask: int
    entry: Entry
    part: PlacePart
    key: str | None = None
    is_new: bool = False
    problem: ValueRefused | None = None


@dataclass(slots=True)
class Bulk:
    """Records to which the same happened: all new in one place, or all with the same fields changed. The usual case,
    and without an `Item` for each."""

    part: PlacePart
    mask: int
    is_new: bool
    entries: Sequence[Entry]
    rids: Sequence[int]
    records: Sequence[CanonicalRow]
    keys: list[str]

    def items(self) -> list[Item]:
        """The same one by one, for when something is to be said of one of them."""
        return [
            Item(entry.rid, entry.seq, entry.mask, entry, self.part, key, self.is_new)
            for entry, key in zip(self.entries, self.keys, strict=True)
        ]


@dataclass(slots=True)
class Gathered:
    """Items of a chunk by place, or one bulk and nothing else. `keys`: rid → key at this target, by place, for the
    records that items refer to."""

    items: dict[int, list[Item]]
    keys: dict[int, dict[int, str]]
    aliases: dict[int, int]
    rids: set[int]
    """Records that were due, written or not."""
    changed: set[int]
    """Records that wait after a refusal and have changed since: worth another try at once."""
    bulk: Bulk | None = None

    @property
    def is_empty(self) -> bool:
        return not self.items and self.bulk is None


class Fresh:
    """Keys handed out in deliveries that the hub has not written down yet. A bulk brings many, and nobody asks for
    most of them one by one."""

    def __init__(self, links: Mapping[int, tuple[Sequence[str], Sequence[int]]] | None = None) -> None:
        """`links`: place → keys and rids."""
        self._runs: dict[int, list[tuple[Sequence[str], Sequence[int]]]] = {}
        self._keys: dict[int, dict[int, str]] = {}
        for place, (keys, rids) in (links or {}).items():
            self.add(place, keys, rids)

    def add(self, place: int, keys: Sequence[str], rids: Sequence[int]) -> None:
        self._runs.setdefault(place, []).append((keys, rids))

    def keys(self, place: int) -> Mapping[int, str]:
        """Rid → key."""
        known = self._keys.setdefault(place, {})
        for keys, rids in self._runs.pop(place, ()):
            known.update(zip(rids, keys, strict=True))
        return known

    def has_any(self, place: int, keys: set[str]) -> bool:
        """Whether one of these keys was handed out."""
        return any(not keys.isdisjoint(some) for some, _ in self._runs.get(place, ())) or (
            place in self._keys and not keys.isdisjoint(self._keys[place].values())
        )


def gather(
    tx: HubTransaction,
    topology: Topology,
    system: SystemPart,
    after: int,
    until: int,
    fresh: Fresh,
    *,
    is_recovery: bool = False,
) -> Gathered:
    """What entries behind `after` up to `until` mean for `system`, as of `until`. `is_recovery`: what they meant for a
    delivery that is done, whichever rows the system's users have been found to have since."""
    births = None if is_recovery else tx.read_births(after, until)
    bulk = None if births is None else _born(tx, topology, system, births, fresh)
    entries: list[Entry] = []
    if bulk is None:
        entries = tx.read_journal(after, until)
        bulk = None if is_recovery else _bulk(tx, topology, system, entries, fresh)
    if bulk is not None:
        # None of them is parked: those are stretched.
        return Gathered(items={}, keys={}, aliases={}, rids=set(), changed=set(), bulk=bulk)
    changed: set[int] = set()
    due = _due(tx, system, entries, changed, is_recovery=is_recovery)
    items: dict[int, list[Item]] = {}
    by_entity: dict[int, list[tuple[int, int, Entry]]] = {}
    rids = set(due)
    for first, mask, entry in due.values():
        by_entity.setdefault(entry.entity, []).append((first, mask, entry))
    for entity, found in by_entity.items():
        for part, placed in _placed(tx, system, entity, found, fresh, after):
            if placed:
                items.setdefault(part.id, []).extend(placed)
    keys, aliases = _referred(tx, topology, items, fresh)
    _name_newcomers(tx, topology, items, fresh)
    return Gathered(items=items, keys=keys, aliases=aliases, rids=rids, changed=changed)


def _born(tx: HubTransaction, topology: Topology, system: SystemPart, births: Births, fresh: Fresh) -> Bulk | None:
    """The same of births, without an entry for each."""
    parts, rids = system.places_of(births.entity), births.rids
    if (
        len(parts) != 1
        or not births.concerned & system.bit
        or has_any(tx.stretched(system.id), rids)
        or len(births.records[0]) != len(parts[0].entity.fields)
    ):
        return None
    return _newcomers(tx, topology, system, parts[0], births, rids, births.records, fresh)


def _bulk(
    tx: HubTransaction, topology: Topology, system: SystemPart, entries: list[Entry], fresh: Fresh
) -> Bulk | None:
    """The entries as one bulk; None when anything else is among them. Every check is one step for all."""
    if not entries:
        return None
    entity, bit = entries[0].entity, system.bit
    parts = system.places_of(entity)
    rids = [entry.rid for entry in entries]
    if (
        len(parts) != 1
        or {entry.entity for entry in entries} != {entity}
        or not all(concerned & bit for concerned in {entry.concerned for entry in entries})
        or has_any(tx.stretched(system.id), rids)
    ):
        return None
    masks = {entry.mask for entry in entries}
    if rids == list(range(entries[0].seq, entries[0].seq + len(entries))):
        return _newcomers(tx, topology, system, parts[0], entries, rids, documents(parts[0], entries), fresh)
    if len(masks) == 1 and len(set(rids)) == len(rids):
        return _changes(tx, parts[0], entries, rids, masks.pop(), fresh)
    return None


def _newcomers(
    tx: HubTransaction,
    topology: Topology,
    system: SystemPart,
    part: PlacePart,
    entries: Sequence[Entry],
    rids: Sequence[int],
    records: Sequence[CanonicalRow],
    fresh: Fresh,
) -> Bulk | None:
    """Records born one after another, which refer to nothing."""
    if part.place.key_rule in (KeyRule.NONE, KeyRule.ASSIGNED) or part.entity.references:
        return None
    accepts = part.place.accepts(part.entity)
    if not all(map(itemgetter(ALIVE), records)) or (accepts is not None and not all(map(accepts, records))):
        return None
    if system.is_source and tx.keys_of(part.id, rids):
        return None
    allocate = part.place.allocate(part.entity)
    try:
        keys = allocate(topology.hub_id, rids, records)
    except ValueRefused:
        return None
    own = set(keys)
    if len(own) < len(keys) or fresh.has_any(part.id, own) or has_any(tx.load_rids(part.id, keys), keys):
        return None
    return Bulk(part, 0, True, entries, rids, records, keys)


def _changes(
    tx: HubTransaction, part: PlacePart, entries: list[Entry], rids: list[int], mask: int, fresh: Fresh
) -> Bulk | None:
    """The same fields of records that have a row; not whether they exist, nor what they refer to."""
    if mask & 1 << ALIVE or any(mask >> n & 1 for n, _ in part.entity.references):
        return None
    known = _keys(tx, part.id, rids, fresh)
    records = documents(part, entries)
    # A row whose record is dead is not written.
    if len(known) < len(rids) or has_any(tx.left_of(part.id), rids) or not all(map(itemgetter(ALIVE), records)):
        return None
    return Bulk(part, mask, False, entries, rids, records, [known[rid] for rid in rids])


def _due(
    tx: HubTransaction, system: SystemPart, entries: Iterable[Entry], changed: set[int], *, is_recovery: bool
) -> dict[int, tuple[int, int, Entry]]:
    """Rid → (first entry that concerns the system, fields, newest entry)."""
    bit, stretched = system.bit, tx.stretched(system.id)
    due: dict[int, tuple[int, int, Entry]] = {}
    for entry in entries:
        rid = entry.rid
        known = due.get(rid)
        if rid in stretched and not _reaches(tx, system.id, entry, is_recovery=is_recovery):
            # Nor does a later state reach it by way of an entry that does: it is taken for holding the earlier one.
            if known is None and entry.concerned & bit and entry.kind == CHANGE:
                changed.add(rid)
        elif entry.concerned & bit:
            if known is None:
                due[rid] = (entry.seq, entry.mask, entry)
            else:
                due[rid] = (known[0], known[1] | entry.mask, entry)
        elif known is not None:
            due[rid] = (known[0], known[1], entry)
    return due


def _reaches(tx: HubTransaction, system: int, entry: Entry, *, is_recovery: bool) -> bool:
    """Whether a delivery of this entry may go to a record that was refused, or whose row took no part: what ends that
    brings what came before."""
    stretches = tx.stretches(system, entry.rid)
    if is_recovery:
        stretches = [stretch for stretch in stretches if stretch.refused != JOINED]
    return not any(refused <= entry.seq and (good is None or entry.seq < good) for refused, good in stretches)


def _placed(
    tx: HubTransaction,
    system: SystemPart,
    entity: int,
    found: list[tuple[int, int, Entry]],
    fresh: Fresh,
    after: int,
) -> Iterable[tuple[PlacePart, list[Item]]]:
    """Items by the place each record has or would get at the system; none for those that do not go there."""
    parts = system.places_of(entity)
    unplaced = {entry.rid: (first, mask, entry) for first, mask, entry in found}
    for part in parts:
        # Where nobody but us makes rows, a record born in this chunk has none.
        asked = list(unplaced) if system.is_source else [rid for rid in unplaced if rid <= after]
        keys = _keys(tx, part.id, asked, fresh)
        placed: list[Item] = []
        for rid, key in keys.items():
            first, mask, entry = unplaced.pop(rid)
            placed.append(Item(rid, first, mask, entry, part, key))
        yield part, placed
    for part in parts:
        if part.place.key_rule is KeyRule.NONE:
            continue
        accepts = part.place.accepts(part.entity)
        placed = [
            Item(rid, first, mask, entry, part, None, True)
            for rid, (first, mask, entry) in unplaced.items()
            if entry.value(ALIVE) and (accepts is None or accepts(document(part, entry)))
        ]
        for item in placed:
            del unplaced[item.rid]
        yield part, placed


def documents(part: PlacePart, entries: list[Entry]) -> list[CanonicalRow]:
    """`document` of many."""
    values: list[CanonicalRow] = [entry.values for entry in entries]
    if set(map(len, values)) == {len(part.entity.fields)}:
        return values
    return [document(part, entry) for entry in entries]


def document(part: PlacePart, entry: Entry) -> CanonicalRow:
    """The record in the entity's full width: fields younger than the version are null."""
    width = len(part.entity.fields)
    if len(entry.values) == width:
        return entry.values
    return (*entry.values, *(None for _ in range(width - len(entry.values))))


def _referred(
    tx: HubTransaction, topology: Topology, items: dict[int, list[Item]], fresh: Fresh
) -> tuple[dict[int, dict[int, str]], dict[int, int]]:
    """Keys of the records that items refer to, for every place of the system that holds such records."""
    wanted: dict[int, set[int]] = {}
    aliases: dict[int, int] = {}
    for place, found in items.items():
        part = topology.places[place]
        for n, name in part.entity.references:
            parts = [p for p in topology.systems[part.system].places if p.entity.name == name]
            rids = {item.entry.value(n) for item in found} - {None}
            for rid in rids:
                assert isinstance(rid, int)
                means = tx.alias(rid)
                if means != rid:
                    aliases[rid] = means
                for other in parts:
                    wanted.setdefault(other.id, set()).add(means)
    return {place: _keys(tx, place, list(rids), fresh) for place, rids in wanted.items()}, aliases


def _keys(tx: HubTransaction, place: int, rids: list[int], fresh: Fresh) -> dict[int, str]:
    keys = tx.keys_of(place, rids)
    handed_out = fresh.keys(place)
    if handed_out:
        keys.update((rid, handed_out[rid]) for rid in rids if rid in handed_out)
    return keys


def _name_newcomers(tx: HubTransaction, topology: Topology, items: dict[int, list[Item]], fresh: Fresh) -> None:
    """Give new records their keys, where the mapping makes them. A key that another record has is a problem."""
    for place, found in items.items():
        part = topology.places[place]
        new = [item for item in found if item.is_new]
        if not new or part.place.key_rule is KeyRule.ASSIGNED:
            continue
        allocate = part.place.allocate(part.entity)
        for item in new:
            try:
                (item.key,) = allocate(topology.hub_id, [item.rid], [document(part, item.entry)])
            except ValueRefused as problem:
                item.problem = problem
        known = tx.load_rids(place, [item.key for item in new if item.key is not None])
        # A key handed out before counts, whether the hub has written it down yet or not.
        given = set(fresh.keys(place).values())
        for item in new:
            key = item.key
            if key is None:
                continue
            if known.get(key, item.rid) != item.rid or key in given:
                item.problem = _key_taken(part)
            given.add(key)


def _key_taken(part: PlacePart) -> ValueRefused:
    key = ", ".join(part.place.key)
    return ValueRefused(
        f"table {part.place.table}: the key ({key}) made for this record belongs to another record",
        hint="Compare the two with `concord explain`; change that value in one, or the rule in `allocate`.",
        table=part.place.table,
        field=key,
    )
