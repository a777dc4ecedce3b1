"""Values between `Form.TEXT` and SQL.

What the server would take and turn into something else is refused here, by the column's name: a number where a label is
wanted counts as the label's place, a year of two digits gets a century, what is behind a column's last digit is rounded
off, spaces at the end of a char vanish. Strict mode says nothing about these.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from engine.model.table import Column, Kind
from plugins.mysql.catalog import fraction_digits, type_labels, type_word
from plugins.mysql.connect import Connection, quoted
from plugins.mysql.spell import double_text, float_text

_INTEGER: Final = re.compile(r"-?\d{1,20}")
_DECIMAL: Final = re.compile(r"-?(?:\d+(?:\.(\d*))?|\.(\d+))")
_FLOAT: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIME: Final = re.compile(r"-?\d{1,3}:\d\d:\d\d(?:\.(\d{1,6}))?")
_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,6}))?")
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:(Z)|([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?)"
)
_HEX: Final = re.compile(r"\\x((?:[0-9a-fA-F]{2})*)")
_CHARACTERS: Final = frozenset(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"))
SIZE_MAX: Final = 2**32 - 1
_SIZES: Final = {"tinytext": 2**8 - 1, "text": 2**16 - 1, "mediumtext": 2**24 - 1}
_YEARS: Final = range(1901, 2156)


class Unfit(Exception):
    """A value that the column cannot hold as it is. The text says what is wrong and nothing of the value."""


Spell = Callable[[str], str]


def speller(connection: Connection, column: Column) -> Spell:
    """A function from a wire value of the column to SQL that means exactly this value. It raises `Unfit`."""
    literal = connection.literal
    word = type_word(column.type)
    match column.kind:
        case Kind.INTEGER:
            return _spell_year if word == "year" else _spell_integer
        case Kind.DECIMAL:
            scale = column.scale or 0
            return lambda text: _spell_decimal(text, scale)
        case Kind.FLOAT if word == "float":
            return lambda text: literal(_single(_fit(_FLOAT, text, "no number that the type has")))
        case Kind.FLOAT:
            return lambda text: literal(_fit(_FLOAT, text, "no number that the type has"))
        case Kind.BOOLEAN:
            return _spell_boolean
        case Kind.DATE:
            return lambda text: literal(_fit(_DATE, text, "no date that the type has"))
        case Kind.TIME | Kind.TIMESTAMP:
            pattern = _TIME if column.kind is Kind.TIME else _TIMESTAMP
            digits = fraction_digits(column.type)
            return lambda text: literal(_fit_fraction(pattern, text, digits))
        case Kind.INSTANT:
            digits = fraction_digits(column.type)
            return lambda text: literal(_utc(text, digits))
        case Kind.BINARY:
            return _spell_bytes
        case Kind.ENUM:
            labels = frozenset(column.labels)
            return lambda text: literal(_label(text, labels))
        case _:
            if word == "set":
                members = frozenset(type_labels(column.type))
                return lambda text: literal(_members(text, members))
            if word == "char":
                return lambda text: literal(_unpadded(text))
            size = _SIZES.get(word, SIZE_MAX) if column.length is None else column.length
            return lambda text: literal(_uncut(text, size, is_bytes=column.length is None))


def key_condition(connection: Connection, column: Column) -> Spell:
    """A function from a key's wire value to the condition for the row of exactly this key.

    A column's collation takes 'abc' for 'ABC', and spaces at the end for nothing. An index answers the first half, the
    second keeps a change of one record from the row of another.
    """
    spell, name = ordered_speller(connection, column), ordered(column)
    if not is_text(column):
        return lambda text: f"{name} = {spell(text)}"

    def exactly(text: str) -> str:
        exact = text.encode().hex()
        return f"{name} = {spell(text)} and cast(convert({name} using utf8mb4) as binary) = x'{exact}'"

    return exactly


def is_text(column: Column) -> bool:
    """Whether a collation decides which of its values are alike."""
    return type_word(column.type) in _CHARACTERS


def ordered(column: Column) -> str:
    """An expression that orders rows by the column and that values of `ordered_speller` are compared with. The column
    itself, but for types whose order and comparison are not the same or that a text is not compared with as itself."""
    name, word = quoted(column.name), type_word(column.type)
    if word in ("enum", "set"):
        return f"cast(convert({name} using utf8mb4) as binary)"
    return f"{name} + 0" if word in ("bit", "year") else name


def ordered_speller(connection: Connection, column: Column) -> Spell:
    """`speller` of a value that `ordered` is compared with. It raises `Unfit`."""
    word = type_word(column.type)
    if word in ("enum", "set"):
        return lambda text: f"x'{text.encode().hex()}'"
    if column.kind is Kind.BOOLEAN:
        return lambda text: "1" if text == "t" else "0"
    if word == "bit":
        return lambda text: str(int(_fit(_HEX, text, "no hexadecimal text of bytes").removeprefix("\\x") or "0", 16))
    return speller(connection, column)


def selected(column: Column) -> str:
    """An expression for the column that `reader` understands."""
    name, word = quoted(column.name), type_word(column.type)
    if column.kind is Kind.BOOLEAN:
        return f"{name} + 0"
    if column.kind is Kind.BINARY:
        return f"hex(cast({name} as binary))" if word != "bit" else f"hex({name})"
    if word == "float":
        # As itself it is spelt with six digits.
        return f"cast({name} as double)"
    return f"cast({name} as char)" if column.kind is Kind.OTHER else name


def reader(column: Column) -> Callable[[str], str] | None:
    """A function from what `selected` gives to the wire value; None where they are the same."""
    word = type_word(column.type)
    match column.kind:
        case Kind.BOOLEAN:
            return lambda text: "f" if text == "0" else "t"
        case Kind.BINARY if word == "bit":
            size = (bit_width(column.type) + 7) // 8 * 2
            return lambda text: "\\x" + text.lower().rjust(size, "0")
        case Kind.BINARY:
            return lambda text: "\\x" + text.lower()
        case Kind.FLOAT if word == "float":
            return lambda text: float_text(float(text))
        case Kind.FLOAT:
            return lambda text: double_text(float(text))
        case Kind.TIME | Kind.TIMESTAMP:
            return _without_zeros
        case Kind.INSTANT:
            return lambda text: _without_zeros(text) + "+00"
        case Kind.INTEGER if word == "year" or "zerofill" in column.type:
            return lambda text: str(int(text))
        case Kind.DECIMAL if "zerofill" in column.type:
            return lambda text: text.lstrip("0") if not text.lstrip("0").startswith(".") else "0" + text.lstrip("0")
        case _:
            return None


def bit_width(declared: str) -> int:
    """Bits of a type bit(n)."""
    found = re.search(r"\((\d+)\)", declared)
    return int(found[1]) if found else 1


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _fit(pattern: re.Pattern[str], text: str, said: str) -> str:
    if pattern.fullmatch(text) is None:
        raise Unfit(f"a value is {said}")
    return text


def _single(text: str) -> str:
    """A number of four bytes, to the last digit: columns of it are compared as doubles."""
    try:
        return repr(struct.unpack("<f", struct.pack("<f", float(text)))[0])
    except OverflowError:
        raise Unfit("a number is out of range") from None


def _spell_integer(text: str) -> str:
    return _fit(_INTEGER, text, "no whole number that the type has")


def _spell_year(text: str) -> str:
    year = int(_fit(_INTEGER, text, "no year"))
    if year and year not in _YEARS:
        raise Unfit("a year is not between 1901 and 2155")
    # As a number 0 is the year 0000, as a text it would be 2000.
    return str(year)


def _spell_decimal(text: str, scale: int) -> str:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise Unfit("a value is no number that the type has")
    if len((found[1] or found[2] or "").rstrip("0")) > scale:
        raise Unfit(f"a number has more than the column's {scale} decimals")
    return text


def _spell_boolean(text: str) -> str:
    if text not in ("t", "f"):
        raise Unfit("a value is no boolean")
    return "b'1'" if text == "t" else "b'0'"


def _spell_bytes(text: str) -> str:
    found = _HEX.fullmatch(text)
    if found is None:
        raise Unfit("a value is no hexadecimal text of bytes")
    return f"x'{found[1]}'"


def _fit_fraction(pattern: re.Pattern[str], text: str, digits: int) -> str:
    found = pattern.fullmatch(text)
    if found is None:
        raise Unfit("a value is no date or time that the type has")
    fraction = found[found.re.groups] or ""
    _check_fraction(fraction, digits)
    return text


def _check_fraction(fraction: str, digits: int) -> None:
    if len(fraction.rstrip("0")) > digits:
        raise Unfit(f"a time has more than the {digits} digits of a second that the column keeps")


def _utc(text: str, digits: int) -> str:
    """The moment in UTC, which is our sessions' time zone."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        raise Unfit("a value is no moment that the type has")
    moment, fraction, zulu, sign, hours, minutes, seconds = found.groups()
    _check_fraction(fraction or "", digits)
    if not zulu and (int(hours) or int(minutes or 0) or int(seconds or 0)):
        offset = timedelta(hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0))
        try:
            local = datetime.fromisoformat(moment).replace(tzinfo=timezone(-offset if sign == "-" else offset))
            moment = local.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        except (ValueError, OverflowError):
            raise Unfit("a value is no moment that the type has") from None
    return moment.replace("T", " ") + (f".{fraction}" if fraction else "")


def _label(text: str, labels: frozenset[str]) -> str:
    if text not in labels:
        raise Unfit("a value is none of the type's labels")
    return text


def _members(text: str, members: frozenset[str]) -> str:
    if text and not set(text.split(",")) <= members:
        raise Unfit("a value has parts that are none of the type's")
    return text


def _uncut(text: str, size: int, *, is_bytes: bool) -> str:
    """Of a text that is too long strict mode refuses all but spaces at the end, which it cuts off."""
    if text.endswith(" ") and (len(text.encode()) if is_bytes else len(text)) > size:
        raise Unfit("a text is too long for its column")
    return text


def _unpadded(text: str) -> str:
    if text.endswith(" "):
        raise Unfit("a text has spaces at its end, which a column of type char does not keep")
    return text
