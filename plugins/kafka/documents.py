"""Rows of a feed as messages and back: a key and a row, each a JSON object of columns.

    key    {"id": "7c9e…"}
    value  {"id": "7c9e…", "name": "Anna", "credit": "12.50", "since": "2024-02-29T13:05:00.25Z", "vip": true}

Numbers that JSON's readers would round, decimals, are texts. A message without a value says that the row is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, Wire, WireRow
from plugins.kafka.config import COLUMN_KINDS, KafkaConfig

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_INTEGER: Final = re.compile(r"-?\d+")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_INSTANT: Final = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)\+00")


class Unfit(Exception):
    """A value that its column does not take. `index`: of the row; `column`: its name."""

    def __init__(self, index: int, column: str) -> None:
        super().__init__(column)
        self.index = index
        self.column = column


def feed_shapes(config: KafkaConfig) -> dict[str, Shape]:
    """The tables of the feed, as the configuration tells them."""
    return {
        table: Shape(
            name=table,
            columns=tuple(Column(name=name, kind=COLUMN_KINDS[word], type=word) for name, word in columns.items()),
            form=Form.TEXT,
            is_whole=True,
        )
        for table, columns in config.tables.items()
    }


class Documents:
    """Rows of one table with some columns → messages."""

    def __init__(self, shape: Shape, columns: Sequence[str], key: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._spell = [_speller(column) if (column := shape.column(name)) is not None else None for name in columns]
        self._key = [self._columns.index(name) for name in key]
        self.unknown = next((name for name in columns if shape.column(name) is None), None)

    def encode(self, rows: Sequence[WireRow], *, is_deleted: bool) -> list[tuple[bytes, bytes | None]]:
        """Key and value of each; no values where the rows are deleted. Raises `Unfit`."""
        found: list[tuple[bytes, bytes | None]] = []
        for index, row in enumerate(rows):
            document = {
                name: self._value(index, name, spell, value)
                for name, spell, value in zip(self._columns, self._spell, row, strict=True)
                if value is not ABSENT
            }
            key = _encode({self._columns[n]: document[self._columns[n]] for n in self._key})
            found.append((key, None if is_deleted else _encode(document)))
        return found

    def _value(self, index: int, name: str, spell: Callable[[str], Any] | None, value: Wire) -> Any:
        if value is None or spell is None:
            return value
        try:
            return spell(str(value))
        except (ValueError, msgspec.MsgspecError):
            raise Unfit(index, name) from None


def decode_row(shape: Shape, value: bytes) -> WireRow:
    """The wire row of a message. Raises ValueError for what is no row of the feed."""
    try:
        found = _decode(value)
        return tuple(_wire(column, found.get(column.name)) for column in shape.columns)
    except msgspec.MsgspecError as error:
        raise ValueError("no row of a feed") from error


def _speller(column: Column) -> Callable[[str], Any] | None:
    return _SPELLERS.get(column.kind)


def _integer(text: str) -> msgspec.Raw:
    if not _INTEGER.fullmatch(text):
        raise ValueError("no whole number")
    return msgspec.Raw(text.encode())


def _float(text: str) -> msgspec.Raw:
    # JSON has neither NaN nor infinities.
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number of JSON")
    return msgspec.Raw(text.encode())


def _boolean(text: str) -> bool:
    if text not in ("t", "f"):
        raise ValueError("neither true nor false")
    return text == "t"


def _instant(text: str) -> str:
    found = _INSTANT.fullmatch(text)
    return f"{found[1]}T{found[2]}Z" if found else text


def _timestamp(text: str) -> str:
    return text.replace(" ", "T", 1) if text[:1].isdigit() and not text.endswith("BC") else text


def _json(text: str) -> msgspec.Raw:
    raw = text.encode()
    _decode_any(raw)
    return msgspec.Raw(raw)


_SPELLERS: Final[dict[Kind, Callable[[str], Any]]] = {
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _boolean,
    Kind.INSTANT: _instant,
    Kind.TIMESTAMP: _timestamp,
    Kind.JSON: _json,
}


def _wire(column: Column, raw: msgspec.Raw | None) -> Wire:
    if raw is None:
        return ABSENT
    text = bytes(raw).decode()
    if text == "null":
        return None
    kind = column.kind
    if kind in (Kind.INTEGER, Kind.FLOAT, Kind.JSON):
        return text
    if kind is Kind.BOOLEAN:
        return "t" if text == "true" else "f"
    value = str(_decode_any(raw))
    if kind is Kind.INSTANT and value.endswith("Z"):
        return f"{value[:-1].replace('T', ' ', 1)}+00"
    return value.replace("T", " ", 1) if kind is Kind.TIMESTAMP and "T" in value else value
