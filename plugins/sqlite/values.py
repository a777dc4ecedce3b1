"""Values as SQLite has them, read without losing any.

apsw gives int, float, str, bytes and None for SQLite's five storage classes. One value it cannot give: a text that is
no valid UTF-8, which SQLite stores without a word. Such a text is handed out as its bytes; a mapping refuses bytes
where it wants a text, so the row is parked rather than the lane stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.sqlite.connect import Connection, Row


def read_rows(
    connection: Connection, plain: Sequence[str], values: Sequence[str], rest: str, bindings: Sequence[Any] = ()
) -> list[Row]:
    """`select plain, values rest`: every row at once. `values` are expressions that may hold anything."""
    try:
        return list(connection.execute(f"select {', '.join((*plain, *values))} {rest}", bindings))
    except UnicodeDecodeError:
        return list(_read_carefully(connection, plain, values, rest, bindings))


def _read_carefully(
    connection: Connection, plain: Sequence[str], values: Sequence[str], rest: str, bindings: Sequence[Any]
) -> Iterable[Row]:
    columns = [
        f"typeof({v}) = 'text', case typeof({v}) when 'text' then cast({v} as blob) else {v} end" for v in values
    ]
    width = len(plain)
    for row in connection.execute(f"select {', '.join((*plain, *columns))} {rest}", bindings):
        pairs = zip(row[width::2], row[width + 1 :: 2], strict=True)
        yield (*row[:width], *(_text(value) if is_text else value for is_text, value in pairs))


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
