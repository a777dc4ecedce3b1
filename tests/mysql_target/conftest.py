"""A fresh database with the marker for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from engine.testing.mariadb import MariadbServer
from tests.mysql_target.support import World, make_world


@pytest.fixture
async def world(anyio_backend: str, mariadb_server: MariadbServer, tmp_path: Path) -> AsyncIterator[World]:
    world = await make_world(mariadb_server, tmp_path)
    try:
        with anyio.fail_after(120):
            yield world
    finally:
        world.close()
