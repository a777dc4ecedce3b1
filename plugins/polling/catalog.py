"""What the tables look like: `information_schema` where there is one, PRAGMAs for SQLite, and what the configuration
declares where neither says it.

The views' columns are taken by name: each database adds some of its own to those of the standard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError

from engine.errors import ConfigError
from engine.model.table import Column, Kind, Shape
from plugins.polling.connect import Connection

MARKER = "concord_marker"
IDENTITY = "concord_identity"
OUR_TABLES = (MARKER, IDENTITY)
T = exp.DataType.Type
_KINDS = {
    Kind.INTEGER: (T.TINYINT, T.SMALLINT, T.MEDIUMINT, T.INT, T.BIGINT, T.INT128, T.INT256, T.UTINYINT, T.USMALLINT,
                   T.UMEDIUMINT, T.UINT, T.UBIGINT, T.UINT128, T.SERIAL, T.BIGSERIAL, T.SMALLSERIAL, T.YEAR),
    Kind.DECIMAL: (T.DECIMAL, T.UDECIMAL, T.BIGDECIMAL, T.DECIMAL32, T.DECIMAL64, T.DECIMAL128, T.DECIMAL256),
    Kind.FLOAT: (T.FLOAT, T.DOUBLE, T.UDOUBLE),
    Kind.TEXT: (T.CHAR, T.NCHAR, T.VARCHAR, T.NVARCHAR, T.BPCHAR, T.TEXT, T.TINYTEXT, T.MEDIUMTEXT, T.LONGTEXT,
                T.NAME, T.SET),
    Kind.BOOLEAN: (T.BOOLEAN,),
    Kind.DATE: (T.DATE, T.DATE32),
    Kind.TIME: (T.TIME,),
    Kind.TIMESTAMP: (T.TIMESTAMP, T.TIMESTAMPNTZ, T.DATETIME, T.DATETIME2, T.DATETIME64, T.SMALLDATETIME,
                     T.TIMESTAMP_S, T.TIMESTAMP_MS, T.TIMESTAMP_NS),
    Kind.INSTANT: (T.TIMESTAMPTZ, T.TIMESTAMPLTZ),
    Kind.INTERVAL: (T.INTERVAL,),
    Kind.UUID: (T.UUID,),
    Kind.BINARY: (T.BINARY, T.VARBINARY, T.BLOB, T.TINYBLOB, T.MEDIUMBLOB, T.LONGBLOB, T.GEOMETRY, T.IMAGE,
                  T.ROWVERSION),
    Kind.JSON: (T.JSON, T.JSONB, T.VARIANT),
    Kind.ENUM: (T.ENUM, T.ENUM8, T.ENUM16),
    Kind.ARRAY: (T.ARRAY, T.LIST),
}  # fmt: skip
_KIND_OF = {type: kind for kind, types in _KINDS.items() for type in types}
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_DECLARED = re.compile(r"\s*([A-Za-z_ ]+?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*$")
_SQLITE_KINDS = (
    (("BOOL",), Kind.BOOLEAN), (("DATETIME", "TIMESTAMP"), Kind.TIMESTAMP), (("DATE",), Kind.DATE),
    (("TIME",), Kind.TIME), (("UUID",), Kind.UUID), (("JSON",), Kind.JSON), (("INT",), Kind.INTEGER),
    (("CHAR", "CLOB", "TEXT", "STRING"), Kind.TEXT), (("BLOB", "BINARY"), Kind.BINARY),
    (("REAL", "FLOA", "DOUB"), Kind.FLOAT), (("DEC", "NUM", "MONEY"), Kind.DECIMAL),
)  # fmt: skip


def read_shapes(connection: Connection, tables: Sequence[str] | None) -> dict[str, Shape]:
    """Shapes of the tables that exist; None: of every ordinary one in the connection's schema but ours."""
    names = list_tables(connection) if tables is None else tables
    found = {name: read_shape(connection, name) for name in names}
    return {name: shape for name, shape in found.items() if shape is not None}


def list_tables(connection: Connection, *, ours: bool = False) -> list[str]:
    """Ordinary tables of the connection's schema; `ours`: those of them that set-up makes."""
    if connection.sql.dialect == "sqlite":
        rows = connection.rows(
            "select name from sqlite_master where type = 'table' and substr(name, 1, 7) <> 'sqlite_'"
        )
    else:
        rows = [
            (row["table_name"],)
            for row in connection.named_rows(_where("tables", "table_schema"), [_own_schema(connection)])
            if str(row["table_type"]).upper() in ("BASE TABLE", "TABLE")
        ]
    return sorted(str(name) for (name,) in rows if (name in OUR_TABLES) is ours)


