"""The SQL text of delivery. Pure: tables and column names in, text out; values travel as parameters or by COPY.

Every statement takes one text array per column and casts to the column's type on the server, which parses the values as
it would parse a literal; so nothing is converted on the way, and no value is rounded by a driver's idea of a type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.model.draw import Series
from plugins.postgres.apply_tables import TargetTable
from plugins.postgres.catalog import quoted, quoted_table, split_name

SAVEPOINT: Final = "savepoint concord_write"
NEXT_SAVEPOINT: Final = "release savepoint concord_write; savepoint concord_write"
UNDO: Final = "rollback to savepoint concord_write"
# A second savepoint of the same name hides the first one, which comes back when the second is released.
UNIT: Final = f"savepoint concord_unit; {SAVEPOINT}"
UNDO_UNIT: Final = "rollback to savepoint concord_unit; release savepoint concord_unit"
END_UNIT: Final = "release savepoint concord_unit"


def begin(hub_id: str, epoch: int, seq: int) -> str:
    """Open a delivery: transaction, marker, savepoint, in one message and so one round trip.

    The marker's update is the first row change, by which the source side knows the transaction for ours. A fenced
    update finds no row; the division then fails (22012) and nothing behind it runs. An ordinary count would come back
    as the answer to a message of its own.

    Constraints are made immediate, because a deferred one would fail at commit, where nobody could say which record is
    to blame. The isolation level is ours, against a default that would make every delivery fail with 40001.
    """
    assert "\0" not in hub_id
    hub = "'" + hub_id.replace("'", "''") + "'"
    return (
        "begin isolation level read committed; set constraints all immediate;"
        f" with marked as (update concord.marker set seq = {seq:d}, epoch = {epoch:d}, written_at = now()"
        f" where id = 1 and hub = {hub} and epoch <= {epoch:d} returning id) select 1 / count(*) from marked;"
        f" {SAVEPOINT}"
    )


# The update waits for a delivery under way, whose transaction holds the row; what it returns is then that one's seq.
CLAIM: Final = """
update concord.marker set hub = $1, epoch = $2, written_at = now()
where id = 1 and (hub is null or hub = $1) and epoch <= $2 returning seq
"""
MARKER: Final = "select hub, epoch, seq from concord.marker where id = 1"
ASSIGNED: Final = "select rid, place, key, seq from concord.identity where seq > $1 order by seq, place, rid"
KNOWN_KEYS: Final = "select rid, key from concord.identity where place = $1 and rid = any ($2::bigint[])"
KEEP_KEYS: Final = """
insert into concord.identity (rid, place, key, seq)
select u.rid, $1, u.key, $2 from unnest($3::bigint[], $4::text[]) as u (rid, key)
"""


DRAW: Final = "select nextval($1::text::regclass) from generate_series(1, $2::integer)"


def count_on(series: Series) -> tuple[str, str]:
    """Two statements, one for a text that was counted before and one for a new one: $1 the text, $2 how many numbers;
    each returns the last of them."""
    table = quoted_table(*split_name(series.table))
    name, number = quoted(series.name_column), quoted(series.number_column)
    update = f"update {table} set {number} = {number} + $2::integer where {name} = $1::text returning {number}"
    insert = f"insert into {table} ({name}, {number}) values ($1::text, $2::integer) returning {number}"
    return update, insert


def upsert(table: TargetTable, columns: Sequence[str], key: Sequence[str], rest: Sequence[str]) -> str:
    """Insert, or update the columns `rest` where the key exists. `key` is one of the table's arbiters."""
    keys = ", ".join(table.columns[name].sql for name in key)
    changes = ", ".join(f"{table.columns[name].sql} = excluded.{table.columns[name].sql}" for name in rest)
    return (
        f"insert into {table.sql} ({_names(table, columns)}) overriding system value"
        f" select {_casts(table, columns)} from {_arrays(columns)}"
        f" on conflict ({keys}) do {f'update set {changes}' if rest else 'nothing'}"
    )


