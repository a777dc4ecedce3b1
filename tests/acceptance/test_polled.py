"""Goal: systems that are polled agree with one that has a log, whoever writes and whatever is killed.

Method: the field of the kills: a PostgreSQL that is captured by its log, a SQLite file and a PostgreSQL that are only
looked at, concurrent users on each, and the daemon as a process that gets SIGKILL at random moments. An edit that a
look has not found yet stands in the way of a delivery over and over; none may be overwritten, none written twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field
from tests.acceptance.test_kills import check_kills

FILE = """
plugin = "polling"
driver = "sqlite3"
dialect = "sqlite"
connect = { database = "%s" }
every = 0.2
without = ["commit times"]
"""
SERVER = """
plugin = "polling"
driver = "psycopg"
dialect = "postgres"
connect = { conninfo = "%s" }
every = 0.3
sweep_every = 1.0
without = ["commit times"]
tables."public.client" = { updated_at = "changed_at" }
"""


@pytest.fixture
def polled(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    made = Field(postgres_server, tmp_path, "polled", files=frozenset(("fsm",)))
    made.options = {"fsm": FILE % made.path("fsm"), "erp": SERVER % made.dsn("erp")}
    made.create()
    try:
        yield made
    finally:
        made.drop()


def test_eight_kills_lose_and_double_nothing_where_systems_are_polled(polled: Field) -> None:
    check_kills(polled, kills=8, seed=4713)
