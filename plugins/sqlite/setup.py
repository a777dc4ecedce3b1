"""`engine.ports.System` of a SQLite file: catalogue, set-up by triggers, checks, pages, health."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model.change import Page
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.sqlite.capture import journal_head
from plugins.sqlite.catalog import PREFIX, read_shapes
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, quoted, session
from plugins.sqlite.snapshot import read_page
from plugins.sqlite.triggers import (
    CREATE_IDENTITY,
    CREATE_MARKER,
    IDENTITY,
    JOURNAL,
    MARKER,
    create_journal,
    installed,
    journal_width,
    triggers,
)


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
            connection.execute("begin immediate")
            try:
                steps = _plan(connection, tables, role)
                for step in steps:
                    connection.execute(step.sql)
                connection.execute("commit")
            except BaseException:
                connection.execute("rollback")
                raise
            return steps

        async with session(self.site, self.config) as opened:
            return await opened.run(carry_out)

    async def teardown(self) -> tuple[Step, ...]:
        def carry_out(connection: Connection) -> tuple[Step, ...]:
            connection.execute("begin immediate")
            try:
                steps = [
                    Step(summary=f"drop trigger {name}", sql=f"drop trigger {quoted(name)};")
                    for name in installed(connection)
                ]
                names = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
                steps += [
                    Step(summary=f"drop table {name}", sql=f"drop table {name};")
                    for name in (JOURNAL, IDENTITY, MARKER)
                    if name in names
                ]
                for step in steps:
                    connection.execute(step.sql)
                connection.execute("commit")
            except BaseException:
                connection.execute("rollback")
                raise
            return tuple(steps)

        async with session(self.site, self.config) as opened:
            return await opened.run(carry_out)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: tuple(_check(connection, self.site.name, tables, role)))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int) -> Page:
        def read(connection: Connection) -> Page:
            connection.execute("begin")
            try:
                return read_page(connection, self.site.name, table, after, rows_max)
            finally:
                connection.execute("rollback")

        async with session(self.site, self.config) as opened:
            return await opened.run(read, table)

    async def health(self) -> Health:
        def read(connection: Connection) -> Health:
            if journal_width(connection) < 0:
                return Health(detail="no change journal")
            row = connection.execute("select count(*) from concord_journal").fetchone()
            kept = int(row[0]) if row else 0
            return Health(head=Position((journal_head(connection),)), detail=f"{kept} rows in the change journal")

        async with session(self.site, self.config) as opened:
            return await opened.run(read)


def _plan(connection: Connection, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
    names = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    steps: list[Step] = []
    if MARKER not in names:
        # The triggers look at the marker too, so a source that is never written to has one as well.
        steps.append(Step(summary="create the marker", sql=CREATE_MARKER))
    if Role.TARGET in role and IDENTITY not in names:
        steps.append(Step(summary="create the table of assigned keys", sql=CREATE_IDENTITY))
    if Role.SOURCE in role:
        steps.extend(_plan_journal(connection, tables))
    return tuple(steps)


def _plan_journal(connection: Connection, tables: Sequence[str]) -> list[Step]:
    shapes = read_shapes(connection, tables)
    wanted = max((len(shape.columns) for shape in shapes.values()), default=1)
    width = journal_width(connection)
    steps: list[Step] = []
    if width < 0:
        steps.append(Step(summary="create the change journal", sql=create_journal(wanted)))
    elif width < wanted:
        sql = "".join(f"alter table {JOURNAL} add column c{n};" for n in range(width, wanted))
        steps.append(Step(summary=f"widen the change journal to {wanted} columns", sql=sql))
    present = installed(connection)
    for shape in shapes.values():
        ours = triggers(shape)
        # A trigger of ours for this table that is not wanted any more belongs to an older set-up.
        stale = [name for name in present if _belongs(name, shape.name, shapes) and name not in ours]
        changed = [name for name, sql in ours.items() if name in present and not _is_same(present[name], sql)]
        sql = "".join(f"drop trigger {quoted(name)};\n" for name in (*stale, *changed))
        sql += "".join(f"{text};\n" for name, text in ours.items() if name not in present or name in changed)
        if sql:
            steps.append(Step(summary=f"capture the changes of {shape.name}", sql=sql))
    return steps


def _is_same(stored: str, wanted: str) -> bool:
    """SQLite stores the text as it was given, but for the first two words, which it spells its own way."""
    return stored.partition('"')[2] == wanted.partition('"')[2]


def _belongs(trigger: str, table: str, shapes: dict[str, Shape]) -> bool:
    rest = trigger.removeprefix(PREFIX + table + "_")
    if rest == trigger or not rest.startswith(("insert", "update", "delete", "key", "replace_")):
        return False
    return not any(
        other != table and trigger.startswith(PREFIX + other + "_") for other in shapes if len(other) > len(table)
    )


def _check(connection: Connection, system: str, tables: Sequence[str], role: Role) -> list[Finding]:
    findings: list[Finding] = []
    shapes = read_shapes(connection, tables)
    for table in tables:
        if table not in shapes:
            findings.append(
                Finding(path=table, message="there is no such table", hint="Correct the mapping or create the table.")
            )
    for step in _plan(connection, tables, role):
        findings.append(
            Finding(path="setup", message=step.summary, hint=f"Run `concord setup {system}`.", sql=step.sql)
        )
    mode = connection.execute("pragma journal_mode").fetchone()
    if mode is not None and mode[0] != "wal":
        findings.append(
            Finding(
                path="journal_mode",
                message=f"it is {mode[0]}: readers and writers of this file wait for each other",
                hint="Switch to the write-ahead log if every program that uses the file may.",
                sql="pragma journal_mode = wal;",
                is_fatal=False,
            )
        )
    for table, shape in shapes.items():
        if shape.key == ("rowid",) and all(c.name != "rowid" or c.is_assigned for c in shape.columns):
            findings.append(
                Finding(
                    path=table,
                    message="it has no primary key; its rowid is used, which `vacuum` may change",
                    hint="Give the table an integer primary key.",
                    is_fatal=False,
                )
            )
    return findings
