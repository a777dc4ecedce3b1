"""Debezium's values as wire values: texts in PostgreSQL's output syntax (`engine.model.table.Form.TEXT`).

Each function takes a value that is not null, as msgspec decodes it from JSON, and raises ValueError for what is none of
its kind. How Debezium spells which type: https://debezium.io/documentation/reference/stable/connectors/postgresql.html,
"Data type mappings", and the same chapter of the other connectors.
"""

from __future__ import annotations

import math
import re
from binascii import a2b_base64
from collections.abc import Callable
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Final

Convert = Callable[[Any], str]

_DAY: Final = 86_400_000_000
# PostgreSQL's driver has these milliseconds for infinity (`PGStatement.DATE_POSITIVE_INFINITY`), and Debezium hands the
# number on in whatever unit the column is told.
_INFINITY: Final = 9_223_372_036_825_200_000
_MINUS_INFINITY: Final = -9_223_372_036_832_400_000
# No database has a date behind this year, PostgreSQL's last; the driver's infinity lies behind it in any unit.
_YEAR_MAX: Final = 294_276
_YEAR_MIN: Final = -4_713
# PostgreSQL's first and last day, 4713 BC and 5874897.
_DAY_MIN: Final = -2_440_588
_DAY_MAX: Final = 2_145_031_948
_URL_LETTERS: Final = str.maketrans("-_", "+/")
_INTERVAL: Final = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?)S)?)?"
)
_ZONED: Final = re.compile(
    r"([+-]?\d{4,9})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?(?::?\d\d)?)"
)
_USUAL: Final = re.compile(r"[1-9]\d{3}-(?:0\d|1[0-2])-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d(?:\.(?!0+Z)\d{1,6})?Z")
_TIME_ZONED: Final = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)")
_LOCAL: Final = re.compile(r"([+-]?\d{4,9})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?Z?")
_ISO_DATE: Final = re.compile(r"([+-]?\d{4,9})-(\d\d)-(\d\d)Z?")
_ISO_TIME: Final = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?Z?")


def boolean(value: bool) -> str:
    return "t" if value else "f"


def floating(value: float | str) -> str:
    """The shortest text that reads back the same. NaN and infinities come as texts."""
    if isinstance(value, str):
        if value not in ("NaN", "Infinity", "-Infinity"):
            raise ValueError("no number")
        return value
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = repr(float(value))
    if not text.endswith(".0"):
        return text
    if abs(value) < 1e15:
        return text[:-2]
    # From here on databases write an exponent; Python from 1e16 on.
    digits = text[1:-2] if value < 0 else text[:-2]
    mantissa = f"{digits[0]}.{digits[1:]}".rstrip("0").rstrip(".")
    return f"{'-' if value < 0 else ''}{mantissa}e+{len(digits) - 1}"


@cache
def unscaled(scale: int) -> Convert:
    """A decimal with that many digits behind the point, as the bytes of a whole number in base64 (Connect's Decimal);
    as a number or a text where the converter writes those (`decimal.format`)."""

    def convert(value: Any) -> str:
        if not isinstance(value, str):
            return _plain(value)
        return _scaled(int.from_bytes(_bytes(value), "big", signed=True), scale)

    return convert


def variable(value: dict[str, Any]) -> str:
    """Debezium's VariableScaleDecimal: {"scale": 2, "value": "base64"}."""
    return _scaled(int.from_bytes(_bytes(value["value"]), "big", signed=True), int(value["scale"]))


def number_text(value: str | float | Decimal) -> str:
    """A decimal as text; as a number only where no digit can be lost."""
    return value if isinstance(value, str) else _plain(value)


def money(value: Any) -> str:
    """PostgreSQL's money, which Debezium tells as a decimal, as PostgreSQL writes it in the locale C."""
    text = value if isinstance(value, str) and "." in value else unscaled(2)(value)
    whole, _, cents = text.lstrip("-").partition(".")
    return f"{'-' if text.startswith('-') else ''}${int(whole):,}.{cents.ljust(2, '0')}"


def binary(value: str) -> str:
    return "\\x" + _bytes(value).hex()


def binary_url(value: str) -> str:
    """base64 of the letters that URLs take."""
    return "\\x" + _bytes(value.translate(_URL_LETTERS)).hex()


def binary_hex(value: str) -> str:
    return "\\x" + bytes.fromhex(value).hex()