def update_or_insert(table: TargetTable, columns: Sequence[str], key: Sequence[str], rest: Sequence[str]) -> str:
    """As `upsert`, for a key that no usable unique index covers.

    One statement, but no more than its snapshot: a row of that key that somebody else commits meanwhile is not seen.
    Only a unique index can exclude that.
    """
    return (
        f"with found as ({update(table, columns, key, rest)})"
        f" insert into {table.sql} ({_names(table, columns)}) overriding system value"
        f" select {_casts(table, columns)} from {_arrays(columns)}"
        " where not exists (select from found where found.n = u.n)"
    )


def update(table: TargetTable, columns: Sequence[str], key: Sequence[str], rest: Sequence[str]) -> str:
    """Update the columns `rest` by key; returns the numbers, from 1, of the rows that were there."""
    changes = [
        f"{table.columns[name].sql} = u.c{n}::{table.columns[name].type}"
        for n, name in enumerate(columns)
        if name in rest
    ]
    if not changes:
        return f"select u.n from {table.sql} as t, {_arrays(columns)} where {_match(table, columns, key)}"
    return (
        f"update {table.sql} as t set {', '.join(changes)} from {_arrays(columns)}"
        f" where {_match(table, columns, key)} returning u.n"
    )


def update_staged(table: TargetTable, columns: Sequence[str], key: Sequence[str], stage: str) -> str:
    """Update by key from a temporary table that `create_stage` made."""
    changes = ", ".join(f"{table.columns[name].sql} = u.c{n}" for n, name in enumerate(columns) if name not in key)
    match = " and ".join(f"t.{table.columns[name].sql} = u.c{n}" for n, name in enumerate(columns) if name in key)
    return f"update {table.sql} as t set {changes} from pg_temp.{stage} as u where {match}"


def create_stage(table: TargetTable, columns: Sequence[str], stage: str) -> str:
    """A temporary table of the columns' full types, gone with the transaction.

    It is made anew each time rather than kept: a temporary table that lives as long as a daemon holds back the
    database's oldest transaction id, since autovacuum cannot freeze it (PostgreSQL, Routine Vacuuming).
    """
    kinds = ", ".join(f"c{n} {table.columns[name].full_type}" for n, name in enumerate(columns))
    return f"create temporary table {stage} ({kinds}) on commit drop"


def delete(table: TargetTable, columns: Sequence[str]) -> str:
    return f"delete from {table.sql} as t using {_arrays(columns)} where {_match(table, columns, columns)}"


def linked(table: TargetTable, wanted: Sequence[str], columns: Sequence[str]) -> str:
    """Rows that have the given values in `columns`, locked; spelt by the types' own output functions, as the log does.

    `format` uses these, where a cast to text may not: `true::text` is not what a boolean's output function writes.
    """
    names = [f"t.{table.columns[name].sql}" for name in wanted]
    texts = [f"case when {name} is not null then format('%s', {name}) end" for name in names]
    match = _match(table, columns, columns)
    return (
        f"select {', '.join(texts)} from {table.sql} as t"
        f" where exists (select from {_arrays(columns)} where {match}) for update of t"
    )


def insert_one(table: TargetTable, columns: Sequence[str], assigned: str) -> str:
    """Insert one row whose key the database makes, and return that key as text."""
    values = ", ".join(f"${n}::text::{table.columns[name].type}" for n, name in enumerate(columns, 1))
    what = f"({_names(table, columns)}) overriding system value values ({values})" if columns else "default values"
    return f"insert into {table.sql} {what} returning {table.columns[assigned].sql}::text"


def _names(table: TargetTable, columns: Sequence[str]) -> str:
    return ", ".join(table.columns[name].sql for name in columns)


def _arrays(columns: Sequence[str]) -> str:
    parameters = ", ".join(f"${n}::text[]" for n in range(1, len(columns) + 1))
    return f"unnest({parameters}) with ordinality as u ({', '.join(f'c{n}' for n in range(len(columns)))}, n)"


def _casts(table: TargetTable, columns: Sequence[str]) -> str:
    return ", ".join(f"u.c{n}::{table.columns[name].type}" for n, name in enumerate(columns))


def _match(table: TargetTable, columns: Sequence[str], key: Sequence[str]) -> str:
    return " and ".join(
        f"t.{table.columns[name].sql} = u.c{n}::{table.columns[name].type}"
        for n, name in enumerate(columns)
        if name in key
    )
