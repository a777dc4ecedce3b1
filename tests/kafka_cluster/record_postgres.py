"""What is recorded of a PostgreSQL: a value of every type, and every kind of change."""

from __future__ import annotations

from tests.kafka_cluster.scenarios import (
    TIME_MODES,
    Scenario,
    Script,
    change_scenarios,
    signal_scenarios,
    type_scenarios,
    with_and_without_schema,
)

# Column: type, and literals of an ordinary row, of two with extremes. A fourth row has nulls.
TYPES: dict[str, tuple[str, str, str, str]] = {
    "a_boolean": ("boolean", "true", "false", "false"),
    "a_smallint": ("smallint", "42", "-32768", "32767"),
    "an_integer": ("integer", "42", "-2147483648", "2147483647"),
    "a_bigint": ("bigint", "42", "-9223372036854775808", "9223372036854775807"),
    "a_real": ("real", "1.5", "-3.4028235e38", "1e-45"),
    "a_double": ("double precision", "0.1", "'-Infinity'", "'NaN'"),
    "a_double_edge": ("double precision", "1e15", "5e-324", "1.7976931348623157e308"),
    "a_numeric": ("numeric(10,2)", "123.40", "-99999999.99", "0.01"),
    "a_wide_numeric": ("numeric(38,10)", "0", "-9999999999999999999999999999.9999999999", "0.0000000001"),
    "a_free_numeric": ("numeric", "123.4500", "'NaN'", "-123456789012345678901234567890.123456789"),
    "a_money": ("money", "12.34", "-92233720368547758.08", "92233720368547758.07"),
    "a_text": ("text", "'Grün & \"quoted\" \\ 世界'", "''", "E'tab\\tline\\nend'"),
    "a_varchar": ("varchar(20)", "'varchar'", "''", "'  spaces  '"),
    "a_char": ("char(5)", "'ab'", "''", "'abcde'"),
    "a_name": ("name", "'name'", "''", "'n'"),
    "a_bytea": ("bytea", "'\\x00ff10'", "''", "'\\x7b7d'"),
    "a_date": ("date", "'2024-02-29'", "'0001-01-01'", "'9999-12-31'"),
    "an_endless_date": ("date", "'2024-02-29'", "'infinity'", "'0044-03-15 BC'"),
    "a_time": ("time", "'12:34:56.789012'", "'00:00:00'", "'24:00:00'"),
    "a_time_3": ("time(3)", "'12:34:56.789'", "'00:00:00'", "'23:59:59.999'"),
    "a_timetz": ("timetz", "'12:34:56.789012+02'", "'00:00:00+00'", "'23:59:59.999999-15:59'"),
    "a_timestamp": (
        "timestamp",
        "'2024-02-29 12:34:56.789012'",
        "'0001-01-01 00:00:00'",
        "'9999-12-31 23:59:59.999999'",
    ),
    "a_timestamp_3": (
        "timestamp(3)",
        "'2024-02-29 12:34:56.789'",
        "'1969-12-31 23:59:59.999'",
        "'2262-04-12 00:00:00'",
    ),
    "a_timestamp_0": ("timestamp(0)", "'2024-02-29 12:34:56'", "'1970-01-01'", "'2000-01-01'"),
    "an_endless_timestamp": ("timestamp", "'2024-02-29 12:34:56'", "'infinity'", "'-infinity'"),
    "a_timestamptz": (
        "timestamptz",
        "'2024-02-29 12:34:56.789012+02'",
        "'0001-01-01 00:00:00+00'",
        "'9999-12-31 23:59:59.999999+00'",
    ),
    "a_timestamptz_3": (
        "timestamptz(3)",
        "'2024-02-29 12:34:56.7+00'",
        "'1969-12-31 23:59:59.999+00'",
        "'2000-01-01+00'",
    ),
    "an_endless_timestamptz": ("timestamptz", "'2024-02-29 12:34:56+00'", "'infinity'", "'-infinity'"),
    "an_interval": (
        "interval",
        "'1 year 2 months 3 days 04:05:06.789012'",
        "'0'",
        "'-1 year -2 days +03:00:00.000001'",
    ),
    "a_uuid": ("uuid", "'5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11'", "'00000000-0000-0000-0000-000000000000'", "null"),
    "a_json": ("json", '\'{"b": 1.50,  "a": [null, "ü"]}\'', "'[]'", "'null'"),
    "a_jsonb": ("jsonb", '\'{"b": 1.50,  "a": [null, "ü"]}\'', "'\"text\"'", "'12345678901234567890.10'"),
    "an_inet": ("inet", "'192.168.1.5/24'", "'::1'", "'10.0.0.1'"),
    "a_cidr": ("cidr", "'192.168.0.0/16'", "'::/0'", "'10.0.0.1/32'"),
    "a_macaddr": ("macaddr", "'08:00:2b:01:02:03'", "'00:00:00:00:00:00'", "null"),
    "a_macaddr8": ("macaddr8", "'08:00:2b:01:02:03:04:05'", "'00:00:00:00:00:00:00:00'", "null"),
    "a_bit": ("bit", "B'1'", "B'0'", "B'1'"),
    "five_bits": ("bit(5)", "B'10110'", "B'00000'", "B'11111'"),
    "varying_bits": ("bit varying(20)", "B'101'", "B''", "B'11111111000000001111'"),
    "an_integer_range": ("int4range", "'[1,5)'", "'empty'", "'(,)'"),
    "a_numeric_range": ("numrange", "'(1.5,2.50]'", "'empty'", "'[1,)'"),
    "a_time_range": ("tstzrange", "'[2024-01-01 00:00+00,2024-02-01 00:00+00)'", "'empty'", "'(,)'"),
    "a_date_range": ("daterange", "'[2024-01-01,2024-02-01)'", "'empty'", "'(,)'"),
    "a_point": ("point", "'(1.5,-2)'", "'(0,0)'", "null"),
    "an_enum": ("mood", "'happy'", "'sad'", "'so, so'"),
    "a_domain": ("small_text", "'domain'", "''", "null"),
    "an_oid": ("oid", "42", "0", "4294967295"),
    "integers": ("integer[]", "'{1,2,null}'", "'{}'", "'{-1}'"),
    "texts": ("text[]", "array['a,b', 'c\"d', null, '']", "'{}'", "'{NULL,\"NULL\"}'"),
    "numerics": ("numeric(10,2)[]", "'{1.50,null}'", "'{}'", "'{0.01}'"),
    "dates": ("date[]", "'{2024-02-29}'", "'{}'", "null"),
    "timestamps": ("timestamptz[]", "'{2024-02-29 12:00:00+00}'", "'{}'", "null"),
    "booleans": ("boolean[]", "'{t,f}'", "'{}'", "null"),
    "uuids": ("uuid[]", "'{5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11}'", "'{}'", "null"),
    "a_search": ("tsvector", "'''brown'':2 ''fox'':3'", "''", "null"),
    "a_vector": ("vector(3)", "'[1,2.5,-3]'", "'[0,0,0]'", "null"),
    "a_composite": ("pair", "row(1, 'one')", "row(null, '')", "null"),
    "a_generated": ("text generated always as ('kept: ' || id) stored", "default", "default", "default"),
    "with_default": ("integer default 7", "1", "7", "0"),
    "a_required": ("text not null default 'given'", "'a'", "''", "'b'"),
}


