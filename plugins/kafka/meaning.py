"""What a column's values in messages mean: by the schema that the message brings, else by the captured database's
catalogue and the connector's settings as `concord.toml` says them.

Names of schemas: https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data type mappings",
and the same chapter for MariaDB and MySQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from engine.model.table import Column, Kind
from plugins.kafka import values
from plugins.kafka.config import BinaryMode, DecimalMode, TimeMode
from plugins.kafka.schema import Field
from plugins.kafka.values import Convert

_MILLI, _MICRO, _NANO = 1_000, 1_000_000, 1_000_000_000
# Unions of what JSON has: msgspec tells them apart by themselves.
_NUMBER_OR_TEXT: Final = float | str


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column is read. `type`: what JSON holds, null apart; `convert`: makes the wire value of it, None where it
    is one already. `kind`, `word`: what to call the column where no catalogue knows it. `carries`: the kinds of columns
    whose every value it can hold. `loses`: the connector's setting that keeps it from holding more."""

    type: Any
    convert: Convert | None
    kind: Kind
    word: str
    carries: frozenset[Kind]
    digits: int | None = None
    """Of a second, at most; of a decimal, behind the point."""
    loses: str = ""


_TEXTS: Final = frozenset((Kind.TEXT, Kind.UUID, Kind.JSON, Kind.ENUM, Kind.OTHER, Kind.DECIMAL))


def _reading(
    type: Any, convert: Convert | None, kind: Kind, word: str, *also: Kind, digits: int | None = None, loses: str = ""
) -> Reading:
    return Reading(type, convert, kind, word, frozenset((kind, *also)), digits, loses)


_INTEGER: Final = _reading(int, str, Kind.INTEGER, "bigint")
_FLOAT: Final = _reading(
    _NUMBER_OR_TEXT, values.floating, Kind.FLOAT, "double", loses='"decimal.handling.mode": "precise"'
)
_BOOLEAN: Final = _reading(bool, values.boolean, Kind.BOOLEAN, "boolean")
_TEXT: Final = Reading(str, None, Kind.TEXT, "text", _TEXTS)
_BYTES: Final = _reading(str, values.binary, Kind.BINARY, "bytes")
_CONNECT_TIME: Final = '"time.precision.mode": "adaptive"'

_NAMED: Final[dict[str, Reading]] = {
    "io.debezium.time.Date": _reading(int, values.date, Kind.DATE, "date"),
    "org.apache.kafka.connect.data.Date": _reading(int, values.date, Kind.DATE, "date"),
    "io.debezium.time.IsoDate": _reading(str, values.iso_date, Kind.DATE, "date"),
    "io.debezium.time.Time": _reading(int, values.time_of(_MILLI), Kind.TIME, "time", digits=3),
    "io.debezium.time.MicroTime": _reading(int, values.time_of(_MICRO), Kind.TIME, "time", digits=6),
    "io.debezium.time.NanoTime": _reading(int, values.time_of(_NANO), Kind.TIME, "time", digits=9),
    "io.debezium.time.IsoTime": _reading(str, values.iso_time, Kind.TIME, "time", digits=9),
    "io.debezium.time.ZonedTime": _reading(
        str, values.zoned_time, Kind.OTHER, "time with time zone", Kind.TIME, digits=9
    ),
    "org.apache.kafka.connect.data.Time": _reading(
        int, values.time_of(_MILLI), Kind.TIME, "time", digits=3, loses=_CONNECT_TIME
    ),
    "io.debezium.time.Timestamp": _reading(int, values.timestamp_of(_MILLI), Kind.TIMESTAMP, "timestamp", digits=3),
    "io.debezium.time.MicroTimestamp": _reading(
        int, values.timestamp_of(_MICRO), Kind.TIMESTAMP, "timestamp", digits=6
    ),
    "io.debezium.time.NanoTimestamp": _reading(int, values.timestamp_of(_NANO), Kind.TIMESTAMP, "timestamp", digits=9),
    "io.debezium.time.IsoTimestamp": _reading(str, values.local, Kind.TIMESTAMP, "timestamp", digits=9),
    "org.apache.kafka.connect.data.Timestamp": _reading(
        int, values.timestamp_of(_MILLI), Kind.TIMESTAMP, "timestamp", digits=3, loses=_CONNECT_TIME
    ),
    "io.debezium.time.ZonedTimestamp": _reading(str, values.zoned, Kind.INSTANT, "timestamp with time zone", digits=9),
    "io.debezium.time.Interval": _reading(str, values.interval, Kind.INTERVAL, "interval"),
    # Months are told as so many days: there is no way back.
    "io.debezium.time.MicroDuration": _reading(
        int, str, Kind.INTEGER, "interval in microseconds", loses='"interval.handling.mode": "string"'
    ),
    "io.debezium.time.NanoDuration": _reading(
        int, str, Kind.INTEGER, "interval in nanoseconds", loses='"interval.handling.mode": "string"'
    ),
    "io.debezium.time.Year": _reading(int, str, Kind.INTEGER, "year"),
    "io.debezium.data.VariableScaleDecimal": _reading(dict[str, Any], values.variable, Kind.DECIMAL, "numeric"),
    "io.debezium.data.Json": _reading(str, None, Kind.JSON, "json", Kind.TEXT, Kind.OTHER),
    "io.debezium.data.Uuid": _reading(str, None, Kind.UUID, "uuid", Kind.TEXT),
    "io.debezium.data.Enum": _reading(str, None, Kind.ENUM, "enum", Kind.TEXT, Kind.OTHER),
    "io.debezium.data.DoubleVector": _reading(list[Any], values.vector, Kind.OTHER, "vector"),
    "io.debezium.data.FloatVector": _reading(list[Any], values.vector, Kind.OTHER, "vector"),
    "io.debezium.data.geometry.Point": _reading(dict[str, Any], values.point, Kind.OTHER, "point"),
}
_MONEY: Final = _reading(Any, values.money, Kind.OTHER, "money")
_BIT: Final = _reading(bool, values.bit, Kind.OTHER, "bit(1)")
_VARYING_BITS: Final = Reading(
    str, None, Kind.TEXT, "bits without their number", frozenset(), loses="column.exclude.list"
)
_BINARY_TEXTS: Final = {
    "base64": _reading(str, values.binary, Kind.BINARY, "base64"),
    "base64-url-safe": _reading(str, values.binary_url, Kind.BINARY, "base64"),
    "hex": _reading(str, values.binary_hex, Kind.BINARY, "hexadecimal digits"),
}
_UNTOLD: Final = Reading(
    str,
    None,
    Kind.TEXT,
    "a text whose spelling `binary` does not tell",
    frozenset(),
    loses='"binary.handling.mode": "bytes"',
)
_SPATIAL: Final = ("io.debezium.data.geometry.Geometry", "io.debezium.data.geometry.Geography")
_PLAIN: Final[dict[str, Reading]] = {
    **dict.fromkeys(("int8", "int16", "int32", "int64"), _INTEGER),
    **dict.fromkeys(("float", "double", "float32", "float64"), _FLOAT),
    "boolean": _BOOLEAN,
    "string": _TEXT,
    "bytes": _BYTES,
}


