"""From a field to a column: Python for the wire value of a canonical value."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from crosswalk import convert, lists
from crosswalk.carry import (
    NUMBERS,
    NUMERIC_KINDS,
    TEXT_KINDS,
    Cell,
    Convert,
    Names,
    Unfit,
    check_carrier,
    default_wire,
    element_cell,
    is_padded,
    lookup,
    ratio_of,
    spellings,
)
from crosswalk.convert import Loss, Memo
from crosswalk.units import UNIX_UNITS
from engine.model.entity import Type
from engine.model.table import Column, Form, Kind

# What the dictionary's times have at most.
SECOND_DIGITS = 6
_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "int2": 16, "smallserial": 16, "mediumint": 24, "integer": 32,
                 "int": 32, "int4": 32, "serial": 32, "bigint": 64, "int8": 64, "bigserial": 64}  # fmt: skip


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
    is_dropping = cell.truncate or (cell.is_text_form and is_padded(column))
    if type_ is Type.TEXT and column.kind is Kind.TEXT and not is_dropping:
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
    if type_ is Type.TIMESTAMP and column.kind is Kind.INSTANT and cell.is_text_form and not _is_coarse(cell):
        return "{v}"
    if type_ is Type.REFERENCE and cell.is_text_form and column.kind is not Kind.BINARY:
        return "{v}"
    if not cell.is_text_form and type_ in (Type.DECIMAL, Type.MONEY, Type.DURATION):
        return f"({names.bind(Memo(function))}[{{v}}] if {{v}} is not None else None)"
    return needs


def second_digits(cell: Cell) -> int | None:
    """How many digits of a second's fraction the column keeps; None: nobody counts."""
    if cell.unit in UNIX_UNITS:
        return len(str(UNIX_UNITS[cell.unit])) - 1 if cell.column.kind is Kind.INTEGER else None
    return cell.column.scale if cell.column.kind in (Kind.TIME, Kind.TIMESTAMP, Kind.INSTANT) else None


def _is_coarse(cell: Cell) -> bool:
    """Whether the column keeps less of a second than the dictionary's times have."""
    digits = second_digits(cell)
    return digits is not None and digits < SECOND_DIGITS


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
        return lookup(_writable_values(cell), "a value that the mapping's `values` do not give")
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
        return lookup(known, "a state that the mapping's `values` do not give")
    if cell.column.kind in (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT):
        raise Unfit(
            f"a column of type {cell.column.type} wants the time of a deletion, which a record does not have",
            "Add read_only = true, or map a column that says yes or no.",
        )
    if cell.is_text_form:
        yes, no = ("t", "f") if cell.column.kind is Kind.BOOLEAN else ("1", "0")
        return lookup({True: no, False: yes}, "no boolean")
    return lookup({True: 0, False: 1}, "no boolean")


def _writable_values(cell: Cell) -> dict[Any, Any]:
    """Canonical → wire; of several column values with one meaning the first listed is written."""
    assert cell.values is not None
    found: dict[Any, Any] = {}
    for key, canonical in cell.values.items():
        found.setdefault(canonical, spellings(key, cell)[0])
    return found


def _unix_writer(cell: Cell, finish: Convert, value: str) -> Any:
    moment = f"{value} 00:00:00+00" if cell.field.type is Type.DATE else value
    digits = second_digits(cell)
    if digits is not None:
        moment = convert.fit_second(moment, digits, truncate=cell.truncate)
    assert cell.unit is not None
    return finish(convert.instant_to_unix(moment, UNIX_UNITS[cell.unit]))


def _number_field_writer(cell: Cell) -> Convert:
    ratio = 1 / ratio_of(cell)
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
    if cell.column.kind in (Kind.DECIMAL, Kind.INTERVAL) and cell.column.scale is not None:
        return cell.column.scale
    return 12


def number_writer(cell: Cell) -> Convert:
    """Decimal text → the column's wire value, if the column holds exactly that."""
    column = cell.column
    kind = column.kind
    if kind is Kind.INTERVAL and cell.is_text_form:
        digits = column.scale
        return lambda text: convert.seconds_interval(
            convert.decimal_text(convert.fit_decimal(text, None, digits), None)
        )
    if kind is Kind.INTEGER:
        low, high = integer_range(column, cell.form)
        exact = partial(_integer_between, low, high)
        return (lambda text: str(exact(text))) if cell.is_text_form else exact
    if kind in TEXT_KINDS and (cell.is_text_form or kind is Kind.TEXT):
        return lambda text: text if column.length is None else convert.fit_text(text, column.length)
    digits = 6 if column.type in ("real", "float4") and cell.is_text_form else 15
    if kind is Kind.FLOAT:
        if cell.is_text_form:
            return partial(_float_wire, digits)
        return lambda text: convert.fit_float(text, digits)
    precision, scale = column.precision, column.scale
    if cell.is_text_form and precision is not None:
        # Spelt as the column will spell it, so that an echo is compared by its text.
        return lambda text: convert.decimal_text(convert.fit_decimal(text, precision, scale), scale)
    if cell.is_text_form:
        return lambda text: text
    return partial(_native_decimal, precision, scale)


def _integer_between(low: int, high: int, text: Any) -> int:
    return convert.fit_integer(convert.integer(text), low, high)


def _float_wire(digits: int, text: str) -> str:
    # Spelt as the column will spell it, so that an echo is compared by its text.
    convert.fit_float(text, digits)
    return convert.decimal_text(text, None)


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
            return lookup(known, "no boolean")
        case Type.DATE:
            if column.kind is Kind.TIMESTAMP:
                return lambda value: value if value in ("infinity", "-infinity") else f"{value} 00:00:00"
            return lambda value: value
        case Type.TIME | Type.TIMESTAMP:
            write = _timestamp_writer(cell) if cell.field.type is Type.TIMESTAMP else _as_it_is
            digits = second_digits(cell)
            if digits is None or not _is_coarse(cell):
                return write
            return lambda value: write(convert.fit_second(value, digits, truncate=cell.truncate))
        case Type.REFERENCE:
            return key_writer(column, cell.form)
        case Type.BINARY:
            return (lambda value: f"\\x{value}") if cell.is_text_form else _bytes
        case Type.ENUM:
            return _text_writer(cell)
        case Type.LIST if column.kind is Kind.ARRAY:
            return lists.array_writer(writer_of(element_cell(cell)))
        case Type.LIST:
            return _text_writer(cell)
        case _:
            return lambda value: value


def _as_it_is(value: Any) -> Any:
    return value


def _text_writer(cell: Cell) -> Convert:
    column = cell.column
    if column.kind in NUMERIC_KINDS:
        return number_text_writer(cell)
    if column.kind is Kind.BOOLEAN:
        known: dict[Any, Any] = {"true": "t", "false": "f"} if cell.is_text_form else {"true": 1, "false": 0}
        return lookup(known, "text that is no boolean")
    labels = frozenset(column.labels) if column.kind is Kind.ENUM and column.labels else None
    length, truncate, padded = column.length, cell.truncate, cell.is_text_form and is_padded(column)

    def write(value: str) -> str:
        if labels is not None and value not in labels:
            raise Loss("a value that the column's type does not list")
        if length is not None and len(value) > length:
            value = value[:length] if truncate else convert.fit_text(value, length)
        if padded and value[-1:] == " ":
            if not truncate:
                raise Loss("spaces at the end, which the column's type drops")
            return value.rstrip(" ")
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
