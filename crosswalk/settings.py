"""Settings of a mapping: what differs from one installation of a product to the next.

A mapping declares them, `concord.toml` gives their values under `[systems.NAME.settings]`. `{ setting = "company" }`
stands for one anywhere in the mapping, `:company` in its SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from sqlglot import exp
from sqlglot.expressions import Expr

from crosswalk.lines import Path
from crosswalk.problems import Problems, convert_form, describe, near

Setting = str | int | bool
_TYPES: Final[dict[str, type]] = {"text": str, "integer": int, "boolean": bool}


class SettingForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    description: str
    default: Setting | None = None


def chosen_settings(
    declared: object, given: Mapping[str, Setting], system: str, problems: Problems
) -> dict[str, Setting]:
    """The value of each setting that a mapping declares; what is wrong, or missing, is noted."""
    found: dict[str, Setting] = {}
    if not isinstance(declared, dict):
        problems.add(("settings",), f"a table is wanted here, not {describe(declared)}")
        return found
    where = f"[systems.{system}.settings] of concord.toml"
    for name, raw in cast(dict[str, object], declared).items():
        path = ("settings", name)
        form = convert_form(raw, SettingForm, path, problems)
        if form is None:
            continue
        if form.type not in _TYPES:
            problems.add((*path, "type"), f"there is no type {form.type!r}{near(form.type, _TYPES)}")
            continue
        for value, place in ((form.default, "default"), (given.get(name), where)):
            if value is not None and type(value) is not _TYPES[form.type]:
                problems.add(path, f"{place}: a value of type {form.type} is wanted, not {describe(value)}")
        value = given.get(name, form.default)
        if value is None:
            problems.add(path, f"{where} does not say it: {form.description}")
        else:
            found[name] = value
    for name in given.keys() - declared.keys():
        problems.add(("settings",), f"{where} gives {name!r}, which the mapping does not have{near(name, found)}")
    return found


def filled(document: Any, settings: Mapping[str, Setting], problems: Problems, path: Path = ()) -> Any:
    """The document with the values in place of `{ setting = "…" }`."""
    if isinstance(document, list):
        return [filled(one, settings, problems, (*path, n)) for n, one in enumerate(cast(list[Any], document))]
    if not isinstance(document, dict):
        return document
    table = cast(dict[str, Any], document)
    name = table.get("setting")
    # `[table.fields]` may have one field, of this name.
    if len(table) == 1 and isinstance(name, str) and path[-1:] != ("fields",):
        if name not in settings:
            problems.add(path, f"the mapping has no setting {name!r}{near(name, settings)}")
        return settings.get(name, "")
    return {key: filled(value, settings, problems, (*path, key)) for key, value in table.items()}


def with_settings(expression: Expr, settings: Mapping[str, Setting], where: Path, problems: Problems) -> Expr:
    """The expression with literals in place of `:name`."""
    for place in list(expression.find_all(exp.Placeholder)):
        name = str(place.this or "")
        value = settings.get(name)
        if value is None:
            problems.add(where, f"the mapping has no setting {name!r}{near(name, settings)}")
            value = ""
        literal = exp.convert(value)
        if place is expression:
            return literal
        place.replace(literal)
    return expression
