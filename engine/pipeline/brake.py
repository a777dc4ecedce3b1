"""The brake on loops of others: programs in two systems that keep undoing what the other writes, each write of which is
a change like any other. Such a record parks at both until a person has found out who it is.

Our own writes make no loops: the marker tells them from changes, and what equals the record is none.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.hub.aside import Parked
from engine.hub.transaction import HubTransaction
from engine.model.entity import Policy
from engine.model.record import AGAIN, CHANGE, Entry
from engine.pipeline.resolve import NEVER
from engine.pipeline.topology import Topology

LOOK_SECONDS = 10.0
# Twenty times in five minutes to and fro is no person's doing.
LOOPS_MAX = 20
WINDOW_LOOKS = 30
# Where more was journalled since the last look, its newest part is looked at: a loop is there the next time too.
LOOK_ENTRIES = 20_000
LOOK_RECORDS = 500


@dataclass(frozen=True, slots=True)
class Loop:
    """A field of a record that goes to and fro, and the systems which are to be left alone."""

    rid: int
    index: int
    systems: tuple[int, ...]


class Brake:
    """Looks at the journal's end from time to time. One daemon has one."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._looks: deque[int] = deque(maxlen=WINDOW_LOOKS)
        """The journal's end at each of the last looks."""

    def look(self, tx: HubTransaction) -> list[Loop]:
        """Loops among the records that changed since the last look. Only reads."""
        last = tx.last_seq
        after, floor = (self._looks[-1], self._looks[0]) if self._looks else (last, last)
        self._looks.append(last)
        if last - floor < LOOPS_MAX:
            return []
        entries = tx.read_journal(max(after, last - LOOK_ENTRIES), last)
        often = Counter(entry.rid for entry in entries if entry.rid != entry.seq)
        loops = [self._loop(_chain(tx, rid, floor)) for rid, _ in often.most_common(LOOK_RECORDS)]
        return [loop for loop in loops if loop is not None]

    def park(self, tx: HubTransaction, loops: Sequence[Loop]) -> list[tuple[str, str, str]]:
        """Let nothing more reach these records at these systems. Returns (system, table, message) of each."""
        return [told for loop in loops for system in loop.systems for told in self._park(tx, loop, system)]

    def _loop(self, chain: Sequence[Entry]) -> Loop | None:
        if len(chain) < LOOPS_MAX:
            return None
        entity = self.topology.entities[chain[0].entity].entity
        for index, field in enumerate(entity.fields):
            bit = 1 << index
            if field.policy is Policy.SUM or not chain[0].mask & bit:
                continue
            changes = [entry for entry in chain if entry.kind == CHANGE and entry.mask & bit]
            if _flips(changes, index) >= LOOPS_MAX:
                return self._made(chain[0].rid, index, {entry.origin for entry in changes[:2]})
            written = Counter(entry.concerned for entry in chain if entry.kind == AGAIN and entry.mask & bit)
            for system in self.topology.systems.values():
                if written[system.bit] >= LOOPS_MAX:
                    return self._made(chain[0].rid, index, {system.id})
        return None

    def _made(self, rid: int, index: int, systems: set[int]) -> Loop | None:
        targets = tuple(sorted(n for n in systems if n in self.topology.systems and self.topology.systems[n].is_target))
        return Loop(rid, index, targets) if targets else None

    def _park(self, tx: HubTransaction, loop: Loop, number: int) -> list[tuple[str, str, str]]:
        entry, system = tx.current(loop.rid), self.topology.systems[number]
        if entry is None:
            return []
        if any(good is None for _, good in tx.stretches(number, loop.rid)):
            # Nothing reaches it anyway.
            return []
        for part in system.places_of(entry.entity):
            linked = tx.linked_by(part.id, loop.rid)
            if linked is None:
                continue
            field = part.entity.fields[loop.index].name
            names = " and ".join(self.topology.systems[n].name for n in loop.systems)
            message = (
                f"system {system.name}, table {part.place.table}: {field} of record {loop.rid} goes to and fro, "
                + (f"written by {names} in turn" if len(loop.systems) > 1 else f"because {names} undoes every write")
            )
            hint = f"Find the program that writes it, with `concord explain {loop.rid} --field {field}`; then retry."
            tx.open_stretch(number, loop.rid, tx.last_seq + 1)
            tx.park(
                Parked(
                    system=number, direction="target", place=part.id, rid=loop.rid, key=linked[0], seq=entry.seq,
                    seen=0, code="loop.braked", reason="loop", message=message, hint=hint, field=field, try_after=NEVER,
                )
            )  # fmt: skip
            return [(system.name, part.place.table, message)]
        return []


def _chain(tx: HubTransaction, rid: int, floor: int) -> list[Entry]:
    """The record's entries behind `floor`, newest first, as many as tell."""
    found: list[Entry] = []
    entry = tx.current(rid)
    while entry is not None and entry.seq > floor and len(found) < 4 * LOOPS_MAX:
        found.append(entry)
        entry = tx.version(entry.prev)
    return found


def _flips(changes: Sequence[Entry], index: int) -> int:
    """How often, counted from the newest, a change by another system took back the one before it."""
    count = 0
    for (newest, between), (_, oldest) in pairwise(pairwise(changes)):
        value = newest.value(index)
        if newest.origin == between.origin or value == between.value(index) or value != oldest.value(index):
            break
        count += 1
    return count
