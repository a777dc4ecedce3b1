"""From a column to a field: Python for the canonical value of a wire value."""

from __future__ import annotations

from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from crosswalk import convert, lists
from crosswalk.carry import (
    NUMBERS,
    TEXT_KINDS,
    Cell,
    Convert,
    Names,
    check_carrier,
    default_wire,
    element_cell,
    is_padded,
    listed,
    lookup,
    ratio_of,
    spellings,
)
from crosswalk.convert import Loss, Memo
from crosswalk.units import CODE_LISTS, UNIX_UNITS
from engine.model.entity import Field, Type
from engine.model.table import Column, Form, Kind
from engine.model.value import ABSENT


def reading_code(cell: Cell, names: Names) -> str:
    """Python for the canonical value of the wire value `{v}`; null and ABSENT stay what they are."""
    check_carrier(cell)
    function = reader_of(cell)
    if cell.has_extras:
        return f"{names.bind(Memo(_passing(function)))}[{{v}}]"
    return _text_form_code(cell, function, names) if cell.is_text_form else _native_code(cell, function, names)


def reader_of(cell: Cell) -> Convert:
    """The whole conversion of a wire value that is there; None from it means null."""
    if cell.soft_delete:
        base = _soft_delete_reader(cell)
    elif cell.values is not None:
        base = lookup(_readable_values(cell), "a value that the mapping's `values` do not list")
    elif cell.unit in UNIX_UNITS:
        base = partial(_unix_reader, UNIX_UNITS[cell.unit], cell.field.type)
    elif cell.field.type in NUMBERS:
        base = _number_reader(cell)
    else:
        base = _plain_reader(cell)
    if cell.default is None:
        return base
    standing = default_wire(cell)
    return lambda value: None if value == standing else base(value)


def _text_form_code(cell: Cell, function: Convert, names: Names) -> str:
    """Values are str, null or ABSENT: what a database spells canonically by itself is let through."""
    type_, column = cell.field.type, cell.column
    kind = column.kind
    f = names.bind(function)
    needs = f"({f}({{v}}) if {{v}}.__class__ is str else {{v}})"
    if type_ is Type.TEXT and kind in (*TEXT_KINDS, Kind.ENUM, Kind.UUID) and not is_padded(column):
        if cell.field.unit is None and not _may_exceed(column, cell.field.length):
            return "{v}"
        if cell.field.unit is None:
            return f"({{v}} if {{v}}.__class__ is not str or len({{v}}) <= {cell.field.length} else {f}({{v}}))"
    if type_ is Type.INTEGER and kind is Kind.INTEGER:
        return "(int({v}) if {v}.__class__ is str else {v})"
    if type_ in (Type.DECIMAL, Type.MONEY) and kind is Kind.DECIMAL and column.scale == cell.field.scale is not None:
        return f"({{v}} if {{v}} != 'NaN' else {f}({{v}}))"
    if type_ is Type.BOOLEAN or (type_ is Type.TEXT and cell.field.unit is not None) or type_ is Type.ENUM:
        return f"{names.bind(Memo(_passing(function)))}[{{v}}]"
    if type_ in (Type.DECIMAL, Type.MONEY, Type.DURATION):
        return f"{names.bind(Memo(_passing(function)))}[{{v}}]"
    if type_ is Type.DATE and kind is Kind.DATE:
        return "{v}"
    if type_ is Type.TIME and kind is Kind.TIME and "with time zone" not in column.type and column.type != "timetz":
        return "{v}"
    if type_ is Type.TIMESTAMP and kind is Kind.INSTANT:
        return f"({{v}} if {{v}}.__class__ is not str or {{v}}[-3:] == '+00' else {f}({{v}}))"
    if type_ is Type.REFERENCE and kind in (Kind.INTEGER, Kind.UUID, *TEXT_KINDS) and not is_padded(column):
        return "{v}"
    return needs


def _native_code(cell: Cell, function: Convert, names: Names) -> str:
    """Values are of any Python type; the expected one is tested for."""
    type_ = cell.field.type
    if type_ in (Type.BOOLEAN, Type.ENUM, Type.DECIMAL, Type.MONEY, Type.DURATION, Type.DATE):
        # 1, 1.0 and True are one key of a memo; for these types they also mean one thing.
        return f"{names.bind(Memo(_passing(function)))}[{{v}}]"
    f = names.bind(function)
    careful = f"({{v}} if {{v}} is None or {{v}} is ABSENT else {f}({{v}}))"
    if type_ is Type.TEXT and cell.field.unit is None:
        limit = "" if cell.field.length is None else f" and len({{v}}) <= {cell.field.length}"
        return f"({{v}} if {{v}}.__class__ is str{limit} else {careful})"
    if type_ is Type.INTEGER:
        return f"({{v}} if {{v}}.__class__ is int else {careful})"
    if type_ is Type.REFERENCE:
        return f"({{v}} if {{v}}.__class__ is str else str({{v}}) if {{v}}.__class__ is int else {careful})"
    return careful


