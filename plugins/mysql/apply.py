"""The target: deliveries as transactions at `read committed`, marker first, each write behind a savepoint.

The lock on the marker's row keeps two daemons apart; a session's own locks (get_lock) would outlive nothing and survive
no failover, and are not used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import pymysql

from engine.errors import ConcordError, Fenced, RowRefused, TargetBusy, TargetUnready
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.plugin import Site
from engine.ports import Assigned, Role, TableWrite, WriteResult
from plugins.mysql.apply_table import TargetTable, load_table
from plugins.mysql.apply_write import SAVEPOINT, Writing
from plugins.mysql.catalog import IDENTITY, MARKER, OUR_TABLES, quoted_table, read_shapes
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import CLOSE_SECONDS_MAX, Connection, Session, session
from plugins.mysql.errors import number, row_refused, translate
from plugins.mysql.snapshot import read_values
from plugins.mysql.values import key_condition, selected

_NO_SAVEPOINT: Final = 1305
# Statements that are sent in one go; larger ones gain nothing and hold more memory on both sides.
SCRIPT_SIZE_MAX: Final = 1 << 20
UNIT: Final = "concord_unit"
# Rows that are looked for by one statement.
LINKS_MAX: Final = 500
Result = TypeVar("Result")


class MysqlTarget:
    """`engine.ports.Target` of one database."""

    def __init__(self, site: Site, config: MysqlConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[MysqlTargetSession]:
        # Below `repeatable read` no gaps are locked, and writers of neighbouring rows do not wait for each other.
        async with session(self.site, self.config, role=Role.TARGET, isolation="read committed") as opened:
            size = await opened.run(lambda connection: _look(connection, self.config.database))
            yield MysqlTargetSession(opened, self.config.database, size)


def _look(connection: Connection, database: str) -> int:
    """Whether set-up was done, and the greatest size of what is sent in one go."""
    there = read_shapes(connection, database, OUR_TABLES)
    if len(there) < len(OUR_TABLES):
        raise TargetUnready(
            f"system {connection.system}: Concord's own tables are not there",
            hint=f"Run `concord setup {connection.system}`.",
            system=connection.system,
        )
    ((size,),) = connection.rows("select @@max_allowed_packet")
    return int(size)


class MysqlTargetSession:
    """`engine.ports.TargetSession` over one connection."""

    def __init__(self, opened: Session, database: str, packet_size_max: int) -> None:
        self.database = database
        self.packet_size_max = packet_size_max
        self._session = opened
        self._system = opened.system
        self._marker = quoted_table(MARKER, database)
        self._hub = ""
        self._epoch = 0

    async def claim(self, hub_id: str, epoch: int) -> int:
        def work(connection: Connection) -> int:
            rows = connection.rows(f"select hub_id, epoch, seq from {self._marker} where id = 1 for update")
            if not rows:
                raise self._unmarked()
            hub, known, seq = rows[0]
            if hub is not None and hub != hub_id:
                raise TargetUnready(
                    f"system {self._system} belongs to another hub",
                    hint="Point [hub] path at that hub, or restore it from a backup; to give the system to this hub for"
                    f" good, run `concord teardown {self._system}` and `concord setup {self._system}`.",
                    system=self._system,
                    hub=hub,
                )
            if int(known) > epoch:
                raise self._fenced()
            mine = f"hub_id = {connection.literal(hub_id)}, epoch = {epoch:d}"
            connection.execute(f"update {self._marker} set {mine}, writes = writes + 1 where id = 1")
            return int(seq)

        def claim(connection: Connection) -> int:
            connection.execute("start transaction")
            try:
                seq = work(connection)
                connection.execute("commit")
            except BaseException:
                _roll_back(connection)
                raise
            return seq

        self._hub, self._epoch = hub_id, epoch
        return await self._session.run(claim)

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[MysqlDelivery]:
        await self._session.run(lambda connection: self._begin(connection, seq))
        delivery = MysqlDelivery(self, self._session, seq)
        try:
            yield delivery
            if delivery.is_broken:
                raise _gone(self._system)
        except BaseException:
            if not self._session.is_cut:
                # Shielded: rows stay locked as long as the transaction does.
                with anyio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
                    await self._session.run(_roll_back)
            raise
        await self._session.run(self._commit)

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        identity = quoted_table(IDENTITY, self.database)

        def work(connection: Connection) -> tuple[Assigned, ...]:
            rows = connection.rows(f"select rid, place, `key`, seq from {identity} where seq > {seq_after:d}")
            return tuple(Assigned(rid=int(rid), place=place, key=key, seq=int(seq)) for rid, place, key, seq in rows)

        return await self._session.run(work)

    def _begin(self, connection: Connection, seq: int) -> None:
        """Begin and write the marker. `writes` makes it another row each time: what stays as it is, is not logged."""
        mark = (
            f"update {self._marker} set epoch = {self._epoch:d}, seq = {seq:d}, writes = writes + 1"
            f" where id = 1 and hub_id = {connection.literal(self._hub)} and epoch <= {self._epoch:d}"
        )
        try:
            results = list(connection.script(("start transaction", mark, "savepoint concord_delivery")))
            if results[1].count != 1:
                raise self._not_ours(connection)
        except BaseException:
            _roll_back(connection)
            raise

    def _commit(self, connection: Connection) -> None:
        """Commit the transaction that was begun, and no other: after some errors the server has rolled it back by
        itself, and what followed would be committed without a marker."""
        try:
            for _ in connection.script(("release savepoint concord_delivery", "commit")):
                pass
        except pymysql.Error as error:
            _roll_back(connection)
            if number(error) == _NO_SAVEPOINT:
                raise _gone(self._system) from error
            raise

    def _not_ours(self, connection: Connection) -> ConcordError:
        rows = connection.rows(f"select hub_id, epoch from {self._marker} where id = 1")
        if not rows or rows[0][0] != self._hub:
            return self._unmarked()
        return self._fenced()

    def _fenced(self) -> Fenced:
        return Fenced(
            f"system {self._system}: another daemon with a later epoch writes to it",
            hint="Stop one of the two daemons; only the later one may go on.",
            system=self._system,
        )

    def _unmarked(self) -> TargetUnready:
        return TargetUnready(
            f"system {self._system}: the marker's row is gone, or is another hub's",
            hint=f"Run `concord teardown {self._system}`, then `concord setup {self._system}`.",
            system=self._system,
        )


class MysqlDelivery:
    """`engine.ports.Delivery`: one open transaction. `is_broken`: after an error that is no refusal it is written to no
    more, and not committed."""

    def __init__(self, target: MysqlTargetSession, opened: Session, seq: int) -> None:
        self.is_broken = False
        self._target = target
        self._session = opened
        self._seq = seq
        self._tables: dict[str, TargetTable] = {}

    async def linked(
        self, shape: Shape, wanted: frozenset[str], columns: Sequence[str], values: Sequence[tuple[Wire, ...]]
    ) -> list[WireRow]:
        """As the port says."""
        assert not self.is_broken, "a delivery that failed is asked no more"
        return await self._run(lambda connection: self._linked(connection, shape, wanted, columns, values), shape.name)

    def _linked(
        self,
        connection: Connection,
        shape: Shape,
        wanted: frozenset[str],
        columns: Sequence[str],
        values: Sequence[tuple[Wire, ...]],
    ) -> list[WireRow]:
        table = self._table(connection, shape.name)
        own = [table.shape.column(name) for name in columns]
        missing = [name for name, column in zip(columns, own, strict=True) if column is None]
        if missing:
            system = self._session.system
            raise row_refused("table", "the column does not exist", system=system, table=shape.name, column=missing[0])
        spellers = [key_condition(connection, column) for column in own if column is not None]
        read = [column for column in table.shape.columns if column.name in wanted]
        places = {column.name: n for n, column in enumerate(read)}
        found: list[WireRow] = []
        for start in range(0, len(values), LINKS_MAX):
            ways = [
                " and ".join(spell(str(value)) for spell, value in zip(spellers, row, strict=True))
                for row in values[start : start + LINKS_MAX]
            ]
            sql = (
                f"select {', '.join(selected(column) for column in read)} from {table.name}"
                f" where {' or '.join(f'({way})' for way in ways)} for update"
            )
            for row in read_values(connection.rows(sql), read):
                found.append(tuple(row[places[c.name]] if c.name in places else ABSENT for c in shape.columns))
        return found

    @asynccontextmanager
    async def unit(self) -> AsyncGenerator[None]:
        """As the port says. Going back to a savepoint ends those that were set behind it."""
        await self._run(lambda connection: connection.execute(f"savepoint {UNIT}"), "")
        try:
            yield
        except RowRefused:
            await self._run(lambda connection: self._undo(connection, UNIT), "")
            raise

    async def _run(self, work: Callable[[Connection], Result], table: str) -> Result:
        try:
            return await self._session.run(work, table)
        except RowRefused:
            raise
        except BaseException:
            self.is_broken = True
            raise

    async def write(self, write: TableWrite) -> WriteResult:
        assert not self.is_broken, "a delivery that failed is written to no more"
        if not write.rows:
            return WriteResult()
        return await self._run(lambda connection: self._write(connection, write), write.table)

    def _table(self, connection: Connection, name: str) -> TargetTable:
        table = self._tables.get(name)
        if table is None:
            # Read in each delivery: a table that was altered since is written as what it is.
            table = self._tables[name] = load_table(connection, self._target.database, name)
        return table

    def _write(self, connection: Connection, write: TableWrite) -> WriteResult:
        table = self._table(connection, write.table)
        size = min(self._target.packet_size_max - 1024, SCRIPT_SIZE_MAX)
        writing = Writing(
            connection, self._target.database, table, write, self._seq, size, self._target.packet_size_max
        )
        connection.execute(f"savepoint {SAVEPOINT}")
        try:
            return writing.run()
        except RowRefused:
            self._undo(connection)
            raise
        except pymysql.Error as error:
            found = translate(
                error,
                system=self._session.system,
                table=write.table,
                role=Role.TARGET,
                row_index=0 if len(write.rows) == 1 else writing.index,
            )
            if isinstance(found, RowRefused):
                self._undo(connection)
            raise found from error

    def _undo(self, connection: Connection, savepoint: str = SAVEPOINT) -> None:
        try:
            connection.execute(f"rollback to savepoint {savepoint}")
        except pymysql.Error as error:
            if number(error) == _NO_SAVEPOINT:
                raise _gone(self._session.system) from error
            raise translate(error, system=self._session.system, role=Role.TARGET, doing="undo a write") from error


def _roll_back(connection: Connection) -> None:
    """Roll back, or end the connection: one that is used again would commit what is left open when it begins anew."""
    try:
        connection.execute("rollback")
    except (pymysql.Error, OSError):
        connection.cut()


def _gone(system: str) -> TargetBusy:
    return TargetBusy(
        f"system {system}: the server has rolled the delivery back by itself",
        hint="Look for deadlocks in the server's log; it is tried again.",
        system=system,
    )
