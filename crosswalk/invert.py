"""What can be told backwards from an expression without being told how."""

from __future__ import annotations

from sqlglot import exp

from crosswalk.block import Constant
from crosswalk.sql_scope import column_name


def constants_of(condition: exp.Expr) -> dict[str, Constant]:
    """Columns that a condition fixes: `kind = 'customer' and deleted = 0` → {"kind": "customer", "deleted": 0}.

    Rows that we insert set them, or they would not take part in what they were inserted for.
    """
    found: dict[str, Constant] = {}
    for part in condition.flatten() if isinstance(condition, exp.And) else (condition,):
        part = part.unnest()
        match part:
            case exp.And():
                found |= constants_of(part)
            case (
                exp.EQ(this=exp.Column() as column, expression=value)
                | exp.EQ(expression=exp.Column() as column, this=value)
            ):
                constant = constant_of(value)
                if constant is not None:
                    found[column_name(column)] = constant
            case exp.Column():
                found[column_name(part)] = True
            case exp.Not(this=exp.Column() as column):
                found[column_name(column)] = False
            case _:
                pass
    return found


def constant_of(value: exp.Expr) -> Constant | None:
    """The value of a literal; None for anything else. A decimal keeps its text."""
    if isinstance(value, exp.Boolean):
        return bool(value.this)
    if isinstance(value, exp.Neg):
        inner = constant_of(value.this)
        return -inner if isinstance(inner, int) and not isinstance(inner, bool) else None
    if not isinstance(value, exp.Literal):
        return None
    text = str(value.this)
    return text if value.is_string or not text.isdigit() else int(text)
