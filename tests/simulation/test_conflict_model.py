"""The rule of conflicts keeps its promises, in the model that the engine is held against.

Goal: the executable model is itself right, for every policy of the dictionary.
Method: random worlds (`engine.testing.model_world`), each trait alone so that a failure says which one it is; a few
histories by hand for what a search would not explain; and worlds with one part of the rule left out, which must fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from engine.model.record import Value
from engine.testing.model import Cell, Decision, Held, ModelHub, Values
from engine.testing.model_world import STOCK, SYSTEMS, THING, ModelWorld, Traits, run, search

PLAIN = Traits(deletes=False)
WORLDS = {
    "plain": PLAIN,
    "deletes": Traits(),
    "repeats": Traits(repeats=True, deletes=False),
    "islands": Traits(islands=True, deletes=False),
    "everything": Traits(repeats=True, islands=True),
}


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_of_every_kind_agree(name: str) -> None:
    for seed in range(80):
        try:
            run(seed, WORLDS[name])
        except AssertionError as error:
            raise AssertionError(f"{name}, seed {seed}: {error}") from error


def test_a_system_that_writes_alone_has_no_conflicts() -> None:
    for seed in range(40):
        world = run_alone(seed)
        assert not world.hub.conflicts, f"seed {seed}"


def run_alone(seed: int) -> ModelWorld:
    rng = Random(seed)
    world = ModelWorld(rng, PLAIN)
    for _ in range(40):
        world.user_acts("fsm")
        for step in rng.sample((world.capture, world.deliver, world.retry), rng.randrange(3)):
            step(rng.choice(SYSTEMS))
    world.settle()
    world.check()
    return world


class _Forgetful(ModelHub):
    """Thinks that a delivery covers what was written while it was on its way."""

    def landing(self, system: str, rid: int, cell: Cell) -> int:
        return 0


class _Absolute(ModelHub):
    """Takes a counter's new value instead of the difference."""

    def _final(self, cell: Cell, current: Values, held: Values, values: Values) -> Values:
        return values


class _Trusting(ModelHub):
    """Thinks that a refused record has seen what everybody has."""

    def seen_of(self, system: str, rid: int) -> int:
        return self.seen[system]


class _Plain(ModelHub):
    """Knows no overlays: what a system holds is its own last winner or what was delivered."""

    def image(self, system: str, rid: int, cell: Cell) -> Held:
        self.overlays.pop((system, rid, cell), None)
        return super().image(system, rid, cell)


