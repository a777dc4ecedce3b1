"""Connections to a MariaDB or MySQL server: opened here, used in worker threads, one thread at a time.

The driver blocks, so nothing of it runs on the event loop. A cancelled call cuts the socket: the thread ends at once,
and the server rolls back what was open as soon as it notices.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import anyio
import anyio.to_thread
import pymysql
from pymysql.constants import CLIENT

from engine.plugin import Site
from engine.ports import Role
from plugins.mysql.config import MysqlConfig, connection_parameters
from plugins.mysql.errors import DATABASE_DENIED, database_denied, number, translate

T = TypeVar("T")
Row = tuple[Any, ...]

# Strict, so that a value which does not fit is an error and not another value. Without NO_ZERO_DATE: rows that have
# such dates are read and written as they are. A key of 0 is a key, and does not ask for the next one.
SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ERROR_FOR_DIVISION_BY_ZERO"
CLOSE_SECONDS_MAX: Final = 5
# A statement's own limit ends it with an error that says so; the socket's ends a server that is silent altogether.
GRACE_SECONDS: Final = 15


class Cursor(Protocol):
    """The part of `pymysql.cursors.Cursor` that the plugin uses; the driver has no types of its own."""

    @property
    def rowcount(self) -> int: ...
    @property
    def lastrowid(self) -> int: ...
    @property
    def warning_count(self) -> int: ...
    def execute(self, query: bytes) -> int: ...
    def fetchall(self) -> Sequence[Row]: ...
    def nextset(self) -> bool | None: ...
    def close(self) -> None: ...


class Driver(Protocol):
    """The part of `pymysql.Connection` that the plugin uses."""

    @property
    def server_version(self) -> str: ...
    def connect(self, sock: socket.socket) -> None: ...
    def cursor(self) -> Cursor: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement gave. `count`: rows read, or rows that the statement found, changed or not. `assigned`: the
    first auto_increment value it made, else 0. `warnings`: how many the server has of it."""

    rows: Sequence[Row]
    count: int
    assigned: int
    warnings: int


class Connection:
    """One connection, for one thread at a time. Texts come as str, blobs as bytes, all else as the server spells it."""

    def __init__(self, driver: Driver, handle: socket.socket, system: str) -> None:
        self.system = system
        self._driver = driver
        # A second name for the same socket: the driver's own is another one once it is encrypted.
        self._handle = handle

    @property
    def server_version(self) -> str:
        return self._driver.server_version

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self._driver.server_version.lower()

    @property
    def version(self) -> tuple[int, int]:
        """The server's release. MariaDB puts another one before it, for replicas that would take it for too old."""
        text = self._driver.server_version
        found = re.match(r"(\d+)\.(\d+)", text.removeprefix("5.5.5-") if self.is_mariadb else text)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def execute(self, sql: str) -> Result:
        """Run one statement. Raises the driver's errors, and UnicodeEncodeError for a text that is no Unicode."""
        return next(iter(self.script((sql,))))

    def rows(self, sql: str) -> Sequence[Row]:
        return self.execute(sql).rows

    def script(self, statements: Iterable[str]) -> Iterator[Result]:
        """Send statements in one go and give their results one by one; the server stops at the first that fails, which
        is raised in its turn. Read to the end: what is left unread is thrown away with the rest."""
        cursor = self._driver.cursor()
        try:
            # Encoded here: the driver lets lone surrogates through as bytes that are no UTF-8.
            cursor.execute(";".join(statements).encode())
            while True:
                rows = cursor.fetchall()
                yield Result(rows, cursor.rowcount, int(cursor.lastrowid or 0), cursor.warning_count)
                if not cursor.nextset():
                    return
        finally:
            with contextlib.suppress(pymysql.Error):
                cursor.close()

    def literal(self, text: str) -> str:
        """A text for SQL. Correct under our sql_mode only, which leaves the backslash its meaning."""
        return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

    def cut(self) -> None:
        """End the connection from another thread, whatever it is doing."""
        with contextlib.suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(pymysql.Error, OSError):
            self._driver.close()
        self._handle.close()


