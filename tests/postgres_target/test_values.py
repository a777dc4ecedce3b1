"""Goal: a text that came from a PostgreSQL arrives as that text, whatever its type and whichever way it was written.

Method: values at the edges of each type go in by each way of writing and are read back under the spelling of
`Form.TEXT`; texts of any characters are drawn at random, through the server and through COPY's escaping alone.
"""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import RowRefused
from engine.ports import TableWrite
from plugins.postgres import apply_delivery
from plugins.postgres.apply_text import PIECE_BYTES, SOME_ROWS, Pieces, copy_text, text_rows
from tests.postgres_target.support import World, insert, update

VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": [
        "0",
        "-0.000000000000000000000000000001",
        "1.500",
        "123456789012345678901234567890.12",
        "NaN",
        "Infinity",
    ],
    "numeric(12,2)": ["-9999999999.99", "0.10"],
    "real": ["1.1754944e-38", "-Infinity", "NaN", "0.1"],
    "double precision": ["0.1", "1e-323", "1.7976931348623157e+308", "-0"],
    "money": ["-$92,233,720,368,547,758.08", "$0.05"],
    "text": ["", " a ", "\\N", "\\", "\\.", "NULL", "{}", "tab\tline\nreturn\rback\\slash", "żółć 🏳️‍🌈", "'\"`$1;--"],
    "varchar(5)": ["", "abcde", "ab   "],
    "char(5)": ["ab   ", "     "],
    '"char"': ["a", ""],
    "name": ["concord"],
    "bytea": ["\\x", "\\x00ff5c4e0a"],
    "boolean": ["t", "f"],
    "date": ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"],
    "time": ["00:00:00", "24:00:00", "13:05:00.25"],
    "time(3)": ["13:05:00.25"],
    "timetz": ["13:05:00.25+00", "13:05:00+05:30"],
    "timestamp": ["2024-02-29 13:05:00.000001", "infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2024-02-29 13:05:00.25+00", "-infinity", "0001-01-01 00:00:00+00 BC"],
    "interval": ["PT0S", "P1Y2M3DT4H5M6.789S", "P-1Y-2M3DT-4H-5M-6.5S", "P-178000000Y"],
    "interval day to second": ["P3DT4H5M6.5S"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "json": ['{"a": 1.0, "a":\t"\\u00e9\\n\\\\"}', "null", '""'],
    "jsonb": ['{"a": 1.0, "b": ["\\"", "\\\\", "é"]}', "null"],
    "xml": ['<a b="c">&amp;</a>', ""],
    "jsonpath": ['$."a"?(@ > 1)'],
    "bit(4)": ["0101"],
    "bit varying": ["", "10101"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(1.5,-2)"],
    "box": ["(2,2),(1,1)"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1)]"],
    "circle": ["<(1,1),2>"],
    "tsvector": ["'a':1 'b c'"],
    "tsquery": ["'a' & 'b'"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "numrange": ["[1.10,2.2]"],
    "tstzrange": ['["2024-01-01 00:00:00+00",infinity)'],
    "int4multirange": ["{[1,3),[5,7)}", "{}"],
    "integer[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={1,2}"],
    "text[]": ['{"",NULL,"NULL","a\\\\b","c\\"d","e,f","tab\tx","line\ny"}'],
    "varchar(3)[]": ["{abc,de}"],
    "char(3)[]": ['{abc,"de "}'],
    "timestamptz[]": ['{"2024-02-29 13:05:00+00",infinity}'],
    "numeric(6,2)[]": ["{1.10,NULL}"],
    "mood": ["so-so", "a, \"b\" 'c'"],
    "mood[]": ['{so-so,"a, \\"b\\" \'c\'"}'],
    "postcode": ["12345"],
    "pair": ['(1,"a ""b"", (c)")', "(,)", '(,"")'],
    "pg_lsn": ["16/B374D848"],
    "oid": ["4294967295"],
    '"Odd schema"."Odd type"': ["x", "y"],
}

SCHEMA = """
create type mood as enum ('so-so', 'a, "b" ''c''');
create domain postcode as varchar(5) check (value ~ '^[0-9]+$');
create type pair as (a int, b text);
create schema "Odd schema";
create type "Odd schema"."Odd type" as enum ('x', 'y')
"""

SPELLING = (
    "set timezone = 'UTC'",
    "set datestyle = 'ISO, MDY'",
    "set intervalstyle = 'iso_8601'",
    "set bytea_output = 'hex'",
    "set lc_monetary = 'C'",
)

