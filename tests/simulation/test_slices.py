"""Goal: a batch that is read slice by slice is the log, each row once and in order, and cuts no transaction that it
could take whole.

Method: random transactions in a memory system, two places on one of its tables; slices and batches of a few rows.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hub.sqlite import memory_hub
from engine.model.entity import Entity, Field, Type
from engine.pipeline import capture
from engine.pipeline.canonicalize import CanonicalBatch, Canonicalizer
from engine.pipeline.capture import Capturer
from engine.pipeline.commit import Counts
from engine.pipeline.signals import Signals
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import Feed
from engine.runtime.clock import SystemClock
from engine.testing.mapping import PlainMapping, PlainPlace
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import MemorySource
from tests.simulation.memory_world import database, run

SLICE, BATCH = 3, 8
ALIVE, TEXT = Field(name="alive", type=Type.BOOLEAN), Field(name="text", type=Type.TEXT)
ENTITIES = [Entity(name=name, id=n, fields=(ALIVE, TEXT)) for n, name in enumerate(("account", "mail", "job"), 1)]
PLACES = (
    PlainPlace(table="customers", entity="account", fields={"text": "name"}),
    PlainPlace(table="customers", entity="mail", fields={"text": "email"}, place_name="mails"),
    PlainPlace(table="jobs", entity="job", fields={"text": "title"}),
)
SYSTEM = SystemPart(
    id=1, name="crm", rank=1, is_source=True, is_target=False, mapping=PlainMapping(places=PLACES),
    places=tuple(PlacePart(id=n, system=1, entity=entity, place=place)
                 for n, (entity, place) in enumerate(zip(ENTITIES, PLACES, strict=True), 1)),
)  # fmt: skip
TOPOLOGY = Topology(hub_id="h", systems={1: SYSTEM}, entities={})
Change = tuple[int, str, object, str | None]


def write(found: MemoryDatabase, transactions: list[list[int]]) -> None:
    """Each number is a row, of `jobs` when it is even; later it is changed, every fifth gets another key."""
    for numbers in transactions:
        with found.transaction() as transaction:
            for n in numbers:
                table, key, column = ("customers", str(n), "name") if n % 2 else ("jobs", str(n), "title")
                is_free = (str(n + 100),) not in found.tables[table].rows
                again = {"id": str(n + 100)} if n % 5 == 0 and is_free else {column: f"{n} again"}
                if not transaction.update(table, (key,), again):
                    transaction.insert(table, {"id": key, column: f"{n}"})


def changes(batches: list[CanonicalBatch]) -> dict[int, list[Change]]:
    """Place → op, key, record and old key of each of its changes."""
    found: dict[int, list[Change]] = defaultdict(list)
    for batch in batches:
        for segment in batch.segments:
            for rows in segment.rows:
                assert len(rows.keys) == len(rows.records) == len(rows.ops) == len(rows.times)
                old_keys = [rows.old_keys.get(n) for n in range(len(rows.keys))]
                found[rows.part.id] += zip(rows.ops, rows.keys, rows.records, old_keys, strict=True)
    return found


async def ignore(counts: Counts, batch: CanonicalBatch) -> None:
    """Nobody is told of commits here."""


def capturer(feed: Feed) -> Capturer:
    return Capturer(memory_hub(SystemClock()), TOPOLOGY, SYSTEM, feed, Signals(), ignore)


rows = st.lists(st.integers(1, 40), min_size=1, max_size=3 * BATCH, unique=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, min_size=1, max_size=12))
def test_slices_are_the_log(transactions: list[list[int]]) -> None:
    found = database()
    write(found, transactions)

    async def read() -> tuple[list[CanonicalBatch], CanonicalBatch]:
        source, batches = MemorySource(found), list[CanonicalBatch]()
        async with source.feed(None, SYSTEM.tables, frozenset()) as feed:
            whole = Canonicalizer(SYSTEM).canonicalize(await feed.receive(10_000))
        async with source.feed(None, SYSTEM.tables, frozenset()) as feed:
            lane = capturer(feed)
            while not batches or batches[-1].position != whole.position:
                batch = await lane._receive_batch()  # pyright: ignore[reportPrivateUsage]
                assert batch is not None, "no page is due"
                batches.append(batch)
        return batches, whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "SLICE_ROWS", SLICE)
        patch.setattr(capture, "BATCH_ROWS", BATCH)
        batches, whole = run(read)
    assert changes(batches) == changes([whole])
    assert sum(batch.rows_read for batch in batches) == whole.rows_read
    assert max(batch.rows_read for batch in batches) <= 2 * BATCH + SLICE
    if all(len(numbers) < BATCH for numbers in transactions):
        assert all(batch.is_whole for batch in batches)
        assert all(batch.rows_read >= BATCH for batch in batches[:-1])
