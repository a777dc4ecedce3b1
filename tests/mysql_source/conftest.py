"""A MariaDB of this test process, and a fresh database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.mariadb import MariadbServer, mariadb_binaries, start_mariadb
from tests.mysql_source.support import World, make_world


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    if mariadb_binaries() is None:
        pytest.skip("mariadbd and mariadb-install-db are not installed (CONCORD_TEST_MARIADB_BIN names their folder)")
    with (
        TemporaryDirectory(prefix="concord-mariadb-", ignore_cleanup_errors=True) as name,
        start_mariadb(Path(name)) as server,
    ):
        yield server


@pytest.fixture
def world(mariadb_server: MariadbServer, tmp_path: Path) -> Iterator[World]:
    made = make_world(mariadb_server, tmp_path)
    try:
        yield made
    finally:
        made.close()
