"""What the live catalogue says of tables, and how it is joined with what the log says of them.

The log's relation message is right about the past (names and types of the columns of the rows behind it) and says
little; the catalogue is complete and speaks of now. A shape takes its columns from the message and the rest from the
catalogue, column by column where both mean the same column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection

from engine.errors import ConfigError
from engine.model.table import Column, Form, Shape
from plugins.postgres.decode import RelationMessage
from plugins.postgres.types import TypeRow, describe

# Attributes of one row, of which a connection lost in the middle leaves nothing behind.
Connection = AsyncConnection[tuple[Any, ...]]

HIDDEN_SCHEMAS: Final = ("pg_catalog", "information_schema", "concord")
MARKER: Final = ("concord", "marker")


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """A row of pg_attribute. `type`: with its modifier, as SQL spells it. `generated`: "", "s" stored, "v" virtual."""

    name: str
    number: int
    type: str
    type_id: int
    type_modifier: int
    is_not_null: bool
    identity: str
    generated: str
    has_default: bool
    is_serial: bool


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the catalogue. `key`: the primary key, or without one the index that is the replica identity.

    `identity`: pg_class.relreplident; `identity_columns`: those a log's old row brings, empty for "nothing".
    """

    name: str
    id: int
    schema: str
    table: str
    kind: str
    identity: str
    identity_columns: tuple[str, ...]
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    has_triggers: bool
    has_row_security: bool
    attributes: tuple[Attribute, ...]


class Catalog(msgspec.Struct, kw_only=True):
    """Tables by the name of the mapping, and the types of their columns."""

    tables: dict[str, Table]
    types: dict[int, TypeRow]

    def shape(self, name: str, *, generated: frozenset[str] = frozenset("sv")) -> Shape | None:
        """The table as the catalogue has it, generated columns only of the kinds named."""
        table = self.tables.get(name)
        if table is None:
            return None
        kept = [a for a in table.attributes if not a.generated or a.generated in generated]
        return self._shape(table, tuple(self._column(a) for a in kept))

    def shape_of(self, name: str, message: RelationMessage) -> Shape:
        """The table as the log has it."""
        table = self.tables.get(name)
        columns: list[Column] = []
        known = {a.name: a for a in table.attributes} if table else {}
        for sent in message.columns:
            found = known.get(sent.name)
            if found and (found.type_id, found.type_modifier) == (sent.type_id, sent.type_modifier):
                columns.append(self._column(found))
                continue
            # The table has changed since: the type is known by its id, the rest is not.
            meaning = describe(sent.type_id, sent.type_modifier, self.types)
            row = self.types.get(sent.type_id)
            columns.append(
                Column(
                    name=sent.name,
                    kind=meaning.kind,
                    type=row.name if row else f"type {sent.type_id}",
                    length=meaning.length,
                    precision=meaning.precision,
                    scale=meaning.scale,
                    labels=meaning.labels,
                    element=meaning.element,
                )
            )
        if table is None:
            key = tuple(c.name for c in message.columns if c.is_key) if message.identity != "f" else ()
            return Shape(name=name, columns=tuple(columns), form=Form.TEXT, key=key)
        return self._shape(table, tuple(columns))

    def _shape(self, table: Table, columns: tuple[Column, ...]) -> Shape:
        names = {c.name for c in columns}
        return Shape(
            name=table.name,
            columns=columns,
            form=Form.TEXT,
            key=table.key if names.issuperset(table.key) else (),
            unique=tuple(u for u in table.unique if names.issuperset(u)),
            has_triggers=table.has_triggers,
        )

    def _column(self, attribute: Attribute) -> Column:
        meaning = describe(attribute.type_id, attribute.type_modifier, self.types)
        return Column(
            name=attribute.name,
            kind=meaning.kind,
            type=attribute.type,
            is_nullable=not (attribute.is_not_null or meaning.is_not_null),
            length=meaning.length,
            precision=meaning.precision,
            scale=meaning.scale,
            labels=meaning.labels,
            element=meaning.element,
            is_generated=bool(attribute.generated),
            has_default=attribute.has_default or bool(attribute.identity) or meaning.has_default,
            is_assigned=bool(attribute.identity) or attribute.is_serial,
        )