@pytest.mark.parametrize("broken", [_Forgetful, _Absolute, _Trusting, _Plain])
def test_a_rule_with_a_part_left_out_is_found_out(broken: type[ModelHub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.testing.model_world.ModelHub", broken)
    assert next(iter(search(300)), None) is not None


# By hand.


def hub() -> ModelHub:
    found = ModelHub(THING, SYSTEMS)
    found.base[1] = {"alive": True, "stock": STOCK}
    return found


def take(found: ModelHub, system: str, time: int, **changes: Value) -> list[Decision]:
    return found.take(system, 1, changes, time)


def show(found: ModelHub, system: str) -> None:
    """Deliver everything to a system, and let its log show it."""
    found.deliver(system, len(found.journal))
    found.marker(system, len(found.journal))


def outcome(decisions: list[Decision]) -> Mapping[str, tuple[str, str | None]]:
    return {decision.cell[0]: (decision.outcome, decision.rule) for decision in decisions}


def test_counters_add_up_what_each_system_did_to_what_it_held() -> None:
    found = hub()
    take(found, "crm", 1, stock=STOCK - 1)
    assert outcome(take(found, "fsm", 2, stock=STOCK - 1)) == {"stock": ("loud", "sum")}
    assert found.record(1)["stock"] == STOCK - 2
    # fsm holds what it wrote until the sum lands.
    take(found, "fsm", 3, stock=STOCK)
    assert found.record(1)["stock"] == STOCK - 1


def test_a_counter_without_a_common_base_is_the_latest() -> None:
    found = hub()
    found.unlinked.add(("erp", 1))
    take(found, "crm", 5, stock=STOCK - 10)
    found.link("erp", 1, {"alive": True, "stock": 40}, 3)
    assert found.record(1)["stock"] == STOCK - 10


def test_a_manual_conflict_waits_for_a_person_whose_word_goes_to_everybody() -> None:
    found = hub()
    take(found, "crm", 1, grade="A")
    assert outcome(take(found, "fsm", 9, grade="B")) == {"grade": ("lost", "manual")}
    (conflict,) = found.conflicts
    assert conflict.is_open
    seq = found.resolve(conflict, ("B",), 10)
    assert found.journal[seq - 1].concerned == frozenset(SYSTEMS)
    assert found.record(1)["grade"] == "B"
    for system in SYSTEMS:
        show(found, system)
    assert outcome(take(found, "crm", 11, grade="C")) == {"grade": ("quiet", None)}


def test_others_may_follow_an_owner_who_accepts_but_not_pass_it_by() -> None:
    found = hub()
    take(found, "erp", 1, price="10")
    assert outcome(take(found, "crm", 2, price="11")) == {"price": ("lost", "owner")}
    show(found, "fsm")
    assert outcome(take(found, "fsm", 3, price="12")) == {"price": ("quiet", None)}
    # crm has seen neither; that fsm's stands now does not make it a match between equals.
    assert outcome(take(found, "crm", 4, price="13")) == {"price": ("lost", "owner")}
    assert found.record(1)["price"] == "12"


def test_an_owner_that_never_spoke_lets_others_write_and_then_wins() -> None:
    found = hub()
    assert outcome(take(found, "fsm", 1, name="x")) == {"name": ("quiet", None)}
    assert outcome(take(found, "crm", 0, name="y")) == {"name": ("loud", "owner")}
    show(found, "fsm")
    assert outcome(take(found, "fsm", 2, name="z")) == {"name": ("lost", "owner")}


def test_an_owner_that_writes_what_is_there_already_has_spoken() -> None:
    found = hub()
    take(found, "fsm", 1, name="x")
    assert outcome(take(found, "crm", 2, name="x")) == {"name": ("loud", "owner")}
    assert not found.conflicts
    show(found, "fsm")
    assert outcome(take(found, "fsm", 3, name="y")) == {"name": ("lost", "owner")}


def test_a_group_wins_or_loses_as_one() -> None:
    found = hub()
    take(found, "crm", 5, street="a", city="b")
    assert outcome(take(found, "fsm", 3, city="c")) == {"street": ("lost", "latest")}
    assert (found.record(1)["street"], found.record(1)["city"]) == ("a", "b")
    assert found.conflicts[0].loser == (None, "c")


def test_the_same_edit_twice_is_no_conflict_but_its_time_counts() -> None:
    found = hub()
    take(found, "crm", 1, phone="x")
    assert outcome(take(found, "erp", 5, phone="x")) == {"phone": ("loud", "latest")}
    assert not found.conflicts
    assert outcome(take(found, "fsm", 3, phone="y")) == {"phone": ("lost", "latest")}


@pytest.mark.parametrize("first", ["crm", "fsm"])
def test_a_deletion_and_an_edit_that_did_not_know_of_it_are_recorded(first: str) -> None:
    found = hub()
    changes: dict[str, dict[str, Value]] = {"crm": {"alive": False}, "fsm": {"phone": "x"}}
    for system in (first, "fsm" if first == "crm" else "crm"):
        found.take(system, 1, changes[system], 1)
    assert found.record(1)["alive"] is False
    assert [(c.rule, c.cell, c.loser) for c in found.conflicts] == [("deleted", ("phone",), ("x",))]


def test_a_newcomer_has_seen_nothing_and_is_brought_to_what_the_record_is() -> None:
    found = hub()
    found.unlinked.add(("fsm", 1))
    take(found, "crm", 1, name="x", phone="1")
    found.deliver("fsm", 1)
    found.marker("fsm", 1)
    decisions = found.link("fsm", 1, {"alive": True, "name": "y", "phone": "2", "grade": "A"}, 9)
    assert outcome(decisions) == {
        "alive": ("quiet", None),
        "grade": ("quiet", None),
        "phone": ("loud", "latest"),
        "name": ("lost", "owner"),
    }
    written = found.deliver("fsm", len(found.journal))
    assert written[1, ("name",)][0] == ("x",)
    assert written[1, ("stock",)][0] == (STOCK,)
    assert (1, ("grade",)) not in written
