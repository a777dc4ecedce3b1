"""What the access list must give our user, asked of the brokers, and the command that gives what is missing.
Reads only.

A topic's rights come with its description. Groups and transactional ids have no such answer, so something is asked that
wants the right and can change nothing: a sign of life of a member that no group has, the end of a transaction of a
producer that no broker knows. `IdempotentWrite` on the cluster is not asked for: a transactional producer needs `Write`
on its id alone (KafkaApis.handleInitProducerIdRequest).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from engine.errors import ConcordError, SourceUnready, TargetUnready
from engine.ports import Finding, Role
from plugins.kafka.config import KafkaConfig

TOPIC: Final = "topic"
GROUP: Final = "group"
TRANSACTIONAL_ID: Final = "transactional-id"
# As commands and documentation spell them, by the protocol's names.
SPELT: Final = {"READ": "Read", "WRITE": "Write", "DESCRIBE": "Describe", "DESCRIBE_CONFIGS": "DescribeConfigs"}
READING: Final = ("READ", "DESCRIBE", "DESCRIBE_CONFIGS")
FEEDING: Final = ("WRITE", *READING)


class Need(NamedTuple):
    """Rights on one thing. `kind`: as the options of kafka-acls.sh call it."""

    kind: str
    name: str
    operations: tuple[str, ...]


def needs_of_source(config: KafkaConfig, topics: Iterable[str]) -> list[Need]:
    group = [] if config.group is None else [Need(GROUP, config.group, ("READ",))]
    return [*(Need(TOPIC, name, READING) for name in topics), *group]


def needs_of_feed(config: KafkaConfig, topics: Iterable[str]) -> list[Need]:
    return [
        *(Need(TOPIC, name, FEEDING) for name in topics),
        Need(TRANSACTIONAL_ID, transactional_id(config), ("WRITE",)),
    ]


def transactional_id(config: KafkaConfig) -> str:
    return f"concord-{config.feed}"


def lacking(
    needs: Sequence[Need],
    topics: Mapping[str, frozenset[str] | None],
    may: Mapping[str, Callable[[str], bool]],
) -> list[Need]:
    """What is missing of `needs`. `topics`: the operations that are allowed on each, None where the brokers are too old
    to tell; `may`: by kind, whether a name may be used."""
    found: list[Need] = []
    for need in needs:
        if need.kind != TOPIC:
            if not may[need.kind](need.name):
                found.append(need)
            continue
        allowed = topics.get(need.name)
        if allowed is not None and (missing := tuple(op for op in need.operations if op not in allowed)):
            found.append(need._replace(operations=missing))
    return found


def command(config: KafkaConfig, need: Need) -> str:
    """What an administrator runs to give the right."""
    operations = " ".join(f"--operation {SPELT[op]}" for op in need.operations)
    return (
        f"kafka-acls.sh --bootstrap-server {config.servers[0]} --add --allow-principal {shlex.quote(principal(config))}"
        f" {operations} --{need.kind} {shlex.quote(need.name)}"
    )


def principal(config: KafkaConfig) -> str:
    """Who we are to the access list."""
    if config.user is not None:
        return f"User:{config.user}"
    return "User:<subject of tls_certificate>" if config.tls_certificate is not None else "User:ANONYMOUS"


def findings(config: KafkaConfig, missing: Iterable[Need]) -> list[Finding]:
    """One for each thing on which something is missing."""
    return [
        Finding(
            path=f"{need.kind} {need.name}",
            message=f"{principal(config)} lacks {_listed(need)} on it",
            hint="Give it. Who has no Describe on a topic is not told either whether it is there.",
            sql=command(config, need),
        )
        for need in missing
    ]


def refused(config: KafkaConfig, missing: Sequence[Need], *, system: str, role: Role) -> ConcordError:
    """The error of whoever needs these."""
    said = "; ".join(f"{_listed(need)} on {need.kind} {need.name}" for need in missing)
    kind = TargetUnready if role is Role.TARGET else SourceUnready
    return kind(
        f"system {system}: {principal(config)} lacks {said}",
        hint="Give it: " + " && ".join(f"`{command(config, need)}`" for need in missing),
        system=system,
    )


def _listed(need: Need) -> str:
    return ", ".join(SPELT[op] for op in need.operations)
