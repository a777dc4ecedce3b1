"""The hub's schema, forward only: `NNNN_name.sql`, applied in the order of their numbers.

The hub is opened through apsw and keeps its version in SQLite's `user_version`, so the runner (engine/hub/sqlite.py) is
a loop; a migration library would bring a second driver to run it with.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema; `number` is what `user_version` is afterwards."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Every migration there is, in order."""
    found = [
        Migration(int(file.name[:4]), file.name, file.read_text(encoding="utf-8"))
        for file in files(__name__).iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found)
