"""What a dictionary may say of a field, and what must fit together: alone, with its entity's other fields, with the
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crosswalk.lines import Path
from crosswalk.lists import ELEMENTS
from crosswalk.problems import Problems, near
from crosswalk.units import CODE_LISTS, CURRENCIES, dimension
from engine.model.entity import Field, Others, Policy, Type


class FieldForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Type
    description: str = ""
    unit: str | None = None
    values: list[str] = []
    owner: str | None = None
    others: Others | None = None
    policy: Policy | None = None
    group: str | None = None
    reference: str | None = None
    length: int | None = None
    scale: int | None = None
    of: Type | None = None
    required: bool = False
    pii: str | None = None


def check_field(name: str, form: FieldForm, path: Path, merged: Mapping[str, Any], problems: Problems) -> None:
    kind = form.type
    if name == "alive" and kind is not Type.BOOLEAN:
        problems.add((*path, "type"), "'alive' says whether the record exists; it is a boolean")
    if kind is Type.REFERENCE:
        if form.reference is None:
            problems.add(path, 'a reference says which entity it refers to: reference = "…"')
        elif form.reference not in merged:
            problems.add((*path, "reference"), f"there is no entity {form.reference!r}{near(form.reference, merged)}")
    elif form.reference is not None:
        problems.add((*path, "reference"), f"only a field of type reference refers to an entity; this is {kind.value}")
    if kind is Type.ENUM and not form.values:
        problems.add(path, "an enum lists its values")
    if form.values and kind is not Type.ENUM:
        problems.add((*path, "values"), f"only an enum has values; this is {kind.value}")
    if len(set(form.values)) != len(form.values):
        problems.add((*path, "values"), "a value is listed twice")
    if form.of is not None and (kind is not Type.LIST or form.of not in ELEMENTS):
        known = ", ".join(element.value for element in ELEMENTS)
        problems.add((*path, "of"), f"only a list says what it is of, and that is one of {known}")
    if form.scale is not None and (kind not in (Type.DECIMAL, Type.MONEY) or not 0 <= form.scale <= 20):
        problems.add((*path, "scale"), "a scale of 0 to 20 decimals goes with types decimal and money only")
    if form.length is not None and (kind is not Type.TEXT or form.length < 1):
        problems.add((*path, "length"), "a length of at least 1 goes with type text only")
    if form.policy is Policy.SUM and (
        kind not in (Type.INTEGER, Type.DECIMAL, Type.MONEY, Type.DURATION) or form.group
    ):
        problems.add((*path, "policy"), "only a number that is in no group can add up concurrent changes")
    _check_unit(form, path, problems)


def _check_unit(form: FieldForm, path: Path, problems: Problems) -> None:
    unit = form.unit
    if unit is None or form.type is Type.MONEY:
        return
    if form.type is Type.TEXT:
        if unit not in CODE_LISTS:
            problems.add((*path, "unit"), f"the unit of a text is a list of codes: {', '.join(CODE_LISTS)}")
    elif form.type is Type.DURATION:
        if unit != "s":
            problems.add((*path, "unit"), "durations are in seconds in the dictionary; units belong into mappings")
    elif form.type in (Type.INTEGER, Type.DECIMAL):
        if dimension(unit) is None:
            problems.add((*path, "unit"), f"{unit!r} is no unit that converts")
    else:
        problems.add((*path, "unit"), f"type {form.type.value} has no unit")


def check_money(fields: Mapping[str, Field], path: Path, problems: Problems) -> None:
    """An amount without its currency says nothing: the unit of money is a code, or the field that holds the code."""
    for name, field in fields.items():
        if field.type is not Type.MONEY:
            continue
        where = (*path, "fields", name)
        if field.unit is None:
            problems.add(where, 'money says its currency: unit = "EUR", or the name of the field that holds the code')
        elif field.unit in fields:
            currency = fields[field.unit]
            if currency.type is not Type.TEXT or currency.unit != "ISO 4217":
                problems.add((*where, "unit"), f'{field.unit!r} must be a text with unit = "ISO 4217"')
            elif field.group is None or field.group != currency.group:
                problems.add(
                    where, f"amount and currency win or lose together: give {name!r} the group of {field.unit!r}"
                )
        elif field.unit not in CURRENCIES:
            problems.add(
                (*where, "unit"), f"{field.unit!r} is neither a field nor an ISO 4217 code{near(field.unit, fields)}"
            )


def check_groups(fields: Mapping[str, Field], path: Path, problems: Problems) -> None:
    """Fields that win or lose as one need one owner and one policy, or there would be nothing to decide by. `path` is
    where the fields stand in the file."""
    first: dict[str, Field] = {}
    for name, field in fields.items():
        if field.group is None:
            continue
        if name == "alive":
            problems.add((*path, name, "group"), "'alive' stands alone")
        other = first.setdefault(field.group, field)
        for what in ("owner", "others", "policy"):
            if getattr(other, what) != getattr(field, what):
                problems.add((*path, name), f"group {field.group!r} has another {what} at field {other.name!r}")
