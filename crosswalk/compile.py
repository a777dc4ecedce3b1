"""Blocks compiled for a table's shape: one generated Python function that reads rows, one that writes them.

The source of a function is put together from the fields' conversions (`carry`) and expressions (`expression`) and
executed once per shape. A column that needs nothing costs an index load; a row that something is wrong with leaves the
straight line and is taken apart field by field, to say which field it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from crosswalk.block import Block, MappedField
from crosswalk.carry import Cell, Names
from crosswalk.convert import Loss
from engine.errors import TableHeld, ValueRefused
from engine.model.entity import Entity
from engine.model.table import Column, Shape

# What a conversion can raise over a value: its own refusals, and Python's for a value of another kind than the
# column's. Anything else is a mistake of ours and is let through.
REFUSALS = (Loss, ValueError, TypeError, KeyError, IndexError, ArithmeticError, AttributeError, RecursionError)

encode_key = msgspec.json.Encoder().encode
decode_key = msgspec.json.Decoder(list[str]).decode


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated expression. `columns`: indexes of the row's (or record's) values it uses, as variables `c3`."""

    code: str
    columns: tuple[int, ...]
    field_name: str
    column_name: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a column's value as it stands."""
        return len(self.columns) == 1 and self.code == f"c{self.columns[0]}"


def held(block: Block, message: str, hint: str, *, where: str = "", **context: object) -> TableHeld:
    """The error for a table that does not have what the block wants. `where`: file and line, else the block's."""
    return TableHeld(
        f"{prefix_of(block)}{message} ({where or block.where})",
        hint=hint,
        system=block.system,
        table=block.table,
        **context,
    )


def prefix_of(block: Block) -> str:
    """How every message about a block's table begins."""
    return f"system {block.system}, table {block.table}: "


def column_of(block: Block, shape: Shape, name: str, wanted_by: MappedField | str) -> tuple[int, Column]:
    """Index and column. Raises `TableHeld` when the table does not have it. `wanted_by`: a field, or words."""
    index = shape.index(name)
    if index is None:
        is_word = isinstance(wanted_by, str)
        raise held(
            block,
            f"the table has no column {name!r}, which {wanted_by if is_word else f'field {wanted_by.name!r}'} wants",
            "Correct the mapping, or put the column back.",
            where="" if is_word else wanted_by.where,
            column=name,
            **({} if is_word else {"field": wanted_by.name}),
        )
    return index, shape.columns[index]


def cell_of(block: Block, shape: Shape, entity: Entity, mapped: MappedField, column: Column) -> Cell:
    return Cell(
        field=entity.fields[entity.index[mapped.name]],
        column=column,
        form=shape.form,
        values=mapped.values,
        unit=mapped.unit,
        zone=mapped.zone,
        default=mapped.default,
        round=mapped.round,
        truncate=mapped.truncate,
        soft_delete=mapped.soft_delete,
    )


def currency_constants(block: Block, entity: Entity) -> dict[int, str]:
    """Index of a currency field → the currency that all amounts of this table are in."""
    found: dict[int, str] = {}
    for mapped in block.fields:
        unit = entity.fields[entity.index[mapped.name]].unit
        if mapped.currency is not None and unit in entity.index:
            found[entity.index[unit]] = mapped.currency
    return found


def reason_of(error: BaseException, otherwise: str) -> str:
    """A `Loss` says why; Python's own errors would quote the value."""
    return str(error) if isinstance(error, Loss) else otherwise


def explainer(block: Block, pieces: list[Piece], names: Names, row: str) -> Callable[[Any], ValueRefused]:
    """A function that finds out which field of a row refuses. Its own source is compiled at the first refusal."""
    functions: list[tuple[Piece, Callable[[Any], Any]]] = []

    def refuse(values: Any) -> ValueRefused:
        if not functions:
            functions.extend((piece, _function(piece, names)) for piece in pieces)
        for piece, function in functions:
            try:
                function(values)
            except REFUSALS as error:
                reason = reason_of(error, "a value of a kind that does not fit")
                return block.refused(reason, field_name=piece.field_name, column=piece.column_name)
        return block.refused("a row that does not have the columns of its table", field_name="row", column=None)

    return refuse


def _function(piece: Piece, names: Names) -> Callable[[Any], Any]:
    loads = "".join(f"    c{i} = r[{i}]\n" for i in piece.columns)
    namespace = dict(names.objects)
    exec(f"def part(r):\n{loads}    return {piece.code}\n", namespace)
    return namespace["part"]
