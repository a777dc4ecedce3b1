"""Goal: a value has one spelling, whatever type it has, whichever way it comes and however the database is set up.
Method: a row of every type a business table has, in a database whose defaults spell everything differently; the feed's
row and the page's row are compared with each other and with the spelling that `Form.TEXT` promises."""

from __future__ import annotations

import pytest

from engine.model.table import Kind, Shape
from tests.postgres_source.support import World, flat

VALUES = [
    ("text", "'Grüße, 世界 🙂'", Kind.TEXT, "Grüße, 世界 🙂"),
    ("varchar(20)", "''", Kind.TEXT, ""),
    ("char(5)", "'ab'", Kind.TEXT, "ab   "),
    ("name", "'nm'", Kind.TEXT, "nm"),
    ('"char"', "'x'", Kind.TEXT, "x"),
    ("smallint", "-32768", Kind.INTEGER, "-32768"),
    ("integer", "7", Kind.INTEGER, "7"),
    ("bigint", "9223372036854775807", Kind.INTEGER, "9223372036854775807"),
    ("numeric(12,2)", "1234.5", Kind.DECIMAL, "1234.50"),
    ("numeric", "'0.10000000000000000000001'", Kind.DECIMAL, "0.10000000000000000000001"),
    ("numeric", "'NaN'", Kind.DECIMAL, "NaN"),
    ("real", "0.1", Kind.FLOAT, "0.1"),
    ("double precision", "0.1::float8 + 0.2", Kind.FLOAT, "0.30000000000000004"),
    ("double precision", "'-Infinity'", Kind.FLOAT, "-Infinity"),
    ("boolean", "true", Kind.BOOLEAN, "t"),
    ("boolean", "false", Kind.BOOLEAN, "f"),
    ("date", "'2024-02-29'", Kind.DATE, "2024-02-29"),
    ("date", "'infinity'", Kind.DATE, "infinity"),
    ("date", "'0044-03-15 BC'", Kind.DATE, "0044-03-15 BC"),
    ("time", "'13:05:00.25'", Kind.TIME, "13:05:00.25"),
    ("timestamp", "'2024-02-29 13:05:00.25'", Kind.TIMESTAMP, "2024-02-29 13:05:00.25"),
    ("timestamp(0)", "'infinity'", Kind.TIMESTAMP, "infinity"),
    ("timestamptz", "'2024-02-29 13:05:00.25+02'", Kind.INSTANT, "2024-02-29 11:05:00.25+00"),
    ("timestamptz", "'-infinity'", Kind.INSTANT, "-infinity"),
    ("timetz", "'13:05:00+02'", Kind.OTHER, "13:05:00+02"),
    ("interval", "'1 year 2 months 3 days 04:05:06.7'", Kind.INTERVAL, "P1Y2M3DT4H5M6.7S"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", Kind.UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", "'\\x00ff5c'", Kind.BINARY, "\\x00ff5c"),
    ("json", '\'{"b": 1,  "a": [1.0]}\'', Kind.JSON, '{"b": 1,  "a": [1.0]}'),
    ("jsonb", '\'{"b": 1,  "a": [1.0]}\'', Kind.JSON, '{"a": [1.0], "b": 1}'),
    ("text[]", "array['a,b', 'c\"d', null, '']", Kind.ARRAY, '{"a,b","c\\"d",NULL,""}'),
    ("integer[]", "'{{1,2},{3,4}}'", Kind.ARRAY, "{{1,2},{3,4}}"),
    ("timestamptz[]", "'{2024-01-01 00:00:00+01}'", Kind.ARRAY, '{"2023-12-31 23:00:00+00"}'),
    ("mood", "'glad'", Kind.ENUM, "glad"),
    ("email", "'A@b.c'", Kind.TEXT, "A@b.c"),
    ("price", "19.9", Kind.DECIMAL, "19.90"),
    ("int4range", "'[1,5)'", Kind.OTHER, "[1,5)"),
    ("tstzrange", "'[2024-01-01 00:00+00,)'", Kind.OTHER, '["2024-01-01 00:00:00+00",)'),
    ("inet", "'10.0.0.1/8'", Kind.OTHER, "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", Kind.OTHER, "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", Kind.OTHER, "08:00:2b:01:02:03"),
    ("money", "'1234.5'", Kind.OTHER, "$1,234.50"),
    # Not every server is built with libxml, but the type is there.
    ("xml", "null", Kind.OTHER, None),
    ("tsvector", "'fat & rat'::text::tsvector", Kind.OTHER, "'&' 'fat' 'rat'"),
    ("point", "'(1,2)'", Kind.OTHER, "(1,2)"),
    ("pair", "row(1, 'x y')", Kind.OTHER, '(1,"x y")'),
]


@pytest.fixture
def table(world: World) -> World:
    database = world.rows("select current_database()")[0][0]
    for setting in (
        *("datestyle = 'German'", "timezone = 'Asia/Tokyo'", "intervalstyle = 'postgres_verbose'"),
        *("bytea_output = 'escape'", "extra_float_digits = -10"),
    ):
        world.run(f"alter database {database} set {setting}")
    world.run(
        "create type mood as enum ('glad', 'sad')",
        "create domain email as varchar(40) not null default 'none' check (value like '%@%')",
        "create domain cents as numeric(10,2)",
        "create domain price as cents",
        "create type pair as (a int, b text)",
    )
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(VALUES))
    world.run(f"create table every (id bigint generated always as identity primary key, {columns})")
    return world