def quoted(name: str) -> str:
    """One identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(schema: str, table: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"


def split_name(name: str) -> tuple[str, str]:
    """(schema, table) of a mapping's table name; without a schema it is public.

    Names are taken literally, upper case too. A part that holds a dot or a quote stands in double quotes, as in SQL.
    Raises `ConfigError`.
    """
    parts: list[str] = []
    rest = name
    while rest:
        if rest.startswith('"'):
            end = 1
            while (end := rest.find('"', end)) >= 0 and rest[end : end + 2] == '""':
                end += 2
            if end < 0:
                break
            parts.append(rest[1:end].replace('""', '"'))
            rest = rest[end + 1 :]
        else:
            part, dot, rest = rest.partition(".")
            parts.append(part)
            rest = dot + rest
        if not rest:
            break
        if not rest.startswith(".") or len(rest) == 1:
            parts.append("")
            break
        rest = rest[1:]
    if len(parts) == 1:
        parts.insert(0, "public")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(f'table name {name!r} is neither table nor schema.table (with "..." where a name has a dot)')
    return parts[0], parts[1]


def joined_name(schema: str, table: str) -> str:
    """The name that `split_name` splits into these."""
    return ".".join(quoted(part) if '"' in part or "." in part else part for part in (schema, table))


async def load_catalog(connection: Connection, tables: Iterable[str] | None) -> Catalog:
    """Read the tables (None: all that a mapping could want); those that do not exist are left out."""
    if tables is None:
        cursor = await connection.execute(_ALL_TABLES, [list(HIDDEN_SCHEMAS)])
        names = {(str(s), str(t)): joined_name(str(s), str(t)) for s, t in await cursor.fetchall()}
    else:
        names = {split_name(name): name for name in tables}
    schemas, relations = [s for s, _ in names], [t for _, t in names]
    rows = await (await connection.execute(_TABLES, [schemas, relations])).fetchall()
    attributes = await _load_attributes(connection, [row[0] for row in rows])
    found: dict[str, Table] = {}
    type_ids: set[int] = set()
    for oid, schema, table, kind, identity, has_security, triggers, key, identity_index, unique in rows:
        columns = tuple(attributes.get(oid, ()))
        by_number = {a.number: a.name for a in columns}
        primary, index = _named(key, by_number), _named(identity_index, by_number)
        sent = {"d": primary, "i": index, "f": tuple(a.name for a in columns if not a.generated)}.get(identity, ())
        name = names[schema, table]
        found[name] = Table(
            name=name,
            id=oid,
            schema=schema,
            table=table,
            kind=kind,
            identity=identity,
            identity_columns=sent,
            key=primary or index,
            unique=tuple(_named(u, by_number) for u in unique),
            has_triggers=triggers,
            has_row_security=has_security,
            attributes=columns,
        )
        type_ids.update(a.type_id for a in columns)
    return Catalog(tables=found, types=await load_types(connection, type_ids))


async def load_types(connection: Connection, ids: Iterable[int]) -> dict[int, TypeRow]:
    """Rows of pg_type, with all that domains and arrays among them stand on."""
    rows = await (await connection.execute(_TYPES, [list(ids)])).fetchall()
    return {
        row[0]: TypeRow(
            id=row[0],
            name=row[1],
            schema=row[2],
            kind=row[3],
            category=row[4],
            base=row[5],
            element=row[6],
            modifier=row[7],
            is_not_null=row[8],
            has_default=row[9],
            labels=tuple(row[10]),
        )
        for row in rows
    }


async def _load_attributes(connection: Connection, ids: Sequence[int]) -> dict[int, list[Attribute]]:
    found: dict[int, list[Attribute]] = {}
    for row in await (await connection.execute(_ATTRIBUTES, [list(ids)])).fetchall():
        found.setdefault(row[0], []).append(
            Attribute(
                name=row[1],
                number=row[2],
                type=row[3],
                type_id=row[4],
                type_modifier=row[5],
                is_not_null=row[6],
                identity=row[7],
                generated=row[8],
                has_default=row[9],
                is_serial=row[10],
            )
        )
    return found


def _named(numbers: Sequence[int] | None, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names[n] for n in numbers or () if n in names)


# Partitions are left out: what happens in them is told of the table they belong to.
_ALL_TABLES: Final = """
select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
  and n.nspname <> all (%s) and n.nspname not like 'pg\\_%%'
order by 1, 2
"""

_TABLES: Final = """
select c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relreplident::text, c.relrowsecurity,
  exists (select from pg_catalog.pg_trigger t
          where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A'))
  or exists (select from pg_catalog.pg_constraint f
          where f.conrelid = c.oid and f.contype = 'f' and (f.confdeltype in ('c', 'n', 'd')
            or f.confupdtype in ('c', 'n', 'd'))),
  (select (i.indkey::int2[]::int[])[0:i.indnkeyatts - 1] from pg_catalog.pg_index i
   where i.indrelid = c.oid and i.indisprimary),
  (select (i.indkey::int2[]::int[])[0:i.indnkeyatts - 1] from pg_catalog.pg_index i
   where i.indrelid = c.oid and i.indisreplident),
  array(select array_to_json((i.indkey::int2[]::int[])[0:i.indnkeyatts - 1]) from pg_catalog.pg_index i
        where i.indrelid = c.oid and i.indisunique and not i.indisprimary and i.indisvalid
          and i.indpred is null and i.indexprs is null order by i.indexrelid)
from unnest(%s::text[], %s::text[]) as wanted (schema_name, table_name)
join pg_catalog.pg_namespace n on n.nspname = wanted.schema_name
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
where c.relkind in ('r', 'p')
"""

_ATTRIBUTES: Final = """
select a.attrelid::bigint, a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::bigint,
  a.atttypmod, a.attnotnull, a.attidentity::text, a.attgenerated::text, a.atthasdef,
  coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) like '%%nextval(%%', false)
from pg_catalog.pg_attribute a
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = any (%s::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""

_TYPES: Final = """
with recursive wanted (id) as (
  select unnest(%s::bigint[]::oid[])
  union
  select case t.typtype when 'd' then t.typbasetype else t.typelem end
  from pg_catalog.pg_type t join wanted w on t.oid = w.id where t.typtype = 'd' or t.typcategory = 'A'
)
select t.oid::bigint, t.typname, n.nspname, t.typtype::text, t.typcategory::text, t.typbasetype::bigint,
  t.typelem::bigint, t.typtypmod, t.typnotnull, t.typdefault is not null,
  array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder)
from wanted w join pg_catalog.pg_type t on t.oid = w.id join pg_catalog.pg_namespace n on n.oid = t.typnamespace
"""
