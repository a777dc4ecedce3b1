"""Statements about many rows at once: a table of values, joined with the table that is written to.

Only for keys whose values can be compared so as themselves: whole numbers, and texts once they are given the column's
own character set and collation. Numbers that come as texts would be compared as floating point. Of MariaDB alone, whose
`values` it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.model.table import Column, Kind
from plugins.mysql.apply_table import TargetTable
from plugins.mysql.catalog import type_word
from plugins.mysql.connect import Connection, quoted
from plugins.mysql.values import is_text

# Below, a statement per row is sooner done than a table of values is made. Measured, with nine-column rows.
TOGETHER_MIN: Final = 10
_GIVEN: Final = "given"


def can_compare(connection: Connection, columns: Sequence[Column]) -> bool:
    """Whether rows are found by keys of these columns in one statement."""
    return connection.is_mariadb and all(
        is_text(column) or (column.kind is Kind.INTEGER and type_word(column.type) != "year") for column in columns
    )


def update_sql(table: TargetTable, columns: Sequence[str], changed: Sequence[str], matches: str, rows: str) -> str:
    """Update rows of the table by those of `rows`, whose values are of `columns`."""
    sets = ", ".join(f"{table.name}.{quoted(name)} = {given(columns.index(name))}" for name in changed)
    return f"update {_values(len(columns), rows)} straight_join {table.name} on {matches} set {sets}"


def found_sql(table: TargetTable, count: int, matches: str, rows: str) -> str:
    """The last of the `count` columns of `rows`, of those that have a row in the table."""
    return f"select {given(count - 1)} from {_values(count, rows)} straight_join {table.name} on {matches}"


def match(connection: Connection, table: TargetTable, column: Column, index: int) -> str:
    """The condition that a row has the value of column `index` of the values, to the letter."""
    name, value = f"{table.name}.{quoted(column.name)}", given(index)
    if not is_text(column):
        return f"{name} = {value}"
    character_set, collation = table.collation(connection, column.name)
    return (
        f"{name} = convert({value} using {character_set}) collate {collation}"
        f" and cast(convert({name} using utf8mb4) as binary) = cast({value} as binary)"
    )


def given(index: int) -> str:
    return f"{_GIVEN}.c{index}"


def _values(count: int, rows: str) -> str:
    # Of an empty select the columns get their names, of the rows their types.
    names = ", ".join(f"null as c{index}" for index in range(count))
    return f"(select {names} from dual where false union all values {rows}) as {_GIVEN}"
