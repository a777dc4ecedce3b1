"""Goal: a system is connected to as its configuration says, and a wrong one is told before anything is connected."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError, SystemUnreachable
from engine.plugin import Site
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import connect_now
from tests.mysql_target.support import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"database": ""},
        {"server_id": 0},
        {"server_id": 2**32},
        {"tls": "maybe"},
        {"tls": "prefer", "tls_ca": "ca.pem"},
        {"tls": "require", "tls_key": "key.pem"},
        {"password": "secret"},
        {"lock_seconds_max": 0},
        {"charset": "latin1"},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"database": "crm", "user": "concord", **wrong}, MysqlConfig)


def test_a_tls_file_that_is_not_there_is_named_as_a_setting(tmp_path: Path) -> None:
    site = Site(name="crm", directory=tmp_path, work_directory=tmp_path)
    with pytest.raises(ConfigError, match="tls_ca"):
        connect_now(site, MysqlConfig(database="crm", user="concord", tls="verify-ca", tls_ca="missing.pem"))


def test_a_server_that_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    site = Site(name="crm", directory=tmp_path, work_directory=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = MysqlConfig(database="crm", user="concord", host="127.0.0.1", port=port, connect_seconds_max=1)
        begun = time.monotonic()
        with pytest.raises(SystemUnreachable):
            connect_now(site, config, has_time_limit=False)
    assert time.monotonic() - begun < 10


async def test_a_socket_file_is_connected_to(world: World) -> None:
    path = str(world.server.socket_path)
    connection = connect_now(world.site, MysqlConfig(database=world.database, user="root", unix_socket=path))
    assert connection.rows("select database()")[0][0] == world.database
    connection.close()


async def test_where_tls_is_required_nothing_is_sent_in_the_clear(world: World) -> None:
    """The test's server has no certificate."""
    config = MysqlConfig(database=world.database, user="root", host="127.0.0.1", port=world.server.port, tls="require")
    with pytest.raises(SystemUnreachable):
        connect_now(world.site, config)
