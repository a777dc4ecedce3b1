"""A random search for histories in which the rule of conflicts does not do what it promises.

    python -m engine.testing.model_world [worlds] [first seed]

World: systems with rows and a commit-ordered log; users who edit, delete and make rows at any time; an engine that
captures one logged transaction at a time and delivers journal entries in coalesced batches, in any interleaving;
targets that refuse records for a while; rows that stand alone until their first capture links them. The world knows,
apart from the hub, which edit each edit really replaced. Checked at every capture:

  image           the hub knows what the row held before the change

and once the world has settled:

  agreement       every system holds the canonical value of every cell
  no silent loss  every edit is in the true ancestry of a final value or of a recorded conflict
  counters        a counter is what it was at first and the sum of what users did to it
  groups          a group's values were together in some user's row
  no echo         the engine writes nothing more
  arrival         what was logged at one moment ends the same whichever system is captured first
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from engine.model.entity import Entity, Field, Others, Policy, Type
from engine.model.record import Value
from engine.testing.model import ALIVE_CELL, Cell, ModelConflict, ModelHub, Values

SYSTEMS = ("crm", "fsm", "erp")
THING = Entity(
    name="thing",
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="name", type=Type.TEXT, owner="crm"),
        Field(name="phone", type=Type.TEXT),
        Field(name="price", type=Type.TEXT, owner="erp", others=Others.ACCEPT),
        Field(name="street", type=Type.TEXT, group="address"),
        Field(name="city", type=Type.TEXT, group="address"),
        Field(name="stock", type=Type.INTEGER, policy=Policy.SUM),
        Field(name="grade", type=Type.TEXT, policy=Policy.MANUAL),
    ),
)
RIDS = (1, 2)
STOCK = 100
# Fields whose end is for a person to decide: the order of capture decides which value waits and which stands.
BY_HAND: Cell = ("grade",)
STOCK_CELL: Cell = ("stock",)


@dataclass(slots=True)
class Edit:
    """What one user did to one cell. `parent` is the edit it replaced, None: the beginning."""

    rid: int
    cell: Cell
    system: str | None
    values: Values
    parent: int | None
    same_as: int | None = None
    """The other edit that made this very value, where the hub took them for one."""
    saw: dict[Cell, int | None] = field(default_factory=lambda: {})
    """For a deletion: the edits that stood in the row."""


@dataclass(slots=True)
class Logged:
    """A transaction in a system's log: a delivery's marker, or a user's row after and before."""

    marker: int | None
    rid: int = 0
    row: dict[Cell, Values] = field(default_factory=lambda: {})
    before: dict[Cell, Values] = field(default_factory=lambda: {})
    edits: dict[Cell, int] = field(default_factory=lambda: {})
    time: int = 0
    is_whole_row: bool = True


@dataclass(slots=True)
class ModelSystem:
    """One system: what each row holds and which edit put it there, and the log not captured yet."""

    rows: dict[tuple[int, Cell], tuple[Values, int | None]] = field(default_factory=lambda: {})
    log: list[Logged] = field(default_factory=lambda: [])
    skew: int = 0


@dataclass(slots=True, kw_only=True)
class Traits:
    """What kind of world it is."""

    repeats: bool = False
    """Users choose among three values, so that the same value is written twice and comes back."""
    islands: bool = False
    """Some rows are not known to be the record's until they are captured for the first time."""
    skew: int = 0
    """How far the systems' clocks may be apart."""
    deletes: bool = True


