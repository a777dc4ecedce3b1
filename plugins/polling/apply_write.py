"""One write of a delivery: first the rows as they are, locked where the database can; then those that may be written;
then what the database has made of them.

So it is known which rows exist, and no form of upsert is needed, of which each database has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.model.table import Column, Shape
from engine.model.value import Wire, WireRow
from engine.ports import TableWrite, WriteKind, WriteResult
from plugins.polling.catalog import IDENTITY
from plugins.polling.connect import Connection
from plugins.polling.errors import row_refused, translate
from plugins.polling.reader import Found
from plugins.polling.values import Rows, Unfit, parameter

KEYS_AT_ONCE = 200
ROWS_AT_ONCE = 500
PARAMETERS_MAX = 5_000
"""Of one statement: databases have limits of their own, the least of those in use above this."""
Expected = Callable[[list[str]], dict[str, bytes]]


@dataclass(slots=True)
class Carried:
    """What a write has done. `images`: rows as it has left them, by key; None for one that it deleted. `wanted`: keys
    of rows that are to be read again: left out, or stored otherwise than they were written."""

    result: WriteResult
    images: dict[str, Found | None] = field(default_factory=lambda: {})
    wanted: set[str] = field(default_factory=lambda: set())


def carry_out(
    connection: Connection,
    write: TableWrite,
    shape: Shape,
    seq: int,
    expected: Expected | None,
    keys: Sequence[str] = (),
) -> Carried:
    """Write all rows, or raise `RowRefused`; what is then half done is the caller's to take back. `expected`: hashes of
    rows as they were last seen, by key; None: write in any case. `keys`: those to hand out, when it is done again."""
    writing = _Writing(connection, write, shape, seq, expected)
    try:
        return writing.assign(keys) if write.assigned is not None else writing.run()
    except (OverflowError, UnicodeError):
        # Without its cause: that holds the value.
        raise row_refused("value", connection.system, write.table, writing.at) from None
    except connection.failures as error:
        raise translate(error, system=connection.system, table=write.table, row_index=writing.at) from error


class _Writing:
    def __init__(
        self, connection: Connection, write: TableWrite, shape: Shape, seq: int, expected: Expected | None
    ) -> None:
        self.connection = connection
        self.sql = connection.sql
        self.write = write
        self.shape = shape
        self.seq = seq
        self.expected = expected
        self.index: int | None = None
        self.columns = [self._column(name) for name in write.columns]
        self.key = [self._column(name) for name in write.key or write.columns]
        self.rows = Rows(connection.system, shape, self.sql.dialect)
        self._converters = [parameter(column, shape.form, self.sql.dialect) for column in self.columns]

    @property
    def at(self) -> int | None:
        """The row that is being written, where it can only be that one."""
        return 0 if self.index is None and len(self.write.rows) == 1 else self.index

    def run(self) -> Carried:
        write = self.write
        wires = [list(row) for row in write.rows]
        values = [self._values(n, row) for n, row in enumerate(wires)]
        places = [write.columns.index(column.name) for column in self.key]
        found = self._find([[row[n] for n in places] for row in wires], [[row[n] for n in places] for row in values])
        carried = Carried(WriteResult())
        changed = set(self._changed(found, wires, places, carried))
        there = [n for n, row in enumerate(found) if row is not None and n not in changed]
        absent = [n for n, row in enumerate(found) if row is None and n not in changed]
        missing: list[int] = []
        if write.kind is WriteKind.DELETE:
            self._each(self.sql.delete(write.table, self.key), [[values[n][p] for p in places] for n in there])
            carried.images = {row[0]: None for n in there if (row := found[n]) is not None}
        else:
            self._update(values, places, there)
            if write.kind is WriteKind.INSERT:
                self._insert(values, absent)
                there = sorted((*there, *absent))
            else:
                missing = absent
            self._look_again(wires, values, places, there, carried)
        carried.result = WriteResult(missing=tuple(missing), changed=tuple(sorted(changed)))
        return carried

    def assign(self, keys: Sequence[str]) -> Carried:
        """Insert and let the database make the keys. A record that got one before (a delivery whose settling was lost)
        keeps its row. `keys`: hand out these."""
        write = self.write
        assert write.assigned is not None
        key = self._column(write.assigned)
        convert = parameter(key, self.shape.form, self.sql.dialect)
        known = self._identities()
        made: list[str] = []
        wires = [list(row) for row in write.rows]
        values = [self._values(n, row) for n, row in enumerate(wires)]
        new: list[int] = []
        for n, row in enumerate(values):
            self.index = n
            before = known.get(write.rids[n])
            if before is not None and self._find([[before]], [[convert(before)]])[0] is not None:
                made.append(before)
                self._update_assigned(row, convert(before))
                continue
            made.append(keys[n] if keys else self._insert_assigned(key, row))
            if keys:
                columns = [key, *self.columns]
                self.connection.execute(self.sql.insert(write.table, columns), [convert(keys[n]), *row])
            new.append(n)
        self.index = None
        self._note_identities([(write.rids[n], made[n]) for n in new], {write.rids[n] for n in new} & known.keys())
        carried = Carried(WriteResult(keys=tuple(made)))
        if self.expected is not None:
            wire = [[text] for text in made]
            for n, row in enumerate(self._find(wire, [[convert(text)] for text in made])):
                if row is not None:
                    self._leave(carried, row, wires[n])
        return carried

    # Rows as they are.

    def _find(self, wires: Sequence[Sequence[Wire]], keys: list[list[Any]]) -> list[Found | None]:
        """The rows that have these keys, locked; parallel to `keys`."""
        found: list[Found | None] = []
        places = [n for column in self.key for n, c in enumerate(self.shape.columns) if c.name == column.name]
        for start in range(0, len(keys), KEYS_AT_ONCE):
            chunk = keys[start : start + KEYS_AT_ONCE]
            rows = self._read(chunk)
            by_key = {tuple(str(row[2][n]) for n in places): row for row in rows}
            matched = [by_key.get(tuple(map(str, wire))) for wire in wires[start : start + KEYS_AT_ONCE]]
            if len({row[0] for row in matched if row is not None}) < len(rows):
                # Some are spelt otherwise than by us: the database says which is which.
                matched = [row or next(iter(self._read([key])), None) for row, key in zip(matched, chunk, strict=True)]
            found += matched
        return found

    def _read(self, keys: list[list[Any]]) -> list[Found]:
        query = self.sql.by_keys(self.write.table, self.shape.columns, self.key, len(keys), locks=True)
        rows = [self.rows.decoded(row) for row in self.connection.rows(query, [v for key in keys for v in key])]
        return [(self.rows.key(row), self.rows.hash(row), row) for row in rows]

    def _changed(
        self, found: list[Found | None], wires: list[list[Wire]], places: list[int], carried: Carried
    ) -> list[int]:
        """Indexes of rows that are not as they were last seen. What is wanted of them is noted."""
        if self.expected is None:
            return []
        own = [self._key_of(wire, places) if row is None else row[0] for row, wire in zip(found, wires, strict=True)]
        known = self.expected([key for key in own if key is not None])
        changed: list[int] = []
        for n, (row, key) in enumerate(zip(found, own, strict=True)):
            was = None if key is None else known.get(key)
            if (None if row is None else row[1]) != was:
                changed.append(n)
                if key is not None:
                    carried.wanted.add(key)
        return changed

    def _key_of(self, wire: list[Wire], places: list[int]) -> str | None:
        """The key of a row that is not there, as it would be spelt; None where another key is written by."""
        named = {column.name: wire[n] for column, n in zip(self.key, places, strict=True)}
        if set(named) != set(self.shape.key):
            return None
        row = tuple(named.get(column.name) for column in self.shape.columns)
        return self.rows.key(row)

    # Statements.

    def _update(self, values: list[list[Any]], places: list[int], there: list[int]) -> None:
        sets = [n for n, name in enumerate(self.write.columns) if name in self.write.changed]
        if sets:
            statement = self.sql.update(self.write.table, [self.columns[n] for n in sets], self.key)
            self._each(statement, [[*(values[n][p] for p in sets), *(values[n][p] for p in places)] for n in there])

    def _insert(self, values: list[list[Any]], absent: list[int]) -> None:
        width = max(len(self.columns), 1)
        size = max(min(ROWS_AT_ONCE, PARAMETERS_MAX // width), 1)
        for start in range(0, len(absent), size):
            chunk = absent[start : start + size]
            statement = self.sql.insert(self.write.table, self.columns, len(chunk))
            self.connection.execute(statement, [value for n in chunk for value in values[n]])

    def _each(self, statement: Any, rows: list[list[Any]]) -> None:
        if rows:
            self.connection.execute_each(statement, rows)

    def _insert_assigned(self, key: Column, row: list[Any]) -> str:
        statement = self.sql.insert(self.write.table, self.columns)
        returns = self.sql.habits.has_returning
        if returns:
            statement += f" returning {self.sql.quoted(key.name)}"
        return str(self.connection.insert_one(statement, row, returns=returns))

    def _update_assigned(self, row: list[Any], key: Any) -> None:
        sets = [n for n, name in enumerate(self.write.columns) if name not in self.write.only_new]
        if sets:
            statement = self.sql.update(self.write.table, [self.columns[n] for n in sets], self.key)
            self.connection.execute(statement, [*(row[n] for n in sets), key])

    def _identities(self) -> dict[int, str]:
        """Rid → key, of records that got one before."""
        found: dict[int, str] = {}
        rids = list(self.write.rids)
        table, q = self.sql.quoted(IDENTITY), self.sql.quoted
        for start in range(0, len(rids), KEYS_AT_ONCE):
            chunk = rids[start : start + KEYS_AT_ONCE]
            marks = ", ".join("\x01" * len(chunk))
            text = (
                f"select {q('rid')}, {q('row_key')} from {table} where {q('place')} = \x01 and {q('rid')} in ({marks})"
            )
            found |= {int(rid): str(key) for rid, key in self.connection.rows(text, [self.write.place, *chunk])}
        return found

    def _note_identities(self, made: list[tuple[int, str]], again: set[int]) -> None:
        q = self.sql.quoted
        if again:
            text = f"delete from {q(IDENTITY)} where {q('place')} = \x01 and {q('rid')} = \x01"
            self._each(text, [[self.write.place, rid] for rid in again])
        names = ", ".join(q(name) for name in ("rid", "place", "row_key", "seq"))
        text = f"insert into {q(IDENTITY)} ({names}) values (\x01, \x01, \x01, \x01)"
        self._each(text, [[rid, self.write.place, key, self.seq] for rid, key in made])

    # Rows as they are now.

    def _look_again(
        self,
        wires: list[list[Wire]],
        values: list[list[Any]],
        places: list[int],
        written: list[int],
        carried: Carried,
    ) -> None:
        if self.expected is None:
            return
        keys = [[values[n][p] for p in places] for n in written]
        for n, row in zip(written, self._find([[wires[n][p] for p in places] for n in written], keys), strict=True):
            if row is not None:
                self._leave(carried, row, wires[n])

    def _leave(self, carried: Carried, row: Found, wire: list[Wire]) -> None:
        carried.images[row[0]] = row
        stored: WireRow = row[2]
        for column, value in zip(self.columns, wire, strict=True):
            index = self.shape.index(column.name)
            if index is not None and stored[index] != value and column.name not in self.write.only_new:
                # Perhaps another spelling only. The engine finds out when it is handed out.
                carried.wanted.add(row[0])

    def _values(self, index: int, row: Sequence[Wire]) -> list[Any]:
        try:
            return [convert(value) for convert, value in zip(self._converters, row, strict=True)]
        except Unfit:
            pass
        for column, convert, value in zip(self.columns, self._converters, row, strict=True):
            try:
                convert(value)
            except Unfit as problem:
                said = f"column {column.name}: {problem}"
                raise row_refused("value", self.connection.system, self.write.table, index, said=said) from None
        raise AssertionError("one of them does not fit")

    def _column(self, name: str) -> Column:
        found = self.shape.column(name)
        if found is None or found.is_generated:
            said = f"column {name} is gone" if found is None else f"column {name} is computed by the database"
            raise row_refused("table", self.connection.system, self.write.table, said=said)
        return found
