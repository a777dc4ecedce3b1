"""PostgreSQL's functions on Python values, to the letter.

text is str, integer int, numeric Decimal (its exponent is PostgreSQL's display scale), double precision float, boolean
bool, date date, timestamp a naive datetime, timestamptz a naive datetime in UTC, time its canonical text. Refusals are
`Loss` or the error Python raises. Sections named are those of the PostgreSQL 18 manual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Final

from crosswalk.convert import EXACT, EXPONENT_MAX, Loss
from engine.model.table import Kind

SCALE_MAX = 16383
DIVISION_SCALE_MAX = 1000


# ----------------------------------------------------------------------------------------------- columns


def load_numeric(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise Loss("a number that is not finite")
    return number


def load_float(text: str) -> float:
    return finite(float(text))


def finite(number: float) -> float:
    if not math.isfinite(number):
        raise Loss("a number that is not finite")
    return number


def load_boolean(text: str) -> bool:
    if text not in ("t", "f"):
        raise Loss("a value that is no boolean")
    return text == "t"


def load_instant(text: str) -> datetime:
    if text[-3:] != "+00":
        raise Loss("a timestamp outside the years 1 to 9999")
    return datetime.fromisoformat(text[:-3])


def load_padded(text: str) -> str:
    return text.rstrip(" ")


# -------------------------------------------------------------------------------------------------- text


def _simple(char: str, method: Callable[[str], str]) -> str:
    changed = method(char)
    return changed if len(changed) == 1 else {"\u0130": "i"}.get(char, char)


def lower(text: str) -> str:
    """Character by character, as a UTF-8 locale does: no character becomes two."""
    return text.lower() if text.isascii() else "".join(_simple(char, str.lower) for char in text)


def upper(text: str) -> str:
    return text.upper() if text.isascii() else "".join(_simple(char, str.upper) for char in text)


def left(text: str, count: int) -> str:
    return text[:count]


def right(text: str, count: int) -> str:
    return text[-count:] if count > 0 else text[-count:] if count < 0 else ""


def substring(text: str, start: int, length: int | None = None) -> str:
    """Counted from 1; what lies before the text counts too (9.4)."""
    if length is None:
        return text[max(start - 1, 0) :]
    if length < 0:
        raise Loss("a substring of negative length")
    return text[max(start - 1, 0) : max(start - 1 + length, 0)]


def replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new) if old else text


def split_part(text: str, delimiter: str, number: int) -> str:
    if number == 0:
        raise Loss("split_part counts from 1")
    parts = text.split(delimiter) if delimiter else [text]
    index = number - 1 if number > 0 else len(parts) + number
    return parts[index] if 0 <= index < len(parts) else ""


def position(text: str, part: str) -> int:
    return text.find(part) + 1


def pad_left(text: str, length: int, fill: str = " ") -> str:
    return _padding(text, length, fill) + text[: max(length, 0)]


def pad_right(text: str, length: int, fill: str = " ") -> str:
    return text[: max(length, 0)] + _padding(text, length, fill)


def _padding(text: str, length: int, fill: str) -> str:
    missing = length - len(text)
    if length > 10_000_000:
        raise Loss("a text that is too long")
    return (fill * (missing // len(fill) + 1))[:missing] if missing > 0 and fill else ""


def concat(*values: str | None) -> str:
    return "".join(value for value in values if value is not None)


def concat_ws(separator: str, *values: str | None) -> str:
    return separator.join(value for value in values if value is not None)


def like(text: str, pattern: str, escape: str = "\\") -> bool:
    found, is_whole = like_pattern(pattern, escape)
    if is_whole:
        return found.fullmatch(text) is not None
    if found.match(text):
        raise Loss("a like pattern that ends with its escape character")
    return False


def ilike(text: str, pattern: str, escape: str = "\\") -> bool:
    return like(lower(text), lower(pattern), escape)


@lru_cache(maxsize=512)
def like_pattern(pattern: str, escape: str) -> tuple[re.Pattern[str], bool]:
    """9.7.1: `%` any run, `_` any character; the escape character makes the next one literal.

    False: the pattern ends with its escape character. PostgreSQL refuses that for a text that comes as far as there and
    has more, of which this is the pattern then; another text is simply not like it.
    """
    found: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == escape:
            at += 1
            if at == len(pattern):
                return re.compile("".join(found) + ".", re.DOTALL), False
            found.append(re.escape(pattern[at]))
        else:
            found.append({"%": ".*", "_": "."}.get(char) or re.escape(char))
        at += 1
    return re.compile("".join(found), re.DOTALL), True


# ----------------------------------------------------------------------------------------------- numbers


def integer_divide(left: int, right: int) -> int:
    """Towards zero (9.3)."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def integer_modulo(left: int, right: int) -> int:
    """With the sign of the dividend."""
    return left - right * integer_divide(left, right)


