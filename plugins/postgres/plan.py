"""What set-up has still to do, as SQL that a DBA could run instead. Decides; carries nothing out.

At a target: schema `concord` with the marker (one row: what was delivered last, and by whom) and the keys that the
database handed out. At a source: a publication with an explicit list of tables, and a logical slot. A plan is computed
from the catalogue every time, so set-up can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from engine.errors import PositionLost
from engine.ports import Role, Step
from plugins.postgres.catalog import (
    MARKER,
    Catalog,
    Connection,
    joined_name,
    load_catalog,
    quoted,
    quoted_table,
    split_name,
)
from plugins.postgres.position import cure, format_lsn
from plugins.postgres.server import Publication, Server, Slot

IDENTITY: Final = ("concord", "identity")
_OPERATIONS: Final = "insert, update, delete, truncate"
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
_HAS_SCHEMA: Final = "select exists (select from pg_catalog.pg_namespace where nspname = 'concord')"


async def target_steps(connection: Connection) -> list[Step]:
    """The marker and its neighbour."""
    found = await load_catalog(connection, [joined_name(*MARKER), joined_name(*IDENTITY)])
    steps: list[Step] = []
    # Looked for, though the statement says "if not exists": the server asks for the privilege first.
    if await (await connection.execute(_HAS_SCHEMA)).fetchone() == (False,):
        steps.append(Step(summary="make a schema for our own tables", sql=_SCHEMA))
    has_row = False
    if joined_name(*MARKER) in found.tables:
        row = await (await connection.execute("select count(*) from concord.marker")).fetchone()
        has_row = row is not None and row[0] > 0
    else:
        steps.append(Step(summary="make the marker of deliveries", sql=_MARKER_TABLE))
    if not has_row:
        steps.append(Step(summary="put the marker's one row in", sql=_MARKER_ROW))
    if joined_name(*IDENTITY) not in found.tables:
        steps.append(Step(summary="make the table of assigned keys", sql=_IDENTITY_TABLE))
    return steps


def published_tables(catalog: Catalog, tables: Sequence[str], role: Role) -> list[tuple[str, str]]:
    """(schema, table) of what the publication must have: the mapped tables, and the marker where there is one."""
    places = [split_name(name) for name in tables]
    if Role.TARGET in role or joined_name(*MARKER) in catalog.tables:
        places.append(MARKER)
    return list(dict.fromkeys(places))


def publication_steps(
    server: Server, publication: Publication | None, name: str, wanted: Sequence[tuple[str, str]]
) -> Iterator[Step]:
    """What makes it publish every change of the `wanted` tables. `name` is the publication's, made or not."""
    spelt = quoted(name)
    if publication is None:
        options = f"publish = '{_OPERATIONS}', publish_via_partition_root = true"
        if server.version >= _GENERATED_SINCE:
            options += ", publish_generated_columns = stored"
        yield Step(
            summary=f"publish the changes of {_count(wanted)}",
            sql=f"create publication {spelt} for table {_listed(wanted)} with ({options});",
        )
        return
    missing = [place for place in wanted if place not in publication.tables]
    if missing and not publication.is_for_all:
        sql = f"alter publication {spelt} add table {_listed(missing)};"
        yield Step(summary=f"publish {_count(missing)} more", sql=sql)
    if not publication.operations.issuperset(_OPERATIONS.split(", ")):
        sql = f"alter publication {spelt} set (publish = '{_OPERATIONS}');"
        yield Step(summary="publish every kind of change", sql=sql)
    if not publication.via_root:
        sql = f"alter publication {spelt} set (publish_via_partition_root = true);"
        yield Step(summary="publish partitions as their table", sql=sql)


def slot_steps(
    server: Server, slot: Slot | None, name: str, publication: Publication | None, *, system: str
) -> Iterator[Step]:
    """The slot where there is none. Raises `PositionLost` for one that cannot be read any more: never made anew.

    A slot is older than a publication that is still to be made. Up to version 17 the walsender would fail on what was
    written in between, for ever; since 18 it would pass over it.
    """
    if slot is None:
        yield Step(
            summary="keep the log from here on",
            sql=f"select pg_catalog.pg_create_logical_replication_slot({literal(name)}, 'pgoutput');",
        )
    elif slot.trouble:
        raise PositionLost(
            f"system {system}: the server has given up replication slot {slot.name} ({slot.trouble}),"
            f" at {format_lsn(slot.confirmed_lsn)}",
            hint=cure(system, slot.name),
            slot=slot.name,
        )
    elif publication is None and slot.database == server.database and slot.plugin == "pgoutput":
        raise PositionLost(
            f"system {system}: there is no publication, and replication slot {slot.name} stands: a new publication does"
            " not fit an older slot",
            hint=cure(system, slot.name),
            slot=slot.name,
        )


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(places: Sequence[tuple[str, str]]) -> str:
    return ", ".join(quoted_table(*place) for place in places)


def _count(places: Sequence[tuple[str, str]]) -> str:
    return "1 table" if len(places) == 1 else f"{len(places)} tables"
