"""A row with what is joined to it, wherever the joined rows come from: one of each, or lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.model.joined import list_text
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.pipeline.join_plan import ends, listed
from engine.ports import Join

RowsOf = Callable[[Join, WireRow], list[WireRow]]
"""The rows of a join that belong to a row of its owner, without those that take no part."""


class RowMaker:
    """Makes joined rows of one mapped table. `shapes`: of the joined tables, by join."""

    def __init__(self, joins: Sequence[Join], shapes: Sequence[Shape]) -> None:
        self.lists = listed(joins)
        self._joins = [(join, ends(join)[1], shape) for join, shape in zip(joins, shapes, strict=True)]
        self._nothing = {join.name: (None,) * len(shape.columns) for join, _, shape in self._joins}

    def whole(self, own: WireRow, rows_of: RowsOf) -> WireRow:
        """The row, then each join's columns; nulls where there is nothing."""
        values: list[Wire] = list(own)
        parts: dict[str, list[WireRow | None]] = {"": [own]}
        sets: dict[str, bool] = {}
        for join, owner, shape in self._joins:
            if join.is_list:
                (above,) = parts[owner]
                found: list[WireRow | None] = []
                if above is not None:
                    found += in_order(join, shape, rows_of(join, above))
                sets[join.name] = not join.ordinal
            else:
                found = [
                    None if above is None else first_row(join, shape, rows_of(join, above)) for above in parts[owner]
                ]
                if owner in sets:
                    sets[join.name] = sets[owner]
            parts[join.name] = found
            if join.name in sets:
                values += self._lists(join, shape, found, sets[join.name])
            else:
                values += found[0] or self._nothing[join.name]
        return tuple(values)

    def _lists(self, join: Join, shape: Shape, rows: Sequence[WireRow | None], is_set: bool) -> list[Wire]:
        return [
            list_text(column, [row[n] for row in rows if row is not None], is_set=is_set)
            if column.name in join.used
            else ABSENT
            for n, column in enumerate(shape.columns)
        ]


def first_row(join: Join, shape: Shape, rows: list[WireRow]) -> WireRow | None:
    """The one that counts where several rows belong to one: the first by the join's `order`, then by the key."""
    return in_order(join, shape, rows)[0] if rows else None


def in_order(join: Join, shape: Shape, rows: list[WireRow]) -> list[WireRow]:
    """By the join's `order`, then by the key."""
    if len(rows) < 2:
        return rows
    texts = [join.texts(shape, (name,)) for name in (*join.order, *join.key)]

    def place(row: WireRow) -> list[tuple[bool, int, str]]:
        found: list[tuple[bool, int, str]] = []
        for text in texts:
            value = text(row)
            # Whole numbers by their size: the longer one is greater.
            length = len(value) if value is not None and value.isascii() and value.isdigit() else 0
            found.append((value is None, length, value or ""))
        return found

    return sorted(rows, key=place)
