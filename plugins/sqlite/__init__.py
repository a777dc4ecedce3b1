"""The plugin for SQLite databases. This module only names things: what it names is imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from plugins.sqlite.config import SqliteConfig, address


def _system(site: Site, config: SqliteConfig) -> System:
    from plugins.sqlite.setup import SqliteSystem

    return SqliteSystem(site, config)


def _source(site: Site, config: SqliteConfig) -> Source:
    from plugins.sqlite.capture import SqliteSource

    return SqliteSource(site, config)


def _target(site: Site, config: SqliteConfig) -> Target:
    from plugins.sqlite.apply import SqliteTarget

    return SqliteTarget(site, config)


plugin = Plugin(
    kind="sqlite",
    summary="SQLite 3.24 and later: a change journal by triggers in, upserts out",
    dialect="sqlite",
    config=SqliteConfig,
    system=_system,
    source=_source,
    target=_target,
    address=address,
    promises={
        "nothing lost": "writes of a program that drops the triggers, or has them off, are noticed but not seen",
        "time": "commit times are those of the single statements, to the millisecond",
    },
)
