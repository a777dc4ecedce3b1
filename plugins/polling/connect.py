"""Connections by any PEP 249 driver: each lives in a thread of its own, because drivers block, and some insist on it.

Every connection commits by itself (autocommit); transactions are begun and ended by statements, so that it is we who
say what they see.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import apsw

from engine.errors import ConcordError, ConfigError, RowRefused, SourceUnready, SystemUnreachable
from engine.plugin import Site
from plugins.polling.config import PollingConfig, arguments
from plugins.polling.dialects import Habits
from plugins.polling.errors import kind_of, translate, unreachable
from plugins.polling.sql import Sql, knows

T = TypeVar("T")
Row = tuple[Any, ...]
STYLES = ("qmark", "numeric", "named", "format", "pyformat")


class Connection:
    """One connection, used in its thread only. `sql` writes its statements. Raises the driver's errors."""

    def __init__(
        self, raw: Any, sql: Sql, system: str, config: PollingConfig, failures: tuple[type[BaseException], ...]
    ) -> None:
        self.raw = raw
        # One for all statements: DuckDB's cursors are connections, with transactions of their own.
        self._cursor = raw.cursor()
        self.sql = sql
        self.system = system
        self.config = config
        self.failures = failures
        """What a driver raises: its own errors, and those of the network that it lets through."""
        self.is_open = False
        """Whether a transaction is."""
        self.is_writing = False
        """Whether what the database refuses is a row of a delivery."""

    @property
    def habits(self) -> Habits:
        return self.sql.habits

    def execute(self, statement: Any, values: Sequence[Any] = ()) -> None:
        self._run(statement, values)

    def rows(self, statement: Any, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query: callers ask for pages."""
        self._run(statement, values)
        return [tuple(row) for row in self._cursor.fetchall()]

    def named_rows(self, statement: Any, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows by column name in lower case, as the catalogues of databases differ in that."""
        self._run(statement, values)
        names = [str(column[0]).lower() for column in self._cursor.description]
        return [dict(zip(names, row, strict=True)) for row in self._cursor.fetchall()]

    def columns(self, statement: Any) -> tuple[str, ...]:
        """The names of a query's columns."""
        self._run(statement, ())
        found = tuple(str(column[0]) for column in self._cursor.description)
        self._cursor.fetchall()
        return found

    def execute_each(self, statement: Any, rows: Sequence[Sequence[Any]]) -> None:
        self._cursor.executemany(self.sql.text(statement), [self.sql.bound(values) for values in rows])

    def insert_one(self, statement: Any, values: Sequence[Any], *, returns: bool) -> Any:
        """Insert a row and learn the key that the database gave it."""
        self._run(statement, values)
        return self._cursor.fetchall()[0][0] if returns else self._cursor.lastrowid

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """All reads of the block see one moment of the database."""
        self.begin(self.config.snapshot or self.habits.snapshot)
        try:
            yield
        finally:
            self.roll_back()

    def begin(self, statements: Sequence[str]) -> None:
        self.is_open = True
        for statement in statements:
            self.execute(statement)

    def commit(self) -> None:
        self.execute("commit")
        self.is_open = False

    def roll_back(self) -> None:
        """End the transaction, if there is one. A connection that is gone has ended it."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(Exception):
                self.execute("rollback")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._cursor.close()
        with contextlib.suppress(Exception):
            self.raw.close()

    def _run(self, statement: Any, values: Sequence[Any]) -> None:
        text = self.sql.text(statement)
        # Without parameters drivers of the styles format and pyformat take the text as it is.
        if values:
            self._cursor.execute(text, self.sql.bound(values))
        else:
            self._cursor.execute(text.replace("%%", "%") if self.sql.paramstyle in ("format", "pyformat") else text)


class Session:
    """One connection and the thread that it lives in."""

    def __init__(self, connection: Connection, executor: ThreadPoolExecutor) -> None:
        self.connection = connection
        self._executor = executor

    async def run(self, work: Callable[[Connection], T], table: str = "") -> T:
        """Run `work` in the thread; not interrupted by cancellation, so nothing is left half done by it."""
        return await _in_thread(self._executor, lambda: guarded(work, self.connection, table))


def guarded(work: Callable[[Connection], T], connection: Connection, table: str = "") -> T:
    """`work` with the driver's errors as ours."""
    try:
        return work(connection)
    except apsw.ConstraintError:
        # Ours to mend.
        raise
    except apsw.Error as error:
        raise SystemUnreachable(
            f"system {connection.system}: what is known of its rows cannot be kept ({type(error).__name__})",
            hint="Look at the space and the permissions of the folder of concord.toml.",
            system=connection.system,
        ) from error
    except connection.failures as error:
        raise own_error(error, connection, table) from error


def own_error(error: BaseException, connection: Connection, table: str = "") -> ConcordError:
    """`translate`, where there is no row that could be refused."""
    found = translate(error, system=connection.system, table=table)
    if not isinstance(found, RowRefused) or connection.is_writing:
        return found
    if kind_of(error) == "permission":
        # There is no row: it was read, or set up.
        message = (
            f"system {connection.system}" + (f", table {table}" if table else "") + ": our user has no right to it"
        )
        return SourceUnready(message, hint=f"Grant what `concord check {connection.system}` names.", **found.context)
    return SourceUnready(found.message, hint="Bring back what is missing, or correct the mapping.", **found.context)


def connect_now(site: Site, config: PollingConfig) -> Connection:
    """Raises `ConfigError` for a driver or dialect that there is not, `SystemUnreachable`."""
    sql = statements_of(site, config)
    module: Any = importlib.import_module(config.driver)
    given = arguments(site, config)
    failures = (module.Error, OSError, EOFError)
    try:
        raw: Any = module.connect(**given)
    except TypeError as error:
        raise ConfigError(
            f"system {site.name}: {config.driver} does not take these arguments: {', '.join(given)}",
            hint="Correct `connect`; the driver's manual has the names.",
        ) from error
    except failures as error:
        raise unreachable(error, site.name) from error
    connection = Connection(raw, sql, site.name, config, failures)
    try:
        _commit_by_itself(raw)
        for statement in (*sql.habits.session, *config.session):
            connection.execute(statement)
    except failures as error:
        connection.close()
        raise unreachable(error, site.name) from error
    return connection


def statements_of(site: Site, config: PollingConfig) -> Sql:
    """Raises `ConfigError` for a driver or dialect that cannot be used."""
    where = f"system {site.name}"
    if not knows(config.dialect):
        raise ConfigError(f"{where}: sqlglot has no dialect {config.dialect!r}", hint="Correct `dialect`.")
    try:
        module: Any = importlib.import_module(config.driver)
    except ImportError as error:
        raise ConfigError(
            f"{where}: there is no driver {config.driver}", hint=f"Install the package that has {config.driver}."
        ) from error
    style = getattr(module, "paramstyle", None)
    if not callable(getattr(module, "connect", None)) or style not in STYLES or not hasattr(module, "Error"):
        raise ConfigError(
            f"{where}: {config.driver} is no PEP 249 driver: it has no connect, or no paramstyle",
            hint="Name the module that has both.",
        )
    sql = Sql(config.dialect, str(style))
    if not (config.snapshot or sql.habits.snapshot):
        raise ConfigError(
            f"{where}: how {config.dialect} begins a transaction whose reads show one moment is not known here",
            hint='Say it, as in snapshot = ["set transaction isolation level snapshot", "begin transaction"].',
        )
    return sql


def _commit_by_itself(raw: Any) -> None:
    if hasattr(raw, "isolation_level") and type(raw).__module__.startswith("sqlite3"):
        raw.isolation_level = None
    elif callable(getattr(raw, "autocommit", None)):
        raw.autocommit(True)
    elif hasattr(raw, "autocommit"):
        raw.autocommit = True
    # DuckDB has neither, and commits by itself until told otherwise.


@asynccontextmanager
async def session(site: Site, config: PollingConfig) -> AsyncGenerator[Session]:
    """A connection for as long as the block lasts."""
    with ThreadPoolExecutor(1, thread_name_prefix=f"polling {site.name}") as executor:
        connection = await _in_thread(executor, lambda: connect_now(site, config))
        try:
            yield Session(connection, executor)
        finally:
            with anyio.CancelScope(shield=True):
                await _in_thread(executor, connection.close)


async def _in_thread(executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    found: list[T] = []
    with anyio.CancelScope(shield=True):
        found.append(await future)
    return found[0]
