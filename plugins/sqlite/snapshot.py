"""Pages of a table in key order.

Where to go on is spelt so that it means the same value again: 1, 1.0 and '1' are three keys in SQLite, in an order of
their own, and `quote()` cuts a text at a NUL.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import apsw

from engine.errors import SourceUnready, no_table
from engine.model.change import Page
from engine.model.table import Shape
from engine.model.value import Wire, WireRow
from plugins.sqlite.catalog import column_list, read_shapes
from plugins.sqlite.connect import Connection, quoted
from plugins.sqlite.values import read_rows


def read_page(
    connection: Connection,
    system: str,
    table: str,
    after: tuple[str, ...] | None,
    rows_max: int,
    condition: str = "",
) -> Page:
    """Rows behind `after` for which `condition` holds, in key order; call it inside a transaction."""
    shapes = read_shapes(connection, [table])
    if table not in shapes:
        raise no_table(system, table)
    shape = shapes[table]
    behind, bindings = _behind(shape, [decode_key(text) for text in after or ()])
    wanted = [text for text in (behind, condition and f"({condition})") if text]
    where = f"where {' and '.join(wanted)}" if wanted else ""
    rest = f"from {quoted(table)} {where} order by {column_list(shape.key)} limit {int(rows_max)}"
    with asked(system, table, condition):
        rows: list[WireRow] = read_rows(connection, (), [quoted(c.name) for c in shape.columns], rest, bindings)
    last = None
    if len(rows) == rows_max:
        indexes = [shape.index(name) for name in shape.key]
        last = tuple(encode_key(rows[-1][n]) for n in indexes if n is not None)
    return Page(shape=shape, rows=rows, last_key=last, read_at=time.time_ns() // 1000)


@contextmanager
def asked(system: str, table: str, condition: str) -> Generator[None]:
    """What SQLite says of a person's condition becomes `SourceUnready`."""
    try:
        yield
    except apsw.SQLError as error:
        if not condition:
            raise
        raise SourceUnready(
            f"system {system}, table {table}: SQLite refuses the condition: {error}",
            hint="Correct it and ask again.",
            system=system,
            table=table,
        ) from error


def _behind(shape: Shape, key: Sequence[Wire]) -> tuple[str, list[Wire]]:
    """The condition for rows behind `key`, and its bindings. Nulls, which SQLite allows in primary keys that are not
    the rowid (https://www.sqlite.org/lang_createtable.html#the_primary_key), come first in its order."""
    if not key:
        return "", []
    names = [quoted(name) for name in shape.key]
    if None not in key:
        return f"({', '.join(names)}) > ({', '.join('?' * len(key))})", list(key)
    alternatives: list[str] = []
    bindings: list[Wire] = []
    for n, value in enumerate(key):
        same = [f"{name} is ?" for name in names[:n]]
        bindings += key[:n]
        if value is None:
            alternatives.append(" and ".join((*same, f"{names[n]} is not null")))
        else:
            alternatives.append(" and ".join((*same, f"{names[n]} > ?")))
            bindings.append(value)
    return f"({' or '.join(f'({a})' for a in alternatives)})", bindings


def encode_key(value: Wire) -> str:
    """A key's value as a text: its storage class and itself. For `Page.last_key`, and nothing else."""
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, float):
        return f"r{value.hex()}"
    if isinstance(value, bytes):
        return f"b{value.hex()}"
    return f"t{value}" if isinstance(value, str) else "n"


def decode_key(text: str) -> Wire:
    """The value of `encode_key`."""
    match text[:1]:
        case "i":
            return int(text[1:])
        case "r":
            return float.fromhex(text[1:])
        case "b":
            return bytes.fromhex(text[1:])
        case "t":
            return text[1:]
        case _:
            return None
