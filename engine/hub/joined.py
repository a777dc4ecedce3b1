"""Rows of joined tables in the hub: kept as their log told of them last, found by key or by what they refer to."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.hub.transaction import HubTransaction
from engine.model.value import Wire

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Document = dict[str, Wire]
"""A row's columns that are needed, by name; those that were not sent are left out."""


class KeptTable:
    """One table's rows inside one hub transaction."""

    def __init__(self, tx: HubTransaction, number: int, indexes: Mapping[tuple[str, ...], int]) -> None:
        self._tx = tx
        self._number = number
        self._indexes = indexes

    def get(self, key: str) -> Document | None:
        found = self._tx.rows("select doc from joined_row where joined = ? and key = ?", (self._number, key))
        return _decode(found[0][0]) if found else None

    def find(self, columns: tuple[str, ...], value: str) -> list[tuple[str, Document]]:
        """Rows that have the text in these columns, in the order of their keys."""
        rows = self._tx.rows(
            "select r.key, r.doc from joined_link l join joined_row r on r.joined = ? and r.key = l.key"
            " where l.indexed = ? and l.value = ? order by l.key",
            (self._number, self._indexes[columns], value),
        )
        return [(key, _decode(document)) for key, document in rows]

    def put(
        self,
        key: str,
        document: Document,
        old: Mapping[tuple[str, ...], str | None],
        new: Mapping[tuple[str, ...], str | None],
    ) -> None:
        """Keep the row. `old` and `new`: its text in the columns of each index, before (empty: it is new) and now."""
        self._tx.connection.execute(
            "insert or replace into joined_row values (?, ?, ?)", (self._number, key, _encode(document))
        )
        self._relink(key, old, new)

    def remove(self, key: str, old: Mapping[tuple[str, ...], str | None]) -> None:
        self._tx.connection.execute("delete from joined_row where joined = ? and key = ?", (self._number, key))
        self._relink(key, old, {})

    def _relink(
        self, key: str, old: Mapping[tuple[str, ...], str | None], new: Mapping[tuple[str, ...], str | None]
    ) -> None:
        for columns, number in self._indexes.items():
            before, after = old.get(columns), new.get(columns)
            if before == after:
                continue
            if before is not None:
                self._tx.connection.execute(
                    "delete from joined_link where indexed = ? and value = ? and key = ?", (number, before, key)
                )
            if after is not None:
                self._tx.connection.execute("insert or ignore into joined_link values (?, ?, ?)", (number, after, key))


def register_joined(
    tx: HubTransaction, system: int, tables: Mapping[str, frozenset[tuple[str, ...]]]
) -> dict[str, tuple[int, dict[tuple[str, ...], int]]]:
    """Numbers of the joined tables of a system and of their indexes. A table that gets an index is copied again: of the
    rows that are kept nobody knows what they have in it. One that is joined no more is forgotten."""
    known = {name: n for n, name in tx.rows("select id, name from joined_table where system = ?", (system,))}
    for name in known.keys() - tables.keys():
        forget_rows(tx, known[name])
        tx.write("delete from joined_index where joined = ?", (known[name],))
        tx.write("delete from joined_table where id = ?", (known[name],))
    found: dict[str, tuple[int, dict[tuple[str, ...], int]]] = {}
    for name, wanted in tables.items():
        if name not in known:
            known[name] = tx.rows("select coalesce(max(id), 0) + 1 from joined_table")[0][0]
            tx.write("insert into joined_table (id, system, name) values (?, ?, ?)", (known[name], system, name))
        number = known[name]
        indexes = {
            tuple(msgspec.json.decode(columns, type=list[str])): n
            for n, columns in tx.rows("select id, columns from joined_index where joined = ?", (number,))
        }
        for columns in sorted(wanted - indexes.keys()):
            indexes[columns] = tx.rows("select coalesce(max(id), 0) + 1 from joined_index")[0][0]
            text = msgspec.json.encode(columns).decode()
            tx.write("insert into joined_index values (?, ?, ?)", (indexes[columns], number, text))
            forget_rows(tx, number)
        found[name] = (number, indexes)
    return found


def forget_rows(tx: HubTransaction, number: int) -> None:
    """The table counts as not copied, and nothing is known of its rows."""
    tx.write("delete from joined_link where indexed in (select id from joined_index where joined = ?)", (number,))
    tx.write("delete from joined_row where joined = ?", (number,))
    tx.write("update joined_table set last_key = null, is_done = 0 where id = ?", (number,))
