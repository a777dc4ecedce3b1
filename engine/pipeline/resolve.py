"""Stage 4: which change wins. The rule, and nothing else: no I/O, no clock, no hub.

A change by system S of a field *follows* the current version when S held that version, or when the version's seq is at
or before what S had seen; otherwise the two are concurrent and the dictionary decides. What S held just before the
change (its image) is its own newest write that no delivery has landed on since, else the version as of what it had
seen. Fields of one group are one cell: they win or lose together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from engine.hub.aside import Conflict
from engine.hub.exceptions import Overlay, Stretch
from engine.model.entity import ALIVE, Entity, Others, Policy, Type
from engine.model.record import CHANGE, Entry, Stamp, Value

NEVER = 1 << 62
"""A seq that no delivery has."""


@dataclass(slots=True, kw_only=True)
class History:
    """What the hub knows of one record, as far as one system's change needs it.

    `chain`: entries newest first, back to the first one at or before `seen` (it included), or to the beginning.
    `seen`: what the system had seen of this record (`seen_of`). `overlays`: those of this system and record.
    """

    system: int
    chain: Sequence[Entry]
    overlays: Mapping[int, Overlay]
    seen: int
    stretches: Sequence[Stretch] = ()

    @property
    def current(self) -> Entry | None:
        return self.chain[0] if self.chain else None

    def image(self, index: int) -> tuple[Value, Stamp | None]:
        """What the system held of a field just before the change, and whose version that was."""
        overlay = self.overlays.get(index)
        if overlay is not None and self.seen < overlay.until:
            return overlay.value, overlay.stamp
        bit, own = 1 << index, 1 << self.system
        for entry in self.chain:
            if entry.seq <= self.seen:
                return entry.value(index), entry.stamp(index)
            is_own = entry.kind == CHANGE and entry.origin == self.system and not entry.concerned & own
            if is_own and entry.mask & bit:
                return entry.value(index), entry.stamp(index)
        if self.chain and self.chain[-1].prev:
            # Retention took what stood before, and kept as an overlay what this system held otherwise. That happens to
            # those only to which nothing was ever written.
            stamp = self.chain[-1].stamp(index)
            if stamp is not None and stamp.origin == self.system:
                return self.chain[-1].value(index), stamp
        return None, None

    def landing(self, mask: int) -> int:
        """Seq of the first delivery of these fields that the system's log has not shown yet; 0 when there is none.

        What an ended stretch covers was never delivered and never will be: what ended it comes instead, if anything.
        """
        first, own = 0, 1 << self.system
        for entry in self.chain:
            if entry.seq <= self.seen:
                break
            if entry.mask & mask and entry.concerned & own and not self._is_covered(entry.seq):
                first = entry.seq
        return first

    def _is_covered(self, seq: int) -> bool:
        return any(good is not None and refused <= seq < good for refused, good in self.stretches)

    def has_unseen(self, owner: int, mask: int) -> bool:
        """Whether `owner` has set any of these fields since what the system had seen."""
        return any(
            entry.seq > self.seen and entry.kind == CHANGE and entry.origin == owner and entry.mask & mask
            for entry in self.chain
        )


def seen_of(seen: int, stretches: Sequence[Stretch]) -> int:
    """What a system had seen of one record: `seen`, but inside a stretch that deliveries did not reach, before it."""
    for refused, good in stretches:
        if refused <= seen and (good is None or seen < good):
            return refused - 1
    return seen


@dataclass(slots=True)
class Decisions:
    """What is to be journalled for one change of one record: up to three entries, and what the system now holds.

    `quiet`: fields that win and on which nothing is landing (everyone but the system is concerned). `loud`: fields that
    win while a delivery is on its way (everyone is concerned, the system too). `lost`: fields that lose (the system
    alone is concerned). `overlays`: per field the value that the system holds, its stamp, and the seq of the delivery
    that ends it (0: the entry of this decision).
    `void`: overlays that no longer hold.
    """

    quiet: dict[int, Value] = field(default_factory=lambda: {})
    loud: dict[int, Value] = field(default_factory=lambda: {})
    lost: dict[int, Value] = field(default_factory=lambda: {})
    overlays: dict[int, tuple[Value, Stamp | None, int]] = field(default_factory=lambda: {})
    void: list[int] = field(default_factory=lambda: [])
    conflicts: list[Conflict] = field(default_factory=lambda: [])

    @property
    def is_empty(self) -> bool:
        return not (self.quiet or self.loud or self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The dictionary's part: the entity, who owns each field (system id, 0: nobody), and the systems' ranks."""

    entity: Entity
    owners: Sequence[int]
    rank: Callable[[int], int]


