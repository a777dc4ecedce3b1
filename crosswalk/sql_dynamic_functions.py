"""SQLite's functions on Python values, to the letter.

Values are None, int, float, str and bytes, of any of these kinds at any place. What depends on SQLite's version (the
text of a floating point beyond 15 digits, rounding near a tie) is refused with `Loss`. Sections named are those of
sqlite.org: "Datatypes In SQLite" and "Built-In Scalar SQL Functions".
"""

from __future__ import annotations

import math
import re
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache, reduce
from typing import Any

from crosswalk.convert import Loss

Value = Any
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
_PREFIX = re.compile(r"[ \t\n\r\f\v]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
_INTEGER_PREFIX = re.compile(r"[ \t\n\r\f\v]*([+-]?\d+)", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[ \t\n\r\f\v]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[ \t\n\r\f\v]*", re.ASCII)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?", re.ASCII)
_ASCII_LOWER = {n: n + 32 for n in range(65, 91)}
_ASCII_UPPER = {n: n - 32 for n in range(97, 123)}


# ----------------------------------------------------------------------------------------------- values


def load_decimal(text: str) -> int | float:
    """A canonical decimal as SQLite would hold it."""
    number = Decimal(text)
    whole = int(number)
    return whole if whole == number and INTEGER_MIN <= whole <= INTEGER_MAX else float(number)


def number(value: Value) -> int | float:
    """What arithmetic makes of a value that is not null: the number a text begins with, else 0."""
    if isinstance(value, (int, float)):
        return value
    match = _PREFIX.match(_decoded(value))
    return _parsed(match[1]) if match else 0


def _parsed(text: str) -> int | float:
    if text.lstrip("+-").isdigit():
        found = int(text)
        return found if INTEGER_MIN <= found <= INTEGER_MAX else float(found)
    return float(text)


def _decoded(value: Value) -> str:
    if isinstance(value, bytes):
        raise Loss("binary where text or a number is wanted")
    return value


def text(value: Value) -> Any:
    """As text; null stays null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, int):
        return str(int(value))
    return _decoded(value)


def float_text(value: float) -> str:
    """At most 15 digits are the same in every version of SQLite; up to 3.51 it writes 15, later 17."""
    if not math.isfinite(value):
        raise Loss("a number that is not finite")
    digits = format(value, ".15g")
    if float(digits) != value:
        raise Loss("a floating point whose text depends on SQLite's version")
    mantissa, mark, exponent = digits.partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}{mark}{exponent}"


def whole(value: Value) -> int:
    """cast(… as integer) of a value that is not null."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return max(min(int(value), INTEGER_MAX), INTEGER_MIN)
    match = _INTEGER_PREFIX.match(_decoded(value))
    return max(min(int(match[1]), INTEGER_MAX), INTEGER_MIN) if match else 0


def truth(value: Value) -> bool | None:
    return None if value is None else number(value) != 0


def flag(value: bool | None) -> int | None:
    return None if value is None else int(value)


# ------------------------------------------------------------------------------------------- comparison


def numeric_affinity(value: Value) -> Value:
    """A text that is a number as a whole becomes one (section 3.4 and 4.2)."""
    if isinstance(value, str):
        match = _WHOLE_NUMBER.fullmatch(value)
        if match:
            return _parsed(match[1])
    return value


def text_affinity(value: Value) -> Value:
    return text(value) if isinstance(value, (int, float)) else value


def _rank(value: Value) -> int:
    return 0 if isinstance(value, (int, float)) else 1 if isinstance(value, str) else 2


def order(left: Value, right: Value) -> int:
    """Of two values that are not null: numbers before texts before binary; texts by their bytes."""
    ranks = _rank(left), _rank(right)
    if ranks[0] != ranks[1]:
        return -1 if ranks[0] < ranks[1] else 1
    return -1 if left < right else 1 if left > right else 0


def equal(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) == 0)


def unequal(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) != 0)


def less(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) < 0)


