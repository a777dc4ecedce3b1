"""What is asked of brokers apart from messages: which topics there are, and how they are kept. Blocking; run in
threads.

kafka-python has no types: what it gives is given types here and in `consume.py` and `produce.py`, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio.to_thread
import kafka
import kafka.admin
import kafka.errors
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.producer import EndTxnRequest

from engine.errors import SourceUnready
from engine.plugin import Site
from engine.ports import Role
from plugins.kafka.config import KafkaConfig, client_parameters
from plugins.kafka.errors import translate
from plugins.kafka.rights import GROUP, TOPIC, TRANSACTIONAL_ID, Need, lacking, refused

T = TypeVar("T")
_kafka: Any = kafka
_admin: Any = kafka.admin
_errors: Any = kafka.errors
# https://kafka.apache.org/protocol#protocol_error_codes
_UNKNOWN_TOPIC: Final = 3
_FORBIDDEN: Final = 29
_GROUP_FORBIDDEN: Final = 30
_TRANSACTIONAL_ID_FORBIDDEN: Final = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """`id` stays while the topic is the same one, "" where the brokers are too old to tell."""

    name: str
    id: str
    partitions: tuple[int, ...]
    settings: Mapping[str, str]

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.settings.get("cleanup.policy", "delete")


class Admin:
    """One connection to the cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def topics(self, names: Sequence[str], *, with_settings: bool = False) -> dict[str, Topic]:
        """Those of the topics that there are. Raises the driver's errors."""
        found: dict[str, Topic] = {}
        for described in self._client.describe_topics(list(names)) if names else ():
            code = int(described["error_code"])
            if code == _UNKNOWN_TOPIC:
                continue
            if code == _FORBIDDEN:
                raise _errors.TopicAuthorizationFailedError({described["name"]})
            if code:
                raise _errors.for_code(code)
            numbers = sorted(int(partition["partition_index"]) for partition in described["partitions"])
            id = str(described.get("topic_id") or "")
            found[described["name"]] = Topic(
                name=described["name"], id="" if set(id) <= {"0", "-"} else id, partitions=tuple(numbers), settings={}
            )
        return self._with_settings(found) if with_settings else found

    def lacking(self, needs: Sequence[Need]) -> list[Need]:
        """Which of the rights our user does not have."""
        wanted = [need.name for need in needs if need.kind == TOPIC]
        allowed: dict[str, frozenset[str] | None] = {}
        for described in self._client.describe_topics(wanted) if wanted else ():
            told = described["authorized_operations"]
            hidden = int(described["error_code"]) == _FORBIDDEN
            allowed[described["name"]] = frozenset() if hidden else None if told is None else frozenset(map(str, told))
        return lacking(needs, allowed, {GROUP: self._may_read, TRANSACTIONAL_ID: self._may_write})

    def _may_read(self, group: str) -> bool:
        request = HeartbeatRequest(group_id=group, generation_id=-1, member_id="")
        return self._code(request) != _GROUP_FORBIDDEN

    def _may_write(self, id: str) -> bool:
        request = EndTxnRequest(transactional_id=id, producer_id=-1, producer_epoch=-1, committed=False)
        return self._code(request) != _TRANSACTIONAL_ID_FORBIDDEN

    def _code(self, request: Any) -> int:
        """What any broker answers: rights are looked at before anything else is, also where another one is in
        charge."""
        manager = self._client._manager
        return int(manager.run(manager.send, request).error_code)

    def names(self) -> list[str]:
        return sorted(self._client.list_topics())

    def make(self, topics: Iterable[tuple[str, int, int, Mapping[str, str]]]) -> None:
        """Make topics: name, partitions, replicas, settings."""
        wanted = {
            name: {"num_partitions": partitions, "replication_factor": replicas, "configs": dict(settings)}
            for name, partitions, replicas, settings in topics
        }
        self._client.create_topics(wanted)
        self._client.wait_for_topics(list(wanted))

    def set(self, name: str, settings: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        self._client.alter_configs([_admin.ConfigResource(_admin.ConfigResourceType.TOPIC, name, dict(settings))])

    def delete(self, names: Sequence[str]) -> None:
        self._client.delete_topics(list(names))

    def _with_settings(self, topics: dict[str, Topic]) -> dict[str, Topic]:
        if not topics:
            return topics
        resources = [_admin.ConfigResource(_admin.ConfigResourceType.TOPIC, name) for name in topics]
        told: Any = self._client.describe_configs(resources, config_filter="all").get("topic", {})
        return {
            name: Topic(
                name=name,
                id=topic.id,
                partitions=topic.partitions,
                settings={key: str(setting["value"]) for key, setting in told.get(name, {}).items()},
            )
            for name, topic in topics.items()
        }


@contextmanager
def open_admin(site: Site, config: KafkaConfig) -> Generator[Admin]:
    """Raises the driver's errors."""
    client = _kafka.KafkaAdminClient(**client_parameters(site, config))
    try:
        yield Admin(client)
    finally:
        client.close()


async def ask(
    site: Site, config: KafkaConfig, work: Callable[[Admin], T], *, doing: str, role: Role = Role.SOURCE
) -> T:
    """Run `work` with a connection of its own in a thread. Raises errors of ours."""

    def run() -> T:
        try:
            with open_admin(site, config) as admin:
                return work(admin)
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(error, config, system=site.name, doing=doing, role=role) from error

    return await anyio.to_thread.run_sync(run)


def describe(admin: Admin, config: KafkaConfig, needs: Sequence[Need], *, system: str, role: Role) -> dict[str, Topic]:
    """The topics among `needs`, with their settings. Raises our own error where a right is missing: without
    `DescribeConfigs` brokers say nothing and leave the settings out."""
    missing = admin.lacking(needs)
    if missing:
        raise refused(config, missing, system=system, role=role)
    return admin.topics([need.name for need in needs if need.kind == TOPIC], with_settings=True)


def present(topics: Mapping[str, Topic], names: Iterable[str], system: str) -> list[Topic]:
    """The topics of these names. Raises `SourceUnready` when one is missing."""
    missing = [name for name in names if name not in topics]
    if missing:
        raise SourceUnready(
            f"system {system}: there is no topic {', '.join(missing)}",
            hint="Debezium makes a table's topic with its first message: check table.include.list and topic.prefix of"
            " the"
            f" connector, and topics of [systems.{system}]; write a row, or make the topic by hand.",
            system=system,
        )
    return [topics[name] for name in names]
