"""A world per test: a fresh database, a site of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_source.support import World, make_world


@pytest.fixture
def world(postgres_dsn: str, tmp_path: Path) -> Iterator[World]:
    made = make_world(postgres_dsn, tmp_path)
    yield made
    made.users.close()
