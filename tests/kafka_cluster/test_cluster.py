"""Goal: what tests and benchmarks call a Kafka is one: a real broker, with real connectors that read real servers.

Method: rows are written to a PostgreSQL and a MariaDB, Debezium carries them to topics, kafka-python reads them there;
Debezium's sink writes them on. Clients come by every listener, with and without what it asks for.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kafka.errors
import psycopg
import pytest

from engine.testing.kafka import broker, certificates, debezium
from engine.testing.kafka.broker import KafkaBroker, start_broker
from engine.testing.kafka.client import Record, topics, write_records
from engine.testing.kafka.cluster import KafkaCluster
from engine.testing.kafka.connect import ConnectorFailed
from engine.testing.mariadb import MariadbServer
from tests.kafka_cluster.shared import meeting_place, own_name, shared_cluster


@pytest.fixture
def name() -> str:
    """A name of this test's own, for topics, connectors and databases."""
    return own_name("cluster")


@pytest.fixture
def connector(kafka_cluster: KafkaCluster, name: str) -> Iterator[str]:
    """The name of the test's connector; it is ended before the server that it reads."""
    yield name
    if name in kafka_cluster.connect.names():
        kafka_cluster.connect.stop(name)
        kafka_cluster.connect.delete(name)


def changes(records: list[Record]) -> list[tuple[str, object, object]]:
    """(operation, before, after) of records without schema."""
    found = [json.loads(record.value) for record in records if record.value is not None]
    return [(change["op"], change["before"], change["after"]) for change in found]


def with_schema(fields: Sequence[Mapping[str, object]], row: Mapping[str, object]) -> bytes:
    schema = {"type": "struct", "optional": False, "fields": list(fields)}
    return json.dumps({"schema": schema, "payload": row}).encode()


