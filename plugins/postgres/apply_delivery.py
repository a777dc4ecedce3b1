"""One delivery: the writes of one transaction, each of them all or nothing.

A write runs behind a savepoint. The first one's comes with the marker, so that the usual delivery of one write takes
three round trips: begin, write, commit.

What runs when, measured on nine-column rows:

- INSERT is COPY at any size. When a row exists, the write is undone and repeated as an upsert.
- UPDATE is `unnest` arrays below `STAGED_ROWS_MIN` rows, COPY into a temporary table and a join from there on.
- DELETE is `unnest` arrays.
- INSERT with keys that the database assigns is one execution per row, all sent in one go: the only form in which the
  pairing of rows and keys needs no assumption. `insert ... select ... returning` promises no order of its rows. Keys
  drawn from the sequence beforehand need a privilege on it and are not those that a trigger may put in their place.
  `merge ... returning` would do, and came with version 17.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from engine.errors import ConcordError, RowRefused
from engine.model.draw import Draw
from engine.model.draw import Sequence as Numbers
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.ports import Role, TableWrite, WriteKind, WriteResult
from plugins.postgres import apply_statements as sql
from plugins.postgres.apply_link import Link
from plugins.postgres.apply_refusals import DRIVER_ERRORS, STAGE, can_be_shown_by_copy, refusal
from plugins.postgres.apply_tables import TargetTable
from plugins.postgres.apply_text import copy_text, text_columns, text_rows
from plugins.postgres.errors import sqlstate, translate

# Measured: at 1,000 rows both ways take the same time, at 10,000 the temporary table takes two thirds of it; a third of
# our own processor time at any size. Making and dropping one costs about a millisecond, and rows in pg_attribute.
STAGED_ROWS_MIN: Final = 2_000

_UNIQUE_VIOLATION: Final = "23505"


class PostgresDelivery:
    """`engine.ports.Delivery` inside an open transaction whose marker and first savepoint are set."""

    def __init__(self, link: Link, seq: int) -> None:
        self._link = link
        self._seq = seq
        self._is_marked = True
        self._stages = 0
        self._read_again: set[str] = set()

    async def write(self, write: TableWrite) -> WriteResult:
        """As the port says. Raises besides `RowRefused` what ends the delivery: `TargetBusy`, `SystemUnreachable`."""
        if not write.rows:
            return WriteResult()
        try:
            return await self._attempt(write)
        except RowRefused as error:
            # Perhaps the table is not what it was: a statement made for its old columns fails in all kinds of ways.
            if error.reason not in ("table", "value") or not await self._has_changed(write.table):
                raise
        return await self._attempt(write)

    async def linked(
        self, shape: Shape, wanted: frozenset[str], columns: Sequence[str], values: Sequence[tuple[Wire, ...]]
    ) -> list[WireRow]:
        """As the port says."""
        if not values:
            return []
        probe = TableWrite(
            table=shape.name, place="", kind=WriteKind.UPDATE, columns=(*columns, *sorted(wanted - set(columns))),
            key=tuple(columns), rows=(), rids=(),
        )  # fmt: skip
        table = self._checked(probe)
        rows = TableWrite(
            table=shape.name, place="", kind=WriteKind.UPDATE, columns=tuple(columns), key=tuple(columns), rows=values,
            rids=(),
        )  # fmt: skip
        names = [column.name for column in shape.columns if column.name in wanted]
        try:
            if not self._is_marked:
                await self._link.execute(sql.NEXT_SAVEPOINT)
            self._is_marked = False
            found = await self._fetch_any(table, sql.linked(table, names, columns), rows)
        except RowRefused:
            await self._undo()
            raise
        except DRIVER_ERRORS as error:
            raise await self._refusal(table, rows, error) from error
        places = {name: n for n, name in enumerate(names)}
        return [tuple(row[places[c.name]] if c.name in places else ABSENT for c in shape.columns) for row in found]

    @asynccontextmanager
    async def unit(self) -> AsyncGenerator[None]:
        """As the port says. A savepoint of its own, behind which those of the writes begin anew."""
        await self._savepoint(sql.UNIT)
        self._is_marked = True
        try:
            yield
        except RowRefused:
            await self._savepoint(sql.UNDO_UNIT)
            self._is_marked = False
            raise
        await self._savepoint(sql.END_UNIT)
        self._is_marked = False

    async def _savepoint(self, text: str) -> None:
        try:
            await self._link.execute(text)
        except DRIVER_ERRORS as error:
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="mark a unit") from error

    async def _fetch_any(self, table: TargetTable, text: str, write: TableWrite) -> list[Any]:
        return await self._link.fetch_by_key(table, text, text_columns(self._link.system, write))

    async def _attempt(self, write: TableWrite) -> WriteResult:
        table = self._checked(write)
        try:
            if not self._is_marked:
                await self._link.execute(sql.NEXT_SAVEPOINT)
            self._is_marked = False
            match write.kind:
                case WriteKind.INSERT if write.assigned is not None:
                    return await self._insert_assigned(table, write, write.assigned)
                case WriteKind.INSERT:
                    return await self._insert(table, write)
                case WriteKind.UPDATE:
                    return await self._update(table, write)
                case WriteKind.DELETE:
                    await self._fetch_by_key(table, sql.delete(table, write.columns), write)
                    return WriteResult()
        except RowRefused:
            await self._undo()
            raise
        except DRIVER_ERRORS as error:
            raise await self._refusal(table, write, error) from error

    async def _insert(self, table: TargetTable, write: TableWrite) -> WriteResult:
        key = frozenset(write.key)
        # Without any unique index on the key, COPY would make a second row of a row that exists.
        if key in table.unique:
            content = copy_text(self._link.system, write)
            try:
                await self._link.copy_in(table.schema, table.relation, write.columns, content)
            except DRIVER_ERRORS as error:
                if sqlstate(error) != _UNIQUE_VIOLATION:
                    raise refusal(error, self._link.system, write, relation=table.relation) from error
                await self._undo()
                self._is_marked = False
            else:
                self._count(write)
                return WriteResult()
        await self._upsert(table, write)
        return WriteResult()

    async def _upsert(self, table: TargetTable, write: TableWrite) -> None:
        columns = text_columns(self._link.system, write)
        if frozenset(write.key) in table.arbiters:
            await self._link.fetch(sql.upsert(table, write.columns, write.key, write.changed), *columns)
        else:
            await self._link.fetch_by_key(
                table, sql.update_or_insert(table, write.columns, write.key, write.changed), columns
            )
        self._count(write)

    async def _update(self, table: TargetTable, write: TableWrite) -> WriteResult:
        count = len(write.rows)
        if count >= STAGED_ROWS_MIN and len(write.columns) > len(write.key) and await self._update_staged(table, write):
            return WriteResult()
        found = await self._fetch_by_key(table, sql.update(table, write.columns, write.key, write.changed), write)
        numbers: set[int] = {record[0] for record in found}
        if len(numbers) == count:
            return WriteResult()
        return WriteResult(missing=tuple(n for n in range(count) if n + 1 not in numbers))

    async def _update_staged(self, table: TargetTable, write: TableWrite) -> bool:
        """Whether all rows were there and are updated. Otherwise nothing is done, and the slower way tells which."""
        content = copy_text(self._link.system, write)
        stage = await self._create_stage(table, write)
        if stage is None:
            return False
        try:
            await self._link.copy_in("pg_temp", stage, _stage_columns(write), content)
        except DRIVER_ERRORS as error:
            raise refusal(error, self._link.system, write, relation=stage) from error
        tag = await self._link.execute(sql.update_staged(table, write.columns, write.key, stage))
        if tag == f"UPDATE {len(write.rows)}":
            return True
        await self._undo()
        self._is_marked = False
        return False

    async def _insert_assigned(self, table: TargetTable, write: TableWrite, assigned: str) -> WriteResult:
        """Insert rows and keep the keys that the database gave them.

        A record that has a key already was inserted by a delivery whose acknowledgement we never got: its row is
        written under that key and not a second time. The marker makes this safe against an older daemon.
        """
        link, rows = self._link, text_rows(write)
        text_columns(link.system, write)
        known: dict[int, str] = dict(await link.fetch(sql.KNOWN_KEYS, write.place, write.rids))
        keys: dict[int, str] = {rid: known[rid] for rid in write.rids if rid in known}
        if known:
            again = [n for n, rid in enumerate(write.rids) if rid in known]
            await self._upsert(
                table,
                TableWrite(
                    table=write.table,
                    place=write.place,
                    kind=WriteKind.INSERT,
                    columns=(assigned, *write.columns),
                    key=(assigned,),
                    rows=[(known[write.rids[n]], *rows[n]) for n in again],
                    rids=[write.rids[n] for n in again],
                    only_new=write.only_new,
                ),
            )
        new = [n for n, rid in enumerate(write.rids) if rid not in known]
        if new:
            if write.draw is not None:
                made = await self._insert_drawn(table, write, assigned, write.draw, new)
            else:
                statement = sql.insert_one(table, write.columns, assigned)
                records = await link.fetch_each(statement, [rows[n] for n in new])
                if len(records) != len(new) or any(record[0] is None for record in records):
                    raise self._keyless(write, assigned)
                made = [str(record[0]) for record in records]
            rids = [write.rids[n] for n in new]
            await link.fetch(sql.KEEP_KEYS, write.place, self._seq, rids, made)
            keys.update(zip(rids, made, strict=True))
            self._count(write)
        return WriteResult(keys=tuple(keys[rid] for rid in write.rids))

    async def _insert_drawn(
        self, table: TargetTable, write: TableWrite, assigned: str, draw: Draw, new: list[int]
    ) -> list[str]:
        """Draw keys for these rows, and insert them. A counter's row stays locked until the delivery ends, as it does
        for the application."""
        if isinstance(draw, Numbers):
            records = await self._link.fetch(sql.DRAW, draw.name, len(new))
            made = [str(record[0]) for record in records]
        else:
            text = draw.text(datetime.now(UTC))
            update, insert = sql.count_on(draw)
            records = await self._link.fetch(update, text, len(new)) or await self._link.fetch(insert, text, len(new))
            last = int(records[0][0])
            made = draw.keys(text, range(last - len(new) + 1, last + 1))
        rows = text_rows(write)
        drawn = TableWrite(
            table=write.table, place=write.place, kind=WriteKind.INSERT, columns=(assigned, *write.columns),
            key=(assigned,), rows=[(key, *rows[n]) for key, n in zip(made, new, strict=True)],
            rids=[write.rids[n] for n in new], only_new=write.only_new,
        )  # fmt: skip
        # Not as an insert whose key is known to be ours: a row that has this key already is a user's.
        content = copy_text(self._link.system, drawn)
        await self._link.copy_in(table.schema, table.relation, drawn.columns, content)
        self._count(drawn)
        return made

    async def _refusal(self, table: TargetTable, write: TableWrite, error: BaseException) -> ConcordError:
        """Undo the write and find the words for why; what is no refusal leaves the transaction as it is."""
        found = refusal(error, self._link.system, write)
        if not isinstance(found, RowRefused):
            return found
        await self._undo()
        if not can_be_shown_by_copy(error) or not write.columns:
            return found
        try:
            return await self._shown_by_copy(table, write) or found
        except DRIVER_ERRORS as again:
            return translate(again, system=self._link.system, table=write.table, role=Role.TARGET)

    async def _shown_by_copy(self, table: TargetTable, write: TableWrite) -> RowRefused | None:
        """Read the rows into a table of the same types: COPY says which row and column it stopped at."""
        shown: RowRefused | None = None
        content = copy_text(self._link.system, write)
        stage = await self._create_stage(table, write)
        if stage is None:
            return None
        self._is_marked = False
        try:
            await self._link.copy_in("pg_temp", stage, _stage_columns(write), content)
        except DRIVER_ERRORS as again:
            found = refusal(again, self._link.system, write, relation=stage)
            if not isinstance(found, RowRefused):
                raise
            shown = found
        await self._undo()
        return shown

    async def _create_stage(self, table: TargetTable, write: TableWrite) -> str | None:
        """A fresh temporary table; None when the database does not let us have one, now and from then on."""
        if not self._link.may_stage:
            return None
        self._stages += 1
        stage = f"{STAGE}_{self._stages}"
        try:
            await self._link.execute(sql.create_stage(table, write.columns, stage))
        except DRIVER_ERRORS as error:
            # Not only a privilege: an event trigger of the user's may forbid all making of tables.
            if not isinstance(refusal(error, self._link.system, write), RowRefused):
                raise
            self._link.may_stage = False
            await self._undo()
            self._is_marked = False
            return None
        return stage

    async def _fetch_by_key(self, table: TargetTable, text: str, write: TableWrite) -> list[tuple[int, ...]]:
        return [tuple(record) for record in await self._fetch_any(table, text, write)]

    def _checked(self, write: TableWrite) -> TargetTable:
        table = self._link.tables.get(write.table)
        where = f"system {self._link.system}, table {write.table}"
        if table is None:
            raise RowRefused(
                f"{where}: the table does not exist",
                hint="Create the table, or take it out of the mapping.",
                reason="table",
                system=self._link.system,
                table=write.table,
            )
        assigned = () if write.assigned is None else (write.assigned,)
        for name in (*write.columns, *write.key, *assigned):
            column = table.columns.get(name)
            if column is None or (column.is_generated and name in write.columns and name not in write.key):
                found = "does not exist" if column is None else "is generated by the database and cannot be written"
                raise RowRefused(
                    f"{where}, column {name}: the column {found}",
                    hint="Adapt the mapping to the table's columns.",
                    reason="table",
                    system=self._link.system,
                    table=write.table,
                    column=name,
                )
        return table

    async def _has_changed(self, name: str) -> bool:
        """Read the table's columns again, once a delivery, and say whether they are others."""
        if name in self._read_again:
            return False
        self._read_again.add(name)
        before = self._link.tables.get(name)
        try:
            self._link.tables |= await self._link.read_tables([name])
        except DRIVER_ERRORS as error:
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="read the catalogue") from error
        return self._link.tables[name] != before

    def _keyless(self, write: TableWrite, assigned: str) -> RowRefused:
        return RowRefused(
            f"system {self._link.system}, table {write.table}, column {assigned}: the database gave a row no key, or a"
            " trigger left the row out",
            hint="Give the column a default, or let the mapping make the key.",
            row_index=0 if len(write.rows) == 1 else None,
            reason="other",
            system=self._link.system,
            table=write.table,
            column=assigned,
        )

    async def _undo(self) -> None:
        try:
            await self._link.execute(sql.UNDO)
        except DRIVER_ERRORS as error:
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="undo a write") from error
        self._is_marked = True

    def _count(self, write: TableWrite) -> None:
        inserted = self._link.rows_inserted
        inserted[write.table] = inserted.get(write.table, 0) + len(write.rows)


def _stage_columns(write: TableWrite) -> list[str]:
    return [f"c{n}" for n in range(len(write.columns))]
