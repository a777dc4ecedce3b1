"""MySQL's functions on Python values, to the letter; MariaDB's where the two differ and no `Loss` says so.

text is str, integer int, a comparison bool, decimal Decimal, of which the exponent is as many digits as the server
computes with (the part's scale says how many it shows). Dates and times of day are text, "2024-02-29" and always
"2024-02-29 13:05:00.250000": so they are in order, and zero dates are values like others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any, Final

from crosswalk.convert import EXACT, Loss

# A decimal has 81 digits in groups of nine; where an operation may come near, the server cuts.
DIGITS_MAX: Final = 45
SECOND_DIGITS: Final = 6
_GROUP: Final = 9
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,6}))?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_PLAIN = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?", re.ASCII)


# ----------------------------------------------------------------------------------------------- columns


def load_decimal(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise Loss("a number that is not finite")
    return number


def load_bit(text: str) -> bool:
    if text not in ("t", "f"):
        raise Loss("a value that is no boolean")
    return text == "t"


def load_date(text: str) -> str:
    if not _DATE.fullmatch(text):
        raise Loss("a date outside the years 0 to 9999")
    return text


def load_moment(text: str) -> str:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Loss("a timestamp outside the years 0 to 9999")
    return f"{found[1]}.{found[2] or '':0<6}"


def load_instant(text: str) -> str:
    if text[-3:] != "+00":
        raise Loss("a timestamp outside the years 0 to 9999")
    return load_moment(text[:-3])


# -------------------------------------------------------------------------------------------------- text


def left(text: str, count: int) -> str:
    return text[: max(count, 0)]


def right(text: str, count: int) -> str:
    return text[-count:] if count > 0 else ""


def substring(text: str, start: int, length: int | None = None) -> str:
    """Counted from 1, or from the end where negative; from 0 there is nothing."""
    at = start - 1 if start > 0 else len(text) + start
    if start == 0 or at < 0 or (length is not None and length <= 0):
        return ""
    return text[at:] if length is None else text[at : at + length]


def replace(text: str | None, old: str | None, new: str | None) -> str | None:
    """Null if one of them is; MariaDB does not look at the last where there is nothing to replace."""
    if text is None or old is None:
        return None
    if new is None:
        if not old or old not in text:
            raise Loss("a replacement of nothing by null, of which MariaDB and MySQL make different things")
        return None
    return text.replace(old, new) if old else text


def substring_index(text: str, delimiter: str, count: int) -> str:
    if not delimiter or not count:
        return ""
    parts = text.split(delimiter)
    if parts != [part[::-1] for part in text[::-1].split(delimiter[::-1])][::-1]:
        raise Loss("delimiters that overlap, which are counted differently for each character set")
    if abs(count) >= len(parts):
        return text
    return delimiter.join(parts[:count] if count > 0 else parts[count:])


def trim_left(text: str, what: str = " ") -> str:
    while what and text.startswith(what):
        text = text[len(what) :]
    return text


def trim_right(text: str, what: str = " ") -> str:
    while what and text.endswith(what):
        text = text[: -len(what)]
    return text


def trim(text: str, what: str = " ") -> str:
    return trim_right(trim_left(text, what), what)


def pad_left(text: str, length: int, fill: str = " ") -> str | None:
    padding = _padding(text, length, fill)
    return None if padding is None else padding + text[:length]


def pad_right(text: str, length: int, fill: str = " ") -> str | None:
    padding = _padding(text, length, fill)
    return None if padding is None else text[:length] + padding


def _padding(text: str, length: int, fill: str) -> str | None:
    if length < 0:
        return None
    missing = length - len(text)
    if length > 1_000_000:
        raise Loss("a text that is too long")
    if missing > 0 and not fill:
        raise Loss("a padding of nothing, of which MariaDB and MySQL make different things")
    return (fill * (missing // len(fill) + 1))[:missing] if missing > 0 else ""


def concat_ws(separator: str, *values: str | None) -> str:
    return separator.join(value for value in values if value is not None)


def byte_length(text: str, wide: bool) -> int:
    if not wide and not text.isascii():
        raise Loss("a length in bytes of a character set that is not known here")
    return len(text.encode())


# ----------------------------------------------------------------------------------------------- numbers


def fits(number: int) -> int:
    """Beyond 64 bits the server refuses or goes on with another type."""
    if not -(2**63) <= number < 2**63:
        raise Loss("a whole number beyond 64 bits")
    return number


def _sized(number: Decimal) -> Decimal:
    if max(number.adjusted(), 0) + places(number) > DIGITS_MAX:
        raise Loss(f"a number of more than {DIGITS_MAX} digits")
    return number


def places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "numbers are finite here"
    return max(-exponent, 0)


def decimal(value: int | Decimal) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(int(value))


def add_whole(a: int, b: int) -> int:
    return fits(a + b)


def subtract_whole(a: int, b: int) -> int:
    return fits(a - b)


def multiply_whole(a: int, b: int) -> int:
    return fits(a * b)


def add(a: Decimal, b: Decimal) -> Decimal:
    return _sized(EXACT.add(a, b))


def subtract(a: Decimal, b: Decimal) -> Decimal:
    return _sized(EXACT.subtract(a, b))


def multiply(a: Decimal, b: Decimal) -> Decimal:
    return _sized(EXACT.multiply(a, b))


def divide(a: Decimal, b: Decimal) -> Decimal | None:
    """Cut off at a group of nine digits behind those that `div_precision_increment`, 4, asks for: do_div_mod in
    decimal.c. Null by zero."""
    if not b:
        return None
    if not a:
        return Decimal(0)
    more = 0
    for number in (a, b):
        more += _groups(places(number)) * _GROUP - places(number)
    increment = max(4 - more, 0)
    scale = _GROUP * _groups(_GROUP * (_groups(places(a)) + _groups(places(b))) + increment)
    numerator = int(abs(a).scaleb(places(a), EXACT)) * 10 ** (scale + places(b))
    digits = numerator // (int(abs(b).scaleb(places(b), EXACT)) * 10 ** places(a))
    return _sized(Decimal(-digits if (a < 0) != (b < 0) else digits).scaleb(-scale, EXACT))


def _groups(digits: int) -> int:
    return -(-digits // _GROUP)


def whole_divide(a: Any, b: Any) -> int | None:
    """div: towards zero."""
    if not b:
        return None
    left_, right_ = decimal(a), decimal(b)
    places_ = max(places(left_), places(right_))
    one, two = (int(abs(number).scaleb(places_, EXACT)) for number in (left_, right_))
    return fits(-(one // two) if (left_ < 0) != (right_ < 0) else one // two)


def modulo_whole(a: int, b: int) -> int | None:
    """With the sign of the dividend."""
    if not b:
        return None
    return -(-a % abs(b)) if a < 0 else a % abs(b)


def modulo(a: Decimal, b: Decimal) -> Decimal | None:
    if not b:
        return None
    rest = EXACT.remainder(a, b)
    if not rest and a < 0:
        raise Loss("a remainder of nothing that MariaDB spells -0")
    return rest


def negative_whole(number: int) -> int:
    return fits(-number)


def absolute_whole(number: int) -> int:
    return fits(abs(number))


def rounded(rounding: str) -> Callable[[Any, int], Any]:
    """Half away from zero, or towards zero; a negative count goes before the point. A whole number stays one."""

    def change(number: Any, decimals: int) -> Any:
        found = decimal(number).quantize(Decimal(1).scaleb(-decimals), rounding, EXACT)
        if decimals < 0:
            found = found.quantize(Decimal(1), rounding, EXACT)
        return _sized(found) if isinstance(number, Decimal) else fits(int(found))

    return change


round_number: Final = rounded(ROUND_HALF_UP)
truncate_number: Final = rounded(ROUND_DOWN)


def floor(number: Decimal) -> int:
    return fits(int(number.quantize(Decimal(1), ROUND_FLOOR, EXACT)))


def ceil(number: Decimal) -> int:
    return fits(int(number.quantize(Decimal(1), ROUND_CEILING, EXACT)))


def shown(scale: int) -> Callable[[Decimal], Decimal]:
    """What the server shows of a number it computes with."""
    quantum = Decimal(1).scaleb(-scale)

    def show(number: Decimal) -> Decimal:
        return number.quantize(quantum, ROUND_HALF_UP, EXACT)

    return show


# ------------------------------------------------------------------------------------------------- casts


def text_to_whole(text: str) -> int:
    """Only what is one; what the server makes of the rest of a text depends on its version."""
    if not _WHOLE.fullmatch(text):
        raise Loss("text that is no whole number")
    return int(text)


def decimal_to_whole(number: Decimal) -> int:
    return fits(int(number.quantize(Decimal(1), ROUND_HALF_UP, EXACT)))


def unsigned(number: int) -> int:
    if not 0 <= number < 2**63:
        raise Loss("a number that changes when its sign is taken away")
    return number


def text_to_decimal(text: str) -> Decimal:
    if not _PLAIN.fullmatch(text):
        raise Loss("text that is no number")
    return Decimal(text)


def limited(precision: int, scale: int) -> Callable[[Decimal], Decimal]:
    def limit(number: Decimal) -> Decimal:
        found = number.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, EXACT)
        if found and found.adjusted() >= precision - scale:
            raise Loss("more digits than the decimal that it is cast to")
        return found

    return limit


def text_to_date(text: str) -> str:
    if not _DATE.fullmatch(text) or not is_day(text):
        raise Loss("text that is no date of the form 2024-02-29")
    return text


def text_to_moment(text: str) -> str:
    return load_moment(f"{text_to_date(text[:10])} {_clock(text[11:] or '00:00:00')}")


def _clock(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?", text, re.ASCII):
        raise Loss("text that is no time of the form 13:05:00")
    return text


def is_day(text: str) -> bool:
    """Zero dates are days here, whole ones only."""
    if text[:10] == "0000-00-00":
        return True
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def date_to_moment(day: str) -> str:
    return f"{day} 00:00:00.000000"


def cut(length: int) -> Callable[[str], str]:
    return lambda text: text[:length]


# ------------------------------------------------------------------------------------------------- times


def digits_at(start: int, end: int) -> Callable[[str], int]:
    return lambda moment: int(moment[start:end])


def quarter(moment: str) -> int:
    return (int(moment[5:7]) + 2) // 3


def day_of(moment: str) -> str:
    return moment[:10]


def of_day(function: Callable[[date], int]) -> Callable[[str], int | None]:
    """Of a day of the calendar; null of a zero date."""

    def compute(moment: str) -> int | None:
        if moment[:10] == "0000-00-00":
            return None
        return function(_day(moment))

    return compute


def _day(moment: str) -> date:
    try:
        return date.fromisoformat(moment[:10])
    except ValueError:
        raise Loss("a date that is zero in part") from None


def days_between(a: str, b: str) -> int | None:
    if "0000-00-00" in (a[:10], b[:10]):
        return None
    return (_day(a) - _day(b)).days


def formatted(pieces: tuple[str | tuple[int, int], ...]) -> Callable[[str], str]:
    """date_format: of texts, and of parts of the moment."""
    return lambda moment: "".join(p if isinstance(p, str) else moment[p[0] : p[1]] for p in pieces)


def real_date(text: str) -> date:
    return _day(text)


def real_moment(text: str) -> datetime:
    _day(text)
    return datetime.fromisoformat(text)


# ---------------------------------------------------------------------------------------------- spelling


def whole_text(number: int) -> str:
    return str(int(number))


def decimal_text(scale: int) -> Callable[[Decimal], str]:
    show = shown(scale)

    def spell(number: Decimal) -> str:
        text = format(show(number), "f")
        return text.lstrip("-") if text.strip("-0.") == "" else text

    return spell


def moment_text(digits: int) -> Callable[[str], str]:
    return lambda moment: moment[: 20 + digits] if digits else moment[:19]


# ---------------------------------------------------------------------------------------------- results


def zero_or_one(number: int | Decimal) -> bool:
    if number not in (0, 1):
        raise Loss("a number that is neither 0 nor 1 where yes or no is wanted")
    return bool(number)
