"""What the tables look like: `pragma table_xinfo` and friends as shapes.

Declared types mean little to SQLite (https://www.sqlite.org/datatype3.html, section 3.1); kinds are what the names of
the types promise, and the mapping meets whatever value is really there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.model.table import Column, Form, Kind, Shape
from plugins.sqlite.connect import Connection, quoted

PREFIX = "concord_"
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


def read_shapes(connection: Connection, tables: Iterable[str] | None) -> dict[str, Shape]:
    """Shapes of the tables that exist; None: of every table that is neither SQLite's nor ours."""
    rows = connection.execute("select name from sqlite_schema where type = 'table'")
    listed = [name for (name,) in rows if not name.startswith(("sqlite_", PREFIX))]
    wanted = listed if tables is None else [name for name in tables if name in listed]
    return {name: read_shape(connection, name) for name in wanted}


def read_shape(connection: Connection, table: str) -> Shape:
    """The shape of one table. A table without a primary key has its rowid as key, as a column of that name."""
    rows = list(
        connection.execute('select name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(?)', (table,))
    )
    keyed = sorted((pk, name) for name, _, _, _, pk, _ in rows if pk)
    key = tuple(name for _, name in keyed)
    is_assigned = len(keyed) == 1 and _is_integer_key(rows, key[0]) and not _is_without_rowid(connection, table)
    columns = [_column(row, is_assigned=is_assigned and row[0] == key[0]) for row in rows if row[5] != 1]
    if not key:
        key = (ROWID,)
        columns.append(Column(name=ROWID, kind=Kind.INTEGER, type="INTEGER", is_nullable=False, is_assigned=True))
    return Shape(
        name=table,
        columns=tuple(columns),
        form=Form.NATIVE,
        key=key,
        unique=tuple(unique for unique in _unique(connection, table) if unique != key),
        has_triggers=_has_effects(connection, table),
    )


def _is_integer_key(rows: list[tuple[object, ...]], name: str) -> bool:
    """INTEGER PRIMARY KEY, exactly so spelt, is the rowid (https://www.sqlite.org/lang_createtable.html#rowid)."""
    return any(row[0] == name and str(row[1]).upper() == "INTEGER" for row in rows)


def _is_without_rowid(connection: Connection, table: str) -> bool:
    found = connection.execute(
        "select wr from pragma_table_list where schema = 'main' and name = ?", (table,)
    ).fetchone()
    return bool(found and found[0])


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


def _unique(connection: Connection, table: str) -> Iterable[tuple[str, ...]]:
    indexes = connection.execute(
        'select name from pragma_index_list(?) where "unique" = 1 and partial = 0 order by name', (table,)
    )
    for (index,) in list(indexes):
        names = [
            name for (name,) in connection.execute("select name from pragma_index_info(?) order by seqno", (index,))
        ]
        if all(name is not None for name in names):
            yield tuple(names)


def _has_effects(connection: Connection, table: str) -> bool:
    """Whether writing here may change more than what is written: triggers of others, cascading foreign keys."""
    triggers = connection.execute(
        "select 1 from sqlite_schema where type = 'trigger' and tbl_name = ?"
        " and name not like 'concord\\_%' escape '\\'",
        (table,),
    ).fetchone()
    cascades = connection.execute(
        "select 1 from pragma_foreign_key_list(?) where on_delete not in ('NO ACTION', 'RESTRICT')"
        " or on_update not in ('NO ACTION', 'RESTRICT')",
        (table,),
    ).fetchone()
    return triggers is not None or cascades is not None


def column_list(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
