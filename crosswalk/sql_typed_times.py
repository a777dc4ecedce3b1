"""PostgreSQL's functions on dates and timestamps, as `sql_typed_functions`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from crosswalk.sql_typed_functions import numeric


def to_zone(zone: ZoneInfo) -> Callable[[datetime], datetime]:
    """timestamptz at time zone: local time there."""
    return lambda moment: moment.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, fold=0)


def from_zone(zone: ZoneInfo) -> Callable[[datetime], datetime]:
    """timestamp at time zone: where local time is double or missing, standard time is meant."""

    def utc(local: datetime) -> datetime:
        first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
        standard = first if first.dst() == timedelta(0) else second
        chosen = first if first.utcoffset() == second.utcoffset() else standard
        offset = chosen.utcoffset()
        assert offset is not None
        return local - offset

    return utc


def _seconds(moment: datetime) -> Decimal:
    return Decimal(moment.second * 1_000_000 + moment.microsecond).scaleb(-6)


def _epoch(moment: datetime | date) -> Decimal:
    if not isinstance(moment, datetime):
        return Decimal((moment - date(1970, 1, 1)).days * 86400)
    return Decimal((moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)).scaleb(-6)


DATE_PARTS: Final[dict[str, Callable[[Any], int | Decimal]]] = {
    "year": lambda day: day.year,
    "month": lambda day: day.month,
    "day": lambda day: day.day,
    "quarter": lambda day: (day.month + 2) // 3,
    "dow": lambda day: day.isoweekday() % 7,
    "isodow": lambda day: day.isoweekday(),
    "doy": lambda day: day.timetuple().tm_yday,
    "week": lambda day: day.isocalendar()[1],
    "isoyear": lambda day: day.isocalendar()[0],
    "epoch": _epoch,
}
TIME_PARTS: Final[dict[str, Callable[[Any], int | Decimal]]] = {
    "hour": lambda moment: moment.hour,
    "minute": lambda moment: moment.minute,
    "second": _seconds,
}


def date_part(part: Callable[[Any], int | Decimal]) -> Callable[[Any], Decimal]:
    """extract gives numeric (9.9.1)."""
    return lambda moment: numeric(part(moment))


TRUNCATIONS: Final[dict[str, Callable[[datetime], datetime]]] = {
    "second": lambda moment: moment.replace(microsecond=0),
    "minute": lambda moment: moment.replace(second=0, microsecond=0),
    "hour": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "day": lambda moment: datetime(moment.year, moment.month, moment.day),
    "week": lambda moment: datetime(moment.year, moment.month, moment.day) - timedelta(days=moment.weekday()),
    "month": lambda moment: datetime(moment.year, moment.month, 1),
    "quarter": lambda moment: datetime(moment.year, (moment.month + 2) // 3 * 3 - 2, 1),
    "year": lambda moment: datetime(moment.year, 1, 1),
}


def add_days(day: date, days: int) -> date:
    return day + timedelta(days=days)


def subtract_days(day: date, days: int) -> date:
    return day - timedelta(days=days)


def days_between(left: date, right: date) -> int:
    return (left - right).days
