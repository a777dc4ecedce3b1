"""MySQL's conditions and choices, compiled: three-valued logic over numbers, of which zero is false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlglot import exp

from crosswalk.sql_mysql import MOMENTS, NUMBERS, TEXTS, MysqlCompiler
from crosswalk.sql_mysql_texts import merged, rule_of
from crosswalk.sql_scope import Part, SqlProblem, arguments
from engine.model.table import Kind

_COMPARE: dict[type, str] = {exp.EQ: "==", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}


def _constant(c: MysqlCompiler, node: exp.Boolean) -> Part:
    return Part(repr(bool(node.this)), Kind.BOOLEAN, is_nullable=False)


def _compare(c: MysqlCompiler, node: exp.Binary) -> Part:
    return c.comparison(_COMPARE[type(node)], c.part(node.this), c.part(node.expression))


def _same(c: MysqlCompiler, node: exp.Binary) -> Part:
    """<=>: null is a value like any other."""
    one, two = c.temporary(), c.temporary()
    left, right = c.part(node.this), c.part(node.expression)
    equal = c.comparison("==", _called_there(left, one), _called_there(right, two))
    return Part(
        f"(({two} is None) if [{one} := {left.code}, {two} := {right.code}] and {one} is None"
        f" else False if {two} is None else {equal.code})",
        Kind.BOOLEAN,
        is_nullable=False,
    )


def _called_there(part: Part, name: str) -> Part:
    """The part's value, known to be there, under a name."""
    return replace(part, code=name, is_nullable=False)


def _is(c: MysqlCompiler, node: exp.Is) -> Part:
    what = node.expression
    if isinstance(what, exp.Null):
        part = c.part(node.this)
        code = f"({part.code} is None)" if part.is_nullable else "False"
    elif isinstance(what, exp.Boolean):
        code = f"({c.truth(c.part(node.this)).code} is {bool(what.this)})"
    else:
        raise SqlProblem("is goes with null, true and false")
    return c.negated(node, Part(code, Kind.BOOLEAN, is_nullable=False))


def _in(c: MysqlCompiler, node: exp.In) -> Part:
    if not node.expressions:
        raise SqlProblem("in takes a list of values")
    # A list of several types would be compared member by member, each in a way of its own.
    (value, *members), rule = c.comparable([c.part(child) for child in (node.this, *node.expressions)], "in")
    present = [member for member in members if not member.is_null]
    if rule is None and len(present) == len(members) and not any(member.is_nullable for member in members):
        inside = ", ".join(member.code for member in members)
        return Part(c.strict([value], lambda v: f"({v[0]} in ({inside},))"), Kind.BOOLEAN, value.is_nullable)
    name = c.names.bind(_is_member)
    alike = "None" if rule is None else c.names.bind(rule.equal)
    rest = ", ".join(member.code for member in members)
    return Part(c.strict([value], lambda v: f"{name}({alike}, {v[0]}, {rest})"), Kind.BOOLEAN)


def _between(c: MysqlCompiler, node: exp.Between) -> Part:
    parts = [c.part(child) for child in (node.this, node.args["low"], node.args["high"])]
    (value, low, high), rule = c.comparable(parts, "between")
    if rule is not None:
        raise SqlProblem("the order of texts depends on the database's collation and is not computed here")
    name = c.temporary()
    named = _called_there(value, name)
    first, second = c.comparison(">=", named, low), c.comparison("<=", named, high)
    both = _joined(c, first, second, False)
    code = f"(None if ({name} := {value.code}) is None else {both.code})"
    return c.negated(node, Part(code, Kind.BOOLEAN))


def _like(c: MysqlCompiler, node: exp.Like) -> Part:
    return _like_with(c, node, None)


def _escape(c: MysqlCompiler, node: exp.Escape) -> Part:
    inner, escape = node.this.unnest(), node.expression
    if not isinstance(inner, exp.Like) or not isinstance(escape, exp.Literal) or len(str(escape.this)) != 1:
        raise SqlProblem("escape goes with like and takes one character written out")
    return _like_with(c, inner, str(escape.this))


def _like_with(c: MysqlCompiler, node: exp.Like, escape: str | None) -> Part:
    parts = [c.part(node.this), c.part(node.expression)]
    if any(part.kind not in TEXTS and not part.is_null for part in parts):
        raise SqlProblem("like takes texts; add a cast")
    rule = rule_of(merged([part.collation for part in parts], "like"), "like")
    if escape is not None:
        parts.append(Part(repr(escape), Kind.TEXT, is_nullable=False))
    return c.negated(node, c.called(Kind.BOOLEAN, rule.like, *parts))


def _and(c: MysqlCompiler, node: exp.And) -> Part:
    return _joined(c, c.truth(c.part(node.this)), c.truth(c.part(node.expression)), False)


def _or(c: MysqlCompiler, node: exp.Or) -> Part:
    return _joined(c, c.truth(c.part(node.this)), c.truth(c.part(node.expression)), True)


