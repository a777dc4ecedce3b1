"""One value at a time: from a system's spelling to the canonical one and back, never losing anything.

Every function takes a value that is there (no null, no ABSENT) and raises `Loss` when it cannot be carried. The reasons
name no values; `compile` adds system, table, column and field. Which function is used where is decided in `carry`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo


class Loss(Exception):
    """A value that would lose something; the message is the reason, without the value."""


# Wider than PostgreSQL's numeric in any real column; Inexact never happens below it.
EXACT: Final = Context(prec=2000)
EXPONENT_MAX = 400
MEMO_SIZE_MAX = 4096

_PLAIN_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_DATE = re.compile(r"(\d{4,6})-(\d\d)-(\d\d)( BC)?", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4,6}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?))?\s?(Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)?( BC)?",
    re.ASCII,
)
_INTERVAL = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_FRACTION = re.compile(r"\.(\d+)", re.ASCII)
_ENDLESS = ("infinity", "-infinity")
EPOCH: Final = datetime(1970, 1, 1)


class Memo(dict[Any, Any]):
    """A function's answers by argument, forgotten when there are too many: columns repeat their values."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, value: Any) -> Any:
        if len(self) >= MEMO_SIZE_MAX:
            self.clear()
        answer = self[value] = self.function(value)
        return answer


# ------------------------------------------------------------------------------------------------ numbers


def integer(value: str | int | float) -> int:
    """An int from digits, or from a number without a fraction."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise Loss("a number with a fraction where a whole number is wanted")
        return int(value)
    if _INTEGER.fullmatch(value) and len(value) <= EXPONENT_MAX:
        return int(value)
    text = decimal_text(value, None)
    if "." in text:
        raise Loss("a number with a fraction where a whole number is wanted")
    return int(text)


def decimal_text(value: str | int | float, scale: int | None) -> str:
    """The canonical spelling: exactly `scale` decimals, or with None no zeros at the end. A float means its shortest
    spelling that reads back as the same float."""
    text = value if isinstance(value, str) else repr(int(value) if isinstance(value, int) else value)
    if not _PLAIN_DECIMAL.fullmatch(text):
        text = _plain(text)
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    sign = "-" if whole[0] == "-" else ""
    whole = whole.lstrip("-").lstrip("0") or "0"
    if whole == "0" and not fraction:
        sign = ""
    if scale is None:
        return f"{sign}{whole}.{fraction}" if fraction else sign + whole
    if len(fraction) > scale:
        raise Loss(f"more than {scale} decimals")
    return f"{sign}{whole}.{fraction:0<{scale}}" if scale else sign + whole


def _plain(text: str) -> str:
    """Exponents and signs written out."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise Loss("text that is no number") from None
    if not number.is_finite():
        raise Loss("NaN or an infinity, and the dictionary's numbers are finite")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > EXPONENT_MAX or len(text) > 4 * EXPONENT_MAX:
        raise Loss("a number beyond what the dictionary's decimals hold")
    return format(number, "f")


def rounded(text: str, decimals: int) -> str:
    """Round half to even: only where a mapping asks for it."""
    quantum = Decimal(1).scaleb(-decimals)
    return format(EXACT.quantize(Decimal(text), quantum), "f")


def scaled(text: str, factor: Fraction, decimals: int | None = None) -> str:
    """`text` × `factor` exactly; where that has no end, round to `decimals` if given and refuse if not."""
    product = Fraction(text) * factor
    return fraction_text(product, decimals)


def fraction_text(number: Fraction, decimals: int | None) -> str:
    """A fraction as a plain decimal."""
    if decimals is not None:
        number = round(number, decimals)
    rest, twos, fives = number.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        raise Loss("the unit of the other side divides it without an end")
    places = max(twos, fives)
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    sign = "-" if number < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def fit_decimal(text: str, precision: int | None, scale: int | None) -> str:
    """`text`, if a column of that precision and scale holds it as it is."""
    whole, _, fraction = text.lstrip("-").partition(".")
    fraction = fraction.rstrip("0")
    if scale is not None and len(fraction) > scale:
        raise Loss(f"{len(fraction)} decimals, and the column holds {scale}")
    if precision is not None and len(whole.lstrip("0")) > precision - (scale or 0):
        raise Loss(f"{len(whole)} digits before the point, and the column holds {precision - (scale or 0)}")
    return text


