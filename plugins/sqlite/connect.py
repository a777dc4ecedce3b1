"""Connections to a SQLite database: opened here, used in worker threads, one thread at a time.

SQLite blocks; a statement may wait for another writer as long as the busy timeout allows, so nothing of it runs on the
event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar, cast

import anyio
import anyio.to_thread
import apsw

from engine.errors import SystemUnreachable
from engine.plugin import Site
from plugins.sqlite.config import SqliteConfig, database_path
from plugins.sqlite.errors import translate

T = TypeVar("T")
Row = tuple[Any, ...]


class Rows(Protocol):
    def __iter__(self) -> Iterator[Row]: ...
    def __next__(self) -> Row: ...
    def fetchone(self) -> Row | None: ...
    def close(self) -> None: ...


class Connection(Protocol):
    """The part of `apsw.Connection` that the plugin uses; apsw's own stubs do not work for Python 3.11."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: Sequence[Any] = ...) -> Rows: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[Sequence[Any]]) -> Rows: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def changes(self) -> int: ...
    def config(self, op: int, *args: int) -> int: ...
    def status(self, op: int, reset: bool = ...) -> tuple[int, int]: ...
    def close(self) -> None: ...


class Session:
    """One connection and the queue before it."""

    def __init__(self, connection: Connection, system: str) -> None:
        self.connection = connection
        self.system = system
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[Connection], T], table: str = "") -> T:
        """Run `work` in a thread; not interrupted by cancellation, so a transaction is never left half done by it."""
        return await anyio.to_thread.run_sync(self._now, work, table, limiter=self._limiter)

    def _now(self, work: Callable[[Connection], T], table: str) -> T:
        try:
            return work(self.connection)
        except apsw.Error as error:
            raise translate(error, system=self.system, table=table) from error


def connect_now(site: Site, config: SqliteConfig) -> Connection:
    """Open the file; it must be there. Raises `SystemUnreachable`."""
    path = database_path(site, config)
    if not path.exists():
        raise SystemUnreachable(
            f"system {site.name}: there is no file {path}",
            hint=f"Check path in [systems.{site.name}].",
            system=site.name,
        )
    try:
        connection = cast("Connection", apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE))
        connection.set_busy_timeout(int(config.busy_timeout_seconds * 1000))
        # Rows that we write are to satisfy what the schema declares, whether or not its applications switch it on.
        connection.execute("pragma foreign_keys = on")
        # What triggers of the owner do is to be what they do in its applications; apsw's SQLite has it switched on.
        connection.execute("pragma recursive_triggers = off")
    except apsw.Error as error:
        raise translate(error, system=site.name) from error
    return connection


@asynccontextmanager
async def session(site: Site, config: SqliteConfig) -> AsyncGenerator[Session]:
    """A connection for as long as the block lasts."""
    connection = await anyio.to_thread.run_sync(connect_now, site, config)
    try:
        yield Session(connection, site.name)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(connection.close)


@contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """Holds the write lock; commits, or rolls back when the block or the commit fails."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        roll_back(connection)
        raise


@contextmanager
def snapshot(connection: Connection) -> Generator[None]:
    """All reads of the block see one state of the database."""
    connection.execute("begin")
    try:
        yield
    finally:
        roll_back(connection)


def roll_back(connection: Connection) -> None:
    """SQLite has done so already after some errors (https://www.sqlite.org/lang_transaction.html, section 3)."""
    if connection.in_transaction:
        connection.execute("rollback")


def quoted(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'