def _insert(id: int, which: int) -> str:
    if which < 4:
        literals = [literals[which] for literals in TYPES.values()]
    else:
        literals = ["default" if name in ("a_generated", "a_required") else "null" for name in TYPES]
    return f"insert into every_type (id, {', '.join(TYPES)}) values ({', '.join((str(id), *literals))})"


_TYPES_BEFORE = (
    "create extension vector",
    "create type mood as enum ('sad', 'so, so', 'happy')",
    "create domain small_text as varchar(10)",
    "create type pair as (number integer, name text)",
    f"create table every_type (id integer primary key, {', '.join(f'{n} {t[0]}' for n, t in TYPES.items())})",
    "alter table every_type replica identity full",
    *(_insert(row, row) for row in (1, 2, 3, 4)),
)

_CHANGES_BEFORE = (
    "create table customers (id integer primary key, name text not null, note text, score numeric(10,2) default 0)",
    "alter table customers alter note set storage external",
    "create table visits (customer integer, number integer, at timestamptz, primary key (customer, number))",
    "alter table visits replica identity full",
    "create table tags (label text, count integer)",
    "alter table tags replica identity full",
    'create table "Odd Name" ("Key Part" text primary key, "select" integer, "größe" text)',
    # What is too long for its row is stored apart, as it is.
    "create table papers (id integer primary key, a_text text, a_bytea bytea, a_json jsonb, texts text[],"
    " numbers integer[], count integer)",
    *(
        f"alter table papers alter {name} set storage external"
        for name in ("a_text", "a_bytea", "a_json", "texts", "numbers")
    ),
    "insert into papers values (1, repeat('t', 2100), decode(repeat('00ff', 1050), 'hex'),"
    " jsonb_build_object('a', repeat('j', 2100)), array[repeat('e', 2100)], array_fill(1, array[530]), 0)",
    "insert into customers values (1, 'Alder', repeat('long', 600), 1.5), (2, 'Birch', null, -0.01)",
    "insert into visits values (1, 1, '2024-02-29 12:00:00+00'), (1, 2, null)",
    "insert into tags values ('a', 1), ('a', 1), (null, null)",
    "insert into \"Odd Name\" values ('k', 1, 'x')",
)
_CHANGES = (
    "insert into customers values (3, 'Cedar', '', 2)",
    # The note is not in the log: it did not change, and is stored apart.
    "update customers set name = 'Alder & Sons' where id = 1",
    "update papers set count = 1",
    "update customers set id = 20 where id = 2",
    # Key and a value at once, with the note that is not in the log.
    "update customers set id = 10, name = 'moved' where id = 1",
    "delete from customers where id = 3",
    "insert into customers values (3, 'Cedar again', null, null)",
    "begin; insert into visits values (3, 1, '2024-03-01 00:00+00'); update customers set score = 3 where id = 3;"
    " delete from visits where customer = 1 and number = 2; insert into tags values ('b', 2); commit",
    "update visits set at = null where customer = 1",
    "update visits set number = 9 where customer = 1",
    "update tags set count = 3 where label = 'b'",
    "delete from tags where label = 'b'",
    'update "Odd Name" set "select" = 2, "größe" = null',
    'delete from "Odd Name"',
    "select pg_logical_emit_message(true, 'concord', 'a message')",
    "alter table customers add column city text default 'Ulm'",
    "insert into customers values (4, 'Dogwood', null, 4, 'Bonn')",
    "alter table customers drop column score",
    "update customers set city = 'Köln' where id = 4",
    "truncate visits, tags",
    "insert into visits values (5, 5, null)",
)