def fit_integer(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Loss("a number outside the range of the column's integers")
    return value


def fit_float(text: str, digits: int) -> float:
    """The float of `text`; refused when reading it back would not give `text`.

    Up to 15 significant digits always survive a double (6 a single), C standard 5.2.4.2.2 DBL_DIG, FLT_DIG.
    """
    number = float(text)
    significant = len(text.lstrip("-0.").replace(".", "")) if text[0] in "-0" else len(text.replace(".", ""))
    if significant > digits:
        if digits < 15 or number in (float("inf"), float("-inf")):
            raise Loss(f"more than the {digits} digits that the column's floating point keeps")
        if decimal_text(number, None) != decimal_text(text, None):
            raise Loss("more digits than the column's floating point keeps")
    return number


# --------------------------------------------------------------------------------------------------- text


def text_of(value: str | int | float | bytes) -> str:
    """A dynamically typed value where text is wanted, spelt as SQLite's own cast spells it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        raise Loss("bytes where text is wanted: binary, or text that is not UTF-8")
    if isinstance(value, float):
        return float_text(value)
    return str(int(value))


def float_text(value: float) -> str:
    """Shortest spelling with a point: 1.5, 1e+300 becomes 1.0e+300 as SQLite writes it."""
    text = repr(value)
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
    return text


def fit_text(value: str, length: int) -> str:
    if len(value) > length:
        raise Loss(f"text longer than {length} characters")
    return value


# --------------------------------------------------------------------------------------------------- time


def date_text(value: str) -> str:
    """A date in canonical spelling."""
    match = _DATE.fullmatch(value)
    if match is None:
        if value in _ENDLESS:
            return value
        raise Loss("text that is no date of the form 2024-02-29")
    _check_day(match[1], match[2], match[3], is_before_christ=bool(match[4]))
    return value


def _check_day(year: str, month: str, day: str, *, is_before_christ: bool) -> None:
    # Beyond Python's calendar the Gregorian one repeats every 400 years. 1 BC is the astronomers' year 0.
    number = 1 - int(year) if is_before_christ else int(year)
    try:
        date(number % 400 + 400, int(month), int(day))
    except ValueError:
        raise Loss("a day that the calendar does not have") from None
    if int(year) == 0 or (len(year) > 4 and year[0] == "0"):
        raise Loss("a year that the calendar does not have")


def day_of_timestamp(value: str) -> str:
    """The date of a timestamp without a zone, when it is midnight."""
    day, _, time = value.partition(" ")
    if value in _ENDLESS:
        return value
    if time.rstrip(" BC") not in ("", "00:00:00"):
        raise Loss("a time of day where only a date is wanted")
    return date_text(day + (" BC" if value.endswith(" BC") else ""))


def time_text(value: str) -> str:
    match = _TIME.fullmatch(value)
    if match is None or int(match[1]) > 24 or int(match[2]) > 59 or int(match[3] or 0) > 59:
        raise Loss("text that is no time of day of the form 13:05:00")
    fraction = (match[4] or "").rstrip("0")
    if len(fraction) > 6:
        raise Loss("a time finer than microseconds")
    if match[1] == "24" and (fraction or match[2] != "00" or (match[3] or "00") != "00"):
        raise Loss("text that is no time of day of the form 13:05:00")
    return f"{match[1]}:{match[2]}:{match[3] or '00'}" + (f".{fraction}" if fraction else "")


def instant_text(value: str, zone: ZoneInfo | None) -> str:
    """A timestamp in canonical spelling. `zone` is the one meant where `value` says none; None: it must say one."""
    if value in _ENDLESS:
        return value
    if zone is not None and zone.key == "UTC" and 19 <= len(value) <= 26:
        # The usual spelling, by Python's own parser; it knows others too, which start differently when written again.
        try:
            usual = str(datetime.fromisoformat(value))
        except ValueError:
            usual = ""
        if usual.startswith(value) and "+" not in usual:
            return (usual.rstrip("0") if "." in usual else usual) + "+00"
    match = _INSTANT.fullmatch(value)
    if match is None:
        raise Loss("text that is no timestamp of the form 2024-02-29 13:05:00")
    day, time, offset, era = match[1], time_text(match[2] or "00:00:00"), match[3], match[4] or ""
    is_utc = offset in ("Z", "+00", "+00:00") or (offset is None and zone is not None and zone.key == "UTC")
    if is_utc and time[:2] != "24":
        return f"{date_text(day + era).removesuffix(' BC')} {time}+00{era}"
    date_text(day + era)
    if era or len(day) > 10 or time[:2] == "24":
        raise Loss("a timestamp outside the years 1 to 9999, or at 24:00")
    local = datetime.fromisoformat(f"{day} {time}")
    if offset is not None:
        return utc_text(local - _offset(offset))
    if zone is None:
        raise Loss("a timestamp that says no zone")
    return utc_text(local_to_utc(local, zone))


def _offset(text: str) -> timedelta:
    if text == "Z":
        return timedelta(0)
    digits = text[1:].replace(":", "")
    span = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0), seconds=int(digits[4:6] or 0))
    return -span if text[0] == "-" else span


def local_to_utc(local: datetime, zone: ZoneInfo) -> datetime:
    """Naive UTC. Of the hour that clocks repeat the first is meant; the hour that they skip does not exist."""
    try:
        found = local.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        raise Loss("a timestamp outside the years 1 to 9999") from None
    if found.astimezone(zone).replace(tzinfo=None) != local:
        raise Loss("a local time that the clocks skip")
    return found.replace(tzinfo=None)


def utc_text(moment: datetime) -> str:
    """Naive UTC → canonical."""
    text = moment.isoformat(sep=" ")
    return (text.rstrip("0") if "." in text else text) + "+00"


def utc_moment(value: str) -> datetime:
    """Canonical → naive UTC; years 1 to 9999 only."""
    if value in _ENDLESS or value.endswith("BC") or value[4] != "-":
        raise Loss("a timestamp outside the years 1 to 9999")
    return datetime.fromisoformat(value[:-3])


def local_text(value: str, zone: ZoneInfo) -> str:
    """Canonical → local time without a zone, such that reading it gives the same moment again."""
    if zone.key == "UTC":
        return value.replace("+00", "", 1)
    moment = utc_moment(value)
    try:
        local = moment.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, fold=0)
    except OverflowError:
        raise Loss("a timestamp outside the years 1 to 9999") from None
    if local_to_utc(local, zone) != moment:
        raise Loss("the second of the two hours that local clocks repeat; the column cannot tell them apart")
    text = local.isoformat(sep=" ")
    return text.rstrip("0") if "." in text else text


def fit_second(text: str, digits: int, *, truncate: bool) -> str:
    """A time or timestamp, if a column that keeps so many digits of a second holds it as it is; cut to them, which is
    never a later moment, where that is allowed."""
    found = _FRACTION.search(text)
    if found is None or len(found[1]) <= digits:
        return text
    if not truncate:
        raise Loss(f"{len(found[1])} digits of a second's fraction, and the column keeps {digits}")
    kept = found[1][:digits].rstrip("0")
    return text[: found.start()] + (f".{kept}" if kept else "") + text[found.end() :]


def unix_to_instant(value: str | int | float, ticks: int) -> str:
    """A number of ticks since 1970 UTC → canonical."""
    micros = Fraction(decimal_text(value, None)) * 1_000_000 / ticks
    if micros.denominator != 1:
        raise Loss("a timestamp finer than microseconds")
    try:
        return utc_text(EPOCH + timedelta(microseconds=int(micros)))
    except OverflowError:
        raise Loss("a timestamp outside the years 1 to 9999") from None


def instant_to_unix(value: str, ticks: int) -> str:
    """Canonical → decimal text of ticks since 1970 UTC."""
    micros = (utc_moment(value) - EPOCH) // timedelta(microseconds=1)
    return fraction_text(Fraction(micros * ticks, 1_000_000), None)


def interval_seconds(value: str) -> str:
    """PostgreSQL's iso_8601 interval → seconds. A day is 86400 seconds; months have no length."""
    match = _INTERVAL.fullmatch(value)
    if match is None or value[-1] in "PT":
        raise Loss("text that is no interval of the form PT1H30M")
    years, months, weeks, days, hours, minutes, seconds = match.groups()
    if int(years or 0) or int(months or 0):
        raise Loss("an interval of months or years, which have no length in seconds")
    whole = int(weeks or 0) * 604800 + int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes or 0) * 60
    return decimal_text(format(EXACT.add(Decimal(whole), Decimal(seconds or 0)), "f"), None)


