"""A world of three systems around the real hub, committer, gatherer and settler; no mapping and no I/O.

Every edit writes a value that occurs nowhere else, so the world knows, apart from the engine, which value each edit
really replaced. What a target would do with its database is a dict here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from engine.hub.aside import Parked
from engine.hub.sqlite import SqliteHub, memory_hub
from engine.hub.sweep import sweep
from engine.hub.transaction import HubTransaction
from engine.model.change import UPDATE
from engine.model.draw import Draw
from engine.model.entity import Entity, Field, Others, Policy, Type
from engine.model.position import Position
from engine.model.record import PLACEHOLDER, Entry
from engine.model.table import Shape
from engine.model.value import CanonicalRow
from engine.pipeline.canonicalize import CanonicalBatch, CanonicalSegment, PlaceRows
from engine.pipeline.commit import Committer
from engine.pipeline.gather import Fresh, Item, gather
from engine.pipeline.settle import Outcome, Refusal, retry, settle
from engine.pipeline.topology import PlacePart, SystemPart, Topology, entity_part
from engine.ports import Allocate, CanonicalTest, Deletes, Join, KeyRule, MatchKeys, Place, Reader, Writer

SYSTEMS = ("crm", "fsm", "erp")


class WorldClock:
    """Stands still: nothing here depends on the time of the hub."""

    def now(self) -> int:
        return 1_000_000_000

    def monotonic(self) -> float:
        return 0.0


@dataclass(frozen=True)
class WorldPlace:
    """A place without a mapping: the world speaks in canonical rows."""

    name: str = "things"
    table: str = "things"
    entity: str = "thing"
    key: tuple[str, ...] = ("id",)
    key_rule: KeyRule = KeyRule.UUID
    deletes: Deletes = Deletes.ROW
    is_lossy: bool = False
    joins: tuple[Join, ...] = ()
    draw: Draw | None = None
    used: frozenset[str] = frozenset()

    def own_fields(self, entity: Entity) -> int:
        return 0

    def reader(self, shape: Shape, entity: Entity) -> Reader:
        raise NotImplementedError

    def writer(self, shape: Shape, entity: Entity) -> Writer:
        raise NotImplementedError

    def accepts(self, entity: Entity) -> CanonicalTest | None:
        return None

    def allocate(self, entity: Entity) -> Allocate:
        return lambda hub_id, rids, records: [f"r{rid}" for rid in rids]


@dataclass(frozen=True)
class WorldMapping:
    places: tuple[Place, ...] = (WorldPlace(),)

    def match_keys(self, entity: Entity) -> MatchKeys:
        return lambda record: ()


@dataclass
class WorldSystem:
    """One system's database: rows by key, and its log."""

    part: SystemPart
    rows: dict[str, list[str | int | bool | None]] = field(default_factory=lambda: {})
    log: list[tuple[int | None, str, CanonicalRow | None, int]] = field(default_factory=lambda: [])
    """(marker seq or None, key, row after, time); row None: it does not take part."""
    away: set[str] = field(default_factory=lambda: set())
    """Rows that do not take part now."""


THING = Entity(
    name="thing",
    id=1,
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="name", type=Type.TEXT, owner="crm"),
        Field(name="phone", type=Type.TEXT),
        Field(name="price", type=Type.TEXT, owner="erp"),
        Field(name="street", type=Type.TEXT, group="address"),
        Field(name="city", type=Type.TEXT, group="address"),
        Field(name="note", type=Type.TEXT, owner="crm", others=Others.ACCEPT),
        Field(name="stock", type=Type.INTEGER, policy=Policy.SUM),
        Field(name="grade", type=Type.TEXT, policy=Policy.MANUAL),
    ),
)
RECORDS = 2


