"""PostgreSQL's conditions and choices, compiled: three-valued logic throughout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from crosswalk.sql_scope import Part, SqlProblem, arguments
from crosswalk.sql_typed import MOMENTS, NUMBERS, TEXTS, TypedCompiler
from engine.model.table import Kind

_COMPARE: dict[type, str] = {exp.EQ: "==", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}


def _compare(c: TypedCompiler, node: exp.Binary) -> Part:
    return c.comparison(_COMPARE[type(node)], c.part(node.this), c.part(node.expression))


def _same(c: TypedCompiler, node: exp.Binary) -> Part:
    """is [not] distinct from: null is a value like any other."""
    parts, kind = c.unified([node.this, node.expression])
    if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
        raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
    sign = "==" if isinstance(node, exp.NullSafeEQ) else "!="
    return Part(f"({parts[0].code} {sign} {parts[1].code})", Kind.BOOLEAN, is_nullable=False)


def _is(c: TypedCompiler, node: exp.Is) -> Part:
    what = node.expression
    if isinstance(what, exp.Null):
        part = c.part(node.this)
        code = f"({part.code} is None)" if part.is_nullable else "False"
    elif isinstance(what, exp.Boolean):
        code = f"({c.boolean(node.this).code} is {bool(what.this)})"
    else:
        raise SqlProblem("is goes with null, true, false and [not] distinct from")
    return c.negated(node, Part(code, Kind.BOOLEAN, is_nullable=False))


def _in(c: TypedCompiler, node: exp.In) -> Part:
    if not node.expressions:
        raise SqlProblem("in takes a list of values")
    # A list has one kind, with the value that is looked for in it.
    parts, kind = c.unified([node.this, *node.expressions])
    if kind not in (*TEXTS, *NUMBERS, *MOMENTS, Kind.BOOLEAN, Kind.TIME):
        raise SqlProblem(f"values of {kind.value} are not compared here; cast them to text")
    value, *members = parts
    present = [member for member in members if not member.is_null]
    if len(present) == len(members) and not any(member.is_nullable for member in members):
        inside = ", ".join(member.code for member in members)
        return c.strictly(Kind.BOOLEAN, [value], lambda v: f"({v[0]} in ({inside},))")
    # One after the other: a member that cannot be computed does not matter behind the one that is equal.
    names = [c.temporary() for _ in present]
    pairs = list(zip(names, present, strict=True))
    nulls = [f"{name} is None" for name, member in pairs if member.is_nullable]
    nulls += ["True"] * (len(present) < len(members))

    def looked_for(values: list[str]) -> str:
        looks = "".join(f"True if ({name} := {member.code}) == {values[0]} else " for name, member in pairs)
        return f"({looks}None if {' or '.join(nulls)} else False)"

    return Part(c.strict([value], looked_for), Kind.BOOLEAN)


def _between(c: TypedCompiler, node: exp.Between) -> Part:
    value, low, high = (c.part(child) for child in (node.this, node.args["low"], node.args["high"]))
    first, second = c.comparison(">=", value, low), c.comparison("<=", value, high)
    return c.negated(node, c.conjunction(first, second))


def _and(c: TypedCompiler, node: exp.And) -> Part:
    return c.conjunction(c.boolean(node.this), c.boolean(node.expression))


def _or(c: TypedCompiler, node: exp.Or) -> Part:
    left, right = c.boolean(node.this), c.boolean(node.expression)
    if not left.is_nullable and not right.is_nullable:
        return Part(f"({left.code} or {right.code})", Kind.BOOLEAN, is_nullable=False)
    one, two = c.temporary(), c.temporary()
    code = (
        f"(True if ({one} := {left.code}) is True or ({two} := {right.code}) is True"
        f" else None if {one} is None or {two} is None else False)"
    )
    return Part(code, Kind.BOOLEAN)


def _not(c: TypedCompiler, node: exp.Not) -> Part:
    return c.inverse(c.boolean(node.this))


def _case(c: TypedCompiler, node: exp.Case) -> Part:
    tests: list[Part] = []
    for branch in node.args["ifs"]:
        if node.this is None:
            tests.append(c.boolean(branch.this))
        else:
            tests.append(c.comparison("==", c.part(node.this), c.part(branch.this)))
    default = node.args.get("default") or exp.Null()
    values, kind = c.unified([*(branch.args["true"] for branch in node.args["ifs"]), default])
    code = values[-1].code
    for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
        code = f"({value.code} if {test.code} is True else {code})"
    return Part(code, kind, any(value.is_nullable for value in values))


def _coalesce(c: TypedCompiler, node: exp.Coalesce) -> Part:
    parts, kind = c.unified(list(arguments(node)))
    code = parts[-1].code
    is_nullable = parts[-1].is_nullable
    for part in reversed(parts[:-1]):
        if not part.is_nullable:
            code, is_nullable = part.code, False
            continue
        name = c.temporary()
        code = f"({name} if ({name} := {part.code}) is not None else {code})"
    return Part(code, kind, is_nullable)


def _nullif(c: TypedCompiler, node: exp.Nullif) -> Part:
    left, right = c.part(node.this), c.part(node.expression)
    kind = c.common([left, right])
    own = left if left.literal is None else c.converted(left, kind)
    name = c.temporary()
    first = Part(name, own.kind, own.is_nullable)
    equal = c.comparison("==", first, right)
    return Part(f"(None if [{name} := {own.code}] and {equal.code} is True else {name})", own.kind)


def _greatest(c: TypedCompiler, node: exp.Expr) -> Part:
    parts, kind = c.unified(list(arguments(node)))
    if kind not in (*NUMBERS, *MOMENTS):
        raise SqlProblem("greatest and least take numbers or times here")
    function = _greatest_of if isinstance(node, exp.Greatest) else _least_of
    code = f"{c.names.bind(function)}({', '.join(part.code for part in parts)})"
    return Part(code, kind, all(part.is_nullable for part in parts))


def _greatest_of(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def _least_of(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


NODES: dict[type, Callable[[TypedCompiler, Any], Part]] = {
    exp.EQ: _compare,
    exp.NEQ: _compare,
    exp.LT: _compare,
    exp.LTE: _compare,
    exp.GT: _compare,
    exp.GTE: _compare,
    exp.NullSafeEQ: _same,
    exp.NullSafeNEQ: _same,
    exp.Is: _is,
    exp.In: _in,
    exp.Between: _between,
    exp.And: _and,
    exp.Or: _or,
    exp.Not: _not,
    exp.Case: _case,
    exp.Coalesce: _coalesce,
    exp.Nullif: _nullif,
    exp.Greatest: _greatest,
    exp.Least: _greatest,
}
