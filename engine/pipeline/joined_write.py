"""A write of rows with joined columns, taken apart into writes of each table, in the order that their references want:
what a row refers to, the row, what refers to it.

Which rows are there is asked in the delivery's own transaction, and those that are found stay locked: what the hub
keeps of them may be older.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

import msgspec

from engine.errors import RowRefused, TableHeld
from engine.model.joined import Empty, list_members, split_name
from engine.model.table import Form, Kind, Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.pipeline.join_plan import JoinPlan, ends
from engine.pipeline.join_rows import first_row, in_order
from engine.ports import Join, JoiningDelivery, KeyRule, TableWrite, WriteKind, WriteResult

# Between a place's name and a join's, in `TableWrite.place`: no name of a place has it.
_BETWEEN = "\x1f"


class JoinedTables:
    """What is joined to what at one target."""

    def __init__(self, plan: JoinPlan, shapes: Mapping[str, Shape], hub_id: str) -> None:
        """`shapes`: what the tables look like, always as they were last looked at."""
        self.plan = plan
        self.hub_id = hub_id
        self._shapes = shapes

    def shape(self, table: str) -> Shape:
        if table not in self._shapes:
            raise TableHeld(
                f"there is no table {table}, which the mapping joins", hint="Correct the mapping, or make the table."
            )
        return self._shapes[table]

    def is_joined(self, place: str) -> bool:
        return _BETWEEN in place


@dataclass(slots=True)
class _Owners:
    """Rows that joined ones belong to: their keys as texts, and what is written to each of their joins.

    `links[i]`: the wire values of row i in the columns that joins link to, by column."""

    table: str
    rids: list[int]
    keys: list[str]
    links: list[dict[str, Wire]]
    values: list[dict[str, Wire]] = field(default_factory=lambda: [])
    """By the joined shape's column names."""


class JoinedDelivery:
    """`engine.ports.Delivery` over another one."""

    def __init__(self, inner: JoiningDelivery, tables: JoinedTables) -> None:
        self._inner = inner
        self._tables = tables

    async def write(self, write: TableWrite) -> WriteResult:
        joins = self._tables.plan.joins.get(write.table)
        if not joins or not write.rows:
            return await self._inner.write(write)
        names = frozenset(join.name for join in joins)
        if write.kind is not WriteKind.DELETE and not any(split_name(c, names)[0] for c in write.columns):
            return await self._inner.write(write)
        async with self._unit():
            try:
                return await _Split(self._inner, self._tables, write, joins).run()
            except TableHeld as error:
                raise RowRefused(error.message, hint=error.hint, reason="table") from error

    def _unit(self) -> AbstractAsyncContextManager[None]:
        return self._inner.unit()