def reading_of(field: Field, column: Column | None, binary: BinaryMode) -> Reading | None:
    """By the message's schema; `column` is what the catalogue has under that name. None: nothing we can read."""
    name, parameters = field.name or "", field.parameters or {}
    if column is not None and (found := _by_column(column, binary, is_text=field.type == "string")) is not None:
        return found
    if name == "org.apache.kafka.connect.data.Decimal":
        return _decimal(int(parameters.get("scale", 0)), parameters.get("connect.decimal.precision"))
    if name == "io.debezium.data.Bits":
        return _bits(int(parameters.get("length", 1)), column)
    if name in _SPATIAL:
        return _spatial(column)
    found = _NAMED.get(name)
    if found is not None:
        return found
    if field.type == "array" and field.items is not None:
        return _array(reading_of(field.items, None if column is None else column.element, binary))
    return _PLAIN.get(field.type)


def reading_in(
    column: Column, connector: str, time: TimeMode, decimal: DecimalMode, binary: BinaryMode
) -> Reading | None:
    """Without a schema: by the catalogue's column and the connector's settings."""
    kind = column.kind
    if (found := _by_column(column, binary, is_text=binary != "bytes")) is not None:
        return found
    if kind is Kind.DECIMAL:
        return _decimal_in(column, decimal)
    if kind in (Kind.TIME, Kind.TIMESTAMP, Kind.DATE, Kind.INSTANT):
        return _moment_in(column, connector, time)
    if kind is Kind.ARRAY:
        return None if column.element is None else _array(reading_in(column.element, connector, time, decimal, binary))
    if kind is Kind.BINARY and (bits := re.fullmatch(r"bit\((\d+)\)", column.type)):
        return _bits(int(bits[1]), column)
    if kind is Kind.BINARY and _is_spatial(column):
        return _spatial(column)
    if kind is Kind.OTHER and (found := _other_in(column)) is not None:
        return found
    return {
        Kind.INTEGER: _INTEGER,
        Kind.FLOAT: _FLOAT,
        Kind.BOOLEAN: _BOOLEAN,
        Kind.BINARY: _BYTES,
        Kind.INTERVAL: _NAMED["io.debezium.time.Interval"],
    }.get(kind, _TEXT)


def _by_column(column: Column, binary: BinaryMode, *, is_text: bool) -> Reading | None:
    """What the catalogue alone can tell, whatever the message says. `is_text`: bytes come as a text of the connector's
    own (`binary.handling.mode`), not as Kafka Connect's bytes."""
    word = column.type.partition("(")[0]
    if column.kind is Kind.OTHER:
        if word == "money":
            return _MONEY
        if column.type in ("bit", "bit(1)"):
            return _BIT
        if word == "bit varying":
            return _VARYING_BITS
        if word == "vector":
            return _NAMED["io.debezium.data.DoubleVector"]
    if column.kind is Kind.BINARY and _is_spatial(column):
        return _spatial(column)
    if column.kind is Kind.BINARY and is_text:
        return _BINARY_TEXTS.get(binary, _UNTOLD)
    return None