def seconds_interval(value: str) -> str:
    """Seconds → an interval that PostgreSQL reads back as the same seconds."""
    if len(value.partition(".")[2]) > 6:
        raise Loss("a duration finer than microseconds")
    # In parts: PostgreSQL reads a part as floating point, and a great number of seconds would lose its microseconds.
    sign = "-" if value[0] == "-" else ""
    whole, dot, fraction = value.lstrip("-").partition(".")
    minutes, seconds = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    return f"PT{sign}{hours}H{sign}{minutes}M{sign}{seconds}{dot}{fraction}S"


# --------------------------------------------------------------------------------------------------- json


class JsonNumber(str):
    """A number of a JSON text, as it is written there."""

    __slots__ = ()


def _refuse_constant(_: str) -> object:
    raise Loss("JSON with a number that is not finite")


_JSON = json.JSONDecoder(parse_float=JsonNumber, parse_int=JsonNumber, parse_constant=_refuse_constant, strict=False)
json_word = json.JSONEncoder(ensure_ascii=False).encode


def json_text(value: str) -> str:
    """Canonical JSON: keys sorted, no spaces, numbers as written."""
    try:
        return _spell(_JSON.decode(value))
    except (json.JSONDecodeError, RecursionError):
        raise Loss("text that is no JSON") from None