def at_most(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) <= 0)


def greater(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) > 0)


def at_least(left: Value, right: Value) -> int | None:
    return None if left is None or right is None else int(order(left, right) >= 0)


def same(left: Value, right: Value) -> int:
    if left is None or right is None:
        return int(left is None and right is None)
    return int(order(left, right) == 0)


def member(value: Value, *members: Value) -> int | None:
    """in: affinities have been applied."""
    if value is None:
        return None
    if any(other is not None and order(value, other) == 0 for other in members):
        return 1
    return None if any(other is None for other in members) else 0


def greatest(*values: Value) -> Value:
    """max() of several; of equals the first."""
    return None if None in values else reduce(lambda best, other: other if order(best, other) < 0 else best, values)


def least(*values: Value) -> Value:
    """min() of several; of equals the last (minmaxFunc in func.c)."""
    return None if None in values else reduce(lambda best, other: other if order(best, other) >= 0 else best, values)


# ------------------------------------------------------------------------------------------- arithmetic


def _computed(exact: int | float, left: int | float, right: int | float, sign: str) -> Value:
    """Integers that leave 64 bits are computed as floating point."""
    if isinstance(exact, int) and not INTEGER_MIN <= exact <= INTEGER_MAX:
        a, b = float(left), float(right)
        return a + b if sign == "+" else a - b if sign == "-" else a * b
    return None if isinstance(exact, float) and math.isnan(exact) else exact


def add(left: Value, right: Value) -> Value:
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    return _computed(a + b, a, b, "+")


def subtract(left: Value, right: Value) -> Value:
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    return _computed(a - b, a, b, "-")


def multiply(left: Value, right: Value) -> Value:
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    return _computed(a * b, a, b, "*")


def divide(left: Value, right: Value) -> Value:
    """Of integers towards zero; by zero null."""
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if quotient <= INTEGER_MAX else float(a) / float(b)
    return _computed(a / b, a, b, "/")


def modulo(left: Value, right: Value) -> Value:
    """Both sides are cut to integers."""
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    one, two = whole(a), whole(b)
    if two == 0:
        return None
    found = int(math.copysign(1, one)) * (abs(one) % abs(two))
    return found if isinstance(a, int) and isinstance(b, int) else float(found)


def negative(value: Value) -> Value:
    return subtract(0, value)


def absolute(value: Value) -> Value:
    if value is None:
        return None
    if isinstance(value, int):
        if value == INTEGER_MIN:
            raise Loss("an integer overflow")
        return abs(value)
    return abs(float(number(value)))


def rounded(value: Value, decimals: Value = 0) -> Value:
    """A floating point. Near a tie SQLite's versions differ: some look at the exact value, some at its digits."""
    if value is None or decimals is None:
        return None
    if abs(whole(decimals)) >= 2**31:
        raise Loss("a count of decimals beyond 31 bits, which depends on SQLite's version")
    places = max(min(whole(decimals), 30), 0)
    real = float(number(value))
    if not math.isfinite(real) or abs(real) >= 2.0**52:
        return real
    quantum = Decimal(1).scaleb(-places)
    try:
        exact = Decimal(real).quantize(quantum, rounding=ROUND_HALF_UP)
        shown = Decimal(repr(real)).quantize(quantum, rounding=ROUND_HALF_UP)
    except ArithmeticError:
        return real
    if exact != shown:
        raise Loss("a number so near to a tie that rounding it depends on SQLite's version")
    return float(exact) + 0.0


# ------------------------------------------------------------------------------------------------ casts


def cast_integer(value: Value) -> Value:
    return None if value is None else whole(value)


def cast_real(value: Value) -> Value:
    return None if value is None else float(number(value))


def cast_numeric(value: Value) -> Value:
    if value is None or isinstance(value, (int, float)):
        return value
    if not _PREFIX.match(_decoded(value)):
        raise Loss("a cast to numeric of a text that is no number, which depends on SQLite's version")
    found = number(value)
    if isinstance(found, float) and found.is_integer() and abs(found) < 2.0**51:
        return int(found)
    return found


