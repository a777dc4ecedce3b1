"""Goal: a configuration that cannot keep what it promises is refused when it is read, and no secret is shown.

Method: tables as they stand in concord.toml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config.load import load_config
from engine.errors import ConfigError
from engine.plugin import Site
from engine.ports import Role
from plugins.kafka import plugin
from plugins.kafka.check import _of_heartbeat  # pyright: ignore[reportPrivateUsage]
from plugins.kafka.config import KafkaConfig, client_parameters
from plugins.kafka.names import Names

POSTGRES: dict[str, Any] = {"plugin": "postgres", "dsn": "dbname=crm"}
MARIADB: dict[str, Any] = {"plugin": "mysql", "database": "shop", "user": "concord"}
READ: dict[str, Any] = {"servers": ["k:9092"], "prefix": "crm"}
FEED: dict[str, Any] = {"servers": ["k:9092"], "feed": "lake", "tables": {"customers": {"id": "text"}}}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"servers": [], "prefix": "crm"}, "servers is empty"),
    ({"servers": ["k:9092"]}, "one of prefix"),
    (READ | {"feed": "lake"}, "one of prefix"),
    (FEED | {"database": POSTGRES}, "database belongs to topics that are read"),
    (READ | {"form": "flat"}, 'say order = "row"'),
    (READ | {"database": {"dsn": "x"}}, "database.plugin is wanted"),
    (READ | {"database": {"plugin": "kafka"}}, "not kafka"),
    (READ | {"database": {"plugin": "postgre"}}, "Did you mean 'postgres'"),
    (READ | {"database": POSTGRES | {"slots": 1}}, "unknown field `slots`"),
    (READ | {"sasl": "plain", "user": "u", "password": {"env": "P"}}, "in the clear"),
    (READ | {"sasl": "scram-sha-512", "user": "u"}, "go together"),
    (READ | {"sasl": "gssapi", "user": "u", "password": {"env": "P"}}, "Invalid enum value"),
    (READ | {"tls_ca": "ca.pem"}, 'tls is "off"'),
    (READ | {"tls": "verify-ca", "tls_key": "k.pem"}, "go together"),
    (READ | {"security_protocol": "SSL"}, "unknown field"),
    (FEED | {"tables": {}}, "tables is empty"),
    (FEED | {"tables": {"a b": {"id": "text"}}}, "a topic's name"),
    (FEED | {"tables": {"a": {"id": "varchar"}}}, "one of text, integer"),
    (READ | {"tables": {"a": {"id": "text"}}}, "tables belongs to a feed"),
]


@pytest.mark.parametrize(("table", "said"), MISTAKES)
def test_what_does_not_fit_together_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(table, KafkaConfig)


@pytest.mark.parametrize(
    ("table", "able"),
    [
        (READ, Role.SOURCE),
        (READ | {"database": POSTGRES}, Role.SOURCE | Role.TARGET),
        (READ | {"database": POSTGRES, "order": "partition"}, Role.SOURCE | Role.TARGET),
        # Nothing says where our own deliveries stand in that log.
        (READ | {"database": POSTGRES, "order": "row"}, Role.SOURCE),
        (FEED, Role.TARGET),
    ],
)
def test_a_system_can_do_what_its_topics_promise(table: dict[str, Any], able: Role) -> None:
    assert plugin.roles_for(msgspec.convert(table, KafkaConfig)) == able


def test_a_system_of_which_only_rows_have_an_order_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "crm.toml").write_text("[[table]]\nname = 'customers'\nentity = 'account'\nkey = ['id']\n")
    path = tmp_path / "concord.toml"
    path.write_text(
        "dictionary = 'service'\n[systems.crm]\nplugin = 'kafka'\nmapping = 'crm.toml'\nservers = ['k:9092']\n"
        "prefix = 'crm'\norder = 'row'\nmode = 'live'\n[systems.crm.database]\nplugin = 'postgres'\ndsn = 'dbname=x'\n"
    )
    with pytest.raises(ConfigError) as told:
        load_config(path)
    assert "concord.toml:8" in str(told.value)
    assert "systems.crm.mode" in str(told.value)
    path.write_text(path.read_text().replace("'live'", "'send'"))
    (crm,) = load_config(path).systems
    assert crm.mode.is_source
    assert not crm.mode.is_target


@pytest.mark.parametrize(("role", "is_wanted"), [(Role.SOURCE, True), (Role.SOURCE | Role.TARGET, False)])
def test_a_heartbeat_is_wanted_where_nothing_of_ours_is_in_the_log(role: Role, is_wanted: bool) -> None:
    config = msgspec.convert(READ | {"database": POSTGRES}, KafkaConfig)
    found = list(_of_heartbeat(config, Names(config, ["customers"]), role))
    assert [finding.path for finding in found] == ["heartbeat"] * is_wanted


def test_expressions_are_those_of_the_captured_database() -> None:
    assert plugin.dialect_for(msgspec.convert(READ | {"database": MARIADB}, KafkaConfig)) == "mysql"
    assert plugin.dialect_for(msgspec.convert(READ, KafkaConfig)) == "postgres"


def test_names_of_tables_lead_to_topics_and_to_what_messages_say() -> None:
    postgres = Names(
        msgspec.convert(READ | {"database": POSTGRES}, KafkaConfig), ["customers", 'crm."Odd.Name"', "a b"]
    )
    assert [table[1:] for table in postgres.tables] == [
        ("public.customers", "crm.public.customers"),
        ("crm.Odd.Name", "crm.crm.Odd.Name"),
        ("public.a b", "crm.public.a_b"),
    ]
    assert postgres.marker is not None
    assert postgres.marker.topic == "crm.concord.marker"
    mariadb = Names(msgspec.convert(READ | {"database": MARIADB}, KafkaConfig), ["customers", "other.customers"])
    assert [table.collection for table in mariadb.tables] == ["shop.customers", "other.customers"]
    assert mariadb.marker is not None
    assert mariadb.marker.collection == "shop.concord_marker"
    routed = msgspec.convert(READ | {"topics": {"public.t": "elsewhere"}}, KafkaConfig)
    assert Names(routed, ["public.t"]).tables[0].topic == "elsewhere"


def test_secrets_reach_the_driver_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hush")
    table = READ | {"sasl": "scram-sha-512", "user": "concord", "password": {"env": "KAFKA_PASSWORD"}}
    config = msgspec.convert(table, KafkaConfig)
    found = client_parameters(Site(name="crm", directory=tmp_path, work_directory=tmp_path), config)
    assert (found["security_protocol"], found["sasl_mechanism"]) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")
    assert found["sasl_plain_password"] == "hush"
    assert "hush" not in repr(config)
