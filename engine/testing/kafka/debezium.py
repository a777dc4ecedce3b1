"""Settings of Debezium's connectors for the servers of tests, with little patience: nobody waits for half a second."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from psycopg.conninfo import conninfo_to_dict

from engine.testing.mariadb import MariadbServer

USER = "debezium"
PASSWORD = "debezium-secret"
# Ids of replicas; a server ends the connection of an older one with the same.
_server_ids = itertools.count(770_001)
QUICK = {"poll.interval.ms": "20", "tasks.max": "1"}


def converters(*, schemas: bool) -> dict[str, str]:
    """JSON, with the schema in each record or without."""
    name = "org.apache.kafka.connect.json.JsonConverter"
    enabled = str(schemas).lower()
    return {
        "key.converter": name,
        "key.converter.schemas.enable": enabled,
        "value.converter": name,
        "value.converter.schemas.enable": enabled,
    }


def postgres_source(
    dsn: str, prefix: str, *, tables: str, settings: Mapping[str, str] | None = None, schemas: bool = True
) -> dict[str, str]:
    """A connector that reads the tables (a regular expression over `schema.table`) of a database of
    `engine.testing.postgres` into topics `PREFIX.SCHEMA.TABLE`. Slot and publication are named after the prefix."""
    place = conninfo_to_dict(dsn)
    name = prefix.replace(".", "_").replace("-", "_")
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        **QUICK,
        **converters(schemas=schemas),
        "database.hostname": str(place["host"]),
        "database.port": str(place["port"]),
        "database.user": str(place["user"]),
        "database.password": str(place.get("password") or ""),
        "database.dbname": str(place["dbname"]),
        "topic.prefix": prefix,
        "plugin.name": "pgoutput",
        "slot.name": name,
        "publication.name": name,
        "publication.autocreate.mode": "filtered",
        "table.include.list": tables,
        "status.update.interval.ms": "500",
        **(settings or {}),
    }


def mariadb_source(
    server: MariadbServer,
    prefix: str,
    *,
    bootstrap: str,
    database: str,
    tables: str,
    settings: Mapping[str, str] | None = None,
    schemas: bool = True,
) -> dict[str, str]:
    """A connector that reads the tables (a regular expression over `database.table`) of a MariaDB into topics
    `PREFIX.DATABASE.TABLE`. The user it comes as is made here."""
    reading = "select, reload, show databases, replication slave, replication client, binlog monitor, lock tables"
    # Of its own table of signals, where it has one.
    writing = "insert, delete"
    server.execute(
        f"create user if not exists {USER}@'%' identified by '{PASSWORD}'",
        f"grant {reading}, {writing} on *.* to {USER}@'%'",
    )
    return {
        "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
        **QUICK,
        **converters(schemas=schemas),
        "database.hostname": "127.0.0.1",
        "database.port": str(server.port),
        "database.user": USER,
        "database.password": PASSWORD,
        "database.server.id": str(next(_server_ids)),
        "topic.prefix": prefix,
        "database.include.list": database,
        "table.include.list": tables,
        "schema.history.internal.kafka.bootstrap.servers": bootstrap,
        "schema.history.internal.kafka.topic": f"{prefix}.history",
        "schema.history.internal.store.only.captured.tables.ddl": "true",
        **(settings or {}),
    }


def jdbc_sink(
    dsn: str, topics: str, *, settings: Mapping[str, str] | None = None, schemas: bool = True
) -> dict[str, str]:
    """A connector that writes topics (a regular expression) to a PostgreSQL by upserts and deletes, in batches."""
    place = conninfo_to_dict(dsn)
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "1",
        **converters(schemas=schemas),
        "connection.url": f"jdbc:postgresql://{place['host']}:{place['port']}/{place['dbname']}",
        "connection.username": str(place["user"]),
        "connection.password": str(place.get("password") or ""),
        "topics.regex": topics,
        "insert.mode": "upsert",
        "delete.enabled": "true",
        "primary.key.mode": "record_key",
        "schema.evolution": "none",
        **(settings or {}),
    }
