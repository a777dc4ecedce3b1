"""The rule of conflicts as a small executable model, to hold the engine's resolver against.

It says the same as `engine.pipeline.resolve` and the stages around it, in another way: per cell instead of per
document, every version kept, every question answered by a scan. It shares the dictionary's types with the engine and
nothing else. `engine.testing.model_world` searches it for counterexamples; a property test may feed one history (edits,
markers, deliveries, refusals, retries) to both and compare canonical values, conflicts and who is concerned by each
entry.

A *cell* is what wins or loses as one: the fields of a group, or one field. A change of a cell by system S *follows* the
current version when S held it or had seen it, otherwise the two are concurrent. What S *held* (its image) is its own
newest write that no delivery has landed on since, else the version as of what it had seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.model.entity import Entity, Field, Others, Policy
from engine.model.record import Value

Cell = tuple[str, ...]
Values = tuple[Value, ...]
ALIVE_CELL: Cell = ("alive",)


class Stamp(NamedTuple):
    """Who set a version. `origin` None: a person who decided a conflict."""

    origin: str | None
    seq: int
    time: int


class Version(NamedTuple):
    values: Values
    stamp: Stamp
    concerned: frozenset[str]


class Held(NamedTuple):
    """What a system holds of a cell. No stamp: no version that the hub has, such as a value that lost."""

    values: Values
    stamp: Stamp | None
    until: int = 0
    """For an overlay: seq of the delivery that ends it."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A journal entry. `is_again`: no new version but the present one once more, for the systems concerned."""

    rid: int
    cells: tuple[Cell, ...]
    concerned: frozenset[str]
    is_again: bool


@dataclass(slots=True)
class ModelConflict:
    """Two changes of a cell of which neither had seen the other, or one that the owner overrules."""

    rid: int
    cell: Cell
    rule: str
    winner: Values
    loser: Values
    is_open: bool = False
    seq: int = 0
    """Entry that the decision made."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one changed cell. `outcome`: quiet, loud, lost or same; `seq` of its entry, 0 for same."""

    cell: Cell
    outcome: str
    rule: str | None
    seq: int = 0


@dataclass(slots=True)
class Stretch:
    """Deliveries from `refused` on did not reach a record; `good` is the entry that makes up for it, None: none yet."""

    refused: int
    good: int | None

    def covers(self, seq: int) -> bool:
        return self.refused <= seq and (self.good is None or seq < self.good)


