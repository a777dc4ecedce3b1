"""Rows that nobody meant to be there beside the one that their record has: a user entered a customer whom our delivery
was bringing.

Such a row is a record of its own, born dead, which means the other wherever its key still turns up. What refers to it
is made to refer to the other first; then it is deleted.
"""

from __future__ import annotations

from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import CHANGE, Entry, Value
from engine.pipeline.again import append_again
from engine.pipeline.topology import PlacePart, Topology


class Doubles:
    """Doubles found in one hub transaction. Nothing is deleted before `remove`."""

    def __init__(self, tx: HubTransaction, topology: Topology) -> None:
        self._tx = tx
        self._topology = topology
        self._found: list[tuple[PlacePart, int, int]] = []
        """Where the row is, its own record, and the one that it means."""

    def add(self, part: PlacePart, key: str, rid: int) -> None:
        """The row with this key is one too many: record `rid` has another in this place."""
        tx = self._tx
        seq = tx.last_seq + 1
        values = (False, *(None for _ in part.entity.fields[1:]))
        tx.append(Entry(seq, seq, part.entity.id, 0, tx.clock.now(), 1 << ALIVE, 0, 0, CHANGE, 0, values))
        tx.link(part.id, key, seq)
        tx.set_alias(seq, rid)
        self._found.append((part, seq, rid))

    def remove(self) -> None:
        """Journal what refers to them again, for their system alone, and then their deletions."""
        found, self._found = self._found, []
        by_entity: dict[tuple[int, str], set[int]] = {}
        for part, _, rid in found:
            by_entity.setdefault((part.system, part.entity.name), set()).add(rid)
        for (system, entity), rids in by_entity.items():
            self._repoint(system, entity, rids)
        for part, seq, _ in found:
            entry = self._tx.current(seq)
            assert entry is not None
            append_again(self._tx, entry, 1 << ALIVE, self._topology.systems[part.system].bit)

    def _repoint(self, system: int, entity: str, rids: set[int]) -> None:
        """Journal again the references to records whose keys at this system are others now.

        Nothing says who refers to whom, so the journal is looked through: once for all of them, and from the oldest of
        them on, because an entry refers to what was there before it.
        """
        tx, part = self._tx, self._topology.systems[system]
        fields = {
            place.entity.id: [n for n, name in place.entity.references if name == entity] for place in part.places
        }
        if not any(fields.values()):
            return
        meaning = tx.meaning(rids)
        referring = {
            entry.rid
            for entry in tx.entries_behind(min(meaning))
            if any(_is_one_of(meaning, entry.value(n)) for n in fields.get(entry.entity, ()))
        }
        for _, entry in sorted(tx.load_records(referring).items()):
            mask = sum(1 << n for n in fields[entry.entity] if _is_one_of(meaning, entry.value(n)))
            if entry.rid in referring and mask:
                append_again(tx, entry, mask, part.bit)


def _is_one_of(meaning: set[int], value: Value) -> bool:
    return value in meaning and not isinstance(value, bool)