class _Split:
    """One write."""

    def __init__(self, inner: JoiningDelivery, tables: JoinedTables, write: TableWrite, joins: Sequence[Join]) -> None:
        self.inner, self.tables, self.whole, self.joins = inner, tables, write, joins
        names = frozenset(join.name for join in joins)
        self.own = [n for n, column in enumerate(write.columns) if not split_name(column, names)[0]]
        self.written = {column for column in write.columns if split_name(column, names)[0]}
        self.values: list[dict[str, Wire]] = [dict(zip(write.columns, row, strict=True)) for row in write.rows]

    async def run(self) -> WriteResult:
        write = self.whole
        if write.kind is WriteKind.DELETE:
            await self._delete_owned()
            return await self.inner.write(write)
        columns = [write.columns[n] for n in self.own]
        extra: dict[str, list[Wire]] = {}
        for join in self.joins:
            if self._is_shared(join) and ends(join)[1] == "" and self._is_written(join):
                with self._of_other_rows():
                    keys = await self._find_or_make(join, self.values, list(write.rids))
                for column, value in zip(ends(join)[2], keys, strict=True):
                    extra[column] = value
        rows: list[WireRow] = [
            (*(row[n] for n in self.own), *(extra[column][i] for column in extra)) for i, row in enumerate(write.rows)
        ]
        result = await self._write_own((*columns, *extra), rows)
        with self._of_other_rows():
            await self._write_parts(result)
        return result

    @contextmanager
    def _of_other_rows(self) -> Generator[None]:
        """A refusal's index is that of a row of another table; which record it was the engine finds out by halves."""
        try:
            yield
        except RowRefused as error:
            error.row_index = 0 if len(self.whole.rows) == 1 else None
            raise

    async def _write_parts(self, result: WriteResult) -> None:
        """What refers to the rows that are written, and were there."""
        write = self.whole
        missing = set(result.missing)
        kept = [n for n in range(len(write.rows)) if n not in missing]
        owners = _Owners(
            write.table,
            [write.rids[n] for n in kept],
            [self._key_text(n, result) for n in kept],
            [self._links(n, result) for n in kept],
            [self.values[n] for n in kept],
        )
        await self._write_joined("", owners)

    async def _write_own(self, columns: tuple[str, ...], rows: list[WireRow]) -> WriteResult:
        write = self.whole
        if write.kind is WriteKind.UPDATE and len(columns) == len(write.key):
            # Nothing of its own changes; whether the row is there must be known all the same.
            places = [columns.index(name) for name in write.key]
            wanted = [tuple(row[n] for n in places) for row in rows]
            shape = self.tables.shape(write.table)
            found = await self.inner.linked(shape, frozenset(write.key), write.key, wanted)
            text = self.joins[0].texts(shape, write.key)
            there = {text(row) for row in found}
            return WriteResult(missing=tuple(n for n in range(len(rows)) if self._own_key(n) not in there))
        return await self.inner.write(
            TableWrite(
                table=write.table, place=write.place, kind=write.kind, columns=columns, key=write.key, rows=rows,
                rids=write.rids, assigned=write.assigned,
                draw=write.draw, only_new=write.only_new, if_unchanged=write.if_unchanged,
            )
        )  # fmt: skip

    def _own_key(self, n: int) -> str:
        parts = [_text(self.values[n][name]) for name in self.whole.key]
        return parts[0] if len(parts) == 1 else _json(parts)

    def _key_text(self, n: int, result: WriteResult) -> str:
        return result.keys[n] if self.whole.assigned is not None else self._own_key(n)

    def _links(self, n: int, result: WriteResult) -> dict[str, Wire]:
        if self.whole.assigned is None:
            return self.values[n]
        return {**self.values[n], self.whole.assigned: result.keys[n]}

    # ------------------------------------------------------------------------------------- what is joined

    def _is_shared(self, join: Join) -> bool:
        """Whether its owner refers to it, instead of it to its owner."""
        columns, _, _ = ends(join)
        return columns == join.key and bool(join.find)

    def _is_written(self, join: Join) -> bool:
        """Whether a column of it is, or of what it refers to."""
        if any(column.startswith(f"{join.name}.") for column in self.written):
            return True
        return any(ends(other)[1] == join.name and self._is_written(other) for other in self.joins)

    def _columns(self, join: Join) -> list[str]:
        return [c for c in self.whole.columns if c in self.written and c.startswith(f"{join.name}.")]

    async def _write_joined(self, owner: str, owners: _Owners) -> None:
        """The joins whose rows refer to these."""
        for join in self.joins:
            if ends(join)[1] == owner and not self._is_shared(join) and self._is_written(join) and owners.rids:
                await (self._write_list if join.is_list else self._write_rows)(join, owners)

    async def _write_rows(self, join: Join, owners: _Owners) -> None:
        names, values = await self._wanted(join, owners.values, owners.rids)
        is_in_key = not set(names).isdisjoint(join.key)
        columns, links, shape, rows = await self._owned(join, owners, is_whole=is_in_key)
        changes = _Changes(join, shape, tuple(names))
        for n, row in enumerate(values):
            present = rows.of(links[n])
            is_empty = all(value is None for value in row)
            if present is not None and is_empty and (is_in_key or join.empty is Empty.DELETE):
                changes.deletes.append((owners.rids[n], rows.key(present)))
            elif present is not None and rows.values(present, names) == row:
                continue
            elif present is not None and not is_in_key:
                changes.updates.append((owners.rids[n], (*rows.key(present), *row)))
            elif not is_empty:
                kept: dict[str, Wire] = {}
                if present is not None:
                    # Another key is another row: what was in the other columns goes along.
                    changes.deletes.append((owners.rids[n], rows.key(present)))
                    kept = {
                        column.name: value
                        for column, value in zip(shape.columns, present, strict=True)
                        if value is not ABSENT and not column.is_generated
                    }
                own = kept | dict(zip(names, row, strict=True)) | dict(zip(columns, links[n], strict=True))
                changes.add(owners.rids[n], rows.constants | own, owners.keys[n])
        await self._make_keys(changes)
        await changes.write(self.inner, self._place(join))

    async def _write_list(self, join: Join, owners: _Owners) -> None:
        """What is there and not wanted goes, what is wanted and not there comes; the rest stays as it is."""
        columns, links, shape, rows = await self._owned(join, owners)
        listed = [column for column in self.whole.columns if column in self.written and self._is_below(column, join)]
        members = [list_members(value[column]) for value in owners.values for column in listed]
        spread = [
            (n, member)
            for n, found in enumerate(members)
            for member in (found if join.ordinal else dict.fromkeys(found))
        ]
        values: list[dict[str, Wire]] = [{listed[0]: self._member(join, listed[0], member)} for _, member in spread]
        names, wanted = await self._wanted(join, values, [owners.rids[n] for n, _ in spread])
        changes = _Changes(join, shape, (join.ordinal,) if join.ordinal else ())
        left = [rows.by_values(links[n], names) for n in range(len(owners.rids))]
        counts = [0] * len(owners.rids)
        for (n, member), row in zip(spread, wanted, strict=True):
            counts[n] += 1
            number = _fit(str(counts[n]), shape, join.ordinal) if join.ordinal else None
            present = left[n].get(_json([_text(value) for value in row]))
            if present:
                found = present.pop(0)
                if join.ordinal and rows.values(found, [join.ordinal]) != [number]:
                    changes.updates.append((owners.rids[n], (*rows.key(found), number)))
                continue
            own = dict(zip(names, row, strict=True)) | dict(zip(columns, links[n], strict=True))
            if join.ordinal:
                own[join.ordinal] = number
            changes.add(owners.rids[n], rows.constants | own, _json([owners.keys[n], str(member)]))
        for n, groups in enumerate(left):
            changes.deletes += [(owners.rids[n], rows.key(row)) for group in groups.values() for row in group]
        await self._make_keys(changes)
        await changes.write(self.inner, self._place(join))

    def _is_below(self, column: str, join: Join) -> bool:
        """Whether the column is the join's, or of what it refers to."""
        name = column.partition(".")[0]
        while name not in ("", join.name):
            name = next((ends(other)[1] for other in self.joins if other.name == name), "")
        return name == join.name

    def _member(self, join: Join, column: str, member: str | int) -> Wire:
        """A member as its column's values are."""
        name, _, rest = column.partition(".")
        table = next((other.table for other in self.joins if other.name == name), join.table)
        shape = self.tables.shape(table)
        return str(member) if shape.form is Form.TEXT else _fit(str(member), shape, rest)

    async def _owned(
        self, join: Join, owners: _Owners, *, is_whole: bool = False
    ) -> tuple[tuple[str, ...], list[list[Wire]], Shape, _Rows]:
        """The columns that a join links by, their values for each owner, and the rows that are there: what is used of
        them, or all of it."""
        columns, _, others = ends(join)
        shape = self.tables.shape(join.table)
        # Spelt as the table spells it: the owner's key may be of another type.
        links = [
            [_fit(link[name], shape, column) for name, column in zip(others, columns, strict=True)]
            for link in owners.links
        ]
        wanted = frozenset(column.name for column in shape.columns) if is_whole else join.used
        found = await self._linked(join, shape, columns, [tuple(link) for link in links], wanted)
        return columns, links, shape, _Rows(join, shape, found)

    async def _wanted(
        self, join: Join, values: Sequence[dict[str, Wire]], rids: Sequence[int]
    ) -> tuple[list[str], list[list[Wire]]]:
        """The columns of a join that are written, and their values, those that refer to shared rows included."""
        names = [column.partition(".")[2] for column in self._columns(join)]
        rows = [[value[column] for column in self._columns(join)] for value in values]
        for other in self.joins:
            if self._is_shared(other) and ends(other)[1] == join.name and self._is_written(other):
                keys = await self._find_or_make(other, values, rids)
                names += ends(other)[2]
                for n, row in enumerate(rows):
                    row += [column[n] for column in keys]
        return names, rows

    def _place(self, join: Join) -> str:
        return f"{self.whole.place}{_BETWEEN}{join.name}"

    async def _find_or_make(
        self, join: Join, values: Sequence[dict[str, Wire]], rids: Sequence[int]
    ) -> list[list[Wire]]:
        """The keys, column by column, of the rows that have these values: those that are there, or new ones."""
        names = [column.partition(".")[2] for column in self._columns(join)]
        rows = [[value[column] for column in self._columns(join)] for value in values]
        places = [names.index(name) for name in join.find]
        wanted = [tuple(row[n] for n in places) for row in rows]
        asked = [value for value in dict.fromkeys(wanted) if None not in value]
        shape = self.tables.shape(join.table)
        found = await self._linked(join, shape, join.find, asked)
        present = _Rows(join, shape, found, join.find)
        changes = _Changes(join, shape, tuple(names))
        keys: dict[tuple[Wire, ...], tuple[Wire, ...]] = {}
        new: dict[tuple[Wire, ...], int] = {}
        for n, value in enumerate(wanted):
            if value in keys or value in new or None in value:
                continue
            row = present.of(list(value))
            if row is not None:
                keys[value] = present.key(row)
                continue
            own = dict(zip(names, rows[n], strict=True))
            text = _json([_text(part) for part in value])
            new[value] = changes.add(rids[n], present.constants | own, text)
        await self._make_keys(changes)
        made = await changes.write(self.inner, self._place(join))
        for value, n in new.items():
            keys[value] = (_fit(made[n], shape, join.key[0]),) if n in made else changes.key(n)
        nothing = (None,) * len(join.key)
        return [[(keys.get(value) or nothing)[n] for value in wanted] for n in range(len(join.key))]

    async def _make_keys(self, changes: _Changes) -> None:
        """Keys of our making for new rows. One that a row has already is not taken: users may have made another of what
        was ours, given it to another owner, or changed what it says."""
        attempts = dict.fromkeys(changes.keyless(), 0)
        if not attempts:
            return
        join, shape = changes.join, changes.shape
        rows, text = join.rows(shape), join.texts(shape, join.key)
        blank: list[Wire] = [None] * len(shape.columns)
        taken: set[str | None] = set()
        while attempts:
            found: dict[int, str | None] = {}
            for n, attempt in attempts.items():
                key = changes.make_key(n, rows.make_key, self.tables.hub_id, attempt)
                probe = blank.copy()
                for name, value in zip(join.key, key, strict=True):
                    probe[shape.index(name) or 0] = value
                found[n] = text(tuple(probe))
            there = await self._linked(join, shape, join.key, [changes.key(n) for n in found])
            taken |= {text(row) for row in there if rows.takes(row)}
            again: dict[int, int] = {}
            for n, key_text in found.items():
                if key_text in taken:
                    again[n] = attempts[n] + 1
                taken.add(key_text)
            attempts = again

    async def _linked(
        self,
        join: Join,
        shape: Shape,
        columns: Sequence[str],
        values: Sequence[tuple[Wire, ...]],
        wanted: frozenset[str] | None = None,
    ) -> list[WireRow]:
        fitting = [tuple(_fit(v, shape, c) for v, c in zip(row, columns, strict=True)) for row in values]
        there = [row for row in fitting if None not in row]
        return await self.inner.linked(shape, wanted or join.used, columns, there)

    async def _delete_owned(self) -> None:
        """Rows that refer to those that are about to be deleted, or nobody could delete these."""
        for join in self.joins:
            columns, owner, others = ends(join)
            if owner or self._is_shared(join) or set(others) != set(self.whole.key):
                continue
            links = [tuple(value[name] for name in others) for value in self.values]
            shape = self.tables.shape(join.table)
            found = await self._linked(join, shape, columns, links)
            rows = _Rows(join, shape, found)
            changes = _Changes(join, shape, ())
            changes.deletes = [(self.whole.rids[0], rows.key(row)) for row in rows.all]
            await changes.write(self.inner, self._place(join))


