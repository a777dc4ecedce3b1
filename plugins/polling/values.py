"""Values between drivers and `Form`.

Drivers give Python's types (PEP 249, "Type Objects and Constructors", and what each adds). `Form.TEXT` has PostgreSQL's
spellings; `Form.NATIVE`, of SQLite, what the driver gives. A type that is neither is refused by the column's name, and
so is a text that the column's kind does not have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from engine.errors import SourceError
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import Wire, WireRow

Decode = Callable[[Any], Wire]


class Unfit(Exception):
    """A value that the column's kind does not have. The text says what is wrong and nothing of the value."""


class Rows:
    """Rows of a shape, from the driver to wire values, with their keys and hashes."""

    def __init__(self, system: str, shape: Shape, dialect: str) -> None:
        self.shape = shape
        self._system = system
        self._decoders = [_decoder(column, shape.form, dialect) for column in shape.columns]
        self._keys = [n for name in shape.key for n, column in enumerate(shape.columns) if column.name == name]
        self._names = [column.name for column in shape.columns]

    def decoded(self, row: Sequence[Any]) -> WireRow:
        """Raises `SourceError` for a value that cannot be carried."""
        try:
            return tuple(None if v is None else decode(v) for decode, v in zip(self._decoders, row, strict=True))
        except (Unfit, TypeError, ValueError, OverflowError):
            raise self._unknown(row) from None

    def key(self, row: WireRow) -> str:
        """The key as a text that means the same again."""
        return key_text([row[n] for n in self._keys])

    def hash(self, row: WireRow) -> bytes:
        """16 bytes that change with the row. Nulls do not count: a column that is added changes no row by itself."""
        named = [part for name, value in zip(self._names, row, strict=True) if value is not None
                 for part in (name, value)]  # fmt: skip
        return hashlib.blake2b(msgspec.msgpack.encode(named), digest_size=16).digest()

    def _unknown(self, row: Sequence[Any]) -> SourceError:
        for column, decode, value in zip(self.shape.columns, self._decoders, row, strict=True):
            try:
                None if value is None else decode(value)
            except (Unfit, TypeError, ValueError, OverflowError):
                return SourceError(
                    f"system {self._system}, table {self.shape.name}, column {column.name}: the driver gives a"
                    f" {type(value).__name__} for its type {column.type}, which cannot be carried",
                    hint=f"Name the column in `ignore` of [systems.{self._system}.tables], or change its type.",
                    system=self._system,
                    table=self.shape.name,
                    column=column.name,
                )
        raise AssertionError("one of its values is unknown")


def key_text(values: Sequence[Wire]) -> str:
    """Values of a key as JSON; bytes are marked, so that they are no texts."""
    return json.dumps([{"x": v.hex()} if isinstance(v, bytes) else v for v in values], ensure_ascii=False)


def key_values(text: str) -> list[Wire]:
    values: list[str | int | float | dict[str, str] | None] = json.loads(text)
    return [bytes.fromhex(v["x"]) if isinstance(v, dict) else v for v in values]


def _decoder(column: Column, form: Form, dialect: str) -> Decode:
    if form is Form.NATIVE:
        return _native
    if column.kind is Kind.BOOLEAN:
        return _boolean
    if column.kind is Kind.INSTANT and dialect == "mysql":
        return lambda value: f"{_moment(value) if isinstance(value, datetime) else value}+00"
    if column.kind is Kind.INTERVAL:
        return _interval
    return _text


def _native(value: Any) -> Wire:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float, str, bytes)):
        return value
    raise Unfit("no value that SQLite has")


def _boolean(value: Any) -> str:
    if isinstance(value, bytes):
        value = int.from_bytes(value)
    if value in (True, "t", "true", "1"):
        return "t"
    if value in (False, "f", "false", "0"):
        return "f"
    raise Unfit("no truth value")


def _interval(value: Any) -> str:
    if not isinstance(value, timedelta):
        return _text(value)
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    sign, micros = ("-" if micros < 0 else ""), abs(micros)
    return f"PT{sign}{_fraction(str(micros // 1_000_000), micros % 1_000_000)}S"


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "t" if value else "f"
        case int():
            return str(value)
        case float():
            return _float(value)
        case Decimal():
            return format(value, "f") if value.is_finite() else "NaN"
        case bytes() | bytearray():
            return f"\\x{value.hex()}"
        case datetime():
            return _moment(value)
        case date():
            return value.isoformat()
        case time():
            return _fraction(value.strftime("%H:%M:%S"), value.microsecond)
        case timedelta():
            return _duration(value)
        case UUID():
            return str(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            raise Unfit("a type that is not known here")


def _float(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value).removesuffix(".0")


def _moment(value: datetime) -> str:
    is_aware = value.tzinfo is not None
    value = value.astimezone(UTC) if is_aware else value
    text = f"{value.year:04}-{value:%m-%d %H:%M:%S}"
    return _fraction(text, value.microsecond) + ("+00" if is_aware else "")


def _duration(value: timedelta) -> str:
    """A time, as MySQL's drivers give it: it may be negative, and of more than a day."""
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    hours, rest = divmod(value.days * 86_400 + value.seconds, 3600)
    return _fraction(f"{sign}{hours:02}:{rest // 60:02}:{rest % 60:02}", value.microseconds)


def _fraction(text: str, micros: int) -> str:
    return f"{text}.{micros:06}".rstrip("0") if micros else text


def parameter(column: Column, form: Form, dialect: str) -> Callable[[Wire], Any]:
    """A function from wire values of the column to what its driver is given. It raises `Unfit`."""
    if form is Form.NATIVE or dialect == "postgres":
        return lambda value: value
    if column.kind is Kind.BINARY:
        return lambda value: None if value is None else _bytes(value)
    if dialect == "duckdb":
        return lambda value: value
    convert = _PARAMETERS.get(column.kind, str)
    if column.kind is Kind.INSTANT:
        convert = _utc

    def converted(value: Wire) -> Any:
        try:
            return None if value is None else convert(str(value))
        except (ValueError, ArithmeticError):
            raise Unfit("a value that the column's type does not have") from None

    return converted


def _bytes(value: Wire) -> bytes:
    try:
        return value if isinstance(value, bytes) else bytes.fromhex(str(value).removeprefix("\\x"))
    except ValueError:
        raise Unfit("no bytes") from None


def _utc(text: str) -> str:
    """An instant as a moment in UTC without its zone: the session's zone is UTC."""
    moment = datetime.fromisoformat(text if len(text) > 10 else f"{text} 00:00:00+00")
    return _moment(moment.astimezone(UTC).replace(tzinfo=None))


def _truth(text: str) -> bool:
    return text in ("t", "true", "1")


_PARAMETERS: dict[Kind, Callable[[str], Any]] = {
    Kind.INTEGER: int,
    Kind.DECIMAL: Decimal,
    Kind.FLOAT: float,
    Kind.BOOLEAN: _truth,
}
