"""Which conversion carries a field to and from a column: decided once per shape, written as Python source.

For each field and column there is a function that does everything and refuses everything else. Where a value usually
needs nothing, or nearly so, the function hides behind an inline test, so that the usual row never calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from crosswalk import convert
from crosswalk.convert import Loss, Memo
from crosswalk.units import CODE_LISTS, UNIX_UNITS, factor
from engine.model.entity import Field, Type
from engine.model.table import Column, Form, Kind
from engine.model.value import ABSENT

Convert = Callable[[Any], Any]

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
}  # fmt: skip
LOOSE_KINDS = (Kind.OTHER, Kind.TEXT, Kind.DECIMAL)

_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "int2": 16, "smallserial": 16, "mediumint": 24, "integer": 32,
                 "int": 32, "int4": 32, "serial": 32, "bigint": 64, "int8": 64, "bigserial": 64}  # fmt: skip


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
            f"a column of type {cell.column.type} cannot carry a {type_.value}",
            _carrier_hint(cell),
        )
    if type_ is Type.TIMESTAMP and not cell.soft_delete and cell.values is None and cell.unit not in UNIX_UNITS:
        if kind is not Kind.INSTANT and cell.zone is None:
            raise Unfit(
                f"a column of type {cell.column.type} does not say which zone its times are in",
                'Add timezone = "UTC", or the zone its application writes in, to the field or to the file.',
            )


def _carrier_hint(cell: Cell) -> str:
    kind, type_ = cell.column.kind, cell.field.type
    if type_ is Type.DATE and kind is Kind.INSTANT:
        return "Say which zone's day is meant: read = \"cast(… at time zone '…' as date)\"."
    if type_ in (Type.BOOLEAN, Type.ENUM):
        return "Say what each of the column's values means with values = { … }."
    if type_ is Type.TIMESTAMP and kind in NUMERIC_KINDS:
        return 'Add unit = "unix", "unix_ms" or "unix_us" if it counts since 1970.'
    return "Map another column, or convert it with read = and write =."


# ------------------------------------------------------------------------------------------------ reading


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
        base = _lookup(_readable_values(cell), "a value that the mapping's `values` do not list")
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
            return _lookup(known, "a value that is no boolean")
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
            return _lookup({value: value for value in cell.field.values}, "a value that the dictionary does not list")
        case Type.REFERENCE:
            return key_reader(cell.column, cell.form)
        case Type.JSON:
            return _of_text(convert.json_text, "a number where JSON is wanted")
        case Type.BINARY:
            return convert.hex_of_bytea if cell.is_text_form else convert.hex_of_bytes
        case _:
            raise AssertionError(cell.field.type)


def _text_reader(cell: Cell) -> Convert:
    column, unit, length = cell.column, cell.field.unit, cell.field.length
    is_boolean = cell.is_text_form and column.kind is Kind.BOOLEAN
    padded = is_padded(column)

    def read(value: Any) -> str:
        text = convert.text_of(value)
        if is_boolean:
            text = {"t": "true", "f": "false"}.get(text, text)
        if padded:
            text = text.rstrip(" ")
        if unit in CODE_LISTS and text not in CODE_LISTS[unit]:
            raise Loss(f"a code that {unit} does not list")
        return text if length is None else convert.fit_text(text, length)

    return read


def _number_reader(cell: Cell) -> Convert:
    """Number → unit → rounding → the field's spelling."""
    ratio = _ratio(cell)
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
        is_deleted = _lookup(_readable_values(cell), "a value that the mapping's `values` do not list")
        return lambda value: not is_deleted(value)
    if cell.column.kind in (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT):
        return lambda value: False
    known = {"f": True, "t": False, "0": True, "1": False} if cell.is_text_form else {0: True, 1: False}
    return _lookup(known, "a value that does not say whether the row is deleted")


def _readable_values(cell: Cell) -> dict[Any, Any]:
    """`values` by wire value. TOML's keys are texts; a column may hold numbers or booleans."""
    assert cell.values is not None
    found: dict[Any, Any] = {}
    for key, canonical in cell.values.items():
        for wire in _spellings(key, cell):
            found.setdefault(wire, canonical)
    return found