def resolve(rules: Rules, history: History, change: Mapping[int, Value], time: int) -> Decisions:
    """Decide one captured change of one record: `change` is what the row now shows, by field index.

    Fields that equal the image are no change: applications write whole rows. `time`: commit time, microseconds.
    """
    decisions = Decisions()
    for cell in rules.entity.cells:
        _resolve_cell(rules, history, cell, change, time, decisions)
    _note_deletion(rules, history, change, time, decisions)
    return decisions


def _resolve_cell(
    rules: Rules, history: History, cell: Sequence[int], change: Mapping[int, Value], time: int, decisions: Decisions
) -> None:
    if not any(n in change for n in cell):
        return
    images = [history.image(n) for n in cell]
    held = tuple(value for value, _ in images)
    value = tuple(change.get(n, held[i]) for i, n in enumerate(cell))
    if value == held:
        return
    system, seen = history.system, history.seen
    entry = history.current
    mask = sum(1 << n for n in cell)
    current = tuple(entry.value(n) for n in cell) if entry else (None,) * len(cell)
    stamp = _newest(entry.stamp(n) for n in cell) if entry else None
    landing = history.landing(mask)
    lead = rules.entity.fields[cell[0]]
    # A counter has no owner: whose changes would not count? Without a common base there is nothing to add to.
    is_sum = lead.policy is Policy.SUM and None not in (*current, *held, *value)
    policy = Policy.LATEST if lead.policy is Policy.SUM and not is_sum else lead.policy
    owner = 0 if lead.policy is Policy.SUM else rules.owners[cell[0]]
    held_stamp = _newest(stamp for _, stamp in images)
    follows = stamp is None or stamp.seq <= seen or stamp == held_stamp
    accepts = lead.others is Others.ACCEPT
    is_late = accepts and owner not in (0, system) and history.has_unseen(owner, mask)
    wins, rule = _decide(
        policy, owner, system, stamp, time, follows=follows, accepts=accepts, is_late=is_late, rank=rules.rank
    )
    final = value
    if is_sum and wins:
        final = tuple(_sum(rules.entity, n, c, h, v) for n, c, h, v in zip(cell, current, held, value, strict=True))
    elif value == current and stamp is not None:
        # The same edit in two systems is no conflict. The later one, or the owner's, is the version all the same: it
        # is what later changes are measured against.
        rule = None
        if not wins or cell[0] == ALIVE:
            # That a record is still there is no news; a version of it would have its whole row written.
            _hold(decisions, cell, value, None, landing or NEVER)
            return
    if is_sum and stamp is not None and stamp.origin == system:
        # Its own count before, on which a delivery has landed or is about to: nobody else has counted since.
        rule = None
    if rule is not None and stamp is not None:
        mine = Stamp(system, 0, time)
        winner, loser = (mine, stamp) if wins else (stamp, mine)
        values = (final, current) if wins else (current, value)
        if rule == "sum":
            # Both count: what stands is made of the present version, and what was written does not stand as it is.
            winner, loser, values = stamp, mine, (final, value)
        entity = rules.entity.id
        decisions.conflicts.append(
            Conflict(0, 0, entity, mask, rule, winner, loser, seen, list(values[0]), list(values[1]), rule == "manual")
        )
    if not wins:
        decisions.lost.update(zip(cell, current, strict=True))
        _hold(decisions, cell, value, None, landing)
    elif landing or final != value:
        decisions.loud.update(zip(cell, final, strict=True))
        # The stamp is the version about to be appended; the caller knows its seq. A sum is not what the row holds.
        _hold(decisions, cell, value, Stamp(system, 0, time) if final == value else None, landing)
    else:
        decisions.quiet.update(zip(cell, final, strict=True))
        decisions.void.extend(n for n in cell if n in history.overlays)