@dataclass(slots=True)
class ModelHub:
    """The hub's memory of one entity's records, and the rule. `systems` in the order of their rank."""

    entity: Entity
    systems: tuple[str, ...]
    base: dict[int, dict[str, Value]] = field(default_factory=lambda: {})
    """Values that every system linked from the start has held from the start; nobody's."""
    versions: dict[tuple[int, Cell], list[Version]] = field(default_factory=lambda: {})
    journal: list[ModelEntry] = field(default_factory=lambda: [])
    conflicts: list[ModelConflict] = field(default_factory=lambda: [])
    seen: dict[str, int] = field(default_factory=lambda: {})
    delivered: dict[str, int] = field(default_factory=lambda: {})
    overlays: dict[tuple[str, int, Cell], Held] = field(default_factory=lambda: {})
    stretches: dict[tuple[str, int], list[Stretch]] = field(default_factory=lambda: {})
    unlinked: set[tuple[str, int]] = field(default_factory=lambda: set())
    """(system, rid) of rows not known to be the record's; deliveries pass them by."""
    _fields: dict[Cell, list[Field]] = field(default_factory=lambda: {})

    def __post_init__(self) -> None:
        fields = self.entity.fields
        self._fields = {tuple(fields[n].name for n in cell): [fields[n] for n in cell] for cell in self.entity.cells}
        self.seen = dict.fromkeys(self.systems, 0)
        self.delivered = dict.fromkeys(self.systems, 0)

    @property
    def cells(self) -> Collection[Cell]:
        return self._fields.keys()

    # What was and what is.

    def current(self, rid: int, cell: Cell) -> tuple[Values, Stamp | None]:
        return self.as_of(rid, cell, len(self.journal))

    def as_of(self, rid: int, cell: Cell, seq: int) -> tuple[Values, Stamp | None]:
        """The version after journal entry `seq`; -1: before anything at all."""
        for version in reversed(self.versions.get((rid, cell), ())):
            if version.stamp.seq <= seq:
                return version.values, version.stamp
        base = self.base.get(rid, {}) if seq >= 0 else {}
        return tuple(base.get(name) for name in cell), None

    def record(self, rid: int) -> dict[str, Value]:
        """The canonical record."""
        return {name: v for cell in self.cells for name, v in zip(cell, self.current(rid, cell)[0], strict=True)}

    def seen_of(self, system: str, rid: int) -> int:
        """What the system has seen of the record: inside a stretch that deliveries did not reach, what came before."""
        seen = self.seen[system]
        for stretch in self.stretches.get((system, rid), ()):
            if stretch.covers(seen):
                return stretch.refused - 1
        return seen

    def image(self, system: str, rid: int, cell: Cell) -> Held:
        """What the system held just before this point of its own log."""
        seen = self.seen_of(system, rid)
        overlay = self.overlays.get((system, rid, cell))
        if overlay is not None and seen < overlay.until:
            return overlay
        for version in reversed(self.versions.get((rid, cell), ())):
            if version.stamp.seq <= seen:
                break
            if version.stamp.origin == system and system not in version.concerned:
                return Held(version.values, version.stamp)
        return Held(*self.as_of(rid, cell, seen))

    def landing(self, system: str, rid: int, cell: Cell) -> int:
        """Seq of the first delivery of the cell that the system's log has not shown yet; 0: none.

        What a stretch covers that has ended never lands: its `good` stands for it, as far as that is needed.
        """
        ended = [stretch for stretch in self.stretches.get((system, rid), ()) if stretch.good is not None]
        for seq in range(max(0, self.seen_of(system, rid)) + 1, len(self.journal) + 1):
            entry = self.journal[seq - 1]
            is_landing = entry.rid == rid and cell in entry.cells and system in entry.concerned
            if is_landing and not any(stretch.covers(seq) for stretch in ended):
                return seq
        return 0

    # What happens.

    def marker(self, system: str, seq: int) -> None:
        """The system's log shows our delivery `seq`."""
        self.seen[system] = max(self.seen[system], seq)

    def take(self, system: str, rid: int, changes: Mapping[str, Value], time: int) -> list[Decision]:
        """A captured change: what the row now shows, at least the fields that changed. Returns what was decided."""
        found: dict[str, list[tuple[Cell, Values]]] = {"quiet": [], "loud": [], "lost": []}
        rules: dict[Cell, str | None] = {}
        same: list[Decision] = []
        holding: list[tuple[Cell, Values, bool, int]] = []
        conflicts: list[ModelConflict] = []
        images = {cell: self.image(system, rid, cell) for cell in self.cells}
        for cell, held in images.items():
            values = tuple(changes.get(name, v) for name, v in zip(cell, held.values, strict=True))
            if values == held.values:
                # Not a change: applications write whole rows.
                continue
            current, stamp = self.current(rid, cell)
            landing = self.landing(system, rid, cell)
            wins, rule = self._decide(system, rid, cell, held, values, time)
            final = self._final(cell, current, held.values, values) if wins and rule != "owner" else values
            rules[cell] = rule
            if values == current and not wins:
                # The same edit was made twice, and the other one stands. What is on its way ends with this very value.
                # No stamp: the system did not know of the other edit, and its next one is as concurrent as this one.
                assert landing, "nothing on its way to a system that does not hold the current version"
                self.overlays[system, rid, cell] = Held(values, None, landing)
                same.append(Decision(cell, "same", None))
                continue
            # A counter that the system itself set last: nobody else has counted since.
            is_own = rule == "sum" and stamp is not None and stamp.origin == system
            if rule is not None and final != current and not is_own:
                winner, loser = (final, current) if wins else (current, values)
                if rule == "sum":
                    loser = values
                conflicts.append(ModelConflict(rid, cell, rule, winner, loser, is_open=rule == "manual"))
            if not wins:
                found["lost"].append((cell, current))
                holding.append((cell, values, False, landing))
            elif landing or final != values:
                found["loud"].append((cell, final))
                holding.append((cell, values, final == values, landing))
            else:
                found["quiet"].append((cell, final))
                self.overlays.pop((system, rid, cell), None)
        seqs = self._append_decisions(system, rid, found, time)
        for cell, values, is_version, landing in holding:
            stamp = Stamp(system, seqs[cell], self.versions[rid, cell][-1].stamp.time) if is_version else None
            self.overlays[system, rid, cell] = Held(values, stamp, landing or seqs[cell])
        for conflict in conflicts:
            conflict.seq = seqs[conflict.cell]
        won = [cell for kind in ("quiet", "loud") for cell, _ in found[kind]]
        self.conflicts.extend(conflicts)
        is_alive = changes.get("alive", images[ALIVE_CELL].values[0] if ALIVE_CELL in images else None)
        self._note_deletion(rid, images, won, is_alive=is_alive is not False)
        return same + [Decision(cell, kind, rules[cell], seqs[cell]) for kind in found for cell, _ in found[kind]]

    def link(self, system: str, rid: int, row: Mapping[str, Value], time: int) -> list[Decision]:
        """The first look at a row that turns out to be the record's: nothing of the record had reached it.

        What differs is concurrent and decided as ever; then the row is brought to what the record is.
        """
        self.unlinked.discard((system, rid))
        stretch = Stretch(0, None)
        self.stretches[system, rid] = [stretch]
        decisions = self.take(system, rid, row, time)
        record = self.record(rid)
        cells = tuple(cell for cell in self.cells if any(row.get(name) != record[name] for name in cell))
        stretch.good = len(self.journal) + 1
        if cells:
            self._again(rid, cells, frozenset((system,)))
        return decisions

    def deliver(
        self, system: str, until: int, refusing: Collection[int] = ()
    ) -> dict[tuple[int, Cell], tuple[Values, int]]:
        """Move the system's cursor. Returns what to write, and the seq of each version (0: the base).

        The caller writes these versions, with the marker `until`, in one transaction of the system.
        """
        written: dict[tuple[int, Cell], tuple[Values, int]] = {}
        for seq in range(self.delivered[system] + 1, until + 1):
            entry = self.journal[seq - 1]
            if system not in entry.concerned or (system, entry.rid) in self.unlinked:
                continue
            stretches = self.stretches.setdefault((system, entry.rid), [])
            if stretches and stretches[-1].covers(seq):
                continue
            if entry.rid in refusing:
                if stretches and stretches[-1].good == seq:
                    stretches[-1].good = None
                else:
                    stretches.append(Stretch(seq, None))
                continue
            for cell in entry.cells:
                values, stamp = self.as_of(entry.rid, cell, until)
                written[entry.rid, cell] = (values, stamp.seq if stamp else 0)
        self.delivered[system] = until
        return written

    def retry(self, system: str, rid: int) -> bool:
        """Journal a refused record again for this system alone, so that it is delivered in order like everything."""
        stretches = self.stretches.get((system, rid), [])
        if not stretches or stretches[-1].good is not None:
            return False
        self._again(rid, tuple(self.cells), frozenset((system,)))
        stretches[-1].good = len(self.journal)
        return True

    def resolve(self, conflict: ModelConflict, values: Values, time: int) -> int:
        """A person decides an open conflict: a change of nobody's, for everybody. Returns its seq; 0 when the record
        is deleted and there is nothing left to decide."""
        conflict.is_open = False
        if self.record(conflict.rid).get("alive") is False:
            return 0
        return self._change(conflict.rid, None, [(conflict.cell, values)], frozenset(self.systems), time)

    # The rule.

    def _decide(
        self, system: str, rid: int, cell: Cell, held: Held, values: Values, time: int
    ) -> tuple[bool, str | None]:
        """(wins, rule that decided; None when nothing had to be decided)."""
        lead = self._fields[cell][0]
        current, stamp = self.current(rid, cell)
        if stamp is None:
            return True, None
        seen = self.seen_of(system, rid)
        follows = stamp.seq <= seen or stamp == held.stamp
        owner = lead.owner if lead.owner in self.systems else None
        if owner not in (None, system):
            spoken = self._newest_by(owner, rid, cell)
            knew = spoken is None or spoken.seq <= seen or (held.stamp is not None and held.stamp.seq >= spoken.seq)
            if spoken is not None and not (lead.others is Others.ACCEPT and knew):
                return False, "owner"
        if follows:
            return True, None
        if owner == system:
            return True, "owner"
        if lead.policy is Policy.SUM and None not in (*held.values, *current, *values):
            return True, "sum"
        if lead.policy is Policy.MANUAL:
            return False, "manual"
        return (time, self._rank(system)) > (stamp.time, self._rank(stamp.origin)), "latest"

    def _final(self, cell: Cell, current: Values, held: Values, values: Values) -> Values:
        """The winner: of a counter, the current value and the difference that the system made."""
        if self._fields[cell][0].policy is not Policy.SUM or None in (*held, *current, *values):
            return values
        return tuple(_number(c) + _number(v) - _number(h) for c, h, v in zip(current, held, values, strict=True))

    def _newest_by(self, system: str | None, rid: int, cell: Cell) -> Stamp | None:
        versions = self.versions.get((rid, cell), ())
        return next((v.stamp for v in reversed(versions) if v.stamp.origin == system), None)

    def _rank(self, system: str | None) -> int:
        return -1 if system is None else self.systems.index(system)

    def _note_deletion(self, rid: int, images: Mapping[Cell, Held], won: Sequence[Cell], *, is_alive: bool) -> None:
        """A deletion and a change that did not know of each other both stand; the change nobody sees is recorded."""
        if ALIVE_CELL not in images or self.current(rid, ALIVE_CELL)[0] != (False,):
            return
        deletes = ALIVE_CELL in won
        if not deletes and not is_alive:
            return
        for cell in self.cells:
            current, stamp = self.current(rid, cell)
            if cell == ALIVE_CELL or stamp is None:
                continue
            if (cell in won) if not deletes else (cell not in won and images[cell].values != current):
                self.conflicts.append(ModelConflict(rid, cell, "deleted", (False,), current, seq=stamp.seq))

    # The journal.

    def _append_decisions(
        self, system: str, rid: int, found: Mapping[str, Sequence[tuple[Cell, Values]]], time: int
    ) -> dict[Cell, int]:
        """Up to three entries; the seq of each cell's."""
        everyone = frozenset(self.systems)
        seqs: dict[Cell, int] = {}
        for kind, concerned in (("quiet", everyone - {system}), ("loud", everyone)):
            if found[kind]:
                seq = self._change(rid, system, found[kind], concerned, time)
                seqs.update((cell, seq) for cell, _ in found[kind])
        if found["lost"]:
            cells = tuple(cell for cell, _ in found["lost"])
            self._again(rid, cells, frozenset((system,)))
            seqs.update(dict.fromkeys(cells, len(self.journal)))
        return seqs

    def _change(
        self, rid: int, origin: str | None, cells: Iterable[tuple[Cell, Values]], concerned: frozenset[str], time: int
    ) -> int:
        cells = list(cells)
        self.journal.append(ModelEntry(rid, tuple(cell for cell, _ in cells), concerned, is_again=False))
        seq = len(self.journal)
        for cell, values in cells:
            stamp = Stamp(origin, seq, time)
            self.versions.setdefault((rid, cell), []).append(Version(values, stamp, concerned))
        return seq

    def _again(self, rid: int, cells: tuple[Cell, ...], concerned: frozenset[str]) -> None:
        self.journal.append(ModelEntry(rid, cells, concerned, is_again=True))


def _number(value: Value) -> int:
    assert isinstance(value, int), "counters of the model are integers"
    return value
