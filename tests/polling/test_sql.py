"""Goal: a statement means the names it is given, whatever is in them, in each style of parameters."""

from __future__ import annotations

import pytest

from engine.model.table import Column, Kind
from plugins.polling.sql import Sql, knows, prefixes

KEY = Column(name="id", kind=Kind.INTEGER, type="integer")
ODD = Column(name='50% of "x"?', kind=Kind.TEXT, type="text")


@pytest.mark.parametrize(
    ("style", "mark", "bound"),
    [
        ("qmark", "?", (7,)),
        ("numeric", ":1", (7,)),
        ("named", ":p1", {"p1": 7}),
        ("format", "%s", (7,)),
        ("pyformat", "%(p1)s", {"p1": 7}),
    ],
)
def test_parameters_are_in_the_style_of_the_driver(style: str, mark: str, bound: object) -> None:
    sql = Sql("postgres", style)
    text = sql.text(sql.delete("public.t", [KEY]))
    assert text == f'DELETE FROM "public"."t" WHERE "id" = {mark}'
    assert sql.bound([7]) == bound


def test_marks_of_parameters_in_names_are_names() -> None:
    sql = Sql("postgres", "format")
    assert sql.text(sql.select("t", [ODD])) == ('SELECT CAST("50%% of ""x""?" AS TEXT) FROM "t" AS "concord_row"')
    assert Sql("sqlite", "qmark").text(Sql("sqlite", "qmark").delete("t", [ODD])) == (
        'DELETE FROM "t" WHERE "50% of ""x""?" = ?'
    )


@pytest.mark.parametrize(("dialect", "quoted"), [("mysql", "`Sel``ect`"), ("postgres", '"Sel`ect"')])
def test_names_are_quoted_as_the_dialect_does(dialect: str, quoted: str) -> None:
    assert Sql(dialect, "qmark").quoted("Sel`ect") == quoted


def test_rows_behind_a_key_of_several_columns() -> None:
    sql = Sql("sqlite", "qmark")
    columns = [Column(name=name, kind=Kind.INTEGER, type="integer") for name in "abc"]
    text = sql.text(sql.select("t", columns).where(sql.is_behind(columns)))
    assert text.partition("WHERE ")[2] == ('"a" > ? OR ("a" = ? AND "b" > ?) OR ("a" = ? AND "b" = ? AND "c" > ?)')
    assert text.count("?") == len(prefixes([1, 2, 3])) == 6
    assert prefixes([1, 2, 3]) == [1, 1, 2, 1, 2, 3]
    until = sql.text(sql.select("t", columns).where(sql.is_not_behind(columns)))
    assert until.endswith('("a" = ? AND "b" = ? AND "c" <= ?)')


def test_a_parameter_is_cast_where_the_database_takes_no_text_for_a_number() -> None:
    sql = Sql("duckdb", "qmark")
    assert sql.text(sql.delete("t", [KEY])) == 'DELETE FROM "t" WHERE "id" = CAST(? AS INT)'


def test_a_dialect_that_there_is_not() -> None:
    assert knows("duckdb")
    assert not knows("dukdb")
