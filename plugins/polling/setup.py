"""`engine.ports.System` of a polled database: catalogue, our two tables, checks, pages, health."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import sqlglot
from sqlglot import exp

from engine.errors import no_table
from engine.model.change import Page
from engine.model.position import WHOLE, Position
from engine.model.table import Kind, Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.polling.beat import next_look
from plugins.polling.catalog import IDENTITY, MARKER, OUR_TABLES, list_tables, read_shapes
from plugins.polling.config import PollingConfig, state_path
from plugins.polling.connect import Connection, session
from plugins.polling.horizon import read_oldest
from plugins.polling.looks import Looks
from plugins.polling.rights import missing_rights
from plugins.polling.snapshot import read_page

# Whoever waits for all that is there to be read waits no longer than that for a look.
SOON_SECONDS = 60.0
_CREATE = {
    MARKER: (
        f"create table {MARKER} (id integer not null primary key, hub varchar(64), epoch bigint not null,"
        " seq bigint not null, written_at varchar(32))",
        f"insert into {MARKER} (id, hub, epoch, seq) values (1, null, 0, 0)",
    ),
    IDENTITY: (
        f"create table {IDENTITY} (rid bigint not null, place varchar(200) not null, row_key varchar(400) not null,"
        " seq bigint not null, primary key (place, rid))",
    ),
}
_SUMMARIES = {MARKER: "create the marker", IDENTITY: "create the table of assigned keys"}


class PollingSystem:
    """One polled database."""

    def __init__(self, site: Site, config: PollingConfig) -> None:
        self.site = site
        self.config = config

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: read_shapes(connection, tables))

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: _plan(connection, role))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: _run(connection, _plan(connection, role)))

    async def teardown(self) -> tuple[Step, ...]:
        async with session(self.site, self.config) as opened:
            steps = await opened.run(lambda connection: _run(connection, _plan_teardown(connection)))
        path = state_path(self.site, self.config)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        return steps

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        async with session(self.site, self.config) as opened:
            return await opened.run(lambda connection: tuple(self._check(connection, tables, role)))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        def read(connection: Connection) -> Page:
            with connection.snapshot():
                return read_page(connection, table, after, rows_max, condition=condition)

        async with session(self.site, self.config) as opened:
            return await opened.run(read, table)

    async def count(self, table: str, condition: str = "") -> int:
        def read(connection: Connection) -> int:
            if not read_shapes(connection, [table]):
                raise no_table(self.site.name, table)
            query = exp.select("count(*)").from_(connection.sql.table(table))
            if condition:
                query = query.where(exp.var(f"({condition})"))
            return int(connection.rows(query)[0][0])

        async with session(self.site, self.config) as opened:
            return await opened.run(read, table)

    async def health(self) -> Health:
        path = state_path(self.site, self.config)
        if not path.exists():
            return Health(detail="not looked at yet")
        looks = Looks(path)
        try:
            about, tables = looks.about(), looks.tables()
            ((waiting, size),) = looks.rows("select count(*), coalesce(sum(length(row)), 0) from found")
        finally:
            looks.close()
        due = min((next_look(*self.config.beat(t.name), t.looked_at) for t in tables.values()), default=0.0)
        following = about.look + 1 if due <= time.time() + SOON_SECONDS else about.look
        return Health(
            head=Position((following, WHOLE)),
            retained_bytes=size,
            lag_bytes=size,
            detail=f"{about.look} looks, {waiting} changes that the hub has not yet",
        )

    def _check(self, connection: Connection, tables: Sequence[str], role: Role) -> Iterator[Finding]:
        path = state_path(self.site, self.config)
        if Role.SOURCE in role and not os.access(path.parent, os.W_OK):
            yield Finding(
                path=str(path.parent),
                message="the folder cannot be written: what is known of the rows is kept there",
                hint="Give the daemon's user write access, or name another file with `state`.",
            )
        rights = list(missing_rights(connection, tables, role))
        yield from rights
        # Of tables that our user may not see the catalogue says nothing that is true.
        hidden = {finding.path for finding in rights}
        tables = [table for table in tables if table not in hidden]
        for step in _plan(connection, role, frozenset(hidden)):
            yield Finding(
                path="setup",
                message=step.summary,
                hint=f"Run `concord setup {self.site.name}`.",
                sql=step.sql,
                by_setup=True,
            )
        shapes = read_shapes(connection, tables)
        listed = [name for name in tables if name not in shapes] and list_tables(connection)
        for table in tables:
            if table not in shapes:
                alike = next((name for name in listed if name.lower() == table.lower()), None)
                hint = f"Write {alike} in the mapping." if alike else "Correct the mapping or create the table."
                yield Finding(path=table, message="there is no such table", hint=hint)
        for table in set(self.config.tables) - {*tables, *hidden}:
            yield Finding(
                path=f"tables.{table}",
                message="the mapping has no such table",
                hint=f"Correct [systems.{self.site.name}.tables].",
                is_fatal=False,
            )
        for shape in shapes.values():
            yield from self._check_table(shape, role)
        if Role.SOURCE in role and any(self.config.options(table).updated_at for table in tables):
            yield from self._check_horizon(connection)

    def _check_table(self, shape: Shape, role: Role) -> Iterator[Finding]:
        options = self.config.options(shape.name)
        where = f'[systems.{self.site.name}.tables."{shape.name}"]'
        if not shape.key:
            yield Finding(
                path=shape.name,
                message="it has no primary key that our user may see",
                hint=f"Name unique columns that are never null: `key` of {where}.",
            )
        for name in shape.key:
            column = shape.column(name)
            if column is not None and column.is_nullable:
                yield Finding(
                    path=f"{shape.name}.{name}",
                    message="it is part of the key and may be null: such rows are not found",
                    hint="Declare it not null.",
                    is_fatal=False,
                )
        if Role.SOURCE not in role:
            return
        for column in shape.columns:
            if column.kind is Kind.OTHER and self.config.dialect not in ("postgres", "duckdb"):
                yield Finding(
                    path=f"{shape.name}.{column.name}",
                    message=f"the type {column.type} is not known; reading stops where the driver gives no text for it",
                    hint=f"Name it in `ignore` of {where} if it is not mapped.",
                    is_fatal=False,
                )
            if column.name == options.updated_at and column.is_nullable:
                yield Finding(
                    path=f"{shape.name}.{column.name}",
                    message="rows without it are found by comparing all rows only",
                    hint="Declare it not null, with a default.",
                    is_fatal=False,
                )

    def _check_horizon(self, connection: Connection) -> Iterator[Finding]:
        if connection.habits.oldest is None or read_oldest(connection, time.time()) is not None:
            return
        sql = {"postgres": "grant pg_read_all_stats to current_user;", "mysql": "grant process on *.* to current_user;"}
        yield Finding(
            path="privileges",
            message="our user may not see which transactions are open: a row committed more than `overlap` late is"
            " found by the next comparison of all rows only",
            hint="Grant it, or set `overlap` above the longest transaction.",
            sql=sql.get(self.config.dialect, ""),
            is_fatal=False,
        )


def _plan(connection: Connection, role: Role, hidden: frozenset[str] = frozenset()) -> tuple[Step, ...]:
    there = {*list_tables(connection, ours=True), *hidden}
    return tuple(
        Step(summary=_SUMMARIES[table], sql=";\n".join(_written(connection, text) for text in _CREATE[table]) + ";")
        # A source looks at the marker as well.
        for table in (OUR_TABLES if Role.TARGET in role else (MARKER,))
        if table not in there
    )


def _plan_teardown(connection: Connection) -> tuple[Step, ...]:
    there = list_tables(connection, ours=True)
    return tuple(
        Step(summary=f"drop table {name}", sql=_written(connection, f"drop table {name}") + ";")
        for name in OUR_TABLES
        if name in there
    )


def _written(connection: Connection, text: str) -> str:
    return sqlglot.transpile(text, write=connection.sql.dialect, identify=True)[0]


def _run(connection: Connection, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for step in steps:
        for statement in step.sql.rstrip(";").split(";\n"):
            connection.execute(statement)
    return steps
