"""The dump connection: COM_BINLOG_DUMP, and the stream of events that follows.

The driver shakes hands and asks the first questions; from then on this module reads the socket itself, in large
pieces, for the driver would read each event with several calls. Nothing here understands events.

`Wire.events` never waits: it gives what has arrived. The one place that waits is `Wire.wait`, which holds nothing, so
a cancelled reader has lost nothing.
"""

from __future__ import annotations

import socket
import ssl
import struct
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final, cast

import anyio
import pymysql

from engine.errors import ConcordError, PositionLost, SystemUnreachable
from engine.plugin import Site
from plugins.mysql.config import SERVER_ID_MAX, MysqlConfig
from plugins.mysql.connect import Connection, Session, answer_seconds_max, session
from plugins.mysql.errors import translate
from plugins.mysql.position import Resume, format_gtids

READ_SIZE: Final = 1 << 18
HEARTBEAT_SECONDS: Final = 5
# Nothing at all for so long: the server or the way to it is gone.
SILENCE_SECONDS_MAX: Final = 60.0
# A server ends a dump whose reader takes nothing for this long. The engine may be busy with a batch, or wait for a
# target; the default of a minute is too little.
WRITE_SECONDS: Final = 3600

_COM_BINLOG_DUMP: Final = 0x12
_PAYLOAD_MAX: Final = 0xFFFFFF
_FATAL_ERROR_READING: Final = 1236
_SAME_ID: Final = 4052