# ------------------------------------------------------------------------------------------------- text


def join(left: Value, right: Value) -> Value:
    return None if left is None or right is None else text(left) + text(right)


def concat(*values: Value) -> str:
    return "".join(text(value) for value in values if value is not None)


def concat_ws(separator: Value, *values: Value) -> Value:
    if separator is None:
        return None
    return text(separator).join(text(value) for value in values if value is not None)


def lower(value: Value) -> Value:
    return None if value is None else text(value).translate(_ASCII_LOWER)


def upper(value: Value) -> Value:
    return None if value is None else text(value).translate(_ASCII_UPPER)


def trim(value: Value, chars: Value = " ") -> Value:
    return None if value is None or chars is None else text(value).strip(text(chars))


def trim_left(value: Value, chars: Value = " ") -> Value:
    return None if value is None or chars is None else text(value).lstrip(text(chars))


def trim_right(value: Value, chars: Value = " ") -> Value:
    return None if value is None or chars is None else text(value).rstrip(text(chars))


def substring(value: Value, start: Value, *length: Value) -> Value:
    """substrFunc in func.c: a negative start counts from the end, a negative length goes backwards."""
    if value is None or start is None or None in length:
        return None
    found = text(value)
    begin, is_backward = whole(start), False
    count = whole(length[0]) if length else len(found) + abs(begin) + 1
    if max(abs(begin), abs(count)) >= 2**31:
        raise Loss("a place in a text beyond 31 bits, which depends on SQLite's version")
    if count < 0:
        count, is_backward = -count, True
    if begin < 0:
        begin += len(found)
        if begin < 0:
            count, begin = max(count + begin, 0), 0
    elif begin > 0:
        begin -= 1
    elif count > 0:
        count -= 1
    if is_backward:
        begin -= count
        if begin < 0:
            count, begin = count + begin, 0
    return found[begin : begin + max(count, 0)]


def replace(value: Value, old: Value, new: Value) -> Value:
    if value is None or old is None:
        return None
    if text(old) == "":
        if not isinstance(value, str):
            raise Loss("replace of nothing in a number, whose type depends on SQLite's version")
        return value
    return None if new is None else text(value).replace(text(old), text(new))


def position(value: Value, part: Value) -> Value:
    return None if value is None or part is None else text(value).find(text(part)) + 1


def length(value: Value) -> Value:
    """Of a text the characters before the first U+0000."""
    if value is None:
        return None
    return len(value) if isinstance(value, bytes) else len(text(value).partition("\x00")[0])


def like(value: Value, pattern: Value, escape: str = "") -> int | None:
    """Letters of ASCII match in either case."""
    if value is None or pattern is None:
        return None
    found = _like_pattern(text(pattern).translate(_ASCII_LOWER), escape.translate(_ASCII_LOWER))
    return int(found.fullmatch(text(value).translate(_ASCII_LOWER)) is not None)


@lru_cache(maxsize=512)
def _like_pattern(pattern: str, escape: str) -> re.Pattern[str]:
    found: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if escape and char == escape:
            following = next(chars, None)
            if following is None:
                # The end of a pattern cannot be literal: nothing is like it.
                return re.compile("(?!)")
            found.append(re.escape(following))
        else:
            found.append({"%": ".*", "_": "."}.get(char) or re.escape(char))
    return re.compile("".join(found), re.DOTALL)


def nullif(left: Value, right: Value) -> Value:
    return None if left is not None and right is not None and order(left, right) == 0 else left


def day(value: Value) -> Value:
    """date(x) of an ISO text."""
    if value is None:
        return None
    match = _ISO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Loss("date() of something that is no ISO date or timestamp")
    try:
        return date(int(match[1]), int(match[2]), int(match[3])).isoformat()
    except ValueError:
        raise Loss("a day that the calendar does not have") from None
