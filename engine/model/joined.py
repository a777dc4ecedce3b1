"""A table together with rows of other tables that belong to each of its rows: the shape that a mapping sees."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from engine.model.table import Column, Kind, Shape
from engine.model.value import ABSENT, Wire

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[str | int | None]).decode


class Link(NamedTuple):
    """`column` of the joined table equals `other` of `owner`: another join's name, "" for the place's own table."""

    column: str
    owner: str
    other: str


class Empty(enum.Enum):
    """What becomes of a joined row whose written columns are all null."""

    KEEP = "keep"
    """It stays, with nulls; a new one is not made."""
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class JoinedTable:
    """Where the columns of a joined shape come from: (name, index of its first column) per join."""

    shape: Shape
    width: int
    """Columns of the table itself, which come first."""
    offsets: tuple[tuple[str, int], ...]


def joined_shape(own: Shape, joined: Sequence[tuple[str, Shape]], lists: frozenset[str] = frozenset()) -> JoinedTable:
    """The table's columns, then those of each joined table as `name.column`. These may always be null: a row need not
    have any of the other table, and an insert may leave them out. A column of `lists` is a JSON array."""
    columns = list(own.columns)
    offsets: list[tuple[str, int]] = []
    for name, shape in joined:
        offsets.append((name, len(columns)))
        columns += [
            _listed(f"{name}.{column.name}", column)
            if name in lists
            else msgspec.structs.replace(
                column, name=f"{name}.{column.name}", is_nullable=True, has_default=True, is_assigned=False
            )
            for column in shape.columns
        ]
    shape = msgspec.structs.replace(own, columns=tuple(columns))
    return JoinedTable(shape, len(own.columns), tuple(offsets))


def listed_joins(joins: Iterable[tuple[str, str, bool]]) -> frozenset[str]:
    """Names of the joins whose columns are lists: those with several rows for one, and what these refer to. Of each,
    owners first: its name, its owner's, and whether it has several."""
    found: set[str] = set()
    for name, owner, is_list in joins:
        if is_list or owner in found:
            found.add(name)
    return frozenset(found)


def _listed(name: str, column: Column) -> Column:
    element = msgspec.structs.replace(column, name="element")
    return Column(name=name, kind=Kind.JSON, type="json", element=element, has_default=True)


def list_text(column: Column, values: Iterable[Wire], *, is_set: bool) -> Wire:
    """The JSON array of a column's values: numbers of whole numbers, texts of everything else. A set has each of them
    once, in order. Null is no member; None without members, ABSENT where one was not sent."""
    found: list[str | int] = []
    for value in values:
        if value is ABSENT:
            return ABSENT
        if value is not None:
            found.append(int(value) if column.kind is Kind.INTEGER else str(value))
    if is_set:
        found = sorted(set(found), key=lambda member: (str(type(member)), member))
    return _encode(found).decode() if found else None


def list_members(text: Wire) -> list[str | int]:
    """The members of a JSON array that a mapping has written; none of null."""
    return [] if text is None else [m for m in _decode(str(text)) if m is not None]


def split_name(column: str, joins: Mapping[str, object] | frozenset[str]) -> tuple[str, str]:
    """(join, its column) of a column of a joined shape; ("", column) for one of the table itself."""
    name, dot, rest = column.partition(".")
    return (name, rest) if dot and name in joins else ("", column)