def numeric(value: int | Decimal) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value)


add_numeric = EXACT.add
subtract_numeric = EXACT.subtract
multiply_numeric = EXACT.multiply
modulo_numeric = EXACT.remainder


def divide_numeric(left: Decimal, right: Decimal) -> Decimal:
    """At least 16 significant digits, rounded half away from zero: select_div_scale in numeric.c."""
    if not right:
        raise Loss("a division by zero")
    weight_left, first_left = _base_10000(left)
    weight_right, first_right = _base_10000(right)
    weight = weight_left - weight_right - (1 if first_left <= first_right else 0)
    scale = max(16 - 4 * weight, _scale(left), _scale(right), 0)
    scale = min(scale, DIVISION_SCALE_MAX)
    # Two more digits than kept, cut off, can turn a tie into none or back; so divide as integers.
    numerator = int(abs(left).scaleb(_scale(left), EXACT)) * 10 ** (scale + 1 + _scale(right))
    denominator = int(abs(right).scaleb(_scale(right), EXACT)) * 10 ** _scale(left)
    digits = (numerator // denominator + 5) // 10
    negative = (left < 0) != (right < 0) and digits
    return Decimal(-digits if negative else digits).scaleb(-scale, EXACT)


def _scale(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "numbers are finite here"
    return max(-exponent, 0)


def _base_10000(number: Decimal) -> tuple[int, int]:
    """Weight and value of the first digit to base 10000, which numeric is stored in; (0, 0) for zero."""
    if not number:
        return 0, 0
    weight = number.adjusted() // 4
    return weight, int(abs(number).scaleb(-4 * weight, EXACT))


def round_numeric(number: Decimal, decimals: int = 0) -> Decimal:
    """Half away from zero; a negative count rounds before the point."""
    quantum = Decimal(1).scaleb(-max(decimals, -EXPONENT_MAX))
    found = number.quantize(quantum, ROUND_HALF_UP, EXACT)
    return found if decimals >= 0 else EXACT.quantize(found, Decimal(1))


def truncate_numeric(number: Decimal, decimals: int = 0) -> Decimal:
    found = number.quantize(Decimal(1).scaleb(-max(decimals, -EXPONENT_MAX)), ROUND_DOWN, EXACT)
    return found if decimals >= 0 else EXACT.quantize(found, Decimal(1))


def floor_numeric(number: Decimal) -> Decimal:
    return number.quantize(Decimal(1), ROUND_FLOOR, EXACT)


def ceil_numeric(number: Decimal) -> Decimal:
    return number.quantize(Decimal(1), ROUND_CEILING, EXACT)


def round_float(number: float) -> float:
    """Half to even (9.3, round)."""
    return finite(float(round(number)))


def truncate_float(number: float) -> float:
    return float(math.trunc(number))


def floor_float(number: float) -> float:
    return float(math.floor(number))


def ceil_float(number: float) -> float:
    return float(math.ceil(number))


def add_float(left: float, right: float) -> float:
    return finite(float(left) + float(right))


def subtract_float(left: float, right: float) -> float:
    return finite(float(left) - float(right))


def multiply_float(left: float, right: float) -> float:
    return finite(float(left) * float(right))


def divide_float(left: float, right: float) -> float:
    return finite(float(left) / float(right))


# ------------------------------------------------------------------------------------------------- casts


def integer_in(low: int, high: int) -> Callable[[int], int]:
    def check(number: int) -> int:
        if not low <= number <= high:
            raise Loss("outside the range of the integer that it is cast to")
        return number

    return check


def text_to_integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,40}", text.strip(" \t\n\r\f\v"), re.ASCII):
        raise Loss("text that is no whole number")
    return int(text)


def numeric_to_integer(number: Decimal) -> int:
    return int(round_numeric(number))


def float_to_integer(number: float) -> int:
    return round(number)


def text_to_numeric(text: str) -> Decimal:
    plain = text.strip(" \t\n\r\f\v")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", plain, re.ASCII | re.IGNORECASE):
        raise Loss("text that is no number")
    return plain_numeric(Decimal(plain))


def plain_numeric(number: Decimal) -> Decimal:
    """Without a positive exponent, which PostgreSQL's numeric does not have."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "numbers are finite here"
    return EXACT.quantize(number, Decimal(1)) if exponent > 0 else number


def float_to_numeric(number: float) -> Decimal:
    """By 15 significant digits (float8_numeric)."""
    text = format(number, ".15g")
    return plain_numeric(Decimal(text))


def numeric_limited(precision: int, scale: int) -> Callable[[Decimal], Decimal]:
    """numeric(p, s): rounds the fraction, refuses what is too great."""

    def limit(number: Decimal) -> Decimal:
        found = round_numeric(number, scale)
        if found and found.adjusted() >= precision - scale:
            raise Loss("more digits than the numeric that it is cast to")
        return found

    return limit


def text_to_float(text: str) -> float:
    plain = text.strip(" \t\n\r\f\v")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", plain, re.ASCII | re.IGNORECASE):
        raise Loss("text that is no number")
    return finite(float(plain))


def text_to_boolean(text: str) -> bool:
    """8.6: unique prefixes of these words, in any case."""
    word = text.strip(" \t\n\r\f\v").lower()
    for value, words in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0"))):
        for known in words:
            if word and known.startswith(word) and (word != "o" and (known not in ("on", "off") or len(word) > 1)):
                return value
    raise Loss("text that is no boolean")


def text_to_date(text: str) -> date:
    plain = text.strip(" ")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", plain, re.ASCII):
        raise Loss("text that is no date of the form 2024-02-29")
    return date.fromisoformat(plain)


def text_to_timestamp(text: str) -> datetime:
    plain = text.strip(" ")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", plain, re.ASCII):
        raise Loss("text that is no timestamp of the form 2024-02-29 13:05:00")
    return datetime.fromisoformat(plain)


def text_to_instant(text: str) -> datetime:
    """Without an offset in UTC, the zone that sessions have here."""
    plain = text.strip(" ")
    match = re.fullmatch(r"(.*?)(Z|[+-]\d\d(?::?\d\d)?)?", plain, re.ASCII)
    assert match is not None
    moment = text_to_timestamp(match[1])
    if match[2] in (None, "Z"):
        return moment
    digits = match[2][1:].replace(":", "")
    span = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return moment + span if match[2][0] == "-" else moment - span


def date_to_timestamp(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def cut(length: int) -> Callable[[str], str]:
    return lambda text: text[:length]


# ---------------------------------------------------------------------------------------------- spelling


def numeric_text(number: Decimal) -> str:
    text = format(number, "f")
    return text.lstrip("-") if not number else text


def float_text(number: float) -> str:
    """Shortest that reads back, with an exponent from 1e+15 on and below 1e-4 (8.1.3)."""
    text = repr(number)
    if "e" in text or abs(number) >= 1e15:
        digits, _, exponent = format(number, f".{_significant(text) - 1}e").partition("e")
        if not -4 <= int(exponent) < 15:
            return f"{digits}e{exponent[0]}{exponent[1:].lstrip('0').rjust(2, '0')}"
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def _significant(text: str) -> int:
    mantissa = text.lstrip("-").partition("e")[0]
    digits = mantissa.replace(".", "").lstrip("0")
    return max(len(digits.rstrip("0")), 1)


def boolean_text(value: bool) -> str:
    return "true" if value else "false"


def boolean_letter(value: bool) -> str:
    return "t" if value else "f"


def timestamp_text(moment: datetime) -> str:
    text = moment.isoformat(sep=" ")
    return text.rstrip("0") if "." in text else text


def instant_text(moment: datetime) -> str:
    return timestamp_text(moment) + "+00"


SPELLINGS: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.INTEGER: str,
    Kind.DECIMAL: numeric_text,
    Kind.FLOAT: float_text,
    Kind.BOOLEAN: boolean_text,
    Kind.DATE: date.isoformat,
    Kind.TIMESTAMP: timestamp_text,
    Kind.INSTANT: instant_text,
}
"""How a value of a kind becomes text; kinds that are not here are text already."""
