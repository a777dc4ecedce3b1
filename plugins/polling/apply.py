"""The target: deliveries as one transaction each, marker first; what they make of rows is noted before the commit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec

from engine.errors import Fenced, RowRefused, TargetBusy, TargetUnready
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Assigned, TableWrite, WriteResult
from plugins.polling.apply_write import Carried, carry_out
from plugins.polling.catalog import IDENTITY, MARKER, read_shape
from plugins.polling.config import PollingConfig, state_path
from plugins.polling.connect import Connection, Session, session
from plugins.polling.errors import row_refused, translate
from plugins.polling.looks import Looked, Looks
from plugins.polling.reader import Found

# A table may have been altered; a delivery that starts later than this looks.
SHAPES_SECONDS = 30.0


class PollingTarget:
    """`engine.ports.Target` of one polled system."""

    def __init__(self, site: Site, config: PollingConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[PollingTargetSession]:
        async with session(self.site, self.config) as opened:
            made = PollingTargetSession(self.site, self.config, opened)
            try:
                await opened.run(made.look)
                yield made
            finally:
                made.close()


class PollingTargetSession:
    """`engine.ports.TargetSession` over one connection."""

    def __init__(self, site: Site, config: PollingConfig, opened: Session) -> None:
        self.site = site
        self.config = config
        self.hub = ""
        self.epoch = 0
        self._session = opened
        self._looks: Looks | None = None
        self._shapes: dict[str, Shape] = {}
        self._shapes_at = 0.0

    def close(self) -> None:
        if self._looks is not None:
            self._looks.close()

    def look(self, connection: Connection) -> None:
        """Raises `TargetUnready` where set-up is missing."""
        connection.is_writing = True
        for table in (MARKER, IDENTITY):
            try:
                connection.rows(f"select * from {connection.sql.quoted(table)} where 1 = 0")
            except connection.failures as error:
                found = translate(error, system=self.site.name, table=table)
                if not isinstance(found, RowRefused):
                    raise found from error
                raise TargetUnready(
                    f"system {self.site.name}: our table {table} is not there, or may not be read",
                    hint=f"Run `concord check {self.site.name}`: set-up is missing, or a right to what it made.",
                    system=self.site.name,
                ) from error

    async def claim(self, hub_id: str, epoch: int) -> int:
        def work(connection: Connection) -> int:
            connection.begin(connection.habits.write)
            try:
                hub, known, seq = self.marker(connection)
                if hub and hub != hub_id:
                    raise TargetUnready(
                        f"system {self.site.name} belongs to another hub",
                        hint="Point [hub] path at that hub, or restore it from a backup; to give the system to this"
                        f" hub for good, run `concord teardown {self.site.name}` and `concord setup {self.site.name}`.",
                        system=self.site.name,
                        hub=hub,
                    )
                if known > epoch:
                    raise self.fenced()
                self.mark(connection, hub_id, epoch, seq)
                connection.commit()
            except BaseException:
                connection.roll_back()
                raise
            return seq

        self.hub, self.epoch = hub_id, epoch
        return await self._session.run(work)

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[PollingDelivery]:
        delivery = PollingDelivery(self, self._session, seq)
        await self._session.run(delivery.begin)
        try:
            yield delivery
        except BaseException:
            # Shielded: locks are everybody's, they must not wait for a connection to be collected.
            with anyio.CancelScope(shield=True):
                await self._session.run(lambda connection: connection.roll_back())
            raise
        with anyio.CancelScope(shield=True):
            await self._session.run(delivery.commit)

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        def work(connection: Connection) -> tuple[Assigned, ...]:
            q = connection.sql.quoted
            names = ", ".join(q(name) for name in ("rid", "place", "row_key", "seq"))
            rows = connection.rows(f"select {names} from {q(IDENTITY)} where {q('seq')} > \x01", [seq_after])
            return tuple(Assigned(rid=int(r), place=str(p), key=str(k), seq=int(s)) for r, p, k, s in rows)

        return await self._session.run(work)

    # For deliveries, in the connection's thread.

    def marker(self, connection: Connection) -> tuple[str, int, int]:
        """Hub, epoch and seq, locked where the database can."""
        q = connection.sql.quoted
        lock = " for update" if connection.habits.can_lock else ""
        rows = connection.rows(
            f"select {q('hub')}, {q('epoch')}, {q('seq')} from {q(MARKER)} where {q('id')} = 1{lock}"
        )
        if not rows:
            raise TargetUnready(
                f"system {self.site.name}: the marker's row is gone",
                hint=f"Run `concord teardown {self.site.name}`, then `concord setup {self.site.name}`.",
                system=self.site.name,
            )
        hub, epoch, seq = rows[0]
        return str(hub or ""), int(epoch), int(seq)

    def mark(self, connection: Connection, hub: str, epoch: int, seq: int) -> None:
        q = connection.sql.quoted
        sets = ", ".join(f"{q(name)} = \x01" for name in ("hub", "epoch", "seq", "written_at"))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        connection.execute(f"update {q(MARKER)} set {sets} where {q('id')} = 1", [hub, epoch, seq, now])

    def fenced(self) -> Fenced:
        return Fenced(
            f"system {self.site.name}: another daemon with a later epoch writes to it",
            hint="Stop one of the two daemons; only the later one may go on.",
            system=self.site.name,
        )

    def looks(self) -> Looks:
        """What is known of the rows. Raises `TargetUnready` before anything is."""
        if self._looks is None:
            path = state_path(self.site, self.config)
            if not path.exists():
                raise TargetUnready(
                    f"system {self.site.name}: nothing is known of its rows yet",
                    hint="Nothing is to be done: its source reads them first.",
                    system=self.site.name,
                )
            self._looks = Looks(path)
        return self._looks

    def shape(self, connection: Connection, table: str) -> Shape:
        """The table as it is. Raises `RowRefused` when there is none."""
        if time.monotonic() - self._shapes_at > SHAPES_SECONDS:
            self._shapes, self._shapes_at = {}, time.monotonic()
        found = self._shapes.get(table) or read_shape(connection, table)
        if found is None:
            raise row_refused("table", self.site.name, table)
        self._shapes[table] = found
        return found

    def forget_shapes(self) -> None:
        self._shapes = {}


class PollingDelivery:
    """`engine.ports.Delivery`: one open transaction."""

    def __init__(self, target: PollingTargetSession, opened: Session, seq: int) -> None:
        self._target = target
        self._session = opened
        self._seq = seq
        self._before = 0
        self._done: list[tuple[TableWrite, Carried]] = []

    async def write(self, write: TableWrite) -> WriteResult:
        return await self._session.run(lambda connection: self._write(connection, write), write.table)

    def begin(self, connection: Connection) -> None:
        """Write the marker. Raises `Fenced`."""
        connection.begin(connection.habits.write)
        try:
            hub, epoch, self._before = self._target.marker(connection)
            if hub != self._target.hub or epoch > self._target.epoch:
                raise self._target.fenced()
            self._target.mark(connection, hub, epoch, self._seq)
        except BaseException:
            connection.roll_back()
            raise

    def commit(self, connection: Connection) -> None:
        try:
            if any(write.if_unchanged for write, _ in self._done):
                self._note()
            connection.commit()
        except BaseException:
            connection.roll_back()
            raise

    def _write(self, connection: Connection, write: TableWrite) -> WriteResult:
        # Outside of a transaction each row would be one of its own, without a marker.
        assert connection.is_open, "a delivery that was rolled back is written to no more"
        has_savepoints = connection.habits.has_savepoints
        try:
            if has_savepoints:
                connection.execute("savepoint concord_write")
            carried = self._carry_out(connection, write)
            if has_savepoints:
                connection.execute("release savepoint concord_write")
        except RowRefused as error:
            self._target.forget_shapes()
            if has_savepoints:
                connection.execute("rollback to savepoint concord_write")
            else:
                self._redo(connection, error)
            raise
        self._done.append((write, carried))
        return carried.result

    def _carry_out(self, connection: Connection, write: TableWrite, keys: Sequence[str] = ()) -> Carried:
        shape = self._target.shape(connection, write.table)
        return carry_out(connection, write, shape, self._seq, self._expected(write), keys)

    def _expected(self, write: TableWrite) -> Callable[[list[str]], dict[str, bytes]] | None:
        if not write.if_unchanged:
            return None
        looks, table = self._target.looks(), self._table(write.table)
        own: dict[str, bytes | None] = {}
        for done, carried in self._done:
            if done.table == write.table:
                own |= {key: None if image is None else image[1] for key, image in carried.images.items()}

        def expected(keys: list[str]) -> dict[str, bytes]:
            found: dict[str, bytes | None] = {**looks.expected(table.id, keys, self._before)}
            found |= {key: own[key] for key in keys if key in own}
            return {key: hash for key, hash in found.items() if hash is not None}

        return expected

    def _table(self, name: str) -> Looked:
        found = self._target.looks().tables().get(name)
        if found is None:
            raise TargetUnready(
                f"system {self._target.site.name}, table {name}: nothing is known of its rows yet",
                hint="Nothing is to be done: its source reads them first.",
                system=self._target.site.name,
                table=name,
            )
        return found

    def _note(self) -> None:
        """What this delivery leaves of its rows, for the looks after it. It counts when the marker says that it was
        committed; what was noted for one that never was is forgotten."""
        looks = self._target.looks()
        tables = looks.tables()
        with looks.transaction():
            looks.run("delete from written where seq > ?", (self._before,))
            for write, carried in self._done:
                table = tables.get(write.table)
                if table is None or not write.if_unchanged:
                    continue
                looks.each(
                    "insert or replace into written (looked, key, seq, hash, image) values (?, ?, ?, ?, ?)",
                    ((table.id, key, self._seq, *_noted(image, table)) for key, image in carried.images.items()),
                )
                wanted = [(table.id, key) for key in carried.wanted]
                looks.each("insert or ignore into wanted (looked, key) values (?, ?)", wanted)

    def _redo(self, connection: Connection, refusal: RowRefused) -> None:
        """Without savepoints all is gone, the marker too, for the sake of one row. So that this row alone is refused,
        do the rest again."""
        connection.roll_back()
        before = self._before
        self.begin(connection)
        done, self._done = self._done, []
        for write, carried in done:
            with contextlib.suppress(RowRefused):
                again = self._carry_out(connection, write, carried.result.keys)
                if again.result == carried.result and self._before == before:
                    self._done.append((write, again))
                    continue
            # Somebody else wrote in between, and the engine has been told what is true no more.
            connection.roll_back()
            raise TargetBusy(
                f"system {self._target.site.name}, table {write.table}: its users wrote while a row was refused",
                hint="Nothing is to be done: it is tried again.",
                system=self._target.site.name,
                table=write.table,
            ) from refusal


def _noted(image: Found | None, table: Looked) -> tuple[bytes | None, bytes | None]:
    """Hash and, where somebody verifies it, the row."""
    if image is None:
        return None, None
    return image[1], msgspec.msgpack.encode(image[2]) if table.verify else None
