"""PostgreSQL's SQL compiled to Python: every expression has a kind, and null is None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlglot import exp

from crosswalk import sql_typed_functions as f
from crosswalk.carry import is_padded
from crosswalk.sql_scope import Base, Part, SqlProblem, Variable, arguments, function_name, literal_int
from engine.model.table import Form, Kind

TEXTS = (Kind.TEXT, Kind.ENUM, Kind.UUID)
NUMBERS = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
MOMENTS = (Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT)
KNOWN: Final = (
    "||, concat, concat_ws, lower, upper, trim, ltrim, rtrim, substring, left, right, replace, split_part, position,"
    " lpad, rpad, length, coalesce, nullif, greatest, least, case, cast, + - * / %, abs, round, trunc, floor, ceil,"
    " extract, date_trunc, at time zone, comparisons, between, in, like, ilike, is, and, or, not"
)
CASTS: Final = (
    "text, varchar, smallint, integer, bigint, numeric, double precision, boolean, date, timestamp, timestamptz, uuid"
)
NULL: Final = Part("None", Kind.OTHER, is_null=True)
_INTEGERS = {"SMALLINT": 16, "INT": 32, "BIGINT": 64}


class TypedCompiler(Base):
    """One expression. `compile` gives its Python and kind."""

    def compile(self, node: exp.Expr) -> Part:
        part = self._part(node)
        # A string that met nothing that would give it a type is text.
        return Part(part.code, Kind.TEXT, part.is_nullable) if part.literal is not None else part

    def condition(self, node: exp.Expr) -> str:
        return self._boolean(node).code

    def _part(self, node: exp.Expr) -> Part:
        for kind in type(node).__mro__:
            method = _METHODS.get(kind)
            if method is not None:
                return method(self, node)
        raise SqlProblem(f"{function_name(node)} is not computed here; there is {KNOWN}")

    # ------------------------------------------------------------------------------------------- leaves

    def _column(self, node: exp.Column) -> Part:
        variable = self.scope.resolve(node)
        self.used.add(variable.index)
        name = f"c{variable.index}"
        load, kind = _load(variable)
        code = name if load is None else f"(None if {name} is None else {self.names.bind(load)}({name}))"
        return Part(code, kind)

    def _literal(self, node: exp.Literal) -> Part:
        text = str(node.this)
        if node.is_string:
            return Part(repr(text), Kind.TEXT, is_nullable=False, literal=text)
        if text.isdigit():
            return Part(text, Kind.INTEGER, is_nullable=False)
        return Part(self.names.bind(f.text_to_numeric(text)), Kind.DECIMAL, is_nullable=False)

    def _constant(self, node: exp.Boolean) -> Part:
        return Part(repr(bool(node.this)), Kind.BOOLEAN, is_nullable=False)

    def _null(self, node: exp.Expr) -> Part:
        return NULL

    def _paren(self, node: exp.Paren) -> Part:
        return self._part(node.this)

    # -------------------------------------------------------------------------------------------- kinds

    def _as(self, part: Part, kind: Kind) -> Part:
        """`part` where a value of `kind` is wanted, by implicit casts only."""
        if part.is_null:
            return Part("None", kind, is_null=True)
        if part.literal is not None and kind is not Kind.TEXT:
            return self._parsed(part.literal, kind)
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

    def _parsed(self, text: str, kind: Kind) -> Part:
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

    def _common(self, parts: list[Part]) -> Kind:
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

    def _unified(self, nodes: list[exp.Expr]) -> tuple[list[Part], Kind]:
        parts = [self._part(node) for node in nodes]
        kind = self._common(parts)
        return [self._as(part, kind) for part in parts], kind

    def _text(self, node: exp.Expr) -> Part:
        return self._as(self._part(node), Kind.TEXT)

    def _integer(self, node: exp.Expr) -> Part:
        return self._as(self._part(node), Kind.INTEGER)

    def _boolean(self, node: exp.Expr) -> Part:
        return self._as(self._part(node), Kind.BOOLEAN)

    def _spelt(self, part: Part, spellings: dict[Kind, Callable[[Any], str]] = f.SPELLINGS) -> Part:
        """As text, the way the type's output function writes it."""
        if part.is_null or part.literal is not None or part.kind not in spellings:
            return part if not part.is_null else Part("None", Kind.TEXT, is_null=True)
        return Part(self.applied(spellings[part.kind], part), Kind.TEXT, part.is_nullable)

    def _strict(self, kind: Kind, parts: list[Part], make: Callable[..., str]) -> Part:
        return Part(self.strict(parts, make), kind, any(part.is_nullable for part in parts))

    def _called(self, kind: Kind, function: Callable[..., Any], *parts: Part) -> Part:
        return Part(self.call(function, list(parts)), kind, any(part.is_nullable for part in parts))

    # --------------------------------------------------------------------------------------------- text

    def _pipe(self, node: exp.DPipe) -> Part:
        left, right = self._part(node.this), self._part(node.expression)
        if not any(p.kind in TEXTS or p.is_null for p in (left, right)):
            raise SqlProblem("|| joins texts; cast one side to text")
        return self._strict(Kind.TEXT, [self._spelt(left), self._spelt(right)], lambda a, b: f"({a} + {b})")

    def _concat(self, node: exp.Concat) -> Part:
        letters = {**f.SPELLINGS, Kind.BOOLEAN: f.boolean_letter}
        parts = [self._spelt(self._part(child), letters) for child in node.expressions]
        code = f"{self.names.bind(f.concat)}({', '.join(part.code for part in parts)})"
        return Part(code, Kind.TEXT, is_nullable=False)

    def _concat_ws(self, node: exp.ConcatWs) -> Part:
        letters = {**f.SPELLINGS, Kind.BOOLEAN: f.boolean_letter}
        separator, *parts = [self._spelt(self._part(child), letters) for child in node.expressions]
        rest = "".join(f", {part.code}" for part in parts)
        name = self.names.bind(f.concat_ws)
        return self._strict(Kind.TEXT, [separator], lambda value: f"{name}({value}{rest})")

    def _lower(self, node: exp.Lower) -> Part:
        return self._called(Kind.TEXT, f.lower, self._text(node.this))

    def _upper(self, node: exp.Upper) -> Part:
        return self._called(Kind.TEXT, f.upper, self._text(node.this))

    def _trim(self, node: exp.Trim) -> Part:
        method = {"LEADING": "lstrip", "TRAILING": "rstrip"}.get(str(node.args.get("position") or ""), "strip")
        if node.expression is None:
            return self._strict(Kind.TEXT, [self._text(node.this)], lambda text: f"{text}.{method}(' ')")
        parts = [self._text(node.this), self._text(node.expression)]
        return self._strict(Kind.TEXT, parts, lambda text, chars: f"{text}.{method}({chars})")

    def _substring(self, node: exp.Substring) -> Part:
        start = node.args.get("start")
        length = node.args.get("length")
        if start is None:
            raise SqlProblem("substring wants a number to start from")
        parts = [self._text(node.this), self._integer(start)]
        if length is not None:
            parts.append(self._integer(length))
        return self._called(Kind.TEXT, f.substring, *parts)

    def _left(self, node: exp.Left) -> Part:
        return self._called(Kind.TEXT, f.left, self._text(node.this), self._integer(node.expression))

    def _right(self, node: exp.Right) -> Part:
        return self._called(Kind.TEXT, f.right, self._text(node.this), self._integer(node.expression))

    def _replace(self, node: exp.Replace) -> Part:
        replacement = node.args.get("replacement")
        if replacement is None:
            raise SqlProblem("replace takes a text, what to replace, and by what")
        parts = [self._text(child) for child in (node.this, node.expression, replacement)]
        return self._called(Kind.TEXT, f.replace, *parts)

    def _split_part(self, node: exp.SplitPart) -> Part:
        number = self._integer(node.args["part_index"])
        return self._called(Kind.TEXT, f.split_part, self._text(node.this), self._text(node.args["delimiter"]), number)

    def _position(self, node: exp.StrPosition) -> Part:
        if node.args.get("position") is not None or node.args.get("occurrence") is not None:
            raise SqlProblem("position takes a text and a part of it")
        return self._called(Kind.INTEGER, f.position, self._text(node.this), self._text(node.args["substr"]))

    def _pad(self, node: exp.Pad) -> Part:
        function = f.pad_left if node.args.get("is_left") else f.pad_right
        parts = [self._text(node.this), self._integer(node.expression)]
        fill = node.args.get("fill_pattern")
        if fill is not None:
            parts.append(self._text(fill))
        return self._called(Kind.TEXT, function, *parts)

    def _length(self, node: exp.Length) -> Part:
        return self._strict(Kind.INTEGER, [self._text(node.this)], lambda text: f"len({text})")

    def _like(self, node: exp.Like) -> Part:
        return self._like_with(node, f.like, None)

    def _ilike(self, node: exp.ILike) -> Part:
        return self._like_with(node, f.ilike, None)

    def _escape(self, node: exp.Escape) -> Part:
        inner = node.this.unnest()
        if not isinstance(inner, (exp.Like, exp.ILike)):
            raise SqlProblem("escape goes with like")
        escape = node.expression
        if not isinstance(escape, exp.Literal) or len(str(escape.this)) > 1:
            raise SqlProblem("escape takes one character written out")
        return self._like_with(inner, f.ilike if isinstance(inner, exp.ILike) else f.like, str(escape.this))

    def _like_with(self, node: exp.Expr, function: Callable[..., bool], escape: str | None) -> Part:
        parts = [self._text(node.this), self._text(node.expression)]
        if escape is not None:
            parts.append(Part(repr(escape), Kind.TEXT, is_nullable=False))
        return self._negated(node, self._called(Kind.BOOLEAN, function, *parts))

    # ------------------------------------------------------------------------------------------ numbers

    def _arithmetic(self, node: exp.Binary) -> Part:
        left, right = self._part(node.this), self._part(node.expression)
        sign = _SIGNS[type(node)]
        if Kind.DATE in (left.kind, right.kind):
            return self._date_arithmetic(sign, left, right)
        kind = self._common([left, right])
        if kind is Kind.TEXT and (left.is_null or right.is_null or left.literal or right.literal):
            kind = Kind.INTEGER
        if kind not in NUMBERS:
            raise SqlProblem(f"{sign} computes numbers, not {kind.value}; add a cast")
        parts = [self._as(left, kind), self._as(right, kind)]
        if kind is Kind.INTEGER and sign in "+-*":
            return self._strict(kind, parts, lambda a, b: f"({a} {sign} {b})")
        function = _ARITHMETIC.get((sign, kind))
        if function is None:
            raise SqlProblem(f"{sign} of {kind.value} is not computed here; cast to numeric")
        return self._called(kind, function, *parts)

    def _date_arithmetic(self, sign: str, left: Part, right: Part) -> Part:
        kinds = (left.kind, sign, right.kind)
        if kinds == (Kind.DATE, "-", Kind.DATE) and left.literal is None and right.literal is None:
            return self._called(Kind.INTEGER, f.days_between, left, right)
        if kinds == (Kind.DATE, "+", Kind.INTEGER):
            return self._called(Kind.DATE, f.add_days, left, right)
        if kinds == (Kind.DATE, "-", Kind.INTEGER):
            return self._called(Kind.DATE, f.subtract_days, left, right)
        raise SqlProblem("of dates, date + days, date - days and date - date are computed here")

    def _negative(self, node: exp.Neg) -> Part:
        part = self._part(node.this)
        if part.kind not in NUMBERS or part.literal is not None:
            raise SqlProblem("- negates numbers; add a cast")
        return self._strict(part.kind, [part], lambda value: f"(-{value})" if part.kind is not Kind.DECIMAL
                            else f"{value}.copy_negate()")  # fmt: skip

    def _abs(self, node: exp.Abs) -> Part:
        part = self._number(node.this, "abs")
        return self._strict(part.kind, [part], lambda value: f"{value}.copy_abs()" if part.kind is Kind.DECIMAL
                            else f"abs({value})")  # fmt: skip

    def _number(self, node: exp.Expr, name: str) -> Part:
        part = self._part(node)
        if part.kind not in NUMBERS or part.literal is not None:
            raise SqlProblem(f"{name} takes a number; add a cast")
        return part

    def _round(self, node: exp.Round) -> Part:
        return self._rounded(node, f.round_numeric, f.round_float)

    def _trunc(self, node: exp.Expr) -> Part:
        return self._rounded(node, f.truncate_numeric, lambda number: float(int(number)))

    def _rounded(self, node: exp.Expr, numeric: Callable[..., Any], floating: Callable[..., Any]) -> Part:
        part = self._number(node.this, function_name(node))
        decimals = node.args.get("decimals")
        if decimals is not None:
            return self._called(Kind.DECIMAL, numeric, self._as(part, Kind.DECIMAL), self._integer(decimals))
        if part.kind is Kind.DECIMAL:
            return self._called(Kind.DECIMAL, numeric, part)
        return self._called(Kind.FLOAT, floating, self._as(part, Kind.FLOAT))

    def _floor(self, node: exp.Floor) -> Part:
        return self._rounded(node, f.floor_numeric, lambda number: float(number // 1))

    def _ceil(self, node: exp.Ceil) -> Part:
        return self._rounded(node, f.ceil_numeric, lambda number: float(-(-number // 1)))

    # ---------------------------------------------------------------------------------------- conditions

    def _compare(self, node: exp.Binary) -> Part:
        return self._comparison(_COMPARE[type(node)], self._part(node.this), self._part(node.expression))

    def _comparison(self, sign: str, left: Part, right: Part) -> Part:
        kind = self._common([left, right])
        if sign not in ("==", "!=") and kind in TEXTS:
            raise SqlProblem("the order of texts depends on the database's collation and is not computed here")
        if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
            raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
        parts = [self._as(left, kind), self._as(right, kind)]
        return self._strict(Kind.BOOLEAN, parts, lambda a, b: f"({a} {sign} {b})")

    def _same(self, node: exp.Binary) -> Part:
        """is [not] distinct from: null is a value like any other."""
        parts, kind = self._unified([node.this, node.expression])
        if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
            raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
        sign = "==" if isinstance(node, exp.NullSafeEQ) else "!="
        return Part(f"({parts[0].code} {sign} {parts[1].code})", Kind.BOOLEAN, is_nullable=False)

    def _is(self, node: exp.Is) -> Part:
        what = node.expression
        if isinstance(what, exp.Null):
            part = self._part(node.this)
            code = f"({part.code} is None)" if part.is_nullable else "False"
        elif isinstance(what, exp.Boolean):
            code = f"({self._boolean(node.this).code} is {bool(what.this)})"
        else:
            raise SqlProblem("is goes with null, true, false and [not] distinct from")
        return self._negated(node, Part(code, Kind.BOOLEAN, is_nullable=False))

    def _in(self, node: exp.In) -> Part:
        if not node.expressions:
            raise SqlProblem("in takes a list of values")
        # A list has one kind, with the value that is looked for in it.
        parts, kind = self._unified([node.this, *node.expressions])
        if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
            raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
        value, *members = parts
        present = [member for member in members if not member.is_null]
        if len(present) == len(members) and not any(member.is_nullable for member in members):
            inside = ", ".join(member.code for member in members)
            return self._strict(Kind.BOOLEAN, [value], lambda found: f"({found} in ({inside},))")
        name = self.names.bind(_is_member)
        rest = ", ".join(member.code for member in members)
        return Part(self.strict([value], lambda found: f"{name}({found}, {rest})"), Kind.BOOLEAN)

    def _between(self, node: exp.Between) -> Part:
        value, low, high = (self._part(child) for child in (node.this, node.args["low"], node.args["high"]))
        first, second = self._comparison(">=", value, low), self._comparison("<=", value, high)
        return self._negated(node, self._conjunction(first, second))

    def _and(self, node: exp.And) -> Part:
        return self._conjunction(self._boolean(node.this), self._boolean(node.expression))

    def _conjunction(self, left: Part, right: Part) -> Part:
        if not left.is_nullable and not right.is_nullable:
            return Part(f"({left.code} and {right.code})", Kind.BOOLEAN, is_nullable=False)
        one, two = self.temporary(), self.temporary()
        code = (
            f"(False if ({one} := {left.code}) is False or ({two} := {right.code}) is False"
            f" else None if {one} is None or {two} is None else True)"
        )
        return Part(code, Kind.BOOLEAN)

    def _or(self, node: exp.Or) -> Part:
        left, right = self._boolean(node.this), self._boolean(node.expression)
        if not left.is_nullable and not right.is_nullable:
            return Part(f"({left.code} or {right.code})", Kind.BOOLEAN, is_nullable=False)
        one, two = self.temporary(), self.temporary()
        code = (
            f"(True if ({one} := {left.code}) is True or ({two} := {right.code}) is True"
            f" else None if {one} is None or {two} is None else False)"
        )
        return Part(code, Kind.BOOLEAN)

    def _not(self, node: exp.Not) -> Part:
        return self._inverse(self._boolean(node.this))

    def _inverse(self, part: Part) -> Part:
        return self._strict(Kind.BOOLEAN, [part], lambda value: f"(not {value})")

    def _negated(self, node: exp.Expr, part: Part) -> Part:
        return self._inverse(part) if node.args.get("negate") else part

    # ------------------------------------------------------------------------------------------- choices

    def _case(self, node: exp.Case) -> Part:
        tests: list[Part] = []
        for branch in node.args["ifs"]:
            if node.this is None:
                tests.append(self._boolean(branch.this))
            else:
                tests.append(self._comparison("==", self._part(node.this), self._part(branch.this)))
        default = node.args.get("default") or exp.Null()
        values, kind = self._unified([*(branch.args["true"] for branch in node.args["ifs"]), default])
        code = values[-1].code
        for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
            code = f"({value.code} if {test.code} is True else {code})"
        return Part(code, kind, any(value.is_nullable for value in values))

    def _coalesce(self, node: exp.Coalesce) -> Part:
        parts, kind = self._unified(list(arguments(node)))
        code = parts[-1].code
        is_nullable = parts[-1].is_nullable
        for part in reversed(parts[:-1]):
            if not part.is_nullable:
                code, is_nullable = part.code, False
                continue
            name = self.temporary()
            code = f"({name} if ({name} := {part.code}) is not None else {code})"
        return Part(code, kind, is_nullable)

    def _nullif(self, node: exp.Nullif) -> Part:
        left, right = self._part(node.this), self._part(node.expression)
        kind = self._common([left, right])
        own = left if left.literal is None else self._as(left, kind)
        name = self.temporary()
        first = Part(name, own.kind, own.is_nullable)
        equal = self._comparison("==", first, right)
        return Part(f"(None if [{name} := {own.code}] and {equal.code} is True else {name})", own.kind)

    def _greatest(self, node: exp.Expr) -> Part:
        parts, kind = self._unified(list(arguments(node)))
        if kind not in (*NUMBERS, *MOMENTS):
            raise SqlProblem("greatest and least take numbers or times here")
        function = _greatest if isinstance(node, exp.Greatest) else _least
        code = f"{self.names.bind(function)}({', '.join(part.code for part in parts)})"
        return Part(code, kind, all(part.is_nullable for part in parts))

    # ---------------------------------------------------------------------------------------------- casts

    def _cast(self, node: exp.Cast) -> Part:
        part = self._part(node.this)
        to = node.args["to"]
        name = str(getattr(to.this, "value", to.this)).upper()
        numbers = [literal_int(parameter.this, "a type's size") for parameter in to.expressions]
        kind = _TYPES.get(name)
        if kind is None:
            shown = to.sql(dialect="postgres").lower()
            raise SqlProblem(f"a cast to {shown} is not computed here; there are casts to {CASTS}")
        if part.is_null:
            return Part("None", kind, is_null=True)
        found = self._cast_to(part, kind)
        if name in _INTEGERS:
            bits = _INTEGERS[name]
            found = self._called(kind, f.integer_in(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), found)
        if kind is Kind.DECIMAL and numbers:
            scale = numbers[1] if len(numbers) > 1 else 0
            found = self._called(kind, f.numeric_limited(numbers[0], scale), found)
        if kind is Kind.TEXT and numbers:
            found = self._called(kind, f.cut(numbers[0]), found)
        return found

    def _cast_to(self, part: Part, kind: Kind) -> Part:
        if kind is Kind.TEXT:
            return Part(self._spelt(part).code, kind, part.is_nullable)
        source = Kind.TEXT if part.kind in TEXTS else part.kind
        if source is kind or (part.kind is kind):
            return Part(part.code, kind, part.is_nullable)
        cast = _CASTS.get((source, kind))
        if cast is None:
            raise SqlProblem(f"a cast from {part.kind.value} to {kind.value} is not computed here")
        return self._called(kind, cast, part)

    # ---------------------------------------------------------------------------------------------- time

    def _extract(self, node: exp.Extract) -> Part:
        name = str(node.this).lower()
        part = self._part(node.expression)
        allowed = f.DATE_PARTS if part.kind is Kind.DATE else f.DATE_PARTS | f.TIME_PARTS
        if part.kind not in MOMENTS:
            raise SqlProblem("extract takes a date or timestamp; add a cast")
        if name not in allowed:
            raise SqlProblem(f"extract {name} is not computed here; there is {', '.join(allowed)}")
        return self._called(Kind.DECIMAL, f.date_part(allowed[name]), part)

    def _date_trunc(self, node: exp.Expr) -> Part:
        unit = str(node.args["unit"].this).lower()
        part = self._part(node.this)
        if part.kind is Kind.DATE:
            part = self._as(part, Kind.INSTANT)
        if part.kind not in (Kind.TIMESTAMP, Kind.INSTANT):
            raise SqlProblem("date_trunc takes a timestamp; add a cast")
        if unit not in f.TRUNCATIONS or node.args.get("zone") is not None:
            raise SqlProblem(f"date_trunc knows {', '.join(f.TRUNCATIONS)} here, without a zone")
        return self._called(part.kind, f.TRUNCATIONS[unit], part)

    def _at_time_zone(self, node: exp.AtTimeZone) -> Part:
        zone = node.args["zone"]
        if not isinstance(zone, exp.Literal):
            raise SqlProblem("at time zone takes a zone written out")
        try:
            found = ZoneInfo(str(zone.this))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SqlProblem(f"{zone.this!r} is no time zone of the IANA database") from None
        part = self._part(node.this)
        if part.kind is Kind.INSTANT:
            return self._called(Kind.TIMESTAMP, f.to_zone(found), part)
        if part.kind is Kind.TIMESTAMP:
            return self._called(Kind.INSTANT, f.from_zone(found), part)
        raise SqlProblem("at time zone takes a timestamp; add a cast")


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


def _is_member(value: Any, *members: Any) -> bool | None:
    if any(member is not None and member == value for member in members):
        return True
    return None if any(member is None for member in members) else False


def _greatest(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def _least(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


_LOADS: dict[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: int,
    Kind.DECIMAL: f.load_numeric,
    Kind.FLOAT: f.load_float,
    Kind.BOOLEAN: f.load_boolean,
    Kind.DATE: f.text_to_date,
    Kind.TIMESTAMP: f.text_to_timestamp,
    Kind.INSTANT: f.load_instant,
}
_SIGNS = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
_COMPARE = {exp.EQ: "==", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
_ARITHMETIC: dict[tuple[str, Kind], Callable[..., Any]] = {
    ("/", Kind.INTEGER): f.integer_divide,
    ("%", Kind.INTEGER): f.integer_modulo,
    ("+", Kind.DECIMAL): f.add_numeric,
    ("-", Kind.DECIMAL): f.subtract_numeric,
    ("*", Kind.DECIMAL): f.multiply_numeric,
    ("/", Kind.DECIMAL): f.divide_numeric,
    ("%", Kind.DECIMAL): f.modulo_numeric,
    ("+", Kind.FLOAT): f.add_float,
    ("-", Kind.FLOAT): f.subtract_float,
    ("*", Kind.FLOAT): f.multiply_float,
    ("/", Kind.FLOAT): f.divide_float,
}
_TYPES = {
    "TEXT": Kind.TEXT, "VARCHAR": Kind.TEXT, "SMALLINT": Kind.INTEGER, "INT": Kind.INTEGER, "BIGINT": Kind.INTEGER,
    "DECIMAL": Kind.DECIMAL, "DOUBLE": Kind.FLOAT, "BOOLEAN": Kind.BOOLEAN, "DATE": Kind.DATE,
    "TIMESTAMP": Kind.TIMESTAMP, "TIMESTAMPTZ": Kind.INSTANT, "UUID": Kind.UUID,
}  # fmt: skip


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
_METHODS: dict[type, Callable[[TypedCompiler, Any], Part]] = {
    exp.Column: TypedCompiler._column, exp.Literal: TypedCompiler._literal, exp.Boolean: TypedCompiler._constant,
    exp.Null: TypedCompiler._null, exp.Paren: TypedCompiler._paren, exp.DPipe: TypedCompiler._pipe,
    exp.Concat: TypedCompiler._concat, exp.ConcatWs: TypedCompiler._concat_ws, exp.Lower: TypedCompiler._lower,
    exp.Upper: TypedCompiler._upper, exp.Trim: TypedCompiler._trim, exp.Substring: TypedCompiler._substring,
    exp.Left: TypedCompiler._left, exp.Right: TypedCompiler._right, exp.Replace: TypedCompiler._replace,
    exp.SplitPart: TypedCompiler._split_part, exp.StrPosition: TypedCompiler._position, exp.Pad: TypedCompiler._pad,
    exp.Length: TypedCompiler._length, exp.Like: TypedCompiler._like, exp.ILike: TypedCompiler._ilike,
    exp.Escape: TypedCompiler._escape, exp.Add: TypedCompiler._arithmetic, exp.Sub: TypedCompiler._arithmetic,
    exp.Mul: TypedCompiler._arithmetic, exp.Div: TypedCompiler._arithmetic, exp.Mod: TypedCompiler._arithmetic,
    exp.Neg: TypedCompiler._negative, exp.Abs: TypedCompiler._abs, exp.Round: TypedCompiler._round,
    exp.Trunc: TypedCompiler._trunc, exp.Floor: TypedCompiler._floor, exp.Ceil: TypedCompiler._ceil,
    exp.EQ: TypedCompiler._compare, exp.NEQ: TypedCompiler._compare, exp.LT: TypedCompiler._compare,
    exp.LTE: TypedCompiler._compare, exp.GT: TypedCompiler._compare, exp.GTE: TypedCompiler._compare,
    exp.NullSafeEQ: TypedCompiler._same, exp.NullSafeNEQ: TypedCompiler._same, exp.Is: TypedCompiler._is,
    exp.In: TypedCompiler._in, exp.Between: TypedCompiler._between, exp.And: TypedCompiler._and,
    exp.Or: TypedCompiler._or, exp.Not: TypedCompiler._not, exp.Case: TypedCompiler._case,
    exp.Coalesce: TypedCompiler._coalesce, exp.Nullif: TypedCompiler._nullif,
    exp.Greatest: TypedCompiler._greatest, exp.Least: TypedCompiler._greatest, exp.Cast: TypedCompiler._cast,
    exp.Extract: TypedCompiler._extract, exp.TimestampTrunc: TypedCompiler._date_trunc,
    exp.AtTimeZone: TypedCompiler._at_time_zone,
}  # fmt: skip