def what_is_lost(reading: Reading, column: Column) -> str:
    """Why messages hold less of the column than the database does, and what to set; empty where they do not."""
    is_cut = bool(reading.loses) and column.kind not in reading.carries
    if column.kind in (Kind.TIME, Kind.TIMESTAMP) and reading.loses and reading.digits is not None:
        is_cut = (6 if column.scale is None else column.scale) > reading.digits
    if not is_cut:
        return ""
    return (
        f"it is {column.type} in the database, and messages bring it as {reading.word}, which loses digits: set"
        f" {reading.loses} in the connector, restart it, and run `concord backfill`"
    )


def column_of(field_name: str, reading: Reading, *, is_nullable: bool) -> Column:
    """A column of which only messages tell."""
    is_decimal = reading.kind is Kind.DECIMAL
    element = None
    if reading.kind is Kind.ARRAY:
        element = Column(name="element", kind=Kind.TEXT, type="text")
    return Column(
        name=field_name,
        kind=reading.kind,
        type=reading.word,
        is_nullable=is_nullable,
        scale=reading.digits if is_decimal or reading.kind in (Kind.TIME, Kind.TIMESTAMP) else None,
        element=element,
    )


def _decimal(scale: int, precision: object = None) -> Reading:
    word = f"decimal({precision},{scale})" if precision else f"decimal with {scale} digits behind the point"
    # As a number of JSON it is read digit by digit: see `layout.FLOAT_HOOK`.
    return _reading(Any, values.unscaled(scale), Kind.DECIMAL, word, digits=scale)


def _decimal_in(column: Column, mode: DecimalMode) -> Reading:
    if mode == "double":
        return _FLOAT
    if mode == "string":
        return Reading(Any, values.number_text, Kind.DECIMAL, "decimal", frozenset((Kind.DECIMAL,)))
    if column.scale is None:
        return _NAMED["io.debezium.data.VariableScaleDecimal"]
    return _decimal(column.scale, column.precision)


def _moment_in(column: Column, connector: str, mode: TimeMode) -> Reading:
    """https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Temporal types"."""
    kind = column.kind
    if kind is Kind.INSTANT:
        return _NAMED["io.debezium.time.ZonedTimestamp"]
    what = {Kind.DATE: "Date", Kind.TIME: "Time", Kind.TIMESTAMP: "Timestamp"}[kind]
    if kind is Kind.TIME and "with time zone" in column.type:
        return _NAMED["io.debezium.time.ZonedTime"]
    if mode == "isostring":
        return _NAMED[f"io.debezium.time.Iso{what}"]
    if kind is Kind.DATE:
        return _NAMED["io.debezium.time.Date"]
    if mode == "connect":
        return _NAMED[f"org.apache.kafka.connect.data.{what}"]
    if mode == "nanoseconds":
        return _NAMED[f"io.debezium.time.Nano{what}"]
    # PostgreSQL keeps six digits where nobody counts, MariaDB and MySQL none.
    digits = column.scale if column.scale is not None else 6 if connector == "postgres" else 0
    is_micro = mode == "microseconds" or digits > 3
    # MariaDB's and MySQL's connectors have every time in microseconds.
    if kind is Kind.TIME and (mode == "adaptive_time_microseconds" or connector != "postgres"):
        is_micro = True
    return _NAMED[f"io.debezium.time.{'Micro' if is_micro else ''}{what}"]


def _bits(count: int, column: Column | None) -> Reading:
    if column is not None and column.kind is Kind.BINARY:
        return _reading(str, values.bits_binary(count), Kind.BINARY, f"bit({count})")
    return _reading(str, values.bits_text(count), Kind.OTHER, f"bit({count})", Kind.TEXT)


def _is_spatial(column: Column) -> bool:
    words = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon")
    return column.type.partition("(")[0] in (*words, "geometrycollection", "geomcollection", "geography")


def _spatial(column: Column | None) -> Reading:
    if column is not None and column.kind is Kind.BINARY:
        return _reading(dict[str, Any], values.geometry, Kind.BINARY, "geometry")
    return _reading(dict[str, Any], values.geometry_hex, Kind.OTHER, "geometry")


def _other_in(column: Column) -> Reading | None:
    if column.type == "point":
        return _NAMED["io.debezium.data.geometry.Point"]
    if bits := re.fullmatch(r"bit(?: varying)?\((\d+)\)", column.type):
        return _bits(int(bits[1]), column)
    if column.type.startswith("time") and "with time zone" in column.type:
        return _NAMED["io.debezium.time.ZonedTime"]
    return _spatial(column) if _is_spatial(column) else None


def _array(element: Reading | None) -> Reading | None:
    if element is None:
        return None
    carries = frozenset((Kind.ARRAY, Kind.OTHER))
    return Reading(list[Any], values.array(element.convert), Kind.ARRAY, f"{element.word}[]", carries)
