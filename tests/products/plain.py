"""A database that has every entity of a dictionary as a table and every field as a column: the other side of a mapping
in tests."""

from __future__ import annotations

from collections.abc import Collection

from crosswalk.dictionary import Dictionary
from engine.model.entity import ALIVE, Entity, Field, Type

_TYPES = {Type.INTEGER: "integer", Type.BOOLEAN: "boolean", Type.REFERENCE: "integer"}


def schema(dictionary: Dictionary, entities: Collection[str]) -> str:
    """SQLite: `create table` for each entity; keys are rowids, references are these."""
    found: list[str] = []
    for entity in _chosen(dictionary, entities):
        columns = "".join(f', "{field.name}" {_TYPES.get(field.type, "text")}' for field in _fields(entity))
        found.append(f'create table "{entity.name}" (id integer primary key{columns});')
    return "\n".join(found)


def mapping(dictionary: Dictionary, entities: Collection[str]) -> str:
    """TOML. A reference to an entity that is not among them is left out."""
    found = ['timezone = "UTC"']
    for entity in _chosen(dictionary, entities):
        found.append(f'[[table]]\nname = "{entity.name}"\nentity = "{entity.name}"\nkey = ["id"]\n[table.fields]')
        found += [
            f'{field.name} = "{field.name}"'
            for field in _fields(entity)
            if field.type is not Type.REFERENCE or field.reference in entities
        ]
    return "\n".join(found)


def _chosen(dictionary: Dictionary, entities: Collection[str]) -> list[Entity]:
    return [entity for entity in dictionary.entities if entity.name in entities]


def _fields(entity: Entity) -> tuple[Field, ...]:
    return entity.fields[ALIVE + 1 :]