class ModelWorld:
    """Users, systems and the hub, driven one step at a time by a seeded random."""

    def __init__(self, rng: Random, traits: Traits, entity: Entity = THING) -> None:
        self.rng = rng
        self.traits = traits
        self.hub = ModelHub(entity, SYSTEMS)
        self.types = {f.name: f.type for f in entity.fields}
        self.systems = {name: ModelSystem(skew=rng.randint(-traits.skew, traits.skew)) for name in SYSTEMS}
        self.edits: list[Edit] = []
        self.versions: dict[tuple[int, Cell, int], int] = {}
        """(rid, cell, seq) → edit"""
        self.losers: set[int] = set()
        """Edits that are in a recorded conflict."""
        self.sums: dict[int, int] = dict.fromkeys(RIDS, STOCK)
        self.together: set[tuple[int, Cell, Values]] = set()
        self.refusing: dict[str, set[int]] = {name: set() for name in SYSTEMS}
        self.islanded: set[int] = set()
        self.now = self.serial = self.writes = 0
        self._begin()

    def _begin(self) -> None:
        for rid in RIDS:
            base: dict[str, Value] = {"alive": True, "stock": STOCK}
            self.hub.base[rid] = base
            for name, system in self.systems.items():
                if self.traits.islands and self.rng.random() < 0.3:
                    self.hub.unlinked.add((name, rid))
                    self.islanded.add(rid)
                    continue
                for cell in self.hub.cells:
                    system.rows[rid, cell] = (tuple(base.get(n) for n in cell), None)

    # Users.

    def user_acts(self, name: str | None = None) -> None:
        """Somebody edits a row, deletes it, or makes one where there is none."""
        name = name or self.rng.choice(SYSTEMS)
        system, rid = self.systems[name], self.rng.choice(RIDS)
        self.now += 1
        before = {cell: system.rows[rid, cell][0] for cell in self.hub.cells if (rid, cell) in system.rows}
        if before.get(ALIVE_CELL) != (True,):
            # A new row: everything in it is new.
            after = {cell: self._new_values(name, cell, None, 0.7) for cell in self.hub.cells}
            if before:
                # Under the key of the deleted one; its counter goes on, so that sums can be checked.
                after[STOCK_CELL] = before[STOCK_CELL]
            after[ALIVE_CELL] = (True,)
        elif self.traits.deletes and self.rng.random() < 0.07:
            after = {**before, ALIVE_CELL: (False,)}
        else:
            after = dict(before)
            for cell in self.rng.sample([c for c in self.hub.cells if c != ALIVE_CELL], self.rng.choice((1, 1, 2))):
                after[cell] = self._new_values(name, cell, before[cell], 0.5)
        self._log_edit(name, rid, before, after)

    def _new_values(self, name: str, cell: Cell, old: Values | None, chance: float) -> Values:
        chosen = {field for field in cell if self.rng.random() < chance} or {cell[0]}
        return tuple(
            self._new_value(name, field, None if old is None else old[n])
            if field in chosen
            else (old or (None,) * 9)[n]
            for n, field in enumerate(cell)
        )

    def _new_value(self, name: str, field: str, old: Value) -> Value:
        if self.types[field] is Type.INTEGER:
            return (old if isinstance(old, int) else STOCK) + self.rng.choice((-2, -1, 1, 3))
        if self.traits.repeats:
            return self.rng.choice(("red", "green", None))
        self.serial += 1
        return f"{name}{self.serial}"

    def _log_edit(self, name: str, rid: int, before: dict[Cell, Values], after: dict[Cell, Values]) -> None:
        system = self.systems[name]
        logged = Logged(None, rid, after, before, {}, self.now + system.skew, self.rng.random() < 0.7)
        for cell, values in after.items():
            if before.get(cell, (None,) * len(cell)) == values:
                system.rows.setdefault((rid, cell), (values, None))
                continue
            parent = system.rows[rid, cell][1] if (rid, cell) in system.rows else None
            edit = Edit(rid, cell, name, values, parent)
            if cell == ALIVE_CELL and values == (False,):
                edit.saw = {c: system.rows[rid, c][1] for c in self.hub.cells}
            logged.edits[cell] = len(self.edits)
            system.rows[rid, cell] = (values, len(self.edits))
            self.edits.append(edit)
            self.together.add((rid, cell, values))
            if cell == STOCK_CELL and before:
                self.sums[rid] += _difference(before[cell], values)
        system.log.append(logged)

    # The engine.

    def capture(self, name: str) -> bool:
        system = self.systems[name]
        if not system.log:
            return False
        logged = system.log.pop(0)
        if logged.marker is not None:
            self.hub.marker(name, logged.marker)
        else:
            self._take(name, logged)
        return True

    def _take(self, name: str, logged: Logged) -> None:
        hub, rid = self.hub, logged.rid
        row = {n: v for cell, values in logged.row.items() for n, v in zip(cell, values, strict=True)}
        known = len(hub.conflicts)
        currents = {cell: self._version_edit(rid, cell) for cell in hub.cells}
        canonical = {cell: hub.current(rid, cell)[0] for cell in hub.cells}
        if (name, rid) in hub.unlinked:
            decisions = hub.link(name, rid, row, logged.time)
        else:
            for cell, values in logged.before.items():
                held = hub.image(name, rid, cell).values
                assert held == values, f"image: {name} held {values} of {cell}, the hub thinks {held}"
            if not logged.is_whole_row:
                row = {n: row[n] for cell in logged.edits for n in cell}
            decisions = hub.take(name, rid, row, logged.time)
        decided = {decision.cell: decision for decision in decisions}
        for cell, edit in logged.edits.items():
            decision = decided.get(cell)
            if decision is None:
                # Only a row that stood alone may bring a value that the record had without either of them being there.
                assert logged.row[cell] == (None,) * len(cell) or (rid in self.islanded), f"not seen: {cell}"
                self.edits[edit].same_as = currents[cell]
            elif decision.outcome == "same":
                self.edits[edit].same_as = currents[cell]
            elif decision.outcome != "lost":
                self.versions[rid, cell, decision.seq] = edit
                if canonical[cell] == logged.row[cell] and cell != STOCK_CELL:
                    self.edits[edit].same_as = currents[cell]
        for conflict in hub.conflicts[known:]:
            self.losers.update(e for e in (currents[conflict.cell], logged.edits.get(conflict.cell)) if e is not None)

    def _version_edit(self, rid: int, cell: Cell, seq: int | None = None) -> int | None:
        if seq is None:
            stamp = self.hub.current(rid, cell)[1]
            seq = stamp.seq if stamp else 0
        return self.versions.get((rid, cell, seq))

    def deliver(self, name: str) -> bool:
        hub, system = self.hub, self.systems[name]
        first = hub.delivered[name]
        until = min(len(hub.journal), first + self.rng.randrange(1, 6))
        if until == first:
            return False
        written = hub.deliver(name, until, self.refusing[name])
        for (rid, cell), (values, seq) in written.items():
            system.rows[rid, cell] = (values, self._version_edit(rid, cell, seq))
        self.writes += len(written)
        system.log.append(Logged(until))
        return True

    def retry(self, name: str) -> bool:
        return any(self.hub.retry(name, rid) for rid in RIDS if rid not in self.refusing[name])

    def target_changes_its_mind(self) -> None:
        self.refusing[self.rng.choice(SYSTEMS)] ^= {self.rng.choice(RIDS)}

    def person_decides(self) -> bool:
        """The oldest open conflict is decided for one of its sides."""
        conflict = next((c for c in self.hub.conflicts if c.is_open), None)
        if conflict is None:
            return False
        self._decide(conflict, self.rng.choice((conflict.winner, conflict.loser)))
        return True

    def _decide(self, conflict: ModelConflict, values: Values) -> None:
        self.now += 1
        replaced = self._version_edit(conflict.rid, conflict.cell)
        seq = self.hub.resolve(conflict, values, self.now)
        if seq:
            self.versions[conflict.rid, conflict.cell, seq] = len(self.edits)
            same = replaced if replaced is not None and self.edits[replaced].values == values else None
            self.edits.append(Edit(conflict.rid, conflict.cell, None, values, replaced, same))

    def step(self) -> None:
        chance = self.rng.random() * 21
        if chance < 6:
            self.user_acts()
        elif chance < 12:
            self.capture(self.rng.choice(SYSTEMS))
        elif chance < 18:
            self.deliver(self.rng.choice(SYSTEMS))
        elif chance < 19:
            self.retry(self.rng.choice(SYSTEMS))
        elif chance < 20:
            self.target_changes_its_mind()
        else:
            self.person_decides()

    def capture_all(self, rng: Random) -> None:
        """Everything logged, system by system in a random order, nothing delivered meanwhile."""
        while waiting := [name for name, system in self.systems.items() if system.log]:
            self.capture(rng.choice(waiting))

    def settle(self) -> None:
        for refusing in self.refusing.values():
            refusing.clear()
        for _ in range(10_000):
            steps = [f(name) for name in SYSTEMS for f in (self.capture, self.deliver, self.retry)]
            if not any(steps) and not self.person_decides():
                return
        raise AssertionError("does not settle")

    # What must hold.

    def check(self) -> None:
        hub = self.hub
        for name, system in self.systems.items():
            for (rid, cell), (values, _) in system.rows.items():
                if (name, rid) not in hub.unlinked:
                    current = hub.current(rid, cell)[0]
                    assert values == current, f"agreement: {name} {rid} {cell}: canonical {current}, held {values}"
        for rid in RIDS:
            for cell in hub.cells:
                values, stamp = hub.current(rid, cell)
                if len(cell) > 1 and stamp is not None:
                    assert (rid, cell, values) in self.together, f"groups: nobody had {values} in {rid}"
            if rid not in self.islanded:
                stock = hub.record(rid)["stock"]
                assert stock == self.sums[rid], f"counters: {rid} has {stock}, not {self.sums[rid]}"
        accounted = self._accounted()
        for number, edit in enumerate(self.edits):
            if edit.cell not in (ALIVE_CELL, STOCK_CELL):
                assert number in accounted, f"silent loss of {edit}"

    def _accounted(self) -> set[int]:
        found: set[int] = set()
        for rid in RIDS:
            deletion = self._version_edit(rid, ALIVE_CELL)
            is_dead = self.hub.record(rid)["alive"] is False and deletion is not None
            for cell in self.hub.cells:
                edit = self._version_edit(rid, cell)
                if is_dead and deletion is not None:
                    # Nobody sees the record any more: what its deletion did not see must be a conflict.
                    saw = self.edits[deletion].saw.get(cell)
                    self._add_ancestry(found, saw)
                    held = self.hub.as_of(rid, cell, 0)[0] if saw is None else self.edits[saw].values
                    if held != self.hub.current(rid, cell)[0]:
                        continue
                self._add_ancestry(found, edit)
        for edit in self.losers:
            self._add_ancestry(found, edit)
        return found

    def _add_ancestry(self, found: set[int], edit: int | None) -> None:
        waiting = [edit]
        while waiting:
            edit = waiting.pop()
            if edit is not None and edit not in found:
                found.add(edit)
                waiting += [self.edits[edit].parent, self.edits[edit].same_as]
        # An edit taken for the same as an accounted one is accounted, with what it replaced.
        for number, other in enumerate(self.edits):
            if other.same_as in found and number not in found:
                self._add_ancestry(found, number)

    def check_arrival(self, seed: int) -> None:
        """Capture what is logged now in two orders; both must end the same."""
        ends: list[dict[tuple[int, Cell], Values]] = []
        for n in range(2):
            other = copy.deepcopy(self)
            other.capture_all(Random(seed * 2 + n))
            ends.append(
                {
                    (r, c): other.hub.current(r, c)[0]
                    for r in RIDS
                    for c in self.hub.cells
                    if c != BY_HAND and (c != STOCK_CELL or r not in self.islanded)
                }
            )
        different = [key for key in ends[0] if ends[0][key] != ends[1][key]]
        assert not different, f"arrival: {[(key, ends[0][key], ends[1][key]) for key in different]}"


