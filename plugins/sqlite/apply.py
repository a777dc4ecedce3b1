"""The target: deliveries in `begin immediate` transactions, marker first, each write inside a savepoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import apsw

from engine.errors import Fenced, RowRefused, TargetBusy, TargetUnready
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.plugin import Site
from engine.ports import Assigned, TableWrite, WriteResult
from plugins.sqlite.apply_write import carry_out
from plugins.sqlite.catalog import has_effects, read_shapes
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, Session, quoted, roll_back, session, transaction
from plugins.sqlite.errors import row_refused
from plugins.sqlite.triggers import journal_width
from plugins.sqlite.values import read_rows

# Rows that are looked for by one statement: SQLite limits how deep an expression may be.
LINKS_MAX = 200


class SqliteTarget:
    """`engine.ports.Target` of one SQLite file."""

    def __init__(self, site: Site, config: SqliteConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[SqliteTargetSession]:
        async with session(self.site, self.config) as opened:
            has_journal = await opened.run(lambda connection: _look(connection, self.site.name))
            yield SqliteTargetSession(opened, has_journal=has_journal)


def _look(connection: Connection, system: str) -> bool:
    names = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    if not {"concord_marker", "concord_identity"} <= names:
        raise TargetUnready(
            f"system {system}: Concord's own tables are not there", hint=f"Run `concord setup {system}`.", system=system
        )
    return journal_width(connection) >= 0


class SqliteTargetSession:
    """`engine.ports.TargetSession` over one connection."""

    def __init__(self, opened: Session, *, has_journal: bool) -> None:
        self._session = opened
        self._system = opened.system
        self._has_journal = has_journal
        self._hub = ""
        self._epoch = 0
        self._schema_version = -1
        self._has_effects = True
        self._shapes: dict[str, Shape] = {}

    async def claim(self, hub_id: str, epoch: int) -> int:
        def work(connection: Connection) -> int:
            with transaction(connection):
                row = connection.execute("select hub, epoch, seq from concord_marker where id = 1").fetchone()
                if row is None:
                    raise self._unmarked()
                hub, known, seq = row
                if hub is not None and hub != hub_id:
                    raise TargetUnready(
                        f"system {self._system} belongs to another hub",
                        hint="Point [hub] path at that hub, or restore it from a backup; to give the system to this"
                        f" hub for good, run `concord teardown {self._system}` and `concord setup {self._system}`.",
                        system=self._system,
                        hub=hub,
                    )
                if known > epoch:
                    raise self._fenced()
                connection.execute("update concord_marker set hub = ?, epoch = ?", (hub_id, epoch))
                return int(seq)

        self._hub, self._epoch = hub_id, epoch
        return await self._session.run(work)

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[SqliteDelivery]:
        await self._session.run(lambda connection: self.begin(connection, seq))
        try:
            yield SqliteDelivery(self, self._session, seq)
        except BaseException:
            # Shielded: the write lock is everybody's, it must not wait for a connection to be collected.
            with anyio.CancelScope(shield=True):
                await self._session.run(roll_back)
            raise
        with anyio.CancelScope(shield=True):
            await self._session.run(_commit)

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        def work(connection: Connection) -> tuple[Assigned, ...]:
            rows = connection.execute("select rid, place, key, seq from concord_identity where seq > ?", (seq_after,))
            return tuple(Assigned(rid=rid, place=place, key=key, seq=seq) for rid, place, key, seq in rows)

        return await self._session.run(work)

    def shape(self, connection: Connection, table: str) -> Shape:
        """The table as it is in this transaction. Raises `RowRefused` when there is none."""
        found = self._shapes.get(table) or read_shapes(connection, [table]).get(table)
        if found is None:
            raise RowRefused(
                f"system {self._system}: there is no table {table}",
                hint="Bring the table back or change the mapping; its records wait.",
                reason="table",
                table=table,
            )
        self._shapes[table] = found
        return found

    def begin(self, connection: Connection, seq: int) -> None:
        """Take the write lock and write the marker."""
        connection.execute("begin immediate")
        try:
            self._mark(connection, seq)
        except BaseException:
            roll_back(connection)
            raise

    def _mark(self, connection: Connection, seq: int) -> None:
        version = connection.execute("pragma schema_version").fetchone()
        if version and version[0] != self._schema_version:
            self._schema_version = version[0]
            self._shapes.clear()
            self._has_effects = has_effects(connection)
        now = datetime.now(UTC)
        found = connection.execute(
            "update concord_marker set seq = ?1, active = ?1, written_at = ?2 where hub = ?3 and epoch <= ?4"
            " returning verify",
            (seq, now.isoformat(timespec="milliseconds"), self._hub, self._epoch),
        ).fetchone()
        if found is None:
            if connection.execute("select 1 from concord_marker").fetchone() is None:
                raise self._unmarked()
            raise self._fenced()
        # Where nothing but our triggers would run and nobody asked to see what they note, none need run.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(self._has_effects or bool(found[0])))
        if self._has_journal:
            connection.execute(
                "insert into concord_journal (op, layout, at, delivery, c0) values ('M', 0, ?, ?, ?)",
                (int(now.timestamp() * 1000) * 1000, seq, seq),
            )

    def _fenced(self) -> Fenced:
        return Fenced(
            f"system {self._system}: another daemon with a later epoch writes to it",
            hint="Stop one of the two daemons; only the later one may go on.",
            system=self._system,
        )

    def _unmarked(self) -> TargetUnready:
        return TargetUnready(
            f"system {self._system}: the marker's row is gone",
            hint=f"Run `concord teardown {self._system}`, then `concord setup {self._system}`.",
            system=self._system,
        )


class SqliteDelivery:
    """`engine.ports.Delivery`: one open transaction."""

    def __init__(self, target: SqliteTargetSession, opened: Session, seq: int) -> None:
        self._target = target
        self._session = opened
        self._seq = seq
        self._done: list[tuple[TableWrite, WriteResult]] = []
        self._unit: int | None = None
        """Where the present unit begins in `_done`."""

    async def linked(
        self, shape: Shape, wanted: frozenset[str], columns: Sequence[str], values: Sequence[tuple[Wire, ...]]
    ) -> list[WireRow]:
        """As the port says; the transaction keeps every other writer out."""
        names = [column.name for column in shape.columns if column.name in wanted]
        places = {name: n for n, name in enumerate(names)}
        match = " and ".join(f"{quoted(name)} = ?" for name in columns)

        def work(connection: Connection) -> list[WireRow]:
            found: list[WireRow] = []
            for start in range(0, len(values), LINKS_MAX):
                some = values[start : start + LINKS_MAX]
                rest = f"from {quoted(shape.name)} where {' or '.join([f'({match})'] * len(some))}"
                bindings = [value for row in some for value in row]
                for row in read_rows(connection, (), [quoted(name) for name in names], rest, bindings):
                    found.append(tuple(row[places[c.name]] if c.name in places else ABSENT for c in shape.columns))
            return found

        return await self._session.run(work, shape.name)

    @asynccontextmanager
    async def unit(self) -> AsyncGenerator[None]:
        """As the port says."""
        await self._session.run(lambda connection: connection.execute("savepoint concord_unit"))
        self._unit = len(self._done)
        try:
            yield
        except RowRefused:
            await self._end_unit("rollback to concord_unit; release concord_unit", is_kept=False)
            raise
        await self._end_unit("release concord_unit", is_kept=True)

    async def _end_unit(self, sql: str, *, is_kept: bool) -> None:
        """After a trigger has rolled the delivery back, the unit is gone already."""
        first, self._unit = self._unit, None
        if first is not None:
            if not is_kept:
                del self._done[first:]
            await self._session.run(lambda connection: connection.execute(sql))

    async def write(self, write: TableWrite) -> WriteResult:
        return await self._session.run(lambda connection: self._write(connection, write), write.table)

    def _write(self, connection: Connection, write: TableWrite) -> WriteResult:
        try:
            result = self._carry_out(connection, write)
        except RowRefused:
            if not connection.in_transaction:
                # A unit goes with the rest: what it has written is not done again.
                self._done, self._unit = self._done[: self._unit], None
                self._redo(connection)
            raise
        self._done.append((write, result))
        return result

    def _carry_out(self, connection: Connection, write: TableWrite) -> WriteResult:
        # Outside of a transaction each row would be one of its own, without a marker.
        assert connection.in_transaction, "a delivery that was rolled back is written to no more"
        system = self._session.system
        shape = self._target.shape(connection, write.table)
        connection.execute("savepoint concord_write")
        try:
            result = carry_out(connection, system, write, shape, self._seq)
            if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
                # A deferred foreign key would be looked at by the commit only, when nobody could tell whose it is.
                raise row_refused("foreign_key", system, write.table)
        except BaseException:
            # After some errors SQLite has rolled back everything by itself; the savepoint is gone with it.
            if connection.in_transaction:
                connection.execute("rollback to concord_write; release concord_write")
            raise
        connection.execute("release concord_write")
        return result

    def _redo(self, connection: Connection) -> None:
        """A trigger of the owner said `raise(rollback)`: all is gone, the marker too, for the sake of one row. So that
        this row alone is refused, do the rest again."""
        self._target.begin(connection, self._seq)
        for write, result in self._done:
            try:
                is_same = self._carry_out(connection, write) == result
            except RowRefused:
                is_same = False
            if not is_same:
                # Somebody else wrote in between, and the engine has been told what is true no more.
                raise TargetBusy(
                    f"system {self._session.system}, table {write.table}: a trigger rolled the delivery back",
                    hint="Concord tries again by itself; let the trigger say `raise(abort, ...)` instead.",
                    system=self._session.system,
                    table=write.table,
                )


def _commit(connection: Connection) -> None:
    try:
        connection.execute("update concord_marker set active = 0")
        connection.execute("commit")
    except BaseException:
        roll_back(connection)
        raise
