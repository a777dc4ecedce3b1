"""The change journal: its table, the triggers that fill it, and what can be read back from their text.

One journal for all tables gives one order for all changes. Its value columns have no declared type, so SQLite stores
every value in the storage class it came in (https://www.sqlite.org/datatype3.html, section 3.1, rule 3): an exact copy
without any encoding, and the cheapest there is for the writing application. JSON would lose blobs and digits of reals.
`layout` says which table a row is of and what `c0`, `c1` … were when it was written.

A row written while one of our deliveries is active carries the delivery's seq. `D` rows hold the old row, `K` rows the
old row of the update that follows.

An owner's trigger on the same table may run before ours or after (the order is undefined, as
https://www.sqlite.org/lang_createtrigger.html says) and change or delete the row that fired it. So ours do not journal
`new`, which is then history: they read the row as it is when they run.

REPLACE deletes rows that stand in the way of a unique constraint without firing delete triggers
(https://www.sqlite.org/lang_conflict.html). So a trigger that runs before notes them as `P`, possibly deleted, and one
that runs after makes that `D` or `-`, nothing. After an `insert or ignore` that was ignored no trigger runs: the `P`
stays until the next one, and means nothing to a reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.model.table import Column, Shape
from plugins.sqlite.catalog import IS_OURS, JOURNAL, PREFIX, Unique, column_list
from plugins.sqlite.connect import Connection, quoted

FIRST_VALUE = 5
"""Index of `c0` in a journal row."""

CREATE_MARKER = (
    "create table concord_marker (id integer primary key check (id = 1), hub text, epoch integer not null,"
    " seq integer not null, active integer not null default 0, verify integer not null default 0,"
    " purged integer not null default 0, written_at text);\n"
    "insert into concord_marker (id, hub, epoch, seq) values (1, null, 0, 0);"
)
CREATE_IDENTITY = (
    "create table concord_identity (rid integer not null, place text not null, key text not null,"
    " seq integer not null, primary key (place, rid)) without rowid;"
)
# Milliseconds are all that julianday gives; writers may run any SQLite, so nothing newer is used.
_NOW = "cast((julianday('now') - 2440587.5) * 86400000.0 as integer) * 1000"
# Without the marker's row a user's write is captured all the same.
_ACTIVE = "coalesce((select active from concord_marker), 0)"
_LAYOUT = re.compile(r"select\s*'I'\s*,\s*(\d+)", re.IGNORECASE)
_VALUE = re.compile(r',\s*present\.("(?:[^"]|"")*"|\w+)', re.IGNORECASE)


def create_journal(width: int) -> str:
    columns = "".join(f", c{n}" for n in range(width))
    return (
        "drop table if exists concord_journal;\n"
        "drop table if exists concord_layout;\n"
        "update concord_marker set purged = 0;\n"
        "create table concord_journal (id integer primary key autoincrement, op text not null,"
        f" layout integer not null, at integer not null, delivery integer not null{columns});\n"
        "create index concord_pending on concord_journal (layout) where op = 'P';\n"
        "create table concord_layout (id integer primary key, name text not null, shape text not null);"
    )


def journal_width(connection: Connection) -> int:
    """How many value columns the journal has; -1 without a journal."""
    names = [name for (name,) in connection.execute("select name from pragma_table_info('concord_journal')")]
    return sum(1 for name in names if re.fullmatch(r"c\d+", name)) if names else -1


EVENTS = (
    "insert", "key", "update", "delete", "before-insert", "replaced-insert", "before-update", "replaced-update"
)  # fmt: skip


def trigger_name(table: str, event: str) -> str:
    """No event has an underscore: so no two tables' triggers have the same name."""
    return f"{PREFIX}{table}_{event}"


def essential_triggers(table: str) -> set[str]:
    """Names of those without which changes are lost."""
    return {trigger_name(table, event) for event in EVENTS[:4]}


def triggers(shape: Shape, uniques: Sequence[Unique], layout: int) -> dict[str, str]:
    """Name → `create trigger` of everything that captures one table."""
    writer = _Writer(shape, layout)
    on = f"on {quoted(shape.name)}"
    moved = writer.moved(uniques)
    made = {
        "insert": f"after insert {on} begin {writer.present('I')} end",
        "key": f"after update {on} when {moved} begin {writer.move()} end",
        "update": f"after update {on} when not ({moved}) begin {writer.present('U')} end",
        "delete": f"after delete {on} begin {writer.gone('D', writer.is_there('old', negated=True))} end",
    }
    if victims := writer.victims(uniques, "insert"):
        made["before-insert"] = f"before insert {on} when {writer.note(victims)} end"
        made["replaced-insert"] = f"after insert {on} when {writer.settle()} end"
    if victims := writer.victims(uniques, "update"):
        event = writer.update_event(uniques)
        made["before-update"] = f"before {event} {on} when {writer.note(victims)} end"
        made["replaced-update"] = f"after {event} {on} when {writer.settle()} end"
    return {
        trigger_name(shape.name, event): f"create trigger {quoted(trigger_name(shape.name, event))} {body}"
        for event, body in made.items()
    }


