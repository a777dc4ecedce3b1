"""A PostgreSQL system apart from its log: shapes, set-up and its removal, pages, health.

`plan.py` says what set-up does, `check.py` has the check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.errors import SourceUnready, SystemUnreachable, no_table
from engine.model.change import Page
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.postgres.catalog import MARKER, Connection, joined_name, load_catalog, quoted, quoted_table
from plugins.postgres.check import find_problems
from plugins.postgres.config import PostgresConfig, publication_name, slot_name
from plugins.postgres.connect import connected, translated
from plugins.postgres.plan import IDENTITY, literal, publication_steps, published_tables, slot_steps, target_steps
from plugins.postgres.position import before
from plugins.postgres.server import load_cluster, load_publication, load_server, load_slot
from plugins.postgres.snapshot import snapshot

# These are commands; what else goes wrong in here goes wrong in the daemon.
AGAIN: Final = "run this again"


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
            with translated(self._site.name, doing="plan the set-up", role=role, again=AGAIN):
                return tuple(await self._missing(connection, tables, role))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Carry out the plan, each step in a transaction of its own: a slot cannot be made in one that has written."""
        async with connected(self._site, self._config, use="setup") as connection:
            with translated(self._site.name, doing="plan the set-up", role=role, again=AGAIN):
                steps = await self._missing(connection, tables, role)
            for step in steps:
                with translated(self._site.name, doing=step.summary, role=role, again=AGAIN):
                    await connection.execute(step.sql.encode())
        return tuple(steps)

    async def teardown(self) -> tuple[Step, ...]:
        """Remove slot, publication and our schema. Raises `SystemUnreachable` while a feed holds the slot."""
        site, config = self._site, self._config
        steps: list[Step] = []
        async with connected(site, config, use="setup") as connection:
            with translated(site.name, doing="plan the removal", again=AGAIN):
                server = await load_server(connection)
                slot = await load_slot(connection, slot_name(site, config))
                if slot is not None and slot.database != server.database:
                    # Slots are the server's, not a database's: this one is that of another installation.
                    slot = None
                publication = await load_publication(connection, publication_name(site, config))
                ours = await load_catalog(connection, [joined_name(*MARKER), joined_name(*IDENTITY)])
                marker = await _marker_said(connection) if joined_name(*MARKER) in ours.tables else ""
            if slot is not None and slot.is_active:
                raise SystemUnreachable(
                    f"system {site.name}: replication slot {slot.name} is in use", hint="Stop the daemon first."
                )
            if slot is not None:
                sql = f"select pg_catalog.pg_drop_replication_slot({literal(slot.name)});"
                steps.append(Step(summary=f"drop replication slot {slot.name}", sql=sql))
            if publication is not None:
                sql = f"drop publication {quoted(publication.name)};"
                steps.append(Step(summary=f"drop publication {publication.name}", sql=sql))
            # What the marker said is wanted if the same hub is to take the system back.
            said = {joined_name(*MARKER): marker}
            steps += [
                Step(summary=f"drop table {name}{said.get(name, '')}", sql=f"drop table {name};")
                for name in sorted(ours.tables)
            ]
            if ours.tables:
                # Without cascade: what somebody else has put there keeps the schema.
                steps.append(Step(summary="drop schema concord", sql="drop schema concord restrict;"))
            for step in steps:
                with translated(site.name, doing=step.summary, again=AGAIN):
                    await connection.execute(step.sql.encode())
        return tuple(steps)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        """All that would stop or endanger the role."""
        async with connected(self._site, self._config, use="check") as connection:
            with translated(self._site.name, doing="check the system", role=role, again=AGAIN):
                return tuple(await find_problems(connection, self._site, self._config, tables, role))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """Rows in key order, spelt as the feed spells them."""
        async with connected(self._site, self._config, use="page") as connection:
            with translated(self._site.name, doing="read a page", table=table):
                publication = await load_publication(connection, publication_name(self._site, self._config))
                generated = frozenset("s") if publication and publication.has_generated else frozenset[str]()
                async with snapshot(connection, self._site.name) as view:
                    return await view.page(table, after, rows_max, generated, condition)

    async def count(self, table: str, condition: str = "") -> int:
        """Rows of the table for which the condition holds."""
        async with connected(self._site, self._config, use="count") as connection:
            with translated(self._site.name, doing="count rows", table=table):
                found = (await load_catalog(connection, [table])).tables.get(table)
                if found is None:
                    raise no_table(self._site.name, table)
                where = f" where ({condition})" if condition else ""
                sql = f"select count(*) from {quoted_table(found.schema, found.table)}{where}"
                row = await (await connection.execute(sql.encode())).fetchone()
        assert row is not None, "an aggregate gives one row"
        return row[0]

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
            steps += await target_steps(connection)
        if Role.SOURCE in role:
            steps += await self._missing_at_source(connection, tables, role)
        return steps

    async def _missing_at_source(self, connection: Connection, tables: Sequence[str], role: Role) -> list[Step]:
        site, config = self._site, self._config
        server = await load_server(connection)
        catalog = await load_catalog(connection, [*tables, joined_name(*MARKER)])
        absent = [name for name in tables if name not in catalog.tables]
        if absent:
            raise SourceUnready(
                f"system {site.name}: these tables do not exist: {', '.join(absent)}",
                hint="Create them, or take them out of the mapping.",
            )
        name, slot_is = publication_name(site, config), slot_name(site, config)
        publication = await load_publication(connection, name)
        slot = await load_slot(connection, slot_is)
        return [
            *publication_steps(server, publication, name, published_tables(catalog, tables, role)),
            *slot_steps(server, slot, slot_is, publication, system=site.name),
        ]


async def _marker_said(connection: Connection) -> str:
    row = await (await connection.execute("select hub, seq from concord.marker where id = 1")).fetchone()
    return f", which says hub {row[0]}, seq {row[1]}" if row is not None and row[0] is not None else ""
