"""Goal: thousands of rows that are one too many cost one look through the journal, and only through its end.

Method: a hub whose journal is long before the first of them; whoever refers to one is found, whatever number it means.
A key that comes again is told from one that a user's row has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.hub.sqlite import memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import AGAIN, CHANGE, Entry
from engine.pipeline.doubles import Doubles
from engine.pipeline.enroll import Enrolment, enroll
from engine.pipeline.settle import NewLinks, add_links
from engine.ports import KeyRule
from engine.testing.kits import ACCOUNT, KITS, PART, SITE
from engine.testing.mapping import PlainPlace
from tests.pipeline.world import WorldClock

DOUBLES = 300
ACCOUNT_ID, SITE_ID = 1, 2


def test_all_doubles_of_a_transaction_are_removed_in_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = memory_hub(WorldClock())
    looked: list[int] = []
    entries_behind = HubTransaction.entries_behind

    def counted(tx: HubTransaction, after: int) -> Iterator[Entry]:
        looked.append(after)
        return entries_behind(tx, after)

    monkeypatch.setattr(HubTransaction, "entries_behind", counted)

    def born(tx: HubTransaction, entity: int, *values: object) -> int:
        seq = tx.last_seq + 1
        fields = (True, *values)
        tx.append(Entry(seq, seq, entity, 1, 0, (1 << len(fields)) - 1, 0, 0, CHANGE, 0, fields))  # pyright: ignore
        return seq

    def work(tx: HubTransaction) -> None:
        systems = [Enrolment(name=kit.name, mapping=kit.mapping(), is_source=True, is_target=True) for kit in KITS]
        topology = enroll(tx, hub.hub_id, (ACCOUNT, SITE, PART), systems)
        fsm = topology.named("fsm")
        place = next(part for part in fsm.places if part.entity.name == "account")
        for n in range(1_000):
            born(tx, SITE_ID, None, f"old {n}")
        # A placeholder that turned out to be the first of them, and is what somebody refers to.
        placeholder = born(tx, ACCOUNT_ID, *[None] * 7)
        early = born(tx, SITE_ID, placeholder, "early")
        rids = [born(tx, ACCOUNT_ID, f"e{n}", *[None] * 6) for n in range(DOUBLES)]
        tx.set_alias(placeholder, rids[0])
        sites = [born(tx, SITE_ID, rid, "site") for rid in rids]
        moved = sites.pop()
        entry = tx.current(moved)
        assert entry is not None
        seq = tx.last_seq + 1
        values = (True, None, "nobody's now")
        tx.append(Entry(seq, moved, SITE_ID, 1, 0, 2, 0, entry.seq, CHANGE, entry.seq, values, entry.stamps_without(2)))
        before = tx.last_seq
        doubles = Doubles(tx, topology)
        for n, rid in enumerate(rids):
            doubles.add(place, f"k{n}", rid)
        doubles.remove()
        again = [e for e in entries_behind(tx, before) if e.kind == AGAIN]
        assert all(e.concerned == fsm.bit for e in again)
        repointed = [e.rid for e in again if e.entity == SITE_ID]
        assert repointed == [early, *sites], "whoever refers to one, and nobody else"
        deleted = [e for e in again if e.entity == ACCOUNT_ID]
        assert [tx.alias(e.rid) for e in deleted] == rids
        assert all(e.mask == 1 << ALIVE and e.value(ALIVE) is False for e in deleted)
        assert again.index(deleted[0]) == len(repointed), "what refers to a row goes before the row"
        assert looked == [placeholder]

    hub.transact_now(work)


@pytest.mark.parametrize("is_deleted", [True, False])
@pytest.mark.parametrize("rule", [KeyRule.ASSIGNED, KeyRule.FIELD])
def test_the_key_of_a_deleted_row_that_the_database_gives_again_is_that_of_the_new_row(
    is_deleted: bool, rule: KeyRule
) -> None:
    hub = memory_hub(WorldClock())

    def work(tx: HubTransaction) -> None:
        systems = [Enrolment(name=kit.name, mapping=kit.mapping(), is_source=True, is_target=True) for kit in KITS]
        topology = enroll(tx, hub.hub_id, (ACCOUNT, SITE, PART), systems)
        fsm = topology.named("fsm")
        part = next(part for part in fsm.places if part.entity.name == "account")
        assert isinstance(part.place, PlainPlace)
        part = replace(part, place=replace(part.place, key_rule=rule))
        topology.places[part.id] = part
        rids: list[int] = []
        for alive in (not is_deleted, True):
            rids.append(seq := tx.last_seq + 1)
            fields = (alive, *[None] * 7)
            tx.append(Entry(seq, seq, ACCOUNT_ID, 1, 0, (1 << len(fields)) - 1, 0, 0, CHANGE, 0, fields))
        old, new = rids
        tx.link(part.id, "2", old)
        links = NewLinks()
        links.add(part.id, "2", new)
        linked = add_links(tx, topology, fsm, links, tx.last_seq)
        again = [entry.rid for entry in tx.entries_behind(new) if entry.kind == AGAIN]
        if is_deleted and rule is KeyRule.ASSIGNED:
            assert (linked, again, tx.load_keys(part.id, ["2"])) == ([[new]], [], {"2": new})
            assert tx.linked_by(part.id, new) == ("2", new)
            assert tx.keys_of(part.id, [old]) == {}
        else:
            assert (linked, again, tx.load_keys(part.id, ["2"])) == ([[]], [old], {"2": old})

    hub.transact_now(work)
