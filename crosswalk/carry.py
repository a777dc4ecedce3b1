"""A field and the column it lives in: what can carry what, and what both directions need.

For each field and column there is a function that does everything and refuses everything else (`carry_read`,
`carry_write`). Where a value usually needs nothing, or nearly so, the function hides behind an inline test, so that
the usual row never calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from crosswalk import convert
from crosswalk.convert import Loss
from crosswalk.units import UNIX_UNITS, factor
from engine.model.entity import Field, Type
from engine.model.table import Column, Form, Kind
from engine.model.value import ABSENT

Convert = Callable[[Any], Any]

# More would hide the rest of the message.
NAMED_VALUES_MAX = 12

NUMBERS = (Type.INTEGER, Type.DECIMAL, Type.MONEY, Type.DURATION)
NUMERIC_KINDS = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
TEXT_KINDS = (Kind.TEXT, Kind.OTHER)

# Kinds of column that can carry a type without `values`; of a dynamically typed system any loosely typed column can.
CARRIERS: dict[Type, tuple[Kind, ...]] = {
    Type.TEXT: (*TEXT_KINDS, Kind.ENUM, Kind.UUID, Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.BOOLEAN, Kind.JSON,
                Kind.DATE, Kind.TIME),
    Type.INTEGER: (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, *TEXT_KINDS),
    Type.DECIMAL: (Kind.DECIMAL, Kind.INTEGER, Kind.FLOAT, *TEXT_KINDS),
    Type.MONEY: (Kind.DECIMAL, Kind.INTEGER, Kind.FLOAT, *TEXT_KINDS),
    Type.BOOLEAN: (Kind.BOOLEAN, Kind.INTEGER),
    Type.DATE: (Kind.DATE, Kind.TIMESTAMP, *TEXT_KINDS),
    Type.TIME: (Kind.TIME, *TEXT_KINDS),
    Type.TIMESTAMP: (Kind.INSTANT, Kind.TIMESTAMP, *TEXT_KINDS),
    Type.DURATION: (Kind.INTERVAL, Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, *TEXT_KINDS),
    Type.ENUM: (Kind.ENUM, *TEXT_KINDS),
    Type.REFERENCE: (Kind.INTEGER, Kind.UUID, Kind.DECIMAL, *TEXT_KINDS),
    Type.JSON: (Kind.JSON, *TEXT_KINDS),
    Type.BINARY: (Kind.BINARY,),
    Type.LIST: (Kind.ARRAY, Kind.JSON, Kind.TEXT),
}  # fmt: skip
LOOSE_KINDS = (Kind.OTHER, Kind.TEXT, Kind.DECIMAL)


class Unfit(Exception):
    """A column that cannot carry the field at all; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class Names:
    """The objects that generated source refers to."""

    objects: dict[str, Any] = field(default_factory=lambda: {"ABSENT": ABSENT})

    def bind(self, value: Any) -> str:
        for name, present in self.objects.items():
            if present is value:
                return name
        name = f"f{len(self.objects)}"
        self.objects[name] = value
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A field, the column it lives in, and what the mapping says about the two."""

    field: Field
    column: Column
    form: Form
    values: Mapping[str, str | int | bool] | None = None
    unit: str | None = None
    zone: ZoneInfo | None = None
    default: str | int | float | bool | None = None
    round: int | None = None
    truncate: bool = False
    soft_delete: bool = False

    @property
    def is_text_form(self) -> bool:
        return self.form is Form.TEXT

    @property
    def has_extras(self) -> bool:
        """Whether more is asked than the plain conversion."""
        return (
            self.values is not None
            or self.unit is not None
            or self.default is not None
            or self.round is not None
            or self.soft_delete
        )


LISTED = {**dict.fromkeys((Kind.TEXT, Kind.ENUM, Kind.UUID), Type.TEXT), Kind.INTEGER: Type.INTEGER}
"""What a column of joined rows can be a list of: what JSON has one spelling for."""


def check_carrier(cell: Cell) -> None:
    """Raise `Unfit` when the column's kind cannot carry the field."""
    kind, type_ = cell.column.kind, cell.field.type
    if cell.soft_delete:
        allowed: tuple[Kind, ...] = (*LOOSE_KINDS, Kind.BOOLEAN, Kind.INTEGER, Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT)
    elif cell.values is not None:
        allowed = (Kind.TEXT, Kind.OTHER, Kind.ENUM, Kind.BOOLEAN, Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
    elif cell.unit in UNIX_UNITS:
        allowed = NUMERIC_KINDS
    else:
        allowed = CARRIERS[type_]
    if kind not in allowed and not (cell.form is Form.NATIVE and kind in LOOSE_KINDS):
        raise Unfit(
            f"a column of type {cell.column.type} cannot carry a {named(cell.field)}",
            _carrier_hint(cell),
        )
    if type_ is Type.LIST:
        _check_element(cell)
    is_plain = not cell.soft_delete and cell.values is None and cell.unit not in UNIX_UNITS
    if type_ is Type.TIMESTAMP and is_plain and kind is not Kind.INSTANT and cell.zone is None:
        raise Unfit(
            f"a column of type {cell.column.type} does not say which zone its times are in",
            'Add timezone = "UTC", or the zone its application writes in, to the field or to the file.',
        )


def named(field: Field) -> str:
    """What a field is, for messages."""
    return f"list of {field.of.value}" if field.of else field.type.value


def _check_element(cell: Cell) -> None:
    element = element_cell(cell)
    if element.column.type == "box":
        raise Unfit("elements of type box are not divided by commas", "Map another column.")
    if cell.column.type.startswith("set("):
        raise Unfit("a set of MySQL is no JSON array", 'Map it to a field of type = "text": its labels with commas.')
    if cell.column.kind is Kind.JSON and cell.column.element is not None:
        # Of a list of joined rows.
        fitting = LISTED.get(element.column.kind)
        if element.field.type is not fitting:
            kind = "nothing" if fitting is None else f"a list of {fitting.value}"
            raise Unfit(f"a column of type {element.column.type} gives {kind}", "Map another column, or another field.")
    try:
        check_carrier(element)
    except Unfit as unfit:
        raise Unfit(f"a list of {element.field.type.value} in {cell.column.type}: {unfit}", unfit.hint) from None


def element_cell(cell: Cell) -> Cell:
    """A list's element as if it stood in a column of its own."""
    assert cell.field.of is not None
    # JSON spells what no kind of its own has as a text.
    kind = Kind.BOOLEAN if cell.field.of is Type.BOOLEAN and cell.column.kind is not Kind.ARRAY else Kind.TEXT
    column = cell.column.element or Column(name=cell.column.name, kind=kind, type="text")
    field = Field(name=cell.field.name, type=cell.field.of)
    return Cell(field=field, column=column, form=Form.TEXT, zone=cell.zone, truncate=cell.truncate)


def _carrier_hint(cell: Cell) -> str:
    kind, type_ = cell.column.kind, cell.field.type
    if type_ is Type.DATE and kind is Kind.INSTANT:
        return "Say which zone's day is meant: read = \"cast(… at time zone '…' as date)\"."
    if type_ in (Type.BOOLEAN, Type.ENUM):
        return "Say what each of the column's values means with values = { … }."
    if kind is Kind.ARRAY:
        return 'Say in the dictionary what it is: type = "list", of = "…".'
    if type_ is Type.TIMESTAMP and kind in NUMERIC_KINDS:
        return 'Add unit = "unix", "unix_ms" or "unix_us" if it counts since 1970.'
    return "Map another column, or convert it with read = and write =."


def spellings(key: str, cell: Cell) -> list[Any]:
    """What a `values` key stands for in the column; the first one is what is written."""
    if cell.is_text_form:
        if cell.column.kind is Kind.BOOLEAN:
            return [{"true": "t", "false": "f"}.get(key.lower(), key)]
        return [key]
    if cell.column.kind is Kind.BOOLEAN and key.lower() in ("true", "false"):
        return [int(key.lower() == "true"), key]
    if re.fullmatch(r"-?\d{1,18}", key, re.ASCII):
        return [int(key), key] if cell.column.kind not in (Kind.TEXT, Kind.ENUM) else [key, int(key)]
    return [key]


def default_wire(cell: Cell) -> Any:
    """The wire value that stands for null."""
    value = cell.default
    if not cell.is_text_form:
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (int, float)):
        text = convert.decimal_text(value, None)
        if cell.column.kind is Kind.DECIMAL and cell.column.scale:
            return convert.decimal_text(text, cell.column.scale)
        return text
    return value


def is_padded(column: Column) -> bool:
    """char(n) of PostgreSQL: the spaces at its end mean nothing."""
    return column.type.startswith(("character(", "char(", "bpchar"))


def ratio_of(cell: Cell) -> Fraction:
    if cell.unit is None:
        return Fraction(1)
    canonical = "s" if cell.field.type is Type.DURATION else cell.field.unit
    ratio = factor(cell.unit, None if cell.field.type is Type.MONEY else canonical)
    if ratio is None:
        raise Unfit(f"unit {cell.unit!r} does not convert to {canonical!r}", "Use a unit of the same kind.")
    return ratio


def listed(values: Sequence[str]) -> Convert:
    """Passes the values of an enum. The refusal names them, as long as they are few: they are no row's."""
    named = f" ({', '.join(values)})" if len(values) <= NAMED_VALUES_MAX else ""
    return lookup({value: value for value in values}, f"a value that the dictionary does not list{named}")


def lookup(known: Mapping[Any, Any], reason: str) -> Convert:
    def look(value: Any) -> Any:
        try:
            return known[value]
        except KeyError:
            raise Loss(reason) from None

    return look
