"""Tables of real products: the copy of those we map that `crosswalk/products` carries, and the whole catalogues where
they are at hand.

`PRODUCT.tables.jsonl`: a line about the product, then one line per table, as the catalogue has it: columns as
[name, type, may be null, default, extra], primary key, unique sets, indexes, foreign keys as [columns, table, its
columns, what a deletion does].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

PRODUCTS = Path(__file__).parents[2] / "crosswalk" / "products"
CATALOGUES = Path(__file__).parents[3] / "shared" / "data" / "catalogs"
"""Beside the project's folder, where its makers keep them; nobody needs them."""


class ForeignKey(NamedTuple):
    columns: list[str]
    table: str
    others: list[str]
    on_delete: str


class Column(NamedTuple):
    name: str
    type: str
    is_nullable: bool
    default: str | None
    extra: str | None


class Table(msgspec.Struct, frozen=True):
    """One table, as its database's catalogue describes it."""

    table: str
    columns: list[Column]
    primary_key: list[str]
    unique: list[list[str]]
    indexes: list[list[str]]
    foreign_keys: list[ForeignKey]


class Product(msgspec.Struct, frozen=True):
    """Name and version, and whose SQL its tables are in: "mysql" or "postgres"."""

    system: str
    kind: str


def carried(product: str) -> tuple[Product, list[Table]]:
    """The tables that the project carries."""
    return _read(PRODUCTS / f"{product}.tables.jsonl")


def catalogue(product: str) -> tuple[Product, list[Table]] | None:
    """All tables of the product; None where the catalogues are not at hand."""
    file = CATALOGUES / f"{product}.jsonl"
    return _read(file) if file.exists() else None


def _read(file: Path) -> tuple[Product, list[Table]]:
    first, *lines = file.read_bytes().splitlines()
    return msgspec.json.decode(first, type=Product), [msgspec.json.decode(line, type=Table) for line in lines]


def statements(kind: str, tables: Sequence[Table], sequences: Iterable[tuple[str, int]] = ()) -> list[str]:
    """SQL that makes the tables, with foreign keys among them, and sequences by (name, increment)."""
    quote = "`" if kind == "mysql" else '"'

    def names(columns: Sequence[str]) -> str:
        return ", ".join(f"{quote}{name}{quote}" for name in columns)

    found = [f"create sequence {names([name])} increment {step}" for name, step in sequences]
    there = {table.table for table in tables}
    for table in tables:
        parts: list[str] = []
        for column in table.columns:
            default = "" if column.default in (None, "NULL") else f" default {column.default}"
            null = "" if column.is_nullable else " not null"
            extra = f" {column.extra}" if column.extra else ""
            parts.append(f"{names([column.name])} {column.type}{null}{default}{extra}")
        if table.primary_key:
            parts.append(f"primary key ({names(table.primary_key)})")
        parts += [f"unique ({names(columns)})" for columns in table.unique]
        # MariaDB allows a counter only where an index begins with it; others need none for what is tested here.
        found.append(f"create table {names([table.table])} ({', '.join(parts)})")
    for table in tables:
        found += [
            f"alter table {names([table.table])} add foreign key ({names(key.columns)})"
            f" references {names([key.table])} ({names(key.others)}) on delete {key.on_delete}"
            for key in table.foreign_keys
            if key.table in there
        ]
    return found
