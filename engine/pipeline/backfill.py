"""Reading a system's tables again beside its log: what its log did not tell, because it was lost or a table was not
captured for a while, is found by looking.

The copy is the same as the first one: rows that are known and unchanged change nothing, others are changes made at the
time of the look. Rows that were deleted meanwhile are not found so; `concord compare` shows their records as missing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from engine.errors import PositionLost
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.position import Position
from engine.pipeline.topology import SystemPart
from engine.ports import Feed, Source


def order_backfill(tx: HubTransaction, part: SystemPart) -> None:
    """All tables of the system count as not copied; its source's lane copies them when it starts next."""
    for place in part.places:
        tx.write("delete from snapshot where place = ?", (place.id,))
    tx.write("delete from held where system = ?", (part.id,))


@asynccontextmanager
async def open_feed(
    hub: SqliteHub, part: SystemPart, source: Source, position: Position | None, verify: frozenset[str]
) -> AsyncGenerator[Feed]:
    """The feed behind `position`; where the log has lost that, and every table is to be copied anyway, from wherever
    set-up has put a new beginning. Otherwise raises `PositionLost`."""
    tables: Sequence[str] = part.tables
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