def read_shape(connection: Connection, table: str) -> Shape | None:
    """The table's shape, None where there is no such table. Columns in `ignore` are not there."""
    options = connection.config.options(table)
    read = _sqlite_shape if connection.sql.dialect == "sqlite" else _standard_shape
    shape = read(connection, table)
    if shape is None:
        return None
    names = {column.name for column in shape.columns}
    for what, wanted in (("key", options.key), ("ignore", options.ignore), ("updated_at", _one(options.updated_at))):
        if missing := [name for name in wanted if name not in names]:
            raise ConfigError(
                f"system {connection.system}, table {table}: {what} names the column {missing[0]}, which it has not",
                hint=f"Correct [systems.{connection.system}.tables]; there is {', '.join(sorted(names))}.",
            )
    key = options.key or shape.key
    columns = tuple(c for c in shape.columns if c.name not in options.ignore or c.name in key)
    return Shape(
        name=table, columns=columns, form=shape.form, key=key, unique=shape.unique, has_triggers=shape.has_triggers
    )


def _one(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


# ------------------------------------------------------------------------------------------ information_schema


def _where(view: str, *columns: str) -> exp.Select:
    conditions = [exp.column(column).eq(exp.var("\x01")) for column in columns]
    table = exp.Table(this=exp.to_identifier(view), db=exp.to_identifier("information_schema"))
    return exp.select("*").from_(table).where(*conditions)


def _own_schema(connection: Connection) -> str:
    ask = "select database()" if connection.sql.dialect == "mysql" else "select current_schema()"
    return str(connection.rows(ask)[0][0])


def _standard_shape(connection: Connection, table: str) -> Shape | None:
    schema, dot, name = table.partition(".")
    if not dot:
        schema, name = _own_schema(connection), table
    given = [schema, name]
    described = connection.named_rows(_where("columns", "table_schema", "table_name"), given)
    if not described:
        return None
    described.sort(key=lambda row: int(row["ordinal_position"]))
    constraints = connection.named_rows(_where("table_constraints", "table_schema", "table_name"), given)
    usage = connection.named_rows(_where("key_column_usage", "table_schema", "table_name"), given)
    usage.sort(key=lambda row: int(row["ordinal_position"]))
    sets: dict[str, list[tuple[str, ...]]] = {"PRIMARY KEY": [], "UNIQUE": []}
    for constraint in constraints:
        kind = str(constraint["constraint_type"]).upper()
        if kind in sets:
            names = [u["column_name"] for u in usage if u["constraint_name"] == constraint["constraint_name"]]
            sets[kind].append(tuple(str(n) for n in names))
    key = sets["PRIMARY KEY"][0] if sets["PRIMARY KEY"] else _hidden_key(connection, table)
    return Shape(
        name=table,
        columns=tuple(_standard_column(connection, row, key) for row in described),
        form=connection.habits.form,
        key=key,
        unique=tuple(sets["UNIQUE"]),
        has_triggers=_has_effects(connection, schema, name),
    )


def _hidden_key(connection: Connection, table: str) -> tuple[str, ...]:
    """PostgreSQL shows constraints in the standard's views to those only who may do more than read the table."""
    if connection.sql.dialect != "postgres":
        return ()
    rows = connection.rows(
        "select a.attname from pg_index i cross join lateral unnest(i.indkey) with ordinality as k (number, place)"
        " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number"
        " where i.indrelid = to_regclass(\x01) and i.indisprimary order by k.place",
        [connection.sql.table(table).sql(dialect="postgres", identify=True)],
    )
    return tuple(str(name) for (name,) in rows)


def _standard_column(connection: Connection, row: dict[str, Any], key: tuple[str, ...]) -> Column:
    dialect, name = connection.sql.dialect, str(row["column_name"])
    plain = str(row["data_type"])
    declared = str(row.get("column_type") or plain)
    kind = _kind(plain, dialect)
    if dialect == "mysql" and declared.lower() == "bit(1)":
        kind = Kind.BOOLEAN
    elif kind is Kind.OTHER and plain.lower() == "bit" and dialect == "mysql":
        kind = Kind.BINARY
    elif dialect == "mysql" and plain.lower() in ("datetime", "timestamp"):
        kind = Kind.INSTANT if plain.lower() == "timestamp" else Kind.TIMESTAMP
    default = row.get("column_default")
    is_assigned = (
        "auto_increment" in str(row.get("extra") or "").lower()
        or str(row.get("is_identity") or "").upper() == "YES"
        or str(default or "").lower().startswith("nextval(")
    ) and (name,) == key
    generated = f"{row.get('is_generated') or ''} {row.get('extra') or ''}".upper()
    precision, scale = _number(row.get("numeric_precision")), _number(row.get("numeric_scale"))
    length = _number(row.get("character_maximum_length"))
    if "(" not in declared and dialect == "postgres":
        declared = _with_modifier(declared, length, precision if kind is Kind.DECIMAL else None, scale)
    return Column(
        name=name,
        kind=kind,
        type=declared,
        is_nullable=str(row["is_nullable"]).upper() == "YES",
        length=length if kind is Kind.TEXT else None,
        precision=precision if kind is Kind.DECIMAL else None,
        scale=scale if kind is Kind.DECIMAL else _number(row.get("datetime_precision")),
        labels=tuple(x.replace("''", "'") for x in _LABEL.findall(declared)) if kind is Kind.ENUM else (),
        is_generated="ALWAYS" in generated or "GENERATED" in generated.replace("DEFAULT_GENERATED", ""),
        has_default=default is not None or is_assigned,
        is_assigned=is_assigned,
    )


def _kind(type_name: str, dialect: str) -> Kind:
    try:
        return _KIND_OF.get(exp.DataType.build(type_name, dialect=dialect).this, Kind.OTHER)
    except SqlglotError:
        return Kind.OTHER


def _number(value: Any) -> int | None:
    # MySQL's longtext says 4294967295: no length that anybody counts.
    return None if value is None or int(value) >= 2**31 else int(value)


def _with_modifier(declared: str, length: int | None, precision: int | None, scale: int | None) -> str:
    if length is not None:
        return f"{declared}({length})"
    return f"{declared}({precision},{scale or 0})" if precision is not None else declared


def _has_effects(connection: Connection, schema: str, name: str) -> bool:
    """Whether writing to the table may change more than what is written, as far as the standard's views tell."""
    if connection.sql.dialect == "duckdb":
        return False
    triggers = connection.named_rows(_where("triggers", "event_object_schema", "event_object_table"), [schema, name])
    return bool(triggers)


# ------------------------------------------------------------------------------------------------------ SQLite


def _sqlite_shape(connection: Connection, table: str) -> Shape | None:
    # Table-valued functions: a pragma itself takes no parameter (https://www.sqlite.org/pragma.html#pragfunc).
    rows = connection.rows(
        'select name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(\x01) order by cid', [table]
    )
    if not rows:
        return None
    keyed = sorted((pk, name) for name, _, _, _, pk, _ in rows if pk)
    key = tuple(str(name) for _, name in keyed)
    listed = 'select name, origin from pragma_index_list(\x01) where "unique" and not partial'
    indexes = connection.rows(listed, [table])
    is_assigned = len(key) == 1 and all(origin != "pk" for _, origin in indexes)
    unique: list[tuple[str, ...]] = []
    for index, origin in indexes:
        names = connection.rows("select name from pragma_index_info(\x01) order by seqno", [index])
        if origin != "pk" and all(name is not None for (name,) in names):
            unique.append(tuple(str(name) for (name,) in names))
    triggers = connection.rows(
        "select 1 from sqlite_master where type = 'trigger' and tbl_name = \x01 collate nocase", [table]
    )
    return Shape(
        name=table,
        columns=tuple(_sqlite_column(row, is_assigned=is_assigned and row[0] == key[0]) for row in rows if row[5] != 1),
        form=connection.habits.form,
        key=key,
        unique=tuple(unique),
        has_triggers=bool(triggers),
    )


def _sqlite_column(row: tuple[Any, ...], *, is_assigned: bool) -> Column:
    name, declared, is_not_null, default, _, hidden = row
    found = _DECLARED.match(str(declared))
    word, first, second = found.groups() if found else (str(declared), None, None)
    kind = next((kind for words, kind in _SQLITE_KINDS if any(w in str(word).upper() for w in words)), Kind.OTHER)
    return Column(
        name=str(name),
        kind=kind,
        type=str(declared),
        is_nullable=not is_not_null and not is_assigned,
        length=int(first) if first and kind is Kind.TEXT else None,
        precision=int(first) if first and kind is Kind.DECIMAL else None,
        scale=int(second) if second and kind is Kind.DECIMAL else None,
        is_generated=hidden in (2, 3),
        has_default=default is not None or is_assigned,
        is_assigned=is_assigned,
    )
