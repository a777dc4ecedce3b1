"""Pages for people who decide about data: the dictionary as a document, and what flows from where to where. Made of the
files alone; no system is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.commands.meaning import DEFAULT, ConfigOption, Format, FormatOption, JsonOption, type_of
from engine.commands.output import attempt, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosswalk.block import Block
    from engine.assemble import Meaning
    from engine.config.model import SystemConfig
    from engine.model.entity import Entity, Field


class Decided(msgspec.Struct, frozen=True):
    """How many of a flow's fields a rule decides concurrent changes of."""

    rule: str
    fields: int


class Flow(msgspec.Struct, frozen=True):
    """One entity from one system to another. `how`: whether changes are read as they happen or by looking now and
    then."""

    entity: str
    source: str
    source_tables: tuple[str, ...]
    target: str
    target_tables: tuple[str, ...]
    how: str
    fields: int
    owners: tuple[str, ...]
    decided: tuple[Decided, ...]


def flows(
    config: ConfigOption = DEFAULT,
    format: FormatOption = Format.TABLE,
    is_json: JsonOption = False,
) -> None:
    """Show what flows: each entity from each system to each other, who owns it, and what decides.

    Counts the fields that the one system's mapping reads and the other's writes. Asks no system.

    Example: concord flows --format md > FLOWS.md
    """
    attempt(lambda: _flows(config, Format.JSON if is_json else format), is_json=is_json)


def _flows(file: Path, format: Format) -> None:
    from engine.assemble import load_meaning
    from engine.config.load import load_config

    config = load_config(file)
    found = list(flows_of(load_meaning(config), config.systems))
    columns = ("entity", "from", "to", "how", "fields", "owner", "decided by")
    rows = [
        (
            flow.entity,
            _place(flow.source, flow.source_tables),
            _place(flow.target, flow.target_tables),
            flow.how,
            flow.fields,
            ", ".join(flow.owners) or "-",
            ", ".join(f"{one.rule} ({one.fields})" for one in flow.decided),
        )
        for flow in found
    ]
    if format is Format.JSON:
        print_json({"flows": [msgspec.to_builtins(flow) for flow in found]})
    elif format is Format.MD:
        say("# What flows where\n")
        _print_markdown(columns, rows)
    else:
        print_table(
            "", columns, rows, empty="nothing flows: no entity is in two systems, the one read and the other written"
        )


def flows_of(meaning: Meaning, systems: Sequence[SystemConfig]) -> Iterator[Flow]:
    """By entity in the dictionary's order, then by the systems'."""
    for entity in meaning.dictionary.entities:
        for source in systems:
            for target in systems:
                if source is target or not source.mode.is_source or not target.mode.is_target:
                    continue
                read, written = _blocks(meaning, source, entity), _blocks(meaning, target, entity)
                fields = _fields(entity, read, written)
                if fields:
                    yield Flow(
                        entity=entity.name,
                        source=source.name,
                        source_tables=tuple(block.table for block in read),
                        target=target.name,
                        target_tables=tuple(block.table for block in written),
                        how=_how(source),
                        fields=len(fields),
                        owners=tuple(dict.fromkeys(field.owner for field in fields if field.owner)),
                        decided=_decided(fields),
                    )


def print_dictionary(entities: Sequence[Entity], meaning: Meaning) -> None:
    """The governance document as Markdown."""
    say("# Data dictionary\n")
    if meaning.dictionary.description:
        say(f"{meaning.dictionary.description}\n")
    for entity in entities:
        say(f"## {entity.name}\n")
        if entity.description:
            say(f"{entity.description}\n")
        for match in entity.matches:
            pairs = zip(match.fields, match.normalise, strict=True)
            told = [f"{name} (as {rule}{', or not said' * (name in match.optional)})" for name, rule in pairs]
            say(f"One record where {' and '.join(told)} are equal.\n")
        columns = ("field", "type", "allowed", "owner", "rule", "personal", "where", "what it is")
        rows = [
            (
                field.name,
                type_of(field),
                ", ".join(field.values),
                field.owner or "-",
                rule_of(field),
                field.pii or "",
                "; ".join(_places(meaning, entity, field)),
                field.description,
            )
            for field in entity.fields
            if not field.is_retired
        ]
        _print_markdown(columns, rows)
        say("")


def rule_of(field: Field) -> str:
    """What decides concurrent changes of the field."""
    return "owner" if field.owner else field.policy.value


def _places(meaning: Meaning, entity: Entity, field: Field) -> Iterator[str]:
    for system, mapping in meaning.mappings.items():
        for place in mapping.places:
            if place.block.entity != entity.name:
                continue
            for mapped in place.block.fields:
                if mapped.name == field.name:
                    yield f"{system}: {place.block.table}.{mapped.column or mapped.read_sql}"


def _blocks(meaning: Meaning, system: SystemConfig, entity: Entity) -> list[Block]:
    places = meaning.mappings[system.name].places
    return [place.block for place in places if place.block.entity == entity.name]


def _fields(entity: Entity, read: Sequence[Block], written: Sequence[Block]) -> list[Field]:
    given = {mapped.name for block in read for mapped in block.fields if mapped.column or mapped.read_sql}
    taken = {mapped.name for block in written for mapped in block.fields if not mapped.is_read_only}
    return [field for field in entity.fields if field.name in given & taken]


def _how(source: SystemConfig) -> str:
    from engine.promises import Promise

    word = source.plugin.promises_for(source.options)[Promise.EVERY_STATE]
    return "as it happens" if word.is_kept else "by looking"


def _decided(fields: Sequence[Field]) -> tuple[Decided, ...]:
    return tuple(Decided(rule, count) for rule, count in Counter(map(rule_of, fields)).items())


def _place(system: str, tables: Sequence[str]) -> str:
    return f"{system} ({', '.join(tables)})"


def _print_markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    say(f"| {' | '.join(columns)} |")
    say("|---" * len(columns) + "|")
    for row in rows:
        say(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |")
