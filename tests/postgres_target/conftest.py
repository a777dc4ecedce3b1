"""A target per test: a fresh database with the marker, as set-up makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.postgres_target.support import World, make_world


@pytest.fixture
async def world(anyio_backend: str, postgres_dsn: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await make_world(postgres_dsn, tmp_path)
    try:
        with anyio.fail_after(120):
            yield world
    finally:
        world.users.close()
