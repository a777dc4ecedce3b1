"""What the tables look like: information_schema as shapes.

information_schema opens the tables that a query names and no others where both names are constants, so each table is
asked about by itself, with all questions in one journey
(https://mariadb.com/kb/en/optimizing-queries-that-access-information-schema/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from engine.model.table import Column, Form, Kind, Shape
from plugins.mysql.connect import Connection, Row, quoted

MARKER: Final = "concord_marker"
IDENTITY: Final = "concord_identity"
OUR_TABLES: Final = (MARKER, IDENTITY)

_KINDS: Final = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), Kind.INTEGER),
    "decimal": Kind.DECIMAL,
    **dict.fromkeys(("float", "double"), Kind.FLOAT),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "set"), Kind.TEXT),
    "date": Kind.DATE,
    "time": Kind.TIME,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.INSTANT,
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit"), Kind.BINARY),
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"), Kind.BINARY),
    **dict.fromkeys(("multipolygon", "geometrycollection", "geomcollection", "vector"), Kind.BINARY),
    "json": Kind.JSON,
    "enum": Kind.ENUM,
    "uuid": Kind.UUID,
}
MOMENTS: Final = (Kind.TIME, Kind.TIMESTAMP, Kind.INSTANT)
_LABEL: Final = re.compile(r"'((?:[^']|'')*)'")
_GENERATED: Final = re.compile(r"\b(?:VIRTUAL|STORED|PERSISTENT) GENERATED\b")
_RULES: Final = "('NO ACTION', 'RESTRICT')"


def split_name(name: str, database: str) -> tuple[str, str]:
    """(database, table) of a name as the mapping writes it. The first dot divides, so a table whose own name has one
    is written with its database before it."""
    before, dot, after = name.partition(".")
    return (before, after) if dot else (database, name)


def joined_name(place: tuple[str, str], database: str) -> str:
    """The name as a mapping writes it."""
    return place[1] if place[0] == database and "." not in place[1] else f"{place[0]}.{place[1]}"


def quoted_table(name: str, database: str) -> str:
    """The table for SQL, with its database."""
    return ".".join(quoted(part) for part in split_name(name, database))


def list_tables(connection: Connection, database: str) -> list[str]:
    """Every ordinary table of the database but ours, as a mapping writes it."""
    rows = connection.rows(
        "select table_name from information_schema.tables where table_schema ="
        f" {connection.literal(database)} and table_type in ('BASE TABLE', 'SYSTEM VERSIONED')"
    )
    return sorted(joined_name((database, str(name)), database) for (name,) in rows if name not in OUR_TABLES)


def read_shapes(connection: Connection, database: str, tables: Iterable[str] | None) -> dict[str, Shape]:
    """Shapes of the tables that exist; None: of every table of the database that is not ours."""
    names = list_tables(connection, database) if tables is None else tables
    found = ((name, read_shape(connection, database, name)) for name in names)
    return {name: shape for name, shape in found if shape is not None}


def read_shape(connection: Connection, database: str, name: str, *, is_brief: bool = False) -> Shape | None:
    """The shape of one table; None where there is none of exactly this name.

    `is_brief`: without what a writer need not know and the server has to look for in all tables, which are triggers,
    cascades and whether a text is json.
    """
    schema, table = split_name(name, database)
    if not schema or not table:
        return None
    at = {"schema": connection.literal(schema), "table": connection.literal(table)}
    questions = [_TABLE, _COLUMNS, _INDEXES]
    if not is_brief:
        questions += [_TRIGGERS, _CASCADES] + ([_JSON_CHECKS] if connection.is_mariadb else [])
    answers = [result.rows for result in connection.script([sql.format(**at) for sql in questions])]
    there, columns, indexes, effects, checks = *answers[:3], [*answers[3:4], *answers[4:5]], answers[5:]
    # Names are compared without case there, whether or not the server tells such tables apart.
    if (schema, table) not in {(row[0], row[1]) for row in there}:
        return None
    key, unique = _keys(indexes)
    # Declared as json, a column is a longtext with this check (https://mariadb.com/kb/en/json-data-type/).
    json = {str(row[0]) for rows in checks for row in rows if str(row[1]) == f"json_valid({quoted(str(row[0]))})"}
    return Shape(
        name=name,
        columns=tuple(_column(row, is_json=str(row[0]) in json) for row in columns),
        form=Form.TEXT,
        key=key,
        unique=unique,
        has_triggers=any(effects) or any("on update" in str(row[7]).lower() for row in columns),
    )


def _column(row: Row, *, is_json: bool) -> Column:
    name, word, declared, nullable, length, precision, scale, extra, default, collation = row
    kind = _KINDS.get(str(word), Kind.OTHER)
    if declared == "bit(1)":
        kind = Kind.BOOLEAN
    elif is_json and word == "longtext":
        kind = Kind.JSON
    is_assigned = "auto_increment" in str(extra).lower()
    return Column(
        name=str(name),
        kind=kind,
        type=str(declared),
        is_nullable=nullable == "YES",
        # Of texts without a limit of their own the number is one of bytes.
        length=int(length) if word in ("char", "varchar") else None,
        precision=int(precision) if kind is Kind.DECIMAL else None,
        scale=int(scale) if kind is Kind.DECIMAL else fraction_digits(str(declared)) if kind in MOMENTS else None,
        labels=type_labels(str(declared)) if kind is Kind.ENUM else (),
        collation=str(collation or ""),
        is_generated=_GENERATED.search(str(extra)) is not None,
        has_default=is_assigned or default not in (None, "NULL"),
        is_assigned=is_assigned,
    )


def type_labels(declared: str) -> tuple[str, ...]:
    """The labels of an enum or a set, from its type as the catalogue spells it: enum('a','it''s')."""
    return tuple(label.replace("''", "'") for label in _LABEL.findall(declared))


def type_word(declared: str) -> str:
    """The type without modifiers: "varchar" of "varchar(20)"."""
    return re.split(r"[ (]", declared, maxsplit=1)[0].lower()


def fraction_digits(declared: str) -> int:
    """How many digits of a second the type keeps: 3 of "datetime(3)", 0 of "datetime"."""
    found = re.search(r"\((\d)\)", declared)
    return int(found[1]) if found else 0


def _keys(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The primary key and the column sets of other unique indexes, but for those over prefixes or expressions."""
    indexes: dict[str, list[str | None]] = {}
    for index, column, prefix in rows:
        indexes.setdefault(str(index), []).append(None if column is None or prefix is not None else str(column))
    whole = {
        name: tuple(c for c in columns if c is not None) for name, columns in indexes.items() if None not in columns
    }
    # A primary key over a prefix keeps rows apart by less than its columns; over what columns is told all the same.
    key = tuple(str(column) for index, column, _ in rows if index == "PRIMARY")
    return key, tuple(columns for name, columns in whole.items() if name != "PRIMARY")