def _joined(c: MysqlCompiler, left: Part, right: Part, decisive: bool) -> Part:
    """and, or: one `decisive` value decides."""
    one, two = c.temporary(), c.temporary()
    code = (
        f"({decisive} if ({one} := {left.code}) is {decisive} or ({two} := {right.code}) is {decisive}"
        f" else None if {one} is None or {two} is None else {not decisive})"
    )
    return Part(code, Kind.BOOLEAN, left.is_nullable or right.is_nullable)


def _xor(c: MysqlCompiler, node: exp.Xor) -> Part:
    parts = [c.truth(c.part(node.this)), c.truth(c.part(node.expression))]
    return Part(c.strict(parts, lambda v: f"({v[0]} != {v[1]})"), Kind.BOOLEAN, any(p.is_nullable for p in parts))


def _not(c: MysqlCompiler, node: exp.Not) -> Part:
    return c.inverse(c.truth(c.part(node.this)))


def _case(c: MysqlCompiler, node: exp.Case) -> Part:
    branches = node.args["ifs"]
    if node.this is None:
        tests = [c.truth(c.part(branch.this)) for branch in branches]
    else:
        value = c.part(node.this)
        tests = [c.comparison("==", value, c.part(branch.this)) for branch in branches]
    return _chosen(c, tests, [*(branch.args["true"] for branch in branches), node.args.get("default") or exp.Null()])


def _if(c: MysqlCompiler, node: exp.If) -> Part:
    otherwise = node.args.get("false")
    if otherwise is None:
        raise SqlProblem("if takes a condition and two values")
    return _chosen(c, [c.truth(c.part(node.this))], [node.args["true"], otherwise])


def _chosen(c: MysqlCompiler, tests: list[Part], nodes: list[exp.Expr]) -> Part:
    values = c.unified([c.part(node) for node in nodes])
    code = values[-1].code
    for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
        code = f"({value.code} if {test.code} is True else {code})"
    return _of_choice(code, values, any(value.is_nullable for value in values))


def _of_choice(code: str, values: list[Part], is_nullable: bool) -> Part:
    first = next((value for value in values if not value.is_null), values[0])
    return Part(code, first.kind, is_nullable, is_null=first.is_null, scale=first.scale, collation=first.collation)


def _coalesce(c: MysqlCompiler, node: exp.Coalesce) -> Part:
    parts = c.unified([c.part(child) for child in arguments(node)])
    code, is_nullable = parts[-1].code, parts[-1].is_nullable
    for part in reversed(parts[:-1]):
        if not part.is_nullable:
            code, is_nullable = part.code, False
            continue
        name = c.temporary()
        code = f"({name} if ({name} := {part.code}) is not None else {code})"
    return _of_choice(code, parts, is_nullable)


def _nullif(c: MysqlCompiler, node: exp.Nullif) -> Part:
    left, right = c.unified([c.part(node.this)])[0], c.part(node.expression)
    name = c.temporary()
    named = replace(left, code=name)
    equal = c.comparison("==", named, right)
    code = f"(None if [{name} := {left.code}] and {equal.code} is True else {name})"
    return Part(code, left.kind, scale=left.scale, collation=left.collation)


def _greatest(c: MysqlCompiler, node: exp.Expr) -> Part:
    parts = c.unified([c.part(child) for child in arguments(node)])
    kinds = {part.kind for part in parts if not part.is_null}
    if len(parts) < 2 or not kinds <= {*NUMBERS, *MOMENTS}:
        raise SqlProblem("greatest and least take several numbers or times here")
    name = "max" if isinstance(node, exp.Greatest) else "min"
    found = _of_choice("", parts, any(part.is_nullable for part in parts))
    kind = Kind.INTEGER if found.kind is Kind.BOOLEAN else found.kind
    code = c.strict(parts, lambda v: f"{name}({', '.join(v)})")
    return Part(code, kind, found.is_nullable, is_null=found.is_null, scale=found.scale)


def _is_member(alike: Callable[[Any, Any], bool] | None, value: Any, *members: Any) -> bool | None:
    if any(member is not None and (member == value if alike is None else alike(value, member)) for member in members):
        return True
    return None if any(member is None for member in members) else False


NODES: dict[type, Callable[[MysqlCompiler, Any], Part]] = {
    exp.Boolean: _constant,
    exp.EQ: _compare,
    exp.NEQ: _compare,
    exp.LT: _compare,
    exp.LTE: _compare,
    exp.GT: _compare,
    exp.GTE: _compare,
    exp.NullSafeEQ: _same,
    exp.Is: _is,
    exp.In: _in,
    exp.Between: _between,
    exp.Like: _like,
    exp.Escape: _escape,
    exp.And: _and,
    exp.Or: _or,
    exp.Xor: _xor,
    exp.Not: _not,
    exp.Case: _case,
    exp.If: _if,
    exp.Coalesce: _coalesce,
    exp.Nullif: _nullif,
    exp.Greatest: _greatest,
    exp.Least: _greatest,
}