class _Rows:
    """Rows of a joined table that were found, by what they are linked by."""

    def __init__(self, join: Join, shape: Shape, found: Sequence[WireRow], by: tuple[str, ...] | None = None) -> None:
        compiled = join.rows(shape)
        self.constants = compiled.constants
        self.all = [row for row in found if compiled.takes(row)]
        self._join, self._shape = join, shape
        columns = ends(join)[0] if by is None else by
        self._text = join.texts(shape, columns)
        self._blank: list[Wire] = [None] * len(shape.columns)
        self._places = [n for name in columns if (n := shape.index(name)) is not None]
        self._keys = [n for name in join.key if (n := shape.index(name)) is not None]
        self._by: dict[str, list[WireRow]] = {}
        for row in self.all:
            text = self._text(row)
            if text is not None:
                self._by.setdefault(text, []).append(row)

    def of(self, values: Sequence[Wire]) -> WireRow | None:
        return first_row(self._join, self._shape, self._group(values))

    def by_values(self, links: Sequence[Wire], names: Sequence[str]) -> dict[str, list[WireRow]]:
        """The rows that are linked by `links`, by what they have in `names`."""
        found: dict[str, list[WireRow]] = {}
        for row in in_order(self._join, self._shape, self._group(links)):
            found.setdefault(_json([_text(value) for value in self.values(row, names)]), []).append(row)
        return found

    def _group(self, values: Sequence[Wire]) -> list[WireRow]:
        probe = self._blank.copy()
        for place, value in zip(self._places, values, strict=True):
            probe[place] = value
        text = self._text(tuple(probe))
        return [] if text is None else self._by.get(text, [])

    def key(self, row: WireRow) -> tuple[Wire, ...]:
        return tuple(row[n] for n in self._keys)

    def values(self, row: WireRow, names: Sequence[str]) -> list[Wire]:
        return [row[n] for name in names if (n := self._shape.index(name)) is not None]