def _spellings(key: str, cell: Cell) -> list[Any]:
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


def _may_exceed(column: Column, length: int | None) -> bool:
    return length is not None and (column.length is None or column.length > length)


def _ratio(cell: Cell) -> Fraction:
    if cell.unit is None:
        return Fraction(1)
    canonical = "s" if cell.field.type is Type.DURATION else cell.field.unit
    ratio = factor(cell.unit, None if cell.field.type is Type.MONEY else canonical)
    if ratio is None:
        raise Unfit(f"unit {cell.unit!r} does not convert to {canonical!r}", "Use a unit of the same kind.")
    return ratio


def _lookup(known: Mapping[Any, Any], reason: str) -> Convert:
    def look(value: Any) -> Any:
        try:
            return known[value]
        except KeyError:
            raise Loss(reason) from None

    return look


def _of_text(function: Convert, reason: str) -> Convert:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise Loss(reason)
        return function(value)

    return read


def _passing(function: Convert) -> Convert:
    return lambda value: value if value is None or value is ABSENT else function(value)


# --------------------------------------------------------------------------------------------------- keys


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


def key_writer(column: Column, form: Form) -> Convert:
    """Key text as the column's wire value."""
    if form is Form.TEXT:
        return (lambda text: f"\\x{text}") if column.kind is Kind.BINARY else (lambda text: text)
    match column.kind:
        case Kind.INTEGER:
            return _native_integer
        case Kind.DECIMAL | Kind.FLOAT | Kind.OTHER:
            return _loose_number
        case Kind.BINARY:
            return _bytes
        case _:
            return lambda text: text


def _native_integer(text: Any) -> int:
    return convert.fit_integer(convert.integer(text), -(2**63), 2**63 - 1)


def _loose_number(text: str) -> int | float | str:
    """A column without a declared type holds what is put in: numbers as numbers, or the key would not be found."""
    try:
        plain = convert.decimal_text(text, None)
    except Loss:
        return text
    if plain != text:
        return text
    return convert.fit_float(text, 15) if "." in text else int(text)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Loss("text that is no hexadecimal") from None


# ------------------------------------------------------------------------------------------------ writing


def writing_code(cell: Cell, names: Names) -> str:
    """Python for the wire value of the canonical value `{v}`."""
    check_carrier(cell)
    function = writer_of(cell)
    type_, column = cell.field.type, cell.column
    f = names.bind(function)
    null = "None" if cell.default is None else names.bind(default_wire(cell))
    needs = f"({f}({{v}}) if {{v}} is not None else {null})"
    if cell.has_extras or type_ is Type.BOOLEAN:
        # `null` has its own place: True, 1 and "1" never meet in one column of canonical values.
        memo = Memo(function)
        return f"({names.bind(memo)}[{{v}}] if {{v}} is not None else {null})"
    if type_ is Type.TEXT and column.kind is Kind.TEXT and not cell.truncate:
        if column.length is None or (cell.field.length is not None and cell.field.length <= column.length):
            return "{v}"
        return f"({{v}} if {{v}} is None or len({{v}}) <= {column.length} else {f}({{v}}))"
    if type_ is Type.ENUM and column.kind in (*TEXT_KINDS, Kind.ENUM) and _labels_fit(cell):
        return "{v}"
    if type_ is Type.INTEGER and column.kind is Kind.INTEGER:
        low, high = integer_range(column, cell.form)
        inside = f"{{v}} is not None and {low} <= {{v}} <= {high}"
        return f"({'str({v})' if cell.is_text_form else '{v}'} if {inside} else {needs})"
    if type_ in (Type.DECIMAL, Type.MONEY) and column.kind is Kind.DECIMAL and cell.is_text_form:
        if column.precision is None:
            return "{v}"
        if column.scale == cell.field.scale is not None:
            # Digits, point and sign of a number that surely fits; a longer text is looked at.
            return f"({{v}} if {{v}} is None or len({{v}}) <= {_digits_text_size(column)} else {f}({{v}}))"
    if type_ is Type.DATE and column.kind is Kind.DATE:
        return "{v}"
    if type_ is Type.TIMESTAMP and column.kind is Kind.INSTANT and cell.is_text_form:
        return "{v}"
    if type_ is Type.REFERENCE and cell.is_text_form and column.kind is not Kind.BINARY:
        return "{v}"
    if not cell.is_text_form and type_ in (Type.DECIMAL, Type.MONEY, Type.DURATION):
        return f"({names.bind(Memo(function))}[{{v}}] if {{v}} is not None else None)"
    return needs