POSTGRES = (
    Script(
        name="postgres-types",
        before=_TYPES_BEFORE,
        statements=tuple(_insert(10 + row, row) for row in (1, 2, 3, 4)),
        told=("every_type",),
        scenarios=type_scenarios(
            TIME_MODES,
            Scenario(name="interval-string", settings={"interval.handling.mode": "string"}, schemas=True),
            *with_and_without_schema("unknown", {"include.unknown.datatypes": "true"}),
        ),
    ),
    Script(
        name="postgres-changes",
        before=_CHANGES_BEFORE,
        statements=_CHANGES,
        told=("customers", "visits", "tags", '"Odd Name"', "papers"),
        scenarios=change_scenarios(
            "op,table,lsn,source.ts_us,source.sequence,source.txId,source.snapshot,transaction.id"
        ),
    ),
    Script(
        name="postgres-signals",
        before=(
            "create table signals (id text primary key, type text, data text)",
            "create table visits (id integer primary key, place text)",
            "insert into visits values (1, 'a'), (2, 'b'), (3, 'c')",
        ),
        statements=(
            "update visits set place = 'd' where id = 1",
            """insert into signals values ('s', 'execute-snapshot',
            '{"data-collections": ["public.visits"], "type": "incremental"}')""",
            # Until it has been read.
            "select pg_sleep(4)",
            "update visits set place = 'e' where id = 2",
        ),
        told=("visits",),
        scenarios=signal_scenarios("public.signals"),
    ),
)
