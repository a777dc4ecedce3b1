"""Goal: a row whose key is null parks by itself, whatever else stands in its batch, and no lane stops for it.

Method: the crosswalk's readers over batches with inserts, updates that move keys, and deletes, some of them without a
key, through the canonicalizer and the committer into a real hub.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.hub.sqlite import SqliteHub, memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.change import DELETE, INSERT, UPDATE, Batch, Segment, TableRows
from engine.model.position import Position
from engine.model.value import WireRow
from engine.pipeline.canonicalize import Canonicalizer
from engine.pipeline.commit import Committer, Counts
from engine.pipeline.enroll import Enrolment, enroll
from tests.crosswalk.tables import dictionary, mapping, shape
from tests.pipeline.world import WorldClock

TEXT = """
[[table]]
name = "customers"
entity = "account"
key = ["id"]

[table.fields]
name = "name"
"""
CUSTOMERS = shape("customers", "id text", "name text", key=())


def commit(hub: SqliteHub, directory: Path, changes: list[tuple[int, WireRow, WireRow | None]]) -> Counts:
    read = mapping(directory, TEXT)
    entities = dictionary(directory).entities

    def work(tx: HubTransaction) -> Counts:
        enrolment = Enrolment(name="crm", mapping=read, is_source=True, is_target=True)
        topology = enroll(tx, hub.hub_id, entities, [enrolment])
        rows = TableRows(CUSTOMERS)
        for op, row, old in changes:
            rows.add(op, row, 1, old)
        batch = Batch(Position((len(changes),)), [Segment(tables={"customers": rows})], rows_read=len(changes))
        system = topology.named("crm")
        return Committer(topology, system).commit(tx, Canonicalizer(system).canonicalize(batch))

    return hub.transact_now(work)


@pytest.mark.parametrize("has_delete", [False, True])
def test_a_row_without_a_key_parks_and_the_others_are_taken(tmp_path: Path, *, has_delete: bool) -> None:
    hub = memory_hub(WorldClock())
    changes: list[tuple[int, WireRow, WireRow | None]] = [(INSERT, ("1", "Ash"), None), (INSERT, (None, "Elm"), None)]
    changes += [(DELETE, (None, "Oak"), None), (DELETE, ("9", "Fir"), None)] if has_delete else []
    counts = commit(hub, tmp_path, [*changes, (INSERT, ("2", "Yew"), None)])
    assert (counts.entries, counts.parked) == (2, 1)
    assert hub.transact_now(lambda tx: tx.rows("select key from link order by key")) == [(1,), (2,)]


def test_a_key_that_becomes_null_and_one_that_was_null_stop_nothing(tmp_path: Path) -> None:
    hub = memory_hub(WorldClock())
    commit(hub, tmp_path, [(INSERT, ("1", "Ash"), None)])
    changes: list[tuple[int, WireRow, WireRow | None]] = [
        (UPDATE, (None, "Ash"), ("1", "Ash")),
        (UPDATE, ("3", "Elm"), (None, "Elm")),
    ]
    counts = commit(hub, tmp_path, changes)
    assert counts.parked == 1
    # The record whose row has no key any more is known by the one it had.
    assert hub.transact_now(lambda tx: tx.rows("select key, rid from link order by key")) == [(1, 1), (3, 2)]
