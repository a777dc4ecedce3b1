"""Privileges that are missing, each told once with the statement that grants it. Reads only.

What is needed is what the plugin's own statements need, and no more: a page reads all columns of a table, delivery
writes rows and the marker, a key that comes from a sequence needs the sequence (an identity column does not), and
set-up needs what its plan makes. Not seen from here: what a trigger of the application's needs, which runs as our user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from engine.ports import Finding, Role
from plugins.postgres.catalog import MARKER, Catalog, Connection, Table, joined_name, quoted, quoted_table
from plugins.postgres.plan import IDENTITY
from plugins.postgres.server import Server

_READS: Final = ("select",)
_WRITES: Final = ("select", "insert", "update", "delete")
# The marker's row is put in by set-up and only updated then; keys are only added.
_OWN: Final = {joined_name(*MARKER): ("select", "update"), joined_name(*IDENTITY): ("select", "insert")}
_NAMES_SHOWN_MAX: Final = 3


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What our user may do beyond reading and writing. Owning counts through membership of a role, too.

    `owned`: object ids of tables; `owns_publication`: None where there is no such publication.
    """

    creates_in_database: bool
    has_schema: bool
    uses_schema: bool
    creates_in_schema: bool
    owned: frozenset[int]
    owns_publication: bool | None

    def strangers(self, catalog: Catalog, places: Sequence[tuple[str, str]]) -> list[str]:
        """Names of those tables that exist and belong to others: only an owner may publish a table."""
        tables = {(table.schema, table.table): table for table in catalog.tables.values()}
        return [tables[place].name for place in places if place in tables and tables[place].id not in self.owned]


async def load_rights(connection: Connection, catalog: Catalog, publication: str) -> Rights:
    """Our user's rights; those on the tables of the catalogue."""
    cursor = await connection.execute(_RIGHTS, [[table.id for table in catalog.tables.values()], publication])
    row = await cursor.fetchone()
    assert row is not None, "a select of sub-selects gives one row"
    return Rights(
        creates_in_database=row[0],
        has_schema=row[1] is not None,
        uses_schema=bool(row[1]),
        creates_in_schema=bool(row[2]),
        owned=frozenset(row[3]),
        owns_publication=row[4],
    )


async def find_missing_rights(
    connection: Connection, catalog: Catalog, tables: Sequence[str], role: Role, server: Server, rights: Rights
) -> list[Finding]:
    """What our user lacks on tables, sequences and schemas."""
    needs = dict.fromkeys(tables, _WRITES if Role.TARGET in role else _READS)
    if Role.TARGET in role:
        needs |= _OWN
    wanted = {table.id: table for name in needs if (table := catalog.tables.get(name)) is not None}
    findings = list(_of_schema(rights, catalog, role, server))
    # By number: a name in a schema that we may not use is an error, not an answer.
    schemas = [row[0] for row in await (await connection.execute(_SCHEMAS, [list(wanted)])).fetchall()]
    if schemas := [name for name in schemas if name != MARKER[0] or _is_set_up(catalog)]:
        on = f"schema {', '.join(quoted(name) for name in schemas)}"
        findings.append(_grant("usage", on, on, server))
    pairs = [(oid, need) for oid, table in wanted.items() for need in needs[table.name]]
    cursor = await connection.execute(_TABLES, [[oid for oid, _ in pairs], [need for _, need in pairs]])
    lacking: dict[int, list[str]] = {}
    for oid, need, columns, is_whole in await cursor.fetchall():
        if is_whole:
            lacking.setdefault(oid, []).append(need)
        else:
            findings.append(_of_columns(wanted[oid], need, columns, server))
    groups: dict[tuple[str, ...], list[Table]] = {}
    for oid, found in lacking.items():
        groups.setdefault(tuple(found), []).append(wanted[oid])
    for found, members in groups.items():
        on = f"table {', '.join(quoted_table(t.schema, t.table) for t in members)}"
        findings.append(_grant(", ".join(found), on, shown([t.name for t in members]), server))
    if Role.TARGET in role:
        mapped = [table.id for table in wanted.values() if table.name not in _OWN]
        sequences = await (await connection.execute(_SEQUENCES, [mapped])).fetchall()
        if sequences:
            on = f"sequence {', '.join(quoted_table(*place) for place in sequences)}"
            findings.append(_grant("usage", on, shown([joined_name(*place) for place in sequences]), server))
    return findings


