"""The straight line for a whole batch: rows of which nothing special is to be said, without a step of Python for each
row and stage.

Each function looks whether all rows are of its kind and takes them, or does nothing and says so: what is mixed, or
rare, goes row by row through `commit`, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from engine.hub.transaction import HubTransaction
from engine.model.births import Births
from engine.model.record import CHANGE, Entry, Value
from engine.model.value import CanonicalRow
from engine.pipeline.canonicalize import PlaceRows
from engine.pipeline.topology import EntityPart, SystemPart, unwritten
from engine.pipeline.values import compare, has_any, stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Rows of one place at a system. `known`: key → rid, entries loaded. `latest_time`: no change counts as later."""

    entity: EntityPart
    system: SystemPart
    rows: PlaceRows
    records: Sequence[CanonicalRow | None]
    known: Mapping[str, int]
    latest_time: int


def take_newcomers(tx: HubTransaction, arrived: Arrived) -> bool:
    """Take the rows when each is a record of its own that nobody knows: a first copy, a bulk load."""
    entity, rows, records = arrived.entity, arrived.rows, arrived.records
    keys, times, latest_time = rows.keys, rows.times, arrived.latest_time
    if (
        not keys
        or entity.match_keys is not None
        or has_any(arrived.known, keys)
        or has_any(tx.parked_keys(rows.part.id), keys)
        or not _are_plain(arrived)
        or len(set(keys)) < len(keys)
    ):
        return False
    if max(times) > latest_time:
        times = [min(time, latest_time) for time in times]
    entities = (entity.entity.id, arrived.system.id, entity.concerned & ~arrived.system.bit)
    first = tx.last_seq + 1
    whole = cast("Sequence[tuple[Value, ...]]", records)
    # To look for what was not sent, in every row, would cost more than to find that one of them cannot be encoded.
    try:
        tx.append_births(Births(first, *entities, times, whole))
    except TypeError:
        if rows.partial():
            return False
        tx.append_births(Births(first, *entities, times, list(map(stored, whole))))
    tx.link_all(rows.part.id, keys, range(first, first + len(keys)))
    return True


def take_changes(tx: HubTransaction, arrived: Arrived, seen: int) -> bool:
    """Take the rows when each is another record which the system had seen as it is now, so that no conflict is
    possible. `seen`: the newest delivery that the system had."""
    entity, rows, records, latest_time = arrived.entity, arrived.rows, arrived.records, arrived.latest_time
    keys, place, system, bit = rows.keys, rows.part.id, arrived.system.id, arrived.system.bit
    rids = [arrived.known.get(key, 0) for key in keys]
    if (
        not keys
        or 0 in rids
        or not _are_plain(arrived)
        or len(set(rids)) < len(rids)
        or has_any(tx.parked_keys(place), keys)
    ):
        return False
    found = [tx.entries.get(rid) or tx.current(rid) for rid in rids]
    entries = [entry for entry in found if entry is not None]
    values = [entry.values for entry in entries]
    unseen = [entry for entry in entries if entry.seq > seen]
    if (
        len(entries) < len(rids)
        or not all(e.origin == system and not e.concerned & bit and e.foreign <= seen for e in unseen)
        or set(map(len, values)) != {len(rows.part.entity.fields)}
        or any(has_any(those, rids) for those in (tx.overlaid(system), tx.stretched(system), tx.undecided))
        or has_any(tx.left_of(place), rids)
    ):
        return False
    compared = compare([record for record in records if record is not None], values)
    touched = compared.touched
    if touched & (entity.contested(system) | 1 | entity.match_mask | unwritten(rows.part, entity, system)):
        return False
    others, number = entity.concerned & ~bit, entity.entity.id
    chosen = [
        (entry, entity.widen(mask) if entity.has_groups else mask, time, record)
        for entry, mask, time, record in zip(entries, compared.masks, rows.times, compared.records, strict=True)
        if mask
    ]
    if chosen:
        first = tx.last_seq + 1
        changes = [
            Entry(
                seq, e.rid, number, system, time if time < latest_time else latest_time, mask, others, e.seq,
                CHANGE, e.foreign if e.origin == system and not e.concerned & bit else e.seq, record,
                e.stamps_without(mask),
            )
            for seq, (e, mask, time, record) in enumerate(chosen, first)
        ]  # fmt: skip
        tx.append_changes(changes)
    return True


def _are_plain(arrived: Arrived) -> bool:
    """Whether no row was deleted, left, was refused, or got another key."""
    return not arrived.rows.old_keys and None not in arrived.records