class World:
    """Users, systems and the engine's stages, driven one step at a time by a seeded random."""

    def __init__(
        self, rng: random.Random, fields: tuple[int, ...] = (1, 2, 3, 4, 5, 6), *, repeats: bool = False
    ) -> None:
        self.rng = rng
        self.fields = fields
        self.repeats = repeats
        self.is_swept = False
        self.has_leaves = False
        self.swept = 0
        self.hub: SqliteHub = memory_hub(WorldClock())
        ids = {name: n for n, name in enumerate(SYSTEMS, 1)}
        entity = entity_part(THING, ids, sum(1 << n for n in ids.values()), None)
        parts = {
            n: SystemPart(
                id=n, name=name, rank=n, is_source=True, is_target=True, mapping=WorldMapping(),
                places=(PlacePart(id=n, system=n, entity=THING, place=WorldPlace()),),
            )
            for name, n in ids.items()
        }  # fmt: skip
        self.topology = Topology(hub_id="h", systems=parts, entities={1: entity})
        self.systems = {n: WorldSystem(part) for n, part in parts.items()}
        self.now = self.serial = self.writes = 0
        self.parent: dict[str, str | int | bool | None] = {}
        self.edits: dict[str, tuple[str, int, int, int]] = {}
        """value → (key, field, system, time)"""
        self.unheard: set[str] = set()
        """Values written to rows that took no part."""
        self.refusing: set[tuple[int, int]] = set()
        self.rids: dict[str, int] = {}
        self.sums: dict[str, int] = {}
        self.hub.transact_now(self._begin)

    def _begin(self, tx: HubTransaction) -> None:
        for name, n in ((name, n) for n, name in enumerate(SYSTEMS, 1)):
            tx.write("insert into system (id, name, is_admitted) values (?, ?, 1)", (n, name))
        for _ in range(RECORDS):
            seq = tx.last_seq + 1
            values = (True, None, None, None, None, None, None, 100, None)
            tx.append(Entry(seq, seq, 1, 0, 0, 0, 0, 0, PLACEHOLDER, 0, values))
            key = f"k{seq}"
            self.rids[key] = seq
            self.sums[key] = 100
            for n, system in self.systems.items():
                tx.link(n, key, seq)
                system.rows[key] = list(values)
        tx.write("update system set cursor = ?, seen = ?, marker = ?", (tx.last_seq, tx.last_seq, tx.last_seq))

    def user_edits(self) -> None:
        self.user_edits_at(self.rng.choice(list(self.systems)))

    def user_edits_at(self, n: int) -> None:
        system, key = self.systems[n], self.rng.choice(list(self.rids))
        index = self.rng.choice(self.fields)
        self.now += 1
        self.serial += 1
        row = system.rows[key]
        name = THING.fields[index].name
        if name == "stock" and key in system.away:
            # What is on its way may land on it, and nobody could say what was counted.
            return
        if name == "stock":
            old = row[index]
            change = self.rng.randrange(-5, 6)
            assert old is not None
            self.sums[key] += change
            row[index] = int(old) + change
        elif self.repeats:
            # The same few values again and again, null among them: only agreement can be checked then.
            row[index] = self.rng.choice(("a", "b", None))
        else:
            value = f"{system.part.name}{self.serial}"
            self.parent[value] = row[index]
            self.edits[value] = (key, index, n, self.now)
            if key in system.away:
                self.unheard.add(value)
            row[index] = value
        self._log(system, key)

    def user_moves(self, n: int) -> None:
        """A row takes part no more, or does so again, as it is."""
        system, key = self.systems[n], self.rng.choice(list(self.rids))
        self.now += 1
        system.away ^= {key}
        self._log(system, key)

    def _log(self, system: WorldSystem, key: str) -> None:
        row = None if key in system.away else tuple(system.rows[key])
        system.log.append((None, key, row, self.now))

    def capture(self, n: int) -> bool:
        system = self.systems[n]
        if not system.log:
            return False
        seen, key, row, time = system.log.pop(0)
        segments: list[CanonicalSegment] = []
        if seen is not None:
            segments.append(CanonicalSegment(seen, [], []))
        else:
            part = system.part.places[0]
            rows = PlaceRows(part, (), 511, bytearray([UPDATE]), [key], [row], [time], {}, {}, {})
            segments.append(CanonicalSegment(None, [], [rows]))
        batch = CanonicalBatch(Position((self.now,)), segments, True, 1, 0, 0)
        committer = Committer(self.topology, system.part)
        self.hub.transact_now(lambda tx: committer.commit(tx, batch))
        return True

    def deliver(self, n: int) -> bool:
        system = self.systems[n]
        return self.hub.transact_now(lambda tx: self._deliver(tx, system))

    def _deliver(self, tx: HubTransaction, system: WorldSystem) -> bool:
        part = system.part
        (cursor,) = tx.system(part.id, "cursor")
        until = min(tx.last_seq, cursor + self.rng.randrange(1, 6))
        if until <= cursor:
            return False
        tx.flush()
        outcome = Outcome(is_written=True)
        gathered = gather(tx, self.topology, part, cursor, until, Fresh())
        outcome.rids |= gathered.rids
        bulk = [gathered.bulk.items()] if gathered.bulk else []
        for items in (*gathered.items.values(), *bulk):
            for item in items:
                if (part.id, item.rid) in self.refusing:
                    outcome.refusals.append(Refusal(item.first, self._parked(part, item)))
                else:
                    self._write(system, item)
        settle(tx, self.topology, part, until, outcome)
        system.log.append((until, "", None, 0))
        return True

    def _write(self, system: WorldSystem, item: Item) -> None:
        assert item.key is not None
        row = system.rows[item.key]
        for index in range(len(row)):
            if item.mask >> index & 1:
                if item.key in system.away:
                    self._forget(row[index])
                row[index] = item.entry.values[index]
                self.writes += 1

    def _forget(self, value: str | int | bool | None) -> None:
        """A row that takes no part was written all the same, by what was on its way: nobody but the row's users knew
        what they had written since it left."""
        while isinstance(value, str) and value in self.unheard:
            self.edits.pop(value, None)
            value = self.parent[value]

    def _parked(self, part: SystemPart, item: Item) -> Parked:
        return Parked(
            system=part.id, direction="target", place=part.id, rid=item.rid, key=item.key, seq=item.first, seen=0,
            code="target.refused", reason="check", message="not today",
        )  # fmt: skip

    def retry(self, n: int) -> bool:
        part = self.systems[n].part
        return any(
            self.hub.transact_now(lambda tx, rid=rid: retry(tx, self.topology, part, rid))
            for rid in self.rids.values()
            if (n, rid) not in self.refusing
        )

    def settle(self) -> None:
        self.refusing.clear()
        for system in self.systems.values():
            for key in sorted(system.away):
                system.away.remove(key)
                self._log(system, key)
        for _ in range(10_000):
            # A list: every one of them is to take its step, not only those before the first that had something to do.
            moved = [f(n) for n in self.systems for f in (self.capture, self.deliver, self.retry)]
            if not any(moved):
                return
        raise AssertionError("does not settle")

    def step(self) -> None:
        kinds = {"edit": 6, "capture": 6, "deliver": 6, "retry": 1, "mind": 1, "sweep": 4 if self.is_swept else 0}
        kinds |= {"move": 4} if self.has_leaves else {}
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        n = self.rng.choice(list(self.systems))
        if kind == "edit":
            self.user_edits()
        elif kind == "capture":
            self.capture(n)
        elif kind == "deliver":
            self.deliver(n)
        elif kind == "retry":
            self.retry(n)
        elif kind == "move":
            self.user_moves(n)
        elif kind == "sweep":
            self.swept += self.hub.transact_now(lambda tx: sweep(tx, 0, older_than=1 << 60)).removed
        else:
            self.refusing ^= {(n, self.rng.choice(list(self.rids.values())))}

    def current(self, key: str) -> Entry:
        entry = self.hub.transact_now(lambda tx: tx.current(self.rids[key]))
        assert entry is not None
        return entry

    def ancestry(self, value: str | int | bool | None) -> Iterator[str]:
        while isinstance(value, str):
            yield value
            value = self.parent.get(value)

    def conflicts(self) -> list[tuple[str, list[str | None], list[str | None]]]:
        rows = self.hub.transact_now(lambda tx: tx.rows("select rule, winner_values, loser_values from conflict"))
        return [(rule, msgspec.msgpack.decode(a), msgspec.msgpack.decode(b)) for rule, a, b in rows]

    def check(self) -> None:
        """Agreement and no silent loss."""
        accounted: set[str] = set()
        for key in self.rids:
            canonical = list(self.current(key).values)
            for n, system in self.systems.items():
                held = system.rows[key]
                assert held == canonical, f"agreement: {key} of {n}: canonical {canonical}, held {held}"
            assert canonical[7] == self.sums[key], f"counter: {key} is {canonical[7]}, not {self.sums[key]}"
            for index in self.fields:
                accounted.update(self.ancestry(canonical[index]))
        for _, winner, loser in self.conflicts():
            for value in (*winner, *loser):
                accounted.update(self.ancestry(value))
        for value, edit in self.edits.items():
            assert value in accounted, f"silent loss of {value} {edit}"
