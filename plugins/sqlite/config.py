"""`[systems.NAME]` with plugin = "sqlite"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from engine.plugin import Site

SETTINGS: Final = {
    "path": "the file, relative to the folder of concord.toml",
    "busy_timeout_seconds": "how long a statement waits for another writer before the lane pauses",
    "poll_seconds": "how often an idle feed looks for commits of others",
}
"""What each setting means, for `concord plugins show`."""


class SqliteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is relative to the configuration's folder. `busy_timeout_seconds`: how long one of our statements waits
    for another writer before the lane pauses. `poll_seconds`: how often an idle feed looks for commits of others."""

    path: str
    busy_timeout_seconds: float = 5.0
    poll_seconds: float = 0.05


def address(site: Site, config: SqliteConfig) -> str:
    """One spelling for each file, whatever links lead to it."""
    path = database_path(site, config)
    try:
        return os.path.realpath(path)
    except ValueError:
        # No file has a NUL in its name; that is told where it is opened.
        return str(path)


def database_path(site: Site, config: SqliteConfig) -> Path:
    return site.directory / config.path