WAYS = {"copy": None, "upsert": None, "arrays": 10**9, "staged": 0}


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_every_type_arrives_as_it_was_spelt(world: World, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = _offered(world)
    columns = [f"v{n}" for n in range(len(offered))]
    definition = ", ".join(f"{column} {type_}" for column, type_ in zip(columns, offered, strict=True))
    world.run(*SCHEMA.split(";\n"), *SPELLING, f"create table t (id int primary key, {definition})")
    count = max(map(len, offered.values()))
    rows = [(str(n), *(values[n] if n < len(values) else None for values in offered.values())) for n in range(count)]
    if way != "copy":
        world.run(f"insert into t select generate_series(0, {count - 1})")
    if (limit := WAYS[way]) is not None:
        monkeypatch.setattr(apply_delivery, "STAGED_ROWS_MIN", limit)
    write = insert if way in ("copy", "upsert") else update

    await world.deliver_alone(write("public.t", ("id", *columns), rows))

    texts = ", ".join(f"case when num_nonnulls({c}) = 1 then format('%s', {c}) end" for c in columns)
    found = world.rows(f"select id::text, {texts} from t order by t.id")
    for n, type_ in enumerate(offered, 1):
        assert [row[n] for row in found] == [row[n] for row in rows], type_


def _offered(world: World) -> dict[str, list[str]]:
    """All types but xml, where the server was built without it."""
    try:
        world.rows("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return {type_: values for type_, values in VALUES.items() if type_ != "xml"}
    return VALUES


@pytest.mark.anyio
async def test_identity_columns_take_the_value_they_are_given(world: World) -> None:
    world.run(
        "create table t (id int primary key, a int generated always as identity,"
        " b int generated by default as identity, double int generated always as (id * 2) stored)"
    )
    columns, rows = ("id", "a", "b"), [("1", "10", "20"), ("2", "11", "21")]

    await world.deliver_alone(insert("public.t", columns, rows))
    await world.deliver_alone(insert("public.t", ("a", "id"), [("12", "3")], key=("a",)))

    assert world.rows("select * from t order by id") == [(1, 10, 20, 2), (2, 11, 21, 4), (3, 12, 1, 6)]


TEXTS = st.one_of(
    st.none(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.text("\\\t\n\r\"'{},.N \x01\x7f\x85\u2028a", max_size=8),
    st.sampled_from(["", "\\N", "\\.", "NULL", "null", "\\\\N", "\\x41", "\ufeff"]),
)


@pytest.mark.anyio
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12))
async def test_any_text_survives_any_way_of_writing(world: World, texts: list[tuple[str | None, str | None]]) -> None:
    world.run("drop table if exists t", "create table t (id int primary key, a text, b text)")
    columns, rows = ("a", "id", "b"), [(a, str(n), b) for n, (a, b) in enumerate(texts)]
    ways: list[tuple[int, TableWrite]] = [
        (0, insert("public.t", columns, rows)),
        (0, insert("public.t", columns, rows)),
        (0, update("public.t", columns, rows)),
        (10**9, update("public.t", columns, rows)),
    ]
    before = apply_delivery.STAGED_ROWS_MIN
    try:
        async with world.session("public.t") as session:
            for limit, write in ways:
                apply_delivery.STAGED_ROWS_MIN = limit
                await world.deliver(session, write)
                assert world.rows("select a, b from t order by id") == texts
                world.run("update t set a = 'other', b = 'other'")
    finally:
        apply_delivery.STAGED_ROWS_MIN = before


@given(rows=st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[TEXTS] * width), min_size=1, max_size=5)))
def test_copy_text_reads_back_as_the_rows(rows: list[tuple[str | None, ...]]) -> None:
    write = insert("public.t", [f"c{n}" for n in range(len(rows[0]))], rows)
    text = copy_text("crm", write).decode()
    assert text.endswith("\n")
    read = [tuple(map(_unescaped, line.split("\t"))) for line in text[:-1].split("\n")]
    assert read == text_rows(write)
    assert "\r" not in text


@given(
    st.dictionaries(st.integers(0, 2 * SOME_ROWS + 20), st.tuples(TEXTS, TEXTS), max_size=6),
    st.sampled_from((SOME_ROWS - 1, SOME_ROWS, SOME_ROWS + 1, 2 * SOME_ROWS + 21)),
)
def test_what_one_part_of_a_copy_needs_does_not_reach_into_the_others(
    odd: dict[int, tuple[str | None, ...]], size: int
) -> None:
    rows = [odd.get(n, (str(n), "plain")) for n in range(size)]
    text = copy_text("crm", insert("public.t", ["a", "b"], rows)).decode()
    assert [tuple(map(_unescaped, line.split("\t"))) for line in text[:-1].split("\n")] == rows


@pytest.mark.parametrize(("text", "what"), [("a\0b", "a NUL character"), ("a\ud800", "half a surrogate pair")])
@pytest.mark.parametrize("at", [0, SOME_ROWS, 2 * SOME_ROWS + 3])
def test_what_no_text_can_hold_is_told_with_its_row(text: str, what: str, at: int) -> None:
    rows: list[tuple[str | None, ...]] = [(str(n), "plain") for n in range(2 * SOME_ROWS + 5)]
    rows[at] = (str(at), text)
    with pytest.raises(RowRefused) as refused:
        copy_text("crm", insert("public.t", ["a", "b"], rows))
    assert what in refused.value.message
    assert refused.value.row_index == at


def _unescaped(field: str) -> str | None:
    """What PostgreSQL's documentation of COPY says of its text format."""
    if field == "\\N":
        return None
    found: list[str] = []
    characters = iter(field)
    for character in characters:
        found.append(
            {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[next(characters)] if character == "\\" else character
        )
    return "".join(found)


@pytest.mark.anyio
async def test_pieces_are_the_whole() -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 128) + b"end"
    pieces = [bytes(piece) async for piece in Pieces(content)]
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 3]
