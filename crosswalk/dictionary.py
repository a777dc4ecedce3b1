"""The canonical data dictionary: what entities and fields there are, what they mean, and who owns them.

A dictionary is TOML; `dictionaries/service.toml` ships. One that says `extends = "service"` starts from the shipped one
and adds entities and fields or changes single properties of them. Owners are written as roles ("crm", "fsm", "erp");
`Dictionary.for_systems` puts the systems of one configuration in their place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, cast

import msgspec

from crosswalk.fields import FieldForm, check_field, check_groups, check_money
from crosswalk.lines import Path
from crosswalk.matching import NORMALISERS
from crosswalk.problems import Problems, convert_form, near, read_toml
from engine.errors import ConfigError
from engine.model.entity import Entity, Field, Match, Others, Policy, Type

SHIPPED = FilePath(__file__).parent / "dictionaries"
EXTENDS_MAX = 8
NAMED = r"[a-z][a-z0-9_]*"

Name = str


class MatchForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    fields: list[str]
    normalise: list[str] | None = None
    optional: list[str] = []


class EntityForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    description: str = ""
    owner: str | None = None
    others: Others | None = None
    match: list[Any] = []
    fields: dict[str, Any] = {}


class DictionaryForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    extends: str | None = None
    description: str = ""
    entities: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dictionary:
    """All entities, in the order of the file. Owners are roles until `for_systems`."""

    entities: tuple[Entity, ...]
    description: str = ""

    def entity(self, name: str) -> Entity | None:
        return next((entity for entity in self.entities if entity.name == name), None)

    @property
    def roles(self) -> frozenset[str]:
        """Every owner named in it."""
        return frozenset(field.owner for entity in self.entities for field in entity.fields if field.owner)

    def with_owners(self, owners: Mapping[str, str | Mapping[str, str]], path: Path, problems: Problems) -> Dictionary:
        """The dictionary with other owners, by entity: a role for all of it, or for single fields; "" is nobody.

        A role for all of an entity goes where the entity's own owner stood, the fields that say another keep theirs.
        """
        entities = {entity.name: entity for entity in self.entities}
        for name, given in owners.items():
            entity = entities.get(name)
            if entity is None:
                problems.add((*path, name), f"there is no entity {name!r}{near(name, entities)}")
            else:
                entities[name] = _with_owner(entity, given, (*path, name), problems)
        return replace(self, entities=tuple(entities.values()))

    def for_systems(self, names: Collection[str], roles: Mapping[str, str] | None = None) -> Dictionary:
        """The dictionary with owners that are systems of this configuration.

        `roles` says which role a system plays (system → role); a system without an entry plays the role of its own
        name. A field whose owner no system plays has no owner here. Raises `ConfigError` when two systems play one
        role, or `roles` names a system that does not exist.
        """
        given = dict(roles or {})
        problems = [f"role {role!r} is given to {name!r}, which is no system{near(name, names)}"
                    for name, role in given.items() if name not in names]  # fmt: skip
        players: dict[str, str] = {}
        for name in names:
            role = given.get(name, name)
            if role in players:
                problems.append(f"systems {players[role]!r} and {name!r} both play the role {role!r}")
            players[role] = name
        if problems:
            raise ConfigError(f"the roles of the systems do not fit: {problems[0]}", problems=tuple(problems))

        def owned(field: Field) -> Field:
            return msgspec.structs.replace(field, owner=players.get(field.owner) if field.owner else None)

        entities = tuple(
            msgspec.structs.replace(entity, fields=tuple(owned(field) for field in entity.fields))
            for entity in self.entities
        )
        return replace(self, entities=entities)


def _with_owner(entity: Entity, given: str | Mapping[str, str], path: Path, problems: Problems) -> Entity:
    if isinstance(given, str):
        before = entity.fields[entity.index["alive"]].owner
        roles = {field.name: given for field in entity.fields if field.owner == before}
    else:
        roles = given
        for name in roles:
            if name not in entity.index:
                problems.add((*path, name), f"{entity.name} has no field {name!r}{near(name, entity.index)}")
    fields = tuple(
        msgspec.structs.replace(field, owner=roles[field.name] or None) if field.name in roles else field
        for field in entity.fields
    )
    check_groups({field.name: field for field in fields}, path, problems)
    return msgspec.structs.replace(entity, fields=fields)


def shipped_dictionaries() -> list[str]:
    """The names of those that come with Concord."""
    return [found.stem for found in SHIPPED.glob("*.toml")]


def load_dictionary(source: str | FilePath) -> Dictionary:
    """Load a TOML file, or the shipped dictionary of that name ("service").

    Raises `ConfigError` listing every problem as "file:line: path: message".
    """
    document, problems = read_toml(_find(source, None), "dictionary")
    form = convert_form(document, DictionaryForm, (), problems)
    if form is None:
        problems.raise_if_any("dictionary")
        raise AssertionError("a form is missing only when there are problems")
    base = _base_entities(form, problems)
    merged = _merge(base, form.entities)
    entities: list[Entity] = []
    for name, raw in merged.items():
        entity = _entity(name, raw, merged, problems)
        if entity is not None:
            entities.append(entity)
    if not merged:
        problems.add((), "no entities")
    problems.raise_if_any("dictionary")
    return Dictionary(entities=tuple(entities), description=form.description)


def _find(source: str | FilePath, beside: FilePath | None) -> FilePath:
    """A bare name is a shipped dictionary; anything else is a path, relative to the file that names it."""
    if isinstance(source, str) and not source.endswith(".toml") and "/" not in source:
        shipped = SHIPPED / f"{source}.toml"
        if not shipped.exists():
            known = shipped_dictionaries()
            problem = f"{beside or source}:1: there is no shipped dictionary {source!r}{near(source, known)}"
            raise ConfigError(problem, problems=(problem,))
        return shipped
    return beside.parent / source if beside else FilePath(source)


def _base_entities(form: DictionaryForm, problems: Problems) -> dict[str, Any]:
    """The raw entities of what the dictionary extends, those of the deepest base first."""
    chain: list[dict[str, Any]] = []
    extends, file = form.extends, problems.file
    while extends is not None:
        if len(chain) == EXTENDS_MAX:
            problems.add(("extends",), "dictionaries extend each other in a circle")
            break
        try:
            file = _find(extends, file)
            document, found = read_toml(file, "dictionary")
            base = convert_form(document, DictionaryForm, (), found)
            found.raise_if_any("dictionary")
        except ConfigError as error:
            problems.add(("extends",), error.message)
            break
        assert base is not None
        chain.append(base.entities)
        extends = base.extends
    merged: dict[str, Any] = {}
    for entities in reversed(chain):
        merged = _merge(merged, entities)
    return merged


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else replaces what was there."""
    merged = dict(base)
    for key, value in own.items():
        present = merged.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            merged[key] = _merge(cast(dict[str, Any], present), cast(dict[str, Any], value))
        else:
            merged[key] = value
    return merged