@dataclass(slots=True)
class _Changes:
    """What is to be done to a joined table. `names`: the columns that are written."""

    join: Join
    shape: Shape
    names: tuple[str, ...]
    deletes: list[tuple[int, tuple[Wire, ...]]] = field(default_factory=lambda: [])
    updates: list[tuple[int, WireRow]] = field(default_factory=lambda: [])
    inserts: list[tuple[int, dict[str, Wire]]] = field(default_factory=lambda: [])
    _owners: dict[int, tuple[str, str]] = field(default_factory=lambda: {})
    """Of inserts that want a key of our making: its column, and what it is made from."""

    def add(self, rid: int, row: dict[str, Wire], owner: str) -> int:
        """A new row; its number. `owner`: what its key is made from."""
        lacking = [name for name in self.join.key if name not in row]
        if lacking and self.join.key_rule is KeyRule.UUID:
            self._owners[len(self.inserts)] = (lacking[0], owner)
        elif lacking and self.join.key_rule is KeyRule.NONE:
            raise RowRefused(
                f"table {self.join.table}: a row is wanted for a new value, and nobody makes its key",
                hint='Say who does, in the join: allocate = "uuid" or "assigned".',
                reason="value",
            )
        self.inserts.append((rid, row))
        return len(self.inserts) - 1

    def keyless(self) -> list[int]:
        """Numbers of the new rows that want a key of our making."""
        return list(self._owners)

    def make_key(self, n: int, make: Callable[[str, str], str], hub_id: str, attempt: int) -> tuple[Wire, ...]:
        """Give row `n` a key, another one at each attempt."""
        column, owner = self._owners[n]
        self.inserts[n][1][column] = make(hub_id, f"{owner}\x1f{attempt}" if attempt else owner)
        return self.key(n)

    def key(self, n: int) -> tuple[Wire, ...]:
        """The key of new row `n`, which is known."""
        return tuple(self.inserts[n][1][name] for name in self.join.key)

    async def write(self, inner: JoiningDelivery, place: str) -> dict[int, str]:
        """Carry it out; the keys that the database gave to new rows, by their number."""
        key, written = self.join.key, tuple(name for name in self.names if name not in self.join.key)
        if self.deletes:
            rows: list[WireRow] = [values for _, values in self.deletes]
            await inner.write(self._write(place, WriteKind.DELETE, key, rows, [rid for rid, _ in self.deletes]))
        if self.updates and written:
            kept = [n for n, name in enumerate((*key, *self.names)) if n < len(key) or name in written]
            rows = [tuple(row[n] for n in kept) for _, row in self.updates]
            await inner.write(
                self._write(place, WriteKind.UPDATE, (*key, *written), rows, [rid for rid, _ in self.updates])
            )
        if not self.inserts:
            return {}
        # One that is written anew under another key brings columns along that a new one does not have.
        by_columns: dict[tuple[str, ...], list[int]] = {}
        for n, (_, row) in enumerate(self.inserts):
            by_columns.setdefault(tuple(sorted(row)), []).append(n)
        made: dict[int, str] = {}
        for columns, numbers in by_columns.items():
            rows = [tuple(self.inserts[n][1][name] for name in columns) for n in numbers]
            write = self._write(place, WriteKind.INSERT, columns, rows, [self.inserts[n][0] for n in numbers])
            # What `where` fixes is set in a row that is there too: it is ours, and took no part any more (a user had
            # marked it as deleted).
            write.assigned = next((name for name in key if name not in columns), None)
            made |= zip(numbers, (await inner.write(write)).keys, strict=False)
        return made

    def _write(
        self, place: str, kind: WriteKind, columns: tuple[str, ...], rows: list[WireRow], rids: list[int]
    ) -> TableWrite:
        return TableWrite(
            table=self.join.table, place=place, kind=kind, columns=columns, key=self.join.key, rows=rows, rids=rids
        )


def _fit(value: Wire, shape: Shape, name: str) -> Wire:
    """A key's value for a column of a table whose values are the driver's own."""
    column = shape.column(name)
    if shape.form is Form.TEXT or column is None or value is None:
        return value
    if column.kind is Kind.INTEGER and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return str(value) if column.kind is Kind.TEXT and isinstance(value, int) else value


def _text(value: Wire) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _json(parts: list[str]) -> str:
    return msgspec.json.encode(parts).decode()
