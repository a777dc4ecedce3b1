"""Retention: versions that no system can still refer to, and that nobody wants to look up any more, go.

A record's newest entry at or before what every system has seen is the oldest that a change can be measured against; it
stays, and with it all its stamps. What stands before it is history, kept for `[hub] retention_days`. What a system
holds that was never written to, may stand in any of its own entries; those values are kept as overlays when they go.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.hub.database import integers
from engine.hub.exceptions import Overlay
from engine.hub.registry import AWAY, READ_ONLY
from engine.hub.transaction import HubTransaction
from engine.model.record import CHANGE, Entry, bits

NEVER = 1 << 62
"""A seq that no delivery has."""
# Entries looked at in one transaction: a fraction of a second, so that no lane waits long for its turn.
PORTION_ENTRIES = 5_000


@dataclass(frozen=True, slots=True)
class Swept:
    """How far a sweep came; `is_done` is False when there is more to do now."""

    until: int
    removed: int
    is_done: bool


def floor(tx: HubTransaction) -> int:
    """The newest seq before which no version is needed as it was, but by systems that are not written to.

    A system that reads and is written to needs what it has not seen or not got; one whose log was never read, what it
    has not got; a row of a source that waits to be read again, what its system had seen when it was captured.
    """
    found = [last for (last,) in tx.rows("select min(seen) from parked where direction = 'source'") if last is not None]
    rows = tx.rows("select id, seen, seen_before, cursor, marker, position from system where is_admitted >= 0")
    for system, seen, before, cursor, marker, position in rows:
        if position is None and not _copies(tx, system, "s.place is not null"):
            found.append(cursor)
        elif seen < cursor and marker <= seen and not _copies(tx, system, "not coalesce(s.is_done, 0)"):
            # Everything written there stands in what was read of its log; what came since was not for it.
            tx.set_seen(system, cursor)
            found.append(cursor)
        else:
            # The log of the last delivery may be read to a part only.
            found.append(min(before if seen == marker else seen, cursor))
    # What was written to it once is to be measured against that, should it speak again; and its last delivery may have
    # to be worked out again.
    found.extend(min(row) for row in tx.rows("select seen, cursor from system where is_admitted = ?", (AWAY,)))
    return min(found, default=0)


def _copies(tx: HubTransaction, system: int, which: str) -> bool:
    """Whether there is such a copy of a table of the system."""
    sql = f"select 1 from place p left join snapshot s on s.place = p.id where p.system = ? and {which} limit 1"
    return bool(tx.rows(sql, (system,)))


def sweep(tx: HubTransaction, after: int, older_than: int) -> Swept:
    """Remove what the entries behind `after` made history, one portion. `older_than`: microseconds since 1970 UTC."""
    limit = floor(tx)
    until = min(limit, after + PORTION_ENTRIES)
    doomed: list[int] = []
    away: list[int] = [n for (n,) in tx.rows("select id from system where is_admitted = ?", (READ_ONLY,))]
    # What a system held of them when deliveries stopped to reach it is asked for when they do again, however late. What
    # is left standing for that goes when sweeps begin anew, with the next daemon.
    kept: dict[int, int] = dict(tx.rows("select rid, min(refused) from stretch group by rid"))
    for entry in tx.read_journal(after, until):
        if entry.kind == CHANGE and entry.time > older_than:
            until = entry.seq - 1
            limit = until
            break
        if entry.prev and entry.seq < kept.get(entry.rid, NEVER):
            doomed.append(entry.prev)
            _keep_held(tx, away, entry)
    if doomed:
        tx.write("delete from journal where seq in (select value from carray(?))", (integers(doomed),))
    (cursor,) = tx.rows("select min(cursor) from system where is_admitted >= 0")[0]
    tx.write("delete from boundary where seq < ?", (min(until, cursor or 0),))
    return Swept(until, len(doomed), until >= limit)


def _keep_held(tx: HubTransaction, away: list[int], entry: Entry) -> None:
    """What systems that were never written to hold of the fields which `entry` changed, before the version that says so
    is removed: from then on it is an exception like others."""
    if entry.kind != CHANGE:
        return
    version: Entry | None = None
    for system in away:
        if entry.origin == system:
            continue
        version = version or tx.version(entry.prev)
        if version is None:
            return
        overlays = tx.overlays(system, entry.rid)
        for n in bits(entry.mask & ~_set_since(tx, system, entry)):
            stamp = version.stamp(n)
            if stamp is not None and stamp.origin == system and n not in overlays:
                tx.set_overlay(system, entry.rid, n, Overlay(version.value(n), stamp, NEVER))


def _set_since(tx: HubTransaction, system: int, entry: Entry) -> int:
    """Mask of the fields that the system has set behind `entry`: for these there is a version that says what it
    holds."""
    mask, newer = 0, tx.current(entry.rid)
    while newer is not None and newer.seq > entry.seq:
        if newer.kind == CHANGE and newer.origin == system:
            mask |= newer.mask
        newer = tx.version(newer.prev)
    return mask
