"""MySQL's and MariaDB's SQL compiled to Python: every expression has a kind, conditions are numbers, null is None.

Here are names, literals, kinds and texts' collations; `sql_mysql_values` has the functions, `sql_mysql_logic`
conditions and choices. What the two databases do differently is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from sqlglot import exp

from crosswalk import sql_mysql_functions as f
from crosswalk.carry import Names
from crosswalk.convert import Loss
from crosswalk.sql_mysql_texts import FIELDS, Rule, merged, rule_of
from crosswalk.sql_scope import Base, Part, Scope, SqlProblem, Variable, function_name
from engine.model.table import Form, Kind

TEXTS = (Kind.TEXT, Kind.ENUM)
NUMBERS = (Kind.BOOLEAN, Kind.INTEGER, Kind.DECIMAL)
WHOLE = (Kind.BOOLEAN, Kind.INTEGER)
MOMENTS = (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT)
SCALE_MAX = 30
"""Decimals that MySQL computes with; MariaDB has 38."""
KNOWN: Final = (
    "concat, concat_ws, lower, upper, trim, ltrim, rtrim, substring, left, right, replace, substring_index, instr,"
    " locate, position, lpad, rpad, char_length, length, coalesce, ifnull, nullif, if, case, greatest, least, cast,"
    " + - * / div mod, abs, round, truncate, floor, ceil, year, quarter, month, day, hour, minute, second, extract,"
    " date, dayofweek, dayofyear, datediff, date_format, comparisons, <=>, between, in, like, is, and, or, xor, not,"
    " collate"
)
BIT: Final = "bit"
NULL: Final = Part("None", Kind.OTHER, is_null=True)
Nodes = Mapping[type, "Callable[[MysqlCompiler, Any], Part]"]

# What a node may have and still mean what its handler takes it for.
_ARGUMENTS = frozenset(
    {
        *("this", "expression", "expressions", "low", "high", "ifs", "default", "true", "false", "start", "length"),
        *("substr", "position", "delimiter", "count", "fill_pattern", "is_left", "binary", "decimals", "to", "format"),
        *("replacement", "safe", "coalesce", "negate", "date_part_boundary", "is_string", "quoted", "table"),
    }
)


class MysqlCompiler(Base):
    """One expression. `compile` gives its Python and kind; `nodes` says how each sort of node is compiled."""

    def __init__(self, scope: Scope, names: Names, nodes: Nodes) -> None:
        super().__init__(scope, names)
        self.nodes = nodes

    def compile(self, node: exp.Expr) -> Part:
        part = self.part(node)
        if part.kind is not Kind.DECIMAL or part.is_null:
            return part
        return Part(self.applied(f.shown(part.scale), part), part.kind, part.is_nullable, scale=part.scale)

    def condition(self, node: exp.Expr) -> str:
        return self.truth(self.part(node)).code

    def part(self, node: exp.Expr) -> Part:
        further = [key for key, value in node.args.items() if value and key not in _ARGUMENTS]
        method = self.nodes.get(type(node))
        if method is None or further:
            raise SqlProblem(f"{function_name(node)} is not computed here; there is {KNOWN}")
        return method(self, node)

    def column(self, node: exp.Column) -> Part:
        variable = self.scope.resolve(node)
        self.used.add(variable.index)
        name = f"c{variable.index}"
        column = variable.column
        load, kind = _load(variable)
        code = name if load is None else f"(None if {name} is None else {self.names.bind(load)}({name}))"
        scale, collation = 0, FIELDS
        if column is not None:
            scale, collation = column.scale or 0, column.collation
            if kind is Kind.DECIMAL and (column.scale is None or column.scale > SCALE_MAX):
                raise SqlProblem(f"column {variable.name!r} has more decimals than are computed with here")
        elif kind is Kind.INSTANT:
            scale = f.SECOND_DIGITS
        elif kind is Kind.DECIMAL:
            scale = variable.scale or 0
        affinity = BIT if column is not None and kind is Kind.BOOLEAN else ""
        return Part(code, kind, affinity=affinity, scale=scale, collation=collation if kind in TEXTS else "")

    def literal(self, node: exp.Literal) -> Part:
        text = str(node.this)
        if node.is_string:
            return Part(repr(text), Kind.TEXT, is_nullable=False, literal=text)
        if text.isdecimal() and text.isascii():
            if int(text) >= 2**63:
                raise SqlProblem(f"{text} is beyond 64 bits")
            return Part(str(int(text)), Kind.INTEGER, is_nullable=False)
        try:
            number = f.text_to_decimal(f"0{text}" if text.startswith(".") else text)
        except Loss:
            raise SqlProblem(f"{text} is a floating point, which is not computed here") from None
        return Part(self.names.bind(number), Kind.DECIMAL, is_nullable=False, scale=f.places(number))

    # -------------------------------------------------------------------------------------- what is wanted

    def number(self, part: Part, what: str) -> Part:
        if part.is_null:
            return Part("None", Kind.INTEGER, is_null=True)
        if part.kind not in NUMBERS:
            raise SqlProblem(f"{what} takes numbers, not {part.kind.value}; add a cast")
        return part

    def decimal(self, part: Part, what: str = "arithmetic") -> Part:
        part = self.number(part, what)
        if part.kind is Kind.DECIMAL or part.is_null:
            return part
        return Part(self.applied(f.decimal, part), Kind.DECIMAL, part.is_nullable)

    def integer(self, node: exp.Expr) -> Part:
        part = self.part(node)
        if part.is_null or part.kind in WHOLE:
            return part
        raise SqlProblem(f"a whole number is wanted where the expression has {part.kind.value}; add a cast")

    def text(self, node: exp.Expr) -> Part:
        return self.spelt(self.part(node))

    def moment(self, node: exp.Expr, what: str) -> Part:
        part = self.part(node.this if isinstance(node, exp.TsOrDsToDate | exp.TsOrDsToTimestamp) else node)
        if part.kind not in MOMENTS and not part.is_null:
            raise SqlProblem(f"{what} takes a date or datetime; add a cast")
        return part

    def calendar_day(self, node: exp.Expr, what: str) -> Part:
        """Of a column only: a choice takes another value for a zero date where a day of the calendar is asked for."""
        plain = node.this if isinstance(node, exp.TsOrDsToDate) else node
        if not isinstance(plain, exp.Column):
            raise SqlProblem(f"{what} takes a column here")
        return self.moment(plain, what)

    def truth(self, part: Part) -> Part:
        """A condition's value: not zero."""
        if part.kind is Kind.BOOLEAN:
            return part
        part = self.number(part, "a condition")
        if part.is_null:
            return Part("None", Kind.BOOLEAN, is_null=True)
        return Part(self.strict([part], lambda v: f"({v[0]} != 0)"), Kind.BOOLEAN, part.is_nullable)

    def spelt(self, part: Part) -> Part:
        """As text, the way the server writes it."""
        if part.is_null:
            return Part("None", Kind.TEXT, is_null=True)
        _check_bit(part)
        match part.kind:
            case Kind.TEXT | Kind.ENUM:
                return part
            case Kind.BOOLEAN | Kind.INTEGER:
                spell = f.whole_text
            case Kind.DECIMAL:
                spell = f.decimal_text(part.scale)
            case Kind.TIMESTAMP | Kind.INSTANT:
                spell = f.moment_text(part.scale)
            case Kind.DATE:
                return Part(part.code, Kind.TEXT, part.is_nullable)
            case _:
                raise SqlProblem(f"{part.kind.value} is not used as a text here")
        return Part(self.applied(spell, part), Kind.TEXT, part.is_nullable)

    def made_text(self, parts: Iterable[Part], code: str, *, is_nullable: bool = True) -> Part:
        """A text made from others: of their collation."""
        collation = merged([part.collation for part in parts], "a text made of several")
        return Part(code, Kind.TEXT, is_nullable, collation=collation)

    def called(
        self, kind: Kind, function: Callable[..., Any], *parts: Part, scale: int = 0, may_null: bool = False
    ) -> Part:
        is_nullable = may_null or any(part.is_nullable for part in parts)
        return Part(self.call(function, list(parts)), kind, is_nullable, scale=scale)

    def called_text(self, function: Callable[..., Any], *parts: Part, may_null: bool = False) -> Part:
        is_nullable = may_null or any(part.is_nullable for part in parts)
        return self.made_text(parts, self.call(function, list(parts)), is_nullable=is_nullable)

    # ------------------------------------------------------------------------------------- several together

    def unified(self, parts: list[Part]) -> list[Part]:
        """The values of a choice, as what the choice gives."""
        there = [part for part in parts if not part.is_null]
        for part in there:
            _check_bit(part)
        kinds = {part.kind for part in there}
        scale = max((part.scale for part in there), default=0)
        if not there:
            return parts
        if kinds <= set(WHOLE):
            kind = kinds.pop() if len(kinds) == 1 else Kind.INTEGER
            return [Part(p.code, kind, p.is_nullable, is_null=p.is_null) for p in parts]
        if kinds <= set(NUMBERS):
            made = [self.decimal(part) for part in parts]
            return [Part(p.code, Kind.DECIMAL, p.is_nullable, is_null=p.is_null, scale=scale) for p in made]
        if kinds <= set(MOMENTS):
            if len(kinds) > 1:
                return [self.as_moment(part, scale) for part in parts]
            return [Part(p.code, there[0].kind, p.is_nullable, is_null=p.is_null, scale=scale) for p in parts]
        if kinds & {Kind.TIME, Kind.UUID, Kind.JSON} or (kinds & set(MOMENTS) and kinds & set(NUMBERS)):
            if len(kinds) == 1:
                return parts
            raise SqlProblem(f"{' and '.join(sorted(k.value for k in kinds))} do not go together; add a cast")
        spelt = [self.spelt(part) for part in parts]
        collation = merged([part.collation for part in spelt], "a choice")
        return [Part(p.code, Kind.TEXT, p.is_nullable, is_null=p.is_null, collation=collation) for p in spelt]

    def as_moment(self, part: Part, scale: int) -> Part:
        code = self.applied(f.date_to_moment, part) if part.kind is Kind.DATE else part.code
        return Part(code, Kind.TIMESTAMP, part.is_nullable, is_null=part.is_null, scale=scale)

    def comparable(self, parts: list[Part], what: str) -> tuple[list[Part], Rule | None]:
        """Values that Python compares as the server does; with a rule, texts."""
        there = [part for part in parts if not part.is_null]
        kinds = {part.kind for part in there if part.literal is None}
        if kinds <= set(TEXTS):
            if not there:
                return parts, None
            return parts, rule_of(merged([part.collation for part in there], what), what)
        if kinds <= set(NUMBERS):
            return [self._number_of_literal(part, kinds) for part in parts], None
        if kinds <= set(MOMENTS):
            found = [self._moment_of_literal(part) for part in parts]
            if len({part.kind for part in found if not part.is_null}) > 1:
                found = [self.as_moment(part, f.SECOND_DIGITS) for part in found]
            return found, None
        raise SqlProblem(f"{what}: {' and '.join(sorted(k.value for k in kinds))} are not compared here; add a cast")

    def _number_of_literal(self, part: Part, kinds: set[Kind]) -> Part:
        """'0' where whole numbers are; anything else would be compared as floating point."""
        if part.literal is None:
            return part
        text = part.literal
        if Kind.DECIMAL in kinds or not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 15:
            raise SqlProblem("a number is compared with a text; write the number without quotes")
        return Part(str(int(text)), Kind.INTEGER, is_nullable=False)

    def _moment_of_literal(self, part: Part) -> Part:
        if part.literal is None:
            return part
        is_date = len(part.literal) == len("2024-02-29")
        try:
            value = f.text_to_date(part.literal) if is_date else f.text_to_moment(part.literal)
        except Loss as loss:
            raise SqlProblem(str(loss)) from None
        return Part(repr(value), Kind.DATE if is_date else Kind.TIMESTAMP, is_nullable=False)

    def comparison(self, sign: str, left: Part, right: Part) -> Part:
        (one, two), rule = self.comparable([left, right], "a comparison")
        if rule is not None:
            if sign not in ("==", "!="):
                raise SqlProblem("the order of texts depends on the database's collation and is not computed here")
            equal = self.called(Kind.BOOLEAN, rule.equal, one, two)
            return equal if sign == "==" else self.inverse(equal)
        code = self.strict([one, two], lambda v: f"({v[0]} {sign} {v[1]})")
        return Part(code, Kind.BOOLEAN, one.is_nullable or two.is_nullable)

    def inverse(self, part: Part) -> Part:
        return Part(self.strict([part], lambda v: f"(not {v[0]})"), Kind.BOOLEAN, part.is_nullable)

    def negated(self, node: exp.Expr, part: Part) -> Part:
        return self.inverse(part) if node.args.get("negate") else part

    # ----------------------------------------------------------------------------------------------- results

    def delivered(self, part: Part, wanted: Kind) -> Part:
        """A whole expression's value, as `sql_result` takes it for a field or a column that is mainly `wanted`."""
        if part.is_null:
            return part
        if wanted is Kind.TEXT and part.kind not in (Kind.UUID, Kind.JSON, Kind.TIME):
            return self.spelt(part)
        if wanted is Kind.BOOLEAN and part.kind in NUMBERS:
            return self.called(Kind.BOOLEAN, f.zero_or_one, part)
        if part.kind is Kind.BOOLEAN:
            return self.called(Kind.INTEGER, int, part)
        if part.kind is Kind.DATE:
            return self.called(part.kind, f.real_date, part)
        if part.kind in (Kind.TIMESTAMP, Kind.INSTANT):
            return self.called(part.kind, f.real_moment, part)
        return part


