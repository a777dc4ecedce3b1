"""How the systems are: lanes, what they have read and written, tables that are read again."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from engine.errors import TableHeld
from engine.hub.transaction import HubTransaction
from engine.pipeline.topology import SystemPart, Topology
from engine.views.names import system_names


class StatusRow(msgspec.Struct, kw_only=True):
    """One system. Times in microseconds since 1970 UTC; `behind` counts journal entries not delivered yet."""

    system: str
    reads: str
    writes: str
    position: str
    captured_at: int
    delivered_at: int
    behind: int
    seen: int
    rows_read: int
    rows_echoed: int
    rows_filtered: int
    rows_parked: int
    rows_written: int
    read_rate: float
    write_rate: float
    parked: int
    conflicts: int
    reviews: int
    errors: list[str]
    held: list[str]
    copied: str = ""
    retained_bytes: int | None = None
    lag_bytes: int | None = None


@dataclass(slots=True)
class BackfillRow:
    """A table that is or was read again. `state`: running, paused, failed, stopped, done. `rows_total`: as counted when
    it was ordered. `rate`: rows a second; `seconds_left`: at that rate, None where nobody can tell. Times:
    microseconds since 1970 UTC."""

    id: int
    system: str
    table: str
    condition: str
    rows_per_s: int | None
    state: str
    rows_read: int
    rows_total: int | None
    rate: float
    seconds_left: float | None
    message: str
    created_at: int
    changed_at: int


def backfills(tx: HubTransaction, limit: int = 50, *, only_open: bool = False) -> list[BackfillRow]:
    """The newest first. `limit` 0: all. `only_open`: that are neither done nor given up."""
    names = system_names(tx)
    which = " where state not in ('done', 'stopped')" if only_open else ""
    rows = tx.rows(
        "select id, system, name, condition, rows_per_s, state, rows_read, rows_total, rate, message, created_at,"
        f" changed_at from backfill{which} order by id desc limit ?",
        (limit or -1,),
    )
    found: list[BackfillRow] = []
    for number, system, name, condition, pace, state, read, total, rate, message, created_at, changed_at in rows:
        left = None
        if state == "running" and total is not None and rate > 0:
            left = max(0, total - read) / rate
        found.append(
            BackfillRow(
                number, names[system], name, condition, pace, state, read, total, rate, left, message, created_at,
                changed_at,
            )
        )  # fmt: skip
    return found


def rows_set_aside(tx: HubTransaction, part: SystemPart) -> dict[str, int]:
    """How many rows of each table wait because the mapping did not fit the table."""
    tables = {place.id: place.place.table for place in part.places}
    found: dict[str, int] = {}
    for place, count in tx.rows(
        "select place, count(*) from parked where system = ? and direction = 'source' and code = ? group by place",
        (part.id, TableHeld.code),
    ):
        if place in tables:
            found[tables[place]] = found.get(tables[place], 0) + count
    return found


def count_backfills(tx: HubTransaction) -> int:
    return tx.rows("select count(*) from backfill")[0][0]


def status(tx: HubTransaction, topology: Topology) -> list[StatusRow]:
    """Every configured system."""
    found: list[StatusRow] = []
    last = tx.last_seq
    for part in topology.systems.values():
        row = tx.system(
            part.id,
            "position, captured_at, delivered_at, cursor, seen, rows_read, rows_echoed, rows_filtered, rows_parked,"
            " rows_written, source_state, source_error, target_state, target_error, read_rate, write_rate",
        )
        position = tx.position(part.id)
        places = {place.id for place in part.places}
        copied = {place for (place,) in tx.rows("select place from snapshot where is_done")} & places
        found.append(
            StatusRow(
                system=part.name,
                reads=row[10] if part.is_source else "-",
                writes=row[12] if part.is_target else "-",
                position="-" if position is None else "/".join(str(n) for n in position.order),
                captured_at=row[1],
                delivered_at=row[2],
                behind=last - row[3] if part.is_target else 0,
                seen=row[4],
                rows_read=row[5],
                rows_echoed=row[6],
                rows_filtered=row[7],
                rows_parked=row[8],
                rows_written=row[9],
                read_rate=row[14],
                write_rate=row[15],
                parked=_count(tx, "parked where system = ?", part.id),
                conflicts=_count(tx, "conflict where loser = ?", part.id),
                reviews=_count(tx, "review where decided_at is null and system = ?", part.id),
                errors=[text for text in (row[11], row[13]) if text],
                held=[f"{text}\n{hint}" for text, hint in tx.rows(
                    "select message, hint from held where system = ? order by name", (part.id,))]
                + [f"system {part.name}, table {table}: its mapping does not fit, rows that wait: {count:,}\n"
                   f"`concord schema list {part.name}` says what has changed."
                   for table, count in sorted(rows_set_aside(tx, part).items())],
                copied=f"{len(copied)}/{len(places)}" if part.is_source else "-",
            )
        )  # fmt: skip
    return found


def _count(tx: HubTransaction, where: str, system: int) -> int:
    return tx.rows(f"select count(*) from {where}", (system,))[0][0]
