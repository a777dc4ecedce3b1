"""PostgreSQL's functions on texts, numbers and times, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlglot import exp

from crosswalk import sql_typed_functions as f
from crosswalk import sql_typed_times as times
from crosswalk.sql_scope import Part, SqlProblem, function_name, literal_int
from crosswalk.sql_typed import MOMENTS, NULL, NUMBERS, TEXTS, TypedCompiler
from engine.model.table import Kind

CASTS: Final = (
    "text, varchar, smallint, integer, bigint, numeric, double precision, boolean, date, timestamp, timestamptz, uuid"
)
_INTEGERS = {"SMALLINT": 16, "INT": 32, "BIGINT": 64}
_TYPES = {
    "TEXT": Kind.TEXT, "VARCHAR": Kind.TEXT, "SMALLINT": Kind.INTEGER, "INT": Kind.INTEGER, "BIGINT": Kind.INTEGER,
    "DECIMAL": Kind.DECIMAL, "DOUBLE": Kind.FLOAT, "BOOLEAN": Kind.BOOLEAN, "DATE": Kind.DATE,
    "TIMESTAMP": Kind.TIMESTAMP, "TIMESTAMPTZ": Kind.INSTANT, "UUID": Kind.UUID,
}  # fmt: skip
_SIGNS: dict[type, str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
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


def _constant(c: TypedCompiler, node: exp.Boolean) -> Part:
    return Part(repr(bool(node.this)), Kind.BOOLEAN, is_nullable=False)


def _null(c: TypedCompiler, node: exp.Expr) -> Part:
    return NULL


def _paren(c: TypedCompiler, node: exp.Paren) -> Part:
    return c.part(node.this)


def _pipe(c: TypedCompiler, node: exp.DPipe) -> Part:
    left, right = c.part(node.this), c.part(node.expression)
    if not any(p.kind in TEXTS or p.is_null for p in (left, right)):
        raise SqlProblem("|| joins texts; cast one side to text")
    return c.strictly(Kind.TEXT, [c.spelt(left), c.spelt(right)], lambda v: f"({v[0]} + {v[1]})")


def _concat(c: TypedCompiler, node: exp.Concat) -> Part:
    letters = {**f.SPELLINGS, Kind.BOOLEAN: f.boolean_letter}
    parts = [c.spelt(c.part(child), letters) for child in node.expressions]
    code = f"{c.names.bind(f.concat)}({', '.join(part.code for part in parts)})"
    return Part(code, Kind.TEXT, is_nullable=False)


def _concat_ws(c: TypedCompiler, node: exp.ConcatWs) -> Part:
    letters = {**f.SPELLINGS, Kind.BOOLEAN: f.boolean_letter}
    separator, *parts = [c.spelt(c.part(child), letters) for child in node.expressions]
    rest = "".join(f", {part.code}" for part in parts)
    name = c.names.bind(f.concat_ws)
    return c.strictly(Kind.TEXT, [separator], lambda v: f"{name}({v[0]}{rest})")


def _lower(c: TypedCompiler, node: exp.Lower) -> Part:
    return c.called(Kind.TEXT, f.lower, c.text(node.this))


def _upper(c: TypedCompiler, node: exp.Upper) -> Part:
    return c.called(Kind.TEXT, f.upper, c.text(node.this))


def _trim(c: TypedCompiler, node: exp.Trim) -> Part:
    method = {"LEADING": "lstrip", "TRAILING": "rstrip"}.get(str(node.args.get("position") or ""), "strip")
    if node.expression is None:
        return c.strictly(Kind.TEXT, [c.text(node.this)], lambda v: f"{v[0]}.{method}(' ')")
    parts = [c.text(node.this), c.text(node.expression)]
    return c.strictly(Kind.TEXT, parts, lambda v: f"{v[0]}.{method}({v[1]})")


def _substring(c: TypedCompiler, node: exp.Substring) -> Part:
    start = node.args.get("start")
    length = node.args.get("length")
    if start is None:
        raise SqlProblem("substring wants a number to start from")
    parts = [c.text(node.this), c.integer(start)]
    if length is not None:
        parts.append(c.integer(length))
    return c.called(Kind.TEXT, f.substring, *parts)


def _left(c: TypedCompiler, node: exp.Left) -> Part:
    return c.called(Kind.TEXT, f.left, c.text(node.this), c.integer(node.expression))


def _right(c: TypedCompiler, node: exp.Right) -> Part:
    return c.called(Kind.TEXT, f.right, c.text(node.this), c.integer(node.expression))


def _replace(c: TypedCompiler, node: exp.Replace) -> Part:
    replacement = node.args.get("replacement")
    if replacement is None:
        raise SqlProblem("replace takes a text, what to replace, and by what")
    parts = [c.text(child) for child in (node.this, node.expression, replacement)]
    return c.called(Kind.TEXT, f.replace, *parts)


def _split_part(c: TypedCompiler, node: exp.SplitPart) -> Part:
    number = c.integer(node.args["part_index"])
    return c.called(Kind.TEXT, f.split_part, c.text(node.this), c.text(node.args["delimiter"]), number)


def _position(c: TypedCompiler, node: exp.StrPosition) -> Part:
    if node.args.get("position") is not None or node.args.get("occurrence") is not None:
        raise SqlProblem("position takes a text and a part of it")
    return c.called(Kind.INTEGER, f.position, c.text(node.this), c.text(node.args["substr"]))


def _pad(c: TypedCompiler, node: exp.Pad) -> Part:
    function = f.pad_left if node.args.get("is_left") else f.pad_right
    parts = [c.text(node.this), c.integer(node.expression)]
    fill = node.args.get("fill_pattern")
    if fill is not None:
        parts.append(c.text(fill))
    return c.called(Kind.TEXT, function, *parts)


def _length(c: TypedCompiler, node: exp.Length) -> Part:
    return c.strictly(Kind.INTEGER, [c.text(node.this)], lambda v: f"len({v[0]})")


def _like(c: TypedCompiler, node: exp.Like) -> Part:
    return _like_with(c, node, f.like, None)


def _ilike(c: TypedCompiler, node: exp.ILike) -> Part:
    return _like_with(c, node, f.ilike, None)


def _escape(c: TypedCompiler, node: exp.Escape) -> Part:
    inner = node.this.unnest()
    if not isinstance(inner, (exp.Like, exp.ILike)):
        raise SqlProblem("escape goes with like")
    escape = node.expression
    if not isinstance(escape, exp.Literal) or len(str(escape.this)) > 1:
        raise SqlProblem("escape takes one character written out")
    return _like_with(c, inner, f.ilike if isinstance(inner, exp.ILike) else f.like, str(escape.this))


def _like_with(c: TypedCompiler, node: exp.Expr, function: Callable[..., bool], escape: str | None) -> Part:
    parts = [c.text(node.this), c.text(node.expression)]
    if escape is not None:
        parts.append(Part(repr(escape), Kind.TEXT, is_nullable=False))
    return c.negated(node, c.called(Kind.BOOLEAN, function, *parts))


def _arithmetic(c: TypedCompiler, node: exp.Binary) -> Part:
    left, right = c.part(node.this), c.part(node.expression)
    sign = _SIGNS[type(node)]
    if Kind.DATE in (left.kind, right.kind):
        return _date_arithmetic(c, sign, left, right)
    kind = c.common([left, right])
    if kind is Kind.TEXT and (left.is_null or right.is_null or left.literal or right.literal):
        kind = Kind.INTEGER
    if kind not in NUMBERS:
        raise SqlProblem(f"{sign} computes numbers, not {kind.value}; add a cast")
    parts = [c.converted(left, kind), c.converted(right, kind)]
    if kind is Kind.INTEGER and sign in "+-*":
        return c.strictly(kind, parts, lambda v: f"({v[0]} {sign} {v[1]})")
    function = _ARITHMETIC.get((sign, kind))
    if function is None:
        raise SqlProblem(f"{sign} of {kind.value} is not computed here; cast to numeric")
    return c.called(kind, function, *parts)


def _date_arithmetic(c: TypedCompiler, sign: str, left: Part, right: Part) -> Part:
    kinds = (left.kind, sign, right.kind)
    if kinds == (Kind.DATE, "-", Kind.DATE) and left.literal is None and right.literal is None:
        return c.called(Kind.INTEGER, times.days_between, left, right)
    if kinds == (Kind.DATE, "+", Kind.INTEGER):
        return c.called(Kind.DATE, times.add_days, left, right)
    if kinds == (Kind.DATE, "-", Kind.INTEGER):
        return c.called(Kind.DATE, times.subtract_days, left, right)
    raise SqlProblem("of dates, date + days, date - days and date - date are computed here")


def _negative(c: TypedCompiler, node: exp.Neg) -> Part:
    part = c.part(node.this)
    if part.kind not in NUMBERS or part.literal is not None:
        raise SqlProblem("- negates numbers; add a cast")
    if part.kind is Kind.DECIMAL:
        return c.strictly(part.kind, [part], lambda v: f"{v[0]}.copy_negate()")
    return c.strictly(part.kind, [part], lambda v: f"(-{v[0]})")


def _abs(c: TypedCompiler, node: exp.Abs) -> Part:
    part = c.number(node.this, "abs")
    if part.kind is Kind.DECIMAL:
        return c.strictly(part.kind, [part], lambda v: f"{v[0]}.copy_abs()")
    return c.strictly(part.kind, [part], lambda v: f"abs({v[0]})")


def _round(c: TypedCompiler, node: exp.Round) -> Part:
    return _rounded(c, node, f.round_numeric, f.round_float)


def _trunc(c: TypedCompiler, node: exp.Expr) -> Part:
    return _rounded(c, node, f.truncate_numeric, f.truncate_float)


def _rounded(c: TypedCompiler, node: exp.Expr, numeric: Callable[..., Any], floating: Callable[..., Any]) -> Part:
    part = c.number(node.this, function_name(node))
    decimals = node.args.get("decimals")
    if decimals is not None:
        return c.called(Kind.DECIMAL, numeric, c.converted(part, Kind.DECIMAL), c.integer(decimals))
    if part.kind is Kind.DECIMAL:
        return c.called(Kind.DECIMAL, numeric, part)
    return c.called(Kind.FLOAT, floating, c.converted(part, Kind.FLOAT))


def _floor(c: TypedCompiler, node: exp.Floor) -> Part:
    return _rounded(c, node, f.floor_numeric, f.floor_float)


def _ceil(c: TypedCompiler, node: exp.Ceil) -> Part:
    return _rounded(c, node, f.ceil_numeric, f.ceil_float)


def _cast(c: TypedCompiler, node: exp.Cast) -> Part:
    part = c.part(node.this)
    to = node.args["to"]
    name = str(getattr(to.this, "value", to.this)).upper()
    numbers = [literal_int(parameter.this, "a type's size") for parameter in to.expressions]
    kind = _TYPES.get(name)
    if kind is None:
        shown = to.sql(dialect="postgres").lower()
        raise SqlProblem(f"a cast to {shown} is not computed here; there are casts to {CASTS}")
    if part.is_null:
        return Part("None", kind, is_null=True)
    found = c.cast_to(part, kind)
    if name in _INTEGERS:
        bits = _INTEGERS[name]
        found = c.called(kind, f.integer_in(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), found)
    if kind is Kind.DECIMAL and numbers:
        scale = numbers[1] if len(numbers) > 1 else 0
        found = c.called(kind, f.numeric_limited(numbers[0], scale), found)
    if kind is Kind.TEXT and numbers:
        found = c.called(kind, f.cut(numbers[0]), found)
    return found


def _extract(c: TypedCompiler, node: exp.Extract) -> Part:
    name = str(node.this).lower()
    part = c.part(node.expression)
    allowed = times.DATE_PARTS if part.kind is Kind.DATE else times.DATE_PARTS | times.TIME_PARTS
    if part.kind not in MOMENTS:
        raise SqlProblem("extract takes a date or timestamp; add a cast")
    if name not in allowed:
        raise SqlProblem(f"extract {name} is not computed here; there is {', '.join(allowed)}")
    return c.called(Kind.DECIMAL, times.date_part(allowed[name]), part)


def _date_trunc(c: TypedCompiler, node: exp.Expr) -> Part:
    unit = str(node.args["unit"].this).lower()
    part = c.part(node.this)
    if part.kind is Kind.DATE:
        part = c.converted(part, Kind.INSTANT)
    if part.kind not in (Kind.TIMESTAMP, Kind.INSTANT):
        raise SqlProblem("date_trunc takes a timestamp; add a cast")
    if unit not in times.TRUNCATIONS or node.args.get("zone") is not None:
        raise SqlProblem(f"date_trunc knows {', '.join(times.TRUNCATIONS)} here, without a zone")
    return c.called(part.kind, times.TRUNCATIONS[unit], part)


def _at_time_zone(c: TypedCompiler, node: exp.AtTimeZone) -> Part:
    zone = node.args["zone"]
    if not isinstance(zone, exp.Literal):
        raise SqlProblem("at time zone takes a zone written out")
    try:
        found = ZoneInfo(str(zone.this))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SqlProblem(f"{zone.this!r} is no time zone of the IANA database") from None
    part = c.part(node.this)
    if part.kind is Kind.INSTANT:
        return c.called(Kind.TIMESTAMP, times.to_zone(found), part)
    if part.kind is Kind.TIMESTAMP:
        return c.called(Kind.INSTANT, times.from_zone(found), part)
    raise SqlProblem("at time zone takes a timestamp; add a cast")


NODES: dict[type, Callable[[TypedCompiler, Any], Part]] = {
    exp.Column: TypedCompiler.column,
    exp.Literal: TypedCompiler.literal,
    exp.Boolean: _constant,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.DPipe: _pipe,
    exp.Concat: _concat,
    exp.ConcatWs: _concat_ws,
    exp.Lower: _lower,
    exp.Upper: _upper,
    exp.Trim: _trim,
    exp.Substring: _substring,
    exp.Left: _left,
    exp.Right: _right,
    exp.Replace: _replace,
    exp.SplitPart: _split_part,
    exp.StrPosition: _position,
    exp.Pad: _pad,
    exp.Length: _length,
    exp.Like: _like,
    exp.ILike: _ilike,
    exp.Escape: _escape,
    exp.Add: _arithmetic,
    exp.Sub: _arithmetic,
    exp.Mul: _arithmetic,
    exp.Div: _arithmetic,
    exp.Mod: _arithmetic,
    exp.Neg: _negative,
    exp.Abs: _abs,
    exp.Round: _round,
    exp.Trunc: _trunc,
    exp.Floor: _floor,
    exp.Ceil: _ceil,
    exp.Cast: _cast,
    exp.Extract: _extract,
    exp.TimestampTrunc: _date_trunc,
    exp.AtTimeZone: _at_time_zone,
}
