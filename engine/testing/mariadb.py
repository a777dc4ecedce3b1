"""A private MariaDB server for tests, from the binaries that the machine has.

It logs rows with full metadata, checks privileges as any server does, and is as fast as one can be that nobody needs
after a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymysql

from engine.testing.postgres import free_port

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
OPTIONS = {
    "bind-address": "127.0.0.1",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "binlog-row-metadata": "FULL",
    "server-id": "1",
    "character-set-server": "utf8mb4",
    "skip-name-resolve": "1",
    # A server nobody else uses, on a disk nobody keeps: durability is tested by killing the daemon, not the server.
    "innodb-flush-log-at-trx-commit": "0",
    "sync-binlog": "0",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "innodb-doublewrite": "0",
    "innodb-flush-method": "nosync",
    "debug-no-sync": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MariadbServer:
    """A running server. `process` is ours to end. User root may do everything, from this machine and without a
    password."""

    port: int
    socket_path: Path
    directory: Path
    process: subprocess.Popen[bytes]

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run statements as root, each committed by itself; the rows of the last one."""
        connection = pymysql.Connection(
            ssl_disabled=True,
            unix_socket=str(self.socket_path),
            user="root",
            database=database,
            charset="utf8mb4",
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()]

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")


def mariadb_binaries() -> tuple[str, str] | None:
    """The server and the program that makes a data directory; None where one of them is not installed.
    CONCORD_TEST_MARIADB_BIN names a folder to look in first."""
    path = os.pathsep.join(
        part for part in (os.environ.get("CONCORD_TEST_MARIADB_BIN"), os.environ.get("PATH"), "/usr/sbin") if part
    )
    server = shutil.which("mariadbd", path=path)
    install = shutil.which("mariadb-install-db", path=path)
    return (server, install) if server and install else None


@contextmanager
def start_mariadb(
    directory: Path, options: Mapping[str, str] | None = None, *, port: int | None = None
) -> Generator[MariadbServer]:
    """Make a data directory in `directory` unless there is one, run a server on it, stop it on leaving. `port`: that of
    an earlier life, so that its clients find it again."""
    binaries = mariadb_binaries()
    if binaries is None:
        raise RuntimeError("mariadbd and mariadb-install-db are not installed")
    server, install = binaries
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    # The server refuses to run as root unless it is told to.
    user = ["--user=root"] if os.geteuid() == 0 else []
    if not (data / "mysql").exists():
        command = [install, "--no-defaults", *user, f"--datadir={data}", "--auth-root-authentication-method=normal"]
        made = subprocess.run([*command, "--skip-test-db", "--skip-name-resolve"], capture_output=True, cwd=directory)
        if made.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {made.stdout.decode(errors='replace')[-2000:]}")
    port = port or free_port()
    # A path of more than 107 bytes is none for a socket, and those of temporary folders are long.
    with tempfile.TemporaryDirectory(prefix="concord-") as short:
        socket_path = Path(short) / "socket"
        # A server that starts empties its folder for temporary tables, and must not have that of another one.
        temporary = directory / "tmp"
        temporary.mkdir(exist_ok=True)
        places = {"socket": str(socket_path), "datadir": str(data), "tmpdir": str(temporary)}
        chosen = {**OPTIONS, **(options or {}), "port": str(port), **places}
        arguments = [f"--{name}={value}" for name, value in chosen.items()]
        with (directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [server, "--no-defaults", *user, *arguments], stdout=log, stderr=log, cwd=directory
            )
        running = MariadbServer(port=port, socket_path=socket_path, directory=directory, process=process)
        try:
            _wait_until_ready(running)
            yield running
            if process.poll() is not None:
                raise RuntimeError(f"MariaDB has ended by itself: {running.log()[-4000:]}")
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: MariadbServer) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        # Not by the driver: it leaves a socket open that could not connect.
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.connect(("127.0.0.1", server.port))
            break
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"MariaDB did not start: {server.log()[-2000:]}")
        time.sleep(0.05)
    server.execute("select 1")
