"""The plugin for PostgreSQL 14 and later. This module only names things: what it names is imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from engine.promises import not_kept, promises
from plugins.postgres.config import SETTINGS, PostgresConfig, address


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
    promises=promises(
        whole_rows=not_kept("a large value that was left as it was does not come, nor does it count as null"),
    ),
    settings=SETTINGS,
    makes=(
        "to read: a publication of the mapped tables and a logical replication slot",
        "to write: schema concord with the tables marker and identity",
    ),
    rights=(
        "to read: the attribute replication; usage on the schemas, select on the mapped columns",
        "to write: insert, update on the mapped columns, delete; usage on sequences of new keys; select, insert,"
        " update on our own tables",
        "to set up: create on the database, ownership of the tables that are published",
    ),
)
