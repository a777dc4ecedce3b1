"""Goal: every type's values are what was written, and are read back letter by letter as they were sent.

Method: one column of each type; edges of its range; written as an insert, as an update and as one together with others,
read as a page, and as the catalogue describes it.
"""

from __future__ import annotations

import pytest

from engine.model.table import Column, Kind
from plugins.mysql import apply_write
from tests.mysql_target.support import World, insert, update

pytestmark = pytest.mark.anyio

VALUES = {
    "tinyint(1)": ("0", "1", "-128", "127"),
    "smallint": ("-32768", "32767"),
    "mediumint unsigned": ("16777215",),
    "int(5) zerofill": ("42",),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "bigint unsigned": ("18446744073709551615",),
    "decimal(30,10)": ("-12345678901234567890.1234567890", "0.0000000000"),
    "decimal(5,0)": ("-99999",),
    "float": ("0.1", "-1.5", "16777216", "3.4028235e+38"),
    "double": ("0.1", "1e+100", "-2.2250738585072014e-308", "123456.789"),
    "date": ("2024-02-29", "0001-01-01", "9999-12-31", "0000-00-00"),
    "time": ("13:05:00", "-838:59:59"),
    "time(6)": ("13:05:00.25", "00:00:00.000001"),
    "datetime": ("2024-02-29 13:05:00", "0000-00-00 00:00:00"),
    "datetime(6)": ("9999-12-31 23:59:59.999999", "2024-02-29 13:05:00.1"),
    "timestamp null": ("2024-02-29 13:05:00+00", "2038-01-19 03:14:07+00"),
    "timestamp(3) null": ("2024-02-29 13:05:00.125+00",),
    "year": ("2155", "1901", "0"),
    "bit(1)": ("t", "f"),
    "bit(10)": ("\\x03ff", "\\x0001"),
    "char(10)": ("", "Ünï", "'\"`\\", "a b"),
    "varchar(20)": (" x ", "日本 🎉", "null", "%s %(a)s", "a\0b\nc\td\re\x1a", "\\'; drop table t; --"),
    "varchar(20) character set latin1": ("Ünï €",),
    "text": ("long " * 1000, "\\"),
    "longtext character set utf8mb3": ("日本",),
    "binary(4)": ("\\x00ff2061",),
    "varbinary(10)": ("\\x", "\\x00ff5c2720"),
    "longblob": ("\\x" + "00ff" * 5000,),
    "json": ('{"b": [1, 2.50, null], "a": "\\u00e9 é"}', "1"),
    "enum('a b','it''s','ü')": ("it's", "a b", "ü"),
    "set('x','y','z')": ("", "x,z"),
    "uuid": ("01234567-89ab-4def-8123-456789abcdef",),
    "inet4": ("192.168.0.1",),
    "inet6": ("2001:db8::ff",),
    "point": ("\\x000000000101000000000000000000f03f0000000000000040",),
}


@pytest.mark.parametrize("declared", VALUES)
async def test_values_are_read_as_they_were_written(
    world: World, monkeypatch: pytest.MonkeyPatch, declared: str
) -> None:
    world.run(f"create table t (id int primary key, v {declared}, w {declared}, x {declared})")
    values = VALUES[declared]

    await world.deliver_alone(insert("t", ("id", "v"), [(str(n), value) for n, value in enumerate(values)]))
    await world.deliver_alone(update("t", ("id", "w"), [(str(n), value) for n, value in enumerate(values)]))
    await world.deliver_alone(insert("t", ("id", "v", "w", "x"), [("99", None, None, values[0])]))
    monkeypatch.setattr(apply_write, "TOGETHER_MIN", 1)
    monkeypatch.setattr(apply_write.Writing, "_update", None)
    together = [*((str(n), value) for n, value in enumerate(values)), ("99", None)]
    await world.deliver_alone(update("t", ("id", "x"), together))

    page = await world.page("t")
    assert page.rows == [*((str(n), value, value, value) for n, value in enumerate(values)), ("99", None, None, None)]
    assert page.last_key is None
    # Written by ourselves, and found by the server as what it is: not a text that only looks alike.
    assert world.rows("select count(*) from t where v = w and v = x") == [(str(len(values)),)]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024-02-29 13:05:00.5+05:30", "2024-02-29 07:35:00.5+00"),
        ("2024-02-29T13:05:00Z", "2024-02-29 13:05:00+00"),
        ("2024-01-01 00:30:00-01", "2024-01-01 01:30:00+00"),
    ],
)
async def test_moments_are_written_in_utc(world: World, written: str, read: str) -> None:
    world.run("create table t (id int primary key, v timestamp(6))", "set session time_zone = '+03:00'")

    await world.deliver_alone(insert("t", ("id", "v"), [("1", written)]))

    assert (await world.page("t")).rows == [("1", read)]


