"""MySQL's functions on texts, numbers and times, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from sqlglot import exp

from crosswalk import sql_mysql_functions as f
from crosswalk import sql_mysql_texts as texts
from crosswalk.sql_mysql import MOMENTS, NULL, SCALE_MAX, TEXTS, WHOLE, MysqlCompiler
from crosswalk.sql_scope import Part, SqlProblem, function_name, literal_int
from engine.model.table import Kind

CASTS: Final = "signed, unsigned, decimal, char, date and datetime"
_WHOLE: dict[type, Callable[..., Any]] = {
    exp.Add: f.add_whole,
    exp.Sub: f.subtract_whole,
    exp.Mul: f.multiply_whole,
    exp.Mod: f.modulo_whole,
}
_DECIMAL: dict[type, Callable[..., Any]] = {exp.Add: f.add, exp.Sub: f.subtract, exp.Mul: f.multiply, exp.Mod: f.modulo}
# A function of a date or datetime: of a date there is no time of day.
_DAY_PARTS: dict[str, Callable[[str], int | None]] = {
    "year": f.digits_at(0, 4),
    "quarter": f.quarter,
    "month": f.digits_at(5, 7),
    "day": f.digits_at(8, 10),
    "dayofmonth": f.digits_at(8, 10),
    "day_of_month": f.digits_at(8, 10),
    "dayofweek": f.of_day(lambda day: day.isoweekday() % 7 + 1),
    "day_of_week": f.of_day(lambda day: day.isoweekday() % 7 + 1),
    "dayofyear": f.of_day(lambda day: day.timetuple().tm_yday),
    "day_of_year": f.of_day(lambda day: day.timetuple().tm_yday),
}
_CLOCK_PARTS: dict[str, Callable[[str], int | None]] = {
    "hour": f.digits_at(11, 13),
    "minute": f.digits_at(14, 16),
    "second": f.digits_at(17, 19),
}
_EXTRACTED = ("year", "quarter", "month", "day", "hour", "minute", "second")
# What sqlglot makes of %Y %m %d %H %i %s, by where that stands in a moment.
_FORMATS = {"%Y": (0, 4), "%m": (5, 7), "%d": (8, 10), "%H": (11, 13), "%M": (14, 16), "%S": (17, 19)}


def _null(c: MysqlCompiler, node: exp.Expr) -> Part:
    return NULL


def _paren(c: MysqlCompiler, node: exp.Paren) -> Part:
    return c.part(node.this)


def _collate(c: MysqlCompiler, node: exp.Collate) -> Part:
    part = c.text(node.this)
    name = node.expression.name.lower()
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise SqlProblem("collate takes the name of a collation")
    return Part(part.code, Kind.TEXT, part.is_nullable, is_null=part.is_null, collation=name)


def _concat(c: MysqlCompiler, node: exp.Concat) -> Part:
    parts = [c.text(child) for child in node.expressions]
    code = c.strict(parts, lambda v: f"({' + '.join(v)})")
    return c.made_text(parts, code, is_nullable=any(part.is_nullable for part in parts))


def _concat_ws(c: MysqlCompiler, node: exp.ConcatWs) -> Part:
    separator, *parts = [c.text(child) for child in node.expressions]
    name, rest = c.names.bind(f.concat_ws), "".join(f", {part.code}" for part in parts)
    return c.made_text([separator, *parts], c.strict([separator], lambda v: f"{name}({v[0]}{rest})"))


def _case_changed(c: MysqlCompiler, node: exp.Expr) -> Part:
    function = texts.lower if isinstance(node, exp.Lower) else texts.upper
    part = c.text(node.this)
    wide = Part(repr(texts.is_unicode(part.collation)), Kind.BOOLEAN, is_nullable=False)
    return c.called_text(function, part, wide)


def _trim(c: MysqlCompiler, node: exp.Trim) -> Part:
    place = str(node.args.get("position") or "")
    function = {"LEADING": f.trim_left, "TRAILING": f.trim_right}.get(place, f.trim)
    return c.called_text(function, *(c.text(child) for child in (node.this, node.expression) if child is not None))


def _substring(c: MysqlCompiler, node: exp.Substring) -> Part:
    start, length = node.args.get("start"), node.args.get("length")
    if start is None:
        raise SqlProblem("substring wants a number to start from")
    return c.called_text(
        f.substring, c.text(node.this), c.integer(start), *([] if length is None else [c.integer(length)])
    )


def _end(c: MysqlCompiler, node: exp.Expr) -> Part:
    function = f.left if isinstance(node, exp.Left) else f.right
    return c.called_text(function, c.text(node.this), c.integer(node.expression))


def _replace(c: MysqlCompiler, node: exp.Replace) -> Part:
    replacement = node.args.get("replacement")
    if replacement is None:
        raise SqlProblem("replace takes a text, what to replace, and by what")
    parts = [c.text(child) for child in (node.this, node.expression, replacement)]
    return c.made_text(parts, f"{c.names.bind(f.replace)}({', '.join(part.code for part in parts)})")


def _substring_index(c: MysqlCompiler, node: exp.SubstringIndex) -> Part:
    count = c.integer(node.args["count"])
    return c.called_text(f.substring_index, c.text(node.this), c.text(node.args["delimiter"]), count)


def _position(c: MysqlCompiler, node: exp.StrPosition) -> Part:
    part, text = c.text(node.args["substr"]), c.text(node.this)
    rule = texts.rule_of(texts.merged([part.collation, text.collation], "locate"), "locate")
    start = node.args.get("position")
    return c.called(Kind.INTEGER, rule.locate, part, text, *([] if start is None else [c.integer(start)]))


def _pad(c: MysqlCompiler, node: exp.Pad) -> Part:
    function = f.pad_left if node.args.get("is_left") else f.pad_right
    fill = node.args.get("fill_pattern")
    parts = [c.text(node.this), c.integer(node.expression), *([] if fill is None else [c.text(fill)])]
    return c.called_text(function, *parts, may_null=True)


def _length(c: MysqlCompiler, node: exp.Length) -> Part:
    part = c.text(node.this)
    if not node.args.get("binary"):
        return Part(c.strict([part], lambda v: f"len({v[0]})"), Kind.INTEGER, part.is_nullable)
    wide = Part(repr(texts.is_unicode(part.collation)), Kind.BOOLEAN, is_nullable=False)
    return c.called(Kind.INTEGER, f.byte_length, part, wide)


def _arithmetic(c: MysqlCompiler, node: exp.Binary) -> Part:
    parts = [c.number(c.part(child), "arithmetic") for child in (node.this, node.expression)]
    may_null = isinstance(node, exp.Mod)
    if all(part.kind in WHOLE for part in parts):
        return c.called(Kind.INTEGER, _WHOLE[type(node)], *parts, may_null=may_null)
    left, right = (part.scale for part in parts)
    scale = left + right if isinstance(node, exp.Mul) else max(left, right)
    return _decimals(c, _DECIMAL[type(node)], parts, scale, may_null)


def _divide(c: MysqlCompiler, node: exp.Div) -> Part:
    parts = [c.number(c.part(child), "arithmetic") for child in (node.this, node.expression)]
    return _decimals(c, f.divide, parts, parts[0].scale + 4, True)


def _decimals(c: MysqlCompiler, function: Callable[..., Any], parts: list[Part], scale: int, may_null: bool) -> Part:
    if scale > SCALE_MAX:
        raise SqlProblem(f"a number of more than {SCALE_MAX} decimals, which MariaDB and MySQL cut differently")
    return c.called(Kind.DECIMAL, function, *(c.decimal(part) for part in parts), scale=scale, may_null=may_null)


def _whole_divide(c: MysqlCompiler, node: exp.IntDiv) -> Part:
    parts = [c.number(c.part(child), "div") for child in (node.this, node.expression)]
    return c.called(Kind.INTEGER, f.whole_divide, *parts, may_null=True)


def _negative(c: MysqlCompiler, node: exp.Neg) -> Part:
    part = c.number(c.part(node.this), "-")
    if part.kind is Kind.DECIMAL:
        return Part(c.strict([part], lambda v: f"{v[0]}.copy_negate()"), part.kind, part.is_nullable, scale=part.scale)
    return c.called(Kind.INTEGER, f.negative_whole, part)


def _abs(c: MysqlCompiler, node: exp.Abs) -> Part:
    part = c.number(c.part(node.this), "abs")
    if part.kind is Kind.DECIMAL:
        return Part(c.strict([part], lambda v: f"{v[0]}.copy_abs()"), part.kind, part.is_nullable, scale=part.scale)
    return c.called(Kind.INTEGER, f.absolute_whole, part)


def _rounded(c: MysqlCompiler, node: exp.Expr) -> Part:
    function = f.round_number if isinstance(node, exp.Round) else f.truncate_number
    part = c.number(c.part(node.this), function_name(node))
    wanted = node.args.get("decimals")
    decimals = 0 if wanted is None else literal_int(wanted, "how many decimals")
    if not -SCALE_MAX <= decimals <= SCALE_MAX:
        raise SqlProblem(f"up to {SCALE_MAX} decimals are computed with here")
    if part.kind in WHOLE:
        if decimals > 0 and not isinstance(node.this.unnest(), (exp.Column, exp.Literal)):
            # What is chosen between signed and unsigned numbers is a decimal to MariaDB, and gets them.
            raise SqlProblem(f"{function_name(node)} to decimals of what is whole: leave the number of them out")
        decimals = min(decimals, 0)
    number = Part(str(decimals), Kind.INTEGER, is_nullable=False)
    kind = Kind.DECIMAL if part.kind is Kind.DECIMAL else Kind.INTEGER
    return c.called(kind, function, part, number, scale=max(decimals, 0))


def _floor(c: MysqlCompiler, node: exp.Expr) -> Part:
    part = c.number(c.part(node.this), function_name(node))
    if part.kind in WHOLE:
        return c.called(Kind.INTEGER, int, part)
    return c.called(Kind.INTEGER, f.floor if isinstance(node, exp.Floor) else f.ceil, part)


def _cast(c: MysqlCompiler, node: exp.Cast) -> Part:
    part, to = c.part(node.this), node.args["to"]
    name = str(getattr(to.this, "value", to.this)).upper()
    sizes = [literal_int(parameter.this, "a type's size") for parameter in to.expressions]
    match name:
        case "BIGINT" | "INT" | "UBIGINT":
            return _cast_whole(c, part, is_unsigned=name == "UBIGINT")
        case "DECIMAL":
            return _cast_decimal(c, part, *sizes)
        case "CHAR":
            text = c.spelt(part)
            return c.called_text(f.cut(sizes[0]), text) if sizes else text
        case "DATE" | "DATETIME":
            return _cast_moment(c, part, name, sizes[0] if sizes else 0)
        case _:
            raise SqlProblem(f"a cast to {to.sql(dialect='mysql').lower()} is not computed here; there are {CASTS}")


def _cast_whole(c: MysqlCompiler, part: Part, *, is_unsigned: bool) -> Part:
    if part.kind in TEXTS:
        part = c.called(Kind.INTEGER, f.text_to_whole, part)
    elif part.kind is Kind.DECIMAL:
        part = c.called(Kind.INTEGER, f.decimal_to_whole, part)
    else:
        part = c.called(Kind.INTEGER, int, c.number(part, "a cast to whole numbers"))
    return c.called(Kind.INTEGER, f.unsigned, part) if is_unsigned else part


def _cast_decimal(c: MysqlCompiler, part: Part, precision: int = 10, scale: int = 0) -> Part:
    if not 0 <= scale <= min(precision, SCALE_MAX) or not 1 <= precision <= 65:
        raise SqlProblem("no decimal has such digits")
    if part.kind in TEXTS:
        part = c.called(Kind.DECIMAL, f.text_to_decimal, part)
    return c.called(Kind.DECIMAL, f.limited(precision, scale), c.decimal(part, "a cast to decimal"), scale=scale)


def _cast_moment(c: MysqlCompiler, part: Part, name: str, digits: int) -> Part:
    kind = Kind.DATE if name == "DATE" else Kind.TIMESTAMP
    if part.is_null:
        return Part("None", kind, is_null=True, scale=digits)
    if part.kind not in (*MOMENTS, *TEXTS):
        raise SqlProblem(f"a cast from {part.kind.value} to {name.lower()} is not computed here")
    if kind is Kind.DATE:
        return c.called(kind, f.text_to_date if part.kind in TEXTS else f.day_of, part)
    if part.kind in TEXTS and digits < f.SECOND_DIGITS:
        raise SqlProblem("databases differ in how they cut a second; cast to datetime(6)")
    if part.kind not in TEXTS and part.scale > digits:
        raise SqlProblem(f"databases differ in how they cut a second; cast to datetime({part.scale})")
    if part.kind in TEXTS:
        return c.called(kind, f.text_to_moment, part, scale=digits)
    return c.as_moment(part, digits)


def _part_of_moment(c: MysqlCompiler, node: exp.Expr) -> Part:
    return _moment_part(c, function_name(node), node.this)


def _extract(c: MysqlCompiler, node: exp.Extract) -> Part:
    name = str(node.this).lower()
    if name not in _EXTRACTED:
        raise SqlProblem(f"extract {name} is not computed here; there is {', '.join(_EXTRACTED)}")
    return _moment_part(c, name, node.expression)


def _moment_part(c: MysqlCompiler, name: str, node: exp.Expr) -> Part:
    part = c.calendar_day(node, name) if "of" in name and name.endswith(("week", "year")) else c.moment(node, name)
    if name in _DAY_PARTS:
        return c.called(Kind.INTEGER, _DAY_PARTS[name], part, may_null=True)
    if part.kind is Kind.DATE:
        raise SqlProblem(f"{name} of a date; cast it to datetime")
    return c.called(Kind.INTEGER, _CLOCK_PARTS[name], part)


def _date(c: MysqlCompiler, node: exp.TsOrDsToDate) -> Part:
    return c.called(Kind.DATE, f.day_of, c.moment(node.this, "date"))


def _days_between(c: MysqlCompiler, node: exp.DateDiff) -> Part:
    parts = [c.calendar_day(child, "datediff") for child in (node.this, node.expression)]
    return c.called(Kind.INTEGER, f.days_between, *parts, may_null=True)


def _formatted(c: MysqlCompiler, node: exp.TimeToStr) -> Part:
    pattern = node.args["format"]
    part = c.moment(node.this, "date_format")
    if part.kind is Kind.DATE:
        part = c.as_moment(part, 0)
    pieces: list[str | tuple[int, int]] = []
    for piece in re.findall(r"%.?|[^%]+", str(pattern.this)) if isinstance(pattern, exp.Literal) else ["%"]:
        found = _FORMATS.get(piece)
        if found is None and piece.startswith("%"):
            raise SqlProblem("date_format knows %Y %m %d %H %i %s here, written out")
        pieces.append(piece if found is None else found)
    return c.called_text(f.formatted(tuple(pieces)), part)


NODES: dict[type, Callable[[MysqlCompiler, Any], Part]] = {
    exp.Column: MysqlCompiler.column,
    exp.Literal: MysqlCompiler.literal,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.Collate: _collate,
    exp.Concat: _concat,
    exp.ConcatWs: _concat_ws,
    exp.Lower: _case_changed,
    exp.Upper: _case_changed,
    exp.Trim: _trim,
    exp.Substring: _substring,
    exp.Left: _end,
    exp.Right: _end,
    exp.Replace: _replace,
    exp.SubstringIndex: _substring_index,
    exp.StrPosition: _position,
    exp.Pad: _pad,
    exp.Length: _length,
    exp.Add: _arithmetic,
    exp.Sub: _arithmetic,
    exp.Mul: _arithmetic,
    exp.Mod: _arithmetic,
    exp.Div: _divide,
    exp.IntDiv: _whole_divide,
    exp.Neg: _negative,
    exp.Abs: _abs,
    exp.Round: _rounded,
    exp.Trunc: _rounded,
    exp.Floor: _floor,
    exp.Ceil: _floor,
    exp.Cast: _cast,
    exp.Year: _part_of_moment,
    exp.Quarter: _part_of_moment,
    exp.Month: _part_of_moment,
    exp.Day: _part_of_moment,
    exp.DayOfMonth: _part_of_moment,
    exp.DayOfWeek: _part_of_moment,
    exp.DayOfYear: _part_of_moment,
    exp.Hour: _part_of_moment,
    exp.Minute: _part_of_moment,
    exp.Second: _part_of_moment,
    exp.Extract: _extract,
    exp.TsOrDsToDate: _date,
    exp.DateDiff: _days_between,
    exp.TimeToStr: _formatted,
}
