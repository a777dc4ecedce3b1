"""apsw with types.

apsw's stubs use a name that the typing of Python 3.11 lacks, so a strict checker sees unknowns everywhere; here are the
few calls the hub makes, typed once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

Row = tuple[Any, ...]


class Rows(Protocol):
    def __iter__(self) -> Iterator[Row]: ...
    def fetchone(self) -> Row | None: ...


class Database(Protocol):
    """The part of `apsw.Connection` that the hub uses."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: Sequence[Any] = ...) -> Rows: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[Sequence[Any]]) -> Rows: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def close(self) -> None: ...


def open_database(path: Path | None, *, read_only: bool = False) -> Database:
    """Open a file, or a database in memory for None."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    return cast("Database", apsw.Connection(":memory:" if path is None else str(path), flags=flags))


def integers(values: Sequence[int]) -> object:
    """Bind many integers as one table-valued parameter, not empty."""
    return cast("Any", apsw).carray(array("q", values))


def texts(values: Sequence[str]) -> object:
    return cast("Any", apsw).carray(tuple(values))


def blobs(values: Sequence[bytes]) -> object:
    return cast("Any", apsw).carray(tuple(values))
