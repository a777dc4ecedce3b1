"""SQLite's SQL compiled to Python: values carry their types, and columns have an affinity that comparisons follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlglot import exp

from crosswalk import sql_dynamic_functions as f
from crosswalk.carry import Names
from crosswalk.sql_scope import Base, Part, Scope, SqlProblem, arguments, function_name
from engine.model.table import Form, Kind

NUMERIC: Final = ("integer", "real", "numeric")
KNOWN: Final = (
    "||, concat, concat_ws, lower, upper, trim, ltrim, rtrim, substr, replace, instr, length, coalesce, ifnull, nullif,"
    " iif, max, min, case, cast, + - * / %, abs, round, date, comparisons, between, in, like, is, and, or, not"
)


class DynamicCompiler(Base):
    """One expression. Every part has kind OTHER: only the value tells."""

    def __init__(self, scope: Scope, names: Names) -> None:
        super().__init__(scope, names)
        self.nodes: dict[type, Callable[[Any], Part]] = {
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.Boolean: self._constant,
            exp.Null: self._null,
            exp.Paren: self._paren,
            exp.DPipe: self._pipe,
            exp.Concat: self._concat,
            exp.ConcatWs: self._concat_ws,
            exp.Lower: self._unary,
            exp.Upper: self._unary,
            exp.Length: self._unary,
            exp.Trim: self._trim,
            exp.Substring: self._substring,
            exp.Replace: self._replace,
            exp.StrPosition: self._position,
            exp.Like: self._like,
            exp.Escape: self._escape,
            exp.Add: self._arithmetic,
            exp.Sub: self._arithmetic,
            exp.Mul: self._arithmetic,
            exp.Div: self._arithmetic,
            exp.Mod: self._arithmetic,
            exp.Neg: self._unary,
            exp.Abs: self._unary,
            exp.Round: self._round,
            exp.Cast: self._cast,
            exp.EQ: self._compare,
            exp.NEQ: self._compare,
            exp.LT: self._compare,
            exp.LTE: self._compare,
            exp.GT: self._compare,
            exp.GTE: self._compare,
            exp.NullSafeEQ: self._same,
            exp.NullSafeNEQ: self._same,
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: self._between,
            exp.And: self._and,
            exp.Or: self._or,
            exp.Not: self._not,
            exp.Case: self._case,
            exp.If: self._if,
            exp.Coalesce: self._coalesce,
            exp.Nullif: self._nullif,
            exp.Greatest: self._greatest,
            exp.Least: self._greatest,
            exp.Date: self._date,
        }

    def compile(self, node: exp.Expr) -> Part:
        return self._part(node)

    def condition(self, node: exp.Expr) -> str:
        return self._truth(node)

    def _part(self, node: exp.Expr) -> Part:
        for kind in type(node).__mro__:
            method = self.nodes.get(kind)
            if method is not None:
                return method(node)
        raise SqlProblem(f"{function_name(node)} is not computed here; there is {KNOWN}")

    def _truth(self, node: exp.Expr) -> str:
        return f"{self.names.bind(f.truth)}({self._part(node).code})"

    def _called(self, function: Callable[..., Any], *nodes: exp.Expr) -> Part:
        return self._applied_to(function, [self._part(node) for node in nodes])

    def _applied_to(self, function: Callable[..., Any], parts: list[Part]) -> Part:
        return _dynamic(f"{self.names.bind(function)}({', '.join(part.code for part in parts)})")

    # ------------------------------------------------------------------------------------------- leaves

    def _column(self, node: exp.Column) -> Part:
        variable = self.scope.resolve(node)
        self.used.add(variable.index)
        name = f"c{variable.index}"
        if variable.form is Form.TEXT:
            raise SqlProblem("SQLite's SQL is computed over its native form only")
        if variable.form is None:
            return self._canonical(name, variable.kind)
        assert variable.column is not None
        return _dynamic(name, affinity(variable.column.type))

    def _canonical(self, name: str, kind: Kind) -> Part:
        """A field's canonical value as SQLite would hold it."""
        if kind is Kind.DECIMAL:
            return _dynamic(f"(None if {name} is None else {self.names.bind(f.load_decimal)}({name}))", "numeric")
        if kind is Kind.BOOLEAN:
            return _dynamic(f"{self.names.bind(f.flag)}({name})", "numeric")
        return _dynamic(name, "integer" if kind is Kind.INTEGER else "text")

    def _literal(self, node: exp.Literal) -> Part:
        text = str(node.this)
        if node.is_string:
            return _dynamic(repr(text))
        value = f.numeric_affinity(text)
        if isinstance(value, str) or value == float("inf"):
            raise SqlProblem(f"{text} is no number")
        return _dynamic(repr(value))

    def _constant(self, node: exp.Boolean) -> Part:
        return _dynamic("1" if node.this else "0")

    def _null(self, node: exp.Null) -> Part:
        return _dynamic("None")

    def _paren(self, node: exp.Paren) -> Part:
        return self._part(node.this)

    # --------------------------------------------------------------------------------------------- text

    def _pipe(self, node: exp.DPipe) -> Part:
        return self._called(f.join, node.this, node.expression)

    def _concat(self, node: exp.Concat) -> Part:
        return self._called(f.concat, *node.expressions)

    def _concat_ws(self, node: exp.ConcatWs) -> Part:
        return self._called(f.concat_ws, *node.expressions)

    def _trim(self, node: exp.Trim) -> Part:
        position = str(node.args.get("position") or "")
        function = {"LEADING": f.trim_left, "TRAILING": f.trim_right}.get(position, f.trim)
        return self._called(function, *(child for child in (node.this, node.expression) if child is not None))

    def _substring(self, node: exp.Substring) -> Part:
        start, length = node.args.get("start"), node.args.get("length")
        if start is None:
            raise SqlProblem("substr wants a number to start from")
        return self._called(f.substring, node.this, start, *([] if length is None else [length]))

    def _replace(self, node: exp.Replace) -> Part:
        replacement = node.args.get("replacement")
        if replacement is None:
            raise SqlProblem("replace takes a text, what to replace, and by what")
        return self._called(f.replace, node.this, node.expression, replacement)

    def _position(self, node: exp.StrPosition) -> Part:
        return self._called(f.position, node.this, node.args["substr"])

    def _like(self, node: exp.Like) -> Part:
        return self._negated(node, self._called(f.like, node.this, node.expression))

    def _escape(self, node: exp.Escape) -> Part:
        inner, escape = node.this.unnest(), node.expression
        if not isinstance(inner, exp.Like) or not isinstance(escape, exp.Literal) or len(str(escape.this)) != 1:
            raise SqlProblem("escape goes with like and takes one character written out")
        parts = [self._part(inner.this), self._part(inner.expression), _dynamic(repr(str(escape.this)))]
        return self._negated(inner, self._applied_to(f.like, parts))

    # ---------------------------------------------------------------------------------- numbers and casts

    def _arithmetic(self, node: exp.Binary) -> Part:
        return self._called(_ARITHMETIC[type(node)], node.this, node.expression)

    def _unary(self, node: exp.Expr) -> Part:
        return self._called(_UNARY[type(node)], node.this)

    def _round(self, node: exp.Round) -> Part:
        decimals = node.args.get("decimals")
        return self._called(f.rounded, node.this, *([] if decimals is None else [decimals]))

    def _cast(self, node: exp.Cast) -> Part:
        # By sqlglot's name for the type: its SQL for SQLite would make a real of a numeric.
        to = str(getattr(node.args["to"].this, "value", node.args["to"].this))
        kind = affinity(to)
        function = {"integer": f.cast_integer, "real": f.cast_real, "numeric": f.cast_numeric, "text": f.text}.get(kind)
        if function is None:
            raise SqlProblem(f"a cast to {to.lower()} is not computed here; there are integer, real, numeric and text")
        return _dynamic(self._called(function, node.this).code, kind)

    # ---------------------------------------------------------------------------------------- conditions

    def _met(self, left: Part, right: Part) -> tuple[Part, Part]:
        """Both sides with the affinities that a comparison applies (Datatypes In SQLite, 4.2)."""
        if left.affinity in NUMERIC and right.affinity not in NUMERIC:
            return left, self._applied_to(f.numeric_affinity, [right])
        if right.affinity in NUMERIC and left.affinity not in NUMERIC:
            return self._applied_to(f.numeric_affinity, [left]), right
        if left.affinity == "text" and right.affinity == "":
            return left, self._applied_to(f.text_affinity, [right])
        if right.affinity == "text" and left.affinity == "":
            return self._applied_to(f.text_affinity, [left]), right
        return left, right

    def _compare(self, node: exp.Binary) -> Part:
        return self._comparison(_COMPARE[type(node)], self._part(node.this), self._part(node.expression))

    def _comparison(self, function: Callable[..., Any], left: Part, right: Part) -> Part:
        return self._applied_to(function, list(self._met(left, right)))

    def _same(self, node: exp.Binary) -> Part:
        if isinstance(node.expression, exp.Boolean):
            code = f"({self._truth(node.this)} is {bool(node.expression.this)})"
        else:
            code = self._comparison(f.same, self._part(node.this), self._part(node.expression)).code
        return self._inverse(_dynamic(code)) if isinstance(node, exp.NullSafeNEQ) else _dynamic(f"int({code})")

    def _is(self, node: exp.Is) -> Part:
        what = node.expression
        if isinstance(what, exp.Null):
            code = f"{self.names.bind(f.same)}({self._part(node.this).code}, None)"
        elif isinstance(what, exp.Boolean):
            code = f"({self._truth(node.this)} is {bool(what.this)})"
        else:
            code = self._comparison(f.same, self._part(node.this), self._part(what)).code
        return self._negated(node, _dynamic(f"int({code})"))

    def _in(self, node: exp.In) -> Part:
        if not node.expressions:
            raise SqlProblem("in takes a list of values")
        value = self._part(node.this)
        members: list[str] = []
        for child in node.expressions:
            # What stands in the list brings no affinity of its own.
            other = _dynamic(self._part(child).code)
            met = self._met(value, other)
            members.append(met[1].code)
        return _dynamic(f"{self.names.bind(f.member)}({value.code}, {', '.join(members)})")

    def _between(self, node: exp.Between) -> Part:
        value, low, high = (self._part(child) for child in (node.this, node.args["low"], node.args["high"]))
        first = self._comparison(f.at_least, value, low)
        second = self._comparison(f.at_most, value, high)
        return self._negated(node, _dynamic(self._conjunction(first.code, second.code)))

    def _and(self, node: exp.And) -> Part:
        return _dynamic(self._conjunction(self._part(node.this).code, self._part(node.expression).code))

    def _conjunction(self, left: str, right: str) -> str:
        one, two, truth = self.temporary(), self.temporary(), self.names.bind(f.truth)
        return (
            f"(0 if ({one} := {truth}({left})) is False or ({two} := {truth}({right})) is False"
            f" else None if {one} is None or {two} is None else 1)"
        )

    def _or(self, node: exp.Or) -> Part:
        one, two, truth = self.temporary(), self.temporary(), self.names.bind(f.truth)
        left, right = self._part(node.this).code, self._part(node.expression).code
        return _dynamic(
            f"(1 if ({one} := {truth}({left})) is True or ({two} := {truth}({right})) is True"
            f" else None if {one} is None or {two} is None else 0)"
        )

    def _not(self, node: exp.Not) -> Part:
        return self._inverse(self._part(node.this))

    def _inverse(self, part: Part) -> Part:
        name = self.temporary()
        return _dynamic(f"(None if ({name} := {self.names.bind(f.truth)}({part.code})) is None else int(not {name}))")

    def _negated(self, node: exp.Expr, part: Part) -> Part:
        return self._inverse(part) if node.args.get("negate") else part

    # ------------------------------------------------------------------------------------------- choices

    def _case(self, node: exp.Case) -> Part:
        default = node.args.get("default")
        code = "None" if default is None else self._part(default).code
        for branch in reversed(node.args["ifs"]):
            if node.this is None:
                test = self._truth(branch.this)
            else:
                equal = self._comparison(f.equal, self._part(node.this), self._part(branch.this))
                test = f"{self.names.bind(f.truth)}({equal.code})"
            code = f"({self._part(branch.args['true']).code} if {test} is True else {code})"
        return _dynamic(code)

    def _if(self, node: exp.If) -> Part:
        otherwise = node.args.get("false")
        last = "None" if otherwise is None else self._part(otherwise).code
        return _dynamic(f"({self._part(node.args['true']).code} if {self._truth(node.this)} is True else {last})")

    def _coalesce(self, node: exp.Coalesce) -> Part:
        parts = [self._part(child) for child in arguments(node)]
        code = parts[-1].code
        for part in reversed(parts[:-1]):
            name = self.temporary()
            code = f"({name} if ({name} := {part.code}) is not None else {code})"
        return _dynamic(code)

    def _nullif(self, node: exp.Nullif) -> Part:
        return self._called(f.nullif, node.this, node.expression)

    def _greatest(self, node: exp.Expr) -> Part:
        function = f.greatest if isinstance(node, exp.Greatest) else f.least
        nodes = list(arguments(node))
        if len(nodes) < 2:
            raise SqlProblem("max and min of one value are aggregates; here they take several")
        return self._called(function, *nodes)

    def _date(self, node: exp.Date) -> Part:
        if node.expressions or node.args.get("zone") is not None:
            raise SqlProblem('date takes one ISO text here; for numbers since 1970 map the column with unit = "unix"')
        return self._called(f.day, node.this)


