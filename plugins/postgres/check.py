"""Everything that would stop or endanger a system's part, found before the daemon does. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from engine.plugin import Site
from engine.ports import Finding, Role
from plugins.postgres.catalog import (
    MARKER,
    Catalog,
    Connection,
    Table,
    joined_name,
    load_catalog,
    quoted,
    quoted_table,
)
from plugins.postgres.config import PostgresConfig, publication_name, slot_name
from plugins.postgres.plan import IDENTITY, publication_steps, published_tables
from plugins.postgres.rights import Rights, find_missing_rights, load_rights, shown
from plugins.postgres.server import VERSION_MIN, Publication, Server, Slot, load_publication, load_server, load_slot

# Encodings whose every text can be had as UTF-8; SQL_ASCII is the one that promises nothing.
_UNSAFE_ENCODINGS: Final = frozenset(("SQL_ASCII", "MULE_INTERNAL"))
_OPERATIONS: Final = ("insert", "update", "delete", "truncate")
# What is left of a bounded log when a warning is due.
_SAFE_BYTES_MIN: Final = 1 << 30


async def find_problems(
    connection: Connection, site: Site, config: PostgresConfig, tables: Sequence[str], role: Role
) -> list[Finding]:
    """The findings of `concord check`."""
    server = await load_server(connection)
    catalog = await load_catalog(connection, [*tables, joined_name(*MARKER), joined_name(*IDENTITY)])
    rights = await load_rights(connection, catalog, publication_name(site, config))
    findings = list(_of_server(server))
    for name in tables:
        if name not in catalog.tables:
            findings.append(Finding(path=name, message="the table does not exist", hint="Create or unmap it."))
    if Role.SOURCE in role:
        publication = await load_publication(connection, publication_name(site, config))
        slot = await load_slot(connection, slot_name(site, config))
        findings += _of_source(server)
        findings += _of_slot(server, slot, slot_name(site, config), await _free_places(connection), publication)
        findings += _of_publication(server, publication, publication_name(site, config), catalog, tables, role, rights)
        for name in tables:
            if name in catalog.tables:
                findings += _of_captured(catalog.tables[name], publication)
    if Role.TARGET in role:
        findings += _of_target(server, catalog)
    findings += await find_missing_rights(connection, catalog, tables, role, server, rights)
    return findings


def _of_server(server: Server) -> Iterator[Finding]:
    if server.version < VERSION_MIN:
        yield Finding(
            path="server_version",
            message=f"version {server.version // 10000} is too old; 14 is the first that streams large transactions",
            hint="Upgrade PostgreSQL.",
        )
    if server.encoding in _UNSAFE_ENCODINGS:
        yield Finding(
            path="server_encoding",
            message=f"the database's encoding is {server.encoding}, so its texts need not be valid in any",
            hint="Move the data to a database with encoding UTF8.",
        )


def _of_source(server: Server) -> Iterator[Finding]:
    if server.is_standby:
        yield Finding(
            path="server",
            message="this is a standby; the marker and the slot live on the primary",
            hint="Add target_session_attrs=read-write to the dsn.",
        )
    if server.settings.get("wal_level") != "logical":
        yield Finding(
            path="wal_level",
            message=f"wal_level is {server.settings.get('wal_level')}; capture needs logical",
            hint="Set it and restart the server.",
            sql="alter system set wal_level = 'logical';",
        )
    if not server.may_replicate:
        yield Finding(
            path="role",
            message=f"user {server.user} may not replicate",
            hint="Give the attribute; on managed services grant their replication role instead.",
            sql=f"alter role {quoted(server.user)} replication;",
        )
    if server.settings.get("idle_replication_slot_timeout", "0") != "0":
        yield Finding(
            path="idle_replication_slot_timeout",
            message="a slot that nobody reads is given up after a time; a daemon that is down so long loses its place",
            hint="Keep it well above the longest outage you want to survive.",
            is_fatal=False,
        )
    if server.settings.get("wal_sender_timeout", "60000") != "0" and int(server.settings["wal_sender_timeout"]) < 5000:
        yield Finding(
            path="wal_sender_timeout",
            message="wal_sender_timeout is under 5 s; a busy moment would end the stream",
            sql="alter system set wal_sender_timeout = '60s';",
            is_fatal=False,
        )


def _of_slot(
    server: Server, slot: Slot | None, name: str, free: tuple[int, int], publication: Publication | None
) -> Iterator[Finding]:
    keep = int(server.settings.get("max_slot_wal_keep_size", "-1"))
    if keep < 0:
        yield Finding(
            path="max_slot_wal_keep_size",
            message="nothing limits the log kept for a slot; a daemon that is down for long fills the disk",
            hint="Set a limit that fits the disk, and watch `concord status`.",
            sql="alter system set max_slot_wal_keep_size = '50GB';",
            is_fatal=False,
        )
    if slot is None:
        free_slots, _ = free
        if free_slots < 1:
            yield Finding(
                path="max_replication_slots",
                message="all replication slots are taken",
                hint="Raise it and restart the server, or drop a slot that nobody reads.",
                sql=f"alter system set max_replication_slots = {int(server.settings['max_replication_slots']) + 4};",
            )
        yield Finding(
            path=f"slot {name}",
            message="the replication slot does not exist",
            hint="Run `concord setup`.",
            sql=f"select pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput');",
            by_setup=True,
        )
    elif slot.trouble:
        yield Finding(
            path=f"slot {name}",
            message=f"the server has given it up ({slot.trouble}); changes since then are lost to us",
            hint="Drop it, run `concord setup`, then `concord backfill`.",
            sql=f"select pg_catalog.pg_drop_replication_slot('{name}');",
        )
    elif publication is None and (slot.database, slot.plugin) == (server.database, "pgoutput"):
        yield Finding(
            path=f"slot {name}",
            message="it stands without a publication, and a new one does not fit an older slot",
            hint="Drop it, run `concord setup`, then `concord backfill`.",
            sql=f"select pg_catalog.pg_drop_replication_slot('{name}');",
        )
    elif slot.database != server.database:
        yield Finding(
            path=f"slot {name}",
            message=f"it belongs to database {slot.database}: slots have the server's names, not a database's",
            hint='Give this system a slot name of its own: slot = "..." in concord.toml.',
        )
    elif slot.plugin != "pgoutput":
        yield Finding(
            path=f"slot {name}",
            message=f"it belongs to output plugin {slot.plugin}",
            hint="Name another slot in the configuration.",
        )
    elif slot.safe_bytes is not None and slot.safe_bytes < _SAFE_BYTES_MIN:
        yield Finding(
            path=f"slot {name}",
            message=f"{slot.safe_bytes} bytes more of log and the server gives it up",
            hint="Start the daemon, or raise max_slot_wal_keep_size now.",
            is_fatal=False,
        )
    _, free_senders = free
    if free_senders < 1 and not (slot is not None and slot.is_active):
        yield Finding(
            path="max_wal_senders",
            message="all walsenders are taken",
            hint="Raise it and restart the server.",
            sql=f"alter system set max_wal_senders = {int(server.settings['max_wal_senders']) + 4};",
        )


def _of_publication(
    server: Server,
    publication: Publication | None,
    name: str,
    catalog: Catalog,
    tables: Sequence[str],
    role: Role,
    rights: Rights,
) -> Iterator[Finding]:
    path, user = f"publication {name}", quoted(server.user)
    wanted = published_tables(catalog, tables, role)
    # What is not made yet is ours once it is made, and set-up publishes it then.
    made = {(table.schema, table.table) for table in catalog.tables.values()}
    existing = [place for place in wanted if place in made]
    give = f"alter publication {quoted(name)} owner to {user};"
    if publication is None:
        strangers = rights.strangers(catalog, existing)
        if strangers:
            create = " ".join(step.sql for step in publication_steps(server, None, name, existing))
            yield Finding(
                path=path,
                message=f"it does not exist, and user {server.user} may not make it: only its owner publishes a table,"
                f" and others own {shown(strangers)}",
                hint="Let a superuser run this, then run `concord setup`.",
                sql=f"{create} {give}",
            )
        elif not rights.creates_in_database:
            yield Finding(
                path=path,
                message=f"it does not exist, and user {server.user} lacks the privilege create on the database",
                hint="Grant it, then run `concord setup`.",
                sql=f"grant create on database {quoted(server.database)} to {user};",
            )
        else:
            yield Finding(path=path, message="it does not exist", hint="Run `concord setup`.", by_setup=True)
        return
    steps = [step.summary for step in publication_steps(server, publication, name, existing)]
    if not rights.owns_publication and (steps or len(existing) < len(wanted)):
        what = ", ".join(steps) or "publish the marker"
        yield Finding(
            path=path,
            message=f"user {server.user} may not alter it, which set-up has to: {what}",
            hint="Give it to our user, then run `concord setup`.",
            sql=give,
        )
    if not publication.via_root:
        yield Finding(
            path=path,
            message="it publishes changes of a partition under the partition's name, which nobody mapped",
            hint="Run `concord setup`.",
            sql=f"alter publication {quoted(name)} set (publish_via_partition_root = true);",
            is_fatal=any(table.kind == "p" for table in catalog.tables.values()),
        )
    missing = [op for op in _OPERATIONS if op not in publication.operations]
    if missing:
        yield Finding(
            path=path,
            message=f"it does not publish {', '.join(missing)}",
            sql=f"alter publication {quoted(name)} set (publish = 'insert, update, delete, truncate');",
        )
    for place in existing:
        if place not in publication.tables:
            mends = rights.owns_publication and not rights.strangers(catalog, [place])
            yield Finding(
                path=joined_name(*place),
                message="the table is not published, so its changes are not seen",
                hint=f"{'Run `concord setup`' if mends else 'Let the owner of both run this'},"
                " then `concord backfill` for the table.",
                sql=f"alter publication {quoted(name)} add table {quoted_table(*place)};",
            )
    if publication.is_for_all:
        yield Finding(
            path=path,
            message="it publishes all tables; the server sends us many that nobody mapped",
            hint="Use a publication with a list of tables.",
            is_fatal=False,
        )


def _of_captured(table: Table, publication: Publication | None) -> Iterator[Finding]:
    name, place = table.name, quoted_table(table.schema, table.table)
    if not table.key:
        yield Finding(
            path=name,
            message="it has no primary key, so updates and deletes cannot be told apart and pages not be read",
            hint="Give it one.",
            sql=f"alter table {place} add primary key (...);",
        )
    elif not set(table.identity_columns) >= set(table.key):
        yield Finding(
            path=name,
            message="its replica identity does not hold the primary key, so deletes would come without it",
            sql=f"alter table {place} replica identity default;",
        )
    published = publication.tables.get((table.schema, table.table)) if publication else None
    if published is not None and published.row_filter:
        yield Finding(
            path=name,
            message="the publication filters its rows; a row that leaves the filter looks deleted",
            hint="Take the filter away and use `where` in the mapping.",
            sql=f"alter publication {quoted(publication.name if publication else '')} drop table {place};",
        )
    if published is not None and published.columns is not None:
        hidden = [a.name for a in table.attributes if a.name not in published.columns and not a.generated]
        if hidden:
            yield Finding(
                path=name,
                message=f"the publication leaves out columns: {', '.join(hidden)}",
                hint="Do not map them, or publish them.",
                is_fatal=False,
            )
    if publication is None or not publication.has_generated:
        for attribute in table.attributes:
            if attribute.generated:
                yield _not_sent(name, attribute.name)
    elif virtual := [a.name for a in table.attributes if a.generated == "v"]:
        for column in virtual:
            yield _not_sent(name, column)
    if table.has_row_security:
        yield Finding(
            path=name,
            message="row security hides rows from pages, not from the log",
            hint="Give our user bypassrls; without it a page is refused.",
            is_fatal=False,
        )


def _not_sent(table: str, column: str) -> Finding:
    return Finding(
        path=f"{table}.{column}",
        message="the log does not carry this generated column",
        hint="Write its expression in the mapping instead of the column.",
        is_fatal=False,
    )


def _of_target(server: Server, catalog: Catalog) -> Iterator[Finding]:
    if server.is_standby:
        yield Finding(path="server", message="this is a standby; nothing can be written to it")
    for name in (joined_name(*MARKER), joined_name(*IDENTITY)):
        if name not in catalog.tables:
            yield Finding(path=name, message="the table does not exist", hint="Run `concord setup`.", by_setup=True)


async def _free_places(connection: Connection) -> tuple[int, int]:
    """(replication slots, walsenders) that nobody has."""
    row = await (await connection.execute(_FREE)).fetchone()
    assert row is not None, "a select without from gives one row"
    return row[0], row[1]


_FREE: Final = """
select current_setting('max_replication_slots')::int - (select count(*) from pg_catalog.pg_replication_slots)::int,
  current_setting('max_wal_senders')::int
    - (select count(*) from pg_catalog.pg_stat_get_activity(null) where backend_type = 'walsender')::int
"""