def test_rows_of_postgresql_arrive_in_a_topic(
    kafka_cluster: KafkaCluster, postgres_dsn: str, connector: str, name: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as users:
        users.execute("create table t (id integer primary key, name text)")
        users.execute("insert into t values (1, 'before')")
        settings = debezium.postgres_source(postgres_dsn, name, tables="public.t", schemas=False)
        kafka_cluster.connect.create(connector, settings)
        kafka_cluster.read(f"{name}.public.t", count=1)
        users.execute("insert into t values (2, 'live')")
        users.execute("delete from t where id = 1")
    records = kafka_cluster.read(f"{name}.public.t", count=4)
    assert changes(records) == [
        ("r", None, {"id": 1, "name": "before"}),
        ("c", None, {"id": 2, "name": "live"}),
        ("d", {"id": 1, "name": None}, None),
    ]
    assert (records[3].key, records[3].value) == (b'{"id":1}', None)


def test_rows_of_mariadb_arrive_in_a_topic(
    kafka_cluster: KafkaCluster, mariadb_server: MariadbServer, connector: str, name: str
) -> None:
    mariadb_server.execute(f"create database {name}", f"create table {name}.t (id integer primary key, name text)")
    try:
        mariadb_server.execute(f"insert into {name}.t values (1, 'before')")
        settings = debezium.mariadb_source(
            mariadb_server,
            name,
            bootstrap=kafka_cluster.broker.bootstrap,
            database=name,
            tables=f"{name}.t",
            schemas=False,
        )
        kafka_cluster.connect.create(connector, settings)
        kafka_cluster.read(f"{name}.{name}.t", count=1)
        mariadb_server.execute(f"update {name}.t set name = 'live'")
        assert changes(kafka_cluster.read(f"{name}.{name}.t", count=2)) == [
            ("r", None, {"id": 1, "name": "before"}),
            ("u", {"id": 1, "name": "before"}, {"id": 1, "name": "live"}),
        ]
    finally:
        mariadb_server.execute(f"drop database {name}")


def test_rows_of_a_topic_arrive_in_postgresql(
    kafka_cluster: KafkaCluster, postgres_dsn: str, connector: str, name: str
) -> None:
    fields = [
        {"field": "id", "type": "int32", "optional": False},
        {"field": "name", "type": "string", "optional": True},
    ]
    key = with_schema(fields[:1], {"id": 1})
    values = [with_schema(fields, {"id": 1, "name": text}) for text in ("a", "b")]
    # The broker looks every second for messages that are older than it keeps them.
    now = int(time.time() * 1000)
    kafka_cluster.broker.create_topic(name)
    write_records(
        kafka_cluster.broker.bootstrap,
        [Record(topic=name, partition=0, offset=0, timestamp=now, key=key, value=v) for v in values],
    )
    with psycopg.connect(postgres_dsn, autocommit=True) as users:
        users.execute("create table t (id integer primary key, name text)")
        users.execute("create function told() returns trigger language plpgsql as 'begin notify told; return new; end'")
        users.execute(
            "create trigger told after insert or update on t for each row when (new.name = 'b') execute function told()"
        )
        users.execute("listen told")
        settings = debezium.jdbc_sink(postgres_dsn, name, settings={"collection.name.format": "t"})
        kafka_cluster.connect.create(connector, settings)
        assert list(users.notifies(timeout=60, stop_after=1))
        assert users.execute("select id, name from t").fetchall() == [(1, "b")]


def test_settings_that_a_connector_refuses_are_told(kafka_cluster: KafkaCluster, name: str) -> None:
    with pytest.raises(ConnectorFailed, match=r"topic\.prefix"):
        kafka_cluster.connect.create(
            name, {"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "name": name}
        )


def client_settings(where: KafkaBroker, listener: str) -> dict[str, Any]:
    """What a client of a listener must have, in kafka-python's words."""
    sasl = {
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": broker.USER,
        "sasl_plain_password": broker.PASSWORD,
    }
    tls = {"ssl_cafile": str(where.certificates.authority)}
    own = {
        "ssl_certfile": str(where.certificates.client_certificate),
        "ssl_keyfile": str(where.certificates.client_key),
        "ssl_password": certificates.PASSWORD,
    }
    return {
        "PLAINTEXT": {},
        "SASL": {"security_protocol": "SASL_PLAINTEXT", **sasl},
        "TLS": {"security_protocol": "SSL", **tls},
        "MUTUAL": {"security_protocol": "SSL", **tls, **own},
        "SASLTLS": {"security_protocol": "SASL_SSL", **sasl, **tls},
    }[listener]


@pytest.mark.parametrize("listener", ["PLAINTEXT", "SASL", "TLS", "MUTUAL", "SASLTLS"])
def test_every_listener_lets_in_who_has_what_it_asks_for(kafka_cluster: KafkaCluster, listener: str) -> None:
    where = kafka_cluster.broker

    def seen(address: str, **settings: Any) -> set[str]:
        # The tests of rights have topics that some users only may see.
        return {name for name in topics(address, **settings) if not name.startswith("rights_")}

    # Other test processes make and delete topics of their own meanwhile.
    before = seen(where.bootstrap)
    found = seen(where.address(listener), **client_settings(where, listener))
    after = seen(where.bootstrap)
    assert before & after
    assert before & after <= found <= before | after


def test_a_user_with_another_password_is_refused(kafka_cluster: KafkaCluster) -> None:
    wrong = {**client_settings(kafka_cluster.broker, "SASL"), "sasl_plain_password": "another"}
    with pytest.raises(kafka.errors.KafkaError):
        topics(kafka_cluster.broker.address("SASL"), **wrong)


# By Python's own TLS: kafka-python 3.0 leaves the sockets of failed handshakes open.
def test_who_trusts_another_authority_does_not_trust_the_broker(kafka_cluster: KafkaCluster) -> None:
    trusting = ssl.create_default_context(cafile=str(kafka_cluster.broker.certificates.stranger))
    with (
        socket.create_connection(("127.0.0.1", kafka_cluster.broker.ports["TLS"]), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        trusting.wrap_socket(plain, server_hostname="localhost")


def test_who_has_no_certificate_is_refused_where_one_is_asked_for(kafka_cluster: KafkaCluster) -> None:
    trusting = ssl.create_default_context(cafile=str(kafka_cluster.broker.certificates.authority))
    with (
        socket.create_connection(("127.0.0.1", kafka_cluster.broker.ports["MUTUAL"]), timeout=10) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as wrapped,
        pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|BAD_CERTIFICATE"),
    ):
        wrapped.recv(1)


def test_who_asks_where_a_cluster_runs_gets_that_one(
    kafka_cluster: KafkaCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with shared_cluster(meeting_place(tmp_path_factory)) as again:
        assert again == kafka_cluster
    # And the one who only joined does not end it.
    kafka_cluster.connect.names()


def test_a_broker_lives_again_with_what_it_had(kafka_cluster: KafkaCluster, tmp_path: Path) -> None:
    with start_broker(tmp_path / "broker") as (first, _):
        first.create_topic("kept")
        ports = first.ports
    with start_broker(tmp_path / "broker", ports=ports) as (second, _):
        assert second.bootstrap == first.bootstrap
        assert topics(second.bootstrap) == ["kept"]