class Session:
    """One connection and the queue before it."""

    def __init__(self, connection: Connection, role: Role) -> None:
        self.connection = connection
        self.system = connection.system
        self.is_cut = False
        self._role = role
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[Connection], T], table: str = "") -> T:
        """Run `work` in a thread. Cancelled, it cuts the connection, which is of no use from then on."""
        try:
            return await anyio.to_thread.run_sync(self._now, work, table, limiter=self._limiter, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            self.cut()
            raise

    def cut(self) -> None:
        self.is_cut = True
        self.connection.cut()

    def _now(self, work: Callable[[Connection], T], table: str) -> T:
        try:
            return work(self.connection)
        except (pymysql.Error, OSError) as error:
            raise translate(error, system=self.system, table=table, role=self._role) from error

    async def close(self) -> None:
        """Close it, when its thread has ended; without a word to a server that does not answer."""
        with anyio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
            await anyio.to_thread.run_sync(self.connection.close, limiter=self._limiter, abandon_on_cancel=True)


def connect_now(
    site: Site, config: MysqlConfig, *, isolation: str = "repeatable read", has_time_limit: bool = True
) -> Connection:
    """Connect, with autocommit on. Blocks. `has_time_limit`: whether statements and answers must come in time, which a
    feed's need not. Raises `SystemUnreachable`, `SourceUnready`, `ConfigError`."""
    try:
        return _open(site, config, isolation, has_time_limit)
    except (pymysql.Error, OSError) as error:
        if number(error) == DATABASE_DENIED:
            raise database_denied(error, site.name, config.database) from error
        raise translate(error, system=site.name, doing="connect") from error


def answer_seconds_max(config: MysqlConfig) -> int:
    """How long a server may take to answer a statement before nobody is taken to be there."""
    return config.statement_seconds_max + GRACE_SECONDS


def _open(site: Site, config: MysqlConfig, isolation: str, has_time_limit: bool) -> Connection:
    silence = answer_seconds_max(config)
    parameters: dict[str, Any] = {
        **connection_parameters(site, config),
        "host": config.host,
        "port": config.port,
        "unix_socket": config.unix_socket,
        "database": config.database,
        "charset": "utf8mb4",
        "sql_mode": SQL_MODE,
        "autocommit": True,
        "client_flag": CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
        # No converters: every value comes as the server spells it.
        "conv": {},
        "program_name": f"concord {site.name}",
        "read_timeout": silence if has_time_limit else None,
        "write_timeout": silence,
        "defer_connect": True,
    }
    driver = cast("Driver", pymysql.Connection(**parameters))
    sock = _socket(site, config)
    handle = sock.dup()
    connection = Connection(driver, handle, site.name)
    # The driver's own limit for the handshake is that of any answer, which a feed has none of.
    limit = threading.Timer(config.connect_seconds_max, connection.cut)
    limit.daemon = True
    limit.start()
    try:
        driver.connect(sock)
        connection.execute(_settings(connection, config, isolation, has_time_limit))
    except BaseException:
        connection.close()
        sock.close()
        raise
    finally:
        limit.cancel()
    return connection


def _socket(site: Site, config: MysqlConfig) -> socket.socket:
    """A socket of our own making, to be able to end it from another thread."""
    if config.unix_socket is None:
        sock = socket.create_connection((config.host, config.port), config.connect_seconds_max)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(config.connect_seconds_max)
    try:
        sock.connect(str(site.directory / config.unix_socket))
    except BaseException:
        sock.close()
        raise
    return sock


def _settings(connection: Connection, config: MysqlConfig, isolation: str, has_time_limit: bool) -> str:
    settings = {
        "time_zone": "'+00:00'",
        "foreign_key_checks": "1",
        "unique_checks": "1",
        "sql_safe_updates": "0",
        "sql_auto_is_null": "0",
        "innodb_lock_wait_timeout": str(config.lock_seconds_max),
        "lock_wait_timeout": str(config.lock_seconds_max),
        "tx_isolation" if connection.is_mariadb else "transaction_isolation": f"'{isolation.replace(' ', '-')}'",
    }
    if has_time_limit and connection.is_mariadb:
        settings["max_statement_time"] = str(config.statement_seconds_max)
    elif has_time_limit:
        # MySQL has a limit for reading statements only, in milliseconds.
        settings["max_execution_time"] = str(config.statement_seconds_max * 1000)
    return "set " + ", ".join(f"session {name} = {value}" for name, value in settings.items())


@asynccontextmanager
async def session(
    site: Site,
    config: MysqlConfig,
    *,
    role: Role = Role.SOURCE,
    isolation: str = "repeatable read",
    has_time_limit: bool = True,
) -> AsyncGenerator[Session]:
    """A connection for as long as the block lasts. `role`: as what the system is met, for the words of errors."""

    def connect() -> Connection:
        return connect_now(site, config, isolation=isolation, has_time_limit=has_time_limit)

    # Not abandoned when cancelled: a connection that nobody has would stay open. The time limits bound the wait.
    opened = Session(await anyio.to_thread.run_sync(connect), role)
    try:
        yield opened
    finally:
        await opened.close()


def quoted(name: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def column_list(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