@pytest.mark.anyio
async def test_every_type_is_spelt_alike_in_feed_and_page(table: World) -> None:
    await table.setup("every")
    names = ", ".join(f"c{n}" for n in range(len(VALUES)))
    table.run(f"insert into every ({names}) values ({', '.join(value for _, value, _, _ in VALUES)})")

    batches = await table.changes("every")
    page = await table.system.page("every", None, 10)

    expected = ("1", *(text for *_, text in VALUES))
    assert flat(batches) == [("I", "every", expected)]
    assert page.rows == [expected]
    assert page.last_key is None


@pytest.mark.anyio
async def test_shapes_agree_between_log_and_catalogue(table: World) -> None:
    await table.setup("every")
    nulls = ", ".join(f"c{n}" for n, (kind, *_) in enumerate(VALUES) if kind == "email")
    table.run(f"insert into every ({nulls}) values ('a@b')")

    batches = await table.changes("every")
    shape = (await table.system.shapes(["every"]))["every"]

    assert batches[0].segments[0].tables["every"].shape == shape
    assert [column.kind for column in shape.columns[1:]] == [kind for _, _, kind, _ in VALUES]
    row = flat(batches)[0][2]
    assert [value for value in row[1:] if value is not None] == ["a@b"]


@pytest.mark.anyio
async def test_columns_tell_limits_defaults_and_who_assigns(world: World) -> None:
    world.run(
        "create type mood as enum ('glad', 'sad')",
        "alter type mood add value 'so-so' before 'sad'",
        "create domain code as varchar(8) not null",
        "create domain names as varchar(9)[]",
        """create table t (id serial, a int generated by default as identity, c code, n numeric(6,3), v varchar(3),
        m mood default 'sad',
        a3 numeric(6,2)[], am mood[], d names, t0 timestamp(0), t3 timestamptz(3), t6 time,
        i0 interval(0), i6 interval, im interval hour to minute, iy interval year, is2 interval day to second(2),
        g int generated always as (1 + 1) stored, primary key (c, id) include (n),
        unique (a) include (n), unique (v, m))""",
        "create unique index on t (n) where n > 0",
        "create function keep() returns trigger language plpgsql as 'begin return new; end'",
    )
    before = (await world.system.shapes())["public.t"]
    world.run("create trigger keep before insert on t for each row execute function keep()")
    shape: Shape = (await world.system.shapes(["public.t"]))["public.t"]

    world.run("create sequence numbers", "create table coded (no text primary key default 'D' || nextval('numbers'))")
    coded = (await world.system.shapes(["public.coded"]))["public.coded"]
    assert [column.is_assigned for column in coded.columns] == [True]

    columns = {column.name: column for column in shape.columns}
    assert shape.key == ("c", "id")
    assert shape.unique == (("a",), ("v", "m"))
    assert (before.has_triggers, shape.has_triggers) == (False, True)
    assert (columns["id"].is_assigned, columns["id"].has_default) == (True, True)
    assert (columns["a"].is_assigned, columns["a"].has_default) == (True, True)
    assert (columns["c"].length, columns["c"].is_nullable) == (8, False)
    assert (columns["n"].precision, columns["n"].scale) == (6, 3)
    assert (columns["v"].length, columns["v"].is_nullable) == (3, True)
    assert (columns["m"].labels, columns["m"].has_default) == (("glad", "so-so", "sad"), True)
    element = columns["a3"].element
    assert element is not None
    assert (element.kind, element.precision, element.scale) == (Kind.DECIMAL, 6, 2)
    assert [(e.kind, e.labels) for e in [columns["am"].element] if e] == [(Kind.ENUM, ("glad", "so-so", "sad"))]
    assert [(e.kind, e.length) for e in [columns["d"].element] if e] == [(Kind.TEXT, 9)]
    assert [columns[name].scale for name in ("t0", "t3", "t6")] == [0, 3, 6]
    assert [columns[name].scale for name in ("i0", "i6", "is2")] == [0, 6, 2]
    # They cut seconds off without a word, so they are nothing that a duration is written to.
    assert [columns[name].kind for name in ("i0", "is2", "im", "iy")] == [Kind.INTERVAL] * 2 + [Kind.OTHER] * 2
    assert (columns["g"].is_generated, columns["g"].is_assigned) == (True, False)


@pytest.mark.anyio
async def test_a_key_of_any_type_pages_through_the_whole_table(world: World) -> None:
    keys = {
        "txt": ("text", "'k' || n || '''\"\\,'"),
        "chr": ("char(12)", "'k' || n"),
        "stamp": ("timestamptz", "'2024-01-01'::timestamptz + n * interval '1 hour'"),
        "span": ("interval", "n * interval '90 minutes'"),
        "uid": ("uuid", "md5(n::text)::uuid"),
        "raw": ("bytea", "decode(md5(n::text), 'hex')"),
        "num": ("numeric(8,3)", "n / 8.0"),
        "flt": ("double precision", "n / 7.0"),
        "arr": ("text[]", "array[n::text, 'x,y']"),
        "lab": ("mood", "(array['a','b','c']::mood[])[n % 3 + 1]"),
    }
    world.run("create type mood as enum ('a', 'b', 'c')")
    for name, (kind, value) in keys.items():
        world.run(f"create table {name} (k {kind}, n int, primary key (k, n))")
        world.run(f"insert into {name} select {value}, n from generate_series(1, 25) n")
        seen: list[str | None] = []
        after = None
        while True:
            page = await world.system.page(name, after, 4)
            seen += [str(row[1]) for row in page.rows]
            if (after := page.last_key) is None:
                break
        assert sorted(map(int, map(str, seen))) == list(range(1, 26)), name
