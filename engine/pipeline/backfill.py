"""Reading tables again beside their log: what the log did not tell, because it was lost or a table was not captured for
a while, is found by looking.

The copy is the same as the first one: rows that are known and unchanged change nothing, others are changes made at the
time of the look, those of a `Backfill` at the time when it was asked for. Rows that were deleted meanwhile are not
found so; `concord compare` shows their records as missing.

A system whose log is lost, and a table that is held, begin anew as if they had never been copied. Else it is a
`Backfill`: of one table, or of some of its rows, as slow as wanted, paused and gone on with, while all else goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import msgspec

from engine.errors import PositionLost
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.position import Position
from engine.pipeline.canonicalize import BackfillPage
from engine.pipeline.joined import forget_copies
from engine.pipeline.topology import SystemPart
from engine.ports import Feed, Source


@dataclass(frozen=True, slots=True)
class Backfill:
    """One that runs. `after`: the key of the last row that was read; `rows_per_s`: None as fast as it goes.
    `ordered_at`: microseconds since 1970 UTC; what it finds counts as changed then, so that what the logs of other
    systems tell of the time since is newer."""

    id: int
    table: str
    condition: str
    rows_per_s: int | None
    ordered_at: int
    after: tuple[str, ...] | None

    def behind(self, key: tuple[str, ...]) -> Backfill:
        return replace(self, after=key)


def copy_anew(tx: HubTransaction, part: SystemPart, tables: Sequence[str]) -> None:
    """These tables of the system count as not copied; its source's lane copies them when it starts next."""
    for place in part.places:
        if place.place.table in tables:
            tx.write("delete from snapshot where place = ?", (place.id,))
    forget_copies(tx, part, {base for table in tables for base in part.joins.together(table)})
    for table in tables:
        tx.write("delete from held where system = ? and name = ?", (part.id, table))


def order_backfill(
    tx: HubTransaction,
    part: SystemPart,
    table: str,
    *,
    condition: str = "",
    rows_per_s: int | None = None,
    rows_total: int | None = None,
) -> int:
    """Put a backfill behind those that the system has; returns its number."""
    now = tx.clock.now()
    tx.write(
        "insert into backfill (system, name, condition, rows_per_s, rows_total, created_at, changed_at)"
        " values (?, ?, ?, ?, ?, ?, ?)",
        (part.id, table, condition, rows_per_s, rows_total, now, now),
    )
    return tx.rows("select max(id) from backfill")[0][0]


def backfills(tx: HubTransaction, part: SystemPart) -> list[Backfill]:
    """Those of the system that run, in their order. One of a table that is mapped no more waits until it is again."""
    rows = tx.rows(
        "select id, name, condition, rows_per_s, created_at, last_key from backfill"
        " where system = ? and state = 'running' order by id",
        (part.id,),
    )
    return [
        Backfill(n, table, condition, pace, at, msgspec.msgpack.decode(key, type=tuple[str, ...]) if key else None)
        for n, table, condition, pace, at, key in rows
        if table in part.logged
    ]


def note_page(tx: HubTransaction, page: BackfillPage) -> None:
    """A page of it is in the hub."""
    tx.write(
        "update backfill set last_key = ?1, rows_read = rows_read + ?2, rate = ?3, changed_at = ?4,"
        " state = case when ?1 is null then 'done' else state end where id = ?5",
        (page.last_key, page.rows, page.rate, tx.clock.now(), page.number),
    )


def fail_backfill(tx: HubTransaction, number: int, message: str) -> None:
    """It cannot be read: it stands until it is resumed."""
    tx.write(
        "update backfill set state = 'failed', message = ?, changed_at = ? where id = ?",
        (message, tx.clock.now(), number),
    )


@asynccontextmanager
async def open_feed(
    hub: SqliteHub, part: SystemPart, source: Source, position: Position | None, verify: frozenset[str]
) -> AsyncGenerator[Feed]:
    """The feed behind `position`; where the log has lost that, and every table is to be copied anyway, from wherever
    set-up has put a new beginning. Otherwise raises `PositionLost`."""
    tables: Sequence[str] = part.logged
    async with AsyncExitStack() as stack:
        try:
            feed = await stack.enter_async_context(source.feed(position, tables, verify))
        except PositionLost:
            if position is None or not await hub.read(lambda tx: _is_ordered(tx, part)):
                raise
            feed = await stack.enter_async_context(source.feed(None, tables, verify))
        yield feed


def _is_ordered(tx: HubTransaction, part: SystemPart) -> bool:
    places = {place.id for place in part.places}
    return places.isdisjoint(place for (place,) in tx.rows("select place from snapshot"))
