"""Workflows, in the transaction that commits what sets them off: whatever is killed when, what follows is there with
it, once.

Looked at are records that the transaction has changed, and those whose children it has changed. What a first copy shows
has not just happened, and sets nothing off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.errors import ConcordError, ValueRefused
from engine.hub.derived import Children, DerivedRecords
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import CHANGE, PLACEHOLDER, Entry, Value
from engine.pipeline.topology import EntityPart, Topology
from engine.workflow import Derived, Made, MadeBy, Make, Seen, Workflow

ROUNDS_MAX = 10
"""How far what follows may set off what follows from it."""


@dataclass(slots=True)
class _Touched:
    """A record to look at. `before`: its document before this transaction; None: there was none. `is_changed`: it has
    changed itself, not only a child of it."""

    before: tuple[Value, ...] | None = None
    is_changed: bool = False


class Deriver:
    """Carries out the workflows of a configuration. Holds nothing between transactions."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.by_entity: dict[int, list[Workflow]] = {}
        self.children: dict[int, set[tuple[int, int]]] = {}
        """Child entity → (index of its reference field, entity that it refers to)."""
        for workflow in topology.workflows:
            self.by_entity.setdefault(workflow.on, []).append(workflow)
            for make in workflow.makes:
                if make.children is not None:
                    child, index = make.children
                    self.children.setdefault(child, set()).add((index, workflow.on))

    def learn(self, tx: HubTransaction) -> None:
        """Know whose children the records are that the hub has already."""
        Children(tx).keep({(entity, index) for entity, fields in self.children.items() for index, _ in fields})

    def take_in(self, tx: HubTransaction, first: int) -> None:
        """Know whose children the entries behind `first` are; nothing follows from them."""
        if self.children:
            self._touched(tx, tx.entries_behind(first))

    def derive(self, tx: HubTransaction, first: int, *, only_known: bool = False) -> int:
        """What follows from the entries behind `first`; how many records were made or changed. `only_known`: nothing
        begins with a record that was not known before."""
        count = 0
        for _ in range(ROUNDS_MAX):
            last = tx.last_seq
            touched = self._touched(tx, list(tx.entries_behind(first)))
            for rid in sorted(touched):
                if touched[rid].before is None and only_known:
                    touched[rid].is_changed = False
                count += self._look(tx, rid, touched[rid])
            if tx.last_seq == last:
                return count
            first = last
        raise ConcordError(
            f"workflows set each other off more than {ROUNDS_MAX} times",
            hint="Look at their conditions: what one makes must not fulfil another's that makes it again.",
        )

    def _touched(self, tx: HubTransaction, entries: Iterable[Entry]) -> dict[int, _Touched]:
        known = Children(tx)
        found: dict[int, _Touched] = {}
        for entry in entries:
            if entry.kind != CHANGE:
                continue
            for index, on in self.children.get(entry.entity, ()):
                if on not in self.by_entity:
                    continue
                before = tx.version(entry.prev) if entry.prev else None
                for parent in known.move(tx, entry, None if before is None else before.value(index), index):
                    found.setdefault(parent, _Touched())
            if entry.entity in self.by_entity:
                touched = found.setdefault(tx.alias(entry.rid), _Touched())
                if not touched.is_changed:
                    before = tx.version(entry.prev) if entry.prev else None
                    is_known = before is not None and before.kind != PLACEHOLDER
                    touched.is_changed, touched.before = True, before.values if before and is_known else None
        return found

    def _look(self, tx: HubTransaction, rid: int, touched: _Touched) -> int:
        entry = tx.current(rid)
        if entry is None or entry.value(ALIVE) is False or rid in tx.undecided:
            return 0
        count = 0
        entity = self.topology.entities[entry.entity]
        now = _whole(entry.values, entity)
        for workflow in self.by_entity.get(entry.entity, ()):
            if not workflow.holds(now):
                continue
            before = touched.before
            has_come = touched.is_changed and (before is None or not workflow.holds(_whole(before, entity)))
            count += self._carry_out(tx, workflow, entry, now, has_come=has_come)
        return count

    def _carry_out(self, tx: HubTransaction, workflow: Workflow, entry: Entry, now: Seen, *, has_come: bool) -> int:
        derived = DerivedRecords(tx, workflow.name)
        if not has_come and not derived.has_begun(entry.rid):
            return 0
        derived.begin(entry)
        count, made = 0, dict[str, int]()
        for make in workflow.makes:
            for child, seen in self._seen(tx, make, entry.rid, now):
                try:
                    count += self._make(tx, derived, make, entry, child, seen, made)
                except ValueRefused as error:
                    derived.note(make.name, entry, error.message)
                    return count
        derived.forget_note(entry.rid)
        return count

    def _seen(self, tx: HubTransaction, make: Make, rid: int, now: Seen) -> Iterator[tuple[int, Seen]]:
        if make.children is None:
            yield 0, now
            return
        child, index = make.children
        entity = self.topology.entities[child]
        for number in Children(tx).of(child, index, rid):
            entry = tx.current(number)
            if entry is not None and entry.value(ALIVE) is not False and number not in tx.undecided:
                yield number, (*now, *_whole(entry.values, entity))

    def _make(
        self,
        tx: HubTransaction,
        derived: DerivedRecords,
        make: Make,
        cause: Entry,
        child: int,
        seen: Seen,
        made: dict[str, int],
    ) -> int:
        if not make.where(seen):
            return 0
        entity = self.topology.entities[make.entity]
        if make.change is not None:
            rid = cause.rid if make.change < 0 else seen[make.change]
            if not isinstance(rid, int) or isinstance(rid, bool):
                return 0
            changed = _filled(make.values(seen), cause.rid, made)
            return 0 if changed is None else self._follow(tx, derived, entity, make, tx.alias(rid), changed, cause)
        text = make.key(seen)
        if text is None:
            raise ValueRefused(f"{make.name}: what names it says nothing yet")
        key = f"{child}:{text}" if make.children is not None else text
        values = _filled(make.values(seen), cause.rid, made)
        if values is None:
            return 0
        rid = derived.get(make.name, key)
        if rid is None:
            rid = self._born(tx, entity, values)
            derived.add(make.name, key, rid, cause)
            derived.wrote(rid, cause)
            made[make.name] = rid
            return 1
        rid = tx.alias(rid)
        entry = tx.current(rid)
        if entry is not None and entry.value(ALIVE) is not False:
            # To what somebody has deleted nothing more is added.
            made[make.name] = rid
        return self._follow(tx, derived, entity, make, rid, values, cause)

    def _born(self, tx: HubTransaction, entity: EntityPart, values: Mapping[int, Value]) -> int:
        seq = tx.last_seq + 1
        document = tuple(True if n == ALIVE else values.get(n) for n in range(len(entity.entity.fields)))
        mask = sum(1 << n for n, value in enumerate(document) if value is not None)
        tx.append(Entry(seq, seq, entity.entity.id, 0, tx.clock.now(), mask, entity.concerned, 0, CHANGE, 0, document))
        if entity.match_keys is not None:
            tx.add_match_keys(entity.entity.id, entity.match_keys(document), seq)
        return seq

    def _follow(
        self,
        tx: HubTransaction,
        derived: DerivedRecords,
        entity: EntityPart,
        make: Make,
        rid: int,
        values: Mapping[int, Value],
        cause: Entry,
    ) -> int:
        entry = tx.current(rid)
        if entry is None or entry.value(ALIVE) is False or rid in tx.undecided:
            return 0
        if not make.follows(_whole(entry.values, entity)):
            return 0
        changed = {n: value for n, value in values.items() if entry.value(n) != value}
        if not changed:
            return 0
        mask = entity.widen(sum(1 << n for n in changed))
        document = tuple(changed.get(n, entry.value(n)) for n in range(len(entity.entity.fields)))
        seq = tx.last_seq + 1
        older = entry.stamps_without(mask)
        now, concerned = tx.clock.now(), entity.concerned
        tx.append(Entry(seq, rid, entry.entity, 0, now, mask, concerned, entry.seq, CHANGE, entry.seq, document, older))
        derived.wrote(seq, cause)
        if entity.match_keys is not None and mask & entity.match_mask:
            tx.add_match_keys(entity.entity.id, entity.match_keys(document), rid)
        return 1


def _whole(values: Sequence[Value], entity: EntityPart) -> tuple[Value, ...]:
    """Fields that are younger than the version are null."""
    lacking = len(entity.entity.fields) - len(values)
    return (*values, *(None,) * lacking) if lacking > 0 else tuple(values)


def _filled(values: Mapping[int, Derived], this: int, made: Mapping[str, int]) -> dict[int, Value] | None:
    """None where one is to refer to what was not made, or is there no more."""
    found: dict[int, Value] = {}
    for n, value in values.items():
        if isinstance(value, Made):
            found[n] = this
        elif isinstance(value, MadeBy):
            if value.make not in made:
                return None
            found[n] = made[value.make]
        else:
            found[n] = value
    return found
