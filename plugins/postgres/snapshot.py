"""Pages of a table in key order, spelt as the walsender spells values.

The same session settings and the types' own output functions (no casts: `true::text` is not what a boolean's output
function writes) make a page's values equal to the log's, letter by letter. A page beside a running feed also says
between which two places of the log its snapshot lies.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncRawCursor
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from engine.errors import SourceUnready, no_table
from engine.model.change import Page
from engine.model.table import Shape
from engine.model.value import WireRow
from plugins.postgres.catalog import Connection, Table, load_catalog, quoted, quoted_table
from plugins.postgres.position import parse_lsn


class _AsText:
    """An adaptation context that loads every type as the text it came in."""

    def __init__(self) -> None:
        self.adapters = AdaptersMap()
        # 0 stands for any type that has no loader of its own, and none has.
        self.adapters.register_loader(0, TextLoader)
        self.connection = None


class Snapshot:
    """A repeatable-read transaction. `log_end`: every commit that it sees stands in the log before this LSN."""

    def __init__(self, connection: Connection, system: str, text: str, log_end: int) -> None:
        self._connection = connection
        self._system = system
        _, xmax, running = text.split(":")
        self._xmax = int(xmax)
        self._running = frozenset(int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid)
        self.log_end = log_end

    def unseen(self, xids: bytes | bytearray) -> bytes:
        """Those of the transactions that the snapshot does not see: still running for others, or later than it.

        4 bytes each, big-endian. A commit record can be read before the transaction has ended for other sessions.
        """
        found = array("I", bytes(xids))
        if sys.byteorder == "little":
            found.byteswap()
        xmax, running = self._xmax, self._running
        # 32 bits turn over; of two ids less than half a turn apart it is known which one is later.
        kept = array("I", [xid for xid in found if xid in running or (xid - xmax) & 0xFFFFFFFF < 0x80000000])
        if sys.byteorder == "little":
            kept.byteswap()
        return kept.tobytes()

    async def page(
        self, table: str, after: tuple[str, ...] | None, rows_max: int, generated: frozenset[str], condition: str = ""
    ) -> Page:
        """Rows of `table` behind `after` for which `condition` holds, with generated columns of the kinds named."""
        catalog = await load_catalog(self._connection, [table])
        found, shape = catalog.tables.get(table), catalog.shape(table, generated=generated)
        if found is None or shape is None:
            raise no_table(self._system, table)
        if not shape.key:
            raise SourceUnready(
                f"system {self._system}, table {table}: it has no primary key, so its rows cannot be read in order",
                hint="Give it a primary key, or a unique index as replica identity.",
                system=self._system,
                table=table,
            )
        if after is not None and len(after) != len(shape.key):
            raise SourceUnready(
                f"system {self._system}, table {table}: the key has {len(shape.key)} columns, not {len(after)}",
                hint=f"Run `concord backfill {self._system}`, which reads the table from its beginning.",
                system=self._system,
                table=table,
            )
        cursor = AsyncRawCursor(self._connection)
        await cursor.execute(_select(found, shape, after, rows_max, condition).encode(), list(after or ()))
        rows = _rows(cursor)
        moment = await (await self._connection.execute(_NOW)).fetchone()
        assert moment is not None, "a select without from gives one row"
        places = [index for name in shape.key if (index := shape.index(name)) is not None]
        last = tuple(str(rows[-1][place]) for place in places) if len(rows) == rows_max else None
        return Page(shape=shape, rows=rows, last_key=last, read_at=moment[0])

    async def delivery(self) -> tuple[str, int] | None:
        """Hub id and seq of our marker; None without one."""
        if await (await self._connection.execute(_MAY_READ_MARKER)).fetchone() is None:
            return None
        row = await (
            await self._connection.execute("select hub::text, seq from concord.marker where id = 1")
        ).fetchone()
        return None if row is None or row[0] is None else (row[0], row[1])


@asynccontextmanager
async def snapshot(connection: Connection, system: str) -> AsyncGenerator[Snapshot]:
    """A snapshot of now, read-only, on an autocommit connection."""
    await connection.execute("begin isolation level repeatable read read only")
    try:
        # One statement: its snapshot is taken before any of its functions runs.
        row = await (await connection.execute(_SNAPSHOT)).fetchone()
        assert row is not None, "a select without from gives one row"
        yield Snapshot(connection, system, row[0], parse_lsn(row[1]))
    finally:
        # Nothing was written. After an error or a cancellation the connection is closed by its owner anyway.
        if connection.info.transaction_status is TransactionStatus.INTRANS:
            await connection.execute("commit")


def _rows(cursor: AsyncRawCursor[Any]) -> list[WireRow]:
    result = cursor.pgresult
    assert result is not None, "a select has a result"
    transformer = Transformer(_AsText())
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def _select(table: Table, shape: Shape, after: tuple[str, ...] | None, rows_max: int, condition: str) -> str:
    types = {attribute.name: attribute.type for attribute in table.attributes}
    keys = ", ".join(quoted(name) for name in shape.key)
    wanted = [f"({condition})"] if condition else []
    if after is not None:
        # One row comparison, which an index on the key serves; a chain of "or" would not be.
        values = ", ".join(f"${n}::{types[name]}" for n, name in enumerate(shape.key, 1))
        wanted.append(f"({keys}) > ({values})")
    columns = ", ".join(quoted(column.name) for column in shape.columns)
    where = f" where {' and '.join(wanted)}" if wanted else ""
    return f"select {columns} from {quoted_table(table.schema, table.table)}{where} order by {keys} limit {rows_max}"


_SNAPSHOT: Final = "select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text"
# A user who may only read the mapped tables is never a target's, and a failing statement would end the snapshot.
_MAY_READ_MARKER: Final = """
select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'concord' and c.relname = 'marker' and has_schema_privilege(n.oid, 'usage')
  and has_table_privilege(c.oid, 'select')
"""
_NOW: Final = "select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint"
