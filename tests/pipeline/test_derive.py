"""Goal: what follows from a record is there once, in the transaction that set it off, follows it and its children from
then on, and nothing is made of what was there before.

Method: workflows written by hand over a hub in memory; entries appended as a commit would append them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.errors import ConcordError, ValueRefused
from engine.hub.sqlite import SqliteHub, memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import CHANGE, Entry, Value
from engine.pipeline.derive import Deriver
from engine.pipeline.enroll import Enrolment, enroll
from engine.pipeline.topology import Topology
from engine.testing.kits import ACCOUNT, KITS, PART, SITE
from engine.workflow import Made, MadeBy, Make, Seen, Workflow
from tests.pipeline.world import WorldClock

CRM = 1


class World:
    """A hub whose systems know accounts, sites of accounts, and parts. An account whose `name` is "go" gets a part, and
    another one for each of its sites."""

    def __init__(self, makes: tuple[Make, ...] = (), holds: Callable[[Seen], bool] | None = None) -> None:
        self.hub: SqliteHub = memory_hub(WorldClock())

        def begin(tx: HubTransaction) -> Topology:
            kits = [(kit.name, kit.mapping(has_parts=True)) for kit in KITS]
            systems = [Enrolment(name=name, mapping=m, is_source=True, is_target=True) for name, m in kits]
            return enroll(tx, self.hub.hub_id, (ACCOUNT, SITE, PART), systems)

        topology = self.hub.transact_now(begin)
        entities = {part.entity.name: part.entity for part in topology.entities.values()}
        self.account, self.site, self.part = (entities[name] for name in ("account", "site", "part"))
        name, note = self.account.index["name"], self.part.index["note"]
        width, email = len(self.account.fields), self.account.index["email"]
        self.reference = next(n for n, found in self.site.references if found == "account")
        self.own = Make(
            name="own", entity=self.part.id, children=None, where=lambda seen: True,
            key=lambda seen: str(seen[email]), values=lambda seen: {note: seen[name]},
            follows=lambda seen: seen[note] != "mine",
        )  # fmt: skip
        each = Make(
            name="each", entity=self.part.id, children=(self.site.id, self.reference), where=lambda seen: True,
            key=lambda seen: "", values=lambda seen: {note: seen[width + self.site.index["label"]]},
            follows=lambda seen: True,
        )  # fmt: skip
        workflow = Workflow(
            name="go", on=self.account.id, holds=holds or (lambda seen: seen[name] == "go"),
            makes=makes or (self.own, each),
        )  # fmt: skip
        self.deriver = Deriver(replace(topology, workflows=(workflow,)))

    def commit(self, work: Callable[[HubTransaction], int], *, is_copy: bool = False, only_known: bool = False) -> int:
        """One transaction; what `work` gives."""

        def all_of_it(tx: HubTransaction) -> int:
            first = tx.last_seq
            found = work(tx)
            if not is_copy:
                self.deriver.derive(tx, first, only_known=only_known)
            return found

        return self.hub.transact_now(all_of_it)

    def enter(self, tx: HubTransaction, entity: int, **values: Value) -> int:
        known = next(part.entity for part in self.deriver.topology.entities.values() if part.entity.id == entity)
        document = tuple(True if n == ALIVE else values.get(field.name) for n, field in enumerate(known.fields))
        seq = tx.last_seq + 1
        tx.append(Entry(seq, seq, entity, CRM, 0, (1 << len(document)) - 1, 0, 0, CHANGE, 0, document))
        return seq

    def change(self, tx: HubTransaction, rid: int, **values: Value) -> int:
        entry = tx.current(rid)
        assert entry is not None
        known = next(p.entity for p in self.deriver.topology.entities.values() if p.entity.id == entry.entity)
        indexes = {known.index[name]: value for name, value in values.items()}
        document = tuple(indexes.get(n, value) for n, value in enumerate(entry.values))
        mask, seq = sum(1 << n for n in indexes), tx.last_seq + 1
        older = entry.stamps_without(mask)
        tx.append(Entry(seq, rid, entry.entity, CRM, 0, mask, 0, entry.seq, CHANGE, entry.seq, document, older))
        return seq

    def parts(self) -> list[Value]:
        """Notes of the parts that are there."""

        def read(tx: HubTransaction) -> list[Value]:
            found = [(seq, tx.current(seq)) for seq in range(1, tx.last_seq + 1)]
            note, entity = self.part.index["note"], self.part.id
            return [e.value(note) for seq, e in found if e is not None and e.rid == seq and e.entity == entity]

        return self.hub.transact_now(read)


def test_what_comes_to_hold_sets_off_once_and_is_followed() -> None:
    world = World()
    rid = world.commit(lambda tx: world.enter(tx, world.account.id, name="not yet", email="a"))
    assert world.parts() == []
    world.commit(lambda tx: world.change(tx, rid, name="go"))
    assert world.parts() == ["go"]
    site = world.commit(lambda tx: world.enter(tx, world.site.id, account=rid, label="north"))
    assert world.parts() == ["go", "north"]
    world.commit(lambda tx: world.change(tx, site, label="south"))
    world.commit(lambda tx: world.change(tx, rid, phone="1"))
    assert world.parts() == ["go", "south"]
    world.commit(lambda tx: world.change(tx, rid, name="stop"))
    world.commit(lambda tx: world.change(tx, site, label="west"))
    assert world.parts() == ["go", "south"]
    world.commit(lambda tx: world.change(tx, rid, name="go"))
    assert world.parts() == ["go", "west"]


def test_record_and_child_of_one_transaction_go_together_whatever_comes_first() -> None:
    world = World()

    def both(tx: HubTransaction) -> int:
        rid = world.enter(tx, world.account.id, name="go", email="a")
        return world.enter(tx, world.site.id, account=rid, label="north")

    world.commit(both)
    assert world.parts() == ["go", "north"]


def test_what_was_there_before_sets_nothing_off_but_is_not_overlooked_later() -> None:
    world = World()

    def both(tx: HubTransaction) -> int:
        rid = world.enter(tx, world.account.id, name="go", email="a")
        world.enter(tx, world.site.id, account=rid, label="north")
        return rid

    rid = world.commit(both, is_copy=True)
    world.hub.transact_now(world.deriver.learn)
    world.commit(lambda tx: world.change(tx, rid, phone="1"))
    # Nor does what one transaction does and undoes.
    world.commit(lambda tx: (world.change(tx, rid, name="x"), world.change(tx, rid, name="go"))[1])
    other = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="b"), only_known=True)
    assert world.parts() == []
    world.commit(lambda tx: world.change(tx, rid, name="stop"))
    world.commit(lambda tx: world.change(tx, rid, name="go"), only_known=True)
    assert world.parts() == ["go", "north"]
    world.commit(lambda tx: world.change(tx, other, phone="1"))
    assert world.parts() == ["go", "north"]


def test_the_children_of_a_first_copy_are_known_when_their_record_comes_to_hold() -> None:
    world = World()

    def both(tx: HubTransaction) -> int:
        first = tx.last_seq
        rid = world.enter(tx, world.account.id, name="not yet", email="a")
        world.enter(tx, world.site.id, account=rid, label="north")
        world.deriver.take_in(tx, first)
        return rid

    world.hub.transact_now(world.deriver.learn)
    rid = world.commit(both, is_copy=True)
    assert world.parts() == []
    world.commit(lambda tx: world.change(tx, rid, name="go"))
    assert world.parts() == ["go", "north"]


def test_what_refers_to_another_make_waits_until_that_was_made_and_is_there() -> None:
    world = World()
    name, phone = world.account.index["name"], world.account.index["phone"]
    label, width = world.site.index["label"], len(world.account.fields)
    site = Make(
        name="site", entity=world.site.id, children=None, where=lambda seen: seen[phone] is not None,
        key=lambda seen: "k", values=lambda seen: {label: seen[name], world.reference: None}, follows=lambda seen: True,
    )  # fmt: skip
    each = Make(
        name="each", entity=world.part.id, children=(world.site.id, world.reference), where=lambda seen: True,
        key=lambda seen: "", follows=lambda seen: True,
        values=lambda seen: {world.part.index["note"]: seen[width + label], world.part.index["code"]: MadeBy("site")},
    )  # fmt: skip
    world = World(makes=(site, each))
    rid = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    world.commit(lambda tx: world.enter(tx, world.site.id, account=rid, label="north"))
    assert world.parts() == []
    world.commit(lambda tx: world.change(tx, rid, phone="1"))
    assert world.parts() == ["north"]
    made = world.hub.transact_now(lambda tx: tx.rows("select rid from derived where make = 'site'")[0][0])
    world.commit(lambda tx: world.change(tx, made, alive=False))
    world.commit(lambda tx: world.enter(tx, world.site.id, account=rid, label="south"))
    assert world.parts() == ["north"]


def test_the_same_key_is_the_same_record_and_what_somebody_made_his_own_is_left() -> None:
    world = World()
    one = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    assert world.parts() == ["go"]
    part = world.hub.transact_now(lambda tx: tx.rows("select rid from derived")[0][0])
    world.commit(lambda tx: world.change(tx, part, note="mine"))
    world.commit(lambda tx: world.change(tx, one, phone="2"))
    assert world.parts() == ["mine"]


def test_a_child_that_moves_is_of_its_new_parent() -> None:
    world = World()
    one = world.commit(lambda tx: world.enter(tx, world.account.id, name="x", email="a"))
    two = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="b"))
    site = world.commit(lambda tx: world.enter(tx, world.site.id, account=one, label="north"))
    assert world.parts() == ["go"]
    world.commit(lambda tx: world.change(tx, site, account=two))
    assert world.parts() == ["go", "north"]
    world.commit(lambda tx: world.change(tx, site, account=one))
    world.commit(lambda tx: world.change(tx, site, label="south"))
    world.commit(lambda tx: world.change(tx, two, phone="1"))
    assert world.parts() == ["go", "north"]


def test_what_cannot_be_computed_is_on_record_until_it_can() -> None:
    def key(seen: Seen) -> str:
        if seen[world.account.index["phone"]] is None:
            raise ValueRefused("no telephone")
        return "k"

    world = World()
    world = World(makes=(replace(world.own, key=key),))
    rid = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    waiting = "select workflow, make, cause, message from underived"
    assert world.hub.transact_now(lambda tx: tx.rows(waiting)) == [("go", "own", rid, "no telephone")]
    world.commit(lambda tx: world.change(tx, rid, phone="1"))
    assert world.hub.transact_now(lambda tx: tx.rows(waiting)) == []
    assert world.parts() == ["go"]


def test_workflows_that_set_each_other_off_for_ever_are_stopped() -> None:
    world = World()
    name = world.account.index["name"]
    turn = Make(
        name="turn", entity=world.account.id, children=None, change=-1, where=lambda seen: True, key=lambda seen: None,
        values=lambda seen: {name: f"{seen[name]}!"}, follows=lambda seen: True,
    )  # fmt: skip
    world = World(makes=(turn,), holds=lambda seen: str(seen[name]).startswith("go"))
    with pytest.raises(ConcordError, match="set each other off"):
        world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    assert world.parts() == []


def test_this_is_filled_in_by_the_engine() -> None:
    world = World()
    reference = world.reference
    make = Make(
        name="site", entity=world.site.id, children=None, where=lambda seen: True, key=lambda seen: "k",
        values=lambda seen: {reference: Made.THIS}, follows=lambda seen: True,
    )  # fmt: skip
    world = World(makes=(make,))
    rid = world.commit(lambda tx: world.enter(tx, world.account.id, name="go", email="a"))
    made = world.hub.transact_now(lambda tx: tx.current(tx.rows("select rid from derived")[0][0]))
    assert made is not None
    assert made.value(reference) == rid
