"""PostgreSQL's SQL compiled to Python: every expression has a kind, and null is None.

Here are names, literals and kinds; `sql_typed_values` has the functions, `sql_typed_logic` conditions and choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlglot import exp

from crosswalk import sql_typed_functions as f
from crosswalk.carry import Names, is_padded
from crosswalk.sql_scope import Base, Part, Scope, SqlProblem, Variable, function_name
from engine.model.table import Form, Kind

TEXTS = (Kind.TEXT, Kind.ENUM, Kind.UUID)
NUMBERS = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
MOMENTS = (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT)
KNOWN: Final = (
    "||, concat, concat_ws, lower, upper, trim, ltrim, rtrim, substring, left, right, replace, split_part, position,"
    " lpad, rpad, length, coalesce, nullif, greatest, least, case, cast, + - * / %, abs, round, trunc, floor, ceil,"
    " extract, date_trunc, at time zone, comparisons, between, in, like, ilike, is, and, or, not"
)
Nodes = Mapping[type, "Callable[[TypedCompiler, Any], Part]"]
NULL: Final = Part("None", Kind.OTHER, is_null=True)


class TypedCompiler(Base):
    """One expression. `compile` gives its Python and kind; `nodes` says how each sort of node is compiled."""

    def __init__(self, scope: Scope, names: Names, nodes: Nodes) -> None:
        super().__init__(scope, names)
        self.nodes = nodes

    def compile(self, node: exp.Expr) -> Part:
        part = self.part(node)
        # A string that met nothing that would give it a type is text.
        return Part(part.code, Kind.TEXT, part.is_nullable) if part.literal is not None else part

    def condition(self, node: exp.Expr) -> str:
        return self.boolean(node).code

    def part(self, node: exp.Expr) -> Part:
        for kind in type(node).__mro__:
            method = self.nodes.get(kind)
            if method is not None:
                return method(self, node)
        raise SqlProblem(f"{function_name(node)} is not computed here; there is {KNOWN}")

    def column(self, node: exp.Column) -> Part:
        variable = self.scope.resolve(node)
        self.used.add(variable.index)
        name = f"c{variable.index}"
        load, kind = _load(variable)
        code = name if load is None else f"(None if {name} is None else {self.names.bind(load)}({name}))"
        return Part(code, kind)

    def literal(self, node: exp.Literal) -> Part:
        text = str(node.this)
        if node.is_string:
            return Part(repr(text), Kind.TEXT, is_nullable=False, literal=text)
        if text.isdecimal() and text.isascii():
            return Part(str(int(text)), Kind.INTEGER, is_nullable=False)
        try:
            return Part(self.names.bind(f.text_to_numeric(text)), Kind.DECIMAL, is_nullable=False)
        except f.Loss:
            raise SqlProblem(f"{text} is no number") from None

    def converted(self, part: Part, kind: Kind) -> Part:
        """`part` where a value of `kind` is wanted, by implicit casts only."""
        if part.is_null:
            return Part("None", kind, is_null=True)
        if part.literal is not None and kind is not Kind.TEXT:
            return self.parsed(part.literal, kind)
        if part.kind is kind or (kind is Kind.TEXT and part.kind in TEXTS):
            return part
        if kind is Kind.DECIMAL and part.kind is Kind.INTEGER:
            return Part(self.applied(f.numeric, part), kind, part.is_nullable)
        if kind is Kind.FLOAT and part.kind in NUMBERS:
            return Part(self.applied(float, part), kind, part.is_nullable)
        if (part.kind, kind) in ((Kind.DATE, Kind.TIMESTAMP), (Kind.DATE, Kind.INSTANT)):
            return Part(self.applied(f.date_to_timestamp, part), kind, part.is_nullable)
        if (part.kind, kind) == (Kind.TIMESTAMP, Kind.INSTANT):
            return Part(part.code, kind, part.is_nullable)
        raise SqlProblem(f"{kind.value} is wanted where the expression has {part.kind.value}; add a cast")

    def parsed(self, text: str, kind: Kind) -> Part:
        """A string literal as a value of `kind`."""
        if kind in (Kind.ENUM, Kind.UUID, Kind.TIME):
            return Part(repr(text), kind, is_nullable=False)
        cast = _CASTS.get((Kind.TEXT, kind))
        if cast is None:
            raise SqlProblem(f"a string cannot stand for {kind.value} here")
        try:
            value = cast(text)
        except (ValueError, ArithmeticError, f.Loss):
            raise SqlProblem(f"{text!r} is no {kind.value}") from None
        return Part(self.names.bind(value), kind, is_nullable=False)

    def common(self, parts: list[Part]) -> Kind:
        """The kind that all of them can have."""
        kinds = {part.kind for part in parts if not part.is_null and part.literal is None}
        if not kinds:
            return Kind.TEXT
        if len(kinds) == 1:
            return kinds.pop()
        for ladder in ((Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT), MOMENTS, (Kind.ENUM, Kind.UUID, Kind.TEXT)):
            if kinds <= set(ladder):
                return max(kinds, key=ladder.index)
        raise SqlProblem(f"{' and '.join(sorted(kind.value for kind in kinds))} do not go together; add a cast")

    def unified(self, nodes: list[exp.Expr]) -> tuple[list[Part], Kind]:
        parts = [self.part(node) for node in nodes]
        kind = self.common(parts)
        return [self.converted(part, kind) for part in parts], kind

    def text(self, node: exp.Expr) -> Part:
        return self.converted(self.part(node), Kind.TEXT)

    def integer(self, node: exp.Expr) -> Part:
        return self.converted(self.part(node), Kind.INTEGER)

    def boolean(self, node: exp.Expr) -> Part:
        return self.converted(self.part(node), Kind.BOOLEAN)

    def spelt(self, part: Part, spellings: dict[Kind, Callable[[Any], str]] = f.SPELLINGS) -> Part:
        """As text, the way the type's output function writes it."""
        if part.is_null or part.literal is not None or part.kind not in spellings:
            return part if not part.is_null else Part("None", Kind.TEXT, is_null=True)
        return Part(self.applied(spellings[part.kind], part), Kind.TEXT, part.is_nullable)

    def strictly(self, kind: Kind, parts: list[Part], make: Callable[[list[str]], str]) -> Part:
        return Part(self.strict(parts, make), kind, any(part.is_nullable for part in parts))

    def called(self, kind: Kind, function: Callable[..., Any], *parts: Part) -> Part:
        return Part(self.call(function, list(parts)), kind, any(part.is_nullable for part in parts))

    def number(self, node: exp.Expr, name: str) -> Part:
        part = self.part(node)
        if part.kind not in NUMBERS or part.literal is not None:
            raise SqlProblem(f"{name} takes a number; add a cast")
        return part

    def comparison(self, sign: str, left: Part, right: Part) -> Part:
        kind = self.common([left, right])
        if sign not in ("==", "!=") and kind in TEXTS:
            raise SqlProblem("the order of texts depends on the database's collation and is not computed here")
        if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
            raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
        parts = [self.converted(left, kind), self.converted(right, kind)]
        return self.strictly(Kind.BOOLEAN, parts, lambda v: f"({v[0]} {sign} {v[1]})")

    def conjunction(self, left: Part, right: Part) -> Part:
        if not left.is_nullable and not right.is_nullable:
            return Part(f"({left.code} and {right.code})", Kind.BOOLEAN, is_nullable=False)
        one, two = self.temporary(), self.temporary()
        code = (
            f"(False if ({one} := {left.code}) is False or ({two} := {right.code}) is False"
            f" else None if {one} is None or {two} is None else True)"
        )
        return Part(code, Kind.BOOLEAN)

    def inverse(self, part: Part) -> Part:
        return self.strictly(Kind.BOOLEAN, [part], lambda v: f"(not {v[0]})")

    def negated(self, node: exp.Expr, part: Part) -> Part:
        return self.inverse(part) if node.args.get("negate") else part

    def cast_to(self, part: Part, kind: Kind) -> Part:
        if kind is Kind.TEXT:
            return Part(self.spelt(part).code, kind, part.is_nullable)
        source = Kind.TEXT if part.kind in TEXTS else part.kind
        if source is kind or (part.kind is kind):
            return Part(part.code, kind, part.is_nullable)
        cast = _CASTS.get((source, kind))
        if cast is None:
            raise SqlProblem(f"a cast from {part.kind.value} to {kind.value} is not computed here")
        return self.called(kind, cast, part)


