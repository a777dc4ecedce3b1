"""Goal: thousands of rows that are one too many cost one look through the journal, and only through its end.

Method: a hub whose journal is long before the first of them; whoever refers to one is found, whatever number it means.
A key that comes again is told from one that a user's row has; rows are matched whatever came before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from engine.hub.sqlite import memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.change import INSERT, READ
from engine.model.entity import ALIVE, Match
from engine.model.record import AGAIN, CHANGE, Entry
from engine.pipeline.canonicalize import PlaceRows
from engine.pipeline.commit import Committer, Counts
from engine.pipeline.doubles import Doubles
from engine.pipeline.enroll import Enrolment, enroll
from engine.pipeline.identify import add_placeholder, candidates
from engine.pipeline.settle import NewLinks, add_links
from engine.pipeline.topology import Topology
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


def _two_systems(tx: HubTransaction, hub_id: str) -> Topology:
    systems = [Enrolment(name=kit.name, mapping=kit.mapping(), is_source=True, is_target=True) for kit in KITS]
    return enroll(tx, hub_id, (ACCOUNT, SITE, PART), systems)


def _known(tx: HubTransaction, topology: Topology, system: str, key: str, email: str) -> int:
    """An account with a row in one system."""
    part = next(part for part in topology.named(system).places if part.entity.name == "account")
    seq = tx.last_seq + 1
    fields = (True, email, *[None] * 6)
    tx.append(Entry(seq, seq, ACCOUNT_ID, part.system, 0, 3, 0, 0, CHANGE, 0, fields))
    tx.link(part.id, key, seq)
    entity = topology.entities[ACCOUNT_ID]
    assert entity.match_keys is not None
    tx.add_match_keys(ACCOUNT_ID, entity.match_keys(fields), seq)
    return seq


def _arrive(tx: HubTransaction, topology: Topology, key: str, email: str, op: int) -> Counts:
    """A row of the CRM's, read or entered when it has seen everything."""
    crm = topology.named("crm")
    part = next(part for part in crm.places if part.entity.name == "account")
    rows = PlaceRows(
        part=part, ops=bytearray([op]), times=[1], keys=[key], records=[(True, email, *[None] * 6)], references=(),
        mask=0xFF, old_keys={}, problems={}, documents={},
    )  # fmt: skip
    counts = Counts()
    Committer(topology, crm).take_rows(tx, rows, tx.last_seq, counts)
    return counts


@pytest.mark.parametrize("many", [False, True])
def test_a_row_that_was_referred_to_before_it_came_is_matched_like_any_other(many: bool) -> None:
    hub = memory_hub(WorldClock())

    def work(tx: HubTransaction) -> None:
        topology = _two_systems(tx, hub.hub_id)
        part = next(part for part in topology.named("crm").places if part.entity.name == "account")
        rids = [_known(tx, topology, "erp", str(n), "a@a.example") for n in range(1 + many)]
        placeholder = add_placeholder(tx, part, "50")
        # Behind a delivery that the CRM has seen, the placeholder counts as known to it.
        counts = _arrive(tx, topology, "50", "a@a.example", INSERT)
        if many:
            assert counts.reviews == 1
            assert tx.undecided == {placeholder}
            assert [e.concerned for e in tx.entries_behind(placeholder)] == [0]
        else:
            assert tx.alias(placeholder) == rids[0]
            assert tx.load_keys(part.id, ["50"]) == {"50": rids[0]}

    hub.transact_now(work)


@pytest.mark.parametrize(("op", "is_shared", "reviews"), [
    (READ, True, 1), (INSERT, True, 0), (READ, False, 0),
])  # fmt: skip
def test_a_second_row_that_is_read_for_a_record_waits_for_a_person(op: int, is_shared: bool, reviews: int) -> None:
    hub = memory_hub(WorldClock())

    def work(tx: HubTransaction) -> None:
        topology = _two_systems(tx, hub.hub_id)
        rid = _known(tx, topology, "crm", "1", "a@a.example")
        if is_shared:
            erp = next(part for part in topology.named("erp").places if part.entity.name == "account")
            tx.link(erp.id, "9", rid)
        counts = _arrive(tx, topology, "2", "a@a.example", op)
        assert counts.reviews == reviews
        (new,) = tx.entries_behind(rid)
        assert (new.rid in tx.undecided, new.concerned != 0) == (bool(reviews), not reviews)

    hub.transact_now(work)


def test_a_stronger_rule_that_finds_a_record_with_another_row_goes_before_a_weaker_one_that_finds_any() -> None:
    hub = memory_hub(WorldClock())
    matches = tuple(Match(fields=(name,), normalise=("exact",)) for name in ("email", "name"))
    account = msgspec.structs.replace(ACCOUNT, matches=matches)

    def work(tx: HubTransaction) -> None:
        systems = [Enrolment(name=kit.name, mapping=kit.mapping(), is_source=True, is_target=True) for kit in KITS]
        topology = enroll(tx, hub.hub_id, (account, SITE, PART), systems)
        same_mail = _known(tx, topology, "erp", "1", "a@a.example")
        other = _known(tx, topology, "erp", "2", "b@a.example")
        # The first has a row in the CRM by now, linked by its name; both are called what the next row is called.
        crm = topology.named("crm")
        part = next(part for part in crm.places if part.entity.name == "account")
        tx.link(part.id, "11", same_mail)
        entity = topology.entities[ACCOUNT_ID]
        assert entity.match_keys is not None
        named = (True, "b@a.example", "Ann", *[None] * 5)
        tx.add_match_keys(ACCOUNT_ID, entity.match_keys(named), other)
        tx.append(Entry(tx.last_seq + 1, other, ACCOUNT_ID, 3, 0, 4, 0, other, CHANGE, other, named))
        found = candidates(tx, entity, part, (True, "a@a.example", "Ann", *[None] * 5), tx.last_seq, is_read=True)
        assert found == ([same_mail], False)
        changed = candidates(tx, entity, part, (True, "a@a.example", "Ann", *[None] * 5), tx.last_seq, is_read=False)
        assert changed == ([other], True)

    hub.transact_now(work)
