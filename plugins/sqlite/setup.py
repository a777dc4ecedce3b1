"""`engine.ports.System` of a SQLite file: catalogue, set-up by triggers, checks, pages, health."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from engine.errors import no_table
from engine.model.change import Page
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.sqlite.catalog import (
    IDENTITY,
    JOURNAL,
    LAYOUT,
    MARKER,
    OUR_TABLES,
    ROWID,
    blind_indexes,
    list_tables,
    read_shapes,
    read_uniques,
    unknown_collations,
)
from plugins.sqlite.config import SqliteConfig, database_path
from plugins.sqlite.connect import Connection, quoted, session, snapshot, transaction
from plugins.sqlite.journal import journal_head, read_layouts
from plugins.sqlite.snapshot import asked, read_page
from plugins.sqlite.triggers import (
    CREATE_IDENTITY,
    CREATE_MARKER,
    EVENTS,
    FIRST_VALUE,
    captured,
    create_journal,
    installed,
    journal_width,
    trigger_name,
    triggers,
)

# A journal row's bytes are estimated from this many of them: to add them all up would take as long as it is long.
SAMPLE_ROWS = 100
# Number, operation, layout, time and delivery of a row.
ROW_BYTES = 24
# A table has at most 2,000 (https://www.sqlite.org/limits.html, 2), and the journal's first five are not for values.
COLUMNS_MAX = 2000 - FIRST_VALUE


class SqliteSystem:
    """One SQLite file."""

    def __init__(self, site: Site, config: SqliteConfig) -> None:
        self.site = site
        self.config = config

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: read_shapes(connection, tables))

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: _plan(connection, tables, role))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        def carry_out(connection: Connection) -> tuple[Step, ...]:
            with transaction(connection):
                return _run(connection, _plan(connection, tables, role))

        async with session(self.site, self.config) as opened:
            return await opened.run(carry_out)

    async def teardown(self) -> tuple[Step, ...]:
        def carry_out(connection: Connection) -> tuple[Step, ...]:
            with transaction(connection):
                return _run(connection, _plan_teardown(connection))

        async with session(self.site, self.config) as opened:
            return await opened.run(carry_out)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        async with session(self.site, self.config) as opened:
            path = database_path(self.site, self.config)
            return await opened.run(lambda connection: tuple(_check(connection, path, self.site.name, tables, role)))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        def read(connection: Connection) -> Page:
            with snapshot(connection):
                return read_page(connection, self.site.name, table, after, rows_max, condition)

        async with session(self.site, self.config) as opened:
            return await opened.run(read, table)

    async def count(self, table: str, condition: str = "") -> int:
        where = f" where ({condition})" if condition else ""

        def read(connection: Connection) -> int:
            if not read_shapes(connection, [table]):
                raise no_table(self.site.name, table)
            with asked(self.site.name, table, condition):
                found = connection.execute(f"select count(*) from {quoted(table)}{where}").fetchone()
            assert found is not None, "an aggregate gives one row"
            return int(found[0])

        async with session(self.site, self.config) as opened:
            return await opened.run(read, table)

    async def health(self) -> Health:
        def read(connection: Connection) -> Health:
            if journal_width(connection) < 0:
                return Health(detail="no change journal")
            with snapshot(connection):
                count, size = _retained(connection)
                head = Position((journal_head(connection),))
            return Health(head=head, retained_bytes=size, lag_bytes=size, detail=f"{count} rows in the change journal")

        async with session(self.site, self.config) as opened:
            return await opened.run(read)


def _run(connection: Connection, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for step in steps:
        connection.execute(step.sql)
    return steps


def _retained(connection: Connection) -> tuple[int, int]:
    """Rows in the journal, and about how many bytes they are."""
    first, last = connection.execute("select min(id), max(id) from concord_journal").fetchone() or (None, None)
    if first is None:
        return 0, 0
    # Ids leave no gaps, and the last row that was confirmed stays there as a sign.
    count = last - first + 1
    lengths = " + ".join(f"coalesce(length(cast(c{n} as blob)), 0)" for n in range(journal_width(connection)))
    sample = f"select {ROW_BYTES} + {lengths} as size from concord_journal limit {SAMPLE_ROWS}"
    (size,) = connection.execute(f"select avg(size) from ({sample})").fetchone() or (0,)
    return count, int(count * size)


def _plan(connection: Connection, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
    names = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    steps: list[Step] = []
    if MARKER not in names:
        # The triggers look at the marker too, so a source that is never written to has one as well.
        steps.append(Step(summary="create the marker", sql=CREATE_MARKER))
    if Role.TARGET in role and IDENTITY not in names:
        steps.append(Step(summary="create the table of assigned keys", sql=CREATE_IDENTITY))
    if Role.SOURCE in role:
        steps.extend(_plan_journal(connection, tables, is_there={JOURNAL, LAYOUT} <= names))
        steps.extend(_plan_idle(connection, tables))
    return tuple(steps)


def _plan_journal(connection: Connection, tables: Sequence[str], *, is_there: bool) -> list[Step]:
    shapes = read_shapes(connection, tables)
    wanted = max((len(shape.columns) for shape in shapes.values()), default=1)
    # Without its layouts a journal cannot be read: both are made anew then, and a feed that had a place in it says so.
    width = journal_width(connection) if is_there else -1
    steps: list[Step] = []
    if width < 0:
        steps.append(Step(summary="create the change journal", sql=create_journal(wanted)))
    elif width < wanted:
        sql = "".join(f"alter table {JOURNAL} add column c{n};" for n in range(width, wanted))
        steps.append(Step(summary=f"widen the change journal to {wanted} columns", sql=sql))
    present = installed(connection)
    layouts = read_layouts(connection) if width >= 0 else {}
    layout_max = max(layouts, default=0)
    for shape in shapes.values():
        layout = _layout_of(shape, present, layouts)
        sql = ""
        if layout is None:
            layout = layout_max = layout_max + 1
        if not _is_described(layouts.get(layout), shape):
            document = msgspec.json.encode(shape).decode().replace("'", "''")
            name = shape.name.replace("'", "''")
            sql += f"insert or replace into {LAYOUT} (id, name, shape) values ({layout}, '{name}', '{document}');\n"
        ours = triggers(shape, read_uniques(connection, shape.name), layout)
        named = {trigger_name(shape.name, event) for event in EVENTS}
        # Triggers follow a table that is renamed, and may stand on another one now.
        changed = [
            name
            for name, (table, text) in present.items()
            if (name in ours and (table != shape.name or not _is_same(text, ours[name])))
            or ((table == shape.name or name in named) and name not in ours)
        ]
        sql += "".join(f"drop trigger {quoted(name)};\n" for name in changed)
        sql += "".join(f"{text};\n" for name, text in ours.items() if name not in present or name in changed)
        if sql:
            steps.append(Step(summary=f"capture the changes of {shape.name}", sql=sql))
        present = {name: found for name, found in present.items() if name not in changed}
    return steps


def _plan_idle(connection: Connection, tables: Sequence[str]) -> list[Step]:
    named = {trigger_name(table, event) for table in tables for event in EVENTS}
    idle = [n for n, (table, _) in installed(connection).items() if table not in tables and n not in named]
    sql = "".join(f"drop trigger {quoted(name)};\n" for name in idle)
    return [Step(summary="stop capturing tables that take no part", sql=sql)] if idle else []


def _layout_of(shape: Shape, present: dict[str, tuple[str, str]], layouts: dict[int, Shape]) -> int | None:
    """The layout that says what the table is now. After a column was renamed it is the one of the triggers, whose text
    SQLite has adapted: rows journalled before and after are alike."""
    columns = tuple(column.name for column in shape.columns)
    for table, sql in present.values():
        layout, names = captured(sql)
        if table == shape.name and names == columns and layout in layouts:
            return layout
    for layout, known in reversed(layouts.items()):
        if known.name == shape.name and tuple(column.name for column in known.columns) == columns:
            return layout
    return None


def _is_described(known: Shape | None, shape: Shape) -> bool:
    """Whether the journal says enough to read rows of the table when it is gone."""
    return known is not None and (known.name, known.columns, known.key) == (shape.name, shape.columns, shape.key)


def _is_same(stored: str, wanted: str) -> bool:
    """SQLite stores the text as it was given, but for the first two words, which it spells its own way."""
    return stored.partition('"')[2] == wanted.partition('"')[2]


def _plan_teardown(connection: Connection) -> tuple[Step, ...]:
    names = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
    return (
        *(Step(summary=f"drop trigger {name}", sql=f"drop trigger {quoted(name)};") for name in installed(connection)),
        *(Step(summary=f"drop table {name}", sql=f"drop table {name};") for name in OUR_TABLES if name in names),
    )


def _check(connection: Connection, path: Path, system: str, tables: Sequence[str], role: Role) -> Iterator[Finding]:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding(
            path=str(path),
            message="the file or its folder cannot be written",
            hint="Give the daemon's user write access to both: SQLite keeps its journal beside the file.",
        )
    shapes = read_shapes(connection, tables)
    listed = list_tables(connection)
    for table in tables:
        if table not in shapes:
            alike = next((name for name in listed if name.lower() == table.lower()), None)
            hint = f"Write {alike} in the mapping." if alike else "Correct the mapping or create the table."
            yield Finding(path=table, message="there is no such table", hint=hint)
    idle = _plan_idle(connection, tables) if Role.SOURCE in role else []
    for step in _plan(connection, tables, role):
        yield Finding(
            path="setup",
            message=step.summary,
            hint=f"Run `concord setup {system}`.",
            sql=step.sql,
            is_fatal=step not in idle,
            by_setup=True,
        )
    mode = connection.execute("pragma journal_mode").fetchone()
    if mode is not None and mode[0] != "wal":
        yield Finding(
            path="journal_mode",
            message=f"it is {mode[0]}: readers and writers of this file wait for each other",
            hint="Switch to the write-ahead log if every program that uses the file may.",
            sql="pragma journal_mode = wal;",
            is_fatal=False,
        )
    for table, shape in shapes.items():
        yield from _check_table(connection, table, shape, role)


def _check_table(connection: Connection, table: str, shape: Shape, role: Role) -> Iterator[Finding]:
    if not shape.key:
        yield Finding(
            path=table,
            message="it has no primary key, and a column named rowid hides its rowid",
            hint="Give the table an integer primary key.",
        )
    elif shape.key == (ROWID,) and all(column.name != ROWID or column.is_assigned for column in shape.columns):
        yield Finding(
            path=table,
            message="it has no primary key; its rowid is used, which `vacuum` may change",
            hint="Give the table an integer primary key.",
            is_fatal=False,
        )
    elif any(column.is_nullable for column in shape.columns if column.name in shape.key):
        yield Finding(
            path=table,
            message="its primary key may be null, in any number of rows, which cannot be told apart then",
            hint="Declare the key's columns not null.",
            is_fatal=False,
        )
    if Role.SOURCE in role and len(shape.columns) > COLUMNS_MAX:
        yield Finding(
            path=table,
            message=f"it has {len(shape.columns)} columns; changes of at most {COLUMNS_MAX} can be captured",
            hint="Split the table, or only write to it.",
        )
    for collation in unknown_collations(connection, table):
        yield Finding(
            path=table,
            message=f"an index of it is ordered by the collation {collation}, which only its application has",
            hint="Rebuild the table with a collation that SQLite has; nobody else can read or write it by that index.",
        )
    for index in blind_indexes(connection, table) if Role.SOURCE in role else ():
        yield Finding(
            path=f"{table}.{index}",
            message="unique over an expression or a part of the table: what `insert or replace` deletes for it is not"
            " captured",
            hint="Let no program use REPLACE on this table, or run `concord compare` now and then.",
            is_fatal=False,
        )
