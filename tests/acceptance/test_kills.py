"""Goal: whatever is killed when, nothing is lost, doubled or echoed, and every value that lost is on record.

Method: three systems, each with its own shape and concurrent users of its own, and the daemon as a process that gets
SIGKILL at random moments, over and over; on PostgreSQL, on SQLite files and on both. When the users have stopped and
the daemon has run to its end once: all systems agree, no account is there twice, and every value ever written is in the
ancestry of a final value or of a conflict. Users of files have a busy timeout and fail the test if they ever wait
longer. One of the files keeps SQLite's default journal, in which readers and the writer block each other; the others
have a write-ahead log.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field
from tests.acceptance.users import (
    User,
    check_every_value_accounted,
    check_no_doubles,
    collide,
    kill_repeatedly,
    writing,
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    """Three SQLite systems."""
    made = Field(None, tmp_path, "", files=frozenset(("crm", "fsm", "erp")))
    with made.standing():
        yield made


@pytest.fixture
def mixed(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    """The CRM on PostgreSQL, the others SQLite files."""
    made = Field(postgres_server, tmp_path, "mixed", files=frozenset(("fsm", "erp")))
    with made.standing():
        yield made


def check_kills(field: Field, *, kills: int, seed: int) -> None:
    ready = field.concord("setup")
    assert ready.returncode == 0, ready.stderr
    users = [User(field, system, n) for n, system in enumerate(field.systems)]
    with writing(users):
        kill_repeatedly(field, random.Random(seed), kills)
    assert [user.failure for user in users] == [None] * 3
    for _ in range(2):
        ended = field.concord("run", "--once", "--log-level", "warning")
        assert ended.returncode == 0, ended.stderr
        # However little the daemon got to do between the kills: now all have the same rows, and nobody hears of others.
        collide(users)
    ended = field.concord("run", "--once", "--log-level", "warning")
    assert ended.returncode == 0, ended.stderr
    compared = field.concord("compare", "--json")
    assert compared.returncode == 0, compared.stdout[:3000]
    journal = json.loads(field.concord("status", "--json").stdout)["journal"]
    assert journal > 50 * len(users), "the daemon never got to work between the kills"
    check_no_doubles(field, users)
    check_every_value_accounted(field, users)


def test_thirty_kills_lose_and_double_nothing(field: Field) -> None:
    check_kills(field, kills=30, seed=4711)


def test_twelve_kills_lose_and_double_nothing_among_files(files: Field) -> None:
    check_kills(files, kills=12, seed=4711)


def test_six_kills_lose_and_double_nothing_between_files_and_a_server(mixed: Field) -> None:
    check_kills(mixed, kills=6, seed=4712)
