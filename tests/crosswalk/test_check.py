"""Goal: before a row moves everything is said that is wrong with a table, each with its line, and what may not fit.

Method: a mapping with a mistake in every other line; pairs of columns, one that sends and one that is written to; SQL
that reads back what it writes, and SQL that does not.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crosswalk.check import check, senders_to
from engine.model.entity import Entity
from engine.ports import Finding
from tests.crosswalk.tables import dictionary, mapping, shape

THING = """
[entities.thing]
[entities.thing.fields]
name = {{ type = "text" }}
email = {{ type = "text" }}
count = {{ type = "integer" }}
flag = {{ type = "boolean" }}
seen = {{ type = "timestamp" }}
value = {field}
"""
BLOCK: str = """
[[table]]
name = "t"
entity = "thing"
key = ["id"]
{rest}
"""


def thing(directory: Path, field: str = '{ type = "text" }') -> tuple[str, Entity]:
    extra = THING.format(field=field)
    found = dictionary(directory, extra).entity("thing")
    assert found is not None
    return extra, found


def remarks(found: list[Finding], column: str) -> list[str]:
    return [f"{f.message} {f.hint}" for f in found if f.path == f"t.{column}"]


def test_every_problem_of_a_table_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    extra, entity = thing(tmp_path)
    text = BLOCK.format(
        rest="""
