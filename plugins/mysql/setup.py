"""A MySQL system apart from its log: shapes, set-up and its removal, pages, health; `check.py` has the check.

Set-up makes two tables in the database: the marker (one row: what was delivered last, and by whom) and the keys that
the database handed out. There is nothing to make for reading: the binary log is the server's, and no server keeps a
replica's place for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pymysql

from engine.errors import no_table
from engine.model.change import Page
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.mysql.catalog import IDENTITY, MARKER, OUR_TABLES, quoted_table, read_shape, read_shapes
from plugins.mysql.check import find_problems
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import Connection, session
from plugins.mysql.errors import NOT_FOR_US, number
from plugins.mysql.position import file_number
from plugins.mysql.snapshot import log_end, read_page, snapshot

# `writes` counts, so that no update of the row leaves it as it was: such an update is not in the log.
_MARKER_TABLE: Final = """create table if not exists {marker} (
  id tinyint not null primary key check (id = 1),
  hub_id varchar(64) character set ascii collate ascii_bin,
  epoch bigint not null,
  seq bigint not null,
  writes bigint not null default 0
) engine = InnoDB;"""
_MARKER_ROW: Final = "insert ignore into {marker} (id, hub_id, epoch, seq) values (1, null, 0, 0);"
# Places are told apart to the letter, as names in a mapping are.
_IDENTITY_TABLE: Final = """create table if not exists {identity} (
  place varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
  rid bigint not null,
  `key` varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
  seq bigint not null,
  primary key (place, rid),
  index (seq)
) engine = InnoDB;"""


def _marker_text(connection: Connection, marker: str) -> str:
    for hub, seq in connection.rows(f"select hub_id, seq from {marker} where id = 1"):
        return f", which says hub {hub}, seq {seq}" if hub is not None else ""
    return ""


class MysqlSystem:
    """See `engine.ports.System`."""

    def __init__(self, site: Site, config: MysqlConfig) -> None:
        self._site = site
        self._config = config

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        """The catalogue's view of the tables."""
        async with session(self._site, self._config) as opened:
            return await opened.run(lambda connection: read_shapes(connection, self._config.database, tables))

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """What is still to be done."""
        async with session(self._site, self._config, role=role) as opened:
            return await opened.run(lambda connection: self._missing(connection, role))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Carry out the plan. A table that is made commits by itself; every step may be repeated."""

        def carry_out(connection: Connection) -> tuple[Step, ...]:
            return _run(connection, self._missing(connection, role))

        async with session(self._site, self._config, role=role) as opened:
            return await opened.run(carry_out)

    async def teardown(self) -> tuple[Step, ...]:
        """Drop our tables."""

        def carry_out(connection: Connection) -> tuple[Step, ...]:
            there = read_shapes(connection, self._config.database, OUR_TABLES)
            names = {name: quoted_table(name, self._config.database) for name in there}
            # What the marker said is wanted if the same hub is to take the system back.
            said = {MARKER: _marker_text(connection, names[MARKER])} if MARKER in names else {}
            steps = tuple(
                Step(summary=f"drop table {name}{said.get(name, '')}", sql=f"drop table {at};")
                for name, at in names.items()
            )
            return _run(connection, steps)

        async with session(self._site, self._config) as opened:
            return await opened.run(carry_out)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        """All that would stop or endanger the role."""

        def look(connection: Connection) -> tuple[Finding, ...]:
            missing = self._missing(connection, role)
            return tuple(find_problems(connection, self._site, self._config, tables, role, missing))

        async with session(self._site, self._config, role=role) as opened:
            return await opened.run(look)

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """Rows in key order behind `after`."""

        def read(connection: Connection) -> Page:
            with snapshot(connection):
                return read_page(connection, self._config.database, table, after, rows_max, condition)

        async with session(self._site, self._config) as opened:
            return await opened.run(read, table)

    async def count(self, table: str, condition: str = "") -> int:
        """Rows of the table for which the condition holds."""
        where = f" where ({condition})" if condition else ""

        def read(connection: Connection) -> int:
            if read_shape(connection, self._config.database, table) is None:
                raise no_table(self._site.name, table)
            ((found,),) = connection.rows(f"select count(*) from {quoted_table(table, self._config.database)}{where}")
            return int(str(found))

        async with session(self._site, self._config) as opened:
            return await opened.run(read, table)

    async def health(self) -> Health:
        """The end of the log. How far a feed is behind it, the server does not know."""

        def look(connection: Connection) -> Health:
            end = log_end(connection)
            if end is None:
                return Health(detail="no binary log")
            head = Position((file_number(end.file), end.offset, 0))
            return Health(head=head, detail=f"binary log at {end.file}:{end.offset}")

        async with session(self._site, self._config) as opened:
            return await opened.run(look)

    def _missing(self, connection: Connection, role: Role) -> tuple[Step, ...]:
        if Role.TARGET not in role:
            return ()
        database = self._config.database
        names = {"marker": quoted_table(MARKER, database), "identity": quoted_table(IDENTITY, database)}
        there = read_shapes(connection, database, OUR_TABLES)
        steps: list[Step] = []
        has_row = MARKER in there and _has_row(connection, names["marker"])
        if MARKER not in there:
            steps.append(Step(summary="make the marker of deliveries", sql=_MARKER_TABLE.format(**names)))
        if not has_row:
            steps.append(Step(summary="put the marker's one row in", sql=_MARKER_ROW.format(**names)))
        if IDENTITY not in there:
            steps.append(Step(summary="make the table of assigned keys", sql=_IDENTITY_TABLE.format(**names)))
        return tuple(steps)


def _has_row(connection: Connection, table: str) -> bool:
    try:
        return bool(connection.rows(f"select 1 from {table}"))
    except pymysql.Error as error:
        # Who may not see it is told of the privilege; only who made it could have left the row out.
        if number(error) in NOT_FOR_US:
            return True
        raise


def _run(connection: Connection, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for step in steps:
        connection.execute(step.sql)
    return steps
