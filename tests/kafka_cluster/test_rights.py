"""Goal: who lacks a right is told which, on what, of which system, and the command that gives it, and that is enough.

Method: the shared broker, whose access list counts for a name as soon as it has an entry; the commands that are told
are carried out, by the broker's own interface instead of by the script of that name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import kafka
import kafka.admin
import pytest

from engine.errors import ConcordError, SourceUnready, TargetUnready
from engine.ports import Feed, Finding, Role, TableWrite, TargetSession, WriteKind
from engine.secret import Secret
from engine.testing.kafka.broker import PASSWORD, USER
from engine.testing.kafka.cluster import KafkaCluster
from plugins.kafka import consume, plugin
from plugins.kafka.config import KafkaConfig
from tests.kafka_cluster.shared import own_name
from tests.kafka_source.topics import TABLE, Topics, names_of

_kafka: Any = kafka
_admin: Any = kafka.admin
HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
ADD = re.compile(r"kafka-acls\.sh --bootstrap-server \S+ --add (.*)")
KINDS = {"topic": "TOPIC", "group": "GROUP", "transactional-id": "TRANSACTIONAL_ID"}
WORDS = {"Read": "READ", "Write": "WRITE", "Describe": "DESCRIBE", "DescribeConfigs": "DESCRIBE_CONFIGS"}
pytestmark = pytest.mark.anyio


class AccessList:
    """The broker's, of names that begin with `prefix`: nobody of a certain name has any right there at first."""

    def __init__(self, cluster: KafkaCluster, prefix: str) -> None:
        self._client = _kafka.KafkaAdminClient(bootstrap_servers=cluster.broker.bootstrap)
        for kind in KINDS.values():
            self._add("User:another", kind, prefix, "READ" if kind != "TRANSACTIONAL_ID" else "WRITE", "PREFIXED")
            if kind == "TRANSACTIONAL_ID":
                self._add("User:another", kind, f"concord-{prefix}", "WRITE", "PREFIXED")

    def close(self) -> None:
        self._client.close()

    def give(self, command: str) -> None:
        """As the script does that the command runs."""
        told = ADD.fullmatch(command)
        assert told is not None, command
        words = shlex.split(told[1])
        options = list(zip(words[::2], words[1::2], strict=True))
        ((kind, name),) = [(KINDS[o[2:]], value) for o, value in options if o[2:] in KINDS]
        (principal,) = [value for option, value in options if option == "--allow-principal"]
        for option, value in options:
            if option == "--operation":
                self._add(principal, kind, name, WORDS[value])

    def take(self, kind: str, name: str) -> None:
        """Take every right that `USER` has there."""
        self._client.delete_acls([
            _admin.ACLFilter(
                principal=f"User:{USER}",
                host="*",
                operation=_admin.ACLOperation.ANY,
                permission_type=_admin.ACLPermissionType.ANY,
                resource_pattern=_admin.ResourcePattern(_admin.ResourceType[KINDS[kind]], name),
            )
        ])  # fmt: skip

    def _add(self, principal: str, kind: str, name: str, operation: str, pattern: str = "LITERAL") -> None:
        acl = _admin.ACL(
            principal=principal,
            host="*",
            operation=_admin.ACLOperation[operation],
            permission_type=_admin.ACLPermissionType.ALLOW,
            resource_pattern=_admin.ResourcePattern(
                _admin.ResourceType[kind], name, _admin.ACLResourcePatternType[pattern]
            ),
        )
        assert not self._client.create_acls([acl])["failed"]


@pytest.fixture
def topics(kafka_cluster: KafkaCluster, tmp_path: Path) -> Topics:
    (tmp_path / "password").write_text(PASSWORD)
    return Topics.of(kafka_cluster, own_name("rights"), tmp_path)


@pytest.fixture
def access(topics: Topics) -> Iterator[AccessList]:
    access = AccessList(topics.cluster, topics.prefix)
    yield access
    access.close()


def known(topics: Topics) -> dict[str, Any]:
    """Who comes with a name."""
    return {
        "servers": (topics.cluster.broker.address("SASL"),),
        "sasl": "scram-sha-256",
        "user": USER,
        "password": Secret(file="password"),
    }


@asynccontextmanager
async def opened(topics: Topics, config: KafkaConfig) -> AsyncGenerator[Feed]:
    assert plugin.source is not None
    with anyio.fail_after(60):
        async with plugin.source(topics.site, config).feed(None, [TABLE], frozenset()) as feed:
            yield feed