async def test_rows_of_before_the_page_are_read_whatever_they_hold(world: World) -> None:
    """Values that no strict session would write, as another session wrote them."""
    world.run("set session sql_mode = ''", "create table t (id int primary key, d date, e enum('a'), n tinyint)")
    world.run("insert into t values (1, '2024-13-45', 'b', 1000), (2, '2024-00-00', 'a', -1)")

    assert (await world.page("t")).rows == [("1", "0000-00-00", "", "127"), ("2", "2024-00-00", "a", "-1")]


async def test_a_key_of_zero_is_a_key(world: World) -> None:
    world.run("create table t (id int primary key auto_increment, v text)")

    await world.deliver_alone(insert("t", ("id", "v"), [("0", "a"), ("5", "b")]))

    assert (await world.page("t")).rows == [("0", "a"), ("5", "b")]


async def test_null_is_not_the_next_number_nor_the_time(world: World) -> None:
    world.run("create table t (id int primary key, v timestamp not null default current_timestamp)")

    with pytest.raises(Exception, match="must not be null"):
        await world.deliver_alone(insert("t", ("id", "v"), [("0", None)]))


async def test_shapes_say_what_the_catalogue_says(world: World) -> None:
    world.run(
        """create table t (a int not null auto_increment, c decimal(9,2),
        b varchar(7) collate utf8mb4_bin not null default 'x',
        d json, e enum('p','q'), f int as (a + 1) virtual, g timestamp not null, h tinyint(1) unsigned, i longtext,
        primary key (b, a), key (a), unique (c, h), unique prefix (i(10)))""",
        "create table child (id int primary key, a int, foreign key (a) references t (a) on delete cascade)",
        "create view v as select * from t",
    )
    shapes = await world.system.shapes(["t", "v", "missing", f"{world.database}.t", "child", "T"])

    assert set(shapes) == {"t", f"{world.database}.t", "child"}
    shape = shapes["t"]
    assert (shape.key, shape.unique, shape.has_triggers) == (("b", "a"), (("c", "h"),), True)
    assert shapes["child"].has_triggers
    found = {column.name: column for column in shape.columns}
    assert found["a"] == Column(
        name="a", kind=Kind.INTEGER, type="int(11)", is_nullable=False, has_default=True, is_assigned=True
    )
    assert found["b"] == Column(
        name="b", kind=Kind.TEXT, type="varchar(7)", is_nullable=False, length=7, has_default=True,
        collation="utf8mb4_bin",
    )  # fmt: skip
    assert found["c"] == Column(name="c", kind=Kind.DECIMAL, type="decimal(9,2)", precision=9, scale=2)
    assert found["d"].kind is Kind.JSON
    assert (found["e"].kind, found["e"].labels) == (Kind.ENUM, ("p", "q"))
    assert found["f"].is_generated
    assert found["g"].kind is Kind.INSTANT
    assert found["h"].kind is Kind.INTEGER
    assert found["i"].kind is Kind.TEXT
    assert set(await world.system.shapes()) == {"t", "child"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_pages_in_any_size_are_the_table(world: World, size: int) -> None:
    world.run(
        "create table t (a varchar(5) collate utf8mb4_general_ci, b int, c enum('z','y','x'), primary key (a, c, b))",
        "insert into t select elt(1 + seq % 4, 'a', 'B', 'c', 'É'), seq, elt(1 + seq % 3, 'x', 'y', 'z')"
        " from seq_1_to_40",
    )
    rows: list[object] = []
    after: tuple[str, ...] | None = None
    while True:
        page = await world.page("t", after, size)
        rows += page.rows
        after = page.last_key
        if after is None:
            break

    assert sorted(map(str, rows)) == sorted(map(str, world.rows("select a, b, c from t")))
