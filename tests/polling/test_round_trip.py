"""Goal: a table is what its pages and looks have told, whatever its users and our deliveries do, wherever a feed begins
again.

Method: a random search on each kind of database: users, deliveries, looks, feeds opened anew from earlier places, in
any order. Spans are of a few rows, so that they grow, empty, split and are passed over by their digest.
"""

from __future__ import annotations

import random

import pytest

from engine.model.change import DELETE, Batch
from engine.model.position import Position
from engine.ports import WriteKind
from engine.testing.contract import flat, texts
from plugins.polling import capture, look, reader
from tests.polling.support import Polled

STEPS = 60
KEYS = 40


class Copy:
    """What a feed has told of a table."""

    def __init__(self) -> None:
        self.rows: dict[str | None, tuple[str | None, ...]] = {}
        self.odd: list[str] = []

    def take(self, batch: Batch, table: str) -> None:
        for segment in batch.segments:
            shown = segment.echoes.get(table)
            if shown is not None:
                for op, row in zip(shown.ops, shown.rows, strict=True):
                    self.rows.pop(str(row[0]), None)
                    if op != DELETE:
                        self.rows[str(row[0])] = texts(row)
        for op, row in flat([batch], table):
            if op == "D":
                self.odd += [] if row[0] in self.rows else [f"deleted and not there: {row[0]}"]
                self.rows.pop(row[0], None)
            else:
                self.odd += [f"entered twice: {row[0]}"] if op == "I" and row[0] in self.rows else []
                self.rows[row[0]] = row


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_told_is_the_table(kit: Polled, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "KEEP_ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(look, "SPAN_ROWS", 4)
    monkeypatch.setattr(reader, "PAGE_ROWS", 3)
    rng = random.Random(seed)
    table = kit.create("customers", "name", "note")
    kit.users.transaction(*(f"insert into customers values ({n}, 'first', null)" for n in range(0, KEYS, 3)))
    await kit.setup(table)
    copy, place = Copy(), None
    async with kit.feed(table, verify=frozenset((table,))) as feed:
        place = feed.position
    for id, name, note in kit.users.rows("select id, name, note from customers"):
        copy.rows[str(id)] = (str(id), name, note)
    for n in range(STEPS):
        kind = rng.choice(("users", "users", "users", "deliver", "read", "read"))
        if kind == "users":
            _edit(kit, rng, n)
        elif kind == "deliver":
            await _deliver(kit, rng, table, n)
        else:
            place = await _read(kit, rng, table, copy, place)
    for _ in range(2):
        place = await _read(kit, rng, table, copy, place)
    rows = kit.users.rows("select id, name, note from customers")
    assert copy.rows == {str(id): (str(id), name, note) for id, name, note in rows}
    assert not copy.odd


def _edit(kit: Polled, rng: random.Random, n: int) -> None:
    there = [id for (id,) in kit.users.rows("select id from customers")]
    statements: list[str] = []
    for id in rng.sample(range(KEYS), rng.randrange(1, 6)):
        if id not in there:
            statements.append(f"insert into customers values ({id}, 'u{n}', null)")
        elif rng.random() < 0.4:
            statements.append(f"delete from customers where id = {id}")
        else:
            # Some set back what was there before.
            statements.append(f"update customers set name = '{rng.choice(('first', f'u{n}'))}' where id = {id}")
    kit.users.transaction(*statements)


async def _deliver(kit: Polled, rng: random.Random, table: str, n: int) -> None:
    ids = [(str(id),) for id in rng.sample(range(KEYS), 4)]
    kind = rng.choice((WriteKind.INSERT, WriteKind.UPDATE, WriteKind.DELETE))
    if kind is WriteKind.DELETE:
        await kit.write_alone(kit.compared(kind, table, ("id",), *ids))
    else:
        await kit.write_alone(kit.compared(kind, table, ("id", "note"), *((id, f"d{n}") for (id,) in ids)))


async def _read(kit: Polled, rng: random.Random, table: str, copy: Copy, place: Position) -> Position:
    """A feed of its own, which is left after some batches; nothing is confirmed, or all that was taken."""
    rows_max = rng.choice((1, 3, 1000))
    async with kit.feed(table, after=place, verify=frozenset((table,))) as feed:
        for batch in await kit.drain(feed, rows_max):
            if rng.random() < 0.1:
                # Cut off here: it comes again.
                break
            copy.take(batch, table)
            place = batch.position
        if rng.random() < 0.5:
            feed.confirm(place)
            await feed.receive(1)
    return place
