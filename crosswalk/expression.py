"""SQL expressions of mappings, from text to a line of Python.

sqlglot parses; `sql_typed` compiles PostgreSQL's SQL (every value has a type that is known beforehand), `sql_dynamic`
SQLite's (a value's type is known when it comes), `sql_mysql` that of MariaDB and MySQL. All keep SQL's three-valued
logic. What is not computed exactly as the database computes it is not computed at all: it is a `SqlProblem` that names
the function and what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from crosswalk import sql_mysql_logic, sql_mysql_values, sql_typed_logic, sql_typed_values
from crosswalk.block import MappedField
from crosswalk.carry import Cell, Names
from crosswalk.sql_dynamic import DynamicCompiler
from crosswalk.sql_mysql import MysqlCompiler
from crosswalk.sql_result import canonical_result, wire_result
from crosswalk.sql_scope import Compiler, Part, Scope, SqlProblem
from crosswalk.sql_typed import TypedCompiler
from engine.model.entity import Entity, Field, Type
from engine.model.table import Kind
from engine.ports import CanonicalTest

TYPED_NODES = sql_typed_values.NODES | sql_typed_logic.NODES
MYSQL_NODES = sql_mysql_values.NODES | sql_mysql_logic.NODES
COMPILERS: dict[str, Callable[[Scope, Names], Compiler]] = {
    "postgres": lambda scope, names: TypedCompiler(scope, names, TYPED_NODES),
    "sqlite": DynamicCompiler,
    "mysql": lambda scope, names: MysqlCompiler(scope, names, MYSQL_NODES),
}

# Comparisons bind differently in each database, and sqlglot follows none of them everywhere.
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike,
                exp.NullSafeEQ, exp.NullSafeNEQ)  # fmt: skip
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg)
_JOINS = (exp.And, exp.Or, exp.Xor)


def parse_sql(text: str, dialect: str) -> exp.Expr:
    """One SQL expression. Raises `SqlProblem`."""
    if dialect not in COMPILERS:
        known = ", ".join(sorted(COMPILERS))
        raise SqlProblem(f"expressions are computed for {known}, not yet for {dialect}; map the columns as they are")
    try:
        if dialect == "mysql":
            _check_pipes(text)
        found = sqlglot.parse_one(f"select {text}", dialect=dialect)
    except (SqlglotError, RecursionError, ValueError) as error:
        first = str(error).partition("\n")[0].partition(". Line")[0]
        raise SqlProblem(f"this is no SQL expression: {first}") from None
    if not isinstance(found, exp.Select) or {key for key, value in found.args.items() if value} != {"expressions"}:
        raise SqlProblem("one SQL expression is wanted, no statement")
    parts = found.expressions
    if len(parts) != 1 or isinstance(parts[0], (exp.Alias, exp.Star)):
        raise SqlProblem("one SQL expression is wanted, without a name of its own")
    _check_precedence(parts[0])
    if dialect == "postgres":
        # Folded once, here, so that everybody sees the name that PostgreSQL sees.
        for name in parts[0].find_all(exp.Identifier):
            if not name.args.get("quoted"):
                name.set("this", str(name.this).lower())
    return parts[0]


def one_condition(text: str, dialect: str) -> str:
    """SQL that a system is to evaluate itself, as one expression that fits between parentheses. Raises `SqlProblem`."""
    try:
        found = sqlglot.parse_one(f"select 1 where {text}", dialect=dialect)
    except (SqlglotError, RecursionError, ValueError) as error:
        first = str(error).partition("\n")[0].partition(". Line")[0]
        raise SqlProblem(f"this is no SQL expression: {first}") from None
    if not isinstance(found, exp.Select) or {key for key, value in found.args.items() if value} != {
        "expressions",
        "where",
    }:
        raise SqlProblem("one SQL expression is wanted, no statement")
    # Without comments: one at the end would take a closing parenthesis along.
    return found.args["where"].this.sql(dialect=dialect, comments=False)


def _check_pipes(text: str) -> None:
    if any(token.token_type is TokenType.DPIPE for token in sqlglot.tokenize(text, read="mysql")):
        raise SqlProblem("|| is or in MySQL, and joins texts elsewhere; write concat(…) or or")


def _check_precedence(expression: exp.Expr) -> None:
    for node in expression.walk():
        for child in node.iter_expressions():
            both_compare = isinstance(node, _COMPARISONS) and isinstance(child, _COMPARISONS)
            mixed = (isinstance(node, exp.DPipe) and isinstance(child, _ARITHMETIC)) or (
                isinstance(node, _ARITHMETIC) and isinstance(child, exp.DPipe)
            )
            if isinstance(node, exp.Xor) or isinstance(child, exp.Xor):
                mixed |= type(node) is not type(child) and isinstance(node, _JOINS) and isinstance(child, _JOINS)
            if both_compare or mixed:
                raise SqlProblem("put parentheses around the inner operation: databases differ in what binds first")


def compile_read(
    expression: exp.Expr, scope: Scope, names: Names, field: Field, mapped: MappedField
) -> tuple[str, tuple[int, ...]]:
    """Python for the canonical value of `field`, over variables `c3`, and the indexes of the columns it uses."""
    compiler = COMPILERS[scope.dialect](scope, names)
    result = _delivered(compiler, compiler.compile(expression), _WANTED_OF_FIELD.get(field.type, Kind.OTHER))
    finish = canonical_result(field, result.kind, mapped.zone, mapped.round)
    code = compiler.applied(finish, result)
    columns = tuple(sorted(compiler.used))
    if columns:
        absent = " or ".join(f"c{i} is ABSENT" for i in columns)
        code = f"(ABSENT if {absent} else {code})"
    return code, columns


def compile_test(expression: exp.Expr, scope: Scope, names: Names) -> tuple[str, tuple[int, ...]]:
    """Python that is True where the condition holds; false and unknown are False and None."""
    compiler = COMPILERS[scope.dialect](scope, names)
    code = compiler.condition(expression)
    return code, tuple(sorted(compiler.used))


def compile_write(
    expression: exp.Expr, entity: Entity, dialect: str, names: Names, cell: Cell
) -> tuple[str, tuple[int, ...]]:
    """Python for the wire value of the cell's column, over canonical values `c3`."""
    compiler = COMPILERS[dialect](Scope.of_entity(entity, dialect), names)
    wanted = Kind.TEXT if cell.column.kind in (Kind.TEXT, Kind.ENUM, Kind.OTHER) else cell.column.kind
    result = _delivered(compiler, compiler.compile(expression), wanted)
    code = compiler.applied(wire_result(cell, result.kind), result)
    return code, tuple(sorted(compiler.used))


# As what a field's value is wanted; other types take any kind that fits.
_WANTED_OF_FIELD = {
    **dict.fromkeys((Type.TEXT, Type.ENUM), Kind.TEXT),
    Type.BOOLEAN: Kind.BOOLEAN,
}


def _delivered(compiler: Compiler, result: Part, wanted: Kind) -> Part:
    return compiler.delivered(result, wanted) if isinstance(compiler, MysqlCompiler) else result


def compile_accepts(expression: exp.Expr, entity: Entity, dialect: str) -> CanonicalTest:
    """A function that tells whether a record fulfils the condition."""
    names = Names()
    code, columns = compile_test(expression, Scope.of_entity(entity, dialect), names)
    loads = "".join(f"    c{i} = record[{i}]\n" for i in columns)
    namespace: dict[str, Any] = dict(names.objects)
    exec(f"def accepts(record):\n{loads}    return {code} is True\n", namespace)
    return namespace["accepts"]