class Wire:
    """A running dump."""

    def __init__(self, sock: socket.socket, system: str) -> None:
        self._socket = sock
        self._system = system
        self._buffer = b""
        self._at = 0
        # What has arrived of a packet that is not complete; joined once it is.
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._needed = 4
        self._long: list[bytes] = []
        self._ahead: bytes | None = None
        self._heard_at = monotonic()

    def events(self) -> Iterator[bytes]:
        """The events that have arrived, whole. Raises when the stream ends."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            yield ahead
        while True:
            buffer, at = self._buffer, self._at
            there = len(buffer) - at
            size = 0
            if there >= 4:
                size = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
                if there >= 4 + size:
                    self._at = at + 4 + size
                    if size == _PAYLOAD_MAX or self._long:
                        self._long.append(buffer[at + 4 : at + 4 + size])
                        if size < _PAYLOAD_MAX:
                            payload, self._long = b"".join(self._long), []
                            yield self._event(payload)
                    elif size and not buffer[at + 4]:
                        yield buffer[at + 5 : at + 4 + size]
                    else:
                        yield self._event(buffer[at + 4 : at + 4 + size])
                    continue
            if not self._fill(4 + size):
                return

    def has_event(self) -> bool:
        """Whether `events` has one to give now. Raises when the stream ends."""
        if self._ahead is None:
            self._ahead = next(self.events(), None)
        return self._ahead is not None

    async def wait(self) -> None:
        """Return when bytes may have arrived. Raises `SystemUnreachable` after a long silence."""
        left = self._heard_at + SILENCE_SECONDS_MAX - monotonic()
        try:
            with anyio.move_on_after(max(0.0, left)) as scope:
                await anyio.wait_readable(self._socket)
        except (OSError, ValueError, anyio.ClosedResourceError) as error:
            raise self._broken("the log's connection is closed") from error
        if scope.cancelled_caught:
            raise self._broken(f"the server has been silent for {SILENCE_SECONDS_MAX:.0f} s")

    def _fill(self, needed: int) -> bool:
        """Read until the buffer holds `needed` bytes; False when they are not there yet."""
        if not self._chunks:
            self._chunks.append(self._buffer[self._at :])
            self._waiting = len(self._chunks[0])
            self._buffer, self._at = b"", 0
        if needed > self._needed:
            self._needed = needed
        while self._waiting < self._needed:
            try:
                chunk = self._socket.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            except (OSError, ssl.SSLError) as error:
                raise self._broken("the log's connection broke") from error
            if not chunk:
                raise self._broken("the server ended the log's stream")
            self._heard_at = monotonic()
            self._chunks.append(chunk)
            self._waiting += len(chunk)
        self._buffer = b"".join(self._chunks)
        self._chunks = []
        self._waiting, self._needed = 0, 4
        return True

    def _event(self, payload: bytes) -> bytes:
        """The event of a packet: a byte 0 and the event; else 0xff and an error, 0xfe at the end."""
        if payload[:1] == b"\0":
            return payload[1:]
        if payload[:1] == b"\xff" and len(payload) >= 3:
            code = int.from_bytes(payload[1:3], "little")
            said = payload[3:].decode(errors="replace")
            raise _refused(code, said, self._system)
        raise self._broken("the server ended the log's stream")

    def _broken(self, said: str) -> SystemUnreachable:
        return SystemUnreachable(
            f"system {self._system}: {said}", hint="Check that the server runs; it is tried again."
        )


def own_server_id(site: Site, config: MysqlConfig) -> int:
    """The number by which the feed registers as a replica: the configured one, or one made from the system's name.

    Two replicas with one number end each other's dumps. Those that people choose are small, so ours is a large one.
    """
    if config.server_id is not None:
        return config.server_id
    return SERVER_ID_MAX - zlib.crc32(f"{site.name} {config.database}".encode()) % 2**30


@asynccontextmanager
async def dump(site: Site, config: MysqlConfig, resume: Resume) -> AsyncGenerator[tuple[Wire, bool]]:
    """Begin to stream the log behind `resume`; also whether the server's events have checksums at first.

    The connection is closed on leaving, also when cancelled.
    """
    async with session(site, config, has_time_limit=False) as opened:
        limit = answer_seconds_max(config)
        try:
            # The connection itself has no limit, for a log may be quiet; what is asked before is answered at once.
            with anyio.fail_after(limit):
                has_checksum = await opened.run(lambda connection: _prepare(connection, resume))
                sock = await opened.run(lambda connection: _start(connection, resume, own_server_id(site, config)))
        except TimeoutError:
            raise SystemUnreachable(
                f"system {site.name}: no answer for {limit:.0f} s when the log was to be opened",
                hint="Check the network to the server; it is tried again.",
                system=site.name,
            ) from None
        wire = Wire(sock, site.name)
        try:
            # The server says at once which file it begins with, or that it no longer holds what we ask for.
            while not wire.has_event():
                await wire.wait()
            yield wire, has_checksum
        finally:
            _cut(opened)


def _cut(opened: Session) -> None:
    # The driver would say goodbye and wait; a server in the middle of a dump does not listen.
    opened.cut()


def _prepare(connection: Connection, resume: Resume) -> bool:
    settings = [f"session net_write_timeout = {WRITE_SECONDS}", "@master_binlog_checksum = @@global.binlog_checksum"]
    nanoseconds = HEARTBEAT_SECONDS * 1_000_000_000
    settings.append(f"@master_heartbeat_period = {nanoseconds}")
    if connection.is_mariadb:
        settings += [
            # 4: GTID events, and rows events as they are (MARIA_SLAVE_CAPABILITY_GTID).
            "@mariadb_slave_capability = 4",
            f"@slave_connect_state = {connection.literal(format_gtids(resume.gtids))}",
            # A server whose log lacks the very transaction that we ask to go on behind must say so.
            "@slave_gtid_strict_mode = 1",
            "@slave_gtid_ignore_duplicates = 0",
        ]
    else:
        settings += [
            "@source_binlog_checksum = @@global.binlog_checksum",
            f"@source_heartbeat_period = {nanoseconds}",
            "@slave_uuid = uuid()",
        ]
    connection.execute("set " + ", ".join(settings))
    ((checksum,),) = connection.rows("select @@global.binlog_checksum")
    return str(checksum).upper() == "CRC32"


def _start(connection: Connection, resume: Resume, server_id: int) -> socket.socket:
    """Send COM_BINLOG_DUMP: offset, flags, our id, file. With a GTID state MariaDB looks at no file."""
    # The driver has no name for its socket, which is another one once it is encrypted; nothing of the connection is
    # used by anybody else from here on.
    driver = cast("Any", connection)._driver
    sock: socket.socket = driver._sock
    offset, file = (4, b"") if connection.is_mariadb else (max(4, resume.offset), resume.file.encode())
    payload = struct.pack("<BIHI", _COM_BINLOG_DUMP, offset & 0xFFFFFFFF, 0, server_id) + file
    try:
        sock.sendall(len(payload).to_bytes(3, "little") + b"\0" + payload)
        sock.setblocking(False)
    except OSError as error:
        raise pymysql.OperationalError(2013, "the connection broke") from error
    return sock


def _refused(code: int, said: str, system: str) -> ConcordError:
    # MariaDB has a number of its own for it.
    if code == _SAME_ID or (code == _FATAL_ERROR_READING and "same server" in said):
        return SystemUnreachable(
            f"system {system}: another replica with our server_id reads the log (error {code})",
            hint=f"Choose another server_id in [systems.{system}].",
        )
    if code == _FATAL_ERROR_READING:
        return PositionLost(
            f"system {system}: the server no longer holds the log behind our position (error {code})",
            hint=f"Run `concord backfill {system}`; keep more of the log with binlog_expire_logs_seconds.",
            errno=code,
        )
    return translate(pymysql.OperationalError(code, ""), system=system, doing="read the log")
