"""The plugin for MariaDB and MySQL. This module only names things: what it names is imported when it is used."""

from __future__ import annotations

from engine.plugin import Plugin, Site
from engine.ports import Source, System, Target
from engine.promises import kept, not_kept, promises
from plugins.mysql.config import SETTINGS, MysqlConfig, address


def _system(site: Site, config: MysqlConfig) -> System:
    from plugins.mysql.setup import MysqlSystem

    return MysqlSystem(site, config)


def _source(site: Site, config: MysqlConfig) -> Source:
    from plugins.mysql.capture import MysqlSource

    return MysqlSource(site, config)


def _target(site: Site, config: MysqlConfig) -> Target:
    from plugins.mysql.apply import MysqlTarget

    return MysqlTarget(site, config)


plugin = Plugin(
    kind="mysql",
    summary="MariaDB 10.5 and later, MySQL 8: the row-based binary log in, upserts out",
    dialect="mysql",
    config=MysqlConfig,
    system=_system,
    source=_source,
    target=_target,
    address=address,
    promises=promises(
        commit_times=kept("to the second"),
        drawn_keys=kept("from tables of counters"),
        every_writer=not_kept(
            "a session that switches sql_log_bin off writes past the log, and so does a foreign key that cascades"
        ),
    ),
    settings=SETTINGS,
    makes=("to write: the tables concord_marker and concord_identity",),
    rights=(
        "to read: replication slave, binlog monitor (MySQL: replication client) on the server; select on the database",
        "to write: insert, update, delete on the database",
        "to set up: create on the database",
    ),
)
