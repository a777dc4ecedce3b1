"""The plugin for databases that are looked at. This module only names things: what it names is imported when it is
used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from plugins.polling.config import PollingConfig, address, dialect_of


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
    promises={
        "every state": "what a row was between two looks is not seen; one that came and went was never there",
        "order": "what changed between two looks comes together, table by table in the order of keys",
        "time": "the time of the look, or of the updated-at column where that has a zone",
        "whole transactions": "those that were committed between two looks come together; tables of other beats do not",
        "keys that change": "a row with another key is one that was deleted and one that is new",
        "truncate": "a table of more than a hundred rows that is found empty is held, whoever emptied it",
    },
)
