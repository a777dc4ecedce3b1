"""One write of a delivery.

Many rows go in one statement. Where that is refused, or does not say what became of each row, it is taken back and done
by a statement per row, many of them sent in one go: each answers for itself, so which row was missing or refused is
known and never guessed. So are few rows, and those with keys of other types than numbers and texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

import pymysql

from engine.errors import RowRefused
from engine.model.draw import Series
from engine.model.table import Column, Kind
from engine.model.value import Wire
from engine.ports import Role, TableWrite, WriteKind, WriteResult
from plugins.mysql.apply_table import TargetTable
from plugins.mysql.apply_together import TOGETHER_MIN, can_compare, found_sql, match, update_sql
from plugins.mysql.catalog import IDENTITY, quoted_table
from plugins.mysql.connect import Connection, Result, column_list, quoted
from plugins.mysql.errors import UNIQUE, number, row_refused, translate
from plugins.mysql.values import Spell, Unfit, is_text, key_condition, speller

SAVEPOINT: Final = "concord_write"
STATEMENTS_MAX: Final = 1_000
_TRUNCATED: Final = "1265"

T = TypeVar("T")
_Statement = Callable[[int], str]


class Writing:
    """One write. `index`: the row that was being written when an error came, where that is known."""

    def __init__(
        self,
        connection: Connection,
        database: str,
        table: TargetTable,
        write: TableWrite,
        seq: int,
        script_size_max: int,
        packet_size_max: int,
    ) -> None:
        self.index: int | None = None
        self._connection = connection
        self._database = database
        self._identity = quoted_table(IDENTITY, database)
        self._table = table
        self._write = write
        self._seq = seq
        self._script_size_max = script_size_max
        self._packet_size_max = packet_size_max
        self._spells: dict[str, Spell] = {}
        self._conditions: dict[str, Spell] = {}

    def run(self) -> WriteResult:
        """Write all rows. Raises `RowRefused` and the driver's errors; what was written before stays, for the caller
        to undo."""
        write = self._write
        self._table.check(self._connection.system, write)
        match write.kind:
            case WriteKind.INSERT if write.assigned is not None:
                return self._insert_assigned(write.assigned)
            case WriteKind.INSERT:
                self._insert()
                return WriteResult()
            case WriteKind.UPDATE:
                return WriteResult(missing=tuple(self._update_all()))
            case WriteKind.DELETE:
                self._delete_all()
                return WriteResult()

    # ------------------------------------------------------------------------------------------ inserts

    def _insert(self) -> None:
        numbers = range(len(self._write.rows))
        if self._table.has_unique(self._write.key):
            try:
                self._insert_together(numbers)
            except pymysql.Error as error:
                found = translate(error, system=self._connection.system, table=self._write.table, role=Role.TARGET)
                if not isinstance(found, RowRefused):
                    raise
                # Some row exists, or is refused: row by row it is known which.
                self._connection.execute(f"rollback to savepoint {SAVEPOINT}")
            else:
                return
        self._insert_each(self._update_all())

    def _insert_together(self, numbers: Sequence[int]) -> None:
        head = f"{self._insert_head(self._write.columns)} values "
        parts: list[str] = []
        size = len(head)
        for n in numbers:
            values = self._values(n)
            length = _size(values) + 1
            if parts and size + length > self._script_size_max:
                self._insert_parts(head, parts)
                parts, size = [], len(head)
            if size + length > self._packet_size_max - 1024:
                raise self._refused("a row is larger than max_allowed_packet", index=n)
            parts.append(values)
            size += length
        self._insert_parts(head, parts)

    def _insert_parts(self, head: str, parts: Sequence[str]) -> None:
        self.index = None
        result = self._connection.execute(head + ",".join(parts))
        if not result.warnings:
            return
        for _, code, said in self._connection.rows("show warnings"):
            for name in self._write.columns:
                if str(code) == _TRUNCATED and f"for column '{name}' at" in str(said):
                    raise self._refused("a value would be cut off or changed", column=name)

    def _insert_each(self, numbers: Sequence[int]) -> None:
        """Insert rows that were not there. One that has come since is updated: somebody else's insert, or a row of the
        same key earlier in the write."""
        rest = list(numbers)
        while rest:
            try:
                for _ in self._each(rest, self._insert_one):
                    pass
                return
            except pymysql.Error as error:
                at = self.index
                if number(error) not in UNIQUE or at is None:
                    raise
                ((_, again),) = list(self._each([at], self._update))
                if not self._found(at, again):
                    self.index = at
                    raise
                rest = rest[rest.index(at) + 1 :]

    def _insert_assigned(self, assigned: str) -> WriteResult:
        """Insert rows and keep the keys that the database gave them. A record that has one already was inserted by a
        delivery whose answer never came: its row is written under that key, and not a second time."""
        write, connection = self._write, self._connection
        place = connection.literal(write.place)
        rids = ", ".join(str(int(rid)) for rid in write.rids)
        sql = f"select rid, `key` from {self._identity} where place = {place} and rid in ({rids})"
        keys = {int(rid): str(key) for rid, key in connection.rows(sql)}
        again = [n for n, rid in enumerate(write.rids) if rid in keys]
        if again:
            known = TableWrite(
                table=write.table,
                place=write.place,
                kind=WriteKind.INSERT,
                columns=(assigned, *write.columns),
                key=(assigned,),
                rows=[(keys[write.rids[n]], *write.rows[n]) for n in again],
                rids=[write.rids[n] for n in again],
                only_new=write.only_new,
            )
            self._within(known, again)
        new = [n for n, rid in enumerate(write.rids) if rid not in keys]
        if not new:
            return WriteResult(keys=tuple(keys[rid] for rid in write.rids))
        if write.draw is not None:
            made_keys = self._draw(len(new))
            drawn = TableWrite(
                table=write.table, place=write.place, kind=WriteKind.INSERT, columns=(assigned, *write.columns),
                key=(assigned,), rows=[(key, *write.rows[n]) for key, n in zip(made_keys, new, strict=True)],
                rids=[write.rids[n] for n in new], only_new=write.only_new,
            )  # fmt: skip
            # A row that has such a key already is a user's, and is not updated.
            self._within(drawn, new, is_new=True)
            keys.update(zip((write.rids[n] for n in new), made_keys, strict=True))
        for n, result in self._each(new, self._insert_one) if write.draw is None else ():
            # MariaDB says which key the row has; MySQL says which it made, 0 where a trigger left it out.
            made = result.rows[0][0] if result.rows else result.assigned or None
            if made is None:
                said = "the database gave a row no key, or a trigger left the row out"
                raise self._refused(said, reason="other", column=assigned, index=n)
            keys[write.rids[n]] = str(made)
        self.index = None
        for start in range(0, len(new), STATEMENTS_MAX):
            given = ", ".join(
                f"({place}, {int(rid)}, {connection.literal(keys[rid])}, {self._seq:d})"
                for rid in (write.rids[n] for n in new[start : start + STATEMENTS_MAX])
            )
            connection.execute(
                f"insert into {self._identity} (place, rid, `key`, seq) values {given}"
                " on duplicate key update `key` = values(`key`), seq = values(seq)"
            )
        return WriteResult(keys=tuple(keys[rid] for rid in write.rids))

    def _draw(self, count: int) -> list[str]:
        """So many new keys from the application's counter, whose row stays locked until the delivery ends, as it does
        for the application."""
        draw = self._write.draw
        if not isinstance(draw, Series):
            raise self._refused("keys are not drawn from sequences here", reason="table")
        connection, text = self._connection, draw.text(datetime.now(UTC))
        table = quoted_table(draw.table, self._database)
        name, number = quoted(draw.name_column), quoted(draw.number_column)
        literal = connection.literal(text)
        try:
            update = f"update {table} set {number} = {number} + {count:d} where {name} = {literal}"
            if connection.execute(update).count == 0:
                connection.execute(f"insert into {table} ({name}, {number}) values ({literal}, {count:d})")
            ((last,),) = connection.rows(f"select {number} from {table} where {name} = {literal}")
        except pymysql.Error as error:
            found = translate(error, system=connection.system, table=draw.table, role=Role.TARGET)
            if isinstance(found, RowRefused):
                raise self._refused(f"keys cannot be drawn from {draw.table}", reason=found.reason) from error
            raise
        return draw.keys(text, range(int(str(last)) - count + 1, int(str(last)) + 1))

    def _within(self, write: TableWrite, numbers: Sequence[int], *, is_new: bool = False) -> None:
        """Carry out another write as a part of this one, whose rows are those of these numbers here. `is_new`: none of
        them may be there."""
        size = (self._script_size_max, self._packet_size_max)
        part = Writing(self._connection, "", self._table, write, self._seq, *size)
        try:
            if is_new:
                part._insert_together(range(len(write.rows)))
            else:
                part._insert_each(part._update_all())
        except RowRefused as error:
            if error.row_index is not None:
                error.row_index = numbers[error.row_index]
            raise
        except pymysql.Error:
            self.index = None if part.index is None else numbers[part.index]
            raise

    # ------------------------------------------------------------------------------------------ updates and deletes

    def _update_all(self) -> list[int]:
        """Update the rows that are there; gives the numbers of the others. The write has done nothing before."""
        numbers = range(len(self._write.rows))
        if self._write.changed and self._table.has_unique(self._write.key) and self._can_go_together():
            missing = self._together(lambda: self._update_together(numbers))
            if missing is not None:
                return missing
        # A list: what is asked of a row depends on no other's answer, and the rest follows when all have answered.
        return [n for n, result in list(self._each(numbers, self._update)) if not self._found(n, result)]

    def _delete_all(self) -> None:
        numbers = range(len(self._write.rows))
        if (
            len(self._write.key) == 1
            and self._can_go_together()
            and self._together(lambda: self._delete_together(numbers))
        ):
            return
        for _ in self._each(numbers, self._delete):
            pass

    def _can_go_together(self) -> bool:
        write = self._write
        if len(write.rows) < TOGETHER_MIN:
            return False
        places = [write.columns.index(name) for name in write.key]
        keys = {tuple(row[place] for place in places) for row in write.rows}
        if len(keys) < len(write.rows) or any(None in key for key in keys):
            return False
        return can_compare(self._connection, [self._column(name) for name in write.key])

    def _together(self, work: Callable[[], T | None]) -> T | None:
        """What `work` gives; None when it is not to be had so. Then it has done nothing."""
        self.index = None
        try:
            result = work()
        except pymysql.Error as error:
            found = translate(error, system=self._connection.system, table=self._write.table, role=Role.TARGET)
            if not isinstance(found, RowRefused):
                raise
            result = None
        if result is None:
            self._connection.execute(f"rollback to savepoint {SAVEPOINT}")
        return result

    def _update_together(self, numbers: Sequence[int]) -> list[int] | None:
        """None when it is not certain which rows were updated, or as what."""
        write, connection, table = self._write, self._connection, self._table
        matches = " and ".join(
            match(connection, table, self._column(name), write.columns.index(name)) for name in write.key
        )
        keys = " and ".join(match(connection, table, self._column(name), at) for at, name in enumerate(write.key))
        missing: list[int] = []
        for portion in self._portions(numbers, self._values):
            rows = ",".join(values for _, values in portion)
            sql = update_sql(table, write.columns, write.changed, matches, rows)
            if _size(sql) > self._packet_size_max - 1024:
                return None
            result = connection.execute(sql)
            if result.warnings:
                return None
            if result.count == len(portion):
                continue
            asked = ",".join(f"({', '.join(self._key(n))}, {n:d})" for n, _ in portion)
            found = {int(n) for (n,) in connection.rows(found_sql(table, len(write.key) + 1, keys, asked))}
            # Rows that were updated are ours and cannot vanish; one that somebody else has entered since was not.
            if len(found) != result.count:
                return None
            missing += [n for n, _ in portion if n not in found]
        return missing

    def _delete_together(self, numbers: Sequence[int]) -> Literal[True] | None:
        (key,) = self._write.key
        column = quoted(key)
        for portion in self._portions(numbers, lambda n: self._key(n)[0]):
            condition = f"{column} in ({', '.join(value for _, value in portion)})"
            if is_text(self._column(key)):
                at = self._write.columns.index(key)
                exact = ", ".join(f"x'{str(self._write.rows[n][at]).encode().hex()}'" for n, _ in portion)
                condition += f" and cast(convert({column} using utf8mb4) as binary) in ({exact})"
            sql = f"delete from {self._table.name} where {condition}"
            if _size(sql) > self._packet_size_max - 1024:
                return None
            self._connection.execute(sql)
        return True

    def _key(self, n: int) -> list[str]:
        write = self._write
        return [self._value(n, name, write.rows[n][write.columns.index(name)]) for name in write.key]

    # ------------------------------------------------------------------------------------------ statements

    def _insert_head(self, columns: Sequence[str]) -> str:
        return f"insert into {self._table.name} ({column_list(columns)})"

    def _insert_one(self, n: int) -> str:
        returning = ""
        if self._write.assigned is not None and self._connection.is_mariadb:
            returning = f" returning {quoted(self._write.assigned)}"
        return f"{self._insert_head(self._write.columns)} values {self._values(n)}{returning}"

    def _update(self, n: int) -> str:
        write = self._write
        row = dict(zip(write.columns, write.rows[n], strict=True))
        others = write.changed
        # Nothing but the key: a look whether the row is there, which an update of nothing gives as well.
        same = quoted(write.key[0])
        sets = ", ".join(f"{quoted(name)} = {self._value(n, name, row[name])}" for name in others) or f"{same} = {same}"
        return f"update {self._table.name} set {sets} where {self._where(n)}"

    def _delete(self, n: int) -> str:
        return f"delete from {self._table.name} where {self._where(n)}"

    def _where(self, n: int) -> str:
        write = self._write
        parts: list[str] = []
        for name in write.key:
            value = write.rows[n][write.columns.index(name)]
            if not isinstance(value, str):
                raise self._refused("a key is null", reason="not_null", column=name, index=n)
            if name not in self._conditions:
                self._conditions[name] = key_condition(self._connection, self._column(name))
            parts.append(self._spelt(n, name, value, self._conditions[name]))
        return " and ".join(parts)

    def _values(self, n: int) -> str:
        row = zip(self._write.columns, self._write.rows[n], strict=True)
        return f"({', '.join(self._value(n, name, value) for name, value in row)})"

    def _value(self, n: int, name: str, value: Wire) -> str:
        if value is None:
            column = self._column(name)
            if not column.is_nullable and (column.is_assigned or column.kind is Kind.INSTANT):
                # The server would put the next number there, or the current time.
                raise self._refused("a column that must not be null would be", reason="not_null", column=name, index=n)
            return "null"
        if name not in self._spells:
            self._spells[name] = speller(self._connection, self._column(name))
        assert isinstance(value, str), "values of this form are texts"
        return self._spelt(n, name, value, self._spells[name])

    def _spelt(self, n: int, name: str, value: str, spell: Spell) -> str:
        try:
            # A lone surrogate is no character, and would be found out in the middle of a script.
            value.encode()
            return spell(value)
        except Unfit as error:
            raise self._refused(str(error), column=name, index=n) from None
        except UnicodeEncodeError:
            raise self._refused("a text is no valid Unicode", column=name, index=n) from None

    def _column(self, name: str) -> Column:
        column = self._table.shape.column(name)
        assert column is not None, "the write was checked against the table"
        return column

    # ------------------------------------------------------------------------------------------ carrying out

    def _each(self, numbers: Sequence[int], statement: _Statement) -> Iterator[tuple[int, Result]]:
        """A statement for each row, sent in portions; results in the rows' order. `index` is the row at work."""
        for portion in self._portions(numbers, statement):
            at = iter(portion)
            self.index = next(at)[0]
            results = self._connection.script([sql for _, sql in portion])
            for (n, _), result in zip(portion, results, strict=True):
                following = next(at, None)
                yield n, result
                if following is not None:
                    self.index = following[0]
        self.index = None

    def _portions(self, numbers: Sequence[int], statement: _Statement) -> Iterator[list[tuple[int, str]]]:
        portion: list[tuple[int, str]] = []
        size = 0
        for n in numbers:
            sql = statement(n)
            length = _size(sql) + 1
            if length > self._packet_size_max - 1024:
                raise self._refused("a row is larger than max_allowed_packet", index=n)
            if portion and (size + length > self._script_size_max or len(portion) >= STATEMENTS_MAX):
                yield portion
                portion, size = [], 0
            portion.append((n, sql))
            size += length
        if portion:
            yield portion

    def _found(self, n: int, result: Result) -> bool:
        if result.count > 1:
            said = f"more than one row has the key ({', '.join(self._write.key)})"
            raise self._refused(said, reason="other", index=n)
        return result.count == 1

    def _refused(self, said: str, *, reason: str = "value", column: str = "", index: int | None = None) -> RowRefused:
        system, table = self._connection.system, self._write.table
        row_index = 0 if len(self._write.rows) == 1 else index
        return row_refused(reason, said, system=system, table=table, row_index=row_index, column=column)


def _size(sql: str) -> int:
    return len(sql) if sql.isascii() else len(sql.encode())
