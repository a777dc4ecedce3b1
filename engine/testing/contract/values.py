"""What every kind owes a value, in a column or as a key: it goes from user to log to target and is the same there, by
the database's own idea of it.

A kit says in `values` what its database has: `common_values` gives those that every database can be asked for, under
the names that types have there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from engine.model.value import ABSENT, WireRow
from engine.ports import TableWrite, WriteKind
from engine.testing.contract import Kit, Values, flat, texts


@dataclass(frozen=True, slots=True)
class _Table:
    values: Values
    name: str
    column: str


@pytest.mark.anyio
class ValuesContract:
    """Inherit, and give the fixture `kit` with `values`."""

    async def test_every_type_as_a_value(self, kit: Kit) -> None:
        """From the log into another table: what stands there is what users had entered."""
        columns = [kit.quoted(f"v {values.name}") for values in kit.values]
        kinds = ", ".join(f"{column} {values.type}" for column, values in zip(columns, kit.values, strict=True))
        for table in ("one", "other"):
            kit.users.transaction(f"create table {table} (id {kit.integer} primary key, {kinds})")
        one, other = kit.schema + "one", kit.schema + "other"
        await kit.setup(one, other)
        count = max(len(values.literals) for values in kit.values)
        for n in range(count):
            literals = [values.literals[n] if n < len(values.literals) else "null" for values in kit.values]
            kit.users.transaction(f"insert into one values ({n}, {', '.join(literals)})")
        batches = await kit.changes(one, other)
        logged = [row for b in batches for s in b.segments if one in s.tables for row in s.tables[one].rows]
        for n, values in enumerate(kit.values, 1):
            spelt = tuple(texts(row)[n] for row in logged)
            assert spelt == (*values.spelt, *[None] * (count - len(values.spelt))), values.name
        page = await kit.plugin.system(kit.site, kit.config).page(one, None, 100)
        assert page.rows == logged
        names = ("id", *(f"v {values.name}" for values in kit.values))
        await kit.deliver_alone(_write(kit, WriteKind.INSERT, other, names, logged))
        for values, column in zip(kit.values, columns, strict=True):
            found = [kit.users.rows(f"select {column} from {table} order by id") for table in ("one", "other")]
            assert repr(found[0]) == repr(found[1]), values.name
        # The same once more over rows that are there, shifted by one so that each is another value.
        await kit.deliver_alone(
            _write(kit, WriteKind.UPDATE, other, names, [(row[0], *logged[n - 1][1:]) for n, row in enumerate(logged)])
        )
        whole = [kit.users.rows(f"select * from {table} order by id") for table in ("one", "other")]
        shifted = [whole[0][n - 1][1:] for n in range(count)]
        assert repr([row[1:] for row in whole[1]]) == repr(shifted)

    async def test_every_type_as_a_key(self, kit: Kit) -> None:
        """Rows are found by the keys that the log gave, and pages go behind each of them."""
        tables = [_Table(values, f"by {values.name}", f"The {values.name}") for values in kit.values if values.is_key]
        for table in tables:
            column = f"{kit.quoted(table.column)} {table.values.key_type or table.values.type} not null primary key"
            kit.users.transaction(f"create table {kit.quoted(table.name)} ({column}, name {kit.text})")
        names = [kit.schema + table.name for table in tables]
        await kit.setup(*names)
        for table in tables:
            place = kit.quoted(table.name)
            rows = ", ".join(f"({literal}, 'first')" for literal in table.values.literals)
            one = f"where {kit.quoted(table.column)} = {table.values.literals[0]}"
            kit.users.transaction(f"insert into {place} values {rows}")
            kit.users.transaction(f"update {place} set name = 'second' {one}")
            kit.users.transaction(f"delete from {place} {one}")
            kit.users.transaction(f"insert into {place} values ({table.values.literals[0]}, 'third')")
        batches = await kit.changes(*names)
        system = kit.plugin.system(kit.site, kit.config)
        for table, name in zip(tables, names, strict=True):
            changes = flat(batches, name)
            count, first = len(table.values.literals), table.values.spelt[0]
            assert sorted(str(row[0]) for _, row in changes[:count]) == sorted(table.values.spelt), table.name
            assert [(op, row[0]) for op, row in changes[count:]] == [("U", first), ("D", first), ("I", first)]
            keys = {
                texts(row)[0]: row[0] for b in batches for s in b.segments if name in s.tables
                for row in s.tables[name].rows if row[0] is not ABSENT
            }  # fmt: skip
            wires = [keys[spelt] for spelt in table.values.spelt]
            found: list[str | None] = []
            after, pages = None, 0
            while pages == 0 or after is not None:
                page = await system.page(name, after, 1)
                found, after, pages = [*found, *(texts(row)[0] for row in page.rows)], page.last_key, pages + 1
            assert sorted(map(str, found)) == sorted(table.values.spelt), table.name
            columns = (table.column, "name")
            updates = [(wire, f"ours {n}") for n, wire in enumerate(wires)]
            (result,) = await kit.deliver_alone(_write(kit, WriteKind.UPDATE, name, columns, updates))
            assert (result.missing, result.changed) == ((), ()), table.name
            assert _named(kit, table) == [[(f"ours {n}",)] for n in range(count)], table.name
            await kit.deliver_alone(_write(kit, WriteKind.DELETE, name, columns[:1], [(wire,) for wire in wires]))
            assert kit.users.rows(f"select count(*) from {kit.quoted(table.name)}") == [(0,)], table.name
            inserts = [(wire, f"again {n}") for n, wire in enumerate(wires)]
            await kit.deliver_alone(_write(kit, WriteKind.INSERT, name, columns, inserts))
            assert _named(kit, table) == [[(f"again {n}",)] for n in range(count)], table.name


def common_values(
    types: Mapping[str, str],
    *,
    key_types: Mapping[str, str] | None = None,
    **others: tuple[Sequence[str], Sequence[str]],
) -> tuple[Values, ...]:
    """Values of the types that are named, canonical name → the database's own. `others`: literals and spellings of
    those for which the database has its own; `key_types`: where a type is another one in a key."""
    return tuple(
        Values(
            name=name,
            type=type_,
            literals=tuple(others[name][0] if name in others else _COMMON[name][0]),
            spelt=tuple(others[name][1] if name in others else _COMMON[name][1]),
            is_key=name != "json",
            key_type=(key_types or {}).get(name, ""),
        )
        for name, type_ in types.items()
    )


_TEXTS = ("Zoë 𝄞 'q\\", "", " blank ", "NULL", "line\nend\ttab")
_INTEGERS = ("-9223372036854775808", "9223372036854775807", "0")
_DECIMALS = ("1234567890123456789012345678.0123456789", "-0.0000000001")
_COMMON: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "text": (["'" + text.replace("'", "''") + "'" for text in _TEXTS], _TEXTS),
    "integer": (_INTEGERS, _INTEGERS),
    "decimal": (_DECIMALS, _DECIMALS),
    "float": (["0.1", "-2.5e-300"], ["0.1", "-2.5e-300"]),
    "boolean": (["true", "false"], ["t", "f"]),
    "date": (["'2024-02-29'", "'1000-01-01'", "'9999-12-31'"], ["2024-02-29", "1000-01-01", "9999-12-31"]),
    "time": (["'23:59:59.999999'", "'00:00:00'"], ["23:59:59.999999", "00:00:00"]),
    "timestamp": (["'2024-02-29 13:05:00.25'", "'1000-01-01 00:00:00'"],
                  ["2024-02-29 13:05:00.25", "1000-01-01 00:00:00"]),
    "instant": (["'2024-02-29 13:05:00.25+00:00'"], ["2024-02-29 13:05:00.25+00"]),
    "uuid": (["'0189F7CE-7B4A-7c3e-9a49-6d1c8b0b7f11'"], ["0189f7ce-7b4a-7c3e-9a49-6d1c8b0b7f11"]),
    "binary": (["x'00ff5c27'", "x''"], ["\\x00ff5c27", "\\x"]),
    "enum": (["'new'", "'in work'"], ["new", "in work"]),
    "json": (["'{\"a\": [1, 2.50, null]}'"], ['{"a": [1, 2.50, null]}']),
}  # fmt: skip


def _write(kit: Kit, kind: WriteKind, table: str, columns: Sequence[str], rows: Sequence[WireRow]) -> TableWrite:
    return replace(kit.write(kind, table, columns), rows=list(rows), rids=list(range(101, 101 + len(rows))))


def _named(kit: Kit, table: _Table) -> list[list[tuple[object, ...]]]:
    """The names of the rows that the database itself finds by the literals."""
    return [
        kit.users.rows(f"select name from {kit.quoted(table.name)} where {kit.quoted(table.column)} = {literal}")
        for literal in table.values.literals
    ]