def _digits_text_size(column: Column) -> int:
    assert column.precision is not None
    scale = column.scale or 0
    return column.precision + (1 if scale else 0) if column.precision > scale else 0


def _labels_fit(cell: Cell) -> bool:
    column = cell.column
    if column.kind is Kind.ENUM and column.labels and not set(cell.field.values) <= set(column.labels):
        return False
    return column.length is None or all(len(value) <= column.length for value in cell.field.values)


def writer_of(cell: Cell) -> Convert:
    """The whole conversion of a canonical value that is not null."""
    if cell.soft_delete:
        return _soft_delete_writer(cell)
    if cell.values is not None:
        return _lookup(_writable_values(cell), "a value that the mapping's `values` do not give")
    if cell.unit in UNIX_UNITS:
        return partial(_unix_writer, cell, number_writer(cell))
    if cell.field.type in NUMBERS:
        return _number_field_writer(cell)
    base = _plain_writer(cell)
    if cell.default is None:
        return base
    standing = default_wire(cell)

    def write(value: Any) -> Any:
        wire = base(value)
        if wire == standing:
            raise Loss("the value that stands for null in the column")
        return wire

    return write


def _soft_delete_writer(cell: Cell) -> Convert:
    if cell.values is not None:
        known = {(not deleted): wire for deleted, wire in _writable_values(cell).items()}
        return _lookup(known, "a state that the mapping's `values` do not give")
    if cell.column.kind in (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT):
        raise Unfit(
            f"a column of type {cell.column.type} wants the time of a deletion, which a record does not have",
            "Add read_only = true, or map a column that says yes or no.",
        )
    if cell.is_text_form:
        yes, no = ("t", "f") if cell.column.kind is Kind.BOOLEAN else ("1", "0")
        return _lookup({True: no, False: yes}, "no boolean")
    return _lookup({True: 0, False: 1}, "no boolean")


def _writable_values(cell: Cell) -> dict[Any, Any]:
    """Canonical → wire; of several column values with one meaning the first listed is written."""
    assert cell.values is not None
    found: dict[Any, Any] = {}
    for key, canonical in cell.values.items():
        found.setdefault(canonical, _spellings(key, cell)[0])
    return found


def _unix_writer(cell: Cell, finish: Convert, value: str) -> Any:
    moment = f"{value} 00:00:00+00" if cell.field.type is Type.DATE else value
    assert cell.unit is not None
    return finish(convert.instant_to_unix(moment, UNIX_UNITS[cell.unit]))


def _number_field_writer(cell: Cell) -> Convert:
    ratio = 1 / _ratio(cell)
    finish = number_writer(cell)
    decimals = _column_decimals(cell) if cell.round is not None else None
    standing = None if cell.default is None else default_wire(cell)

    def write(value: Any) -> Any:
        text = str(value)
        if ratio != 1:
            text = convert.scaled(text, ratio, decimals)
        elif decimals is not None:
            text = convert.rounded(text, decimals)
        wire = finish(text)
        if standing is not None and wire == standing:
            raise Loss("the value that stands for null in the column")
        return wire

    return write


def _column_decimals(cell: Cell) -> int | None:
    """How many decimals the column holds, for `round`; None: as many as there are (then 15 for endless ones)."""
    if cell.column.kind is Kind.INTEGER:
        return 0
    if cell.column.kind is Kind.DECIMAL and cell.column.scale is not None:
        return cell.column.scale
    return 12


