"""Large transactions that arrive before their commit, kept in files until it comes or does not.

With protocol 2 a server sends a transaction that outgrew its memory in blocks, several transactions taking turns. Each
has one file here. A record is (length, subtransaction, message); the message is written without the xid that streamed
ones carry, so it reads back like any other. What a rolled back subtransaction wrote stays in the file and is left out
on reading, its relation messages too: the server sends those again after the rollback.

Files live as long as the feed: after a restart the server sends an unfinished transaction from its beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from engine.errors import MalformedLog, SystemUnreachable
from plugins.postgres.decode import malformed

_RECORD: Final = struct.Struct(">I4s")
# Large enough that reading is sequential, small enough that a hundred of them would not be felt.
_READ_SIZE: Final = 1 << 20
# The types that carry an xid inside a block: I U D R Y T M O (the manual, "Logical Replication Message Formats").
_WITH_XID: Final = frozenset(b"IUDRYTM")


class Spool:
    """The transactions that are being streamed. One block is open at a time."""

    def __init__(self, directory: Path, *, system: str) -> None:
        self._directory = directory
        self._system = system
        self._aborted: dict[bytes, set[bytes]] = {}
        self._file: BinaryIO | None = None
        self._write = _no_block
        self._open: bytes = b""
        self.bytes_written = 0

    def clear(self) -> None:
        """Remove every file, those of an earlier process too."""
        self._stop()
        self._aborted.clear()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.glob("*.stream"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def start(self, xid: bytes, *, is_first: bool) -> None:
        """A block of transaction `xid` begins."""
        self._stop()
        if is_first:
            self._aborted[xid] = set()
        elif xid not in self._aborted:
            raise MalformedLog(f"system {self._system}: a streamed transaction goes on that never began")
        try:
            self._file = self._path(xid).open("wb" if is_first else "ab", buffering=_READ_SIZE)
        except OSError as error:
            raise self._failed(error) from error
        self._write = self._file.write
        self._open = xid

    def add(self, message: bytes) -> None:
        """Keep a message of the open block."""
        if message[0] in _WITH_XID:
            if len(message) < 5:
                raise malformed("streamed", message)
            subxid, body = message[1:5], message[:1] + message[5:]
        else:
            subxid, body = self._open, message
        try:
            self._write(_RECORD.pack(len(body), subxid) + body)
        except OSError as error:
            raise self._failed(error) from error
        self.bytes_written += len(body)

    def stop(self) -> None:
        """The open block ends."""
        try:
            self._stop()
        except OSError as error:
            raise self._failed(error) from error

    def abort(self, xid: bytes, subxid: bytes) -> None:
        """Transaction `xid`, or a part of it, was rolled back."""
        if xid == subxid:
            self.drop(xid)
        elif xid in self._aborted:
            self._aborted[xid].add(subxid)

    def read(self, xid: bytes) -> Iterator[bytes]:
        """The messages of a transaction that has committed, in order, without what was rolled back."""
        aborted = self._aborted.get(xid)
        if aborted is None:
            raise MalformedLog(f"system {self._system}: a streamed transaction commits that never began")
        try:
            with self._path(xid).open("rb", buffering=_READ_SIZE) as file:
                while header := file.read(_RECORD.size):
                    length, subxid = _RECORD.unpack(header)
                    body = file.read(length)
                    if len(body) != length:
                        raise self._failed(OSError("short file"))
                    if subxid not in aborted:
                        yield body
        except (OSError, struct.error) as error:
            raise self._failed(error) from error

    def drop(self, xid: bytes) -> None:
        """Forget a transaction."""
        self._aborted.pop(xid, None)
        try:
            self._path(xid).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _stop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._write = _no_block

    def _path(self, xid: bytes) -> Path:
        return self._directory / f"{xid.hex()}.stream"

    def _failed(self, error: Exception) -> SystemUnreachable:
        # To be retried: a full disk is the usual cause, and the log still holds the transaction.
        return SystemUnreachable(
            f"system {self._system}: a large transaction cannot be kept in {self._directory} ({type(error).__name__})",
            hint="Make room in the work directory.",
        )


def _no_block(_: bytes) -> int:
    raise MalformedLog("a streamed message stands outside a block")