def _load(variable: Variable) -> tuple[Callable[[Any], Any] | None, Kind]:
    """What turns the row's value into a Python value of the kind; None where it is one."""
    kind = variable.kind
    canonical = variable.form is None
    if variable.form is Form.NATIVE:
        raise SqlProblem("PostgreSQL's SQL is computed over its text form only")
    if variable.column is not None and is_padded(variable.column):
        return f.load_padded, Kind.TEXT
    if kind in (*TEXTS, Kind.OTHER, Kind.JSON, Kind.TIME):
        return None, Kind.TEXT if kind is Kind.OTHER else kind
    if canonical and kind in (Kind.INTEGER, Kind.BOOLEAN):
        return None, kind
    found = _LOADS.get(kind)
    if found is None:
        raise SqlProblem(f"column {variable.name!r} of {kind.value} cannot be used in an expression here")
    return found, kind


_LOADS: dict[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: int,
    Kind.DECIMAL: f.load_numeric,
    Kind.FLOAT: f.load_float,
    Kind.BOOLEAN: f.load_boolean,
    Kind.DATE: f.text_to_date,
    Kind.TIMESTAMP: f.text_to_timestamp,
    Kind.INSTANT: f.load_instant,
}


def _same_text(text: str) -> str:
    return text.lower()