def bit(value: bool) -> str:
    """PostgreSQL's bit(1), which Debezium tells as true or false."""
    return "1" if value else "0"


def vector(values: list[Any]) -> str:
    """A vector of pgvector's."""
    return f"[{','.join(floating(value) for value in values)}]"


def interval(value: str) -> str:
    """Debezium's Interval, P1Y0M3DT4H0M6.5S, without its zeros, as PostgreSQL writes it in the style iso_8601."""
    found = _INTERVAL.fullmatch(value)
    if found is None:
        raise ValueError("no interval")
    years, months, days, hours, minutes, seconds = (
        "" if part is None or not float(part) else f"{part}{unit}"
        for part, unit in zip(found.groups(), "YMDHMS", strict=True)
    )
    time = hours + minutes + seconds
    return f"P{years}{months}{days}{'T' + time if time else ''}" if years + months + days + time else "PT0S"


@cache
def bits_text(count: int) -> Convert:
    """Bits, the least significant byte first (io.debezium.data.Bits), as PostgreSQL writes bit strings."""

    def convert(value: str) -> str:
        number = int.from_bytes(_bytes(value), "little")
        if number >> count:
            raise ValueError("more bits than the column has")
        return format(number, f"0{count}b") if count else ""

    return convert


@cache
def bits_binary(count: int) -> Convert:
    """The same as bytes, the most significant one first, as MySQL stores them."""

    def convert(value: str) -> str:
        return "\\x" + int.from_bytes(_bytes(value), "little").to_bytes((count + 7) // 8, "big").hex()

    return convert


def geometry(value: dict[str, Any]) -> str:
    """A geometry as MySQL stores it: four bytes that say which reference system, then well-known binary."""
    return "\\x" + (int(value.get("srid") or 0).to_bytes(4, "little") + _bytes(value["wkb"])).hex()


def geometry_hex(value: dict[str, Any]) -> str:
    """A geometry as PostGIS writes it."""
    return _bytes(value["wkb"]).hex().upper()


def point(value: dict[str, Any]) -> str:
    """PostgreSQL's own point."""
    return f"({floating(value['x'])},{floating(value['y'])})"


def date(days: int) -> str:
    """Days since 1970."""
    if not _DAY_MIN <= days <= _DAY_MAX:
        # Debezium tells PostgreSQL's infinity as some number of days before all dates, another one in a snapshot than
        # in the log, and the same for its opposite.
        raise ValueError("no date")
    text, is_before = _day(days)
    return text + (" BC" if is_before else "")


@cache
def time_of(unit: int) -> Convert:
    """A time of day, or a span of less than a thousand hours (MySQL): a number of which `unit` make a second."""

    def convert(value: int) -> str:
        return _clock(_microseconds(value, unit))

    return convert


@cache
def timestamp_of(unit: int) -> Convert:
    """Date and time without a zone: a number since 1970 of which `unit` make a second."""

    def convert(value: int) -> str:
        return _infinite(value, unit) or _moment(_microseconds(value, unit), "")

    return convert


@cache
def instant_of(unit: int) -> Convert:
    def convert(value: int) -> str:
        return _infinite(value, unit) or _moment(_microseconds(value, unit), "+00")

    return convert


def zoned(value: str) -> str:
    """Debezium's ZonedTimestamp: ISO 8601 with an offset, `infinity` as it is."""
    if _USUAL.fullmatch(value):
        # In UTC already, and in the years that everybody spells alike.
        text = f"{value[:10]} {value[11:-1]}"
        return f"{text.rstrip('0') if len(text) > 19 else text}+00"
    return _from_iso(_ZONED, value, "+00")


def local(value: str) -> str:
    """Debezium's IsoTimestamp."""
    return _from_iso(_LOCAL, value, "")


def iso_date(value: str) -> str:
    found = _ISO_DATE.fullmatch(value)
    if found is None:
        return _known_infinity(value)
    return date(_days(int(found[1]), int(found[2]), int(found[3])))


def iso_time(value: str) -> str:
    found = _ISO_TIME.fullmatch(value)
    if found is None:
        raise ValueError("no time of day")
    return _clock(_of_day(found[1], found[2], found[3], found[4]))


def zoned_time(value: str) -> str:
    """PostgreSQL's timetz, which Debezium tells in UTC."""
    found = _TIME_ZONED.fullmatch(value)
    if found is None:
        raise ValueError("no time of day with a zone")
    offset = "+00" if found[5] == "Z" else found[5]
    return _clock(_of_day(found[1], found[2], found[3], found[4])) + offset.removesuffix(":00")


@cache
def array(convert: Convert | None, null: str = "NULL") -> Convert:
    """PostgreSQL's spelling of an array of one dimension."""

    def element(value: Any) -> str:
        if value is None:
            return null
        text = convert(value) if convert is not None else str(value)
        if text and text.upper() != "NULL" and not _AWKWARD.search(text):
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def spell(values: list[Any]) -> str:
        return "{" + ",".join(map(element, values)) + "}"

    return spell


_AWKWARD: Final = re.compile(r'[\s{}",\\]')


def _plain(value: float | Decimal) -> str:
    if isinstance(value, float):
        raise ValueError("a decimal came as a floating point number")
    return format(Decimal(value), "f")


def _scaled(number: int, scale: int) -> str:
    if scale <= 0:
        return str(number * 10**-scale)
    digits = str(abs(number)).rjust(scale + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def _bytes(value: str) -> bytes:
    return a2b_base64(value, strict_mode=True)


def _microseconds(value: int, unit: int) -> int:
    """Raises ValueError where a digit would be lost: no database of ours keeps nanoseconds."""
    if unit <= 1_000_000:
        return value * (1_000_000 // unit)
    whole, rest = divmod(value, unit // 1_000_000)
    if rest:
        raise ValueError("more digits of a second than six")
    return whole


def _infinite(value: int, unit: int = 1_000_000) -> str:
    if unit > 1_000_000:
        # There the driver's number has run over, and what looks like it is a moment of the year 2262.
        return ""
    if value >= _INFINITY:
        return "infinity"
    return "-infinity" if value <= _MINUS_INFINITY else ""


def _known_infinity(value: str) -> str:
    if value in ("infinity", "-infinity"):
        return value
    raise ValueError("no date")


def _from_iso(form: re.Pattern[str], value: str, zone: str) -> str:
    found = form.fullmatch(value)
    if found is None:
        return _known_infinity(value)
    year = int(found[1])
    if not _YEAR_MIN <= year <= _YEAR_MAX:
        return "infinity" if year > 0 else "-infinity"
    days = _days(year, int(found[2]), int(found[3]))
    moment = days * _DAY + _of_day(found[4], found[5], found[6], found[7])
    if zone and found[8] != "Z":
        moment -= _offset(found[8])
    return _infinite(moment) or _moment(moment, zone)


def _offset(text: str) -> int:
    parts = re.findall(r"\d\d", text)
    seconds = sum(int(part) * factor for part, factor in zip(parts, (3600, 60, 1), strict=False))
    return (-seconds if text[0] == "-" else seconds) * 1_000_000


def _of_day(hour: str, minute: str, second: str | None, fraction: str | None) -> int:
    digits = (fraction or "").ljust(9, "0")
    if digits[6:] != "000":
        raise ValueError("more digits of a second than six")
    if int(minute) > 59 or int(second or 0) > 60:
        raise ValueError("no time of day")
    return ((int(hour) * 60 + int(minute)) * 60 + int(second or 0)) * 1_000_000 + int(digits[:6])


def _clock(microseconds: int) -> str:
    sign = "-" if microseconds < 0 else ""
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{sign}{hours:02}:{minute:02}:{second:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _moment(microseconds: int, zone: str) -> str:
    days, rest = divmod(microseconds, _DAY)
    text, is_before = _day(days)
    return f"{text} {_clock(rest)}{zone}{' BC' if is_before else ''}"


@lru_cache(maxsize=20_000)
def _day(days: int) -> tuple[str, bool]:
    """Year, month and day of days since 1970 in the calendar that databases count in, Gregorian for ever.

    The arithmetic is that of https://howardhinnant.github.io/date_algorithms.html, "civil_from_days": eras of 400 years
    that begin in March. True: before Christ.
    """
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year = year_of_era + era * 400 + (month <= 2)
    is_before = year <= 0
    return f"{1 - year if is_before else year:04}-{month:02}-{day:02}", is_before


def _days(year: int, month: int, day: int) -> int:
    """The inverse of `_day`, of an astronomical year (0 is 1 BC)."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise ValueError("no date")
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + of_year - 719_468