def _entity(name: str, raw: object, merged: Mapping[str, Any], problems: Problems) -> Entity | None:
    path: Path = ("entities", name)
    if not name.isidentifier() or name != name.lower():
        problems.add(path, "a name of lower-case letters, digits and underscores is wanted")
    form = convert_form(raw, EntityForm, path, problems, is_tolerant=True)
    if form is None:
        return None
    raws = {"alive": {"type": "boolean"}} | form.fields
    if isinstance(raws["alive"], dict):
        raws["alive"] = {"type": "boolean", "description": "False once the record is deleted."} | raws["alive"]
    fields: list[Field] = []
    for field_name in sorted(raws, key=lambda field_name: field_name != "alive"):
        field = _field(field_name, raws[field_name], form, (*path, "fields", field_name), merged, problems)
        if field is not None:
            fields.append(field)
    by_name = {field.name: field for field in fields}
    check_money(by_name, path, problems)
    check_groups(by_name, (*path, "fields"), problems)
    matches = [_match(rule, by_name, (*path, "match", n), problems) for n, rule in enumerate(form.match)]
    return Entity(
        name=name,
        fields=tuple(fields),
        matches=tuple(match for match in matches if match is not None),
        description=form.description,
    )


def _field(
    name: str, raw: object, entity: EntityForm, path: Path, merged: Mapping[str, Any], problems: Problems
) -> Field | None:
    if not name.isidentifier() or name != name.lower():
        problems.add(path, "a name of lower-case letters, digits and underscores is wanted")
    form = convert_form(raw, FieldForm, path, problems)
    if form is None:
        return None
    check_field(name, form, path, merged, problems)
    # An owner of "" takes away the one that the entity gives.
    owner = entity.owner if form.owner is None else form.owner
    return Field(
        name=name,
        type=form.type,
        owner=owner or None,
        others=form.others or entity.others or Others.RESTORE,
        policy=form.policy or Policy.LATEST,
        group=form.group,
        reference=form.reference,
        unit=form.unit,
        values=tuple(form.values),
        length=form.length,
        of=(form.of or Type.TEXT) if form.type is Type.LIST else None,
        scale=2 if form.type is Type.MONEY and form.scale is None else form.scale,
        is_required=form.required,
        description=form.description,
        pii=form.pii,
    )


def _match(raw: object, fields: Mapping[str, Field], path: Path, problems: Problems) -> Match | None:
    form = convert_form(raw, MatchForm, path, problems)
    if form is None:
        return None
    exact = [name in fields and fields[name].type not in (Type.TEXT, Type.ENUM) for name in form.fields]
    rules = form.normalise or ["exact" if is_exact else "text" for is_exact in exact]
    if not form.fields:
        problems.add(path, "a match rule names at least one field")
    if len(rules) != len(form.fields):
        problems.add(
            (*path, "normalise"), f"{len(form.fields)} fields and {len(rules)} rules; one rule a field is wanted"
        )
    for name in form.fields:
        if name not in fields or name == "alive":
            problems.add((*path, "fields"), f"there is no field {name!r}{near(name, fields)}")
    for name in form.optional:
        if name not in form.fields:
            problems.add((*path, "optional"), f"{name!r} is none of the rule's fields{near(name, form.fields)}")
    if form.fields and set(form.fields) <= set(form.optional):
        problems.add((*path, "optional"), "at least one field must say something")
    for name, rule, is_exact in zip(form.fields, rules, exact, strict=False):
        if is_exact and rule != "exact":
            problems.add((*path, "normalise"), f'{name!r} is no text: "exact" is its rule, not {rule!r}')
    for rule in rules:
        if rule.partition(":")[0] not in NORMALISERS:
            problems.add((*path, "normalise"), f"there is no rule {rule!r}{near(rule, NORMALISERS)}")
    return Match(fields=tuple(form.fields), normalise=tuple(rules), optional=tuple(form.optional))
