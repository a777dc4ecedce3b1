"""A field of three PostgreSQL systems per test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field

_numbers = itertools.count(1)


@pytest.fixture
def field(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    made = Field(postgres_server, tmp_path, f"field{next(_numbers)}")
    with made.standing():
        yield made
