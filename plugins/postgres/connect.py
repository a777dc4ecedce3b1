"""Connections for everything but capture: opened for one purpose, closed after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import anyio
import psycopg
from psycopg.abc import PQGen

from engine.plugin import Site
from engine.ports import Role
from plugins.postgres.config import PostgresConfig, psycopg_parameters
from plugins.postgres.errors import translate

# Closing only sends a byte; when even that takes long, the socket is dead and the server will find out by itself.
CLOSE_SECONDS_MAX: Final = 5
# The server ends a statement by itself after statement_timeout. When it has not even said so by then, plus a network's
# worst, nobody is there.
ANSWER_SECONDS_EXTRA: Final = 15

T = TypeVar("T")


class BoundedConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection whose every answer comes in time, or it is closed and the driver's error for that is raised.

    libpq waits for ever on a connection that is open and silent, as one through a firewall that has forgotten it.
    """

    answer_seconds_max: float

    async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        with anyio.move_on_after(self.answer_seconds_max):
            return await super().wait(gen, *args, **kwargs)
        self.pgconn.finish()
        raise psycopg.OperationalError("no answer in time")


async def connect(config: PostgresConfig, parameters: dict[str, Any]) -> BoundedConnection:
    """An autocommit connection. Raises the driver's errors."""
    connection = await BoundedConnection.connect(**parameters, autocommit=True)
    connection.answer_seconds_max = config.statement_seconds_max + ANSWER_SECONDS_EXTRA
    return connection


@contextmanager
def translated(
    system: str,
    *,
    doing: str,
    table: str | None = None,
    role: Role = Role.SOURCE,
    again: str = "start the daemon again",
) -> Generator[None]:
    """Turn driver errors raised inside into Concord's."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise translate(error, system=system, table=table, role=role, doing=doing, again=again) from error


@asynccontextmanager
async def connected(
    site: Site, config: PostgresConfig, *, use: str
) -> AsyncGenerator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """An autocommit connection. Raises `SystemUnreachable` or `SourceUnready`; errors inside pass untranslated."""
    parameters = psycopg_parameters(site, config, use=use)
    with translated(site.name, doing="connect"):
        connection = await connect(config, parameters)
    try:
        yield connection
    finally:
        # Shielded, or a cancelled caller would leave the connection to the garbage collector.
        with anyio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
            await connection.close()
