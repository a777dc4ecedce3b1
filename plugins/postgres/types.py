"""PostgreSQL's types in the engine's terms."""

from __future__ import annotations

from typing import Final

import msgspec

from engine.model.table import Column, Kind

_KINDS: Final = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "name": Kind.TEXT,
    "char": Kind.TEXT,
    "citext": Kind.TEXT,
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "oid": Kind.INTEGER,
    "numeric": Kind.DECIMAL,
    "float4": Kind.FLOAT,
    "float8": Kind.FLOAT,
    "bool": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.INSTANT,
    "interval": Kind.INTERVAL,
    "uuid": Kind.UUID,
    "bytea": Kind.BINARY,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
}
# A typmod counts the four bytes of the value's own length (VARHDRSZ) where a length or a precision is meant.
_HEADER_SIZE: Final = 4
# What a time keeps that says nothing of it (date/time types, table 8.9 of PostgreSQL's manual).
_SECOND_DIGITS: Final = 6
# INTERVAL_MASK(SECOND) of utils/timestamp.h.
_INTERVAL_SECOND: Final = 1 << 12
_MOMENTS: Final = (Kind.TIME, Kind.TIMESTAMP, Kind.INSTANT)


class TypeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of pg_type. `kind`: "b" base, "d" domain, "e" enum, "r" range, "m" multirange, "c" composite.

    `element`: the type of an array's elements, 0 of any other type.
    """

    id: int
    name: str
    schema: str
    kind: str
    category: str
    base: int
    element: int
    modifier: int
    is_not_null: bool
    has_default: bool
    labels: tuple[str, ...]


class ColumnType(msgspec.Struct, frozen=True, kw_only=True):
    """What a column's type says of its values, domains resolved."""

    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    labels: tuple[str, ...] = ()
    element: Column | None = None
    is_not_null: bool = False
    has_default: bool = False


def describe(type_id: int, modifier: int, types: dict[int, TypeRow]) -> ColumnType:
    """What type `type_id` with `modifier` means; `types` holds it and what its domains stand on."""
    is_not_null = has_default = False
    row = types.get(type_id)
    while row is not None and row.kind == "d":
        is_not_null |= row.is_not_null
        has_default |= row.has_default
        # A domain's column has no modifier of its own: what limits it is the domain's.
        modifier = row.modifier if modifier == -1 else modifier
        row = types.get(row.base)
    if row is None:
        return ColumnType(kind=Kind.OTHER, is_not_null=is_not_null, has_default=has_default)
    kind = _kind(row)
    length = precision = scale = None
    if kind is Kind.TEXT and row.name in ("varchar", "bpchar") and modifier >= _HEADER_SIZE:
        length = modifier - _HEADER_SIZE
    elif row.name == "name":
        length = 63
    elif row.name == "char" and row.schema == "pg_catalog":
        length = 1
    elif kind is Kind.DECIMAL and modifier >= _HEADER_SIZE:
        packed = modifier - _HEADER_SIZE
        precision = (packed >> 16) & 0xFFFF
        # Eleven bits with a sign since PostgreSQL 15 (a negative scale rounds before the point); before, plain.
        scale = ((packed & 0x7FF) ^ 1024) - 1024
    elif kind in _MOMENTS:
        scale = _SECOND_DIGITS if modifier < 0 else modifier
    elif kind is Kind.INTERVAL:
        # All bits of the lower half: every digit (INTERVAL_FULL_PRECISION). The upper half says which units it has, and
        # without seconds the server cuts them off without a word (AdjustIntervalForTypmod): no column for a duration.
        scale = min(modifier & 0xFFFF, _SECOND_DIGITS)
        if modifier >= 0 and not (modifier >> 16) & _INTERVAL_SECOND:
            kind, scale = Kind.OTHER, None
    return ColumnType(
        kind=kind,
        length=length,
        precision=precision,
        scale=scale,
        labels=row.labels,
        # An array's modifier is its elements'.
        element=_element(row.element, modifier, types) if kind is Kind.ARRAY else None,
        is_not_null=is_not_null,
        has_default=has_default,
    )


def _element(type_id: int, modifier: int, types: dict[int, TypeRow]) -> Column:
    meaning = describe(type_id, modifier, types)
    row = types.get(type_id)
    return Column(
        name="element",
        kind=meaning.kind,
        type=row.name if row else f"type {type_id}",
        length=meaning.length,
        precision=meaning.precision,
        scale=meaning.scale,
        labels=meaning.labels,
    )


def _kind(row: TypeRow) -> Kind:
    if row.kind == "e":
        return Kind.ENUM
    # Multiranges and vectors of the catalogue are no arrays, though the latter have the category.
    if row.category == "A" and row.name.startswith("_"):
        return Kind.ARRAY
    if row.schema == "pg_catalog" or row.name == "citext":
        return _KINDS.get(row.name, Kind.OTHER)
    return Kind.OTHER
