"""SQL expressions of mappings: parsed by sqlglot, compiled to Python."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError


class SqlProblem(Exception):
    """SQL that is none, or that we do not compute; the message says what and what there is instead."""


def parse_sql(text: str, dialect: str) -> exp.Expression:
    """One SQL expression. Raises `SqlProblem`."""
    try:
        found = sqlglot.parse_one(text, dialect=dialect)
    except (SqlglotError, RecursionError) as error:
        first = str(error).partition("\n")[0].partition(". Line")[0]
        raise SqlProblem(f"this is no SQL expression: {first}") from None
    return found


from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crosswalk.block import MappedField
from crosswalk.carry import Cell, Names
from engine.model.entity import Entity, Field
from engine.model.table import Shape


@dataclass(frozen=True)
class Scope:
    shape: Any
    dialect: str

    @classmethod
    def of_shape(cls, shape: Shape, dialect: str) -> Scope:
        return cls(shape, dialect)


def compile_read(
    expression: exp.Expression, scope: Scope, names: Names, field: Field, mapped: MappedField
) -> tuple[str, tuple[int, ...]]:
    raise SqlProblem("not yet")


def compile_test(expression: exp.Expression, scope: Scope, names: Names) -> tuple[str, tuple[int, ...]]:
    raise SqlProblem("not yet")


def compile_write(
    expression: exp.Expression, entity: Entity, dialect: str, names: Names, cell: Cell
) -> tuple[str, tuple[int, ...]]:
    raise SqlProblem("not yet")


def compile_accepts(expression: exp.Expression, entity: Entity, dialect: str) -> Callable[[Any], bool]:
    raise SqlProblem("not yet")
