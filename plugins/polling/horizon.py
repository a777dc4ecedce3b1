"""How far back a look at an updated-at column must go, so that a row committed late is not missed.

A row's updated-at is set when its statement or transaction runs, and the row is seen when that commits; a row with a
later one may have been seen before. A transaction that the last look did not see was open then, or began later. So if
the oldest one that was open at the last look began behind the snapshot of an earlier look j, nothing that was not seen
yet has an updated-at before the greatest one that look j saw; with a clock that does not go back, whatever zone or unit
the column has. Rows between the two are read at each look, and known by their hash.

| database | how the oldest open transaction is known |
|---|---|
| PostgreSQL | `pg_stat_activity`, with pg_read_all_stats; `pg_prepared_xacts` |
| MariaDB, MySQL | `information_schema.innodb_trx`, with the privilege PROCESS |
| SQLite | need not be: there is one writer at a time, and commits come in the order of their transactions |
| others, or without the privilege | not: `overlap` goes back so many seconds, and the next sweep finds the rest |
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from engine.model.table import Column, Kind
from plugins.polling.connect import Connection

HISTORY_MAX = 2_000
NOT_ALLOWED = (1227, 1142)
"""What MySQL says where a privilege is missing."""
Seen = tuple[float, Any, float | None]
"""One look: when its snapshot was there already, by the database's clock; the greatest updated-at in it; when the
oldest transaction began that was open just before, None where nobody knows."""


def read_clock(connection: Connection, ours: float) -> float:
    """The database's clock, seconds since 1970; ours where it does not tell."""
    clock = connection.habits.clock
    return ours if clock is None else float(connection.rows(clock)[0][0])


def read_oldest(connection: Connection, ours: float) -> float | None:
    """When the oldest open transaction began, by the database's clock. Asked before a snapshot is taken: what ends in
    between is seen by it, and what begins in between is younger."""
    now = read_clock(connection, ours)
    if connection.habits.oldest is None:
        return None
    try:
        age = connection.rows(connection.habits.oldest)[0][0]
    except connection.failures as error:
        if error.args and error.args[0] in NOT_ALLOWED:
            return None
        raise
    return None if age is None else now - float(age)


def lower_bound(history: list[Seen], column: Column, overlap: float) -> Any:
    """The updated-at from which to read; None: from the beginning. Drops from `history` what no later look can need."""
    if not history:
        return None
    oldest = history[-1][2]
    if oldest is None:
        del history[:-1]
        return _back(history[-1][1], column, overlap)
    before = [n for n, (at, _, _) in enumerate(history) if at <= oldest]
    if before:
        del history[: before[-1]]
        return _back(history[0][1], column, overlap)
    # Older than all that is remembered: as much further back as it is older.
    del history[: max(0, len(history) - HISTORY_MAX)]
    at, greatest, _ = history[0]
    return _back(greatest, column, overlap + (0.0 if column.kind is Kind.INTEGER else at - oldest))


def _back(bound: Any, column: Column, overlap: float) -> Any:
    """`overlap` before a value: seconds of a time, units of a number; other values have nothing before them."""
    if bound is None or not overlap:
        return bound
    if isinstance(bound, (int, float)):
        return bound - type(bound)(overlap)
    if column.kind is Kind.INTEGER:
        return str(int(bound) - int(overlap))
    moment = moment_of(bound)
    if moment is None:
        return bound
    text = (moment - timedelta(seconds=overlap)).isoformat(sep="T" if "T" in bound[:11] else " ")
    return text.replace("+00:00", "Z" if bound.endswith("Z") else "+00")


def moment_of(value: Any) -> datetime | None:
    """A time from its text; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def instant_micros(value: Any) -> int | None:
    """An instant as microseconds since 1970; None where it has no zone or is none."""
    moment = moment_of(value)
    if moment is None or moment.tzinfo is None:
        return None
    return int(moment.astimezone(UTC).timestamp() * 1_000_000)