@asynccontextmanager
async def session(topics: Topics, config: KafkaConfig) -> AsyncGenerator[TargetSession]:
    assert plugin.target is not None
    with anyio.fail_after(60):
        async with plugin.target(topics.site, config).open(["customers"]) as session:
            await session.claim(HUB, 3)
            yield session


def row(name: str) -> TableWrite:
    return TableWrite(
        table="customers",
        place="customers",
        kind=WriteKind.INSERT,
        columns=("id", "name"),
        key=("id",),
        rows=[("1", name)],
        rids=[101],
    )


async def receive_for_ever(feed: Feed) -> None:
    while True:
        await feed.receive(100)


async def all_of(topics: Topics, config: KafkaConfig, table: str, role: Role) -> list[Finding]:
    return [f for f in await plugin.system(topics.site, config).check([table], role) if f.is_fatal]


def commands_in(error: ConcordError) -> list[str]:
    return re.findall(r"`([^`]+)`", error.hint)


async def test_who_reads_is_told_each_right_that_is_missing(
    topics: Topics, access: AccessList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "LOOK_SECONDS", 0.3)
    topics.create(topics.customers, topics.transactions)
    topics.write(topics.change(1, "first", number=1), topics.end(1))
    config = topics.config(group=f"{topics.prefix}-group", **known(topics))
    found = await all_of(topics, config, TABLE, Role.SOURCE)
    assert [(finding.path, finding.message) for finding in found] == [
        (f"topic {topics.customers}", f"User:{USER} lacks Read, Describe, DescribeConfigs on it"),
        (f"topic {topics.transactions}", f"User:{USER} lacks Read, Describe, DescribeConfigs on it"),
        (f"group {topics.prefix}-group", f"User:{USER} lacks Read on it"),
    ]
    with pytest.raises(SourceUnready, match=f"system crm: User:{USER} lacks Read") as told:
        async with opened(topics, config):
            pass
    assert commands_in(told.value) == [finding.sql for finding in found], "the run says what the check says"
    # Of two rights that are there nothing is said; without the third, settings would be missing without a word.
    access.give(found[0].sql.replace("--operation DescribeConfigs ", ""))
    for finding in found[1:]:
        access.give(finding.sql)
    (left,) = await all_of(topics, config, TABLE, Role.SOURCE)
    assert left.message == f"User:{USER} lacks DescribeConfigs on it"
    access.give(left.sql)
    assert await all_of(topics, config, TABLE, Role.SOURCE) == []
    async with opened(topics, config) as feed:
        assert await names_of(feed, 1) == ["first"]
        access.take("topic", topics.customers)
        topics.write(topics.change(2, "second", number=2), topics.end(2))
        with pytest.raises(SourceUnready, match=f"lacks Read.* on topic {topics.customers}") as told:
            await receive_for_ever(feed)
    for command in commands_in(told.value):
        access.give(command)
    async with opened(topics, config) as feed:
        assert await names_of(feed, 2) == ["first", "second"]


async def test_who_writes_a_feed_is_told_each_right_that_is_missing(topics: Topics, access: AccessList) -> None:
    name = f"{topics.prefix}-lake"
    free = KafkaConfig(
        servers=(topics.cluster.broker.bootstrap,), feed=name, tables={"customers": {"id": "text", "name": "text"}}
    )
    await plugin.system(topics.site, free).setup(["customers"], Role.TARGET)
    config = KafkaConfig(feed=name, tables=free.tables, **known(topics))
    found = await all_of(topics, config, "customers", Role.TARGET)
    rights = "Write, Read, Describe, DescribeConfigs"
    assert [(finding.path, finding.message) for finding in found] == [
        (f"topic {name}.concord-marker", f"User:{USER} lacks {rights} on it"),
        (f"topic {name}.customers", f"User:{USER} lacks {rights} on it"),
        (f"transactional-id concord-{name}", f"User:{USER} lacks Write on it"),
    ]
    with pytest.raises(TargetUnready, match=f"system crm: User:{USER} lacks Write") as told:
        async with session(topics, config):
            pass
    assert commands_in(told.value) == [finding.sql for finding in found], "the run says what the check says"
    for finding in found:
        access.give(finding.sql)
    assert await all_of(topics, config, "customers", Role.TARGET) == []

    async with session(topics, config) as running, running.delivery(1) as delivery:
        await delivery.write(row("ours"))
    assert len(topics.cluster.read(f"{name}.customers")) == 1
