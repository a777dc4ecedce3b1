"""Delivery's connection: its settings, a bound on every answer, and how it is given back.

It knows nothing of markers and writes. A link belongs to one task.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import anyio
import asyncpg

from engine.plugin import Site
from engine.ports import Role
from plugins.postgres.apply_refusals import DRIVER_ERRORS
from plugins.postgres.apply_tables import TargetTable, read_tables
from plugins.postgres.apply_text import PIECE_BYTES, Pieces
from plugins.postgres.config import PostgresConfig, asyncpg_parameters
from plugins.postgres.errors import translate

# The server ends a statement by itself after statement_timeout. When it has not even said so by then, plus a network's
# worst, nobody is there.
ANSWER_SECONDS_EXTRA: Final = 15
ROLLBACK_SECONDS_MAX: Final = 5
# Of a farewell. asyncpg waits in vain for one where a statement was cancelled and the server was the first to close,
# and whoever stops the daemon waits for it.
CLOSE_SECONDS_MAX: Final = 1
# A daemon that froze inside a delivery holds the marker's row, and its successor cannot claim. Between two statements
# of a delivery the engine only reads its hub, which takes no minute.
IDLE_SECONDS_MAX: Final = 60
# A cached plan is from the time when the statement was first run, perhaps on an empty table; for an update by key that
# may be a scan of what is now a large one. The server itself notices when autovacuum comes by, about once a minute.
PLAN_SECONDS_MAX: Final = 60


class Connection(Protocol):
    """The part of `asyncpg.Connection` that delivery uses; asyncpg itself has no complete annotations."""

    async def execute(self, query: str) -> str: ...
    async def fetch(self, query: str, *args: object) -> list[Any]: ...
    async def fetchmany(self, query: str, args: Sequence[Sequence[object]]) -> list[Any]: ...
    async def copy_to_table(
        self, table_name: str, *, source: object, schema_name: str, columns: Sequence[str], format: str
    ) -> str: ...
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109
    def terminate(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Link:
    """An open connection and what is known of the tables behind it.

    Its methods raise `apply_refusals.DRIVER_ERRORS` untranslated; `TimeoutError`, one of them, when there is no answer.
    """

    system: str
    connection: Connection
    answer_seconds_max: float
    tables: dict[str, TargetTable | None] = field(default_factory=lambda: {})
    rows_inserted: dict[str, int] = field(default_factory=lambda: {})
    may_stage: bool = True

    async def execute(self, text: str) -> str:
        """Run statements without parameters in one round trip; returns the last one's tag."""
        with anyio.fail_after(self.answer_seconds_max):
            return await self.connection.execute(text)

    async def fetch(self, text: str, *parameters: object) -> list[Any]:
        with anyio.fail_after(self.answer_seconds_max):
            return await self.connection.fetch(text, *parameters)

    async def fetch_by_key(self, table: TargetTable, text: str, parameters: Sequence[object]) -> list[Any]:
        """As `fetch`, for a statement that looks rows of the table up: under a plan made for about its size.

        What we inserted since may have made another table of it. Each doubling gives the statement a new text, so it
        is prepared and planned again.
        """
        doublings = self.rows_inserted.get(table.name, 0).bit_length()
        return await self.fetch(f"{text} /* {doublings} */", *parameters)

    async def fetch_each(self, text: str, rows: Sequence[Sequence[object]]) -> list[Any]:
        """Run the statement once per row, all in one go; the answers are in the rows' order."""
        with anyio.fail_after(self.answer_seconds_max):
            return await self.connection.fetchmany(text, rows)

    async def copy_in(self, schema: str, relation: str, columns: Sequence[str], content: bytes) -> None:
        # A memoryview even of a short text: asyncpg takes bytes for the name of a file.
        source = memoryview(content) if len(content) <= PIECE_BYTES else Pieces(content)
        with anyio.fail_after(self.answer_seconds_max):
            await self.connection.copy_to_table(
                relation, source=source, schema_name=schema, columns=columns, format="text"
            )

    async def roll_back(self) -> None:
        """End the transaction, even when cancelled; a connection that cannot is given up, which ends it too."""
        # Shielded: anyio would cancel it at once. Bounded: the server may be gone. asyncpg first waits until a
        # cancelled statement has ended, so no task of its own is left behind.
        with anyio.move_on_after(ROLLBACK_SECONDS_MAX, shield=True):
            try:
                await self.connection.execute("rollback")
            except DRIVER_ERRORS:
                self.connection.terminate()
            return
        self.connection.terminate()

    async def read_tables(self, names: Sequence[str]) -> dict[str, TargetTable | None]:
        return await read_tables(self.fetch, names)


# Its own annotations are missing; see `Connection`.
_connect = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


@asynccontextmanager
async def linked(site: Site, config: PostgresConfig) -> AsyncGenerator[Link]:
    """A link for one session. Raises `SystemUnreachable`, `TargetUnready` or `ConfigError`."""
    parameters = asyncpg_parameters(site, config, use="deliver")
    parameters["server_settings"] = {**parameters["server_settings"], **_settings(config)}
    try:
        opened = await _connect(**parameters, max_cached_statement_lifetime=PLAN_SECONDS_MAX)
    except DRIVER_ERRORS as error:
        raise translate(error, system=site.name, role=Role.TARGET, doing="connect") from error
    try:
        yield Link(
            system=site.name,
            connection=opened,
            answer_seconds_max=config.statement_seconds_max + ANSWER_SECONDS_EXTRA,
        )
    finally:
        with anyio.move_on_after(CLOSE_SECONDS_MAX + 1, shield=True):
            try:
                await opened.close(timeout=CLOSE_SECONDS_MAX)
            except DRIVER_ERRORS:
                opened.terminate()


def _settings(config: PostgresConfig) -> dict[str, str]:
    """What delivery adds to `config.SESSION_SETTINGS`.

    session_replication_role is not among them: the users' triggers and foreign keys hold for our writes as for theirs.
    """
    return {
        "statement_timeout": f"{config.statement_seconds_max}s",
        "lock_timeout": f"{config.lock_seconds_max}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS_MAX}s",
        # `begin` writes the hub's id as a literal.
        "standard_conforming_strings": "on",
        # Compiling takes longer than any of our statements.
        "jit": "off",
    }
