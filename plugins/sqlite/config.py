"""`[systems.NAME]` with plugin = "sqlite"."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.plugin import Site


class SqliteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is relative to the configuration's folder. `busy_timeout_seconds`: how long one of our statements waits
    for another writer before the lane pauses. `poll_seconds`: how often an idle feed looks for commits of others."""

    path: str
    busy_timeout_seconds: float = 5.0
    poll_seconds: float = 0.05


def database_path(site: Site, config: SqliteConfig) -> Path:
    return site.directory / config.path
