"""What delivery must know of a table: how SQL spells it and its columns, and which columns are unique together.

The catalogue as a whole is `plugins.postgres.catalog`; this is the small part that writing needs, read over delivery's
own connection, because it is read again in the middle of a delivery when a statement shows that the table has changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from plugins.postgres.catalog import quoted, quoted_table, split_name


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetColumn:
    """`type` has no modifier and is for casts, `full_type` has it and is for columns of temporary tables.

    The difference matters: a cast to `varchar(5)` cuts a longer text off without a word, where assigning to such a
    column, or reading COPY into one, refuses it (PostgreSQL, Value Expressions, Type Casts; Character Types).
    """

    name: str
    sql: str
    type: str
    full_type: str
    is_generated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """`unique` are the column sets that a valid unique index without predicate or expression covers; `arbiters` those
    of them that `on conflict` can use, which a deferrable constraint is not."""

    name: str
    sql: str
    schema: str
    relation: str
    columns: dict[str, TargetColumn] = field(hash=False)
    unique: frozenset[frozenset[str]]
    arbiters: frozenset[frozenset[str]]


class Fetch(Protocol):
    def __call__(self, text: str, *parameters: object) -> Awaitable[list[Any]]: ...


async def read_tables(fetch: Fetch, names: Sequence[str]) -> dict[str, TargetTable | None]:
    """The tables as the catalogue has them now; None for one that does not exist. Two statements for any number."""
    places = [split_name(name) for name in names]
    schemas, relations = [schema for schema, _ in places], [relation for _, relation in places]
    columns: list[dict[str, TargetColumn]] = [{} for _ in names]
    for index, name, type_, full_type, is_generated in await fetch(_COLUMNS, schemas, relations):
        columns[index - 1][name] = TargetColumn(
            name=name, sql=quoted(name), type=type_, full_type=full_type, is_generated=is_generated
        )
    unique = [set[frozenset[str]]() for _ in names]
    arbiters = [set[frozenset[str]]() for _ in names]
    for index, members, is_immediate in await fetch(_UNIQUE, schemas, relations):
        unique[int(index) - 1].add(frozenset(members))
        if is_immediate:
            arbiters[int(index) - 1].add(frozenset(members))
    return {
        name: TargetTable(
            name=name,
            sql=quoted_table(*places[n]),
            schema=places[n][0],
            relation=places[n][1],
            columns=columns[n],
            unique=frozenset(unique[n]),
            arbiters=frozenset(arbiters[n]),
        )
        if columns[n]
        else None
        for n, name in enumerate(names)
    }


# A modifier of -1, not null, for the type of casts: with null, char(5) and bit(5) would be spelt "character" and
# "bit", which in a cast mean one character and one bit.
_COLUMNS: Final = """
select w.n::int, a.attname::text, pg_catalog.format_type(a.atttypid, -1),
  pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> ''
from unnest($1::text[], $2::text[]) with ordinality as w (schema_name, table_name, n)
join pg_catalog.pg_namespace s on s.nspname = w.schema_name
join pg_catalog.pg_class c on c.relnamespace = s.oid and c.relname = w.table_name
join pg_catalog.pg_attribute a on a.attrelid = c.oid
where c.relkind in ('r', 'p', 'v', 'f') and a.attnum > 0 and not a.attisdropped
order by w.n, a.attnum
"""

_UNIQUE: Final = """
select w.n::int,
  array(select a.attname::text from pg_catalog.pg_attribute a
        where a.attrelid = c.oid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])),
  i.indimmediate
from unnest($1::text[], $2::text[]) with ordinality as w (schema_name, table_name, n)
join pg_catalog.pg_namespace s on s.nspname = w.schema_name
join pg_catalog.pg_class c on c.relnamespace = s.oid and c.relname = w.table_name
join pg_catalog.pg_index i on i.indrelid = c.oid
where i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
"""
