"""The names that an expression may use, and what its compilers have in common."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sqlglot import exp

from crosswalk.carry import Names
from engine.model.entity import Entity, Type
from engine.model.table import Column, Form, Kind, Shape


class SqlProblem(Exception):
    """SQL that is none, or that is not computed here; the message says what, and what there is instead."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A column of the row, or a field of the record. `form` None: its value is canonical. `scale`: a field's."""

    index: int
    name: str
    kind: Kind
    form: Form | None
    column: Column | None = None
    scale: int | None = None


# What a canonical value is to SQL. Durations are their seconds; enums, JSON and binary are texts.
_KINDS = {
    Type.INTEGER: Kind.INTEGER,
    Type.DECIMAL: Kind.DECIMAL,
    Type.MONEY: Kind.DECIMAL,
    Type.DURATION: Kind.DECIMAL,
    Type.BOOLEAN: Kind.BOOLEAN,
    Type.DATE: Kind.DATE,
    Type.TIME: Kind.TIME,
    Type.TIMESTAMP: Kind.INSTANT,
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Columns of a shape, or fields of an entity, under the dialect's rules for names."""

    dialect: str
    variables: dict[str, Variable]
    owner: str

    @classmethod
    def of_shape(cls, shape: Shape, dialect: str) -> Scope:
        found = {c.name: Variable(n, c.name, c.kind, shape.form, c) for n, c in enumerate(shape.columns)}
        return cls(dialect, found, f"table {shape.name}")

    @classmethod
    def of_entity(cls, entity: Entity, dialect: str) -> Scope:
        found = {
            f.name: Variable(n, f.name, _KINDS.get(f.type, Kind.TEXT), None, scale=f.scale)
            for n, f in enumerate(entity.fields)
            if not f.is_retired
        }
        return cls(dialect, found, f"entity {entity.name}")

    def resolve(self, node: exp.Column) -> Variable:
        """The variable a name means. SQLite ignores case; for PostgreSQL `parse_sql` has folded it."""
        if node.args.get("db") is not None or not isinstance(node.this, exp.Identifier):
            raise SqlProblem(f"only plain column names are known here, not {node.sql(dialect=self.dialect)}")
        name = column_name(node)
        found = self.variables.get(name)
        if found is None and self.dialect == "sqlite":
            found = next((v for key, v in self.variables.items() if key.lower() == name.lower()), None)
        if found is None:
            near = difflib.get_close_matches(name, self.variables, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SqlProblem(f"{self.owner} has no column {name!r}{hint}")
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """A compiled expression. `kind` is OTHER for dynamic values, and for a null that has no type yet.

    `literal`: the text of an untyped string literal, which takes the type of what it meets. `affinity`: SQLite's.
    `scale`, `collation`: MySQL's, how many decimals or digits of a second are shown, and how a text is compared.
    """

    code: str
    kind: Kind
    is_nullable: bool = True
    literal: str | None = None
    is_null: bool = False
    affinity: str = ""
    scale: int = 0
    collation: str = ""


class Compiler(Protocol):
    used: set[int]

    def compile(self, node: exp.Expr) -> Part: ...
    def condition(self, node: exp.Expr) -> str: ...
    def applied(self, function: Callable[[Any], Any] | None, part: Part) -> str: ...


class Base:
    """Temporary names and the passing-on of nulls."""

    def __init__(self, scope: Scope, names: Names) -> None:
        self.scope = scope
        self.names = names
        self.used: set[int] = set()
        self._count = 0

    def temporary(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def strict(self, parts: list[Part], make: Callable[[list[str]], str]) -> str:
        """`make` over the values' names; null where one of them is null, as most of SQL's functions are."""
        tests: list[str] = []
        values: list[str] = []
        for part in parts:
            if not part.is_nullable:
                values.append(part.code)
            elif part.code.isidentifier():
                tests.append(f"{part.code} is None")
                values.append(part.code)
            else:
                name = self.temporary()
                tests.append(f"({name} := {part.code}) is None")
                values.append(name)
        made = make(values)
        # What cannot be null is evaluated inside `make`, after the others; SQL leaves the order open.
        return f"(None if {' or '.join(tests)} else {made})" if tests else made

    def call(self, function: Callable[..., Any], parts: list[Part]) -> str:
        name = self.names.bind(function)
        return self.strict(parts, lambda values: f"{name}({', '.join(values)})")

    def applied(self, function: Callable[[Any], Any] | None, part: Part) -> str:
        """`function` of a value that is there."""
        if function is None or part.is_null:
            return part.code
        return self.call(function, [part])


def column_name(node: exp.Column) -> str:
    """A column as the shape names it: `name.column` for that of a joined table."""
    owner = node.args.get("table")
    return f"{owner.name}.{node.name}" if isinstance(owner, exp.Identifier) else node.name


def function_name(node: exp.Expr) -> str:
    """What a person would call it."""
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower()
    if isinstance(node, exp.Func):
        return node.sql_name().lower()
    return type(node).__name__.lower()


def arguments(node: exp.Expr) -> Iterator[exp.Expr]:
    """`this` and the further arguments of a function with a list of them."""
    if isinstance(node.this, exp.Expr):
        yield node.this
    yield from node.expressions


def literal_int(node: exp.Expr | None, what: str) -> int:
    """The value of a whole number that is written out."""
    sign = 1
    while isinstance(node, (exp.Neg, exp.Paren)):
        sign = -sign if isinstance(node, exp.Neg) else sign
        node = node.this
    if not isinstance(node, exp.Literal) or node.is_string or not str(node.this).isdigit():
        raise SqlProblem(f"{what} must be a whole number written out")
    return sign * int(node.this)
