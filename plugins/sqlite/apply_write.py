"""One write of a delivery: its statements, row by row. SQLite is in the process, so a row costs no journey.

`or abort` stands everywhere: a table may declare `on conflict replace` or `ignore` for its constraints, and a refusal
is to be a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import apsw
import msgspec

from engine.errors import RowRefused
from engine.model.draw import Series
from engine.model.table import Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.ports import TableWrite, WriteKind, WriteResult
from plugins.sqlite.catalog import ROWID, column_list
from plugins.sqlite.connect import Connection, Rows, quoted
from plugins.sqlite.errors import row_refused, translate

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1


def carry_out(connection: Connection, system: str, write: TableWrite, shape: Shape, seq: int) -> WriteResult:
    """Write all rows, or raise at the first that is refused."""
    return _Writing(connection, system, write, shape, seq).run()


class _Writing:
    def __init__(self, connection: Connection, system: str, write: TableWrite, shape: Shape, seq: int) -> None:
        self.connection = connection
        self.system = system
        self.write = write
        self.shape = shape
        self.seq = seq
        self.index = 0

    def run(self) -> WriteResult:
        write = self.write
        try:
            if write.kind is WriteKind.DELETE:
                return self._delete()
            if write.kind is WriteKind.UPDATE:
                return self._update()
            if write.assigned is not None:
                return self._assign(write.assigned)
            return self._upsert()
        except apsw.Error as error:
            if isinstance(error, apsw.FullError) and self._has_no_more_keys():
                said = "it has given the greatest key there can be, and has no more"
                raise row_refused("other", self.system, write.table, self.index, said=said) from error
            raise translate(error, system=self.system, table=write.table, row_index=self.index) from error

    def _rows(self) -> Iterator[WireRow]:
        """The rows one by one; `index` is that of the last one."""
        for index, row in enumerate(self.write.rows):
            self.index = index
            yield row

    def _upsert(self) -> WriteResult:
        write, changes = self.write, self.connection.changes
        others = write.changed
        insert = _insert(write)
        if (write.key == self.shape.key and write.key != (ROWID,)) or set(write.key) in map(set, self.shape.unique):
            sets = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in others)
            sql = f"{insert} on conflict ({column_list(write.key)}) do {f'update set {sets}' if others else 'nothing'}"
            for row in self._rows():
                self._execute(sql, row)
                if others and not changes():
                    raise self._ignored()
            return WriteResult()
        update, order = _update(write)
        for row in self._rows():
            if others:
                self._execute(update, order(row))
                if changes():
                    continue
                self._must_be_gone(row)
            elif self._is_there(row):
                continue
            self._execute(insert, row)
            if not changes():
                raise self._ignored()
        return WriteResult()

    def _update(self) -> WriteResult:
        sql, order = _update(self.write)
        missing: list[int] = []
        for row in self._rows():
            self._execute(sql, order(row))
            if not self.connection.changes():
                self._must_be_gone(row)
                missing.append(self.index)
        return WriteResult(missing=tuple(missing))

    def _delete(self) -> WriteResult:
        where = " and ".join(f"{quoted(name)} = ?" for name in self.write.columns)
        sql = f"delete from {quoted(self.write.table)} where {where}"
        for row in self._rows():
            self._execute(sql, row)
            if not self.connection.changes():
                self._must_be_gone(row)
        return WriteResult()

    def _assign(self, assigned: str) -> WriteResult:
        """Insert and let the database make the key. A record that got one before (a delivery whose settling was lost)
        keeps its row."""
        write, connection = self.write, self.connection
        key = quoted(assigned)
        insert = f"{_insert(write, () if write.draw is None else (assigned,))} returning {key}"
        kept = [n for n, name in enumerate(write.columns) if name not in write.only_new]
        sets = ", ".join(f"{quoted(write.columns[n])} = ?" for n in kept) or f"{key} = {key}"
        update = f"update or abort {quoted(write.table)} set {sets} where {key} = ?"
        keys: list[str] = []
        free = self._free_key(assigned) if write.draw is None else None
        for row in self._rows():
            rid = write.rids[self.index]
            known = connection.execute(
                "select key from concord_identity where place = ? and rid = ?", (write.place, rid)
            ).fetchone()
            if known is not None:
                before = known[0] if write.draw is not None else int(known[0])
                self._execute(update, (*(row[n] for n in kept), before))
                if connection.changes():
                    keys.append(known[0])
                    continue
                if connection.execute(f"select 1 from {quoted(write.table)} where {key} = ?", (before,)).fetchone():
                    raise self._ignored()
            if free is not None:
                made = list(self._execute(f"{_insert(write, (assigned,))} returning {key}", (free, *row)))
                free = None
            else:
                made = list(self._execute(insert, row if write.draw is None else (self._draw(), *row)))
            if not made:
                raise self._ignored()
            keys.append(str(made[0][0]))
            connection.execute(
                "insert or replace into concord_identity (rid, place, key, seq) values (?, ?, ?, ?)",
                (rid, write.place, keys[-1], self.seq),
            )
        return WriteResult(keys=tuple(keys))

    def _free_key(self, assigned: str) -> int | None:
        """The key to begin with where SQLite would hand out that of a row whose deletion nobody has read yet, and which
        would be taken for the new row's. None where it would not.

        Without AUTOINCREMENT a new row gets the greatest key in the table plus one
        (https://www.sqlite.org/autoinc.html, section 2).
        """
        connection, table = self.connection, self.write.table
        if not self._has_table("concord_journal") or self._counts_on():
            return None
        greatest: list[int] = []
        layouts = "select id, shape from concord_layout where name = ? collate nocase"
        for layout, shape in list(connection.execute(layouts, (table,))):
            index = msgspec.json.decode(shape, type=Shape).index(assigned)
            if index is None:
                continue
            deleted = f"select max(c{index}) from concord_journal where layout = ? and op in ('D', 'K')"
            greatest += [n for (n,) in connection.execute(deleted, (layout,)) if isinstance(n, int)]
        if not greatest:
            return None
        (there,) = next(connection.execute(f"select coalesce(max({quoted(assigned)}), 0) from {quoted(table)}"))
        return max(greatest) + 1 if there < max(greatest) < INTEGER_MAX else None

    def _has_table(self, name: str) -> bool:
        return bool(list(self.connection.execute("select 1 from sqlite_schema where name = ?", (name,))))

    def _counts_on(self) -> bool:
        """Whether the table has AUTOINCREMENT: no key is handed out twice."""
        if not self._has_table("sqlite_sequence"):
            return False
        known = "select 1 from sqlite_sequence where name = ? collate nocase"
        return bool(list(self.connection.execute(known, (self.write.table,))))

    def _draw(self) -> str:
        """The next key of the application's counter."""
        draw = self.write.draw
        if not isinstance(draw, Series):
            said = "SQLite has no sequences to draw a key from"
            raise row_refused("table", self.system, self.write.table, 0, said=said)
        text = draw.text(datetime.now(UTC))
        table, name, number = (quoted(n) for n in (draw.table, draw.name_column, draw.number_column))
        try:
            update = f"update {table} set {number} = {number} + 1 where {name} = ? returning {number}"
            found = self.connection.execute(update, (text,)).fetchone()
            if found is None:
                insert = f"insert into {table} ({name}, {number}) values (?, 1) returning {number}"
                found = self.connection.execute(insert, (text,)).fetchone()
        except apsw.SQLError:
            said = f"keys cannot be drawn from {draw.table}: there is no such table, or it has other columns"
            raise row_refused("table", self.system, self.write.table, 0, said=said) from None
        assert found is not None
        return draw.keys(text, (int(found[0]),))[0]

    def _is_there(self, row: WireRow) -> bool:
        where = " and ".join(f"{quoted(name)} = ?" for name in self.write.key)
        key = tuple(row[self.write.columns.index(name)] for name in self.write.key)
        return self._execute(f"select 1 from {quoted(self.write.table)} where {where}", key).fetchone() is not None

    def _must_be_gone(self, row: WireRow) -> None:
        """The row was not changed: there is none, or a trigger of the owner said `raise(ignore)`."""
        if self._is_there(row):
            raise self._ignored()

    def _has_no_more_keys(self) -> bool:
        """SQLite says that the disk is full then (https://www.sqlite.org/autoinc.html, section 3)."""
        if not self._has_table("sqlite_sequence"):
            return False
        given = (
            "select 1 from sqlite_sequence where name = ?1 collate nocase and (seq = ?2"
            f" or ?2 = (select max(rowid) from {quoted(self.write.table)}))"
        )
        # Not asked of a table that hands out no keys: it may have no rowid.
        is_assigning = any(column.is_assigned for column in self.shape.columns)
        return is_assigning and bool(list(self.connection.execute(given, (self.write.table, INTEGER_MAX))))

    def _execute(self, sql: str, row: WireRow) -> Rows:
        for value in row:
            if value != value:
                raise self._unfit()
        try:
            return self.connection.execute(sql, row)
        except (OverflowError, UnicodeEncodeError, TypeError):
            # Without its cause: that holds the value.
            raise self._unfit() from None

    def _unfit(self) -> RowRefused:
        """What of the row SQLite cannot hold."""
        row = zip(self.write.columns, self.write.rows[self.index], strict=True)
        found = [(name, problem) for name, value in row if (problem := _problem(value))]
        column, problem = found[0] if found else ("", "a value is of no kind that SQLite has")
        return row_refused("value", self.system, self.write.table, self.index, column=column, said=problem)

    def _ignored(self) -> RowRefused:
        said = "a trigger of the table or its foreign keys ignore the row"
        return row_refused("other", self.system, self.write.table, self.index, said=said)


def _insert(write: TableWrite, before: tuple[str, ...] = ()) -> str:
    """`before`: columns that each row has besides, in front."""
    columns = (*before, *write.columns)
    if not columns:
        return f"insert or abort into {quoted(write.table)} default values"
    marks = ", ".join("?" * len(columns))
    return f"insert or abort into {quoted(write.table)} ({column_list(columns)}) values ({marks})"


def _update(write: TableWrite) -> tuple[str, Callable[[WireRow], WireRow]]:
    others = [write.columns.index(name) for name in write.changed]
    keys = [write.columns.index(name) for name in write.key]
    # Nothing but the key: a look whether the row is there, which an update of nothing gives as well.
    sets = (
        ", ".join(f"{quoted(write.columns[n])} = ?" for n in others)
        or f"{quoted(write.key[0])} = {quoted(write.key[0])}"
    )
    where = " and ".join(f"{quoted(name)} = ?" for name in write.key)
    order = (*others, *keys)
    return f"update or abort {quoted(write.table)} set {sets} where {where}", lambda row: tuple(row[n] for n in order)


def _problem(value: Wire) -> str:
    assert value is not ABSENT, "a row to write has every value"
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        return "a whole number does not fit 64 bits"
    if isinstance(value, float) and value != value:
        return "not a number, which SQLite would store as null"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "a text is no valid Unicode"
    return ""
