"""The plugin for Kafka: Debezium's topics in, a feed of rows out. This module only names things: what it names is
imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from plugins.kafka.config import KafkaConfig, address, dialect, inner_database, roles


def _system(site: Site, config: KafkaConfig) -> System:
    if config.feed is not None:
        from plugins.kafka.feed import FeedSystem

        return FeedSystem(site, config)
    from plugins.kafka.setup import TopicSystem

    return TopicSystem(site, config)


def _source(site: Site, config: KafkaConfig) -> Source:
    from plugins.kafka.capture import KafkaSource

    return KafkaSource(site, config)


def _target(site: Site, config: KafkaConfig) -> Target:
    inner = inner_database(config)
    if inner is not None:
        plugin, options = inner
        assert plugin.target is not None, "a database that Debezium captures can be written to"
        return plugin.target(site, options)
    from plugins.kafka.apply import FeedTarget

    return FeedTarget(site, config)


plugin = Plugin(
    kind="kafka",
    summary="Topics of Debezium in; keyed, compactable topics of rows out",
    dialect="postgres",
    config=KafkaConfig,
    system=_system,
    source=_source,
    target=_target,
    address=address,
    roles=roles,
    dialect_of=dialect,
    promises={
        "order": 'without the topic of transactions (order = "row") it holds for each row alone, and the system is only'
        " read",
        "nothing lost": "what Debezium drops or rounds is gone before it reaches a topic; what can be told of it is"
        " refused",
        "applied once": "a feed is read at least once by those who do not read committed transactions only",
    },
)
