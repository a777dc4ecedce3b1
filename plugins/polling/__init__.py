"""The plugin for databases that are looked at. This module only names things: what it names is imported when it is
used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from engine.promises import kept, not_kept, promises
from plugins.polling.config import SETTINGS, PollingConfig, address, dialect_of, terms


def _system(site: Site, config: PollingConfig) -> System:
    from plugins.polling.setup import PollingSystem

    return PollingSystem(site, config)


def _source(site: Site, config: PollingConfig) -> Source:
    from plugins.polling.capture import PollingSource

    return PollingSource(site, config)


def _target(site: Site, config: PollingConfig) -> Target:
    from plugins.polling.apply import PollingTarget

    return PollingTarget(site, config)


plugin = Plugin(
    kind="polling",
    summary="any database with a PEP 249 driver and a sqlglot dialect: looked at now and then, compared before writing",
    dialect="postgres",
    dialect_of=dialect_of,
    config=PollingConfig,
    system=_system,
    source=_source,
    target=_target,
    address=address,
    promises=promises(
        drawn_keys=not_kept("each dialect has its own way to, and none is built"),
        joins=not_kept("two tables are looked at one after the other, and not in one moment"),
        order=not_kept("what changed between two looks comes together, by tables and keys"),
        every_state=not_kept("what a row was between two looks is not seen"),
        whole_transactions=kept("for tables that are looked at together"),
        key_changes=not_kept("a row with another key is one that was deleted and one that is new"),
        truncation=not_kept("a table of more than 100 rows that is found empty is held, whoever emptied it"),
        commit_times=not_kept("the time of the look; that of `updated_at` where the column has a zone"),
        seen=not_kept("exact up to one look; so a row is written only where it is as it was last seen"),
    ),
    terms=terms,
    settings=SETTINGS,
    makes=(
        "the table concord_marker",
        "to write: the table concord_identity",
        "beside concord.toml: the file NAME.looks.sqlite",
    ),
    rights=(
        "to read: select",
        "to write: select, insert, update, delete",
        "on our own tables: select, insert, update, delete",
        "to know which transactions are open: PostgreSQL pg_read_all_stats, MariaDB and MySQL process",
        "to set up: create tables",
    ),
)
