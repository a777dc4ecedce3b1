"""Retention: versions that no system can still refer to, and that nobody wants to look up any more, go.

A record's newest entry at or before what every system has seen is the oldest that a change can be measured against; it
stays, and with it all its stamps. What stands before it is history, kept for `[hub] retention_days`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.hub.database import integers
from engine.hub.transaction import HubTransaction
from engine.model.record import CHANGE

# Entries looked at in one transaction: a fraction of a second, so that no lane waits long for its turn.
PORTION_ENTRIES = 5_000


@dataclass(frozen=True, slots=True)
class Swept:
    """How far a sweep came; `is_done` is False when there is more to do now."""

    until: int
    removed: int
    is_done: bool


def floor(tx: HubTransaction) -> int:
    """The newest seq at or before what every system has seen and received.

    A system that only sends never sees a delivery; what it held last may stand in any of its own entries, so where one
    takes part nothing is removed.
    """
    rows = tx.rows("select min(min(seen, cursor)), min(cursor) from system where is_admitted = 1")
    both, _ = rows[0]
    return both or 0


def sweep(tx: HubTransaction, after: int, older_than: int) -> Swept:
    """Remove what the entries behind `after` made history, one portion. `older_than`: microseconds since 1970 UTC."""
    limit = floor(tx)
    until = min(limit, after + PORTION_ENTRIES)
    doomed: list[int] = []
    for entry in tx.read_journal(after, until):
        if entry.kind == CHANGE and entry.time > older_than:
            until = entry.seq - 1
            limit = until
            break
        if entry.prev:
            doomed.append(entry.prev)
    if doomed:
        tx.write("delete from journal where seq in (select value from carray(?))", (integers(doomed),))
    (cursor,) = tx.rows("select min(cursor) from system")[0]
    tx.write("delete from boundary where seq < ?", (min(until, cursor or 0),))
    return Swept(until, len(doomed), until >= limit)
