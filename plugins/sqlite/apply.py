"""The target: deliveries in `begin immediate` transactions, marker first, each write inside a savepoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import apsw

from engine.errors import Fenced, RowRefused, TargetUnready
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire
from engine.plugin import Site
from engine.ports import Assigned, TableWrite, WriteKind, WriteResult
from plugins.sqlite.catalog import column_list, read_shapes
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, Session, quoted, session
from plugins.sqlite.errors import translate
from plugins.sqlite.triggers import journal_width

INTEGER_MAX = 2**63 - 1


class SqliteTarget:
    """`engine.ports.Target` of one SQLite file."""

    def __init__(self, site: Site, config: SqliteConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[SqliteTargetSession]:
        async with session(self.site, self.config) as opened:
            has_journal = await opened.run(lambda connection: _look(connection, self.site.name))
            yield SqliteTargetSession(opened, self.site.name, has_journal=has_journal)


def _look(connection: Connection, system: str) -> bool:
    names = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    if not {"concord_marker", "concord_identity"} <= names:
        raise TargetUnready(
            f"system {system}: Concord's own tables are not there", hint=f"Run `concord setup {system}`.", system=system
        )
    return journal_width(connection) >= 0


class SqliteTargetSession:
    """`engine.ports.TargetSession` over one connection."""

    def __init__(self, opened: Session, system: str, *, has_journal: bool) -> None:
        self._session = opened
        self._system = system
        self._has_journal = has_journal
        self._hub = ""
        self._epoch = 0
        self.shapes: dict[str, Shape] = {}

    async def claim(self, hub_id: str, epoch: int) -> int:
        def work(connection: Connection) -> int:
            with _Transaction(connection):
                row = connection.execute("select hub, epoch, seq from concord_marker where id = 1").fetchone()
                if row is None:
                    raise TargetUnready(
                        f"system {self._system}: the marker's row is gone",
                        hint=f"Run `concord teardown {self._system}`, then `concord setup {self._system}`.",
                        system=self._system,
                    )
                hub, known, seq = row
                if hub is not None and hub != hub_id:
                    raise TargetUnready(
                        f"system {self._system} belongs to another hub",
                        hint=f"Use that hub, or run `concord teardown {self._system}` and set it up for this one.",
                        system=self._system,
                    )
                if known > epoch:
                    raise _fenced(self._system)
                connection.execute("update concord_marker set hub = ?, epoch = ?", (hub_id, epoch))
                return int(seq)

        self._hub, self._epoch = hub_id, epoch
        return await self._session.run(work)

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[SqliteDelivery]:
        await self._session.run(lambda connection: self._begin(connection, seq))
        try:
            yield SqliteDelivery(self, self._session, seq)
        except BaseException:
            # Shielded: the write lock is everybody's, it must not wait for a connection to be collected.
            with anyio.CancelScope(shield=True):
                await self._session.run(_roll_back)
            raise
        with anyio.CancelScope(shield=True):
            await self._session.run(_commit)

    def _begin(self, connection: Connection, seq: int) -> None:
        connection.execute("begin immediate")
        try:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            connection.execute(
                "update concord_marker set seq = ?1, active = ?1, written_at = ?2 where hub = ?3 and epoch <= ?4",
                (seq, now, self._hub, self._epoch),
            )
            if not connection.changes():
                raise _fenced(self._system)
            if self._has_journal:
                connection.execute(
                    "insert into concord_journal (op, name, at, delivery, c0) values ('M', '', ?, ?, ?)",
                    (int(datetime.now(UTC).timestamp() * 1_000_000), seq, seq),
                )
        except BaseException:
            connection.execute("rollback")
            raise

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        def work(connection: Connection) -> tuple[Assigned, ...]:
            rows = connection.execute("select rid, place, key, seq from concord_identity where seq > ?", (seq_after,))
            return tuple(Assigned(rid=rid, place=place, key=key, seq=seq) for rid, place, key, seq in rows)

        return await self._session.run(work)

    def shape(self, connection: Connection, table: str) -> Shape:
        found = self.shapes.get(table) or read_shapes(connection, [table]).get(table)
        if found is None:
            raise RowRefused(
                f"system {self._system}: there is no table {table}",
                hint="Bring the table back or change the mapping; its records wait.",
                reason="table",
                table=table,
            )
        self.shapes[table] = found
        return found


class SqliteDelivery:
    """`engine.ports.Delivery`: one open transaction."""

    def __init__(self, target: SqliteTargetSession, opened: Session, seq: int) -> None:
        self._target = target
        self._session = opened
        self._seq = seq

    async def write(self, write: TableWrite) -> WriteResult:
        return await self._session.run(lambda connection: self._write(connection, write), write.table)

    def _write(self, connection: Connection, write: TableWrite) -> WriteResult:
        shape = self._target.shape(connection, write.table)
        rows = _Rows(write, self._session.system)
        connection.execute("savepoint concord_write")
        try:
            if write.kind is WriteKind.DELETE:
                result = _delete(connection, write, rows)
            elif write.kind is WriteKind.UPDATE:
                result = _update(connection, write, rows)
            elif write.assigned is not None:
                result = _assign(connection, write, rows, self._seq)
            else:
                result = _upsert(connection, write, rows, shape)
        except apsw.Error as error:
            connection.execute("rollback to concord_write; release concord_write")
            failure = translate(error, system=self._session.system, table=write.table, row_index=rows.index)
            if isinstance(failure, RowRefused) and failure.reason == "table":
                self._target.shapes.pop(write.table, None)
            raise failure from error
        except BaseException:
            connection.execute("rollback to concord_write; release concord_write")
            raise
        connection.execute("release concord_write")
        return result


class _Rows:
    """The rows of a write, one by one, knowing which one SQLite is at."""

    def __init__(self, write: TableWrite, system: str) -> None:
        self.write = write
        self.system = system
        self.index = 0

    def each(self, order: Callable[[tuple[Wire, ...]], tuple[Wire, ...]] | None = None) -> list[tuple[Wire, ...]]:
        """All of them, checked for what the driver could not bind."""
        found: list[tuple[Wire, ...]] = []
        for index, row in enumerate(self.write.rows):
            self.index = index
            for name, value in zip(self.write.columns, row, strict=True):
                self._check(name, value)
            found.append(order(row) if order else row)
        return found

    def _check(self, column: str, value: Wire) -> None:
        assert value is not ABSENT
        problem = ""
        if isinstance(value, int) and not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
            problem = "a whole number does not fit 64 bits"
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                problem = "a text is no valid Unicode"
        if problem:
            raise RowRefused(
                f"system {self.system}, table {self.write.table}, column {column}: {problem}",
                hint="Correct the value where it was written.",
                row_index=self.index,
                reason="value",
                table=self.write.table,
                column=column,
            )


def _upsert(connection: Connection, write: TableWrite, rows: _Rows, shape: Shape) -> WriteResult:
    others = [name for name in write.columns if name not in write.key]
    marks = ", ".join("?" * len(write.columns))
    insert = f"insert into {quoted(write.table)} ({column_list(write.columns)}) values ({marks})"
    checked = rows.each()
    if (write.key == shape.key and write.key != ("rowid",)) or write.key in shape.unique:
        sets = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in others)
        sql = f"{insert} on conflict ({column_list(write.key)}) do {f'update set {sets}' if others else 'nothing'}"
        for index, row in enumerate(checked):
            rows.index = index
            connection.execute(sql, row)
        return WriteResult()
    update, order = _update_sql(write)
    for index, row in enumerate(checked):
        rows.index = index
        if others:
            connection.execute(update, order(row))
        if not others or not connection.changes():
            connection.execute(insert.replace("insert", "insert or ignore", 1) if not others else insert, row)
    return WriteResult()


def _update_sql(write: TableWrite) -> tuple[str, Callable[[tuple[Wire, ...]], tuple[Wire, ...]]]:
    others = [n for n, name in enumerate(write.columns) if name not in write.key]
    keys = [write.columns.index(name) for name in write.key]
    sets = ", ".join(f"{quoted(write.columns[n])} = ?" for n in others)
    where = " and ".join(f"{quoted(name)} = ?" for name in write.key)
    return (
        f"update {quoted(write.table)} set {sets} where {where}",
        lambda row: (*(row[n] for n in others), *(row[n] for n in keys)),
    )


def _update(connection: Connection, write: TableWrite, rows: _Rows) -> WriteResult:
    sql, order = _update_sql(write)
    missing: list[int] = []
    for index, row in enumerate(rows.each(order)):
        rows.index = index
        connection.execute(sql, row)
        if not connection.changes():
            missing.append(index)
    return WriteResult(missing=tuple(missing))


def _delete(connection: Connection, write: TableWrite, rows: _Rows) -> WriteResult:
    where = " and ".join(f"{quoted(name)} = ?" for name in write.columns)
    sql = f"delete from {quoted(write.table)} where {where}"
    for index, row in enumerate(rows.each()):
        rows.index = index
        connection.execute(sql, row)
    return WriteResult()


def _assign(connection: Connection, write: TableWrite, rows: _Rows, seq: int) -> WriteResult:
    """Insert and let the database make the key. A record that got one before (a delivery whose settling was lost) keeps
    its row."""
    assert write.assigned is not None
    key = quoted(write.assigned)
    marks = ", ".join("?" * len(write.columns))
    columns = f"({column_list(write.columns)}) values ({marks})" if write.columns else "default values"
    insert = f"insert into {quoted(write.table)} {columns}"
    sets = ", ".join(f"{quoted(name)} = ?" for name in write.columns)
    update = f"update {quoted(write.table)} set {sets} where {key} = ?"
    keys: list[str] = []
    for index, row in enumerate(rows.each()):
        rows.index = index
        rid = write.rids[index]
        known = connection.execute(
            "select key from concord_identity where place = ? and rid = ?", (write.place, rid)
        ).fetchone()
        if known is not None:
            if write.columns:
                connection.execute(update, (*row, int(known[0])))
            if not write.columns or connection.changes():
                keys.append(known[0])
                continue
        connection.execute(insert, row)
        made = connection.execute("select last_insert_rowid()").fetchone()
        assert made is not None
        connection.execute(
            "insert or replace into concord_identity (rid, place, key, seq) values (?, ?, ?, ?)",
            (rid, write.place, str(made[0]), seq),
        )
        keys.append(str(made[0]))
    return WriteResult(keys=tuple(keys))


class _Transaction:
    """`begin immediate` … commit, or rollback when the block raises."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("begin immediate")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.connection.execute("commit" if kind is None else "rollback")


def _roll_back(connection: Connection) -> None:
    if connection.in_transaction:
        connection.execute("rollback")


def _commit(connection: Connection) -> None:
    try:
        connection.execute("update concord_marker set active = 0")
        connection.execute("commit")
    except BaseException:
        _roll_back(connection)
        raise


def _fenced(system: str) -> Fenced:
    return Fenced(
        f"system {system}: another daemon with a later epoch writes to it",
        hint="Stop one of the two daemons; only the later one may go on.",
        system=system,
    )
