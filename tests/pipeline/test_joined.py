"""Goal: rows that are put together from the logs of several tables are those that a join of the tables would give.

Method: random transactions over three tables, a link and what it refers to among them, with changes of keys and of
links; after each, the last that was told of every mapped row is compared with the join computed from the whole tables.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from engine.errors import ValueRefused
from engine.hub.sqlite import memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.change import DELETE, INSERT, READ, UPDATE, TableRows
from engine.model.joined import Link
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, Wire, WireRow
from engine.pipeline.joined import Joiner, copies_left, forget_copies, note_copied
from engine.pipeline.topology import PlacePart, SystemPart
from engine.testing.mapping import PlainJoin, PlainJoined, PlainMapping, PlainPlace
from tests.pipeline.world import THING, WorldClock


def shape(name: str, *columns: str) -> Shape:
    made = tuple(Column(name=column, kind=Kind.TEXT, type="text") for column in columns)
    return Shape(name=name, form=Form.TEXT, key=("id",), columns=made)


SHAPES = {
    "owners": shape("owners", "id", "name", "unused"),
    "links": shape("links", "id", "owner", "mail", "state"),
    "mails": shape("mails", "id", "address"),
    "extras": shape("extras", "owner", "note"),
    "marks": shape("marks", "id", "owner", "mail", "place"),
}
LINK = PlainJoin(
    name="l", table="links", links=(Link("owner", "", "id"),), order=("state",), constants={"state": "on"},
    used=frozenset(("id", "owner", "mail", "state")),
)  # fmt: skip
MAIL = PlainJoin(name="m", table="mails", links=(Link("id", "l", "mail"),), used=frozenset(("id", "address")))
EXTRA = PlainJoin(
    name="x", table="extras", key=("owner",), links=(Link("owner", "", "id"),), used=frozenset(("owner", "note"))
)
MARKS = frozenset(("id", "owner", "mail", "place"))
LISTS = (
    PlainJoin(name="s", table="marks", links=(Link("owner", "", "id"),), used=MARKS, is_list=True),
    PlainJoin(name="sm", table="mails", links=(Link("id", "s", "mail"),), used=frozenset(("id", "address"))),
    PlainJoin(
        name="o", table="marks", links=(Link("owner", "", "id"),), used=MARKS, is_list=True, ordinal="place",
        order=("place",),
    ),
    PlainJoin(name="om", table="mails", links=(Link("id", "o", "mail"),), used=frozenset(("id", "address"))),
)  # fmt: skip
PLACE = PlainPlace(
    table="owners", entity="thing", fields={"name": "name", "phone": "m.address", "note": "x.note"},
    joins=(LINK, MAIL, EXTRA, *LISTS),
)  # fmt: skip
NAMES = [f"{join.name}.{column.name}" for join in PLACE.joins for column in SHAPES[join.table].columns]


def _list(values: Iterable[Wire]) -> str | None:
    found = [value for value in values if value is not None]
    return json.dumps(found, separators=(",", ":")) if found else None


def _set(values: Iterable[Wire]) -> str | None:
    return _list(sorted({str(value) for value in values if value is not None}))


@dataclass
class Tables:
    """The tables as they are, and what was told of the mapped one."""

    rng: random.Random
    rows: dict[str, dict[str, WireRow]] = field(default_factory=lambda: {name: {} for name in SHAPES})
    told: dict[str, WireRow] = field(default_factory=lambda: {})
    time: int = 0

    def joined(self) -> dict[str, WireRow]:
        """The join of the whole tables."""
        found: dict[str, WireRow] = {}
        for key, row in self.rows["owners"].items():
            links = [r for r in self.rows["links"].values() if r[1] == key and r[3] == "on"]
            link = min(links, key=lambda r: (len(str(r[0])) if str(r[0]).isdigit() else 0, str(r[0])), default=None)
            mail = None if link is None else self.rows["mails"].get(str(link[2]))
            extra = self.rows["extras"].get(key)
            parts = (link or (None,) * 4, mail or (None,) * 2, extra or (None,) * 2)
            marks = [r for r in self.rows["marks"].values() if r[1] == key]
            counted = sorted(marks, key=lambda r: (r[3] is None, str(r[3] or ""), len(str(r[0])), str(r[0])))
            lists = (
                *(_set(r[n] for r in marks) for n in range(4)),
                *(_set(r[n] for r in self.mails(marks)) for n in range(2)),
                *(_list(r[n] for r in counted) for n in range(4)),
                *(_list(r[n] for r in self.mails(counted)) for n in range(2)),
            )
            found[key] = (*row, *(value for part in parts for value in part), *lists)
        return found

    def mails(self, marks: Sequence[WireRow]) -> list[WireRow]:
        return [mail for mark in marks if (mail := self.rows["mails"].get(str(mark[2]))) is not None]

    def transaction(self) -> dict[str, TableRows]:
        self.time += self.rng.choice((1, 5))
        changes: dict[str, TableRows] = {}
        for _ in range(self.rng.randrange(1, 6)):
            table = self.rng.choice(list(SHAPES))
            rows, there = self.rows[table], list(self.rows[table])
            target = changes.setdefault(table, TableRows(SHAPES[table]))
            kind = self.rng.choice("iuuudk") if there else "i"
            if kind == "i":
                key = str(self.rng.randrange(12))
                if key in rows:
                    continue
                rows[key] = self.row(table, key)
                target.add(INSERT, rows[key], self.time)
                continue
            key = self.rng.choice(there)
            if kind == "d":
                row = rows.pop(key)
                # Of a row that is gone a log may have the key alone.
                target.add(DELETE, (row[0], *(ABSENT,) * (len(row) - 1)), self.time)
            elif kind == "u":
                rows[key] = self.row(table, key)
                target.add(UPDATE, rows[key], self.time)
            else:
                new = str(self.rng.randrange(12, 20))
                if new in rows:
                    continue
                old = rows.pop(key)
                rows[new] = (new, *old[1:])
                target.add(UPDATE, rows[new], self.time, old)
        return {table: rows for table, rows in changes.items() if rows.rows}

    def row(self, table: str, key: str) -> WireRow:
        def some(count: int) -> Wire:
            return None if self.rng.random() < 0.1 else str(self.rng.randrange(count))

        match table:
            case "owners":
                return (key, some(5), some(5))
            case "marks":
                return (key, some(14), some(14), some(5))
            case "links":
                return (key, some(14), some(14), self.rng.choice(("on", "off")))
            case _:
                return (key, some(5))

    def hear(self, found: dict[str, TableRows]) -> None:
        assert set(found) <= {"owners"}
        rows = found.get("owners")
        if rows is None:
            return
        for n, (op, row) in enumerate(zip(rows.ops, rows.rows, strict=True)):
            assert [column.name for column in rows.shape.columns[3:]] == NAMES
            if n in rows.old:
                self.told.pop(str(rows.old[n][0]), None)
            if op == DELETE:
                self.told.pop(str(row[0]), None)
            else:
                self.told[str(row[0])] = row


def needed(row: WireRow) -> WireRow:
    """Without the column that nothing needs, which need not be kept."""
    return (*row[:2], *row[3:])


class Hub:
    def __init__(self) -> None:
        self.hub = memory_hub(WorldClock())
        self.refused: dict[str, dict[int, ValueRefused]] = {}
        mapping = PlainMapping(places=(PLACE,))
        part = PlacePart(id=1, system=1, entity=THING, place=PLACE)
        self.system = SystemPart(
            id=1, name="crm", rank=1, is_source=True, is_target=True, places=(part,), mapping=mapping
        )
        self.hub.transact_now(lambda tx: tx.write("insert into system (id, name) values (1, 'crm')"))
        self.joiner = Joiner(self.system, SHAPES)
        self.hub.transact_now(self.joiner.register)

    def copied(self, *tables: str) -> None:
        def note(tx: HubTransaction) -> None:
            for table in tables:
                note_copied(tx, self.system, table, None)

        self.hub.transact_now(note)

    def put(self, changes: dict[str, TableRows]) -> dict[str, TableRows]:
        raws = [self.joiner.raw(table, rows) for table, rows in changes.items()]
        found, refused = self.hub.transact_now(lambda tx: self.joiner.put_together(tx, raws))
        self.refused = refused
        return found


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_is_the_join_of_the_tables(seed: int) -> None:
    tables, hub = Tables(random.Random(seed)), Hub()
    hub.copied(*SHAPES)
    for _ in range(120):
        tables.hear(hub.put(tables.transaction()))
        told = {key: needed(row) for key, row in tables.told.items()}
        assert told == {key: needed(row) for key, row in tables.joined().items()}


def test_several_transactions_of_one_batch_come_out_as_one_after_the_other() -> None:
    one, other = Tables(random.Random(3)), Tables(random.Random(3))
    first, second = Hub(), Hub()
    first.copied(*SHAPES)
    second.copied(*SHAPES)
    whole = {table: TableRows(shape) for table, shape in SHAPES.items()}
    for _ in range(60):
        one.hear(first.put(one.transaction()))
        for table, rows in other.transaction().items():
            for n, (op, row, time) in enumerate(zip(rows.ops, rows.rows, rows.times, strict=True)):
                whole[table].add(op, row, time, rows.old.get(n))
    other.hear(second.put({table: rows for table, rows in whole.items() if rows.rows}))
    assert {k: needed(r) for k, r in other.told.items()} == {k: needed(r) for k, r in one.told.items()}


def test_rows_deleted_and_written_anew_by_one_transaction_are_one_change() -> None:
    hub = Hub()
    hub.copied(*SHAPES)
    links = TableRows(SHAPES["links"])
    links.add(INSERT, ("1", "o", "m", "on"), 1)
    owners, mails = TableRows(SHAPES["owners"]), TableRows(SHAPES["mails"])
    owners.add(INSERT, ("o", "Acme", None), 1)
    mails.add(INSERT, ("m", "a@acme.example"), 1)
    hub.put({"links": links, "owners": owners, "mails": mails})
    links = TableRows(SHAPES["links"])
    links.add(DELETE, ("1", ABSENT, ABSENT, ABSENT), 2)
    links.add(INSERT, ("2", "o", "m", "on"), 2)
    found = hub.put({"links": links})["owners"]
    assert [(chr(op), row[0], row[8]) for op, row in zip(found.ops, found.rows, strict=True)] == [
        ("U", "o", "a@acme.example")
    ]


def test_a_row_is_told_of_only_when_all_that_is_joined_to_it_was_copied() -> None:
    hub = Hub()
    assert hub.hub.transact_now(lambda tx: [table for table, _ in copies_left(tx, hub.system)]) == [
        "links", "mails", "extras", "marks", "owners",
    ]  # fmt: skip
    owners = TableRows(SHAPES["owners"])
    owners.add(UPDATE, ("1", "Acme", None), 1)
    assert hub.put({"owners": owners}) == {}
    for table, row in (
        ("links", ("9", "1", "7", "on")), ("mails", ("7", "a")), ("extras", ("1", "n")), ("marks", ("5", "1", "7", "2"))
    ):  # fmt: skip
        page = TableRows(SHAPES[table])
        page.add(READ, row, 2)
        assert hub.put({table: page}) == {}
        hub.copied(table)
    page = TableRows(SHAPES["owners"])
    page.add(READ, ("1", "Acme", None), 3)
    found = hub.put({"owners": page})["owners"]
    assert (chr(found.ops[0]), found.rows[0][1], found.rows[0][8], found.rows[0][10]) == ("R", "Acme", "a", "n")
    assert found.rows[0][-2:] == ('["7"]', '["a"]')
    hub.copied("owners")
    # Read again: until all of it is known anew, nothing is told, and then it is told as it is.
    hub.hub.transact_now(lambda tx: forget_copies(tx, hub.system, hub.system.joins.together("links")))
    assert hub.hub.transact_now(lambda tx: len(copies_left(tx, hub.system))) == 5
    assert hub.put({"owners": owners}) == {}


def test_what_a_log_does_not_send_is_what_it_was() -> None:
    hub = Hub()
    hub.copied(*SHAPES)
    owners, extras = TableRows(SHAPES["owners"]), TableRows(SHAPES["extras"])
    owners.add(INSERT, ("1", "a long text", None), 1)
    extras.add(INSERT, ("1", "a long note"), 1)
    hub.put({"owners": owners, "extras": extras})
    extras = TableRows(SHAPES["extras"])
    extras.add(UPDATE, ("1", ABSENT), 2)
    found = hub.put({"extras": extras})["owners"]
    assert (found.rows[0][1], found.rows[0][10]) == ("a long text", "a long note")
    assert msgspec.msgpack.decode(hub.hub.transact_now(lambda tx: tx.rows("select doc from joined_row"))[0][0])


def test_a_row_of_which_it_cannot_be_told_what_belongs_to_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(self: PlainJoined, row: WireRow) -> bool:
        if row[-1] == "é":
            raise ValueRefused("nobody knows")
        return True

    monkeypatch.setattr(PlainJoined, "takes", takes)
    hub = Hub()
    hub.copied(*SHAPES)
    owners, links = TableRows(SHAPES["owners"]), TableRows(SHAPES["links"])
    for key in ("1", "2"):
        owners.add(INSERT, (key, "name", None), 1)
    links.add(INSERT, ("9", "2", None, "é"), 1)
    found = hub.put({"owners": owners, "links": links})["owners"]
    assert list(hub.refused) == ["owners"]
    ((n, problem),) = hub.refused["owners"].items()
    assert (found.rows[n][0], found.rows[n][3], str(problem)) == ("2", ABSENT, "nobody knows")
    links = TableRows(SHAPES["links"])
    links.add(UPDATE, ("9", "2", None, "e"), 2)
    assert [row[0] for row in hub.put({"links": links})["owners"].rows] == ["2"]
    assert hub.refused == {}