_TABLE: Final = (
    "select table_schema, table_name from information_schema.tables where table_schema = {schema}"
    " and table_name = {table} and table_type in ('BASE TABLE', 'SYSTEM VERSIONED')"
)
_COLUMNS: Final = (
    "select column_name, data_type, column_type, is_nullable, character_maximum_length, numeric_precision,"
    " numeric_scale, extra, column_default, collation_name from information_schema.columns"
    " where table_schema = {schema} and table_name = {table} order by ordinal_position"
)
_INDEXES: Final = (
    "select index_name, column_name, sub_part from information_schema.statistics where table_schema = {schema}"
    " and table_name = {table} and non_unique = 0 order by index_name, seq_in_index"
)
_TRIGGERS: Final = (
    "select trigger_name from information_schema.triggers where event_object_schema = {schema}"
    " and event_object_table = {table}"
)
_CASCADES: Final = (
    "select constraint_name from information_schema.referential_constraints"
    " where (constraint_schema = {schema} and table_name = {table}"
    " or unique_constraint_schema = {schema} and referenced_table_name = {table})"
    f" and (delete_rule not in {_RULES} or update_rule not in {_RULES})"
)
_JSON_CHECKS: Final = (
    "select constraint_name, check_clause from information_schema.check_constraints"
    " where constraint_schema = {schema} and table_name = {table} and check_clause like 'json\\_valid(%'"
)
