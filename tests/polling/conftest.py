"""A polled database of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling.support import KINDS, Polled, polled


@pytest.fixture(params=KINDS)
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Polled]:
    with polled(request.param, tmp_path, request) as made:
        yield made


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Polled]:
    with polled("sqlite", tmp_path, request) as made:
        yield made


@pytest.fixture
def duck(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Polled]:
    with polled("duckdb", tmp_path, request) as made:
        yield made
