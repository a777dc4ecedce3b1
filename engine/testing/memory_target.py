"""Writing to a memory database as `engine.ports.Target`.

A delivery remembers its writes and makes them all at its commit, in one moment, so that users may edit rows while it is
open, as they do in a real database. Where that would change an answer already given (a row gone in between), the commit
fails with `TargetBusy` and nothing is written, as a serialization failure would.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from engine.errors import Fenced, RowRefused, SystemUnreachable, TargetBusy, TargetUnready
from engine.model.table import Form, Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.ports import Assigned, TableWrite, WriteKind, WriteResult
from engine.testing.faults import Commit, Faults
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_polled import MemoryLooks, Row
from engine.testing.memory_transaction import Key, LoggedChange, MemoryTable, MemoryTransaction

Changed = Callable[[MemoryTransaction, MemoryTable, Key], bool]


class MemoryTarget:
    """`engine.ports.Target` of a memory database. `looks`: it is polled."""

    def __init__(
        self, database: MemoryDatabase, faults: Faults | None = None, looks: MemoryLooks | None = None
    ) -> None:
        self.database = database
        self.faults = faults or Faults.none()
        self.looks = looks

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[MemorySession]:
        database = self.database
        await self.faults.call(database.name, "open")
        missing = [table for table in tables if table not in database.tables]
        if missing or not database.has_marker_table:
            raise TargetUnready(
                f"{database.name} has no table {missing[0] if missing else 'concord_marker'}",
                hint=f"Run `concord setup {database.name}`.",
                system=database.name,
            )
        yield MemorySession(database, self.faults, self.looks)


class MemorySession:
    """`engine.ports.TargetSession` of a memory database. After a lost connection it stays broken: open another."""

    def __init__(self, database: MemoryDatabase, faults: Faults, looks: MemoryLooks | None = None) -> None:
        self._database = database
        self._faults = faults
        self._looks = looks
        self._claimed: tuple[str, int] | None = None
        self._is_broken = False

    async def claim(self, hub_id: str, epoch: int) -> int:
        await self._call("claim")
        database = self._database
        marker = database.marker
        if marker is not None and marker.hub_id != hub_id:
            raise TargetUnready(
                f"the marker in {database.name} belongs to hub {marker.hub_id}, not to {hub_id}",
                hint=f"Run `concord teardown {database.name}` with the other hub first.",
                system=database.name,
                hub=marker.hub_id,
            )
        if marker is not None and marker.epoch > epoch:
            raise self._fenced(epoch)
        database.claim(hub_id, epoch)
        self._claimed = (hub_id, epoch)
        assert database.marker is not None
        # A claim has no effect but the epoch, so its answer may be lost without a case of its own.
        return database.marker.seq

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[MemoryDelivery]:
        assert self._claimed is not None, "claim before the first delivery"
        await self._call("delivery")
        self._check_fence()
        if self._looks is not None and self._database.marker is not None:
            self._looks.forget_undelivered(self._database.marker.seq)
        delivery = MemoryDelivery(self._database, self, seq, self._looks)
        try:
            yield delivery
        finally:
            delivery.is_open = False
        await self._call("commit")
        fate = self._faults.commit()
        delivery.note()
        if fate is not Commit.LOST:
            self._check_fence()
            delivery.commit()
        # The process may die between the commit and its answer, too.
        self._faults.pass_point(f"{self._database.name}.committed")
        if fate is not Commit.DONE:
            self._is_broken = True
            raise SystemUnreachable(
                f"{self._database.name} dropped the connection during the commit of delivery {seq}",
                hint="Wait; the daemon tries again.",
                system=self._database.name,
            )
        await self._faults.delay()
        self._faults.check_alive()

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        await self._call("assigned")
        return tuple(row for row in self._database.identity if row.seq > seq_after)

    async def write(self, write: TableWrite) -> None:
        """What may go wrong with a write before it does anything."""
        self._check_usable()
        try:
            await self._faults.write(self._database.name, write)
        except SystemUnreachable:
            self._is_broken = True
            raise

    def told(self, index: int) -> int | None:
        return self._faults.told(index)

    async def _call(self, name: str) -> None:
        self._check_usable()
        try:
            await self._faults.call(self._database.name, name)
        except SystemUnreachable:
            self._is_broken = True
            raise

    def _check_usable(self) -> None:
        if self._is_broken:
            raise SystemUnreachable(f"the connection to {self._database.name} is gone", hint="Open another.")

    def _check_fence(self) -> None:
        assert self._claimed is not None
        marker = self._database.marker
        if marker is None or (marker.hub_id, marker.epoch) != self._claimed:
            raise self._fenced(self._claimed[1])

    def _fenced(self, epoch: int) -> Fenced:
        return Fenced(
            f"another daemon has claimed {self._database.name} after our epoch {epoch}",
            hint="Stop this daemon; one is enough.",
            system=self._database.name,
            epoch=epoch,
        )


class MemoryDelivery:
    """`engine.ports.Delivery` of a memory database."""

    def __init__(
        self, database: MemoryDatabase, session: MemorySession, seq: int, looks: MemoryLooks | None = None
    ) -> None:
        self.is_open = True
        self._database = database
        self._looks = looks
        self._session = session
        self._seq = seq
        self._done: list[tuple[TableWrite, WriteResult]] = []

    async def write(self, write: TableWrite) -> WriteResult:
        assert self.is_open, "a write outside its delivery"
        await self._session.write(write)
        transaction = MemoryTransaction(self._database.name, self._database.tables)
        try:
            self._repeat(transaction)
            result = execute(transaction, self._database.tables[write.table], write, None, self._changed)
        except RowRefused as error:
            if error.row_index is not None:
                error.row_index = self._session.told(error.row_index)
            raise
        finally:
            transaction.roll_back()
        self._done.append((write, result))
        return result

    async def linked(
        self, shape: Shape, wanted: frozenset[str], columns: Sequence[str], values: Sequence[tuple[Wire, ...]]
    ) -> list[WireRow]:
        assert self.is_open, "a question outside its delivery"
        transaction = MemoryTransaction(self._database.name, self._database.tables)
        places = [n for name in columns if (n := shape.index(name)) is not None]
        asked = set(values)
        try:
            self._repeat(transaction)
            table = self._database.tables[shape.name]
            found = [row for row in table.rows.values() if tuple(row[n] for n in places) in asked]
            return [
                tuple(v if c.name in wanted else ABSENT for v, c in zip(row, shape.columns, strict=True))
                for row in found
            ]
        finally:
            transaction.roll_back()

    @asynccontextmanager
    async def unit(self) -> AsyncGenerator[None]:
        first = len(self._done)
        try:
            yield
        except RowRefused:
            del self._done[first:]
            raise

    def note(self) -> None:
        """Where the database is polled: say what is about to become of its rows, before it does."""
        if self._looks is None:
            return
        transaction = MemoryTransaction(self._database.name, self._database.tables)
        try:
            self._repeat(transaction)
            rows: dict[Row, WireRow | None] = {}
            for change in transaction.changes:
                assert isinstance(change, LoggedChange)
                table = self._database.tables[change.shape.name]
                for image in (change.before, change.after):
                    if image is not None:
                        rows[table.shape.name, table.key(image)] = table.rows.get(table.key(image))
            self._looks.note(self._seq, rows)
            for write, result in self._done:
                for n in result.changed:
                    values = dict(zip(write.columns, write.rows[n], strict=True))
                    key = tuple(values[column] for column in self._database.tables[write.table].shape.key)
                    self._looks.wanted.add((write.table, key))
        finally:
            transaction.roll_back()

    def commit(self) -> None:
        """Make the writes. Raises `TargetBusy` where one would have another result now."""
        transaction = MemoryTransaction(self._database.name, self._database.tables)
        try:
            self._repeat(transaction)
        except BaseException:
            transaction.roll_back()
            raise
        assigned = [
            Assigned(rid=rid, place=write.place, key=key, seq=self._seq)
            for write, result in self._done
            for rid, key in zip(write.rids, result.keys, strict=False)
        ]
        self._database.deliver(self._seq, transaction.changes, assigned)

    def _repeat(self, transaction: MemoryTransaction) -> None:
        for write, result in self._done:
            try:
                table = self._database.tables[write.table]
                now = execute(transaction, table, write, result.keys or None, self._changed)
            except RowRefused as error:
                raise self._overtaken() from error
            if now != result:
                raise self._overtaken()

    def _changed(self, transaction: MemoryTransaction, table: MemoryTable, key: Key) -> bool:
        """Whether the row is other than it was last seen, or than this delivery has made it."""
        looks, marker = self._looks, self._database.marker
        if looks is None or marker is None:
            return False
        name = table.shape.name
        own = {
            table.key(image)
            for change in transaction.changes
            if isinstance(change, LoggedChange) and change.shape.name == name
            for image in (change.before, change.after)
            if image is not None
        }
        return key not in own and table.rows.get(key) != looks.expected((name, key), marker.seq)

    def _overtaken(self) -> TargetBusy:
        return TargetBusy(
            f"{self._database.name} could not serialize delivery {self._seq} with a user's transaction",
            hint="Wait; the daemon tries again.",
            system=self._database.name,
        )


def execute(
    transaction: MemoryTransaction,
    table: MemoryTable,
    write: TableWrite,
    keys: Sequence[str] | None,
    changed: Changed | None = None,
) -> WriteResult:
    """One write as one statement. `keys`: hand out these, not new ones. `changed`: whether a row is to be left out.

    Raises `RowRefused` with the row's index; then nothing of the write is there.
    """
    assert set(table.shape.key) == set(write.key), f"{write.table} has the key {table.shape.key}, not {write.key}"
    ends: list[int] = []
    missing: list[int] = []
    left_out: list[int] = []
    handed: list[str] = []
    with transaction.statement():
        first = len(transaction.changes)
        for index, row in enumerate(write.rows):
            assert ABSENT not in row, "a value that is to be written is there"
            values = dict(zip(write.columns, row, strict=True))
            if write.assigned is not None:
                assert write.kind is WriteKind.INSERT
                assert write.key == (write.assigned,)
                values[write.assigned] = _handed_key(table, keys[index] if keys is not None else None)
                handed.append(str(values[write.assigned]))
            key = tuple(values[column] for column in table.shape.key)
            if write.if_unchanged and changed is not None and changed(transaction, table, key):
                left_out.append(index)
                ends.append(len(transaction.changes))
                continue
            try:
                if not _execute_row(transaction, table, write, values):
                    missing.append(index)
            except RowRefused as error:
                error.row_index = index
                raise
            ends.append(len(transaction.changes))
        for index, end in enumerate(ends):
            for change in transaction.changes[ends[index - 1] if index else first : end]:
                assert isinstance(change, LoggedChange)
                try:
                    transaction.check_references(change)
                except RowRefused as error:
                    error.row_index = index
                    raise
    return WriteResult(missing=tuple(missing), keys=tuple(handed), changed=tuple(left_out))


def _execute_row(
    transaction: MemoryTransaction, table: MemoryTable, write: TableWrite, values: dict[str, Wire]
) -> bool:
    """False when an UPDATE finds no row."""
    name = table.shape.name
    key = tuple(values[column] for column in table.shape.key)
    if write.kind is WriteKind.DELETE:
        transaction.delete(name, key)
    elif write.kind is WriteKind.UPDATE or (key in table.rows and write.assigned is None):
        kept = {column: value for column, value in values.items() if column not in write.only_new}
        return transaction.update(name, key, kept) is not None
    else:
        transaction.insert(name, values)
    return True


def _handed_key(table: MemoryTable, key: str | None) -> Wire:
    if key is None:
        return table.next_key()
    return int(key) if table.shape.form is Form.NATIVE else key
