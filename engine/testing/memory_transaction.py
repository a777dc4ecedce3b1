"""Tables of a memory database and what a transaction does to them: rows, constraints, undo."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from engine.errors import RowRefused
from engine.model.change import DELETE, INSERT, UPDATE, EventKind, TableEvent
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, Wire, WireRow

Key = tuple[Wire, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """Columns that hold the key of a row of `table`, or null."""

    columns: tuple[str, ...]
    table: str


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """One row change with the whole row before and after it; None where there was or is no row.

    `toasted` and `has_full_images` are the table's: what of this the log sends.
    """

    shape: Shape
    before: WireRow | None
    after: WireRow | None
    toasted: frozenset[str] = frozenset()
    has_full_images: bool = True

    @property
    def op(self) -> int:
        if self.before is None:
            return INSERT
        return DELETE if self.after is None else UPDATE

    def key(self, row: WireRow) -> Key:
        return tuple(row[n] for n in key_indexes(self.shape))

    @property
    def moves_key(self) -> bool:
        return self.before is not None and self.after is not None and self.key(self.before) != self.key(self.after)

    def undo(self, rows: dict[Key, WireRow]) -> None:
        """Take the change out of `rows`."""
        if self.after is not None:
            del rows[self.key(self.after)]
        if self.before is not None:
            rows[self.key(self.before)] = self.before


@dataclass(slots=True, eq=False)
class MemoryTable:
    """A table: rows by key. `counter` is the last number handed out as a key; `indexes` are for its constraints."""

    shape: Shape
    foreign_keys: tuple[ForeignKey, ...] = ()
    toasted: frozenset[str] = frozenset()
    has_full_images: bool = True
    store: Callable[[WireRow], WireRow] | None = None
    rows: dict[Key, WireRow] = field(default_factory=lambda: {})
    counter: int = 0
    referred_by: list[tuple[MemoryTable, ForeignKey]] = field(default_factory=lambda: [])
    indexes: dict[tuple[str, ...], dict[Key, set[Key]]] = field(default_factory=lambda: {})
    _places: dict[str, int] = field(default_factory=lambda: {})
    """Column → where it stands in a row."""
    _key_places: list[int] = field(default_factory=lambda: [])

    def __post_init__(self) -> None:
        self._find_places()
        for columns in (*self.shape.unique, *(fk.columns for fk in self.foreign_keys)):
            self.indexes[columns] = {}

    def column(self, name: str) -> Column:
        found = self.shape.column(name)
        assert found is not None, f"table {self.shape.name} has no column {name}"
        return found

    def named(self, row: WireRow) -> dict[str, Wire]:
        return dict(zip(self._places, row, strict=True))

    def key(self, row: WireRow) -> Key:
        return tuple([row[n] for n in self._key_places])

    def values(self, row: WireRow, columns: Sequence[str]) -> Key:
        return tuple([row[self._places[name]] for name in columns])

    def put(self, key: Key, row: WireRow | None) -> None:
        """Set or remove the row, indexes included; checks nothing."""
        old = self.rows.pop(key, None)
        if old is not None:
            for columns, index in self.indexes.items():
                index[self.values(old, columns)].discard(key)
        if row is not None:
            self.rows[key] = row
            for columns, index in self.indexes.items():
                index.setdefault(self.values(row, columns), set()).add(key)

    def rebuild(self, shape: Shape, rows: Sequence[WireRow]) -> None:
        """Another shape, and the rows under it."""
        self.shape = shape
        self._find_places()
        self.rows = {}
        self.indexes = {columns: {} for columns in (*shape.unique, *(fk.columns for fk in self.foreign_keys))}
        for row in rows:
            self.put(self.key(row), row)

    def _find_places(self) -> None:
        self._places = {column.name: n for n, column in enumerate(self.shape.columns)}
        self._key_places = key_indexes(self.shape)

    def next_key(self) -> Wire:
        """A key that the table hands out; those that users chose themselves are skipped."""
        while True:
            self.counter += 1
            key: Wire = self.counter if self.shape.form is Form.NATIVE else str(self.counter)
            if (key,) not in self.rows:
                return key


class MemoryTransaction:
    """Changes of one transaction, made in place at once and undone on roll-back. Statements are atomic."""

    def __init__(self, system: str, tables: Mapping[str, MemoryTable]) -> None:
        self.system = system
        self.changes: list[LoggedChange | TableEvent] = []
        self._tables = tables
        self._undo: list[Callable[[], None]] = []
        self._depth = 0

    def insert(self, table: str, values: Mapping[str, Wire]) -> Key:
        """A new row; columns not given are null, or the next number where the table hands out keys. Returns its key."""
        found = self._tables[table]
        row = dict.fromkeys((column.name for column in found.shape.columns), None) | dict(values)
        for name in found.shape.key:
            if row[name] is None and found.column(name).is_assigned:
                row[name] = found.next_key()
        assert len(row) == len(found.shape.columns), f"table {table} lacks a column of {sorted(values)}"
        after = tuple(row.values())
        with self.statement():
            if found.key(after) in self._tables[table].rows:
                raise self._refused(found, "unique", "a row with this key exists", found.shape.key)
            return self._write(found, None, after)

    def update(self, table: str, key: Wire | Key, values: Mapping[str, Wire]) -> Key | None:
        """Change columns of a row, key columns too. Returns its key, None when there is no such row."""
        found = self._tables[table]
        before = found.rows.get(_key(key))
        if before is None:
            return None
        row = found.named(before) | dict(values)
        assert len(row) == len(before), f"table {table} lacks a column of {sorted(values)}"
        after = tuple(row.values())
        with self.statement():
            if found.key(after) != _key(key) and found.key(after) in found.rows:
                raise self._refused(found, "unique", "a row with this key exists", found.shape.key)
            return self._write(found, before, after)

    def delete(self, table: str, key: Wire | Key) -> bool:
        """Remove a row; False when there is none."""
        found = self._tables[table]
        before = found.rows.get(_key(key))
        if before is None:
            return False
        with self.statement():
            self._write(found, before, None)
        return True

    def truncate(self, table: str) -> None:
        """Empty the table; the log says so in one event instead of row by row."""
        found = self._tables[table]
        for child, foreign_key in found.referred_by:
            index = child.indexes[foreign_key.columns]
            if child is not found and any(keys and None not in key for key, keys in index.items()):
                raise self._refused(child, "foreign_key", "rows refer to the table", foreign_key.columns)
        for key in list(found.rows):
            self._put(found, key, None)
        self.changes.append(TableEvent(EventKind.TRUNCATED, table))

    def row(self, table: str, key: Wire | Key) -> dict[str, Wire] | None:
        found = self._tables[table]
        row = found.rows.get(_key(key))
        return None if row is None else found.named(row)

    @contextmanager
    def statement(self) -> Generator[None]:
        """What happens inside is there as a whole or not at all. Statements inside are part of it.

        References are checked when a statement ends that is not part of another.
        """
        changes, undo = len(self.changes), len(self._undo)
        self._depth += 1
        try:
            yield
            for change in self.changes[changes:] if self._depth == 1 else ():
                if isinstance(change, LoggedChange):
                    self.check_references(change)
        except BaseException:
            self._roll_back_to(changes, undo)
            raise
        finally:
            self._depth -= 1

    def roll_back(self) -> None:
        self._roll_back_to(0, 0)

    def check_references(self, change: LoggedChange) -> None:
        """Raise `RowRefused` where the change leaves a reference without a row."""
        table = self._tables[change.shape.name]
        row = change.after
        for foreign_key in table.foreign_keys if row is not None and table.rows.get(table.key(row)) == row else ():
            wanted = table.values(row, foreign_key.columns) if row is not None else ()
            if None not in wanted and wanted not in self._tables[foreign_key.table].rows:
                raise self._refused(table, "foreign_key", f"no row of {foreign_key.table}", foreign_key.columns)
        if change.before is not None and table.key(change.before) not in table.rows:
            for child, foreign_key in table.referred_by:
                if child.indexes[foreign_key.columns].get(table.key(change.before)):
                    raise self._refused(
                        table, "foreign_key", f"rows of {child.shape.name} refer to it", foreign_key.columns
                    )

    def _write(self, table: MemoryTable, before: WireRow | None, after: WireRow | None) -> Key:
        if after is not None and table.store is not None:
            after = table.store(after)
        if after is not None:
            self._check_row(table, before, after)
        key = table.key(before) if before is not None else ()
        if before is not None:
            self._put(table, key, None)
        if after is not None:
            key = table.key(after)
            self._put(table, key, after)
        self.changes.append(LoggedChange(table.shape, before, after, table.toasted, table.has_full_images))
        return key

    def _check_row(self, table: MemoryTable, before: WireRow | None, after: WireRow) -> None:
        for column, value in zip(table.shape.columns, after, strict=True):
            assert value is not ABSENT, f"{table.shape.name}.{column.name} is not a value"
            if value is None:
                if not column.is_nullable or column.name in table.shape.key:
                    raise self._refused(table, "not_null", "null where a value must be", (column.name,))
            elif not _fits(table.shape.form, column, value):
                raise self._refused(table, "value", f"a value that is no {column.type}", (column.name,))
        own = None if before is None else table.key(before)
        for columns in table.shape.unique:
            wanted = table.values(after, columns)
            if None not in wanted and table.indexes[columns].get(wanted, set()) - {own}:
                raise self._refused(table, "unique", "another row has these values", columns)

    def _put(self, table: MemoryTable, key: Key, row: WireRow | None) -> None:
        old = table.rows.get(key)
        table.put(key, row)
        self._undo.append(lambda: table.put(key, old))

    def _roll_back_to(self, changes: int, undo: int) -> None:
        del self.changes[changes:]
        while len(self._undo) > undo:
            self._undo.pop()()

    def _refused(self, table: MemoryTable, reason: str, found: str, columns: Sequence[str]) -> RowRefused:
        return RowRefused(
            f"{self.system} refused a row of {table.shape.name}: {found}, column {', '.join(columns)}",
            hint="Mend the record at its source or the constraint at the target.",
            reason=reason,
            system=self.system,
            table=table.shape.name,
            column=columns[0],
            constraint=f"{table.shape.name}_{'_'.join(columns)}_{reason}",
        )


def key_indexes(shape: Shape) -> list[int]:
    return [n for name in shape.key for n, column in enumerate(shape.columns) if column.name == name]


def _key(key: Wire | Key) -> Key:
    return key if isinstance(key, tuple) else (key,)


def _fits(form: Form, column: Column, value: Wire) -> bool:
    """Whether the column takes the value; in the form TEXT everything must have come as text."""
    if form is Form.NATIVE:
        return not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if column.kind is Kind.INTEGER:
        return value.removeprefix("-").isdecimal()
    if column.kind is Kind.BOOLEAN:
        return value in ("t", "f")
    if column.labels:
        return value in column.labels
    return column.length is None or len(value) <= column.length