class _Writer:
    """Writes the parts of one table's triggers."""

    def __init__(self, shape: Shape, layout: int) -> None:
        self.shape = shape
        self.layout = layout
        self.table = quoted(shape.name)
        self.columns = {column.name: column for column in shape.columns}
        self.pending = f"from concord_journal where op = 'P' and layout = {layout}"

    def present(self, op: str) -> str:
        """The row that fired, as it is now, if it is."""
        rows = f"from {self.table} present where {self._same('present', 'new')}"
        return f"insert into concord_journal ({self._names()}) select {self._values(op, 'present')} {rows};"

    def gone(self, op: str, condition: str) -> str:
        """The row as it was."""
        return f"insert into concord_journal ({self._names()}) select {self._values(op, 'old')} where {condition};"

    def move(self) -> str:
        """An update that changes a key. The old row stands before the row it became: the reader meets it first."""
        here, gone = self.is_there("new"), self.is_there("old", negated=True)
        kept = " or ".join(self._differs("old", "new", name) for name in self.shape.key)
        return (
            f"{self.gone('K', f'{here} and ({gone} or not ({kept}))')} {self.present('U')}"
            f" {self.gone('D', f'not ({here}) and {gone}')}"
        )

    def is_there(self, row: str, *, negated: bool = False) -> str:
        word = "not exists" if negated else "exists"
        return f"{word} (select 1 from {self.table} present where {self._same('present', row)})"

    def moved(self, uniques: Sequence[Unique]) -> str:
        """Whether an update changes what may be a mapping's key: the primary key or another unique set of columns."""
        names = dict.fromkeys((*self.shape.key, *(name for unique in uniques for name in unique.columns)))
        return " or ".join(self._differs("old", "new", name) for name in names)

    def victims(self, uniques: Sequence[Unique], event: str) -> str:
        """Rows that may have to go for the new one, `victim` being the table; empty when there can be none."""
        own = "new" if event == "insert" else "old"
        # For an insert the key may not be assigned yet; then no row has it.
        other = " or ".join(self._differs("victim", own, name) for name in self.shape.key)
        found: list[str] = []
        for unique in uniques:
            if event == "insert" and unique.is_key and not self._is_loose(unique):
                # A row with the same key is replaced by one of that key: an insert like any other says it.
                continue
            same = " and ".join(
                f"victim.{quoted(name)} = new.{quoted(name)} collate {quoted(collation)}"
                for name, collation in zip(unique.columns, unique.collations, strict=True)
            )
            found.append(f"({same} and ({other}))")
        return " or ".join(found)

    def update_event(self, uniques: Sequence[Unique]) -> str:
        """Only updates that name a unique column can run into another row."""
        names = dict.fromkeys(name for unique in uniques for name in unique.columns)
        if any(self.columns[name].is_generated for name in names):
            return "update"
        return f"update of {column_list(names)}"

    def note(self, victims: str) -> str:
        """What a trigger does that runs before: condition and body."""
        old = f"update concord_journal set op = '-' where op = 'P' and layout = {self.layout};"
        rows = f"from {self.table} victim where {victims}"
        noted = f"insert into concord_journal ({self._names()}) select {self._values('P', 'victim')} {rows};"
        return f"exists (select 1 {self.pending}) or exists (select 1 {rows}) begin {old} {noted}"

    def settle(self) -> str:
        """What a trigger does that runs after. A victim survived when a row has its key that is not the new one."""
        still = self._same("still", "concord_journal")
        other = " or ".join(self._differs("concord_journal", "new", name) for name in self.shape.key)
        survived = f"({other}) and exists (select 1 from {self.table} still where {still})"
        return (
            f"exists (select 1 {self.pending}) begin update concord_journal set op ="
            f" case when {survived} then '-' else 'D' end where op = 'P' and layout = {self.layout};"
        )

    def _names(self) -> str:
        return "op, layout, at, delivery" + "".join(f", c{n}" for n in range(len(self.columns)))

    def _values(self, op: str, row: str) -> str:
        values = "".join(f", {row}.{quoted(name)}" for name in self.columns)
        return f"'{op}', {self.layout}, {_NOW}, {_ACTIVE}{values}"

    def _same(self, a: str, b: str) -> str:
        """Whether two rows have the same key: by the index, as its collation sees it, and to the letter."""
        return " and ".join(
            f"{self._value(a, name)} is {self._value(b, name)} and not ({self._differs(a, b, name)})"
            for name in self.shape.key
        )

    def _value(self, row: str, name: str) -> str:
        if row == JOURNAL:
            return f"{JOURNAL}.c{list(self.columns).index(name)}"
        return f"{row}.{quoted(name)}"

    def _differs(self, a: str, b: str, name: str) -> str:
        """Whether two rows differ in a column to the letter, whatever its collation takes for equal."""
        left, right = self._value(a, name), self._value(b, name)
        differs = f"{left} is not {right} collate binary"
        if name in self.columns and has_no_affinity(self.columns[name]):
            # 1 and 1.0 are equal, and two different keys as texts.
            differs += f" or typeof({left}) <> typeof({right})"
        return differs

    def _is_loose(self, unique: Unique) -> bool:
        """Whether two keys may be equal here and not the same to the letter."""
        return any(collation.upper() != "BINARY" for collation in unique.collations) or any(
            has_no_affinity(self.columns[name]) for name in unique.columns
        )


def has_no_affinity(column: Column) -> bool:
    """Whether a column keeps numbers as they come (https://www.sqlite.org/datatype3.html, section 3.1)."""
    declared = column.type.upper()
    return declared in ("", "ANY") or (
        "BLOB" in declared and not any(word in declared for word in ("INT", "CHAR", "CLOB", "TEXT"))
    )


def captured(sql: str) -> tuple[int, tuple[str, ...]]:
    """Layout and columns that an insert trigger journals. SQLite rewrites the text when a column is renamed."""
    found = _LAYOUT.search(sql)
    names = _VALUE.findall(sql)
    columns = tuple(name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names)
    return int(found.group(1)) if found else 0, columns


def installed(connection: Connection) -> dict[str, tuple[str, str]]:
    """Name → (table, text) of our triggers in the database."""
    rows = connection.execute(f"select name, tbl_name, sql from sqlite_schema where type = 'trigger' and {IS_OURS}")
    return {str(name): (str(table), str(sql)) for name, table, sql in rows}
