"""Rows of texts as the server takes them: COPY's text format, or one list per column.

The usual value needs no escaping, so rows are joined first and the result is checked by counting: more backslashes,
tabs or line ends than we put there, and the write is built again value by value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Final, cast

from engine.errors import RowRefused
from engine.ports import TableWrite

# The server parses one piece while we send the next. Measured with 10,000 nine-column rows: 540,000 rows/s in pieces of
# this size, 340,000 as one message.
PIECE_BYTES: Final = 256 * 1024

# Rows that are turned into text at once: few enough for the processor's cache.
SOME_ROWS: Final = 250

TextRow = tuple[str | None, ...]

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_text(system: str, write: TableWrite) -> bytes:
    """The rows in COPY's text format. Raises `RowRefused` for what no PostgreSQL text can hold."""
    rows = iter(text_rows(write))
    parts: list[bytes] = []
    while some := list(islice(rows, SOME_ROWS)):
        text = _copy_text(some, len(write.columns))
        try:
            parts.append(text.encode())
        except UnicodeEncodeError:
            raise _unsendable(system, write) from None
    content = b"".join(parts)
    if b"\0" in content:
        raise _unsendable(system, write)
    return content


def _copy_text(rows: list[TextRow], width: int) -> str:
    nulls = 0
    try:
        text = "\n".join(map("\t".join, cast("list[tuple[str, ...]]", rows))) + "\n"
    except TypeError:
        # There are nulls.
        columns: list[Sequence[str | None]] = []
        for column in zip(*rows, strict=True):
            count = column.count(None)
            nulls += count
            columns.append(["\\N" if value is None else value for value in column] if count else column)
        text = "\n".join(map("\t".join, cast("zip[tuple[str, ...]]", zip(*columns, strict=True)))) + "\n"
    count = len(rows)
    if (
        text.count("\\") != nulls
        or text.count("\t") != count * (width - 1)
        or text.count("\n") != count
        or "\r" in text
    ):
        text = "".join(["\t".join(map(_escaped, row)) + "\n" for row in rows])
    return text


def text_columns(system: str, write: TableWrite) -> list[list[str | None]]:
    """The rows as one list per column. Raises `RowRefused` for what no PostgreSQL text can hold."""
    rows = text_rows(write)
    _encoded(system, write, "".join([value for row in rows for value in row if value is not None]))
    return [list(column) for column in zip(*rows, strict=True)]


def text_rows(write: TableWrite) -> Sequence[TextRow]:
    # Every value is a text or None under Form.TEXT, by the contract of `TableWrite` and `Shape.form`.
    return cast("Sequence[TextRow]", write.rows)


class Pieces:
    """Bytes in pieces, as asyncpg's COPY reads them."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self

    async def __anext__(self) -> memoryview:
        if not self._rest:
            raise StopAsyncIteration
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        return piece


def _escaped(value: str | None) -> str:
    return "\\N" if value is None else value.translate(_ESCAPES)


def _encoded(system: str, write: TableWrite, text: str) -> bytes:
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise _unsendable(system, write) from None
    if b"\0" in content:
        raise _unsendable(system, write)
    return content


def _unsendable(system: str, write: TableWrite) -> RowRefused:
    """Name the first value with a NUL character or half a surrogate pair."""
    for index, row in enumerate(text_rows(write)):
        for column, value in zip(write.columns, row, strict=True):
            if value is None:
                continue
            found = "a NUL character" if "\0" in value else "half a surrogate pair" if _is_broken(value) else ""
            if found:
                return RowRefused(
                    f"system {system}, table {write.table}, column {column}: the text holds {found}, which PostgreSQL"
                    " cannot store",
                    hint="Correct the text where it comes from.",
                    row_index=index,
                    reason="value",
                    system=system,
                    table=write.table,
                    column=column,
                )
    raise AssertionError("a text was refused that no value accounts for")


def _is_broken(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
