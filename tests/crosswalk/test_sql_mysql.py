"""Goal: an expression of a mapping gives what MariaDB itself gives, or is refused.

Method: random expressions over random rows of a real table, computed by our functions and by the server; values are
compared in the server's own spelling.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosswalk.carry import Names
from crosswalk.compile import REFUSALS
from crosswalk.convert import Loss
from crosswalk.expression import COMPILERS, parse_sql
from crosswalk.sql_mysql import MysqlCompiler
from crosswalk.sql_scope import Scope, SqlProblem
from engine.model.table import Column, Form, Kind, Shape
from engine.testing.mariadb import MariadbServer
from plugins.mysql.connect import SQL_MODE
from tests.crosswalk.mysql_texts import DECIMALS, INTEGERS, WORDS, mysql_expressions

GENERAL, UNICODE, BIN, LATIN = "utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_bin", "latin1_swedish_ci"
COLUMNS = {
    "a": ("varchar(40)", Kind.TEXT, GENERAL, None),
    "b": ("varchar(40)", Kind.TEXT, GENERAL, None),
    "u": ("varchar(40)", Kind.TEXT, UNICODE, None),
    "z": ("varchar(40)", Kind.TEXT, BIN, None),
    "g": ("varchar(40)", Kind.TEXT, LATIN, None),
    "k": ("enum('a','Customer','é')", Kind.ENUM, GENERAL, None),
    "n": ("int", Kind.INTEGER, "", None),
    "m": ("tinyint(1)", Kind.INTEGER, "", None),
    "w": ("bigint unsigned", Kind.INTEGER, "", None),
    "d": ("decimal(26,6)", Kind.DECIMAL, "", 6),
    "e": ("decimal(21,9)", Kind.DECIMAL, "", 9),
    "f": ("bit(1)", Kind.BOOLEAN, "", None),
    "day": ("date", Kind.DATE, "", None),
    "ts": ("datetime", Kind.TIMESTAMP, "", 0),
    "ts6": ("datetime(6)", Kind.TIMESTAMP, "", 6),
    "at": ("timestamp", Kind.INSTANT, "", 0),
}
SHAPE = Shape(
    name="t",
    columns=tuple(
        Column(name=name, kind=kind, type=type_, collation=collation, scale=scale)
        for name, (type_, kind, collation, scale) in COLUMNS.items()
    ),
    form=Form.TEXT,
)
MOMENTS = ["2024-02-29 13:05:00", "1999-12-31 23:59:59", "2024-03-01 01:30:00", "2026-01-01 00:00:00"]


def nullable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


TEXT = st.sampled_from(WORDS) | st.text("abAxyzéÉß %_,.ñ", max_size=6)
LATIN_WORDS = st.sampled_from([word for word in WORDS if word != "日本"])
ZERO = st.just("0000-00-00 00:00:00")
ROW = st.fixed_dictionaries(
    {
        "a": nullable(TEXT),
        "b": nullable(TEXT),
        "u": nullable(TEXT),
        "z": nullable(TEXT),
        "g": nullable(LATIN_WORDS),
        "k": nullable(st.sampled_from(["a", "Customer", "é"])),
        "n": nullable(st.sampled_from(INTEGERS).map(str)),
        "m": nullable(st.sampled_from("01012")),
        "w": nullable(st.sampled_from(["0", "1", "5", "4000000000"])),
        "d": nullable(st.sampled_from(DECIMALS).map(lambda v: f"{float(v):.6f}")),
        "e": nullable(st.decimals(-9999, 9999, places=9).map(lambda v: format(v, "f"))),
        "f": nullable(st.sampled_from("tf")),
        "day": nullable((st.sampled_from(MOMENTS) | ZERO).map(lambda v: v[:10])),
        "ts": nullable(st.sampled_from(MOMENTS) | ZERO),
        "ts6": nullable(st.sampled_from(MOMENTS).map(lambda v: v + ".25") | st.sampled_from(MOMENTS)),
        "at": nullable(st.sampled_from(MOMENTS).map(lambda v: v + "+00")),
    }
)


class Server:
    """A table of one row, and what the server computes from it."""

    def __init__(self, server: MariadbServer) -> None:
        self.connection = pymysql.Connection(
            ssl_disabled=True,
            unix_socket=str(server.socket_path),
            user="root",
            charset="utf8mb4",
            autocommit=True,
            conv={},
            sql_mode=SQL_MODE,
        )
        self.cursor = self.connection.cursor()
        self.run("set time_zone = '+00:00'")
        self.run("drop database if exists expressions")
        self.run("create database expressions")
        self.run("use expressions")
        declared = ", ".join(
            f"{name} {type_}{' collate ' + collation if collation else ''} null"
            for name, (type_, _, collation, _) in COLUMNS.items()
        )
        self.run(f"create temporary table t (id int primary key, {declared})")

    def run(self, sql: str) -> list[Any]:
        self.cursor.execute(sql)
        return list(self.cursor.fetchall())

    def load(self, rows: list[dict[str, str | None]]) -> None:
        self.run("delete from t")
        values = ", ".join(
            f"({n}, {', '.join(self.spelt(c, row.get(c)) for c in COLUMNS)})" for n, row in enumerate(rows)
        )
        self.run(f"insert into t values {values}")

    def spelt(self, name: str, value: str | None) -> str:
        if value is None:
            return "null"
        if name == "f":
            return "1" if value == "t" else "0"
        return "'" + value.removesuffix("+00").replace("'", "''") + "'"

    def answers(self, sql: str) -> list[str | None]:
        found = self.run(f"select ({sql}) from t order by id")
        return [value.decode() if isinstance(value, bytes) else value for (value,) in found]


@pytest.fixture(scope="module")
def server(mariadb_server: MariadbServer) -> Iterator[Server]:
    made = Server(mariadb_server)
    yield made
    made.connection.close()


def compiled(sql: str) -> Any:
    """A function of a row (a dict), which gives the value as the server spells it."""
    names = Names()
    compiler = COMPILERS["mysql"](Scope.of_shape(SHAPE, "mysql"), names)
    assert isinstance(compiler, MysqlCompiler)
    part = compiler.compile(parse_sql(sql, "mysql"))
    part = compiler.spelt(part)
    loads = "".join(f"    c{i} = row.get({SHAPE.columns[i].name!r})\n" for i in sorted(compiler.used))
    namespace = dict(names.objects)
    exec(f"def compute(row):\n{loads}    return {part.code}\n", namespace)
    return namespace["compute"]


EXAMPLES = int(os.environ.get("CONCORD_TEST_MYSQL_EXPRESSIONS", "60"))
FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("kind", ["text", "integer", "decimal", "boolean", "moment"])
def test_an_expression_gives_what_mariadb_gives(kind: str, server: Server) -> None:
    seen: Counter[str] = Counter()

    @FEW
    @given(sql=mysql_expressions(2)[kind], rows=st.lists(ROW, min_size=4, max_size=4))
    def agree(sql: str, rows: list[dict[str, str | None]]) -> None:
        try:
            compute = compiled(sql)
        except SqlProblem:
            seen["expression refused"] += 1
            return
        server.load(rows)
        try:
            expected = server.answers(sql)
        except pymysql.Error:
            seen["refused by the server"] += 1
            return
        for row, answer in zip(rows, expected, strict=True):
            try:
                value = compute(row)
            except Loss:
                seen["row refused"] += 1
                continue
            seen["compared"] += 1
            assert value == answer, (sql, row)

    agree()
    assert seen["compared"] > seen.total() / 4, seen
    if EXAMPLES > 60:
        print(kind, dict(seen))


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("1 / 3 * 3", {}),
        ("d / e", {"d": "1.000000", "e": "3.000000000"}),
        ("concat(d / 3, '')", {"d": "0.000001"}),
        ("d / 0", {"d": "1.000000"}),
        ("-7 div 2", {}),
        ("-7 mod 2", {}),
        ("round(-2.5)", {}),
        ("truncate(n, -1)", {"n": "19"}),
        ("a = 'CUSTOMER'", {"a": "customer  "}),
        ("z = 'CUSTOMER'", {"z": "customer"}),
        ("a = 'customer'", {"a": "\u00d6sterreich"}),
        ("u = 'strasse'", {"u": "Ber\u00df"}),
        ("n <=> null", {"n": None}),
        ("n not in (2, null)", {"n": "1"}),
        ("m xor null", {"m": "1"}),
        ("n = '0'", {"n": "0"}),
        ("locate('B', a)", {"a": "ab"}),
        ("replace(a, 'A', 'x')", {"a": "aA"}),
        ("ts = '0000-00-00'", {"ts": "0000-00-00 00:00:00"}),
        ("dayofyear(ts)", {"ts": "0000-00-00 00:00:00"}),
        ("month(ts)", {"ts": "0000-00-00 00:00:00"}),
        ("concat(ts6)", {"ts6": "2024-02-29 13:05:00.25"}),
        ("coalesce(n, 1.50)", {"n": "5"}),
        ("a like 'C%r'", {"a": "customer"}),
        ("!n = 1", {"n": "0"}),
        ("a like 'a\\%'", {"a": "A%"}),
    ],
)
def test_known_corners_are_what_mariadb_gives(sql: str, row: dict[str, str | None], server: Server) -> None:
    server.load([row])
    assert [compiled(sql)(row)] == server.answers(sql)


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("a = 'e'", {"a": "\u00e9"}),
        ("u = 'strasse'", {"u": "stra\u00dfe"}),
        ("a like 'stra_e'", {"a": "stra\u00dfe"} | {"a": "str\u00e1_e"}),
        ("d % d", {"d": "-7.500000"}),
        ("replace(a, '', b)", {"a": "x", "b": None}),
        ("replace(a, 'y', b)", {"a": "x", "b": None}),
        ("locate('', a, 2)", {"a": "\u00df"}),
        ("lower(a)", {"a": "\u0130"}),
        ("cast(a as signed)", {"a": "12abc"}),
        ("cast(n as unsigned)", {"n": "-1"}),
    ],
)
def test_a_row_is_refused_where_nothing_is_certain(sql: str, row: dict[str, str | None]) -> None:
    with pytest.raises(Loss):
        compiled(sql)(row)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("a || b", "concat"),
        ("a < 'b'", "order of texts"),
        ("a = 5", "not compared"),
        ("d = '5'", "without quotes"),
        ("a = z", "collate"),
        ("'a' = 'A'", "no collation"),
        ("a collate utf8mb4_lithuanian_ci = 'i'", "not computed here"),
        ("concat(f)", "byte"),
        ("f", "byte"),
        ("dayofyear(coalesce(ts, ts6))", "takes a column"),
        ("n xor m or n", "parentheses"),
        ("str_to_date(a, '%Y')", "not computed here; there is concat"),
        ("md5(a)", "not computed here; there is concat"),
        ("day + interval 1 day", "takes numbers"),
        ("1e3", "floating point"),
        ("cast(n as double)", "there are signed"),
        ("now()", "not computed here"),
        ("if(a, 1, 2)", "takes numbers"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(sql: str, why: str) -> None:
    with pytest.raises(SqlProblem, match=why):
        compiled(sql)


@given(sql=st.text(max_size=40) | st.text("abdn()'\"|=<>,.1 -*/%;\\`&!", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_compiles_or_is_a_problem(sql: str) -> None:
    try:
        compute = compiled(sql)
    except SqlProblem:
        return
    with contextlib.suppress(*REFUSALS):
        compute({})
