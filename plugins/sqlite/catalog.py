"""What the tables look like: `pragma table_xinfo` and friends as shapes.

Declared types mean little to SQLite (https://www.sqlite.org/datatype3.html, section 3.1); kinds are what the names of
the types promise, and the mapping meets whatever value is really there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from engine.model.table import Column, Form, Kind, Shape
from plugins.sqlite.connect import Connection, quoted

PREFIX = "concord_"
JOURNAL = "concord_journal"
LAYOUT = "concord_layout"
MARKER = "concord_marker"
IDENTITY = "concord_identity"
OUR_TABLES = (JOURNAL, LAYOUT, IDENTITY, MARKER)
# A trigger of the owner may be called like one of ours.
IS_OURS = "(name like 'concord\\_%' escape '\\' and sql like '%concord\\_journal%' escape '\\')"
ROWID = "rowid"
_DECLARED = re.compile(r"\s*([A-Za-z_ ]+?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*$")
_KINDS = (
    (("BOOL",), Kind.BOOLEAN),
    (("DATETIME", "TIMESTAMP"), Kind.TIMESTAMP),
    (("DATE",), Kind.DATE),
    (("TIME",), Kind.TIME),
    (("UUID",), Kind.UUID),
    (("JSON",), Kind.JSON),
    (("INT",), Kind.INTEGER),
    (("CHAR", "CLOB", "TEXT", "STRING"), Kind.TEXT),
    (("BLOB", "BINARY"), Kind.BINARY),
    (("REAL", "FLOA", "DOUB"), Kind.FLOAT),
    (("DEC", "NUM", "MONEY"), Kind.DECIMAL),
)


@dataclass(frozen=True, slots=True)
class Unique:
    """A set of columns that no two rows have in common, as an index enforces it; the primary key's too."""

    columns: tuple[str, ...]
    collations: tuple[str, ...]
    is_key: bool


def read_shapes(connection: Connection, tables: Iterable[str] | None) -> dict[str, Shape]:
    """Shapes of the tables that exist; None: of every table that is neither SQLite's nor ours."""
    listed = list_tables(connection)
    wanted = listed if tables is None else [name for name in tables if name in listed]
    return {name: read_shape(connection, name) for name in wanted}


def list_tables(connection: Connection) -> list[str]:
    """Ordinary tables: virtual ones and the shadows behind them take no triggers."""
    rows = connection.execute("select name from pragma_table_list where schema = 'main' and type = 'table'")
    return sorted(name for (name,) in rows if not name.startswith("sqlite_") and name not in OUR_TABLES)


def read_shape(connection: Connection, table: str) -> Shape:
    """The shape of one table. A table without a primary key has its rowid as key, as a column of that name."""
    rows = list(
        connection.execute('select name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(?)', (table,))
    )
    keyed = sorted((pk, name) for name, _, _, _, pk, _ in rows if pk)
    key = tuple(name for _, name in keyed)
    is_assigned = len(keyed) == 1 and not _has_key_index(connection, table)
    columns = [_column(row, is_assigned=is_assigned and row[0] == key[0]) for row in rows if row[5] != 1]
    if not key and all(column.name.lower() != ROWID for column in columns):
        key = (ROWID,)
        columns.append(Column(name=ROWID, kind=Kind.INTEGER, type="INTEGER", is_nullable=False, is_assigned=True))
    return Shape(
        name=table,
        columns=tuple(columns),
        form=Form.NATIVE,
        key=key,
        unique=tuple(unique.columns for unique in read_uniques(connection, table) if not unique.is_key),
        has_triggers=has_effects(connection, table),
    )


def _has_key_index(connection: Connection, table: str) -> bool:
    """Only a primary key that is the rowid itself has no index (https://www.sqlite.org/lang_createtable.html#rowid)."""
    found = connection.execute("select 1 from pragma_index_list(?) where origin = 'pk'", (table,)).fetchone()
    return found is not None


