"""The engine decides as the model does.

Goal: the resolver, with its short cuts, journals what `engine.testing.model` journals, entry by entry.
Method: the worlds of `tests.pipeline.world` run around the real hub while a `ModelHub` is told the same edits, markers,
deliveries, refusals and retries. After every step: the same entries with the same fields for the same systems, the same
canonical values, and at the end the same conflicts.
"""

from __future__ import annotations

import random

import pytest

from engine.hub.transaction import HubTransaction
from engine.model.record import AGAIN, Entry, bits
from engine.testing.model import ModelEntry, ModelHub
from tests.pipeline.world import SYSTEMS, THING, World

NAMES = [field.name for field in THING.fields]


class Pair:
    """A world and the model that shadows it."""

    def __init__(self, rng: random.Random, fields: tuple[int, ...]) -> None:
        self.world = World(rng, fields)
        self.model = ModelHub(THING, SYSTEMS)
        for key, rid in self.world.rids.items():
            values = self.world.systems[1].rows[key]
            self.model.base[rid] = dict(zip(NAMES, values, strict=True))
            # The engine's records begin with an entry each.
            self.model.journal.append(ModelEntry(rid, (), frozenset(), is_again=False))
        for name in SYSTEMS:
            self.model.seen[name] = self.model.delivered[name] = len(self.model.journal)

    def act(self, kind: str, n: int) -> bool:
        world, model, name = self.world, self.model, SYSTEMS[n - 1]
        if kind == "capture":
            log = world.systems[n].log
            if not log:
                return False
            seen, key, row, time = log[0]
            world.capture(n)
            if seen is not None:
                model.marker(name, seen)
            elif row is not None:
                model.take(name, world.rids[key], dict(zip(NAMES, row, strict=True)), time)  # pyright: ignore
        elif kind == "deliver":
            refusing = {rid for system, rid in world.refusing if system == n}
            if not world.deliver(n):
                return False
            cursor = world.hub.transact_now(lambda tx: tx.system(n, "cursor")[0])
            model.deliver(name, cursor, refusing)
        else:
            accepted = [rid for rid in world.rids.values() if (n, rid) not in world.refusing]
            if not world.retry(n):
                return False
            # The world retries one record at a time.
            assert any(model.retry(name, rid) for rid in accepted)
        return True

    def step(self) -> None:
        rng = self.world.rng
        kind = rng.choices(("edit", "capture", "deliver", "retry", "mind"), (6, 6, 6, 1, 1))[0]
        n = rng.choice(list(self.world.systems))
        if kind == "edit":
            self.world.user_edits()
        elif kind == "mind":
            self.world.refusing ^= {(n, rng.choice(list(self.world.rids.values())))}
        else:
            self.act(kind, n)

    def settle(self) -> None:
        self.world.refusing.clear()
        while True:
            # A list: every one takes its step, not only those before the first that had something to do.
            moved = [self.act(kind, n) for n in self.world.systems for kind in ("capture", "deliver", "retry")]
            if not any(moved):
                return

    def compare(self) -> None:
        entries = self.world.hub.transact_now(_journal)
        assert len(entries) == len(self.model.journal)
        for entry, expected in zip(entries, self.model.journal, strict=True):
            if expected.cells:
                assert _shown(entry) == _expected(expected), f"entry {entry.seq}"
        for rid in self.world.rids.values():
            current = self.world.hub.transact_now(lambda tx, rid=rid: tx.current(rid))
            assert current is not None
            assert dict(zip(NAMES, current.values, strict=True)) == self.model.record(rid), f"record {rid}"

    def compare_conflicts(self) -> None:
        found = sorted((rule, repr(winner), repr(loser)) for rule, winner, loser in self.world.conflicts())
        expected = sorted((c.rule, repr(list(c.winner)), repr(list(c.loser))) for c in self.model.conflicts)
        assert found == expected


def _journal(tx: HubTransaction) -> list[Entry]:
    return list(tx.read_journal(0, tx.last_seq))


def _shown(entry: Entry) -> tuple[int, frozenset[str], frozenset[str], bool]:
    fields = frozenset(NAMES[n] for n in bits(entry.mask))
    return entry.rid, fields, frozenset(SYSTEMS[n - 1] for n in bits(entry.concerned)), entry.kind == AGAIN


def _expected(entry: ModelEntry) -> tuple[int, frozenset[str], frozenset[str], bool]:
    return entry.rid, frozenset(name for cell in entry.cells for name in cell), entry.concerned, entry.is_again


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((1, 2, 3), id="plain"),
        pytest.param((1, 2, 3, 4, 5), id="groups"),
        pytest.param((2, 5, 7, 8), id="policies"),
        pytest.param((2, 6, 7), id="accept"),
    ],
)
def test_entries_values_and_conflicts_are_the_models(fields: tuple[int, ...]) -> None:
    for seed in range(100):
        rng = random.Random(seed)
        pair = Pair(rng, fields)
        try:
            for _ in range(rng.randrange(10, 150)):
                pair.step()
            pair.settle()
            pair.compare()
            pair.compare_conflicts()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
