"""The plugin for Kafka: Debezium's topics in, a feed of rows out. This module only names things: what it names is
imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from engine.promises import kept, not_kept, promises
from plugins.kafka.config import SETTINGS, KafkaConfig, address, dialect, inner_database, roles, terms


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
    promises=promises(
        drawn_keys=not_kept("a feed has no counters"),
        joins=not_kept("a topic is read by itself, and nothing can be asked of one that is written to"),
        whole_rows=not_kept("a large value of PostgreSQL's that was left as it was does not come; MariaDB's all do"),
        commit_times=kept("as exactly as the connector tells them"),
        every_writer=kept("of whom Debezium sees; what it drops or rounds is gone before it reaches a topic"),
        assigned_keys=kept("of the captured database; a feed hands out none"),
    ),
    terms=terms,
    settings=SETTINGS,
    makes=(
        "topics of tables that have had no row yet, and in the captured database what its plugin makes to write",
        "of a feed: its topics and that of its marker",
    ),
    rights=(
        "to read: Read, Describe and DescribeConfigs on the topics; Read on the group, where there is one",
        "to write: those of the captured database's plugin; for a feed Write, Read, Describe and DescribeConfigs on"
        " its topics, Write on the transactional id concord-FEED",
        "to set up: Create on the topics",
    ),
)
