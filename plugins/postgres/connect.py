"""Connections for everything but capture: opened for one purpose, closed after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import anyio
import psycopg

from engine.plugin import Site
from engine.ports import Role
from plugins.postgres.config import PostgresConfig, psycopg_parameters
from plugins.postgres.errors import translate

# Closing only sends a byte; when even that takes long, the socket is dead and the server will find out by itself.
CLOSE_SECONDS_MAX: Final = 5


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
        connection = await psycopg.AsyncConnection.connect(**parameters, autocommit=True)
    try:
        yield connection
    finally:
        # Shielded, or a cancelled caller would leave the connection to the garbage collector.
        with anyio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
            await connection.close()
