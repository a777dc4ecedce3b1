"""Goal: a hub of an earlier version is the same hub after a migration, and numbers that people were told are not given
to anything else.

Method: hubs made by the earlier steps alone, with rows in them, brought up to date.
"""

from __future__ import annotations

from engine.hub.aside import Parked
from engine.hub.database import Database
from engine.hub.sqlite import connect, memory_hub, migrate
from engine.hub.transaction import HubTransaction
from engine.runtime.clock import SystemClock
from migrations import migrations

INDEXES = "select name, sql from sqlite_schema where type = 'index' and tbl_name = 'parked' order by name"


def earlier_hub(number: int) -> Database:
    connection = connect(None)
    for step in migrations()[:number]:
        connection.execute(step.sql)
        connection.execute(f"pragma user_version = {step.number}")
    connection.execute("insert into hub values (1, 'a', 0, 0)")
    return connection


def parked(rid: int) -> Parked:
    return Parked(
        system=1, direction="target", place=1, rid=rid, key=None, seq=rid, seen=0, code="c", reason="r", message="m"
    )


def test_what_is_parked_keeps_its_numbers_and_its_indexes() -> None:
    connection = earlier_hub(3)
    connection.execute(
        "insert into parked (id, system, direction, place, rid, seq, code, reason, message, parked_at, tried_at)"
        " values (7, 1, 'target', 2, 5, 9, 'c', 'r', 'm', 10, 11), (3, 1, 'source', 2, null, 8, 'c', 'r', 'm', 10, 11)"
    )
    rows, indexes = list(connection.execute("select * from parked order by id")), list(connection.execute(INDEXES))
    migrate(connection, SystemClock())
    assert list(connection.execute("select * from parked order by id")) == rows
    assert list(connection.execute(INDEXES)) == indexes
    assert len(indexes) == 3
    hub = memory_hub(SystemClock(), connection)
    hub.transact_now(lambda tx: tx.write("delete from parked"))
    hub.transact_now(lambda tx: tx.park(parked(6)))
    assert hub.transact_now(numbers) == [8]


def test_a_number_that_is_free_again_is_not_given_to_another_record() -> None:
    hub = memory_hub(SystemClock())
    for rid in (1, 2, 2):
        hub.transact_now(lambda tx, rid=rid: tx.park(parked(rid)))
    assert hub.transact_now(numbers) == [1, 2]
    hub.transact_now(lambda tx: tx.write("delete from parked"))
    hub.transact_now(lambda tx: tx.park(parked(3)))
    assert hub.transact_now(numbers) == [3]


def numbers(tx: HubTransaction) -> list[int]:
    return [number for (number,) in tx.rows("select id from parked order by id")]
