"""Goal: a table that was not captured for a while is not written to before all of it has been read again.

Method: the hub's own words, one after the other as they come: held, ordered to be read, read.
"""

from __future__ import annotations

from engine.hub.sqlite import memory_hub
from engine.hub.transaction import HubTransaction
from engine.pipeline.backfill import copy_anew
from engine.pipeline.deliver import uncaptured
from engine.pipeline.enroll import Enrolment, enroll
from engine.testing.kits import ACCOUNT, KITS, PART, SITE
from tests.pipeline.world import WorldClock

NONE: frozenset[str] = frozenset()


def test_the_order_to_read_a_table_does_not_let_it_go_yet() -> None:
    hub = memory_hub(WorldClock())

    def work(tx: HubTransaction) -> None:
        systems = [Enrolment(name=kit.name, mapping=kit.mapping(), is_source=True, is_target=True) for kit in KITS]
        crm = enroll(tx, hub.hub_id, (ACCOUNT, SITE, PART), systems).named("crm")
        assert uncaptured(tx, crm, NONE) == NONE
        tx.write(
            "insert into held (system, name, message, since, is_uncaptured)"
            " values (?1, 'customers', '', 0, 1), (?1, 'locations', '', 0, 0)",
            (crm.id,),
        )
        held = uncaptured(tx, crm, NONE)
        assert held == {"customers"}, "a table that was truncated is captured all the same"
        copy_anew(tx, crm, crm.tables)
        assert uncaptured(tx, crm, held) == held
        for place in crm.places:
            tx.write("insert into snapshot (place, is_done) values (?, 0)", (place.id,))
        assert uncaptured(tx, crm, held) == held, "a part of it is not enough"
        tx.write("update snapshot set is_done = 1")
        assert uncaptured(tx, crm, held) == NONE

    hub.transact_now(work)
