"""The plugin for PostgreSQL 14 and later. This module only names things: what it names is imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from plugins.postgres.config import PostgresConfig, address


def _system(site: Site, config: PostgresConfig) -> System:
    from plugins.postgres.setup import PostgresSystem

    return PostgresSystem(site, config)


def _source(site: Site, config: PostgresConfig) -> Source:
    from plugins.postgres.capture import PostgresSource

    return PostgresSource(site, config)


def _target(site: Site, config: PostgresConfig) -> Target:
    from plugins.postgres.apply import PostgresTarget

    return PostgresTarget(site, config)


plugin = Plugin(
    kind="postgres",
    summary="PostgreSQL 14 and later: logical replication in, set-based upserts out",
    dialect="postgres",
    config=PostgresConfig,
    system=_system,
    source=_source,
    target=_target,
    address=address,
    promises={},
)
