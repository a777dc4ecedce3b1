"""The types of the databases that are both read by their log and polled, for the contract of values."""

from __future__ import annotations

from engine.testing.contract.values import common_values

# Of `state`, a type that the kit makes.
POSTGRES = common_values(
    {
        "text": "text",
        "integer": "bigint",
        "decimal": "numeric(38, 10)",
        "float": "double precision",
        "boolean": "boolean",
        "date": "date",
        "time": "time",
        "timestamp": "timestamp",
        "instant": "timestamptz",
        "uuid": "uuid",
        "binary": "bytea",
        "enum": "state",
        "json": "json",
    },
    binary=(("'\\x00ff5c27'", "'\\x'"), ("\\x00ff5c27", "\\x")),
)
MARIADB = common_values(
    {
        "text": "varchar(200)",
        "integer": "bigint",
        "decimal": "decimal(38, 10)",
        "float": "double",
        "boolean": "tinyint(1)",
        "date": "date",
        "time": "time(6)",
        "timestamp": "datetime(6)",
        "uuid": "uuid",
        "binary": "varbinary(50)",
        "enum": "enum('new', 'in work')",
        "json": "json",
    },
    boolean=(("1", "0"), ("1", "0")),
)
SQLITE = common_values(
    {
        "text": "text",
        "integer": "bigint",
        "float": "real",
        "boolean": "boolean",
        "date": "date",
        "binary": "blob",
    },
    boolean=(("true", "false"), ("1", "0")),
    binary=(("x'00ff5c27'", "x''"), (str(b"\x00\xff\\'"), str(b""))),
)
