"""Goal: a key that one delivery handed out is not handed out again by the next one, which is worked out before the hub
has written the first one's keys down.

Method: records born in a run, whose keys the mapping makes from a field; the same key twice, on either side of the line
between two deliveries.
"""

from __future__ import annotations

import random
from dataclasses import replace

from engine.hub.transaction import HubTransaction
from engine.model.births import Births
from engine.model.entity import Entity
from engine.pipeline.gather import Fresh, Gathered, gather
from engine.pipeline.topology import PlacePart
from engine.ports import Allocate, KeyRule
from tests.pipeline.world import SYSTEMS, THING, World, WorldPlace

ERP = 1 + SYSTEMS.index("erp")


class _NamedPlace(WorldPlace):
    """Keys are names."""

    def allocate(self, entity: Entity) -> Allocate:
        return lambda hub_id, rids, records: [str(record[1]) for record in records]


def _gathered(names: list[str], handed_out: Fresh) -> Gathered:
    world = World(random.Random(1))
    erp = world.systems[ERP].part
    # Nobody but us writes there: then deliveries overlap.
    place = PlacePart(id=ERP, system=ERP, entity=THING, place=_NamedPlace(key_rule=KeyRule.FIELD))
    erp = replace(erp, is_source=False, places=(place,))
    topology = replace(world.topology, systems=world.topology.systems | {ERP: erp})

    def bear(tx: HubTransaction) -> int:
        first = tx.last_seq + 1
        records = [(True, name, None, None, None, None, None, 0, None) for name in names]
        tx.append_births(Births(first, 1, 1, 1 << ERP, [0] * len(names), records))
        return first - 1

    after = world.hub.transact_now(bear)
    return world.hub.transact_now(lambda tx: gather(tx, topology, erp, after, tx.last_seq, handed_out))


def test_new_keys_are_one_bulk() -> None:
    found = _gathered(["a", "b"], Fresh({ERP: (["c"], [1])}))
    assert found.bulk is not None
    assert list(found.bulk.keys) == ["a", "b"]


def test_a_key_of_the_delivery_before_is_not_given_to_another_record() -> None:
    found = _gathered(["a", "b"], Fresh({ERP: (["c", "b"], [1, 2])}))
    assert found.bulk is None
    problems = {item.key: item.problem for item in found.items[ERP]}
    assert problems["a"] is None
    assert "belongs to another record" in str(problems["b"])


def test_keys_asked_for_one_by_one_are_still_seen_by_a_bulk() -> None:
    handed_out = Fresh({ERP: (["b"], [2])})
    assert handed_out.keys(ERP) == {2: "b"}
    assert _gathered(["a", "b"], handed_out).bulk is None
