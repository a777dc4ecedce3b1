"""What a configuration needs of its plugins and does not get: found before a row moves, and refused.

Only where going on would decide wrongly without a word. What a kind cannot keep and nobody's data depends on is in its
chapter. Nothing here asks a system; what its tables look like is given where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crosswalk.block import Block
from crosswalk.dictionary import Dictionary
from crosswalk.mapping import SystemMapping
from engine.config.model import SystemConfig
from engine.model.entity import ALIVE, Policy
from engine.model.table import Shape
from engine.ports import KeyRule
from engine.promises import Promise

Shapes = Mapping[tuple[str, str], Shape]
"""(system, table) → what it looks like."""
NAMED_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unkept:
    """A promise that a block of a mapping needs and does not get. `where`: file and line of the block; `path`: the
    place in that file."""

    system: str
    table: str
    where: str
    path: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path}: {self.message}; {self.hint[:1].lower()}{self.hint[1:].rstrip('.')}"


def unkept(
    systems: Sequence[SystemConfig],
    mappings: Mapping[str, SystemMapping],
    dictionary: Dictionary,
    shapes: Shapes | None = None,
) -> list[Unkept]:
    """All of them, system by system. Tables that are in `shapes` are looked at; of others the settings alone count."""
    readers = _readers(systems, mappings)
    found: list[Unkept] = []
    for system in systems:
        for place in mappings[system.name].places:
            block = place.block
            shape = None if shapes is None else shapes.get((system.name, block.table))
            found += _unassigned(system, block, shape)
            found += _undrawn(system, block, shape)
            found += _unjoined(system, block, shape)
            found += _undated(system, block, shape, dictionary, readers)
    return found


def _unassigned(system: SystemConfig, block: Block, shape: Shape | None) -> list[Unkept]:
    word = system.plugin.promises_for(system.options, block.table, shape)[Promise.ASSIGNED_KEYS]
    if word.is_kept or not system.mode.is_target or block.key_rule is not KeyRule.ASSIGNED:
        return []
    message = f"plugin {system.plugin.kind} cannot learn which keys the database hands out ({word.note})"
    hint = 'Say allocate = "uuid", { field = … }, { template = … } or "none".'
    return [_unkept(system, block, message, hint)]


def _undrawn(system: SystemConfig, block: Block, shape: Shape | None) -> list[Unkept]:
    word = system.plugin.promises_for(system.options, block.table, shape)[Promise.DRAWN_KEYS]
    if word.is_kept or not system.mode.is_target or block.draw is None:
        return []
    message = f"plugin {system.plugin.kind} draws no keys ({word.note})"
    return [_unkept(system, block, message, 'Say allocate = "uuid", { field = … }, { template = … } or "none".')]


def _unjoined(system: SystemConfig, block: Block, shape: Shape | None) -> list[Unkept]:
    word = system.plugin.promises_for(system.options, block.table, shape)[Promise.JOINS]
    if word.is_kept or not block.joins:
        return []
    message = f"plugin {system.plugin.kind} cannot join tables ({word.note})"
    return [_unkept(system, block, message, "Map the tables one by one, or a view of them.")]


def _undated(
    system: SystemConfig, block: Block, shape: Shape | None, dictionary: Dictionary, readers: Mapping[str, set[str]]
) -> list[Unkept]:
    """Fields that the later of two changes wins, where it is not known when one was made.

    Not `alive`: of a deletion no table says when it was, so a kind that looks would be refused whatever its settings.
    """
    if not system.mode.is_source or Promise.COMMIT_TIMES in system.without:
        return []
    word = system.plugin.promises_for(system.options, block.table, shape)[Promise.COMMIT_TIMES]
    entity = dictionary.entity(block.entity)
    if word.is_kept or entity is None:
        return []
    fields: list[str] = []
    others: set[str] = set()
    for mapped in block.fields:
        field = entity.fields[entity.index[mapped.name]]
        name = f"{entity.name}.{field.name}"
        also = readers[name] - {system.name}
        if field.owner is None and field.policy is Policy.LATEST and entity.index[field.name] != ALIVE and also:
            fields.append(name)
            others |= also
    if not fields:
        return []
    them, kind = "them" if len(fields) > 1 else "it", system.plugin.kind
    message = (
        f"of concurrent changes of {_listed(fields)} here and in {_listed(sorted(others))} the later one wins, for"
        f" nobody owns {them}, and plugin {kind} does not know when a change"
        f" of {block.table} was made ({word.note})"
    )
    hint = (
        'Give them an owner or policy = "manual" in the dictionary, or say without = ["commit times"] in'
        f" [systems.{system.name}]; `concord plugins show {kind}` tells what it promises."
    )
    return [_unkept(system, block, message, hint)]


def _unkept(system: SystemConfig, block: Block, message: str, hint: str) -> Unkept:
    return Unkept(
        system=system.name,
        table=block.name,
        where=block.where,
        path=block.path,
        message=message,
        hint=hint,
    )


def _readers(systems: Sequence[SystemConfig], mappings: Mapping[str, SystemMapping]) -> dict[str, set[str]]:
    """Field → systems whose changes of it are read."""
    found: dict[str, set[str]] = {}
    for system in systems:
        if system.mode.is_source:
            for place in mappings[system.name].places:
                for mapped in place.block.fields:
                    found.setdefault(f"{place.block.entity}.{mapped.name}", set()).add(system.name)
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_MAX])
    return shown if len(names) <= NAMED_MAX else f"{shown} and {len(names) - NAMED_MAX} more"
