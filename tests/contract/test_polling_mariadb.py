"""The contract of all plugins, on MariaDB that is polled by PyMySQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.plugin import Site
from engine.testing.contract import Kit
from engine.testing.contract.names import NamesContract
from engine.testing.contract.rights import RightsContract
from engine.testing.contract.snapshot import SnapshotContract
from engine.testing.contract.source import SourceContract
from engine.testing.contract.target import TargetContract
from engine.testing.contract.values import ValuesContract
from engine.testing.mariadb import MariadbServer
from plugins.polling import plugin
from plugins.polling.config import PollingConfig
from tests.contract.polled import PolledKit, WatchedUsers
from tests.contract.test_mariadb import Users
from tests.contract.typed import MARIADB

_names = itertools.count(1)


@pytest.fixture
def kit(mariadb_server: MariadbServer, tmp_path: Path) -> Iterator[Kit]:
    database = f"polled_{next(_names)}"
    mariadb_server.execute(f"create database {database} character set utf8mb4")
    made = PolledKit(
        plugin=plugin,
        site=Site(name="crm", directory=tmp_path, work_directory=tmp_path / "work"),
        config=PollingConfig(
            driver="pymysql",
            dialect="mysql",
            connect={
                "unix_socket": str(mariadb_server.socket_path),
                "user": "root",
                "database": database,
                "ssl_disabled": True,
            },
            every=0.01,
        ),
        users=WatchedUsers(Users(mariadb_server, database)),
        values=MARIADB,
        quote="`",
        assigned="integer primary key auto_increment",
    )
    mariadb_server.execute(f"create user {database}@localhost")
    # Without any right in the database nobody can connect to it.
    mariadb_server.execute(f"grant show view on {database}.* to {database}@localhost")
    made.poor = msgspec.structs.replace(made.config, connect={**made.config.connect, "user": database})
    try:
        yield made
    finally:
        made.users.close()
        mariadb_server.execute(f"drop database {database}")
        mariadb_server.execute(f"drop user {database}@localhost")


class TestSource(SourceContract):
    pass


class TestTarget(TargetContract):
    pass


class TestSnapshot(SnapshotContract):
    pass


class TestNames(NamesContract):
    pass


class TestRights(RightsContract):
    pass


class TestValues(ValuesContract):
    pass
