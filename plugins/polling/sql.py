"""SQL text, written by sqlglot in the system's dialect, with parameters in the driver's style (PEP 249, `paramstyle`).

Names are always quoted, and so mean what the catalogue says, whatever is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from engine.model.table import Column, Kind
from plugins.polling.dialects import Habits, habits_of

# Where a parameter stands until its place in the text is known; no name has this character.
_MARK = "\x01"
_ALIAS = "concord_row"
_UNCAST = (Kind.TEXT, Kind.ENUM, Kind.BINARY, Kind.OTHER)
Parameters = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sql:
    """Statements of one system. Values are bound in the order in which their parameters stand in the text."""

    dialect: str
    paramstyle: str

    @property
    def habits(self) -> Habits:
        return habits_of(self.dialect)

    def text(self, expression: exp.Expr | str) -> str:
        """The statement for the driver. A text has been written in the dialect already, but for its parameters."""
        sql = expression if isinstance(expression, str) else self.written(expression)
        if self.paramstyle in ("format", "pyformat"):
            sql = sql.replace("%", "%%")
        parts = sql.split(_MARK)
        spelt = [parts[0]]
        for number, part in enumerate(parts[1:], 1):
            spelt += (self._parameter(number), part)
        return "".join(spelt)

    def bound(self, values: Sequence[Any]) -> Parameters:
        """The values as the driver takes them with `text`."""
        if self.paramstyle in ("named", "pyformat"):
            return {f"p{number}": value for number, value in enumerate(values, 1)}
        return tuple(values)

    def _parameter(self, number: int) -> str:
        match self.paramstyle:
            case "qmark":
                return "?"
            case "numeric":
                return f":{number}"
            case "named":
                return f":p{number}"
            case "format":
                return "%s"
            case _:
                return f"%(p{number})s"

    # Pieces.

    def quoted(self, name: str) -> str:
        return exp.to_identifier(name, quoted=True).sql(dialect=self.dialect)

    def table(self, name: str) -> exp.Table:
        """A table as the mapping names it: the first dot divides its schema from it."""
        schema, dot, rest = name.partition(".")
        if not dot:
            return exp.Table(this=_name(name))
        return exp.Table(this=_name(rest), db=_name(schema))

    def column(self, name: str) -> exp.Column:
        return exp.Column(this=_name(name))

    def read(self, column: Column) -> exp.Expr:
        """The column as it is selected."""
        found = self.column(column.name)
        return exp.cast(found, self._text()) if column.kind in self.habits.as_text else found

    def ordered(self, column: Column) -> exp.Expr:
        """The column in the order of a `select`. By its name alone it would be the text that is selected."""
        return self._compared(column, exp.Column(this=_name(column.name), table=_name(_ALIAS)))

    def value(self, column: Column | None = None) -> exp.Expr:
        """A parameter, for this column."""
        mark = exp.var(_MARK)
        if column is None or not self.habits.casts or column.kind in _UNCAST:
            return mark
        return exp.Cast(this=mark, to=exp.DataType.build(column.type, dialect=self.dialect, udt=True))

    def written(self, expression: exp.Expr) -> str:
        """The text of an expression, in the dialect and not yet in the driver's style."""
        return expression.sql(dialect=self.dialect, identify=True)

    def _compared(self, column: Column, found: exp.Column) -> exp.Expr:
        """The column as order and comparison mean the same."""
        is_text = column.kind is Kind.ENUM and self.habits.has_numbered_enums
        return exp.cast(found, self._text()) if is_text else found

    def _text(self) -> exp.DataType:
        return exp.DataType.build("text")

    # Statements.

    def select(self, table: str, columns: Sequence[Column]) -> exp.Select:
        found = self.table(table)
        found.set("alias", exp.TableAlias(this=_name(_ALIAS)))
        return exp.select(*(self.read(column) for column in columns)).from_(found)

    def insert(self, table: str, columns: Sequence[Column], count: int = 1) -> str:
        """So many rows, row by row. Without columns: one row of defaults."""
        if not columns:
            return f"insert into {self.written(self.table(table))} " + (
                "() values ()" if self.dialect == "mysql" else "default values"
            )
        names = ", ".join(self.quoted(column.name) for column in columns)
        row = ", ".join(self.written(self.value(column)) for column in columns)
        return f"insert into {self.written(self.table(table))} ({names}) values {', '.join([f'({row})'] * count)}"

    def update(self, table: str, sets: Sequence[Column], key: Sequence[Column]) -> exp.Update:
        """Parameters: the values to set, then the key."""
        return exp.Update(
            this=self.table(table),
            expressions=[exp.EQ(this=self.column(column.name), expression=self.value(column)) for column in sets],
        ).where(self.is_key(key))

    def delete(self, table: str, key: Sequence[Column]) -> exp.Delete:
        return exp.Delete(this=self.table(table)).where(self.is_key(key))

    # Conditions.

    def is_key(self, key: Sequence[Column]) -> exp.Expr:
        return exp.and_(*(self.column(column.name).eq(self.value(column)) for column in key))

    def by_keys(
        self, table: str, columns: Sequence[Column], key: Sequence[Column], count: int, *, locks: bool = False
    ) -> str:
        """A query for the rows that have one of so many keys; parameters key by key."""
        head, one, suffix = _by_key(self, table, tuple(columns), tuple(key), locks=locks)
        if len(key) == 1:
            return f"{head} in ({', '.join([one] * count)}){suffix}"
        return f"{head} {' or '.join([one] * count)}{suffix}"

    def is_behind(self, columns: Sequence[Column]) -> exp.Expr:
        """Whether a row stands behind some values in the order of these columns. Parameters: `prefixes` of them."""
        return self._ordered(columns, exp.GT, exp.GT)

    def is_not_behind(self, columns: Sequence[Column]) -> exp.Expr:
        """The same with the row at these values, or before them."""
        return self._ordered(columns, exp.LT, exp.LTE)

    def _ordered(self, columns: Sequence[Column], all_but_last: type[exp.Binary], last: type[exp.Binary]) -> exp.Expr:
        alternatives: list[exp.Expr] = []
        for n, column in enumerate(columns):
            compare = last if n == len(columns) - 1 else all_but_last
            same = [self.column(c.name).eq(self.value(c)) for c in columns[:n]]
            other = compare(this=self._compared(column, self.column(column.name)), expression=self.value(column))
            alternatives.append(exp.and_(*same, other))
        return exp.or_(*alternatives)


@lru_cache(maxsize=256)
def _by_key(
    sql: Sql, table: str, columns: tuple[Column, ...], key: tuple[Column, ...], *, locks: bool
) -> tuple[str, str, str]:
    """The text before the keys, that of one key, and the text behind them: put together as text, because a tree of
    hundreds of conditions takes longer to write than to answer."""
    head = sql.written(sql.select(table, columns)) + " where"
    suffix = " for update" if locks and sql.habits.can_lock else ""
    if len(key) == 1:
        return f"{head} {sql.quoted(key[0].name)}", sql.written(sql.value(key[0])), suffix
    return head, f"({sql.written(sql.is_key(key))})", suffix


def prefixes(values: Sequence[Any]) -> list[Any]:
    """Parameters of `is_behind` and `is_not_behind`."""
    return [value for n in range(len(values)) for value in values[: n + 1]]


def knows(dialect: str) -> bool:
    """Whether sqlglot has the dialect."""
    return dialect in Dialect.classes


def _name(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)
