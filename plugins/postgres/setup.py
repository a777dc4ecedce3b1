"""A PostgreSQL system apart from its log: shapes, set-up and its removal, pages, health; `check.py` has the check.

What set-up makes: at a target, schema `concord` with the marker (one row: what was delivered last, and by whom) and the
keys that the database handed out; at a source, a publication with an explicit list of tables and a logical slot. A plan
is computed from the catalogue every time, so set-up can be repeated, and a DBA can run the plan's SQL instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.change import Page
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.postgres.catalog import MARKER, Connection, joined_name, load_catalog, quoted, quoted_table, split_name
from plugins.postgres.check import find_problems
from plugins.postgres.config import PostgresConfig, publication_name, slot_name
from plugins.postgres.connect import connected, translated
from plugins.postgres.position import before, format_lsn
from plugins.postgres.server import load_cluster, load_publication, load_server, load_slot
from plugins.postgres.snapshot import snapshot

OPERATIONS: Final = frozenset(("insert", "update", "delete", "truncate"))
_GENERATED_SINCE: Final = 180000

_SCHEMA: Final = "create schema if not exists concord;"
_MARKER_TABLE: Final = """create table if not exists concord.marker (
  id smallint primary key check (id = 1),
  hub text,
  epoch bigint not null,
  seq bigint not null,
  written_at timestamptz not null default now()
);"""
_MARKER_ROW: Final = "insert into concord.marker (id, hub, epoch, seq) values (1, null, 0, 0) on conflict do nothing;"
_IDENTITY_TABLE: Final = """create table if not exists concord.identity (
  rid bigint,
  place text,
  key text,
  seq bigint,
  primary key (place, rid)
);"""


class PostgresSystem:
    """See `engine.ports.System`."""

    def __init__(self, site: Site, config: PostgresConfig) -> None:
        self._site = site
        self._config = config

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        """The catalogue's view of the tables."""
        async with connected(self._site, self._config, use="catalogue") as connection:
            with translated(self._site.name, doing="read the catalogue"):
                catalog = await load_catalog(connection, tables)
        shapes = {name: catalog.shape(name) for name in catalog.tables}
        return {name: shape for name, shape in shapes.items() if shape is not None}

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """What is still to be done."""
        async with connected(self._site, self._config, use="setup") as connection:
            with translated(self._site.name, doing="plan the set-up", role=role):
                return tuple(await self._missing(connection, tables, role))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Carry out the plan, each step in a transaction of its own: a slot cannot be made in one that has written."""
        async with connected(self._site, self._config, use="setup") as connection:
            with translated(self._site.name, doing="plan the set-up", role=role):
                steps = await self._missing(connection, tables, role)
            for step in steps:
                with translated(self._site.name, doing=step.summary, role=role):
                    await connection.execute(step.sql.encode())
        return tuple(steps)

    async def teardown(self) -> tuple[Step, ...]:
        """Remove slot, publication and our schema. Raises `SystemUnreachable` while a feed holds the slot."""
        site, config = self._site, self._config
        steps: list[Step] = []
        async with connected(site, config, use="setup") as connection:
            with translated(site.name, doing="plan the removal"):
                server = await load_server(connection)
                slot = await load_slot(connection, slot_name(site, config))
                if slot is not None and slot.database != server.database:
                    # Slots are the server's, not a database's: this one is that of another installation.
                    slot = None
                publication = await load_publication(connection, publication_name(site, config))
                ours = await load_catalog(connection, ["concord.marker", "concord.identity"])
            if slot is not None and slot.is_active:
                raise SystemUnreachable(
                    f"system {site.name}: replication slot {slot.name} is in use", hint="Stop the daemon first."
                )
            if slot is not None:
                sql = f"select pg_catalog.pg_drop_replication_slot({_literal(slot.name)});"
                steps.append(Step(summary=f"drop replication slot {slot.name}", sql=sql))
            if publication is not None:
                sql = f"drop publication {quoted(publication.name)};"
                steps.append(Step(summary=f"drop publication {publication.name}", sql=sql))
            steps += [Step(summary=f"drop table {name}", sql=f"drop table {name};") for name in sorted(ours.tables)]
            if ours.tables:
                # Without cascade: what somebody else has put there keeps the schema.
                steps.append(Step(summary="drop schema concord", sql="drop schema concord restrict;"))
            for step in steps:
                with translated(site.name, doing=step.summary):
                    await connection.execute(step.sql.encode())
        return tuple(steps)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        """All that would stop or endanger the role."""
        async with connected(self._site, self._config, use="check") as connection:
            with translated(self._site.name, doing="check the system", role=role):
                return tuple(await find_problems(connection, self._site, self._config, tables, role))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int) -> Page:
        """Rows in key order, spelt as the feed spells them."""
        async with connected(self._site, self._config, use="page") as connection:
            with translated(self._site.name, doing="read a page", table=table):
                publication = await load_publication(connection, publication_name(self._site, self._config))
                generated = frozenset("s") if publication and publication.has_generated else frozenset[str]()
                async with snapshot(connection) as view:
                    return await view.page(table, after, rows_max, generated)

    async def health(self) -> Health:
        """The log's end, and how much of it is kept for us."""
        site, config = self._site, self._config
        async with connected(site, config, use="health") as connection:
            with translated(site.name, doing="read the slot"):
                server = await load_server(connection)
                slot = await load_slot(connection, slot_name(site, config))
                cluster = await load_cluster(connection)
        head = before(server.log_end, cluster)
        if slot is None:
            return Health(head=head, detail=f"no replication slot {slot_name(site, config)}")
        if slot.trouble:
            return Health(head=head, detail=f"slot {slot.name} is lost ({slot.trouble})")
        words = [f"slot {slot.name} {slot.wal_status}", "in use" if slot.is_active else "not in use"]
        if slot.safe_bytes is not None:
            words.append(f"{slot.safe_bytes} bytes until the server gives it up")
        return Health(
            head=head,
            retained_bytes=max(0, server.log_end - slot.restart_lsn),
            lag_bytes=max(0, server.log_end - slot.confirmed_lsn),
            detail=", ".join(words),
        )

    async def _missing(self, connection: Connection, tables: Sequence[str], role: Role) -> list[Step]:
        steps: list[Step] = []
        if Role.TARGET in role:
            steps += await _missing_at_target(connection)
        if Role.SOURCE in role:
            steps += await self._missing_at_source(connection, tables, with_marker=Role.TARGET in role)
        return steps

    async def _missing_at_source(
        self, connection: Connection, tables: Sequence[str], *, with_marker: bool
    ) -> list[Step]:
        site, config = self._site, self._config
        server = await load_server(connection)
        catalog = await load_catalog(connection, [*tables, joined_name(*MARKER)])
        absent = [name for name in tables if name not in catalog.tables]
        if absent:
            raise SourceUnready(
                f"system {site.name}: these tables do not exist: {', '.join(absent)}",
                hint="Create them, or take them out of the mapping.",
            )
        wanted = [split_name(name) for name in tables]
        if with_marker or joined_name(*MARKER) in catalog.tables:
            wanted.append(MARKER)
        wanted = list(dict.fromkeys(wanted))
        publication = await load_publication(connection, publication_name(site, config))
        name = quoted(publication_name(site, config))
        steps: list[Step] = []
        if publication is None:
            options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
            if server.version >= _GENERATED_SINCE:
                options += ", publish_generated_columns = stored"
            listed = ", ".join(quoted_table(*place) for place in wanted)
            sql = f"create publication {name} for table {listed} with ({options});"
            steps.append(Step(summary=f"publish the changes of {len(wanted)} tables", sql=sql))
        else:
            missing = [place for place in wanted if place not in publication.tables]
            if missing and not publication.is_for_all:
                sql = f"alter publication {name} add table {', '.join(quoted_table(*place) for place in missing)};"
                steps.append(Step(summary=f"publish {len(missing)} more tables", sql=sql))
            if publication.operations != OPERATIONS:
                sql = f"alter publication {name} set (publish = 'insert, update, delete, truncate');"
                steps.append(Step(summary="publish every kind of change", sql=sql))
            if not publication.via_root:
                sql = f"alter publication {name} set (publish_via_partition_root = true);"
                steps.append(Step(summary="publish partitions as their table", sql=sql))
        slot = await load_slot(connection, slot_name(site, config))
        if slot is None:
            made = f"pg_catalog.pg_create_logical_replication_slot({_literal(slot_name(site, config))}, 'pgoutput')"
            steps.append(Step(summary="keep the log from here on", sql=f"select {made};"))
        elif slot.trouble:
            raise PositionLost(
                f"system {site.name}: the server has given up replication slot {slot.name} ({slot.trouble}),"
                f" at {format_lsn(slot.confirmed_lsn)}",
                hint=f"Drop it (select pg_drop_replication_slot({_literal(slot.name)});), set up again, then backfill.",
                slot=slot.name,
            )
        return steps


async def _missing_at_target(connection: Connection) -> list[Step]:
    found = await load_catalog(connection, ["concord.marker", "concord.identity"])
    steps: list[Step] = []
    if not found.tables:
        steps.append(Step(summary="make a schema for our own tables", sql=_SCHEMA))
    has_row = False
    if "concord.marker" in found.tables:
        row = await (await connection.execute("select count(*) from concord.marker")).fetchone()
        has_row = row is not None and row[0] > 0
    else:
        steps.append(Step(summary="make the marker of deliveries", sql=_MARKER_TABLE))
    if not has_row:
        steps.append(Step(summary="put the marker's one row in", sql=_MARKER_ROW))
    if "concord.identity" not in found.tables:
        steps.append(Step(summary="make the table of assigned keys", sql=_IDENTITY_TABLE))
    return steps


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
