"""What is recorded of a MariaDB: a value of every type, and every kind of change."""

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
    "a_tinyint": ("tinyint", "42", "-128", "127"),
    "an_unsigned_tinyint": ("tinyint unsigned", "42", "0", "255"),
    "a_smallint": ("smallint", "42", "-32768", "32767"),
    "an_unsigned_smallint": ("smallint unsigned", "42", "0", "65535"),
    "a_mediumint": ("mediumint", "42", "-8388608", "8388607"),
    "an_unsigned_mediumint": ("mediumint unsigned", "42", "0", "16777215"),
    "an_integer": ("integer", "42", "-2147483648", "2147483647"),
    "an_unsigned_integer": ("integer unsigned", "42", "0", "4294967295"),
    "a_bigint": ("bigint", "42", "-9223372036854775808", "9223372036854775807"),
    "an_unsigned_bigint": ("bigint unsigned", "42", "0", "18446744073709551615"),
    "a_filled_integer": ("integer(6) zerofill", "42", "0", "999999"),
    "a_float": ("float", "1.5", "-3.4e38", "1e-38"),
    "a_double": ("double", "0.1", "-1.7976931348623157e308", "2.2250738585072014e-308"),
    "a_decimal": ("decimal(10,2)", "123.40", "-99999999.99", "0.01"),
    "a_wide_decimal": (
        "decimal(65,30)",
        "0",
        "-99999999999999999999999999999999999.999999999999999999999999999999",
        "1e-30",
    ),
    "a_whole_decimal": ("decimal(20,0)", "42", "-99999999999999999999", "0"),
    "an_unsigned_decimal": ("decimal(10,2) unsigned", "1.5", "0", "99999999.99"),
    "a_date": ("date", "'2024-02-29'", "'1000-01-01'", "'9999-12-31'"),
    "a_zero_date": ("date", "'2024-02-29'", "'0000-00-00'", "'2024-00-00'"),
    "a_time": ("time", "'12:34:56'", "'-838:59:59'", "'838:59:59'"),
    "a_time_3": ("time(3)", "'12:34:56.789'", "'00:00:00'", "'-00:00:00.001'"),
    "a_time_6": ("time(6)", "'12:34:56.789012'", "'-00:00:00.000001'", "'23:59:59.999999'"),
    "a_datetime": ("datetime", "'2024-02-29 12:34:56'", "'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'"),
    "a_datetime_3": ("datetime(3)", "'2024-02-29 12:34:56.789'", "'1969-12-31 23:59:59.999'", "'1970-01-01'"),
    "a_datetime_6": ("datetime(6)", "'2024-02-29 12:34:56.789012'", "'1000-01-01'", "'9999-12-31 23:59:59.999999'"),
    "a_zero_datetime": ("datetime", "'2024-02-29 12:34:56'", "'0000-00-00 00:00:00'", "'2024-00-00 00:00:00'"),
    "a_timestamp": ("timestamp null", "'2024-02-29 12:34:56'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"),
    "a_timestamp_6": ("timestamp(6) null", "'2024-02-29 12:34:56.789012'", "'1970-01-01 00:00:01.5'", "'2038-01-19'"),
    "a_zero_timestamp": ("timestamp null", "'2024-02-29 12:34:56'", "'0000-00-00 00:00:00'", "null"),
    "a_year": ("year", "2024", "1901", "2155"),
    "a_char": ("char(5)", "'ab'", "''", "'abcde'"),
    "a_varchar": ("varchar(20)", "'Grün 世界'", "''", "'  spaces  '"),
    "a_latin": ("varchar(20) character set latin1", "'Größe'", "''", "'ÿ'"),
    "a_text": ("text", "'\"quoted\" \\\\ 😀'", "''", "'tab\\tline\\nend'"),
    "a_longtext": ("longtext", "'long'", "''", "'x'"),
    "a_binary": ("binary(4)", "x'00ff10'", "x''", "x'20202020'"),
    "a_varbinary": ("varbinary(20)", "x'00ff10'", "x''", "x'7b7d'"),
    "a_blob": ("blob", "x'00ff10'", "x''", "x'7b7d'"),
    "a_json": ("json", '\'{"b": 1.50,  "a": [null, "ü"]}\'', "'[]'", "'null'"),
    "an_enum": ("enum('sad','so, so','happy')", "'happy'", "'sad'", "'so, so'"),
    "a_set": ("set('a','b','c')", "'a,c'", "''", "'a,b,c'"),
    "a_bit": ("bit", "b'1'", "b'0'", "b'1'"),
    "ten_bits": ("bit(10)", "b'1011001110'", "b'0'", "b'1111111111'"),
    "all_bits": ("bit(64)", "b'1'", "b'0'", "0xffffffffffffffff"),
    "a_point": ("point", "point(1.5, -2)", "point(0, 0)", "null"),
    "a_geometry": ("geometry", "st_geomfromtext('linestring(0 0, 1 1)', 4326)", "point(1, 1)", "null"),
    "a_uuid": ("uuid", "'5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11'", "'00000000-0000-0000-0000-000000000000'", "null"),
    # Not inet4 and inet6: the parser of Debezium 3.5 does not know them.
    "a_generated": ("varchar(20) as (concat('kept: ', id)) stored", "default", "default", "default"),
    "with_default": ("integer default 7", "1", "7", "0"),
    "a_required": ("varchar(10) not null default 'given'", "'a'", "''", "'b'"),
}
LEFT_OUT = ("a_generated", "a_required")