def _check_bit(part: Part) -> None:
    if part.affinity == BIT:
        raise SqlProblem("a column of type bit is a byte here; compare it, = 1")


def _load(variable: Variable) -> tuple[Callable[[Any], Any] | None, Kind]:
    """What turns the row's value into a Python value of the kind; None where it is one."""
    kind, column = variable.kind, variable.column
    if variable.form is Form.NATIVE:
        raise SqlProblem("MySQL's SQL is computed over its text form only")
    if column is not None and ("zerofill" in column.type or column.type.startswith("year")):
        raise SqlProblem(f"column {variable.name!r} of type {column.type} cannot be used in an expression here")
    if kind in (*TEXTS, Kind.UUID, Kind.JSON, Kind.TIME):
        return None, kind
    if kind in WHOLE and variable.form is None:
        return None, kind
    if kind is Kind.DECIMAL and column is None and variable.scale is None:
        raise SqlProblem(f"field {variable.name!r} has no decimals that its type tells; use it without an expression")
    found = _LOADS.get(kind)
    if found is None:
        raise SqlProblem(f"column {variable.name!r} of {kind.value} cannot be used in an expression here")
    return found, kind


_LOADS: dict[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: int,
    Kind.DECIMAL: f.load_decimal,
    Kind.BOOLEAN: f.load_bit,
    Kind.DATE: f.load_date,
    Kind.TIMESTAMP: f.load_moment,
    Kind.INSTANT: f.load_instant,
}