where = "no_such_column > 1"
only = "count > 'x'"
insert = { gone = 1 }
[table.fields]
name = "title"
email = "no_mail"
count = "moment"
flag = { read = "lower(title)", read_only = true }
seen = { column = "moment", read_only = true }
value = { read = "title", write = "made" }
"""
    )
    place = mapping(tmp_path, text, extra=extra).places[0]
    table = shape(
        "t",
        "id bigint assigned",
        "title varchar(10)",
        "moment timestamp",
        "made text generated",
        "must integer notnull",
    )
    found = check(place, table, entity)
    lines = text.splitlines()
    said = {f.path: f.message for f in found if f.is_fatal}
    assert said.keys() == {
        *("t.gone", "t.no_mail", "t.where", "t.only", "t.moment", "t.flag", "t.made", "t.must"),
    }
    for path, line in (
        *(("t.no_mail", 'email = "no_mail"'), ("t.flag", 'flag = { read = "lower(title)", read_only = true }')),
        ("t.made", 'value = { read = "title", write = "made" }'),
    ):
        assert said[path].endswith(f"mapping.toml:{lines.index(line) + 1})"), said[path]
    moments = [f.message for f in found if f.path == "t.moment"]
    assert len(moments) == 2, "one column, two fields, each with its own problem"
    assert all(re.search(r"mapping.toml:\d+\)$", f.message) for f in found), found
    # What can be said of the sound fields is said all the same.
    assert any("10 characters" in text for text in remarks(found, "title"))


PAIRS: list[tuple[str, str, str, str, str]] = [
    # field, option of the target's mapping, what is sent from, what is written to, what is said
    ('{ type = "text" }', "", "varchar(50)", "varchar(20)", "20 characters, thing.value has texts of up to 50"),
    ('{ type = "text" }', "", "text", "varchar(20)", "texts of any length"),
    ('{ type = "text" }', "", "varchar(20)", "varchar(20)", ""),
    ('{ type = "text" }', "", "uuid", "varchar(36)", ""),
    ('{ type = "text" }', "truncate = true", "text", "varchar(20)", ""),
    ('{ type = "text" }', "", "varchar(5)", "character(5)", "drops spaces at the end"),
    ('{ type = "text" }', "", "character(5)", "character(5)", ""),
    ('{ type = "text", length = 5 }', "", "varchar(5)", "varchar(9)", "9 characters, thing.value up to 5"),
    (
        '{ type = "integer" }',
        "",
        "bigint",
        "integer",
        "from -2147483648 to 2147483647, thing.value has numbers from -92",
    ),
    ('{ type = "integer" }', "", "integer", "bigint", ""),
    ('{ type = "integer" }', "", "integer", "integer", ""),
    ('{ type = "integer" }', "", "bigint", "numeric(5,0)", "from -99999 to 99999"),
    ('{ type = "decimal" }', "", "numeric(12,2)", "numeric(9,2)", "to 9999999.99, thing.value has numbers"),
    ('{ type = "decimal" }', "", "numeric(12,4)", "numeric(14,2)", "2 decimals, thing.value has 4 decimals"),
    ('{ type = "decimal" }', "round = 2", "numeric(12,4)", "numeric(14,2)", ""),
    ('{ type = "decimal" }', "", "numeric", "integer", "as many decimals as there are"),
    ('{ type = "decimal" }', "", "integer", "integer", ""),
    ('{ type = "decimal" }', "", "numeric(9,2)", "numeric(9,2)", ""),
    ('{ type = "decimal" }', "", "numeric(9,2)", "double", "floating point"),
    ('{ type = "decimal", scale = 2 }', "", "numeric(9,2)", "numeric(11,4)", "4 decimals, thing.value has 2"),
    ('{ type = "duration" }', "", "interval", "interval(0)", "0 decimals, thing.value has 6 decimals"),
    ('{ type = "duration" }', "", "interval(3)", "interval", ""),
    ('{ type = "boolean" }', "", "boolean", "integer", "yes or no"),
    ('{ type = "boolean" }', "", "integer", "boolean", ""),
    ('{ type = "timestamp" }', "", "timestamptz", "timestamp(0)", "keeps no digits of a second's fraction"),
    ('{ type = "timestamp" }', "", "timestamptz", "timestamptz(3)", "keeps 3 digits of a second's fraction"),
    ('{ type = "timestamp" }', "truncate = true", "timestamptz", "timestamptz(0)", ""),
    ('{ type = "timestamp" }', "", "timestamptz(0)", "timestamptz(0)", ""),
    ('{ type = "timestamp" }', "", "timestamptz", "timestamptz", ""),
    ('{ type = "timestamp" }', 'unit = "unix"', "timestamptz", "bigint", "keeps no digits"),
    ('{ type = "timestamp" }', 'unit = "unix_us"', "timestamptz", "bigint", ""),
    ('{ type = "timestamp" }', 'timezone = "Europe/Berlin"', "timestamptz", "timestamp", "clocks repeat an hour"),
    ('{ type = "timestamp" }', 'timezone = "UTC"', "timestamptz", "timestamp", ""),
    ('{ type = "timestamp" }', 'timezone = "Asia/Tokyo"', "timestamptz", "timestamp", ""),
    ('{ type = "date" }', "", "date", "timestamp", "times of day"),
    ('{ type = "time" }', "", "time", "time(0)", "keeps no digits"),
]


@pytest.mark.parametrize(("field", "option", "sent", "written", "said"), PAIRS)
def test_a_conversion_that_may_lose_something_is_told(
    tmp_path: Path, field: str, option: str, sent: str, written: str, said: str
) -> None:
    extra, entity = thing(tmp_path, field)
    options = f", {option}" if option else ""
    places = [
        mapping(
            tmp_path,
            f'timezone = "UTC"\n{BLOCK.format(rest="[table.fields]")}value = {{ column = "value"{more} }}\n',
            extra=extra,
        ).places[0]
        for more in ("", options)
    ]
    sender, target = (shape("t", "id bigint assigned", f"value {type_}") for type_ in (sent, written))
    senders = senders_to("erp", [("crm", places[0], sender, entity), ("erp", places[1], target, entity)])
    found = check(places[1], target, entity, senders)
    assert [f for f in found if f.is_fatal] == []
    if said:
        (text,) = remarks(found, "value")
        assert said in text
    else:
        assert remarks(found, "value") == []


def test_a_field_that_nobody_else_sends_is_no_doubt(tmp_path: Path) -> None:
    extra, entity = thing(tmp_path)
    place = mapping(tmp_path, BLOCK.format(rest='fields = { value = "value" }'), extra=extra).places[0]
    table = shape("t", "id bigint assigned", "value varchar(5)")
    assert check(place, table, entity, senders_to("erp", [("erp", place, table, entity)])) == []
    assert len(check(place, table, entity)) == 1


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('email = { read = "lower(email)", write = "email" }', "capitals"),
        ('email = { read = "trim(email)", write = "email" }', "a space at the end, a space at the beginning"),
        ('email = { read = "coalesce(email, \'\')", write = "email" }', "null"),
        ('email = { read = "email", write = { email = "upper(email)" } }', "small letters"),
        ('flag = { read = "not closed", write = { closed = "not flag" } }', ""),
        ('count = { read = "100 - n", write = { n = "100 - count" } }', ""),
        ('count = { read = "abs(n)", write = "n" }', "negative numbers"),
        ('email = { read = "lower(email)", read_only = true }', ""),
    ],
)
def test_sql_that_does_not_read_back_what_it_writes_is_told(tmp_path: Path, field: str, said: str) -> None:
    extra, entity = thing(tmp_path)
    place = mapping(tmp_path, BLOCK.format(rest=f"[table.fields]\n{field}"), extra=extra).places[0]
    found = check(place, shape("t", "id bigint assigned", "email text", "closed boolean", "n integer"), entity)
    assert [f for f in found if f.is_fatal] == []
    name = field.partition(" ")[0]
    told = [f.message for f in found if f.path == f"t.{name}" and "read back" in f.message]
    assert ([said in text for text in told] == [True]) if said else (told == [])