def _column(row: tuple[object, ...], *, is_assigned: bool) -> Column:
    name, declared, is_not_null, default, pk, hidden = row
    found = _DECLARED.match(str(declared))
    word, first, second = found.groups() if found else (str(declared), None, None)
    kind = next((kind for words, kind in _KINDS if any(w in str(word).upper() for w in words)), Kind.OTHER)
    return Column(
        name=str(name),
        kind=kind,
        type=str(declared),
        is_nullable=not is_not_null and not is_assigned,
        length=int(first) if first and kind is Kind.TEXT else None,
        precision=int(first) if first and kind is Kind.DECIMAL else None,
        scale=int(second) if second and kind is Kind.DECIMAL else None,
        is_generated=hidden in (2, 3),
        has_default=default is not None or bool(is_assigned and pk),
        is_assigned=is_assigned,
    )


def read_uniques(connection: Connection, table: str) -> tuple[Unique, ...]:
    """What must be unique, by columns. A primary key that is the rowid itself is there too; parts of a table and
    expressions are not (see `blind_indexes`)."""
    found: list[Unique] = []
    for index, origin, is_partial in _unique_indexes(connection, table):
        terms = _index_terms(connection, index)
        if not is_partial and all(name is not None for name, _ in terms):
            names = tuple(str(name) for name, _ in terms)
            found.append(Unique(names, tuple(collation for _, collation in terms), is_key=origin == "pk"))
    if not any(unique.is_key for unique in found):
        rows = connection.execute("select name from pragma_table_xinfo(?) where pk", (table,))
        found.extend(Unique((str(name),), ("BINARY",), is_key=True) for (name,) in list(rows))
    return tuple(found)


def blind_indexes(connection: Connection, table: str) -> list[str]:
    """Unique indexes over expressions or over a part of the table: what REPLACE deletes for them is not captured."""
    return [
        index
        for index, _, is_partial in _unique_indexes(connection, table)
        if is_partial or any(name is None for name, _ in _index_terms(connection, index))
    ]


def _unique_indexes(connection: Connection, table: str) -> list[tuple[str, str, int]]:
    rows = connection.execute(
        'select name, origin, partial from pragma_index_list(?) where "unique" = 1 order by name', (table,)
    )
    return [(str(name), str(origin), int(partial)) for name, origin, partial in rows]


def _index_terms(connection: Connection, index: str) -> list[tuple[str | None, str]]:
    rows = connection.execute("select name, coll from pragma_index_xinfo(?) where key order by seqno", (index,))
    return [(name, str(collation)) for name, collation in rows]


def unknown_collations(connection: Connection, table: str) -> list[str]:
    """Collations of the table's indexes that an application brings along and SQLite does not have. To be listed by
    `pragma collation_list` it is enough that a schema names them."""
    rows = connection.execute(
        "select distinct coll from pragma_index_list(?) made, pragma_index_xinfo(made.name) where key order by coll",
        (table,),
    )
    return [str(name) for (name,) in list(rows) if not _has_collation(connection, str(name))]


def _has_collation(connection: Connection, name: str) -> bool:
    try:
        connection.execute(f"select 'a' < 'b' collate {quoted(name)}").close()
    except apsw.SQLError:
        return False
    return True


def has_effects(connection: Connection, table: str | None = None) -> bool:
    """Whether writing to the table may change more than what is written: triggers of its owner, foreign keys that
    cascade from it or to it. None: whether any table is such."""
    triggers = connection.execute(
        f"select 1 from sqlite_schema where type = 'trigger' and not {IS_OURS}"
        " and (?1 is null or tbl_name = ?1 collate nocase)",
        (table,),
    ).fetchone()
    cascades = connection.execute(
        "select 1 from pragma_table_list child, pragma_foreign_key_list(child.name) reference"
        " where child.schema = 'main' and child.type = 'table' and (on_delete not in ('NO ACTION', 'RESTRICT')"
        " or on_update not in ('NO ACTION', 'RESTRICT'))"
        ' and (?1 is null or child.name = ?1 collate nocase or reference."table" = ?1 collate nocase)',
        (table,),
    ).fetchone()
    return triggers is not None or cascades is not None


def column_list(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
