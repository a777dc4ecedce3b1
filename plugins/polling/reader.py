"""Rows of one table, page by page, and what the database itself says of stretches of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlglot import exp

from engine.model.table import Column, Shape
from engine.model.value import WireRow
from plugins.polling.connect import Connection, Row
from plugins.polling.sql import prefixes
from plugins.polling.values import Rows, key_values, parameter

PAGE_ROWS = 1_000
Found = tuple[str, bytes, WireRow]
"""A row: key, hash and values."""


class Reader:
    """Rows of one table, page by page, in the order of keys or of updated-at."""

    def __init__(self, connection: Connection, shape: Shape, condition: str = "") -> None:
        """`condition`: SQL of the system that rows of `pages` satisfy."""
        self._only = [exp.var(f"({condition})")] if condition else []
        self.connection = connection
        self.shape = shape
        self.sql = connection.sql
        self.rows = Rows(connection.system, shape, self.sql.dialect)
        self.key = [column for name in shape.key for column in shape.columns if column.name == name]
        self._queries: dict[tuple[bool, bool, int], str] = {}
        self._parameters = [parameter(column, shape.form, self.sql.dialect) for column in self.key]

    def pages(self, after: str | None, upto: str | None, size: int = PAGE_ROWS) -> Iterator[list[Found]]:
        """Rows behind key `after` up to `upto`."""
        while True:
            values = self.between(after, upto)
            query = self._query(after is not None, upto is not None, size)
            page = self._found(self.connection.rows(query, values))
            if page:
                yield page
            if len(page) < size:
                return
            after = page[-1][0]

    def pages_behind(self, updated_at: Column, bound: Any) -> Iterator[list[Found]]:
        """Rows whose updated-at is not before `bound`; None: all that have one."""
        order = [updated_at, *self.key]
        convert = parameter(updated_at, self.shape.form, self.sql.dialect)
        column = self.sql.column(updated_at.name)
        condition, values = column.is_(exp.null()).not_(), list[Any]()
        if bound is not None:
            condition, values = column >= self.sql.value(updated_at), [convert(bound)]
        while True:
            query = self.sql.select(self.shape.name, self.shape.columns).where(condition)
            query = query.order_by(*map(self.sql.ordered, order)).limit(PAGE_ROWS)
            page = self._found(self.connection.rows(query, values))
            if page:
                yield page
            if len(page) < PAGE_ROWS:
                return
            last = [convert(self.value(page[-1][2], updated_at)), *self._bound(page[-1][0])]
            condition, values = self.sql.is_behind(order), prefixes(last)

    def read_keys(self, keys: Sequence[str]) -> list[Found]:
        if not keys:
            return []
        query = self.sql.by_keys(self.shape.name, self.shape.columns, self.key, len(keys))
        return self._found(self.connection.rows(query, [value for key in keys for value in self._bound(key)]))

    def greatest(self, updated_at: Column) -> Any:
        """The greatest value of the column; None where there is none."""
        column = self.sql.column(updated_at.name)
        query = self.sql.select(self.shape.name, self.shape.columns).where(column.is_(exp.null()).not_())
        found = self._found(self.connection.rows(query.order_by(self.sql.ordered(updated_at).desc()).limit(1)))
        return self.value(found[0][2], updated_at) if found else None

    def has_rows(self) -> bool:
        query = self.sql.select(self.shape.name, self.key).limit(1)
        return bool(self.connection.rows(query))

    def between(self, after: str | None, upto: str | None) -> list[Any]:
        """Parameters of `condition`."""
        bounds = [prefixes(self._bound(key)) for key in (after, upto) if key is not None]
        return [value for bound in bounds for value in bound]

    def condition(self, *, has_after: bool, has_upto: bool) -> exp.Expr:
        """Whether a row is behind one key and not behind another."""
        found: list[exp.Expr] = [*self._only]
        found += [self.sql.is_behind(self.key)] * has_after + [self.sql.is_not_behind(self.key)] * has_upto
        return exp.and_(*found)

    def _query(self, has_after: bool, has_upto: bool, size: int) -> str:
        """Written once for all pages."""
        known = self._queries.get((has_after, has_upto, size))
        if known is None:
            query = self.sql.select(self.shape.name, self.shape.columns)
            if has_after or has_upto or self._only:
                query = query.where(self.condition(has_after=has_after, has_upto=has_upto))
            query = query.order_by(*map(self.sql.ordered, self.key)).limit(size)
            known = self._queries[has_after, has_upto, size] = self.sql.written(query)
        return known

    def value(self, row: WireRow, column: Column) -> Any:
        index = self.shape.index(column.name)
        return None if index is None else row[index]

    def _bound(self, key: str) -> list[Any]:
        return [convert(value) for convert, value in zip(self._parameters, key_values(key), strict=True)]

    def _found(self, rows: Sequence[Row]) -> list[Found]:
        decoded = [self.rows.decoded(row) for row in rows]
        return [(self.rows.key(row), self.rows.hash(row), row) for row in decoded]


class Digests:
    """What the database says of stretches of a table: how many rows, and a sum of their hashes."""

    def __init__(self, reader: Reader, connection: Connection) -> None:
        self._reader = reader
        self._connection = connection
        digest = connection.habits.digest
        sql = connection.sql
        columns = [sql.quoted(column.name) for column in reader.shape.columns]
        self._aggregate = None if digest is None else digest(columns)
        self._table = sql.written(sql.table(reader.shape.name))

    def of(self, after: str | None, upto: str | None) -> str | None:
        if self._aggregate is None:
            return None
        text = f"select count(*), {self._aggregate} from {self._table}"
        if after is not None or upto is not None:
            where = self._reader.condition(has_after=after is not None, has_upto=upto is not None)
            text += f" where {self._connection.sql.written(where)}"
        ((count, total),) = self._connection.rows(text, self._reader.between(after, upto))
        return f"{count} {total}"