def _difference(before: Values, after: Values) -> int:
    old, new = before[0], after[0]
    assert isinstance(old, int)
    assert isinstance(new, int)
    return new - old


def traits_of(rng: Random) -> Traits:
    """Half of the worlds have each trait: bugs often need one without another."""
    return Traits(repeats=rng.random() < 0.3, islands=rng.random() < 0.3, deletes=rng.random() < 0.5)


def run(seed: int, traits: Traits | None = None, *, arrivals: bool = True) -> ModelWorld:
    """One world, from its seed. Raises AssertionError when something does not hold."""
    rng = Random(seed)
    world = ModelWorld(rng, traits or traits_of(rng))
    for _ in range(rng.randrange(5, 60)):
        for _ in range(rng.choice((1, 1, 1, 4))):
            world.step()
        if arrivals and rng.random() < 0.05:
            world.check_arrival(seed)
    world.settle()
    world.check()
    writes = world.writes
    world.settle()
    assert world.writes == writes, "echo"
    return world


def search(count: int, first: int = 0) -> Iterable[tuple[int, str]]:
    """(seed, what does not hold) for every world of which that is so."""
    for seed in range(first, first + count):
        try:
            run(seed)
        except AssertionError as error:
            yield seed, str(error)


def main(arguments: Sequence[str]) -> int:
    count = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    found = 0
    for seed, error in search(count, first):
        found += 1
        print(f"seed {seed}: {error}")
    print(f"{count - found} of {count} worlds agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