def _dynamic(code: str, affinity: str = "") -> Part:
    return Part(code, Kind.OTHER, affinity=affinity)


def affinity(declared: str) -> str:
    """A column's affinity by its declared type (Datatypes In SQLite, 3.1)."""
    name = declared.upper()
    if "INT" in name:
        return "integer"
    if "CHAR" in name or "CLOB" in name or "TEXT" in name:
        return "text"
    if "BLOB" in name or not name:
        return "blob"
    if "REAL" in name or "FLOA" in name or "DOUB" in name:
        return "real"
    return "numeric"


_ARITHMETIC: dict[type, Callable[..., Any]] = {
    exp.Add: f.add,
    exp.Sub: f.subtract,
    exp.Mul: f.multiply,
    exp.Div: f.divide,
    exp.Mod: f.modulo,
}
_UNARY: dict[type, Callable[..., Any]] = {
    exp.Neg: f.negative,
    exp.Abs: f.absolute,
    exp.Lower: f.lower,
    exp.Upper: f.upper,
    exp.Length: f.length,
}
_COMPARE: dict[type, Callable[..., Any]] = {
    exp.EQ: f.equal,
    exp.NEQ: f.unequal,
    exp.LT: f.less,
    exp.LTE: f.at_most,
    exp.GT: f.greater,
    exp.GTE: f.at_least,
}
