"""Pages of a table in key order."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.errors import no_table
from engine.model.change import Page
from engine.model.table import Form
from engine.model.value import Wire
from plugins.polling.catalog import read_shape
from plugins.polling.connect import Connection
from plugins.polling.errors import no_key
from plugins.polling.reader import PAGE_ROWS, Found, Reader
from plugins.polling.values import key_text, key_values


def read_page(
    connection: Connection,
    table: str,
    after: tuple[str, ...] | None,
    rows_max: int,
    is_known: Callable[[list[str]], set[str]] | None = None,
    condition: str = "",
) -> Page:
    """Rows behind `after` in key order, for which `condition` holds; call it inside a snapshot. `is_known`: the keys
    whose rows are to be there."""
    shape = read_shape(connection, table)
    if shape is None:
        raise no_table(connection.system, table)
    if not shape.key:
        raise no_key(connection.system, table)
    reader = Reader(connection, shape, condition)
    found: list[Found] = []
    for page in reader.pages(None if after is None else _key(after, shape.form), None, min(rows_max, PAGE_ROWS)):
        found += page
        if len(found) >= rows_max:
            break
    found, is_end = found[:rows_max], len(found) < rows_max
    last = None if is_end else _texts(found[-1][0], shape.form)
    if is_known is not None:
        known = is_known([key for key, _, _ in found])
        found = [row for row in found if row[0] in known]
    return Page(shape=shape, rows=[row for _, _, row in found], last_key=last, read_at=time.time_ns() // 1000)


def _texts(key: str, form: Form) -> tuple[str, ...]:
    """A key as `Page.last_key`: texts as they are; values of SQLite so that 1 and '1' are two."""
    return tuple(key_text([v]) if form is Form.NATIVE else str(v) for v in key_values(key))


def _key(after: tuple[str, ...], form: Form) -> str:
    values: list[Wire] = [key_values(text)[0] if form is Form.NATIVE else text for text in after]
    return key_text(values)
