"""The replication connection: START_REPLICATION, the stream of messages, and the status we send back.

psycopg opens the connection; from then on this module speaks to libpq itself, because a walsender wants messages read
and answered in both directions at once (COPY BOTH). Nothing here understands pgoutput.

`Wire.messages` never waits: it gives what has arrived. The one place that waits is `Wire.wait`, which holds nothing,
so a cancelled reader has lost nothing.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import psycopg
from psycopg import pq

from engine.errors import ConcordError, MalformedLog, PositionLost, SystemUnreachable
from engine.plugin import Site
from plugins.postgres.catalog import quoted
from plugins.postgres.config import PostgresConfig, psycopg_parameters
from plugins.postgres.connect import CLOSE_SECONDS_MAX, BoundedConnection, connect, translated
from plugins.postgres.errors import translate
from plugins.postgres.position import EPOCH_MICROSECONDS, cure, format_lsn

_KEEPALIVE: Final = struct.Struct(">cQqB")
_STATUS: Final = struct.Struct(">cQQQqB")
# 'w', start of the data, current end of the log, the server's clock; then pgoutput's own bytes.
_HEADER_SIZE: Final = 25
_DATA: Final = ord("w")
# A status asks for an answer. None for so long, and the server is gone or the way to it is: a connection that is open
# and silent says nothing of either by itself. Five times wal_receiver_timeout, for a walsender that decodes a large
# transaction of which nothing is published answers late.
SILENCE_SECONDS_MAX: Final = 300.0


class Wire:
    """A running START_REPLICATION.

    `wal_end`: every transaction whose commit stands before it has been given out by `messages`. `confirmed`: the LSN
    that the next status reports as durable.
    """

    def __init__(self, pgconn: pq.abc.PGconn, *, system: str, slot: str, confirmed: int) -> None:
        self._pgconn = pgconn
        self._system = system
        self._slot = slot
        self.wal_end = confirmed
        self.confirmed = confirmed
        self.is_open = True
        self._sent = 0
        self._asked_at: float | None = None
        """When the first status went out that has had no answer, nor anything else after it."""
        self._ahead: bytes | None = None
        # TLS keeps up to a record of decrypted bytes where the socket does not show them: look twice before waiting.
        self._reads_dry_max = 2 if pgconn.ssl_in_use else 1

    def messages(self) -> Iterator[bytes]:
        """The pgoutput messages that have arrived; answers keep-alives on the way. Raises when the stream ends."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            yield ahead
        get = self._pgconn.get_copy_data
        reads_dry = 0
        try:
            while True:
                size, view = get(1)
                if size > 0:
                    reads_dry = 0
                    self._asked_at = None
                    if view[0] == _DATA:
                        yield view[_HEADER_SIZE:].tobytes()
                    else:
                        self._answer(view.tobytes())
                elif size == 0:
                    if reads_dry == self._reads_dry_max:
                        return
                    reads_dry += 1
                    self._pgconn.consume_input()
                else:
                    raise self._ended()
        except (psycopg.Error, OSError) as error:
            self.is_open = False
            raise translate(error, system=self._system, doing="read the log") from error

    def has_message(self) -> bool:
        """Whether `messages` has one to give now. Raises when the stream ends."""
        if self._ahead is None:
            self._ahead = next(self.messages(), None)
        return self._ahead is not None

    async def wait(self) -> None:
        """Return when bytes may have arrived, or a second has passed. Raises after a long silence."""
        if self._asked_at is not None and time.monotonic() - self._asked_at > SILENCE_SECONDS_MAX:
            self.is_open = False
            raise SystemUnreachable(
                f"system {self._system}: the server has been silent for {SILENCE_SECONDS_MAX:.0f} s",
                hint="Check that the server runs and can be reached; it is tried again.",
            )
        try:
            with anyio.move_on_after(1.0):
                await anyio.wait_readable(self._pgconn.socket)
        except (psycopg.Error, OSError, anyio.ClosedResourceError) as error:
            self.is_open = False
            raise SystemUnreachable(f"system {self._system}: the replication connection is closed") from error

    def send_status(self) -> None:
        """Tell the server what has been received and what is durable, and ask whether it is there. Does nothing once
        the stream is broken."""
        if not self.is_open:
            return
        now = int(time.time() * 1_000_000) - EPOCH_MICROSECONDS
        received = max(self.wal_end, self.confirmed)
        try:
            self._pgconn.put_copy_data(_STATUS.pack(b"r", received, self.confirmed, self.confirmed, now, 1))
            # 34 bytes; what the socket does not take now goes with the next read or status.
            self._pgconn.flush()
        except (psycopg.Error, OSError):
            # Whoever reads next meets the same broken connection and reports it.
            self.is_open = False
        self._sent = self.confirmed
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    @property
    def has_unsent(self) -> bool:
        """Whether the server does not know yet of all that is durable."""
        return self.confirmed > self._sent

    def _answer(self, message: bytes) -> None:
        try:
            kind, wal_end, _, wants_reply = _KEEPALIVE.unpack(message)
        except struct.error as error:
            raise MalformedLog(f"system {self._system}: a keep-alive of {len(message)} bytes") from error
        if kind != b"k":
            raise MalformedLog(f"system {self._system}: an unknown replication message of {len(message)} bytes")
        self.wal_end = max(self.wal_end, wal_end)
        if wants_reply:
            self.send_status()

    def _ended(self) -> ConcordError:
        self.is_open = False
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return SystemUnreachable(f"system {self._system}: the server ended the log's stream")
        error = _ServerError(result)
        if error.sqlstate == "42704":
            # Up to version 17. A walsender looks its publication up as of the change it has come to.
            return PositionLost(
                f"system {self._system}: the log behind our position is from when there was no publication"
                f" (sqlstate {error.sqlstate}): {error.message}",
                hint=cure(self._system, self._slot),
                sqlstate=error.sqlstate,
            )
        return _refused(error, self._system, self._slot, "read the log")


