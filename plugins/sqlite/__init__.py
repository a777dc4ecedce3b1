"""The plugin for SQLite databases. This module only names things: what it names is imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from engine.promises import kept, not_kept, promises
from plugins.sqlite.config import SETTINGS, SqliteConfig, address


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
    promises=promises(
        drawn_keys=kept("from tables of counters; there are no sequences"),
        truncation=not_kept("there is no such statement: all rows are deleted, one by one"),
        commit_times=kept("of the single statements, to the millisecond"),
        every_writer=not_kept("a program that drops the triggers, or has them off, is noticed and not seen"),
    ),
    settings=SETTINGS,
    makes=(
        "the table concord_marker",
        "to read: the tables concord_journal and concord_layout, and triggers on the mapped tables",
        "to write: the table concord_identity",
    ),
    rights=("to write the file and its folder, on a local disk",),
)
