"""Systems, dictionary and mappings of one configuration, with the hub's numbers: the topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.hub.registry import register_entity, register_place, register_systems
from engine.hub.transaction import HubTransaction
from engine.model.entity import Entity
from engine.pipeline.topology import EntityPart, PlacePart, SystemPart, Topology, entity_part
from engine.ports import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One system as configured."""

    name: str
    mapping: Mapping
    is_source: bool
    is_target: bool


def enroll(tx: HubTransaction, hub_id: str, entities: Sequence[Entity], systems: Sequence[Enrolment]) -> Topology:
    """Register what is new in the hub and put it all together. Entities that no system maps are left out.

    The order of `systems` is their rank. Raises `HubError` when the hub has no number left, or a place another entity.
    """
    targets = {system.name for system in systems if system.is_target}
    ids = register_systems(tx, [system.name for system in systems], targets)
    mapped = {place.entity for system in systems for place in system.mapping.places}
    registered = {entity.name: register_entity(tx, entity) for entity in entities if entity.name in mapped}
    parts: dict[int, SystemPart] = {}
    for rank, system in enumerate(systems, 1):
        number = ids[system.name]
        places = tuple(
            PlacePart(
                id=register_place(tx, number, place.name, registered[place.entity].id),
                system=number,
                entity=registered[place.entity],
                place=place,
            )
            for place in system.mapping.places
        )
        parts[number] = SystemPart(
            id=number,
            name=system.name,
            rank=rank,
            is_source=system.is_source,
            is_target=system.is_target,
            places=places,
            mapping=system.mapping,
        )
    entity_parts: dict[int, EntityPart] = {}
    for entity in registered.values():
        concerned = sum(
            part.bit
            for part in parts.values()
            if part.is_target and any(place.entity.id == entity.id for place in part.places)
        )
        mapping = next(s.mapping for s in systems if any(p.entity == entity.name for p in s.mapping.places))
        entity_parts[entity.id] = entity_part(entity, ids, concerned, mapping.match_keys(entity))
    return Topology(hub_id=hub_id, systems=parts, entities=entity_parts)


def forget_absent_sources(tx: HubTransaction, topology: Topology) -> None:
    """A source that is gone in the middle of a transaction will never finish it; everybody else would wait for that."""
    sources = {part.id for part in topology.systems.values() if part.is_source}
    for (system,) in tx.rows("select system from unfinished"):
        if system not in sources:
            tx.write("delete from unfinished where system = ?", (system,))
