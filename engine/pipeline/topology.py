"""Who takes part: systems, entities and places with the numbers of the hub, and what the dictionary says of each.

Built once by `engine.assemble`; read by every stage. It holds no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from engine.model.entity import Entity
from engine.model.record import bits
from engine.pipeline.join_plan import JoinPlan, plan_joins
from engine.ports import Mapping, MatchKeys, Place
from engine.workflow import Workflow


@dataclass(frozen=True, kw_only=True)
class PlacePart:
    """A place with its numbers."""

    id: int
    system: int
    entity: Entity
    place: Place

    @property
    def name(self) -> str:
        return self.place.name


@dataclass(frozen=True, kw_only=True)
class SystemPart:
    """A system with its numbers. `rank` breaks ties of commit times: the later in concord.toml wins."""

    id: int
    name: str
    rank: int
    is_source: bool
    is_target: bool
    places: tuple[PlacePart, ...]
    mapping: Mapping

    @property
    def bit(self) -> int:
        return 1 << self.id

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """Those that are mapped."""
        return tuple(dict.fromkeys(part.place.table for part in self.places))

    @cached_property
    def joins(self) -> JoinPlan:
        return plan_joins([part.place for part in self.places])

    @cached_property
    def logged(self) -> tuple[str, ...]:
        """Those whose log is read: the mapped ones, and what is joined to them."""
        return tuple(dict.fromkeys((*self.tables, *self.joins.joined)))

    def place(self, name: str) -> PlacePart:
        return next(part for part in self.places if part.name == name)

    def places_of(self, entity: int) -> list[PlacePart]:
        return [part for part in self.places if part.entity.id == entity]


@dataclass(frozen=True, kw_only=True)
class EntityPart:
    """What the stages ask of an entity all the time, worked out once.

    `owners[n]`: id of the system that owns field n, 0 for none. `wider[n]`: mask of the fields that go with field n.
    `concerned`: bits of the systems that are written when a record of it changes.
    """

    entity: Entity
    owners: tuple[int, ...]
    wider: tuple[int, ...]
    concerned: int
    has_groups: bool
    full: int
    match_mask: int
    match_keys: MatchKeys | None

    def widen(self, mask: int) -> int:
        """The mask with the other fields of its groups."""
        if not self.has_groups:
            return mask
        wide = mask
        for index, group in enumerate(self.wider):
            if mask >> index & 1:
                wide |= group
        return wide

    def contested(self, system: int) -> int:
        """Fields that another system owns."""
        return sum(1 << n for n, owner in enumerate(self.owners) if owner not in (0, system))


def unwritten(part: PlacePart, entity: EntityPart, system: int) -> int:
    """Mask of fields that a place shows and that are never written there, but for those that the system owns."""
    return sum(1 << n for n in bits(part.place.own_fields(part.entity)) if entity.owners[n] != system)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """All of it. `clock_skew` is how far a commit time may lie in our future before it is cut back, microseconds."""

    hub_id: str
    systems: dict[int, SystemPart]
    entities: dict[int, EntityPart]
    places: dict[int, PlacePart] = field(init=False)
    workflows: tuple[Workflow, ...] = ()
    clock_skew: int = 5 * 60 * 1_000_000

    def __post_init__(self) -> None:
        places = {part.id: part for system in self.systems.values() for part in system.places}
        object.__setattr__(self, "places", places)

    def named(self, name: str) -> SystemPart:
        return next(system for system in self.systems.values() if system.name == name)

    def rank(self, system: int) -> int:
        part = self.systems.get(system)
        return part.rank if part else -1

    def place_of(self, system: int, name: str) -> int:
        """The number of a place by its name."""
        return self.systems[system].place(name).id


def entity_part(entity: Entity, systems: dict[str, int], concerned: int, match_keys: MatchKeys | None) -> EntityPart:
    """Work out what the stages need. `systems`: name → id; an owner that is not among them owns nothing."""
    wider = [0] * len(entity.fields)
    for cell in entity.cells:
        mask = sum(1 << n for n in cell)
        for n in cell:
            wider[n] = mask
    matched = {name for match in entity.matches for name in match.fields}
    return EntityPart(
        entity=entity,
        owners=tuple(systems.get(f.owner, 0) if f.owner else 0 for f in entity.fields),
        wider=tuple(wider),
        concerned=concerned,
        has_groups=any(len(cell) > 1 for cell in entity.cells),
        full=(1 << len(entity.fields)) - 1,
        match_mask=sum(1 << entity.index[name] for name in matched),
        match_keys=match_keys if entity.matches else None,
    )
