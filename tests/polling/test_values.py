"""Goal: a value is what the database has, in the spelling that all plugins share, there and back.

Method: on each kind of database a column of each type, rows entered by its users' SQL; what a page and a look give of
them, and what the database has when the same is written under another key.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from engine.errors import SourceError
from engine.model.table import Column, Form, Kind, Shape
from engine.ports import TableWrite, WriteKind
from engine.testing.contract import flat, texts
from plugins.polling.values import Rows, Unfit, key_text, key_values, parameter
from tests.polling.support import Polled

# Column type, kind, SQL of a value, its wire value.
Case = tuple[str, Kind, str, object]
CASES: dict[str, list[Case]] = {
    "postgres": [
        ("bigint", Kind.INTEGER, "-9223372036854775808", "-9223372036854775808"),
        ("numeric(12,3)", Kind.DECIMAL, "-0.050", "-0.050"),
        ("double precision", Kind.FLOAT, "'Infinity'", "Infinity"),
        ("real", Kind.FLOAT, "0.1", "0.1"),
        ("boolean", Kind.BOOLEAN, "true", "t"),
        ("varchar(10)", Kind.TEXT, "'Zoë ''%s'", "Zoë '%s"),
        ("date", Kind.DATE, "'infinity'", "infinity"),
        ("time(3)", Kind.TIME, "'13:05:00.25'", "13:05:00.25"),
        ("timestamp", Kind.TIMESTAMP, "'2024-02-29 13:05:00.25'", "2024-02-29 13:05:00.25"),
        ("timestamptz", Kind.INSTANT, "'2024-02-29 13:05:00.25+02'", "2024-02-29 11:05:00.25+00"),
        ("interval", Kind.INTERVAL, "'1 year 2 days 3.5 seconds'", "P1Y2DT3.5S"),
        ("uuid", Kind.UUID, "'8F14E45F-CEEA-467F-A0E6-000000000001'", "8f14e45f-ceea-467f-a0e6-000000000001"),
        ("bytea", Kind.BINARY, r"'\x00ff27'", r"\x00ff27"),
        ("json", Kind.JSON, """'{"b": 1.10, "a": 1}'""", '{"b": 1.10, "a": 1}'),
        ("integer[]", Kind.ARRAY, "'{1,null,3}'", "{1,NULL,3}"),
        ("inet", Kind.OTHER, "'10.0.0.0/8'", "10.0.0.0/8"),
    ],
    "mariadb": [
        ("bigint unsigned", Kind.INTEGER, "18446744073709551615", "18446744073709551615"),
        ("decimal(12,3)", Kind.DECIMAL, "-0.050", "-0.050"),
        ("double", Kind.FLOAT, "1e300", "1e+300"),
        ("bit(1)", Kind.BOOLEAN, "b'1'", "t"),
        ("tinyint(1)", Kind.INTEGER, "7", "7"),
        ("varchar(10)", Kind.TEXT, "'Zoë ''%s'", "Zoë '%s"),
        ("date", Kind.DATE, "'2024-02-29'", "2024-02-29"),
        ("time(2)", Kind.TIME, "'-113:05:00.25'", "-113:05:00.25"),
        ("datetime(3)", Kind.TIMESTAMP, "'2024-02-29 13:05:00.25'", "2024-02-29 13:05:00.25"),
        ("timestamp(3) null", Kind.INSTANT, "'2024-02-29 13:05:00.25'", "2024-02-29 13:05:00.25+00"),
        ("varbinary(10)", Kind.BINARY, "x'00ff27'", r"\x00ff27"),
        ("enum('new','in work')", Kind.ENUM, "'in work'", "in work"),
        ("year", Kind.INTEGER, "2024", "2024"),
    ],
    "sqlite": [
        ("integer", Kind.INTEGER, "-9223372036854775808", -(2**63)),
        ("numeric(12,3)", Kind.DECIMAL, "1.5", 1.5),
        ("text", Kind.TEXT, "'Zoë ''%s'", "Zoë '%s"),
        ("blob", Kind.BINARY, "x'00ff27'", b"\x00\xff'"),
        ("datetime", Kind.TIMESTAMP, "'2024-02-29 13:05:00'", "2024-02-29 13:05:00"),
        ("", Kind.OTHER, "'anything'", "anything"),
    ],
    "duckdb": [
        ("hugeint", Kind.INTEGER, "170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ("decimal(12,3)", Kind.DECIMAL, "-0.050", "-0.050"),
        ("double", Kind.FLOAT, "'-inf'", "-Infinity"),
        ("boolean", Kind.BOOLEAN, "false", "f"),
        ("varchar", Kind.TEXT, "'Zoë ''%s'", "Zoë '%s"),
        ("date", Kind.DATE, "'2024-02-29'", "2024-02-29"),
        ("time", Kind.TIME, "'13:05:00.25'", "13:05:00.25"),
        ("timestamp", Kind.TIMESTAMP, "'2024-02-29 13:05:00.25'", "2024-02-29 13:05:00.25"),
        ("timestamptz", Kind.INSTANT, "'2024-02-29 13:05:00.25+02'", "2024-02-29 11:05:00.25+00"),
        ("uuid", Kind.UUID, "'8F14E45F-CEEA-467F-A0E6-000000000001'", "8f14e45f-ceea-467f-a0e6-000000000001"),
        ("blob", Kind.BINARY, r"'\x00\xFF\x27'", r"\x00ff27"),
        ("json", Kind.JSON, """'{"b": 1.10, "a": 1}'""", '{"b": 1.10, "a": 1}'),
        ("integer[]", Kind.ARRAY, "[1, null, 3]", "[1, NULL, 3]"),
        ("enum('new', 'in work')", Kind.ENUM, "'in work'", "in work"),
    ],
}


@pytest.mark.anyio
async def test_each_type_there_and_back(kit: Polled) -> None:
    cases = CASES[kit.kind]
    columns = ", ".join(f"c{n} {type}" for n, (type, *_) in enumerate(cases))
    kit.users.transaction(f"create table things (id integer primary key, {columns})")
    table = kit.schema + "things"
    await kit.setup(table)
    system = kit.plugin.system(kit.site, kit.config)
    shape = (await system.shapes([table]))[table]
    assert [column.kind for column in shape.columns[1:]] == [kind for _, kind, _, _ in cases]
    async with kit.feed(table) as feed:
        kit.users.transaction(f"insert into things values (1, {', '.join(sql for _, _, sql, _ in cases)})")
        kit.users.transaction(f"insert into things values (2, {', '.join('null' for _ in cases)})")
        looked = flat(await kit.drain(feed), table)
    page = await system.page(table, None, 10)
    assert [texts(row) for row in page.rows] == [row for _, row in looked]
    first, second = page.rows
    assert list(first[1:]) == [wire for _, _, _, wire in cases]
    assert set(second[1:]) == {None}
    key: list[object] = [3, 4] if kit.form is Form.NATIVE else ["3", "4"]
    write = TableWrite(
        table=table,
        place=table,
        kind=WriteKind.INSERT,
        columns=tuple(column.name for column in shape.columns),
        key=("id",),
        rows=[(k, *row[1:]) for k, row in zip(key, page.rows, strict=True)],  # pyright: ignore[reportArgumentType]
        rids=[1, 2],
    )
    for _ in range(2):
        # The second time they are there, and are updated.
        await kit.deliver_alone(write)
    again = await system.page(table, None, 10)
    assert [row[1:] for row in again.rows[2:]] == [row[1:] for row in page.rows]


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["text", "decimal", "date", "uuid", "several"])
async def test_keys_of_other_types(kit: Polled, key: str) -> None:
    types = {
        "text": ("varchar(40) not null", ["'b'", "'a b'", "'ä''%s'"]),
        "decimal": ("decimal(8, 2) not null", ["10.50", "9.25", "100.00"]),
        "date": ("date not null", ["'2024-02-29'", "'1999-12-31'", "'2024-03-01'"]),
        "uuid": ("uuid not null", [f"'8f14e45f-ceea-467f-a0e6-00000000000{n}'" for n in (3, 1, 2)]),
        "several": ("varchar(40) not null", ["'b'", "'a'", "'c'"]),
    }
    declared, values = types[key]
    if key == "uuid" and kit.kind == "sqlite":
        pytest.skip("a text there")
    names = "k, place" if key == "several" else "k"
    kit.users.transaction(f"create table things (k {declared}, place integer not null, primary key ({names}))")
    table = kit.schema + "things"
    await kit.setup(table)
    async with kit.feed(table) as feed:
        kit.users.transaction(*(f"insert into things values ({v}, {n})" for n, v in enumerate(values)))
        assert sorted(row[1] or "" for _, row in await kit.found(feed, table)) == ["0", "1", "2"]
        kit.users.transaction(f"delete from things where k = {values[1]}")
        assert [op for op, _ in await kit.found(feed, table)] == ["D"]
    system, rows, after = kit.plugin.system(kit.site, kit.config), list[object](), None
    while True:
        page = await system.page(table, after, 1)
        rows += page.rows
        after = page.last_key
        if after is None:
            break
    assert len(rows) == 2


COLUMN = Column(name="c", kind=Kind.OTHER, type="mystery")


def test_a_type_of_python_that_is_not_known_is_refused_by_its_columns_name() -> None:
    shape = Shape(name="t", columns=(COLUMN,), form=Form.TEXT, key=("c",))
    with pytest.raises(SourceError) as refused:
        Rows("erp", shape, "mysql").decoded([object()])
    assert "column c" in str(refused.value)
    assert "ignore" in refused.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "t"),
        (Decimal("1E+3"), "1000"),
        (Decimal("NaN"), "NaN"),
        (1e300, "1e+300"),
        (2.0, "2"),
        (datetime(2024, 2, 29, 13, 5, 0, 250000), "2024-02-29 13:05:00.25"),
        (datetime(2024, 2, 29, 13, 5, tzinfo=timezone(timedelta(hours=2))), "2024-02-29 11:05:00+00"),
        (datetime(99, 1, 1, tzinfo=UTC), "0099-01-01 00:00:00+00"),
        (date(2024, 2, 29), "2024-02-29"),
        (time(13, 5), "13:05:00"),
        (timedelta(hours=-113, minutes=-5), "-113:05:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (bytearray(b"\x00"), "\\x00"),
        ([1, {"a": None}], '[1, {"a": null}]'),
    ],
)
def test_what_drivers_give(value: object, text: str) -> None:
    shape = Shape(name="t", columns=(COLUMN,), form=Form.TEXT, key=("c",))
    assert Rows("erp", shape, "mysql").decoded([value]) == (text,)


def test_an_interval_is_one_of_seconds() -> None:
    column = Column(name="c", kind=Kind.INTERVAL, type="interval")
    rows = Rows("erp", Shape(name="t", columns=(column,), form=Form.TEXT), "mysql")
    assert rows.decoded([timedelta(days=-1, seconds=1, microseconds=500000)]) == ("PT-86398.5S",)


def test_a_column_of_nulls_changes_no_hash() -> None:
    before = Shape(name="t", columns=(COLUMN,), form=Form.TEXT, key=("c",))
    after = Shape(name="t", columns=(COLUMN, Column(name="d", kind=Kind.TEXT, type="text")), form=Form.TEXT, key=("c",))
    assert Rows("erp", before, "mysql").hash(("x",)) == Rows("erp", after, "mysql").hash(("x", None))
    assert Rows("erp", after, "mysql").hash(("x", "")) != Rows("erp", after, "mysql").hash(("x", None))
    assert Rows("erp", after, "mysql").hash(("x", "y")) != Rows("erp", after, "mysql").hash(("xd", "y"))


def test_keys_as_texts_mean_the_same_again() -> None:
    for values in ([1, "1"], ["1", 1.5], [b"\x00", "é"], [None]):
        assert key_values(key_text(values)) == values


@pytest.mark.parametrize(("kind", "text"), [(Kind.INTEGER, "x"), (Kind.DECIMAL, "1,5"), (Kind.BINARY, "\\xzz")])
def test_a_text_that_the_kind_does_not_have_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(Unfit):
        parameter(Column(name="c", kind=kind, type="x"), Form.TEXT, "mysql")(text)


def test_an_instant_goes_to_mysql_in_utc() -> None:
    column = Column(name="c", kind=Kind.INSTANT, type="timestamp")
    assert parameter(column, Form.TEXT, "mysql")("2024-02-29 13:05:00.5+02") == "2024-02-29 11:05:00.5"
