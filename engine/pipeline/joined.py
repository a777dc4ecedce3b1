"""Rows of several tables that are one row to the mapping: what the log tells of each, put together.

The hub keeps the rows of all tables of a join as the log told of them last. A change of one of them is applied there,
and every row of a mapped table whose joined row it may have changed is read from there, whole. This is done in the
transaction that commits the batch: what is kept is always what the log said up to the hub's position.

What one source transaction does to these tables is put together once it has done all of it: rows that are deleted and
inserted again have not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from engine.errors import SourceError, TableHeld, ValueRefused
from engine.hub.joined import Document, KeptTable, forget_rows, register_joined
from engine.hub.transaction import HubTransaction
from engine.model.change import DELETE, READ, UPDATE, TableEvent, TableRows
from engine.model.joined import JoinedTable, joined_shape
from engine.model.table import Shape
from engine.model.value import ABSENT, WireRow
from engine.pipeline.join_plan import Base, ends, listed
from engine.pipeline.join_rows import RowMaker
from engine.pipeline.topology import SystemPart
from engine.ports import Join, JoinedRows, RowText


@dataclass(slots=True)
class RawRows:
    """Changes of one table that is joined, or joins others, as the source gave them; `keys` runs parallel to its rows,
    "" where a row has none."""

    table: str
    rows: TableRows
    keys: list[str]
    old_keys: dict[int, str] = field(default_factory=lambda: {})

    def extend(self, following: RawRows) -> bool:
        """Add what came next, if the table still looked the same."""
        if following.rows.shape != self.rows.shape:
            return False
        count = len(self.keys)
        rows, more = self.rows, following.rows
        old = rows.old | {count + n: row for n, row in more.old.items()}
        self.rows = TableRows(rows.shape, rows.ops + more.ops, rows.rows + more.rows, rows.times + more.times, old)
        self.keys += following.keys
        self.old_keys |= {count + n: key for n, key in following.old_keys.items()}
        return True

    def drop(self, touched: set[str]) -> None:
        """Leave out the rows with these keys."""
        kept = [n for n, key in enumerate(self.keys) if key not in touched]
        rows = self.rows
        self.rows = TableRows(
            rows.shape,
            bytearray(rows.ops[n] for n in kept),
            [rows.rows[n] for n in kept],
            [rows.times[n] for n in kept],
        )
        self.keys = [self.keys[n] for n in kept]

    def is_partial(self, used: frozenset[str]) -> bool:
        """Whether a row came without a column that is needed."""
        needed = [n for n, column in enumerate(self.rows.shape.columns) if column.name in used]
        return any(
            row[n] is ABSENT
            for op, row in zip(self.rows.ops, self.rows.rows, strict=True)
            if op != DELETE
            for n in needed
        )


class Shaped:
    """One base table under the shape that it has now."""

    def __init__(self, base: Base, shape: Shape, text: RowTextMaker) -> None:
        self.shape = shape
        self.names = [column.name for column in shape.columns]
        self.used = [(n, name) for n, name in enumerate(self.names) if name in base.used]
        self.texts: dict[tuple[str, ...], RowText] = {}
        self._text = text

    def text(self, columns: tuple[str, ...]) -> RowText:
        found = self.texts.get(columns)
        if found is None:
            found = self.texts[columns] = self._text(self.shape, columns)
        return found

    def document(self, row: WireRow, old: Document | None) -> Document:
        """The columns that are needed; what was not sent is what it was."""
        found: Document = {}
        for n, name in self.used:
            value = row[n]
            if value is not ABSENT:
                found[name] = value
            elif old is not None and name in old:
                found[name] = old[name]
        return found

    def row(self, document: Document) -> WireRow:
        get = document.get
        return tuple([get(name, ABSENT) for name in self.names])

    def filled(self, row: WireRow, document: Document) -> WireRow:
        """The row with what was not sent taken from what is kept."""
        if ABSENT not in row:
            return row
        return tuple(
            document.get(name, ABSENT) if value is ABSENT else value
            for name, value in zip(self.names, row, strict=True)
        )


class RowTextMaker(Protocol):
    def __call__(self, shape: Shape, columns: Sequence[str]) -> RowText: ...


class Joiner:
    """Puts the rows of one system's joined tables together. Holds shapes, no rows."""

    def __init__(self, system: SystemPart, shapes: Mapping[str, Shape]) -> None:
        self.system = system
        self.plan = system.joins
        self.numbers: dict[str, tuple[int, dict[tuple[str, ...], int]]] = {}
        """The hub's, by table: `register`."""
        self._shapes: dict[str, Shape] = {t: shape for t, shape in shapes.items() if t in self.plan.bases}
        some = next(iter(self.plan.joins.values()))[0]
        self._text: RowTextMaker = some.texts
        self._shaped: dict[str, Shaped] = {}
        self._rows: dict[tuple[str, str], JoinedRows] = {}
        self._joined: dict[str, JoinedTable] = {}
        self._makers: dict[str, RowMaker] = {}

    # -------------------------------------------------------------------------------------------- shapes

    def reshape(self, shape: Shape) -> None:
        """The table looks so from now on."""
        if self._shapes.get(shape.name) != shape:
            self._shapes[shape.name] = shape
            self._shaped.pop(shape.name, None)
            for table in self.plan.owners(shape.name):
                self._joined.pop(table, None)
                for join in self.plan.joins[table]:
                    if join.table == shape.name:
                        self._rows.pop((table, join.name), None)

    def joined(self, table: str) -> JoinedTable:
        """What the mapped table looks like with what is joined to it."""
        found = self._joined.get(table)
        if found is None:
            joins = self.plan.joins[table]
            parts = [(join.name, self._shape(join.table)) for join in joins]
            found = self._joined[table] = joined_shape(self._shape(table), parts, listed(joins))
            self._makers[table] = RowMaker(joins, [shape for _, shape in parts])
        return found

    def maker(self, table: str) -> RowMaker:
        self.joined(table)
        return self._makers[table]

    def table_of(self, table: str, owner: str) -> str:
        """The table of a join of a mapped table; "": its own."""
        return next((join.table for join in self.plan.joins[table] if join.name == owner), table)

    def _shape(self, table: str) -> Shape:
        if table not in self._shapes:
            raise SourceError(
                f"system {self.system.name}: there is no table {table}, which the mapping joins",
                hint=f"Correct the mapping, or put the table back; then run `concord schema ack {self.system.name}`.",
                system=self.system.name,
                table=table,
            )
        return self._shapes[table]

    def shaped(self, table: str) -> Shaped:
        found = self._shaped.get(table)
        if found is None:
            found = self._shaped[table] = Shaped(self.plan.bases[table], self._shape(table), self._text)
        return found

    def compiled(self, table: str, join: Join) -> JoinedRows:
        found = self._rows.get((table, join.name))
        if found is None:
            found = self._rows[table, join.name] = join.rows(self._shape(join.table))
        return found

    def raw(self, table: str, rows: TableRows) -> RawRows:
        """Rows of a base table with their keys. Raises `SourceError` where the mapping does not fit the table."""
        self.reshape(rows.shape)
        try:
            text = self.shaped(table).text(self.plan.bases[table].key)
        except TableHeld as error:
            raise self._unfit(error) from None
        keys = [text(row) or "" for row in rows.rows]
        return RawRows(table, rows, keys, {n: text(row) or "" for n, row in rows.old.items()})

    def register(self, tx: HubTransaction) -> None:
        """Learn the hub's numbers; to be done once before any rows are put together."""
        self.numbers = registered(tx, self.system)

    def _unfit(self, error: TableHeld) -> SourceError:
        return SourceError(error.message, hint=error.hint, system=self.system.name)

    def events(self, events: Sequence[TableEvent]) -> list[TableEvent]:
        """What happened to a joined table has happened to those that it is joined to."""
        found: list[TableEvent] = []
        for event in events:
            if event.table not in self.plan.bases:
                found.append(event)
                continue
            if event.shape is not None:
                self.reshape(event.shape)
            for table in self.plan.owners(event.table):
                shape = self.joined(table).shape if event.shape is not None else None
                found.append(TableEvent(event.kind, table, shape, event.detail))
        return found

    # ---------------------------------------------------------------------------------------------- rows

    def put_together(self, tx: HubTransaction, raws: Sequence[RawRows]) -> PutTogether:
        """Keep the rows, and give the rows of mapped tables that they change."""
        try:
            return _Step(self, tx, raws).run()
        except TableHeld as error:
            raise self._unfit(error) from None