@asynccontextmanager
async def replication_connection(site: Site, config: PostgresConfig) -> AsyncGenerator[BoundedConnection]:
    """A connection that understands replication commands, and SQL until START_REPLICATION."""
    parameters: dict[str, Any] = psycopg_parameters(site, config, use="feed")
    # A stream is one statement that never ends.
    parameters["options"] += " -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0"
    parameters["replication"] = "database"
    with translated(site.name, doing="connect for replication"):
        connection = await connect(config, parameters)
    try:
        yield connection
    finally:
        with anyio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
            await connection.close()


async def start_replication(
    connection: BoundedConnection, *, system: str, slot: str, publication: str, lsn: int
) -> Wire:
    """Begin to stream the transactions whose commit records start at or behind `lsn`."""
    names = quoted(publication).replace("'", "''")
    command = (
        f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {format_lsn(lsn)}"
        f" (proto_version '2', streaming 'on', publication_names '{names}')"
    )
    pgconn = connection.pgconn
    with translated(system, doing="start replication"):
        pgconn.send_query(command.encode())
        with anyio.fail_after(connection.answer_seconds_max):
            while pgconn.flush():
                await anyio.wait_writable(pgconn.socket)
            while pgconn.is_busy():
                await anyio.wait_readable(pgconn.socket)
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            # The end of the command must be read too before the connection takes another.
            while pgconn.get_result() is not None:
                pass
    if result is None or result.status != pq.ExecStatus.COPY_BOTH:
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            raise SystemUnreachable(f"system {system}: the server did not start replication")
        raise _refused(_ServerError(result), system, slot, f"start replication from slot {slot}")
    return Wire(pgconn, system=system, slot=slot, confirmed=lsn)


def _refused(error: _ServerError, system: str, slot: str, doing: str) -> ConcordError:
    if error.sqlstate in ("55000", "58P01"):
        return PositionLost(
            f"system {system}: the server no longer holds the log behind our position (sqlstate {error.sqlstate}):"
            f" {error.message}",
            hint=cure(system, slot),
            sqlstate=error.sqlstate,
        )
    return translate(error, system=system, doing=doing)


class _ServerError(Exception):
    """What a result of libpq says, in the form that `translate` looks at."""

    def __init__(self, result: pq.abc.PGresult) -> None:
        def said(field: pq.DiagnosticField) -> str:
            return (result.error_field(field) or b"").decode(errors="replace")

        self.sqlstate = said(pq.DiagnosticField.SQLSTATE)
        self.message = said(pq.DiagnosticField.MESSAGE_PRIMARY)
        # An output plugin's context says where in the log it stood, and no function raises there.
        self.context = ""
        super().__init__(self.sqlstate)
