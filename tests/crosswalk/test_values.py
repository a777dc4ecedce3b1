"""Goal: no value is changed on its way. What a column cannot hold is refused; what it holds comes back the same.

Method: for every type of field and every kind of column that can carry it, in both forms, random canonical values are
written and read back, and random wire values are read (canonical or refused) and written back. The canonical spellings
are checked against `engine.model.value`; PostgreSQL itself is asked to store what the writer makes.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosswalk import convert, lists
from crosswalk.carry import Cell, Names, Unfit
from crosswalk.carry_read import reading_code
from crosswalk.carry_write import writing_code
from crosswalk.compile import REFUSALS
from crosswalk.convert import Loss
from engine.model.entity import Field, Type
from engine.model.table import Column, Form, Kind
from engine.model.value import ABSENT
from tests.crosswalk.tables import column

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
NUMBERS = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=6).map(lambda d: format(d, "f"))


def number(places: int | None) -> st.SearchStrategy[str]:
    if places is None:
        return NUMBERS.map(lambda text: convert.decimal_text(text, None))
    return st.decimals(-(10**9), 10**9, places=places).map(lambda d: convert.decimal_text(format(d, "f"), places))


INSTANTS = st.datetimes().map(convert.utc_text)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
).map(lambda value: convert.json_text(json.dumps(value)))
# What an array's text must quote, and what looks like something else there.
ODD_TEXTS = [
    "",
    " ",
    "NULL",
    "null",
    "a,b",
    "{}",
    "{a}",
    '"',
    '\\"',
    "\\",
    "[1:2]={1}",
    "a b",
    "\u00a0",
    "\t",
    "\n",
    "'",
    "Zoë 𝄞",
]


def listed(of: Type, elements: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.lists(st.none() | elements, max_size=6).map(lambda parts: lists.canonical(of, parts))


FIELDS: dict[str, tuple[Field, st.SearchStrategy[Any]]] = {
    "text": (Field(name="f", type=Type.TEXT), TEXTS | st.sampled_from(ODD_TEXTS)),
    "short": (Field(name="f", type=Type.TEXT, length=10), TEXTS.map(lambda text: text[:10])),
    "country": (Field(name="f", type=Type.TEXT, unit="ISO 3166-1"), st.sampled_from(["DE", "GB"])),
    "integer": (Field(name="f", type=Type.INTEGER), st.integers(-(2**63), 2**63 - 1)),
    "decimal": (Field(name="f", type=Type.DECIMAL), number(None)),
    "money": (Field(name="f", type=Type.MONEY, scale=2), number(2)),
    "duration": (Field(name="f", type=Type.DURATION), number(None)),
    "boolean": (Field(name="f", type=Type.BOOLEAN), st.booleans()),
    "date": (Field(name="f", type=Type.DATE), st.dates().map(str)),
    "time": (Field(name="f", type=Type.TIME), st.times().map(lambda t: convert.time_text(t.isoformat()))),
    "timestamp": (Field(name="f", type=Type.TIMESTAMP), INSTANTS),
    "enum": (Field(name="f", type=Type.ENUM, values=("a", "b")), st.sampled_from("ab")),
    "reference": (Field(name="f", type=Type.REFERENCE, reference="x"), st.integers(1, 2**31 - 1).map(str)),
    "json": (Field(name="f", type=Type.JSON), JSONS),
    "binary": (Field(name="f", type=Type.BINARY), st.binary(max_size=20).map(bytes.hex)),
    "texts": (Field(name="f", type=Type.LIST, of=Type.TEXT), listed(Type.TEXT, TEXTS | st.sampled_from(ODD_TEXTS))),
    "integers": (Field(name="f", type=Type.LIST, of=Type.INTEGER), listed(Type.INTEGER, st.integers(-(2**63), 2**63))),
    "decimals": (Field(name="f", type=Type.LIST, of=Type.DECIMAL), listed(Type.DECIMAL, number(None))),
    "booleans": (Field(name="f", type=Type.LIST, of=Type.BOOLEAN), listed(Type.BOOLEAN, st.booleans())),
    "dates": (Field(name="f", type=Type.LIST, of=Type.DATE), listed(Type.DATE, st.dates().map(str))),
    "moments": (Field(name="f", type=Type.LIST, of=Type.TIMESTAMP), listed(Type.TIMESTAMP, INSTANTS)),
    "uuids": (Field(name="f", type=Type.LIST, of=Type.TEXT), listed(Type.TEXT, st.uuids().map(str))),
}
PAIRS: list[tuple[str, Form, str, dict[str, Any]]] = [
    ("text", Form.TEXT, "text", {}),
    ("text", Form.TEXT, "varchar(5)", {}),
    ("short", Form.TEXT, "text", {}),
    ("country", Form.TEXT, "text", {}),
    ("country", Form.TEXT, "character(2)", {}),
    ("integer", Form.TEXT, "smallint", {}),
    ("integer", Form.TEXT, "integer", {}),
    ("integer", Form.TEXT, "bigint", {}),
    ("integer", Form.TEXT, "numeric(30,0)", {}),
    ("integer", Form.TEXT, "text", {}),
    ("integer", Form.TEXT, "double", {}),
    ("decimal", Form.TEXT, "numeric", {}),
    ("decimal", Form.TEXT, "numeric(12,2)", {}),
    ("decimal", Form.TEXT, "double", {}),
    ("decimal", Form.TEXT, "real", {}),
    ("decimal", Form.TEXT, "integer", {}),
    ("money", Form.TEXT, "numeric(12,2)", {}),
    ("money", Form.TEXT, "numeric(9,2)", {}),
    ("money", Form.TEXT, "numeric(12,4)", {}),
    ("money", Form.TEXT, "numeric", {}),
    ("money", Form.TEXT, "bigint", {"unit": "0.01"}),
    ("money", Form.TEXT, "text", {}),
    ("duration", Form.TEXT, "interval", {}),
    ("duration", Form.TEXT, "interval(2)", {}),
    ("duration", Form.TEXT, "integer", {"unit": "min"}),
    ("duration", Form.TEXT, "numeric(12,4)", {"unit": "h"}),
    ("duration", Form.TEXT, "double", {"unit": "h"}),
    ("boolean", Form.TEXT, "boolean", {}),
    ("boolean", Form.TEXT, "integer", {}),
    ("boolean", Form.TEXT, "text", {"values": {"Y": True, "N": False}}),
    ("date", Form.TEXT, "date", {}),
    ("date", Form.TEXT, "timestamp", {}),
    ("date", Form.TEXT, "text", {}),
    ("date", Form.TEXT, "bigint", {"unit": "unix"}),
    ("time", Form.TEXT, "time", {}),
    ("time", Form.TEXT, "text", {}),
    ("timestamp", Form.TEXT, "timestamptz", {}),
    ("timestamp", Form.TEXT, "timestamp", {"zone": "UTC"}),
    ("timestamp", Form.TEXT, "timestamp", {"zone": "Europe/Berlin"}),
    ("timestamp", Form.TEXT, "text", {"zone": "UTC"}),
    ("timestamp", Form.TEXT, "bigint", {"unit": "unix_us"}),
    ("timestamp", Form.TEXT, "bigint", {"unit": "unix"}),
    ("timestamp", Form.TEXT, "timestamptz(0)", {}),
    ("timestamp", Form.TEXT, "timestamp(3)", {"zone": "UTC"}),
    ("time", Form.TEXT, "time(0)", {}),
    ("text", Form.TEXT, "character(9)", {}),
    ("texts", Form.TEXT, "character(9)[]", {}),
    ("moments", Form.TEXT, "timestamptz(1)[]", {}),
    ("enum", Form.TEXT, "text", {}),
    ("enum", Form.TEXT, "smallint", {"values": {"0": "a", "1": "b"}}),
    ("reference", Form.TEXT, "bigint", {}),
    ("reference", Form.TEXT, "text", {}),
    ("reference", Form.TEXT, "numeric", {}),
    ("json", Form.TEXT, "jsonb", {}),
    ("json", Form.TEXT, "text", {}),
    ("binary", Form.TEXT, "bytea", {}),
    ("texts", Form.TEXT, "text[]", {}),
    ("texts", Form.TEXT, "varchar(3)[]", {}),
    ("texts", Form.TEXT, "jsonb", {}),
    ("texts", Form.TEXT, "text", {}),
    ("texts", Form.TEXT, "varchar(20)", {}),
    ("integers", Form.TEXT, "smallint[]", {}),
    ("integers", Form.TEXT, "bigint[]", {}),
    ("integers", Form.TEXT, "jsonb", {}),
    ("decimals", Form.TEXT, "numeric[]", {}),
    ("decimals", Form.TEXT, "numeric(9,2)[]", {}),
    ("booleans", Form.TEXT, "boolean[]", {}),
    ("booleans", Form.TEXT, "text", {}),
    ("dates", Form.TEXT, "date[]", {}),
    ("moments", Form.TEXT, "timestamptz[]", {}),
    ("moments", Form.TEXT, "timestamp[]", {"zone": "Europe/Berlin"}),
    ("uuids", Form.TEXT, "uuid[]", {}),
    ("text", Form.NATIVE, "text", {}),
    ("short", Form.NATIVE, "text", {}),
    ("integer", Form.NATIVE, "integer", {}),
    ("integer", Form.NATIVE, "text", {}),
    ("decimal", Form.NATIVE, "numeric", {}),
    ("decimal", Form.NATIVE, "real", {}),
    ("decimal", Form.NATIVE, "text", {}),
    ("money", Form.NATIVE, "numeric", {}),
    ("money", Form.NATIVE, "integer", {"unit": "0.01"}),
    ("duration", Form.NATIVE, "integer", {"unit": "min"}),
    ("duration", Form.NATIVE, "real", {"unit": "h"}),
    ("boolean", Form.NATIVE, "boolean", {}),
    ("boolean", Form.NATIVE, "integer", {}),
    ("date", Form.NATIVE, "text", {}),
    ("time", Form.NATIVE, "text", {}),
    ("timestamp", Form.NATIVE, "datetime", {"zone": "UTC"}),
    ("timestamp", Form.NATIVE, "datetime", {"zone": "America/New_York"}),
    ("timestamp", Form.NATIVE, "integer", {"unit": "unix_ms"}),
    ("enum", Form.NATIVE, "text", {}),
    ("enum", Form.NATIVE, "integer", {"values": {"0": "a", "1": "b"}}),
    ("reference", Form.NATIVE, "integer", {}),
    ("reference", Form.NATIVE, "text", {}),
    ("json", Form.NATIVE, "text", {}),
    ("binary", Form.NATIVE, "blob", {}),
    ("texts", Form.NATIVE, "text", {}),
    ("integers", Form.NATIVE, "text", {}),
    ("moments", Form.NATIVE, "text", {"zone": "UTC"}),
]
IDS = [f"{name}-{form.value}-{type_}{''.join(map(str, extra.values()))}" for name, form, type_, extra in PAIRS]
POSTGRES_TYPES = {"double": "double precision"}


def both_ways(name: str, form: Form, type_: str, extra: dict[str, Any]) -> tuple[Any, Any]:
    """(read, write): functions made from the generated code."""
    options = dict(extra)
    if "zone" in options:
        options["zone"] = convert.ZoneInfo(options["zone"])
    cell = Cell(field=FIELDS[name][0], column=column(f"c {type_}", form), form=form, **options)
    found: list[Any] = []
    for code_of in (reading_code, writing_code):
        names = Names()
        code = code_of(cell, names).replace("{v}", "v")
        found.append(eval(f"lambda v: {code}", dict(names.objects)))
    return found[0], found[1]


def is_canonical(value: Any, field: Field) -> bool:
    """Whether a value has the one spelling of `engine.model.value`."""
    match field.type:
        case Type.TEXT | Type.ENUM | Type.REFERENCE:
            return type(value) is str
        case Type.INTEGER:
            return type(value) is int
        case Type.BOOLEAN:
            return type(value) is bool
        case Type.DECIMAL | Type.MONEY | Type.DURATION if field.scale is None:
            return bool(re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", value)) and value != "-0"
        case Type.DECIMAL | Type.MONEY | Type.DURATION:
            is_zero = Decimal(value) == 0
            return bool(re.fullmatch(rf"-?(0|[1-9]\d*)\.\d{{{field.scale}}}", value)) and not (
                is_zero and value[0] == "-"
            )
        case Type.DATE:
            return bool(re.fullmatch(r"\d{4,}-\d\d-\d\d( BC)?|-?infinity", value))
        case Type.TIME:
            return bool(re.fullmatch(r"\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?", value))
        case Type.TIMESTAMP:
            return bool(re.fullmatch(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{0,5}[1-9])?\+00( BC)?|-?infinity", value))
        case Type.JSON:
            return convert.json_text(value) == value
        case Type.LIST:
            parts = json.loads(value, parse_float=str, parse_int=str)
            assert field.of is not None
            plain = [int(part) if field.of is Type.INTEGER and part is not None else part for part in parts]
            return lists.canonical(field.of, plain) == value and all(
                part is None or is_canonical(part, Field(name="f", type=field.of)) for part in plain
            )
        case Type.BINARY:
            return bytes.fromhex(value).hex() == value


@pytest.mark.parametrize(("name", "form", "type_", "extra"), PAIRS, ids=IDS)
def test_what_is_written_is_read_back_or_was_refused(name: str, form: Form, type_: str, extra: dict[str, Any]) -> None:
    read, write = both_ways(name, form, type_, extra)
    written = 0

    @settings(max_examples=120, deadline=None)
    @given(value=FIELDS[name][1])
    def survive(value: Any) -> None:
        nonlocal written
        assert is_canonical(value, FIELDS[name][0])
        try:
            wire = write(value)
        except Loss:
            return
        written += 1
        assert form is not Form.TEXT or type(wire) is str
        back = read(wire)
        assert (type(back), back) == (type(value), value)

    survive()
    assert written, "everything was refused"
    assert write(None) is None
    assert read(None) is None
    assert read(ABSENT) is ABSENT


WIRES = (
    TEXTS
    | st.sampled_from(
        [
            "",
            "t",
            "f",
            "NaN",
            "Infinity",
            "-Infinity",
            "infinity",
            "0",
            "-0",
            "1e5",
            "00012.500",
            "2024-02-30",
            "2024-02-29",
            "0044-03-15 BC",
            "12024-01-01",
            "24:00:00",
            "2024-02-29 13:05:00.250000+00",
            "PT1H",
            "P1Y",
            "2024-02-29T13:05:00Z",
            "2024-03-31 02:30:00",
            "{",
            "[1, 2]",
            '{"b": 1.0, "a": null}',
            "{}",
            "{1,NULL,-3}",
            "{a,b c}",
            '{"a,b","c\\"d",NULL,"NULL",""}',
            "{{1,2},{3,4}}",
            "[0:1]={1,2}",
            "{t,f}",
            '{"2024-02-29 13:05:00+00",infinity}',
            "{NaN}",
            '[1, 2.50, null, "a", [1], true]',
            '["a",  null]',
            "\\x00ff",
            "é" * 300,
            "1" * 500,
            "9" * 30,
            "٣",
            " 5",
            "5 ",
            "+5",
            "0x10",
            "1_000",
        ]
    )
    | NUMBERS
    | st.integers().map(str)
    | INSTANTS
)
NATIVES = WIRES | st.integers() | st.floats() | st.binary(max_size=10) | st.booleans()


@pytest.mark.parametrize(("name", "form", "type_", "extra"), PAIRS, ids=IDS)
def test_any_wire_value_becomes_canonical_or_is_refused(
    name: str, form: Form, type_: str, extra: dict[str, Any]
) -> None:
    read, _ = both_ways(name, form, type_, extra)
    trusted = _trusted(name, type_)

    @settings(max_examples=150, deadline=None)
    @given(value=WIRES if form is Form.TEXT else NATIVES)
    def convert_or_refuse(value: Any) -> None:
        try:
            found = read(value)
        except REFUSALS:
            return
        assert trusted or found is None or is_canonical(found, FIELDS[name][0])

    convert_or_refuse()


def _trusted(name: str, type_: str) -> bool:
    """Columns whose database spells every value canonically by itself: nothing is looked at."""
    return (name, type_) in {
        ("date", "date"),
        ("time", "time"),
        ("timestamp", "timestamptz"),
        ("timestamp", "timestamptz(0)"),
        ("time", "time(0)"),
        ("money", "numeric(12,2)"),
        ("money", "numeric(9,2)"),
    }


@pytest.mark.parametrize(
    ("name", "form", "type_", "extra"),
    [pair for pair in PAIRS if pair[1] is Form.TEXT],
    ids=[i for i in IDS if "-text-" in i],
)
def test_postgres_stores_what_is_written_and_spells_it_as_it_is_read(
    name: str, form: Form, type_: str, extra: dict[str, Any], postgres_dsn: str
) -> None:
    read, write = both_ways(name, form, type_, extra)
    real = POSTGRES_TYPES.get(type_, type_)
    options = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c bytea_output=hex"
    with psycopg.connect(postgres_dsn, autocommit=True, options=options) as connection:

        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(value=FIELDS[name][1])
        def stored(value: Any) -> None:
            try:
                wire = write(value)
            except Loss:
                return
            if real == "jsonb" and "\\u0000" in wire:
                return
            query = f"select (%s::text::{real})::text"
            row = connection.execute(query.encode(), (wire,)).fetchone()
            assert row is not None
            text = {"true": "t", "false": "f"}.get(row[0], row[0]) if real == "boolean" else row[0]
            back = read(text)
            # jsonb keeps numbers as numeric: 1e+16 comes back as 10000000000000000.
            assert exact_json(back) == exact_json(value) if real == "jsonb" else back == value

        stored()


def exact_json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@pytest.mark.parametrize(
    ("name", "type_", "hint"),
    [
        ("timestamp", "timestamp", "timezone"),
        ("date", "timestamptz", "at time zone"),
        ("boolean", "text", "values"),
        ("timestamp", "bigint", "unix"),
        ("json", "bytea", "another column"),
        ("text", "text[]", "list"),
        ("dates", "integer[]", "another column"),
        ("moments", "timestamp[]", "timezone"),
        ("texts", "integer", "another column"),
    ],
)
def test_a_column_that_cannot_carry_a_field_says_what_to_do(name: str, type_: str, hint: str) -> None:
    with pytest.raises(Unfit) as raised:
        both_ways(name, Form.TEXT, type_, {})
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    "declared",
    [
        Column(name="c", kind=Kind.TEXT, type="set('a','b')"),
        Column(name="c", kind=Kind.ARRAY, type="box[]", element=Column(name="e", kind=Kind.OTHER, type="box")),
    ],
)
def test_what_holds_several_values_otherwise_is_no_list(declared: Column) -> None:
    with pytest.raises(Unfit):
        reading_code(Cell(field=FIELDS["texts"][0], column=declared, form=Form.TEXT), Names())


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("-0", "0"), ("-0.00", "0"), ("12.500", "12.5"), ("1e3", "1000"), ("00.1", "0.1"), ("1E-2", "0.01"), ("+3", "3")],
)
def test_each_decimal_has_one_spelling(text: str, spelled: str) -> None:
    assert convert.decimal_text(text, None) == spelled


def test_nan_is_refused_unless_the_mapping_takes_it_for_null() -> None:
    every = ("NaN", "Infinity", "-Infinity")
    # A numeric with a precision holds no infinity, PostgreSQL says: "numeric field overflow".
    for name, type_, values in (
        *(("decimal", "numeric", every), ("integer", "numeric", every), ("decimal", "double", every)),
        ("money", "numeric(12,2)", ("NaN",)),
    ):
        read, _ = both_ways(name, Form.TEXT, type_, {})
        for value in values:
            with pytest.raises(Loss, match="finite"):
                read(value)
    read, write = both_ways("decimal", Form.TEXT, "numeric", {"default": "NaN"})
    assert (read("NaN"), write(None), read("1.5"), write("1.5")) == (None, "NaN", "1.5", "1.5")


def test_the_hour_that_clocks_repeat_is_refused_rather_than_mixed_up() -> None:
    _, write = both_ways("timestamp", Form.TEXT, "timestamp", {"zone": "Europe/Berlin"})
    assert write("2023-10-29 00:30:00+00") == "2023-10-29 02:30:00"
    with pytest.raises(Loss):
        write("2023-10-29 01:30:00+00")


@pytest.mark.parametrize(
    ("name", "type_", "extra", "value", "cut"),
    [
        ("timestamp", "timestamptz(0)", {}, "2024-02-29 23:59:59.999999+00", "2024-02-29 23:59:59+00"),
        ("timestamp", "timestamp(3)", {"zone": "Europe/Berlin"}, "2024-02-29 13:05:00.0004+00", "2024-02-29 14:05:00"),
        ("timestamp", "bigint", {"unit": "unix"}, "1970-01-01 00:01:00.9+00", "60"),
        ("timestamp", "bigint", {"unit": "unix_ms"}, "1970-01-01 00:01:00.9+00", "60900"),
        ("time", "time(1)", {}, "13:05:00.25", "13:05:00.2"),
        ("text", "character(3)", {}, "ab cd", "ab"),
    ],
)
def test_what_a_column_does_not_keep_is_refused_or_cut_where_the_mapping_says_so(
    name: str, type_: str, extra: dict[str, Any], value: str, cut: str
) -> None:
    _, write = both_ways(name, Form.TEXT, type_, extra | {"truncate": True})
    assert write(value) == cut
    if type_ != "bigint" or cut == "60":
        _, write = both_ways(name, Form.TEXT, type_, extra)
        with pytest.raises(Loss):
            write(value)


def test_an_interval_of_whole_seconds_is_rounded_where_the_mapping_says_so() -> None:
    _, write = both_ways("duration", Form.TEXT, "interval(0)", {"round": 0})
    assert write("61.6") == "PT0H1M2S"
    _, write = both_ways("duration", Form.TEXT, "interval(0)", {})
    with pytest.raises(Loss, match="1 decimals"):
        write("61.6")


def test_zero_point_one_in_a_float_column_is_one_tenth() -> None:
    read, _ = both_ways("decimal", Form.NATIVE, "real", {})
    assert read(0.1) == "0.1"
    assert read(0.1 + 0.2) == "0.30000000000000004"


def test_a_float_column_gets_no_zeros_at_the_end() -> None:
    _, write = both_ways("decimal", Form.TEXT, "double precision", {"round": 6})
    assert (write("53.5413"), write("20")) == ("53.5413", "20")
    _, write = both_ways("money", Form.TEXT, "double precision", {})
    assert write("15.90") == "15.9"


def test_a_zoned_timestamp_is_let_through_only_when_it_is_spelt_canonically() -> None:
    read, _ = both_ways("timestamp", Form.TEXT, "timestamptz", {})
    assert read("2024-02-29 13:05:00.25+00") == "2024-02-29 13:05:00.25+00"
    assert read("2024-02-29 13:05:00+01") == "2024-02-29 12:05:00+00"
    assert read("infinity") == "infinity"
    with pytest.raises(Loss):
        read("2024-02-29 13:05:00")