class PutTogether(NamedTuple):
    """Rows of mapped tables. `refused`: by table and index, those of which it cannot be told what belongs to them."""

    tables: dict[str, TableRows]
    refused: dict[str, dict[int, ValueRefused]]


class _Event(NamedTuple):
    """A change of a mapped table's own row. `old`: the row before, where its key changed."""

    op: int
    key: str
    row: WireRow
    old: WireRow | None


@dataclass(slots=True)
class _Touched:
    """What one transaction did to a mapped table: its own changes in order, and the keys of rows that it may have
    changed by changing what is joined to them."""

    events: list[_Event] = field(default_factory=lambda: [])
    keys: dict[str, None] = field(default_factory=lambda: {})

    def changes(self) -> list[_Event]:
        """What became of each row in the end. Where keys changed every step counts: a key may have been of two rows."""
        if any(event.old is not None for event in self.events):
            return self.events
        last: dict[str, _Event] = {}
        for event in self.events:
            before = last.pop(event.key, None) if event.key else None
            is_anew = before is not None and before.op == DELETE and event.op != DELETE
            # A row without a key is none of the others.
            last[event.key or f"\0{len(last)}"] = event._replace(op=UPDATE) if is_anew else event
        return list(last.values())


class _Step:
    """Some changes, in one hub transaction."""

    def __init__(self, joiner: Joiner, tx: HubTransaction, raws: Sequence[RawRows]) -> None:
        self.joiner, self.tx, self.raws, self.plan = joiner, tx, raws, joiner.plan
        for raw in raws:
            joiner.reshape(raw.rows.shape)
        bases = self.plan.bases
        self.kept = {name: KeptTable(tx, *joiner.numbers[name]) for name in bases}
        done = {name for name, (_, is_done) in _copy_states(tx, joiner.system).items() if is_done}
        self.ready = {table for table, joins in self.plan.joins.items() if all(join.table in done for join in joins)}
        self.found: dict[str, TableRows] = {}
        self.refused: dict[str, dict[int, ValueRefused]] = {}

    def run(self) -> PutTogether:
        for time, changes in _transactions(self.raws):
            touched: dict[str, _Touched] = {table: _Touched() for table in self.plan.joins}
            for raw, n in changes:
                self._apply(raw, n, touched)
            for table, rows in touched.items():
                self._emit(table, rows, time)
        return PutTogether(self.found, self.refused)

    def _apply(self, raw: RawRows, n: int, touched: dict[str, _Touched]) -> None:
        table, op, row, key = raw.table, raw.rows.ops[n], raw.rows.rows[n], raw.keys[n]
        shaped, kept, own = self.joiner.shaped(table), self.kept[table], touched.get(table)
        if not key:
            # A row that cannot be told from others is nobody's part; a mapped one is parked like any without a key.
            if own is not None:
                own.events.append(_Event(op, "", row, None))
            return
        old = current = kept.get(key)
        before = raw.old_keys.get(n, key)
        if before != key:
            old = kept.get(before)
            if old is not None:
                self._touch_owners(table, shaped.row(old), touched)
                kept.remove(before, self._texts(table, shaped.row(old)))
        if current is not None:
            self._touch_owners(table, shaped.row(current), touched)
        was = {} if current is None else self._texts(table, shaped.row(current))
        if op == DELETE:
            kept.remove(key, was)
            if own is not None:
                own.events.append(_Event(op, key, row, None))
            return
        document = shaped.document(row, old)
        now = shaped.row(document)
        kept.put(key, document, was, self._texts(table, now))
        self._touch_owners(table, now, touched)
        if own is not None:
            own.events.append(_Event(op, key, shaped.filled(row, document), raw.rows.old.get(n)))

    def _texts(self, table: str, row: WireRow) -> dict[tuple[str, ...], str | None]:
        shaped = self.joiner.shaped(table)
        return {columns: shaped.text(columns)(row) for columns in self.plan.bases[table].indexes}

    def _touch_owners(self, table: str, row: WireRow, touched: dict[str, _Touched]) -> None:
        for mapped, joins in self.plan.joins.items():
            for join in joins:
                if join.table == table:
                    for key in self._owners(mapped, joins, join, row):
                        touched[mapped].keys[key] = None

    def _owners(self, mapped: str, joins: tuple[Join, ...], join: Join, row: WireRow) -> Iterator[str]:
        """Keys of the mapped rows that a row of the join belongs to."""
        columns, owner, others = ends(join)
        value = self.joiner.shaped(join.table).text(columns)(row)
        if value is None:
            return
        above = next((other for other in joins if other.name == owner), None)
        table = mapped if above is None else above.table
        is_key = others == self.plan.bases[table].key
        if above is None and is_key:
            yield value
            return
        if is_key:
            document = self.kept[table].get(value)
            rows = [] if document is None else [(value, document)]
        else:
            rows = self.kept[table].find(others, value)
        for key, document in rows:
            if above is None:
                yield key
            else:
                yield from self._owners(mapped, joins, above, self.joiner.shaped(table).row(document))

    def _emit(self, table: str, touched: _Touched, time: int) -> None:
        joined = self.joiner.joined(table)
        missing = (ABSENT,) * (len(joined.shape.columns) - joined.width)
        is_ready = table in self.ready
        is_read = any(raw.rows.ops[:1] == bytearray([READ]) for raw in self.raws)
        shaped = self.joiner.shaped(table)
        rows = self.found.get(table)
        if rows is None:
            rows = TableRows(joined.shape)
        events = touched.changes()
        for op, key, row, old in events:
            old = None if old is None else (*old, *missing)
            if op == DELETE or (old is not None and not is_ready):
                rows.add(op, (*row, *missing), time, old)
            elif is_ready or not key:
                self._add(rows, table, op, row, time, old)
            # Else what is joined to it is not known yet. It is read with its table, which comes last.
        told = {event.key for event in events}
        for key in touched.keys:
            document = self.kept[table].get(key) if is_ready and key not in told else None
            if document is not None:
                self._add(rows, table, READ if is_read else UPDATE, shaped.row(document), time, None)
        if rows.rows:
            self.found[table] = rows

    def _add(self, rows: TableRows, table: str, op: int, row: WireRow, time: int, old: WireRow | None) -> None:
        joined = self.joiner.joined(table)
        try:
            whole = self.joiner.maker(table).whole(row, partial(self._rows_of, table))
        except ValueRefused as error:
            self.refused.setdefault(table, {})[len(rows.rows)] = error
            whole = (*row, *(ABSENT,) * (len(joined.shape.columns) - joined.width))
        rows.add(op, whole, time, old)

    def _rows_of(self, table: str, join: Join, above: WireRow) -> list[WireRow]:
        columns, owner, others = ends(join)
        value = self.joiner.shaped(self.joiner.table_of(table, owner)).text(others)(above)
        if value is None:
            return []
        shaped, kept = self.joiner.shaped(join.table), self.kept[join.table]
        if columns == self.plan.bases[join.table].key:
            document = kept.get(value)
            rows = [] if document is None else [shaped.row(document)]
        else:
            rows = [shaped.row(document) for _, document in kept.find(columns, value)]
        takes = self.joiner.compiled(table, join).takes
        return [row for row in rows if takes(row)]