def _of_schema(rights: Rights, catalog: Catalog, role: Role, server: Server) -> Iterator[Finding]:
    """What set-up needs to make our own tables, while they are not made."""
    if Role.TARGET not in role or _is_set_up(catalog):
        return
    schema, user = quoted(MARKER[0]), quoted(server.user)
    if not rights.has_schema and not rights.creates_in_database:
        yield Finding(
            path=f"schema {schema}",
            message=f"user {server.user} lacks the privilege create on the database, to make it",
            hint="Make it for our user, then run `concord setup`.",
            sql=f"create schema {schema} authorization {user};",
        )
    elif rights.has_schema and not (rights.uses_schema and rights.creates_in_schema):
        yield _grant("usage, create", f"schema {schema}", f"schema {schema}", server)


def _is_set_up(catalog: Catalog) -> bool:
    return all(name in catalog.tables for name in _OWN)


def _of_columns(table: Table, need: str, columns: Sequence[str], server: Server) -> Finding:
    """A privilege that is there for some columns only."""
    listed, on = ", ".join(quoted(name) for name in columns), quoted_table(table.schema, table.table)
    # Which columns delivery writes is the mapping's affair; a page reads all of them.
    is_read = need == "select"
    return Finding(
        path=table.name,
        message=f"user {server.user} lacks the privilege {need} on columns {', '.join(columns)}",
        hint="Pages have every column of a table." if is_read else "Grant it, or see that the mapping writes none.",
        sql=f"grant {need} ({listed}) on table {on} to {quoted(server.user)};",
        is_fatal=is_read,
    )


def _grant(what: str, on: str, path: str, server: Server) -> Finding:
    noun = "privileges" if "," in what else "privilege"
    return Finding(
        path=path,
        message=f"user {server.user} lacks the {noun} {what}",
        sql=f"grant {what} on {on} to {quoted(server.user)};",
    )


def shown(names: Sequence[str]) -> str:
    """The names while they are few; the statement beside them has all."""
    if len(names) <= _NAMES_SHOWN_MAX:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES_SHOWN_MAX])} and {len(names) - _NAMES_SHOWN_MAX} more"


_RIGHTS: Final = """
select pg_catalog.has_database_privilege(current_database(), 'create'),
  (select has_schema_privilege(oid, 'usage') from pg_catalog.pg_namespace where nspname = 'concord'),
  (select has_schema_privilege(oid, 'create') from pg_catalog.pg_namespace where nspname = 'concord'),
  array(select c.oid::bigint from pg_catalog.pg_class c
        where c.oid = any (%s::bigint[]::oid[]) and pg_has_role(c.relowner, 'usage')),
  (select pg_has_role(pubowner, 'usage') from pg_catalog.pg_publication where pubname = %s)
"""

_SCHEMAS: Final = """
select distinct n.nspname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any (%s::bigint[]::oid[]) and not has_schema_privilege(n.oid, 'usage') order by 1
"""

# Virtual generated columns stand in no page and no log; generated ones are never written.
_TABLES: Final = """
select w.id, w.need, l.columns, w.need = 'delete' or l.columns_total = cardinality(l.columns)
from unnest(%s::bigint[], %s::text[]) with ordinality as w (id, need, n),
lateral (
  select count(*) as columns_total,
    coalesce(array_agg(a.attname::text order by a.attnum) filter (
      where case w.need when 'delete' then true
            else not has_column_privilege(a.attrelid, a.attnum, w.need) end), '{}') as columns
  from pg_catalog.pg_attribute a where a.attrelid = w.id::oid and a.attnum > 0 and not a.attisdropped
    and a.attgenerated in ('', case w.need when 'select' then 's' else '' end)
) l
where not has_table_privilege(w.id::oid, w.need) and l.columns <> '{}'
order by w.n
"""

# nextval asks for either. An identity column's sequence is the table's own and needs nothing.
_SEQUENCES: Final = """
select distinct n.nspname::text, s.relname::text
from pg_catalog.pg_attrdef d
join pg_catalog.pg_depend p on p.classid = 'pg_catalog.pg_attrdef'::regclass and p.objid = d.oid
  and p.refclassid = 'pg_catalog.pg_class'::regclass
join pg_catalog.pg_class s on s.oid = p.refobjid and s.relkind = 'S'
join pg_catalog.pg_namespace n on n.oid = s.relnamespace
where d.adrelid = any (%s::bigint[]::oid[])
  and case s.relkind when 'S' then not has_sequence_privilege(s.oid, 'usage, update') else false end
order by 1, 2
"""
