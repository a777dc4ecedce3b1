"""Where the three databases live: files in the folder, or databases of a PostgreSQL server that runs from the folder.

And how one of them becomes unusable for a while without the others noticing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.demo.database import SYSTEMS, Business
from engine.errors import ConcordError

if TYPE_CHECKING:
    from engine.testing.postgres import PostgresServer

SERVER = "postgres"
_PORT = re.compile(r"port=\d+")


@contextmanager
def files(directory: Path) -> Generator[dict[str, Business]]:
    """A SQLite file for each system."""
    yield {
        system: Business(system=system, kind="sqlite", address=str(directory.resolve() / f"{system}.sqlite"))
        for system in SYSTEMS
    }


@contextmanager
def server(directory: Path) -> Generator[dict[str, Business]]:
    """A PostgreSQL server with a database for each system, while the block lasts. Its files stay in the folder."""
    import psycopg

    with running_server(directory) as started:
        with psycopg.connect(started.dsn("postgres"), autocommit=True) as admin:
            for system in SYSTEMS:
                admin.execute(f"create database {system}".encode())
        yield {system: Business(system=system, kind="postgres", address=started.dsn(system)) for system in SYSTEMS}


@contextmanager
def running_server(directory: Path) -> Generator[PostgresServer]:
    """The folder's server. Raises `ConcordError` when PostgreSQL cannot be started here."""
    from engine.testing.postgres import start_postgres

    started = start_postgres(directory.resolve() / SERVER)
    try:
        made = started.__enter__()
    except (RuntimeError, OSError) as error:
        raise ConcordError(
            f"PostgreSQL cannot be started in {directory / SERVER}",
            hint="Read server.log there, or run the demo without --postgres.",
        ) from error
    try:
        yield made
    finally:
        started.__exit__(None, None, None)


def server_owner(directory: Path) -> int | None:
    """The process of a server that runs from the folder."""
    try:
        first, _, _ = (directory / SERVER / "data" / "postmaster.pid").read_text().partition("\n")
        os.kill(int(first), 0)
    except (OSError, ValueError):
        return None
    return int(first)


def move_port(configuration: Path, port: int) -> None:
    """A server that is started again listens somewhere else; only the port is touched."""
    configuration.write_text(_PORT.sub(f"port={port}", configuration.read_text()))


@contextmanager
def outage(business: Business) -> Generator[None]:
    """Make a system unusable: a file is locked by another program, a database lets nobody in."""
    if business.kind == "sqlite":
        with business.connect() as connection:
            connection.execute("begin immediate")
            try:
                yield
            finally:
                connection.execute("rollback")
        return
    import psycopg

    with psycopg.connect(business.address, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"alter database {business.system} with allow_connections false".encode())
        try:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (business.system,)
            )
            yield
        finally:
            admin.execute(f"alter database {business.system} with allow_connections true".encode())