def _transactions(raws: Iterable[RawRows]) -> Iterator[tuple[int, list[tuple[RawRows, int]]]]:
    """Changes of all tables by commit time, each table's in its order: what is of one time is of one transaction, or
    might be."""
    events: list[tuple[int, int, RawRows, int]] = []
    for order, raw in enumerate(raws):
        latest = 0
        for n, time in enumerate(raw.rows.times):
            # A commit's time may lie a little before that of the commit before it.
            latest = max(latest, time)
            events.append((latest, order, raw, n))
    events.sort(key=lambda event: event[:2])
    group: list[tuple[RawRows, int]] = []
    now = 0
    for time, _, raw, n in events:
        if group and time != now:
            yield now, group
            group = []
        now = time
        group.append((raw, n))
    if group:
        yield now, group


def registered(tx: HubTransaction, system: SystemPart) -> dict[str, tuple[int, dict[tuple[str, ...], int]]]:
    """The hub's numbers of the base tables and their indexes, new ones given where needed."""
    return register_joined(tx, system.id, {name: base.indexes for name, base in system.joins.bases.items()})


def copies_left(tx: HubTransaction, system: SystemPart) -> list[tuple[str, bytes | None]]:
    """Base tables that are still to be copied, the joined ones first, each with the packed key that it has come to."""
    numbers = registered(tx, system)
    plan = system.joins
    states = _copy_states(tx, system)
    for table, joins in plan.joins.items():
        if states[table][1] and not all(states[join.table][1] for join in joins):
            # What is joined to its rows now is not known of any of them.
            forget_rows(tx, numbers[table][0])
            states = _copy_states(tx, system)
    order = dict.fromkeys((*plan.joined, *plan.joins))
    return [(table, states[table][0]) for table in order if not states[table][1]]


def _copy_states(tx: HubTransaction, system: SystemPart) -> dict[str, tuple[bytes | None, int]]:
    rows = tx.rows("select name, last_key, is_done from joined_table where system = ?", (system.id,))
    return {name: (key, is_done) for name, key, is_done in rows}


def are_copied(tx: HubTransaction, system: SystemPart) -> bool:
    """Whether all base tables have been copied."""
    states = _copy_states(tx, system)
    return all(table in states and states[table][1] for table in system.joins.bases)


def note_copied(tx: HubTransaction, system: SystemPart, table: str, last_key: bytes | None) -> None:
    """A page of a base table is kept."""
    tx.write(
        "update joined_table set last_key = ?, is_done = ? where system = ? and name = ?",
        (last_key, last_key is None, system.id, table),
    )


def forget_copies(tx: HubTransaction, system: SystemPart, tables: Iterable[str]) -> None:
    """These tables are to be copied anew."""
    for table in tables:
        for (number,) in tx.rows("select id from joined_table where system = ? and name = ?", (system.id, table)):
            forget_rows(tx, number)
