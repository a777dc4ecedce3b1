"""Goal: an expression compiled to Python gives what the database itself gives.

Method: random expressions over random rows, computed by our functions and by real SQLite and PostgreSQL; values are
compared in the database's own spelling. Where the database raises, we may do as we like; where it answers, we give the
same answer, or refuse for one of the few reasons that are written down.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from typing import Any

import apsw
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crosswalk.carry import Names
from crosswalk.compile import REFUSALS
from crosswalk.convert import Loss
from crosswalk.expression import COMPILERS, parse_sql
from crosswalk.sql_scope import Scope, SqlProblem
from crosswalk.sql_typed_functions import SPELLINGS
from engine.model.table import Column, Form, Kind, Shape
from engine.testing.postgres import PostgresServer
from tests.crosswalk.sql_texts import DECIMALS, INTEGERS, WORDS, postgres_expressions, sqlite_expressions

POSTGRES_COLUMNS = {
    "a": ("text", Kind.TEXT),
    "b": ("text", Kind.TEXT),
    "n": ("bigint", Kind.INTEGER),
    "m": ("bigint", Kind.INTEGER),
    "d": ("numeric", Kind.DECIMAL),
    "e": ("numeric(12,4)", Kind.DECIMAL),
    "t": ("boolean", Kind.BOOLEAN),
    "u": ("boolean", Kind.BOOLEAN),
    "day": ("date", Kind.DATE),
    "ts": ("timestamp", Kind.TIMESTAMP),
    "at": ("timestamptz", Kind.INSTANT),
}
POSTGRES_SHAPE = Shape(
    name="t",
    columns=tuple(Column(name=name, kind=kind, type=type_) for name, (type_, kind) in POSTGRES_COLUMNS.items()),
    form=Form.TEXT,
)
LITE_COLUMNS = {"t": "TEXT", "i": "INTEGER", "r": "REAL", "v": "NUMERIC", "z": ""}
LITE_SHAPE = Shape(
    name="t",
    columns=tuple(Column(name=name, kind=Kind.OTHER, type=type_) for name, type_ in LITE_COLUMNS.items()),
    form=Form.NATIVE,
)
MOMENTS = [
    "2024-02-29 13:05:00.25",
    "1999-12-31 23:59:59",
    "2024-03-31 01:30:00",
    "2023-10-29 00:30:00",
    "2026-01-01 00:00:00",
]


def nullable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


ROW = st.fixed_dictionaries(
    {
        "a": nullable(st.sampled_from(WORDS)),
        "b": nullable(st.sampled_from(WORDS) | st.text("abxyzé %_!\\,", max_size=6)),
        "n": nullable(st.sampled_from(INTEGERS).map(str)),
        "m": nullable(st.integers(-1000, 1000).map(str)),
        "d": nullable(st.sampled_from(DECIMALS)),
        "e": nullable(st.decimals(-9999, 9999, places=4).map(lambda value: format(value, "f"))),
        "t": nullable(st.sampled_from("tf")),
        "u": nullable(st.sampled_from("tf")),
        "day": nullable(st.sampled_from([moment[:10] for moment in MOMENTS])),
        "ts": nullable(st.sampled_from(MOMENTS)),
        "at": nullable(st.sampled_from(MOMENTS).map(lambda moment: moment + "+00")),
    }
)
FEW = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def compiled(sql: str, shape: Shape, dialect: str) -> tuple[Any, Kind]:
    """A function of a row (a dict), and the kind of its value."""
    names = Names()
    compiler = COMPILERS[dialect](Scope.of_shape(shape, dialect), names)
    part = compiler.compile(parse_sql(sql, dialect))
    loads = "".join(f"    c{i} = row[{shape.columns[i].name!r}]\n" for i in sorted(compiler.used))
    namespace = dict(names.objects)
    exec(f"def compute(row):\n{loads}    return {part.code}\n", namespace)
    return namespace["compute"], part.kind


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """In a locale that knows letters: a database in locale C leaves all but ASCII alone."""
    with psycopg.connect(postgres_server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(
            "create database expressions template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C.UTF-8'"
        )
    try:
        dsn, options = postgres_server.dsn("expressions"), "-c timezone=UTC -c datestyle=ISO"
        with psycopg.connect(dsn, autocommit=True, options=options) as connection:
            yield connection
    finally:
        postgres_server.drop_database("expressions")


def postgres_answer(connection: psycopg.Connection[Any], sql: str, row: dict[str, str | None]) -> Any:
    """The value as text; raises psycopg.Error where PostgreSQL does."""
    columns = ", ".join(f"%({name})s::{type_} as {name}" for name, (type_, _) in POSTGRES_COLUMNS.items())
    query = f"select ({sql.replace('%', '%%')})::text from (select {columns}) s"
    found = connection.execute(query.encode(), row).fetchone()
    assert found is not None
    return found[0]


@pytest.mark.parametrize("kind", ["text", "integer", "decimal", "boolean", "moment"])
def test_typed_expression_gives_what_postgres_gives(kind: str, postgres: psycopg.Connection[Any]) -> None:
    @FEW
    @given(sql=postgres_expressions(2)[kind], rows=st.lists(ROW, min_size=3, max_size=3))
    def agree(sql: str, rows: list[dict[str, str | None]]) -> None:
        for row in rows:
            try:
                expected = postgres_answer(postgres, sql, row)
            except psycopg.Error:
                continue
            compute, result = compiled(sql, POSTGRES_SHAPE, "postgres")
            value = compute(row)
            spelling = SPELLINGS.get(result, str)
            assert (None if value is None else spelling(value)) == expected

    agree()


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("d / e", {"d": "1", "e": "1.0000"}),
        ("d / e", {"d": "20000", "e": "0.0003"}),
        ("d / 3", {"d": "0.00001"}),
        ("round(d)", {"d": "-2.5"}),
        ("cast(d as integer)", {"d": "2.5"}),
        ("lower(a)", {"a": "\u0130\u03a3\u00df"}),
        ("n between m and null", {"n": "1", "m": "2"}),
        ("n not in (2, null)", {"n": "1"}),
        ("a in (a, substring(a from 1 for cast(n as integer)))", {"a": "x", "n": "-2"}),
        ("a in (b, null, a)", {"a": "{0}", "b": "{1}"}),
        ("at at time zone 'Europe/Berlin'", {"at": "2023-10-29 01:30:00+00"}),
        ("ts at time zone 'Europe/Berlin'", {"ts": "2023-10-29 02:30:00"}),
        ("ts at time zone 'Europe/Berlin'", {"ts": "2024-03-31 02:30:00"}),
    ],
)
def test_known_corners_are_what_postgres_gives(
    sql: str, row: dict[str, str], postgres: psycopg.Connection[Any]
) -> None:
    full = dict.fromkeys(POSTGRES_COLUMNS) | row
    compute, result = compiled(sql, POSTGRES_SHAPE, "postgres")
    value = compute(full)
    spelled = None if value is None else SPELLINGS.get(result, str)(value)
    expected = postgres_answer(postgres, sql, full)
    assert spelled == expected


def test_a_pattern_that_ends_with_its_escape_character(postgres: psycopg.Connection[Any]) -> None:
    """It is refused only for texts that come as far as there."""
    texts = ["".join(letters) for n in range(4) for letters in itertools.product("ab!", repeat=n)]
    patterns = ["".join(letters) + "!" for n in range(3) for letters in itertools.product("a%_!", repeat=n)]
    compute, _ = compiled("a like b escape '!'", POSTGRES_SHAPE, "postgres")
    answered = 0
    for text, pattern in itertools.product(texts, patterns):
        row = dict.fromkeys(POSTGRES_COLUMNS) | {"a": text, "b": pattern}
        try:
            expected = postgres_answer(postgres, "a like b escape '!'", row) == "true"
        except psycopg.Error:
            continue
        assert compute(row) == expected, (text, pattern)
        answered += 1
    assert answered > 400


LITE_ROWS = st.fixed_dictionaries(
    {
        "t": nullable(st.sampled_from(WORDS)),
        "i": nullable(st.integers(-5, 5) | st.just(2**62)),
        "r": nullable(st.sampled_from([0.0, 1.0, -2.5, 0.125, 3.75, 1e20])),
        "v": nullable(st.sampled_from([0, 7, 2.5, "abc", "1x"])),
        "z": nullable(st.sampled_from([0, 1, 2.5, "1", "abc", "1.0"])),
    }
)


@FEW
@given(sql=sqlite_expressions(2), row=LITE_ROWS)
@example(sql="min(r, i)", row={"t": None, "i": 0, "r": 0.0, "v": None, "z": None})
@example(sql="max(r, i)", row={"t": None, "i": 0, "r": 0.0, "v": None, "z": None})
@example(sql="(t like v escape '!')", row={"t": "a", "i": None, "r": None, "v": "a!", "z": None})
@example(sql="(z = t)", row={"t": "1.0", "i": None, "r": None, "v": None, "z": 1})
def test_dynamic_expression_gives_what_every_sqlite_gives(sql: str, row: dict[str, Any]) -> None:
    answers: list[Any] = []
    connections: tuple[Any, ...] = (sqlite3.connect(":memory:"), apsw.Connection(":memory:"))
    for connection in connections:
        try:
            declared = ", ".join(f"{name} {type_}" for name, type_ in LITE_COLUMNS.items())
            connection.execute(f"create table x ({declared})")
            connection.execute("insert into x values (?, ?, ?, ?, ?)", tuple(row[name] for name in LITE_COLUMNS))
            answers.append(next(iter(connection.execute(f"select typeof({sql}), {sql} from x"))))
        except (sqlite3.Error, apsw.Error):
            return
        finally:
            connection.close()
    compute, _ = compiled(sql, LITE_SHAPE, "sqlite")
    try:
        value = compute(row)
    except Loss:
        return
    named = {type(None): "null", int: "integer", float: "real", str: "text"}
    assert (named[type(value)], value) == tuple(answers[0]) == tuple(answers[1])


@pytest.mark.parametrize(
    "sql",
    [
        "foo(a)",
        "random()",
        "now()",
        "sum(n)",
        "(select 1)",
        "a ~ 'x'",
        "a < b",
        "n + a",
        "a; b",
        "a b",
        "*",
        "",
        "a ||",
        "t.a",
        "nowhere",
        "cast(a as xml)",
        "t = a in ('x')",
        "a || n + 1",
        "lower(a) from t",
        "day + 'x'",
        "count(*)",
        "coalesce(n, a)",
        "case when a then 1 end",
        "extract(century from day)",
        "a in (select 1)",
    ],
)
def test_what_is_not_computed_is_a_problem_and_no_traceback(sql: str) -> None:
    with pytest.raises(SqlProblem) as raised:
        compiled(sql, POSTGRES_SHAPE, "postgres")
    assert str(raised.value)


def test_a_problem_names_the_function_and_what_there_is() -> None:
    with pytest.raises(SqlProblem, match=r"md5 is not computed here; there is .*lower, upper"):
        compiled("md5(a)", POSTGRES_SHAPE, "postgres")


def test_a_misspelt_column_is_named_with_its_neighbour() -> None:
    with pytest.raises(SqlProblem, match="no column 'dya'; did you mean 'day'"):
        compiled("dya", POSTGRES_SHAPE, "postgres")


@given(sql=st.text(max_size=40) | st.text("ab()'\"|=<>,.1 -*/%;\\", max_size=30))
@settings(max_examples=2000, deadline=None)
@example(sql=".0.")
@example(sql="01")
@example(sql="1e5000")
def test_any_text_compiles_or_is_a_problem(sql: str) -> None:
    for shape, dialect in ((POSTGRES_SHAPE, "postgres"), (LITE_SHAPE, "sqlite")):
        try:
            compute, _ = compiled(sql, shape, dialect)
        except SqlProblem:
            continue
        try:
            compute(dict.fromkeys(POSTGRES_COLUMNS) | dict.fromkeys(LITE_COLUMNS))
        except REFUSALS:
            continue
