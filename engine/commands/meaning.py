"""What the files mean: the dictionary's fields, and what each system's columns are to them."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from engine.commands.output import attempt, print_json, print_table, say
from engine.errors import no_such

if TYPE_CHECKING:
    from crosswalk.block import Block, MappedField
    from crosswalk.joined import Join
    from engine.model.entity import Entity, Field

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DEFAULT = Path("concord.toml")


class Format(enum.StrEnum):
    TABLE = "table"
    MD = "md"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="For a terminal, as a page of Markdown, for machines.")]
DELETED = {"row": "is deleted", "field": "is marked", "keep": "stays as it is"}
"""What becomes of a row whose record is deleted elsewhere, by `engine.ports.Deletes`."""


def dictionary(
    entity: Annotated[str | None, typer.Argument(help="One entity; the list of them without it.")] = None,
    config: ConfigOption = DEFAULT,
    format: FormatOption = Format.TABLE,
    is_json: JsonOption = False,
) -> None:
    """Show the dictionary: its entities, or one entity's fields with type, owner and policy.

    Owners are shown as the systems of this configuration that play their part. As a page of Markdown it is the
    document of who owns what, with where each field is kept. Asks no system.

    Example: concord dictionary account
    """
    attempt(lambda: _dictionary(config, entity, Format.JSON if is_json else format), is_json=is_json)


def mapping(
    system: Annotated[str, typer.Argument(help="A system of the configuration.")],
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Show which column of a system is which field, both ways, who makes new rows' keys, and what a deletion does.

    Says what the mapping file says, with what follows from it; `concord check` says whether the live tables fit.

    Example: concord mapping crm
    """
    attempt(lambda: _mapping(config, system, is_json), is_json=is_json)


def _dictionary(file: Path, name: str | None, format: Format) -> None:
    from engine.assemble import load_meaning
    from engine.config.load import load_config

    meaning = load_meaning(load_config(file))
    entities = {entity.name: entity for entity in meaning.dictionary.entities}
    if name is not None and name not in entities:
        raise no_such("entity", name, entities)
    chosen = [entity for entity in entities.values() if name in (None, entity.name)]
    if format is Format.JSON:
        print_json({"entities": [msgspec.to_builtins(entity) for entity in chosen]})
    elif format is Format.MD:
        from engine.commands.governance import print_dictionary

        print_dictionary(chosen, meaning)
    elif name is None:
        rows = [(e.name, len(e.fields) - 1, len(e.matches), e.description) for e in chosen]
        print_table("", ("entity", "fields", "match rules", "what it is"), rows, empty="the dictionary is empty")
    else:
        rows = [(f.name, type_of(f), f.owner or "-", _policy(f), f.description) for f in _fields(chosen[0])]
        print_table("", ("field", "type", "owner", "policy", "what it is"), rows, empty="the entity has no fields")


def _fields(entity: Entity) -> list[Field]:
    return [field for field in entity.fields if not field.is_retired and field.name != "alive"]


def type_of(field: Field) -> str:
    """A field's type with what makes it whole."""
    extra = field.reference or field.unit or (str(field.length) if field.length else "")
    if field.of is not None:
        extra = f"of {field.of.value}"
    return f"{field.type.value} {extra}".rstrip() + (", required" if field.is_required else "")


def _policy(field: Field) -> str:
    return field.policy.value + (f", with {field.group}" if field.group else "")


def _mapping(file: Path, name: str, is_json: bool) -> None:
    from engine.assemble import load_meaning
    from engine.config.load import load_config

    mappings = load_meaning(load_config(file)).mappings
    if name not in mappings:
        raise no_such("system", name, mappings)
    blocks = [place.block for place in mappings[name].places]
    if is_json:
        tables = [
            {
                "name": block.name,
                "table": block.table,
                "entity": block.entity,
                "key": list(block.key),
                "allocate": block.key_rule.value if block.key_rule else None,
                "drawn_from": _drawn_from(block),
                "deletes": block.deletes.value,
                "touch": sorted(block.touched),
                "joins": [{"name": j.name, "table": j.table, "key": list(j.key), "on": _on(j)} for j in block.joins],
                "fields": [{"field": f.name, "read": _read(f), "write": _written(f)} for f in block.fields],
            }
            for block in blocks
        ]
        print_json({"system": name, "tables": tables})
        return
    for block in blocks:
        rule = block.key_rule.value if block.key_rule else "assigned by the database, or nobody"
        drawn = _drawn_from(block)
        rule = f"drawn from {drawn}" if drawn else rule
        rows = [(f.name, _read(f), ", ".join(_written(f)) or "-") for f in block.fields]
        title = (
            f"{block.name} is {block.entity}; key {', '.join(block.key)}, of new rows: {rule};"
            f" a deleted record's row {DELETED[block.deletes.value]}"
        )
        print_table(title, ("field", "read from", "written to"), rows, empty="no field is mapped")
        for join in block.joins:
            on = " and ".join(f"{join.name}.{column} = {other}" for column, other in _on(join).items())
            say(f"  {join.name}: the row of {join.table} with {on}")
        if block.touched:
            say(f"  each write sets {', '.join(sorted(block.touched))}")


def _on(join: Join) -> dict[str, str]:
    """Its columns and what they equal."""
    return {link.column: f"{link.owner}.{link.other}" if link.owner else link.other for link in join.links}


def _drawn_from(block: Block) -> str | None:
    """The sequence or series that gives new rows their keys."""
    from engine.model.draw import Series

    if isinstance(block.draw, Series):
        return f"series {block.draw.before}… in {block.draw.table}"
    return None if block.draw is None else f"sequence {block.draw.name}"


def _written(field: MappedField) -> list[str]:
    return [] if field.is_read_only else list(field.writes)


def _read(field: MappedField) -> str:
    """The column, or the SQL, with how it is converted."""
    source = field.column or field.read_sql
    how = [field.unit, field.currency, f"key of {field.place}" if field.place else None]
    how += ["value list" if field.values else None, "soft delete" if field.soft_delete else None]
    known = ", ".join(text for text in how if text)
    return f"{source} ({known})" if known else source
