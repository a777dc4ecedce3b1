"""Goal: what real connectors wrote, in every mode, is read as the database itself spells it.

Method: the recorded messages of a table with every type, beside the same statements run on a server of ours, whose own
plugin reads the rows. What differs is listed with the reason: it is lost before it reaches a topic, or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import psycopg
import pymysql
import pytest

from engine.model.table import Shape
from engine.model.value import Wire
from engine.plugin import Site
from engine.testing.mariadb import MariadbServer
from plugins.kafka.buffer import Partition
from plugins.kafka.config import KafkaConfig
from plugins.kafka.ingest import Ingest
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.names import Names
from plugins.kafka.rows import read_run
from plugins.kafka.tables import inner_system
from tests.kafka_cluster.recordings import RECORDED, Recording, read_recording, read_told

ALL: Final = frozenset(map(str, (1, 2, 3, 4, 11, 12, 13, 14)))
DIFFERENT: Final[dict[str, dict[str, set[str]]]] = {
    "postgres": {
        "with_default": {"4", "14"},  # null is told as the default, unless replace.null.with.default is false
        "a_name": {"11", "12", "13"},  # the connector reads no `name` from the log
        "an_endless_date": {"2", "3", "12"},  # infinity is some number; a snapshot loses "BC"
        "a_timestamp": {"2"},  # a snapshot counts the year 1 in another calendar
        "a_timestamptz": {"2"},
        "a_real": {"3", "13"},  # the smallest number there is, in Java's spelling
        "a_timetz": {"1", "3", "11", "13"},  # told in UTC
        "a_free_numeric": {"1", "2", "11", "12"},  # zeros at the end, and NaN, which is told as null
        "a_money": {"2", "3"},  # a snapshot reads more than 15 digits as a floating point number
    },
    "mariadb": {
        "with_default": {"4", "14"},
        "an_enum": {"13"},  # a comma in a label comes with a backslash
        "a_zero_date": {"2", "3", "12", "13"},  # zero dates are null
        "a_zero_datetime": {"2", "3", "12", "13"},
        "a_zero_timestamp": {"2", "12"},
    },
}
LEFT_OUT: Final = {"postgres": {"varying_bits", "a_composite"}, "mariadb": set[str]()}
OF_MODE: Final[dict[str, set[str]]] = {
    # Of the mode itself: what is null, cut or wrapped around.
    "postgres-types-time-connect": {"a_time"},
    "postgres-types-time-isostring": {"a_time", "an_endless_date"},
    "postgres-types-time-nanoseconds": {"a_timestamp", "a_timestamp_3", "an_endless_timestamp"},
    "mariadb-types-time-connect": {"a_time", "a_time_3"},
    "mariadb-types-time-isostring": {"a_time", "a_time_3", "a_time_6"},
    "mariadb-types-time-nanoseconds": {"a_datetime", "a_datetime_6"},
    "postgres-types-decimal-string": {"a_money"},
    "postgres-types-decimal-double": {"numerics", "a_money"},
    "postgres-types-unknown": {"a_composite"},
}
LEFT_OUT_IN_MODE: Final[dict[str, set[str]]] = {
    "postgres-types-time-connect": {"a_time", "a_timestamp", "an_endless_timestamp"},
    "mariadb-types-time-connect": {"a_time_6", "a_datetime_6"},
    "postgres-types-decimal-double": {"a_numeric", "a_wide_numeric", "a_free_numeric"},
    "mariadb-types-decimal-double": {"a_decimal", "a_wide_decimal", "a_whole_decimal", "an_unsigned_decimal"},
}
RECORDINGS: Final = [path for kind in DIFFERENT for path in sorted(RECORDED.glob(f"{kind}-types-*.jsonl"))]
Rows = dict[str, dict[str, Wire]]


@pytest.mark.anyio
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_every_type_in_every_mode_is_as_the_database_spells_it(path: Path, told: Mapping[str, Any]) -> None:
    kind = path.stem.partition("-")[0]
    recording, mode = read_recording(path), path.stem.removesuffix("-schemaless")
    database, table, shape, wanted = told[kind]
    left_out = LEFT_OUT[kind] | LEFT_OUT_IN_MODE.get(mode, set())
    is_interval_told = recording.settings.get("interval.handling.mode") == "string"
    different = {column: set(rows) for column, rows in DIFFERENT[kind].items()}
    different |= {column: set(ALL) for column in OF_MODE.get(mode, ())}
    if kind == "postgres" and not is_interval_told:
        # Months as so many days. Without a schema nobody can tell it from the other, but for the values.
        left_out, different["an_interval"] = left_out | {"an_interval"}, set(ALL)
    found = decoded(recording, database, table, shape)
    assert found.keys() == ALL
    for id, row in found.items():
        missing = {column for column in wanted[id] if column not in row}
        assert missing <= left_out, f"row {id}"
        # A generated column is told by Debezium, and by the database's own plugin only where its log has it.
        both = row.keys() & wanted[id].keys()
        changed = {
            column for column in both if row[column] != wanted[id][column] and id not in different.get(column, ())
        }
        assert changed == set(), {column: (row[column], wanted[id][column]) for column in changed}


def decoded(recording: Recording, database: dict[str, Any], table: str, shape: Shape) -> Rows:
    """The rows of the recorded messages, by key; the values of two messages of one row are the same."""
    records = recording.of_topic("every_type")
    chosen: Any = {
        key: recording.settings[setting]
        for key, setting in (
            ("time", "time.precision.mode"),
            ("decimal", "decimal.handling.mode"),
            ("binary", "binary.handling.mode"),
        )
        if setting in recording.settings
    }
    config = KafkaConfig(
        servers=("none:1",), prefix="x", database=database, order="row", topics={table: records[0].topic}, **chosen
    )
    names, keys = Names(config, [table]), dict[str, tuple[str, ...]]()
    ingest = Ingest("x", config, names, since=0, keys=keys)
    layouts = Layouts("x", config, names.connector, {table: shape}, keys)
    partition = Partition(records[0].topic, 0, next=0)
    ingest.take(partition, [(r.offset, r.timestamp, r.key, r.value, None) for r in records])
    found: Rows = {}
    for run in partition.runs:
        for rows in read(run, layouts):
            names_of = [column.name for column in rows.shape.columns]
            for row in rows.rows:
                values = dict(zip(names_of, row, strict=True))
                found[str(values["id"])] = values
    return found


def read(run: Any, layouts: Layouts) -> list[Any]:
    for _ in range(3):
        try:
            return read_run(run, layouts)
        except NeedLayout as need:
            layouts.make(need.run)
    raise AssertionError("no layout fits")


@pytest.fixture(scope="session")
def told(
    postgres_server: Any, mariadb_server: MariadbServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], str, Shape, Rows]]:
    """By kind: the database, the table's name, its shape and its rows, as the database's own plugin tells them."""
    site = Site(name="x", directory=tmp_path_factory.mktemp("told"), work_directory=tmp_path_factory.mktemp("work"))
    with psycopg.connect(postgres_server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("create database recorded")
    script = read_told(RECORDED / "postgres-types.jsonl")
    with psycopg.connect(postgres_server.dsn("recorded"), autocommit=True) as users:
        for statement in (*script.before, *script.statements):
            users.execute(statement.encode())
    postgres = {"plugin": "postgres", "dsn": postgres_server.dsn("recorded")}
    script = read_told(RECORDED / "mariadb-types.jsonl")
    mariadb_server.execute("create database shop")
    connection: Any = pymysql.Connection(
        ssl_disabled=True,
        unix_socket=str(mariadb_server.socket_path),
        user="root",
        database="shop",
        charset="utf8mb4",
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00', sql_mode = ''")
        for statement in (*script.before, *script.statements):
            cursor.execute(statement)
    mariadb = {
        "plugin": "mysql",
        "database": "shop",
        "user": "root",
        "unix_socket": str(mariadb_server.socket_path),
    }
    found: dict[str, tuple[dict[str, Any], str, Shape, Rows]] = {}
    for kind, database, table in (
        ("postgres", postgres, "public.every_type"),
        ("mariadb", mariadb, "shop.every_type"),
    ):
        config = KafkaConfig(servers=("none:1",), prefix="x", database=database, order="row")
        system = inner_system(site, config)
        assert system is not None
        # Not an async fixture: one for the session would keep its loop for all tests behind it.
        page = anyio.run(system.page, table, None, 100)
        columns = [column.name for column in page.shape.columns]
        rows = [dict(zip(columns, row, strict=True)) for row in page.rows]
        shape = anyio.run(system.shapes, [table])[table]
        found[kind] = (database, table, shape, {str(row["id"]): row for row in rows})
    return found
