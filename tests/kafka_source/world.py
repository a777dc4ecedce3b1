"""A source's history, a connector that tells it and is killed now and then, and partitions that show what it told piece
by piece: without a broker, from a seed.

The connector is Debezium's as far as order goes: it tells a transaction's beginning, its events and its end one after
the other; each partition holds what was sent to it in that order, and one partition may be behind another by any number
of messages. After a restart it goes on from some message before, in the middle of a transaction too, with its counts;
but rows of an incremental snapshot are read from the tables, and never told as they were once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from plugins.kafka.gather import Found, Number
from plugins.kafka.records import Record

PREFIX = "w"
TABLES = {"public.a": 2, "public.b": 1}
"""Mapped tables, and the partitions of their topics."""
MARKER, OTHER = "concord.marker", "public.other"
TRANSACTIONS = f"{PREFIX}.transaction"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row; `value` is different for each, so that it names the change."""

    table: str
    key: int
    op: str
    value: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a source committed at once. `seq`: of our delivery."""

    number: int
    changes: tuple[Change, ...]
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    place: Number
    key: bytes | None
    value: bytes | None
    is_read: bool = False


@dataclass(slots=True)
class World:
    """`history` in order of commits; rows that an incremental snapshot read stand in it as a `Change` with op "r"."""

    random: Random
    connector: str
    history: list[Told | Change] = field(default_factory=lambda: [])
    logs: dict[Number, list[Record]] = field(default_factory=lambda: {})
    shown: dict[Number, int] = field(default_factory=lambda: {})
    _values: int = 0

    def live(self, transactions: int) -> None:
        """Let users and us write, and the connector tell all of it."""
        seq = 0
        for number in range(1, transactions + 1):
            if self.random.random() < 0.15:
                self.history.append(self._change(op="r"))
            if self.random.random() < 0.25:
                seq += self.random.randint(1, 3)
                self.history.append(Told(number, tuple(self._changes()), seq))
            else:
                self.history.append(Told(number, tuple(self._changes())))
        for topic, count in {**TABLES, MARKER: 1, OTHER: 1}.items():
            for n in range(count):
                self.logs[f"{PREFIX}.{topic}", n] = []
        self.logs[TRANSACTIONS, 0] = []
        messages = list(self._messages())
        sent = told = 0
        while sent < len(messages):
            if sent >= told or not messages[sent].is_read:
                self._send(messages[sent])
            sent += 1
            told = max(told, sent)
            if self.random.random() < 0.04:
                sent = max(0, sent - self.random.randint(1, 25))
        self.shown = dict.fromkeys(self.logs, 0)

    def show(self, starts: dict[Number, int]) -> Found:
        """Some more of some partitions; all that is left when there is little."""
        found = Found()
        for place, log in self.logs.items():
            if place not in starts:
                continue
            start = starts[place]
            more = self.random.choice((0, 0, 1, 2, 5, 40))
            end = min(len(log), start + more)
            if end > start:
                found.records[place] = log[start:end]
                found.next[place] = end
                starts[place] = end
        return found

    def is_shown(self, starts: dict[Number, int]) -> bool:
        return all(starts[place] == len(self.logs[place]) for place in starts)

    def _changes(self) -> Iterator[Change]:
        for _ in range(self.random.choice((1, 1, 2, 3, 9))):
            yield self._change(op=self.random.choice("cuud"))

    def _change(self, *, op: str) -> Change:
        self._values += 1
        tables = [*TABLES, OTHER] if op != "r" else list(TABLES)
        return Change(self.random.choice(tables), self.random.randint(1, 6), op, self._values)

    def _messages(self) -> Iterator[Message]:
        before, lsn = 0, 1000
        for told in self.history:
            if isinstance(told, Change):
                # A row that was read has the place of the last change before it.
                yield self._event(told, None, before, lsn)
                continue
            number, events = told.number, list(told.changes)
            if told.seq is not None:
                events.insert(0, Change(MARKER, 1, "u", told.seq))
            # The log interleaves transactions: one that commits later may have begun earlier.
            start = lsn + self.random.randint(-20, 20)
            yield self._boundary("BEGIN", number, start, None)
            orders: dict[str, int] = {}
            for total, change in enumerate(events, 1):
                orders[change.table] = orders.get(change.table, 0) + 1
                lsn = start + 10 * total
                transaction = {
                    "id": self._id(number, lsn),
                    "total_order": total,
                    "data_collection_order": orders[change.table],
                }
                yield self._event(change, transaction, before, lsn)
                if change.op == "d":
                    place, key = self._place(change), json.dumps({"id": change.key}).encode()
                    yield Message(place, key, None)
            lsn = max(lsn, before) + 30
            yield self._boundary("END", number, lsn, orders)
            before = lsn

    def _event(self, change: Change, transaction: dict[str, Any] | None, before: int, lsn: int) -> Message:
        schema, table = change.table.split(".")
        source: dict[str, Any] = {"connector": self.connector, "ts_ms": 1_000 + before, "table": table}
        if self.connector == "postgresql":
            source |= {"schema": schema, "db": "x", "sequence": json.dumps([str(before) if before else None, str(lsn)])}
        else:
            source |= {
                "db": schema,
                "file": "binlog.000007",
                "pos": before * 1000 + lsn % 1000,
                "row": change.value % 3,
            }
            if transaction is not None:
                source["pos"], source["row"] = before * 1000 + transaction["total_order"], 0
            else:
                source["pos"], source["row"] = before * 1000, 0
        row = {"id": change.key, "value": change.value}
        if change.table == MARKER:
            row = {"id": 1, "seq": change.value}
        value = {
            "before": row if change.op == "d" else None,
            "after": None if change.op == "d" else row,
            "source": source | {"snapshot": "incremental" if change.op == "r" else "false"},
            "transaction": transaction,
            "op": change.op,
        }
        key = json.dumps({"id": row["id"]}).encode()
        return Message(self._place(change), key, json.dumps(value).encode(), change.op == "r")

    def _boundary(self, status: str, number: int, lsn: int, orders: dict[str, int] | None) -> Message:
        value: dict[str, Any] = {"status": status, "id": self._id(number, lsn), "ts_ms": 1_000}
        if orders is not None:
            value["event_count"] = sum(orders.values())
            value["data_collections"] = [{"data_collection": t, "event_count": n} for t, n in orders.items()]
        return Message((TRANSACTIONS, 0), b"{}", json.dumps(value).encode())

    def _id(self, number: int, lsn: int) -> str:
        return f"{700 + number}:{lsn}" if self.connector == "postgresql" else f"0-1-{number}"

    def _place(self, change: Change) -> Number:
        return f"{PREFIX}.{change.table}", change.key % TABLES.get(change.table, 1)

    def _send(self, message: Message) -> None:
        log = self.logs[message.place]
        log.append((len(log), 1_700_000_000_000 + len(log), message.key, message.value, None))
