"""A table together with rows of other tables that belong to each of its rows: the shape that a mapping sees."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from engine.model.table import Shape


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


def joined_shape(own: Shape, joined: Sequence[tuple[str, Shape]]) -> JoinedTable:
    """The table's columns, then those of each joined table as `name.column`. These may always be null: a row need not
    have any of the other table, and an insert may leave them out."""
    columns = list(own.columns)
    offsets: list[tuple[str, int]] = []
    for name, shape in joined:
        offsets.append((name, len(columns)))
        columns += [
            msgspec.structs.replace(
                column, name=f"{name}.{column.name}", is_nullable=True, has_default=True, is_assigned=False
            )
            for column in shape.columns
        ]
    shape = msgspec.structs.replace(own, columns=tuple(columns))
    return JoinedTable(shape, len(own.columns), tuple(offsets))


def split_name(column: str, joins: Mapping[str, object] | frozenset[str]) -> tuple[str, str]:
    """(join, its column) of a column of a joined shape; ("", column) for one of the table itself."""
    name, dot, rest = column.partition(".")
    return (name, rest) if dot and name in joins else ("", column)
