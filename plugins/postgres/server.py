"""What the server says of itself, of our slot and of our publication. Reads only.

Catalogue views gain columns from version to version; they are read as JSON, so that one query serves all of them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from plugins.postgres.catalog import Connection
from plugins.postgres.position import Cluster, parse_lsn

# The oldest version with protocol 2 (streaming of large transactions), and the oldest that is still maintained.
VERSION_MIN: Final = 140000


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: as server_version_num. `settings`: of pg_settings, in their base units."""

    version: int
    is_standby: bool
    database: str
    encoding: str
    user: str
    may_replicate: bool
    is_superuser: bool
    log_end: int
    settings: dict[str, str]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A logical slot. `trouble`: why the server has given it up, empty when it has not."""

    name: str
    plugin: str
    database: str
    is_active: bool
    restart_lsn: int
    confirmed_lsn: int
    wal_status: str
    trouble: str
    safe_bytes: int | None


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A table in a publication. `id`: the object id of its membership, another one when it is taken out and put back; 0
    where it is published with its schema, or with all tables. `columns`: None where all are published."""

    id: int
    row_filter: str | None
    columns: tuple[str, ...] | None


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """`id`: its object id. `operations`: of insert, update, delete, truncate. `has_generated`: stored generated columns
    are sent. `has_marker_table`: there is our marker, which must be published."""

    id: int
    name: str
    is_for_all: bool
    operations: frozenset[str]
    via_root: bool
    has_generated: bool
    has_marker_table: bool
    tables: dict[tuple[str, str], Published]


async def load_server(connection: Connection) -> Server:
    """The server and our user."""
    cursor = await connection.execute(_SERVER, [list(_SETTINGS)])
    row = await cursor.fetchone()
    assert row is not None, "a select without from gives one row"
    version, is_standby, database, encoding, user, replication, superuser, log_end, settings = row
    return Server(
        version=version,
        is_standby=is_standby,
        database=database,
        encoding=encoding,
        user=user,
        may_replicate=replication or superuser,
        is_superuser=superuser,
        log_end=parse_lsn(log_end),
        settings=settings,
    )


async def load_cluster(connection: Connection) -> Cluster:
    """Which log the server writes, as IDENTIFY_SYSTEM says on a replication connection."""
    row = await (await connection.execute(_CLUSTER)).fetchone()
    assert row is not None, "a select without from gives one row"
    return Cluster(identifier=row[0], timeline=row[1])


async def load_slot(connection: Connection, name: str) -> Slot | None:
    """The replication slot, or None. A physical slot of that name counts as one with another plugin."""
    cursor = await connection.execute(_SLOT, [name])
    row = await cursor.fetchone()
    if row is None:
        return None
    slot: dict[str, Any] = row[0]
    trouble = ""
    if slot.get("wal_status") == "lost":
        trouble = slot.get("invalidation_reason") or "wal_removed"
    elif slot.get("invalidation_reason"):
        trouble = slot["invalidation_reason"]
    elif slot.get("conflicting"):
        trouble = "conflict with recovery"
    return Slot(
        name=slot["slot_name"],
        plugin=slot.get("plugin") or "none",
        database=slot.get("database") or "",
        is_active=slot["active"],
        restart_lsn=_lsn(slot.get("restart_lsn")),
        confirmed_lsn=_lsn(slot.get("confirmed_flush_lsn")),
        wal_status=slot.get("wal_status") or "",
        trouble=trouble,
        safe_bytes=slot.get("safe_wal_size"),
    )


async def load_publication(connection: Connection, name: str) -> Publication | None:
    """The publication with its tables, or None."""
    cursor = await connection.execute(_PUBLICATION, [name])
    row = await cursor.fetchone()
    if row is None:
        return None
    publication: dict[str, Any] = row[0]
    tables: dict[tuple[str, str], Published] = {}
    for schema, table, id, row_filter, columns in await (await connection.execute(_PUBLISHED, [name])).fetchall():
        tables[schema, table] = Published(id=id, row_filter=row_filter, columns=tuple(columns) if columns else None)
    return Publication(
        id=int(publication["oid"]),
        name=name,
        is_for_all=publication["puballtables"],
        operations=frozenset(
            operation for operation in ("insert", "update", "delete", "truncate") if publication[f"pub{operation}"]
        ),
        via_root=publication["pubviaroot"],
        has_generated=publication.get("pubgencols") == "s",
        has_marker_table=publication["has_marker_table"],
        tables=tables,
    )


def _lsn(text: str | None) -> int:
    return parse_lsn(text) if text else 0


_SETTINGS: Final = (
    "wal_level",
    "max_slot_wal_keep_size",
    "max_replication_slots",
    "max_wal_senders",
    "wal_sender_timeout",
    "idle_replication_slot_timeout",
    "logical_decoding_work_mem",
)

_SERVER: Final = """
select current_setting('server_version_num')::int, pg_catalog.pg_is_in_recovery(),
  current_database()::text, current_setting('server_encoding'), current_user::text, r.rolreplication, r.rolsuper,
  case when pg_catalog.pg_is_in_recovery() then coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')
       else pg_catalog.pg_current_wal_insert_lsn() end::text,
  (select jsonb_object_agg(name, setting) from pg_catalog.pg_settings where name = any (%s))
from pg_catalog.pg_roles r where r.rolname = current_user
"""

# pg_control_checkpoint() tells the timeline of the last checkpoint; the name of the present log file begins with ours.
_CLUSTER: Final = """
select (select system_identifier::text from pg_catalog.pg_control_system()),
  case when pg_catalog.pg_is_in_recovery() then (select timeline_id from pg_catalog.pg_control_checkpoint())
       else ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int end
"""

_SLOT: Final = "select to_jsonb(s) from pg_catalog.pg_replication_slots s where slot_name = %s"

_PUBLICATION: Final = """
select to_jsonb(p) || jsonb_build_object('has_marker_table', exists (
  select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'concord' and c.relname = 'marker'))
from pg_catalog.pg_publication p where pubname = %s
"""

# pg_publication_tables names all columns where no list was given; prattrs tells the two apart, since PostgreSQL 15.
_PUBLISHED: Final = """
select t.schemaname, t.tablename, coalesce(r.oid, 0)::bigint, to_jsonb(t) ->> 'rowfilter',
  case when to_jsonb(r) ->> 'prattrs' is not null
       then array(select jsonb_array_elements_text(to_jsonb(t) -> 'attnames')) end
from pg_catalog.pg_publication_tables t
join pg_catalog.pg_publication p on p.pubname = t.pubname
left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
  and r.prrelid = (select c.oid from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = t.schemaname and c.relname = t.tablename)
where t.pubname = %s
"""
