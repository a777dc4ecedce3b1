"""How the rows of one table are read from messages that have the same columns: compiled once, used for many.

Rows are joined by newlines, which JSON has none of inside, and decoded in one step into a struct that is made for the
table: every column named and required, no other allowed, so that a message with other columns is not taken for one of
these. A generated function makes wire rows of the structs.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from engine.errors import MalformedLog
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from plugins.kafka.meaning import Reading
from plugins.kafka.values import Convert

# What msgspec takes in no name.
_UNFIT: Final = re.compile(r'[\x00-\x1f"\\]')
Document = bytes | msgspec.Raw
Decode = Callable[[bytes], list[Any]]
# Decimals that a converter writes as numbers are read digit by digit.
FLOAT_HOOK: Final = Decimal


class Unfit(Exception):
    """A row that is none of the layout: it has other columns, or values of another type. `index`: which of several."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of messages: as a shape, and as functions over documents.

    `readings[n]` is how `shape.columns[n]` comes; `names` are those of all columns, left out ones too. `exact` decodes
    rows whose values are of their columns' types, `loose` any with these columns; rows that only the latter takes are
    refused unless `is_loose`.
    """

    shape: Shape
    readings: tuple[Reading, ...]
    names: tuple[str, ...]
    exact: Decode
    loose: Decode
    make_rows: Callable[[list[Any]], list[WireRow]]
    placeholders: tuple[Any, ...]
    marks: tuple[bytes, ...]
    is_loose: bool = False

    def read(self, documents: Sequence[Document]) -> list[WireRow]:
        """Wire rows; columns of which the connector knew no value are ABSENT. Raises `Unfit`.

        A value that cannot be read (a time with more digits than any of our databases keeps) is handed on as it came:
        the mapping cannot read it either, and sets the row aside if it maps the column.
        """
        blob = b"\n".join(documents)
        try:
            if not any(mark in blob for mark in self.marks):
                return self.make_rows(self.exact(blob))
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, ArithmeticError):
            pass
        return [self._read_one(document, index) for index, document in enumerate(documents)]

    def read_key(self, document: Document, where: str) -> WireRow:
        """The key's columns alone, of a row or a key; the others may be anything and are ABSENT. Raises
        `MalformedLog`."""
        try:
            found = _decode_any(document)
            row: list[Wire] = [ABSENT] * len(self.readings)
            for name in self.shape.key:
                n = self.shape.index(name)
                assert n is not None, "a key is of columns of its table"
                row[n] = self._value(n, found[name])
            return tuple(row)
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise MalformedLog(f"{where}: the key of a row cannot be read ({type(error).__name__})") from None

    def _read_one(self, document: Document, index: int) -> WireRow:
        data = bytes(document)
        is_partial = any(mark in data for mark in self.marks)
        try:
            row = (self.loose if is_partial else self.exact)(data)[0]
        except (msgspec.MsgspecError, IndexError):
            if not self.is_loose:
                raise Unfit(index) from None
            try:
                row = self.loose(data)[0]
            except (msgspec.MsgspecError, IndexError):
                raise Unfit(index) from None
        return tuple(self._value(n, getattr(row, f"c{n}")) for n in range(len(self.readings)))

    def _value(self, n: int, value: Any) -> Wire:
        if value is None:
            return None
        if self._is_placeholder(value):
            return ABSENT
        convert = self.readings[n].convert
        try:
            if convert is not None:
                return convert(value)
        except (ValueError, TypeError, KeyError, ArithmeticError, AttributeError):
            pass
        return value if isinstance(value, str) else _encode(value).decode()

    def _is_placeholder(self, value: Any) -> bool:
        return value in self.placeholders


def make_layout(shape: Shape, readings: Sequence[Reading], names: Sequence[str], *, unavailable: str) -> Layout:
    """Compile. `names`: all columns of the messages; what the shape does not have of them is left out."""
    coded = b64encode(unavailable.encode()).decode()
    known = {column.name: reading.type | None for column, reading in zip(shape.columns, readings, strict=True)}
    columns = [column.name for column in shape.columns]
    return Layout(
        shape=shape,
        readings=tuple(readings),
        names=tuple(names),
        exact=_decoder(columns, names, [known.get(name, msgspec.Raw) for name in names]),
        loose=_decoder(columns, names, [Any] * len(names)),
        make_rows=_compile_rows([reading.convert for reading in readings]),
        # As it stands for a text, for bytes, in a list (of numbers too), and as the one entry of a map.
        placeholders=(
            unavailable,
            coded,
            [unavailable],
            [coded],
            list(unavailable.encode()),
            {unavailable: unavailable},
        ),
        marks=(unavailable.encode(), coded.encode(), ",".join(map(str, unavailable.encode())).encode()),
    )


def _decoder(columns: Sequence[str], names: Sequence[str], types: Sequence[Any]) -> Decode:
    """Decodes rows that have these names and no others, into objects with an attribute c0, c1, … for each column."""
    attributes = {name: f"c{n}" for n, name in enumerate(columns)}
    others = [name for name in names if name not in attributes]
    attributes |= {name: f"x{n}" for n, name in enumerate(others)}
    if any(_UNFIT.search(name) for name in names):
        return _decoder_of_any_names(attributes)
    fields = [(attributes[name], type) for name, type in zip(names, types, strict=True)]
    rename = {attribute: name for name, attribute in attributes.items()}
    row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(row, float_hook=FLOAT_HOOK).decode_lines


def _decoder_of_any_names(attributes: Mapping[str, str]) -> Decode:
    """For columns whose names no struct of msgspec's takes. Types are whatever comes."""

    def decode(blob: bytes) -> list[Any]:
        found: list[Any] = []
        for row in _decode_lines(blob):
            if row.keys() != attributes.keys():
                raise msgspec.ValidationError("other columns")
            found.append(SimpleNamespace(**{attributes[name]: value for name, value in row.items()}))
        return found

    return decode


def _compile_rows(converts: Sequence[Convert | None]) -> Callable[[list[Any]], list[WireRow]]:
    """A function without a loop over columns: it is called for every row there is."""
    scope: dict[str, Any] = {f"f{n}": convert for n, convert in enumerate(converts) if convert is not None}
    cells = "".join(
        f"r.c{n}, " if convert is None else f"None if (v := r.c{n}) is None else f{n}(v), "
        for n, convert in enumerate(converts)
    )
    exec(compile(f"def rows(structs):\n    return [({cells}) for r in structs]\n", "<rows>", "exec"), scope)
    return scope["rows"]


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_any = msgspec.json.Decoder(dict[str, Any], float_hook=FLOAT_HOOK).decode
_decode_lines = msgspec.json.Decoder(dict[str, Any], float_hook=FLOAT_HOOK).decode_lines
