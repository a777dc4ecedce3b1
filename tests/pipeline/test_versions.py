"""Goal: the journal is the undo log: any record can be read as of any seq.

Method: worlds in which every document is noted as it is journalled; afterwards every record is read as of every seq.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hub.transaction import HubTransaction
from engine.model.record import CHANGE, Entry, Stamp, bits
from tests.pipeline.world import World


def journal(tx: HubTransaction) -> list[Entry]:
    return tx.read_journal(0, tx.last_seq)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_records_read_as_they_were_after_any_entry(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(60):
        world.step()
    entries = world.hub.transact_now(journal)
    for rid in world.rids.values():
        expected: Entry | None = None
        for seq in range(entries[-1].seq + 1):
            expected = next((e for e in entries if e.seq == seq and e.rid == rid), expected)
            found = world.hub.transact_now(lambda tx, s=seq, r=rid: tx.as_of(r, s))
            assert found == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_stamp_names_the_entry_that_set_the_field(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(60):
        world.step()
    entries = world.hub.transact_now(journal)
    stamps: dict[tuple[int, int], Stamp] = {}
    for entry in entries:
        if entry.kind == CHANGE:
            for index in bits(entry.mask):
                stamps[entry.rid, index] = Stamp(entry.origin, entry.seq, entry.time)
        for index in range(len(entry.values)):
            assert entry.stamp(index) == stamps.get((entry.rid, index))
