"""Pages of a table in key order."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.errors import SourceUnready
from engine.model.change import Page
from engine.model.table import Shape
from engine.model.value import WireRow
from plugins.sqlite.catalog import column_list, read_shapes
from plugins.sqlite.connect import Connection, quoted


def read_page(connection: Connection, system: str, table: str, after: tuple[str, ...] | None, rows_max: int) -> Page:
    """Rows behind `after` in key order; call it inside a transaction. Keys are given back as quoted SQL literals.

    Their texts alone would not do: 1, 1.0 and '1' are three keys in SQLite, in an order of their own.
    """
    shapes = read_shapes(connection, [table])
    if table not in shapes:
        raise SourceUnready(
            f"system {system}: there is no table {table}",
            hint="Correct the mapping, or bring the table back.",
            system=system,
            table=table,
        )
    shape = shapes[table]
    key = column_list(shape.key)
    behind = f" where ({key}) > ({', '.join(after)})" if after else ""
    literals = ", ".join(f"quote({quoted(name)})" for name in shape.key)
    names = column_list(column.name for column in shape.columns)
    found = list(
        connection.execute(
            f"select {literals}, {names} from {quoted(table)}{behind} order by {key} limit {int(rows_max)}"
        )
    )
    width = len(shape.key)
    rows: list[WireRow] = [tuple(row[width:]) for row in found]
    last = tuple(str(literal) for literal in found[-1][:width]) if len(found) == rows_max else None
    return Page(shape=shape, rows=rows, last_key=last, read_at=time.time_ns() // 1000)


def key_bindings(shape: Shape, row: Sequence[object]) -> tuple[object, ...]:
    """The key's values of a row."""
    indexes = [shape.index(name) for name in shape.key]
    return tuple(row[n] for n in indexes if n is not None)
