"""Rows of other tables that belong to a block's row: what a `[[table.join]]` says, and what it means for a shape.

A joined table's columns stand beside the table's own as `name.column`, in the shape that a block is compiled for and in
its SQL. Which rows belong to which is computed by the engine; here it is said when one takes part, and how keys are
spelt.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlglot import exp
from sqlglot.expressions import Expr

from crosswalk.block import Block, Constant
from crosswalk.carry import Names
from crosswalk.carry_read import key_reader
from crosswalk.compile import REFUSALS, encode_key, reason_of
from crosswalk.compile_write import constant_wire
from crosswalk.expression import compile_test
from crosswalk.sql_scope import Scope, SqlProblem, column_name
from engine.errors import TableHeld, ValueRefused
from engine.model.joined import Empty, Link
from engine.model.table import Column, Shape
from engine.model.value import Wire, WireRow
from engine.ports import JoinedRows, KeyRule, RowText

# Version 5 uuids need a namespace of the maker's own; this one was drawn once at random.
NAMESPACE = uuid.UUID("b0b8a6a2-38f5-4d0b-9a44-3f8a3c1f6f5d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """`engine.ports.Join`: one `[[table.join]]`, checked as far as the file alone allows."""

    system: str
    dialect: str
    where: str
    name: str
    table: str
    key: tuple[str, ...]
    links: tuple[Link, ...]
    filter: Expr | None
    constants: Mapping[str, Constant]
    key_rule: KeyRule
    find: tuple[str, ...]
    empty: Empty
    order: tuple[str, ...]
    is_list: bool
    ordinal: str
    used: frozenset[str]
    """Its columns that anything needs: fields of the block, the key, links, `where`, `order`, other joins' links."""

    def rows(self, shape: Shape) -> JoinedRows:
        return compile_join(self, shape)

    def texts(self, shape: Shape, columns: Sequence[str]) -> RowText:
        return key_texts(shape, columns)


@dataclass(frozen=True, slots=True)
class CompiledJoin:
    """`engine.ports.JoinedRows` for one shape."""

    constants: dict[str, Wire]
    _test: Callable[[WireRow], bool]
    _join: Join

    def takes(self, row: WireRow) -> bool:
        try:
            return self._test(row)
        except REFUSALS as error:
            where = f"system {self._join.system}, table {self._join.table}, which is joined as {self._join.name}"
            raise ValueRefused(
                f"{where}: where: {reason_of(error, 'a value of a kind that does not fit')}",
                hint="Correct the value there; the row that it belongs to is then read again.",
                system=self._join.system,
                table=self._join.table,
            ) from None

    def make_key(self, hub_id: str, owner: str) -> str:
        return str(uuid.uuid5(NAMESPACE, f"{hub_id}\x1f{self._join.system}\x1f{self._join.name}\x1f{owner}"))


def compile_join(join: Join, shape: Shape) -> CompiledJoin:
    """Raises `TableHeld` when the table does not have what the join wants."""
    for name in (*_needed(join), *join.find, *join.constants):
        if shape.index(name) is None:
            raise _held(join, f"the table has no column {name!r}", "Correct the join, or put the column back.", name)
    names = Names()
    try:
        test = "True"
        columns: tuple[int, ...] = ()
        if join.filter is not None:
            test, columns = compile_test(join.filter, Scope.of_shape(shape, join.dialect), names)
    except SqlProblem as problem:
        raise _held(join, f"where: {problem}", "Correct the condition in the mapping.") from None
    loads = "".join(f"    c{i} = r[{i}]\n" for i in columns)
    namespace: dict[str, Any] = dict(names.objects)
    exec(f"def takes(r):\n{loads}    return {test} is True\n", namespace)
    constants: dict[str, Wire] = {}
    for name, value in join.constants.items():
        column = shape.column(name)
        assert column is not None
        constants[name] = constant_wire(value, column, shape.form)
    return CompiledJoin(constants, namespace["takes"], join)


def key_texts(shape: Shape, columns: Sequence[str]) -> RowText:
    """A function for the text of a row's values in `columns`, spelt as keys are; None where one is null or not there.
    Raises `TableHeld` when a column is missing."""
    found: list[tuple[int, Callable[[Any], str]]] = []
    for name in columns:
        index = shape.index(name)
        if index is None:
            raise TableHeld(f"table {shape.name}: the table has no column {name!r}", hint="Correct the mapping.")
        column: Column = shape.columns[index]
        found.append((index, key_reader(column, shape.form)))

    def text(row: WireRow) -> str | None:
        try:
            parts = [read(row[i]) for i, read in found]
        except REFUSALS:
            return None
        return parts[0] if len(parts) == 1 else encode_key(parts).decode()

    return text


def used_columns(block: Block) -> set[str]:
    """The columns that a block reads or writes, as the joined shape names them."""
    found = {*block.key, *block.constants, *block.touched}
    expressions = [block.filter, *(mapped.read for mapped in block.fields)]
    for expression in expressions:
        if expression is not None:
            found.update(column_name(column) for column in expression.find_all(exp.Column))
    for mapped in block.fields:
        found.update(mapped.writes)
        if mapped.column is not None:
            found.add(mapped.column)
    for join in block.joins:
        found.update(f"{link.owner}.{link.other}" if link.owner else link.other for link in join.links)
    return found


def with_used(block: Block) -> Block:
    """The block with its joins knowing which of their columns are needed."""
    used = used_columns(block)
    joins: list[Join] = []
    for join in block.joins:
        own = {name.partition(".")[2] for name in used if name.startswith(f"{join.name}.")}
        own |= {*_needed(join), *join.find, *join.constants}
        if join.filter is not None:
            own |= {column.name for column in join.filter.find_all(exp.Column)}
        joins.append(replace(join, used=frozenset(own)))
    return replace(block, joins=tuple(joins))


def _needed(join: Join) -> tuple[str, ...]:
    """Columns that tell which rows belong together, and in which order."""
    ordinal = (join.ordinal,) if join.ordinal else ()
    return (*join.key, *(link.column for link in join.links), *join.order, *ordinal)


def _held(join: Join, message: str, hint: str, column: str = "") -> TableHeld:
    return TableHeld(
        f"system {join.system}, table {join.table}: {message} ({join.where})",
        hint=hint,
        system=join.system,
        table=join.table,
        **({"column": column} if column else {}),
    )
