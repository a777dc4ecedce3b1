"""A fresh database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.mariadb import MariadbServer
from tests.mysql_source.support import World, make_world


@pytest.fixture
def world(mariadb_server: MariadbServer, tmp_path: Path) -> Iterator[World]:
    made = make_world(mariadb_server, tmp_path)
    try:
        yield made
    finally:
        made.close()