def number_writer(cell: Cell) -> Convert:
    """Decimal text → the column's wire value, if the column holds exactly that."""
    column = cell.column
    kind = column.kind
    if kind is Kind.INTERVAL and cell.is_text_form:
        return lambda text: convert.seconds_interval(convert.decimal_text(text, None))
    if kind is Kind.INTEGER:
        low, high = integer_range(column, cell.form)
        exact = lambda text: convert.fit_integer(convert.integer(text), low, high)  # noqa: E731
        return (lambda text: str(exact(text))) if cell.is_text_form else exact
    if kind in TEXT_KINDS and (cell.is_text_form or kind is Kind.TEXT):
        return lambda text: text if column.length is None else convert.fit_text(text, column.length)
    digits = 6 if column.type in ("real", "float4") and cell.is_text_form else 15
    if kind is Kind.FLOAT:
        if cell.is_text_form:
            return partial(_float_wire, digits)
        return lambda text: convert.fit_float(text, digits)
    precision, scale = column.precision, column.scale
    if cell.is_text_form:
        return lambda text: convert.fit_decimal(text, precision, scale if precision is not None else None)
    return partial(_native_decimal, precision, scale)


def _float_wire(digits: int, text: str) -> str:
    convert.fit_float(text, digits)
    return text


def _native_decimal(precision: int | None, scale: int | None, text: str) -> int | float:
    plain = convert.decimal_text(convert.fit_decimal(text, precision, scale), None)
    if "." in plain:
        return convert.fit_float(plain, 15)
    return convert.fit_integer(int(plain), -(2**63), 2**63 - 1)


def integer_range(column: Column, form: Form) -> tuple[int, int]:
    """The column's least and greatest integer, from its type's name."""
    words = re.split(r"[ (]", column.type.lower())
    bits = 64 if form is Form.NATIVE else _INTEGER_BITS.get(words[0], 64)
    return (0, 2**bits - 1) if "unsigned" in words else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _plain_writer(cell: Cell) -> Convert:
    column = cell.column
    match cell.field.type:
        case Type.TEXT:
            return _text_writer(cell)
        case Type.BOOLEAN:
            if cell.is_text_form:
                known: dict[bool, Any] = {True: "t", False: "f"}
                if column.kind is not Kind.BOOLEAN:
                    known = {True: "1", False: "0"}
            else:
                known = {True: 1, False: 0}
            return _lookup(known, "no boolean")
        case Type.DATE:
            if column.kind is Kind.TIMESTAMP:
                return lambda value: value if value in ("infinity", "-infinity") else f"{value} 00:00:00"
            return lambda value: value
        case Type.TIMESTAMP:
            return _timestamp_writer(cell)
        case Type.REFERENCE:
            return key_writer(column, cell.form)
        case Type.BINARY:
            return (lambda value: f"\\x{value}") if cell.is_text_form else _bytes
        case Type.ENUM:
            return _text_writer(cell)
        case _:
            return lambda value: value


def _text_writer(cell: Cell) -> Convert:
    column = cell.column
    if column.kind in NUMERIC_KINDS:
        return number_text_writer(cell)
    if column.kind is Kind.BOOLEAN:
        known: dict[Any, Any] = {"true": "t", "false": "f"} if cell.is_text_form else {"true": 1, "false": 0}
        return _lookup(known, "text that is no boolean")
    labels = frozenset(column.labels) if column.kind is Kind.ENUM and column.labels else None
    length, truncate = column.length, cell.truncate

    def write(value: str) -> str:
        if labels is not None and value not in labels:
            raise Loss("a value that the column's type does not list")
        if length is not None and len(value) > length:
            return value[:length] if truncate else convert.fit_text(value, length)
        return value

    return write


def number_text_writer(cell: Cell) -> Convert:
    finish = number_writer(cell)
    return lambda value: finish(convert.decimal_text(value, None))


def _timestamp_writer(cell: Cell) -> Convert:
    zone = cell.zone
    if cell.column.kind is Kind.INSTANT:
        return (lambda value: value) if cell.is_text_form else (lambda value: value.replace("+00", "+00:00", 1))
    assert zone is not None, "check_carrier asked for it"
    return lambda value: value if value in ("infinity", "-infinity") else convert.local_text(value, zone)