def _decide(
    policy: Policy,
    owner: int,
    system: int,
    stamp: Stamp | None,
    time: int,
    *,
    follows: bool,
    accepts: bool,
    is_late: bool,
    rank: Callable[[int], int],
) -> tuple[bool, str | None]:
    """(wins, rule that decided, None when nothing had to be decided). `accepts`: the owner lets others change what it
    has set, if they have seen it. `is_late`: this change had not seen all that the owner has set."""
    if owner not in (0, system) and stamp is not None:
        if stamp.origin == owner and not (accepts and follows):
            return False, "owner"
        if is_late and not follows:
            return False, "owner"
    if follows:
        return True, None
    if owner == system:
        return True, "owner"
    if policy is Policy.SUM:
        return True, "sum"
    if policy is Policy.MANUAL:
        return False, "manual"
    assert stamp is not None
    return (time, rank(system)) > (stamp.time, rank(stamp.origin)), "latest"


def _hold(decisions: Decisions, cell: Sequence[int], value: Sequence[Value], stamp: Stamp | None, until: int) -> None:
    for n, v in zip(cell, value, strict=True):
        decisions.overlays[n] = (v, stamp, until)


def _newest(stamps: Iterable[Stamp | None]) -> Stamp | None:
    found = [stamp for stamp in stamps if stamp is not None]
    return max(found, key=lambda stamp: stamp.seq) if found else None


def _sum(entity: Entity, index: int, current: Value, held: Value, value: Value) -> Value:
    """The counter after a system changed what it held into `value`: the difference counts, not the value."""
    assert current is not None
    assert held is not None
    assert value is not None
    if entity.fields[index].type is Type.INTEGER:
        return int(current) + int(value) - int(held)
    total = Decimal(str(current)) + Decimal(str(value)) - Decimal(str(held))
    scale = entity.fields[index].scale
    if scale is not None:
        return f"{total:.{scale}f}"
    text = f"{total:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _note_deletion(
    rules: Rules, history: History, change: Mapping[int, Value], time: int, decisions: Decisions
) -> None:
    """A deletion and a change that did not know of each other: both stand, and the one that is undone is recorded."""
    entry = history.current
    if entry is None:
        return
    system, seen = history.system, history.seen
    mine = Stamp(system, 0, time)
    deleted = entry.stamp(ALIVE)
    entity = rules.entity.id
    wins = {**decisions.quiet, **decisions.loud}
    if wins.get(ALIVE, True) is False:
        for n in range(1, len(entry.values)):
            stamp = entry.stamp(n)
            if stamp is not None and stamp.origin != system and n not in wins and history.image(n)[0] != entry.value(n):
                decisions.conflicts.append(
                    Conflict(0, 0, entity, 1 << n, "deleted", mine, stamp, seen, [False], [entry.value(n)], False)
                )
    elif (
        entry.value(ALIVE) is False
        and deleted is not None
        and wins.get(ALIVE) is not True
        and (history.image(ALIVE)[0] is not False or change.get(ALIVE) is True)
    ):
        changed = [n for n in sorted(wins) if n != ALIVE]
        if changed:
            mask = sum(1 << n for n in changed)
            values = [wins[n] for n in changed]
            decisions.conflicts.append(
                Conflict(0, 0, entity, mask, "deleted", deleted, mine, seen, [False], values, False)
            )