_CASTS: dict[tuple[Kind, Kind], Callable[[Any], Any]] = {
    (Kind.TEXT, Kind.INTEGER): f.text_to_integer,
    (Kind.DECIMAL, Kind.INTEGER): f.numeric_to_integer,
    (Kind.FLOAT, Kind.INTEGER): f.float_to_integer,
    (Kind.BOOLEAN, Kind.INTEGER): int,
    (Kind.TEXT, Kind.DECIMAL): f.text_to_numeric,
    (Kind.INTEGER, Kind.DECIMAL): f.numeric,
    (Kind.FLOAT, Kind.DECIMAL): f.float_to_numeric,
    (Kind.TEXT, Kind.FLOAT): f.text_to_float,
    (Kind.INTEGER, Kind.FLOAT): float,
    (Kind.DECIMAL, Kind.FLOAT): float,
    (Kind.TEXT, Kind.BOOLEAN): f.text_to_boolean,
    (Kind.INTEGER, Kind.BOOLEAN): bool,
    (Kind.TEXT, Kind.DATE): f.text_to_date,
    (Kind.TIMESTAMP, Kind.DATE): lambda moment: moment.date(),
    (Kind.INSTANT, Kind.DATE): lambda moment: moment.date(),
    (Kind.TEXT, Kind.TIMESTAMP): f.text_to_timestamp,
    (Kind.DATE, Kind.TIMESTAMP): f.date_to_timestamp,
    (Kind.INSTANT, Kind.TIMESTAMP): lambda moment: moment,
    (Kind.TEXT, Kind.INSTANT): f.text_to_instant,
    (Kind.DATE, Kind.INSTANT): f.date_to_timestamp,
    (Kind.TIMESTAMP, Kind.INSTANT): lambda moment: moment,
    (Kind.TEXT, Kind.UUID): _same_text,
}