def _insert(id: int, which: int) -> str:
    if which < 4:
        literals = [literals[which] for literals in TYPES.values()]
    else:
        literals = ["default" if name in LEFT_OUT else "null" for name in TYPES]
    return f"insert into every_type (id, {', '.join(TYPES)}) values ({', '.join((str(id), *literals))})"


_TYPES_BEFORE = (
    f"create table every_type (id integer primary key, {', '.join(f'{n} {t[0]}' for n, t in TYPES.items())})",
    *(_insert(row, row) for row in (1, 2, 3, 4)),
)

_CHANGES_BEFORE = (
    "create table customers (id integer primary key auto_increment, name varchar(40) not null, note text,"
    " score decimal(10,2) default 0)",
    "create table visits (customer integer, number integer, at datetime(6), primary key (customer, number))",
    "create table tags (label varchar(10), count integer)",
    "create table `Odd Name` (`Key Part` varchar(10) primary key, `select` integer, `größe` text)",
    "insert into customers values (1, 'Alder', repeat('long', 9), 1.5), (2, 'Birch', null, -0.01)",
    "insert into visits values (1, 1, '2024-02-29 12:00:00'), (1, 2, null)",
    "insert into tags values ('a', 1), ('a', 1), (null, null)",
    "insert into `Odd Name` values ('k', 1, 'x')",
)
_CHANGES = (
    "insert into customers values (3, 'Cedar', '', 2)",
    "update customers set name = 'Alder & Sons' where id = 1",
    "update customers set id = 20 where id = 2",
    "update customers set id = 10, name = 'moved' where id = 1",
    "delete from customers where id = 3",
    "insert into customers values (3, 'Cedar again', null, null)",
    "begin; insert into visits values (3, 1, '2024-03-01 00:00:00'); update customers set score = 3 where id = 3;"
    " delete from visits where customer = 1 and number = 2; insert into tags values ('b', 2); commit",
    "update visits set at = null where customer = 1",
    "update visits set number = 9 where customer = 1",
    "update tags set count = 3 where label = 'b'",
    "delete from tags where label = 'b'",
    "update `Odd Name` set `select` = 2, `größe` = null",
    "delete from `Odd Name`",
    "alter table customers add column city text default 'Ulm'",
    "insert into customers values (4, 'Dogwood', null, 4, 'Bonn')",
    "alter table customers drop column score",
    "update customers set city = 'Köln' where id = 4",
    "truncate table visits",
    "insert into visits values (5, 5, null)",
)

MARIADB = (
    Script(
        name="mariadb-types",
        before=_TYPES_BEFORE,
        statements=tuple(_insert(10 + row, row) for row in (1, 2, 3, 4)),
        told=("every_type",),
        scenarios=type_scenarios(
            # Its own default is no longer to be had for the binary log.
            TIME_MODES[1:],
            *with_and_without_schema("unsigned-precise", {"bigint.unsigned.handling.mode": "precise"}),
            Scenario(name="time-adjusted-not", settings={"enable.time.adjuster": "false"}, schemas=True),
        ),
    ),
    Script(
        name="mariadb-changes",
        before=_CHANGES_BEFORE,
        statements=_CHANGES,
        told=("customers", "visits", "tags", "`Odd Name`"),
        scenarios=change_scenarios(
            "op,table,source.gtid,source.file,source.pos,source.row,source.ts_ms,source.snapshot"
        ),
    ),
    Script(
        name="mariadb-signals",
        before=(
            "create table signals (id varchar(60) primary key, type varchar(60), data text)",
            "create table visits (id integer primary key, place text)",
            "insert into visits values (1, 'a'), (2, 'b'), (3, 'c')",
        ),
        statements=(
            "update visits set place = 'd' where id = 1",
            """insert into signals values ('s', 'execute-snapshot',
            '{"data-collections": ["shop.visits"], "type": "incremental"}')""",
            # Until it has been read.
            "do sleep(4)",
            "update visits set place = 'e' where id = 2",
        ),
        told=("visits",),
        scenarios=signal_scenarios("shop.signals"),
    ),
)