def _plain_reader(cell: Cell) -> Convert:
    match cell.field.type:
        case Type.TEXT:
            return _text_reader(cell)
        case Type.BOOLEAN:
            known = {"t": True, "f": False, "1": True, "0": False} if cell.is_text_form else {1: True, 0: False}
            return lookup(known, "a value that is no boolean")
        case Type.DATE:
            if cell.is_text_form and cell.column.kind is Kind.TIMESTAMP:
                return convert.day_of_timestamp
            return _of_text(convert.date_text, "a number where a date is wanted")
        case Type.TIME:
            return _of_text(convert.time_text, "a number where a time is wanted")
        case Type.TIMESTAMP:
            zone = None if cell.column.kind is Kind.INSTANT and cell.is_text_form else cell.zone
            return _of_text(partial(_instant, zone), "a number where a timestamp is wanted")
        case Type.ENUM:
            return listed(cell.field.values)
        case Type.REFERENCE:
            return key_reader(cell.column, cell.form)
        case Type.LIST:
            element = element_cell(cell)
            make = lists.array_reader if cell.column.kind is Kind.ARRAY else lists.json_reader
            return make(element.field.type, reader_of(element))
        case Type.JSON:
            return _of_text(convert.json_text, "a number where JSON is wanted")
        case Type.BINARY:
            return convert.hex_of_bytea if cell.is_text_form else convert.hex_of_bytes
        case _:
            raise AssertionError(cell.field.type)


def _text_reader(cell: Cell) -> Convert:
    column, check = cell.column, text_checks(cell.field)
    is_boolean = cell.is_text_form and column.kind is Kind.BOOLEAN
    padded = is_padded(column)

    def read(value: Any) -> str:
        text = convert.text_of(value)
        if is_boolean:
            text = {"t": "true", "f": "false"}.get(text, text)
        return check(text.rstrip(" ") if padded else text)

    return read


def text_checks(field: Field) -> Convert:
    """The text, if the dictionary allows it for the field."""
    unit, length = field.unit, field.length

    def check(text: str) -> str:
        if unit in CODE_LISTS and text not in CODE_LISTS[unit]:
            raise Loss(f"a code that {unit} does not list")
        return text if length is None else convert.fit_text(text, length)

    return check


def _number_reader(cell: Cell) -> Convert:
    """Number → unit → rounding → the field's spelling."""
    ratio = ratio_of(cell)
    finish = number_finisher(cell.field)
    decimals = cell.round
    is_interval = cell.is_text_form and cell.column.kind is Kind.INTERVAL

    def read(value: Any) -> Any:
        if isinstance(value, bytes):
            raise Loss("binary where a number is wanted")
        text = convert.interval_seconds(value) if is_interval else convert.decimal_text(value, None)
        if ratio != 1:
            text = convert.scaled(text, ratio)
        if decimals is not None:
            text = convert.rounded(text, decimals)
        return finish(text)

    return read


def number_finisher(field: Field) -> Convert:
    """Decimal text → the canonical value of a number field."""
    if field.type is Type.INTEGER:
        return convert.integer
    scale = field.scale
    return lambda text: convert.decimal_text(text, scale)


def _unix_reader(ticks: int, type_: Type, value: Any) -> str:
    if isinstance(value, bytes):
        raise Loss("binary where a number is wanted")
    text = convert.unix_to_instant(value, ticks)
    return convert.day_of_timestamp(text.removesuffix("+00")) if type_ is Type.DATE else text


def _instant(zone: ZoneInfo | None, value: str) -> str:
    return convert.instant_text(value, zone)


def _soft_delete_reader(cell: Cell) -> Convert:
    """`alive` from a column that says "deleted". A null there was never deleted; see `reading_alive_code`."""
    if cell.values is not None:
        is_deleted = lookup(_readable_values(cell), "a value that the mapping's `values` do not list")
        return lambda value: not is_deleted(value)
    if cell.column.kind in (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT):
        return lambda value: False
    known = {"f": True, "t": False, "0": True, "1": False} if cell.is_text_form else {0: True, 1: False}
    return lookup(known, "a value that does not say whether the row is deleted")


def _readable_values(cell: Cell) -> dict[Any, Any]:
    """`values` by wire value. TOML's keys are texts; a column may hold numbers or booleans."""
    assert cell.values is not None
    found: dict[Any, Any] = {}
    for key, canonical in cell.values.items():
        for wire in spellings(key, cell):
            found.setdefault(wire, canonical)
    return found


def _may_exceed(column: Column, length: int | None) -> bool:
    return length is not None and (column.length is None or column.length > length)


def _of_text(function: Convert, reason: str) -> Convert:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise Loss(reason)
        return function(value)

    return read


def _passing(function: Convert) -> Convert:
    return lambda value: value if value is None or value is ABSENT else function(value)


def key_reader(column: Column, form: Form) -> Convert:
    """A key or reference column's value as text; one spelling whatever the column's kind."""
    if column.kind in (Kind.DECIMAL, Kind.FLOAT):
        return _key_of_number
    if is_padded(column):
        return lambda value: convert.key_text(value).rstrip(" ")
    if form is Form.TEXT and column.kind is Kind.BINARY:
        return convert.hex_of_bytea
    return convert.key_text


def _key_of_number(value: Any) -> str:
    return convert.numeric_key_text(value)