def json_list(value: str) -> list[Any]:
    """What a JSON array holds, numbers as written."""
    try:
        found = _JSON.decode(value)
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise Loss("text that is no JSON array")
    return found  # pyright: ignore[reportUnknownVariableType]


def _spell(value: Any) -> str:
    if isinstance(value, JsonNumber):
        return str(value)
    if isinstance(value, dict):
        pairs: Any = sorted(value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return "{" + ",".join(f"{json_word(key)}:{_spell(part)}" for key, part in pairs) + "}"
    if isinstance(value, list):
        parts: Any = value  # pyright: ignore[reportUnknownVariableType]
        return "[" + ",".join(_spell(part) for part in parts) + "]"
    return json_word(value)


# -------------------------------------------------------------------------------------------------- bytes


def hex_of_bytea(value: str) -> str:
    if not value.startswith("\\x"):
        raise Loss("binary that is not in hex output")
    return value[2:]


def hex_of_bytes(value: object) -> str:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise Loss("a number where binary is wanted")
    return value.hex()


# --------------------------------------------------------------------------------------------------- keys


def key_text(value: object) -> str:
    """The one text of a key column's value, so that key and reference of two tables agree: 5, 5.0 and "5" are "5"."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return decimal_text(value, None)
    if isinstance(value, bytes):
        return value.hex()
    raise Loss("no value in a key column")


def numeric_key_text(value: object) -> str:
    """Of a decimal or float column: no zeros at the end, so that 5.00 refers to 5."""
    if isinstance(value, (str, int, float)):
        return decimal_text(value, None)
    raise Loss("no number in a key column")
