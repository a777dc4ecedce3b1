"""Every type's values, as the log spells them and as the server does."""

from __future__ import annotations

import datetime
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.table import Kind
from plugins.mysql.spell import CHARACTER_SETS, day_text, decimal_size, decimal_speller, float_text, text_decoder
from tests.mysql_source.support import World, read_all

pytestmark = pytest.mark.anyio

# Column type, SQL literals, and what the log's values must read.
TYPES: dict[str, list[tuple[str, str | None]]] = {
    "tinyint": [("-128", "-128"), ("127", "127"), ("null", None)],
    "tinyint(1)": [("1", "1"), ("0", "0")],
    "tinyint unsigned": [("255", "255")],
    "smallint": [("-32768", "-32768")],
    "smallint unsigned": [("65535", "65535")],
    "mediumint": [("-8388608", "-8388608"), ("8388607", "8388607"), ("-1", "-1")],
    "mediumint unsigned": [("16777215", "16777215")],
    "int": [("-2147483648", "-2147483648")],
    "int unsigned zerofill": [("4294967295", "4294967295"), ("7", "7")],
    "bigint": [("-9223372036854775808", "-9223372036854775808")],
    "bigint unsigned": [("18446744073709551615", "18446744073709551615")],
    "float": [("1.1", "1.1"), ("16777216", "16777216"), ("-0.1", "-0.1"), ("3.4e38", "3.4e+38"), ("0", "0")],
    "double": [("0.1", "0.1"), ("1e300", "1e+300"), ("123456789.125", "123456789.125"), ("-2", "-2")],
    "decimal(10,2)": [
        ("0", "0.00"),
        ("-0.01", "-0.01"),
        ("99999999.99", "99999999.99"),
        ("-12345678.9", "-12345678.90"),
    ],
    "decimal(65,30)": [("-" + "9" * 35 + "." + "1" * 30, "-" + "9" * 35 + "." + "1" * 30)],
    "decimal(9,9)": [("0.123456789", "0.123456789"), ("-0.000000001", "-0.000000001")],
    "decimal(18,0)": [("123456789012345678", "123456789012345678"), ("-5", "-5")],
    "decimal(20,11)": [("-123456789.12345678901", "-123456789.12345678901")],
    "date": [("'2024-02-29'", "2024-02-29"), ("'0000-00-00'", "0000-00-00"), ("'9999-12-31'", "9999-12-31")],
    "time": [
        ("'13:05:00'", "13:05:00"),
        ("'-838:59:59'", "-838:59:59"),
        ("'838:59:59'", "838:59:59"),
        ("0", "00:00:00"),
    ],
    "time(2)": [("'-00:00:00.25'", "-00:00:00.25"), ("'01:02:03.1'", "01:02:03.1")],
    "time(6)": [("'-838:59:58.999999'", "-838:59:58.999999"), ("'-01:00:00.000001'", "-01:00:00.000001")],
    "datetime": [("'2024-02-29 13:05:00'", "2024-02-29 13:05:00"), ("'0000-00-00 00:00:00'", "0000-00-00 00:00:00")],
    "datetime(1)": [("'1000-01-01 00:00:00.1'", "1000-01-01 00:00:00.1")],
    "datetime(3)": [("'2024-02-29 13:05:00.250'", "2024-02-29 13:05:00.25")],
    "datetime(6)": [("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999")],
    "timestamp null": [
        ("'1970-01-01 00:00:01'", "1970-01-01 00:00:01+00"),
        ("'2038-01-19 03:14:07'", "2038-01-19 03:14:07+00"),
        ("'0000-00-00 00:00:00'", "0000-00-00 00:00:00+00"),
        ("null", None),
    ],
    "timestamp(2) null": [("'2024-02-29 13:05:00.5'", "2024-02-29 13:05:00.5+00")],
    "timestamp(6) null": [("'2000-12-31 23:59:59.000001'", "2000-12-31 23:59:59.000001+00")],
    "year": [("2024", "2024"), ("1901", "1901"), ("2155", "2155"), ("0", "0")],
    "char(10)": [("'hé'", "hé"), ("''", "")],
    "char(100) character set utf8mb4": [("repeat('😀', 100)", "😀" * 100)],
    "varchar(20) character set latin1": [("'h€ß'", "h€ß"), ("_latin1 x'818D8F909D'", "\x81\x8d\x8f\x90\x9d")],
    "varchar(255) character set latin1": [("repeat('ä', 255)", "ä" * 255)],
    "varchar(256) character set latin1": [("repeat('ä', 256)", "ä" * 256)],
    "varchar(20) character set utf16": [("'h€😀'", "h€😀")],
    "varchar(20) character set ucs2": [("'h€'", "h€")],
    "varchar(20) character set utf32": [("'h€😀'", "h€😀")],
    "varchar(20) character set cp1251": [("'привет'", "привет")],
    "varchar(20) character set utf8mb4 collate utf8mb4_uca1400_ai_ci": [("'h€😀'", "h€😀")],
    "tinytext": [("'t'", "t")],
    "text": [("repeat('é', 3000)", "é" * 3000)],
    "mediumtext": [("repeat('m', 70000)", "m" * 70000)],
    "longtext": [("'\\\\x'", "\\x")],
    "binary(4)": [("x'ab00'", "\\xab000000"), ("x'00000000'", "\\x00000000")],
    "binary(255)": [("x'ff'", "\\xff" + "00" * 254)],
    "varbinary(10)": [("x'00ff00'", "\\x00ff00"), ("''", "\\x")],
    "varbinary(300)": [("x'00ff00'", "\\x00ff00")],
    "blob": [("x'00ff'", "\\x00ff")],
    "longblob": [("repeat(x'ab', 100000)", "\\x" + "ab" * 100000)],
    "bit(1)": [("b'1'", "t"), ("b'0'", "f")],
    "bit(9)": [("b'101010101'", "\\x0155")],
    "bit(64)": [("x'8000000000000001'", "\\x8000000000000001")],
    "enum('a','ß','it''s')": [("'ß'", "ß"), ("3", "it's"), ("null", None)],
    "enum('a','ß') character set latin1": [("'ß'", "ß")],
    "set('x','é','z')": [("'x,z'", "x,z"), ("''", ""), ("'é'", "é")],
    "json": [('\'{"a": [1, "é"]}\'', '{"a": [1, "é"]}')],
    "point": [("point(1, 2)", "\\x00000000" + struct.pack("<BIdd", 1, 1, 1.0, 2.0).hex())],
    "uuid": [
        ("'12345678-1234-4234-8234-123456789abc'", "12345678-1234-4234-8234-123456789abc"),
        ("'01890a5d-ac96-774b-bcce-b302099a8057'", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000"),
        ("'c232ab00-9414-11ec-b3c8-9e6bdeced846'", "c232ab00-9414-11ec-b3c8-9e6bdeced846"),
        ("'01000000-0000-4000-8000-000000000000'", "01000000-0000-4000-8000-000000000000"),
    ],
    "inet6": [
        (f"'{address}'", address) for address in ("::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4", "::1.2.3.4", "::")
    ],
    "inet4": [("'1.2.3.4'", "1.2.3.4"), ("'0.0.0.0'", "0.0.0.0"), ("'10.0.0.0'", "10.0.0.0")],
}


async def test_every_type(world: World) -> None:
    columns = ", ".join(f"c{n} {type}" for n, type in enumerate(TYPES))
    world.run("set sql_mode = ''", "set time_zone = '+00:00'", f"create table t (id int primary key, {columns})")
    depth = max(map(len, TYPES.values()))
    wanted: list[tuple[str | None, ...]] = []
    async with world.feed() as feed:
        for row in range(depth):
            cells = [values[row % len(values)] for values in TYPES.values()]
            literals = ", ".join(literal for literal, _ in cells)
            world.run(f"insert into t values ({row}, {literals})")
            wanted.append((str(row), *(value for _, value in cells)))
        found = await read_all(world, feed)
        for got, want in zip(found.rows(), wanted, strict=True):
            assert dict(zip(TYPES, got[1:], strict=True)) == dict(zip(TYPES, want[1:], strict=True))
        # A page is spelt as the log is.
        chunk = await feed.chunk("t", None, 100)
        for row, want in zip(chunk.page.rows, wanted, strict=True):
            assert dict(zip(TYPES, row[1:], strict=True)) == dict(zip(TYPES, want[1:], strict=True))
        (segment,) = [s for s in found.segments if s.tables]
        assert segment.tables["t"].shape == chunk.page.shape
        assert not [s.events for s in found.segments if s.events]
    kinds = {type: column.kind for type, column in zip(TYPES, chunk.page.shape.columns[1:], strict=True)}
    assert kinds["bit(1)"] is Kind.BOOLEAN
    assert kinds["uuid"] is Kind.UUID


async def test_a_column_computed_by_the_database(world: World) -> None:
    world.run("create table t (id int primary key, a int, v int as (a + 1) virtual, s int as (a + 2) stored)")
    async with world.feed() as feed:
        world.run("insert into t (id, a) values (1, 1)", "update t set a = 2", "delete from t")
        found = await read_all(world, feed)
    assert found.rows() == [("1", "1", "2", "3"), ("1", "2", "3", "4"), ("1", "2", "3", "4")]


async def test_patterns_of_nulls(world: World) -> None:
    count = 9
    columns = ", ".join(f"c{n} {'int' if n % 2 else 'varchar(10)'}" for n in range(count))
    world.run(f"create table t (id int primary key, {columns})")
    rows = [[str(7 * n) if bits >> n & 1 else None for n in range(count)] for bits in range(1 << count)]
    async with world.feed() as feed:
        values = ", ".join(f"({n}, {', '.join(v or 'null' for v in row)})" for n, row in enumerate(rows))
        world.run(f"insert into t values {values}", "update t set id = id + 1000 order by id")
        found = await read_all(world, feed)
    wanted = [(str(n), *row) for n, row in enumerate(rows)] + [(str(n + 1000), *row) for n, row in enumerate(rows)]
    assert found.rows() == wanted
    assert [change.old and change.old[0] for change in found.changes[512:]] == [str(n) for n in range(512)]


@pytest.mark.parametrize(
    "name", sorted(set(CHARACTER_SETS) - {"utf8", "utf8mb3", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32", "gb18030"})
)
def test_character_sets_are_the_servers(world: World, name: str) -> None:
    """Each byte alone, and each pair of bytes where they are double: the same character, or none on one side."""
    decode = text_decoder(name)
    assert decode is not None
    singles = [bytes((n,)) for n in range(256)]
    doubles = [bytes((a, b)) for a in range(0x81, 0xFF, 3) for b in range(0x40, 0xFF, 5)]
    width: Any = world.run(f"select maxlen from information_schema.character_sets where character_set_name = '{name}'")
    candidates = singles + (doubles if int(width[0][0]) > 1 else [])
    differing: list[str] = []
    for raw in candidates:
        try:
            ((text,),) = world.run(f"select convert(convert(x'{raw.hex()}' using {name}) using utf8mb4)")
        except Exception:  # noqa: BLE001
            continue
        if text is None or "?" in str(text) or "\ufffd" in str(text):
            continue
        try:
            mine = decode(raw)
        except ValueError:
            continue
        if mine != text:
            differing.append(f"{raw.hex()}: {mine!r} {text!r}")
    assert not differing


@given(st.integers(1, 65).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, min(p, 38)))), st.binary(max_size=40))
def test_decimals_decode_or_are_refused(digits: tuple[int, int], raw: bytes) -> None:
    size = decimal_size(*digits)
    raw = raw[:size].ljust(size, b"\0")
    try:
        text = decimal_speller(*digits)(raw)
    except ValueError:
        return
    whole, _, rest = text.lstrip("-").partition(".")
    assert len(rest) == digits[1]
    assert len(whole) <= max(1, digits[0] - digits[1])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_read_back(number: float) -> None:
    text = float_text(number)
    assert struct.unpack("<f", struct.pack("<f", float(text)))[0] == number


@given(st.integers(0, 49710))
@settings(max_examples=500)
def test_days_are_the_calendars(day: int) -> None:
    assert day_text(day) == (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
