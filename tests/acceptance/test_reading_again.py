"""Goal: rows that are read from a table, and not from a log, are not taken for new changes of its users.

Method: systems whose log was lost, or that were only written to until now, and whose rows are read (again) while the
daemon has delivered to them; what the read rows hold of our own deliveries must not win over what comes later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field

CUSTOMER = "insert into customers (id, company_name, email, phone) values ('c', 'Kiln', 'k@example.org', '1')"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    made = Field(None, tmp_path, "", systems=("crm", "erp"), files=frozenset(("crm", "erp")))
    with made.standing():
        yield made


def test_a_system_that_becomes_a_source_says_nothing_of_what_was_delivered_to_it(files: Field) -> None:
    files.options = {"erp": 'mode = "receive"'}
    files.configure()
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run(CUSTOMER)
        files.settle()
        crm.run("update customers set phone = '2'")
        files.settle()
        files.options = {}
        files.configure()
        assert files.concord("setup").returncode == 0
        # Neither had seen the other, were the read row a change; and its time would be the later one.
        crm.run("update customers set phone = '3'")
        files.settle()
        assert crm.run("select phone from customers") == [("3",)]
        assert erp.run("select tel from client") == [("3",)]
    assert files.concord("compare").returncode == 0


def test_a_backfill_after_a_lost_log_is_done_once(files: Field) -> None:
    files.options = {"crm": 'mode = "send"'}
    files.configure()
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run(CUSTOMER)
        files.settle()
        assert files.concord("teardown", "crm", "--yes").returncode == 0
        crm.run("update customers set phone = '2'")
        assert files.concord("setup", "crm").returncode == 0
        assert files.concord("run", "--once").returncode == 7
        assert files.concord("backfill", "crm").returncode == 0
        files.settle()
        # The log begins elsewhere than the hub knew, also while nobody adds to it.
        files.settle()
        assert erp.run("select tel from client") == [("2",)]


def test_nothing_is_written_over_what_a_lost_log_does_not_tell(postgres_server: PostgresServer, tmp_path: Path) -> None:
    made = Field(postgres_server, tmp_path, "unread", systems=("crm", "erp"), files=frozenset(("erp",)))
    with made.standing():
        assert made.concord("setup").returncode == 0
        with made.application("crm") as crm, made.application("erp") as erp:
            crm.run(CUSTOMER)
            made.settle()
            crm.run("update customers set phone = '2'")
            ((slot,),) = crm.run("select slot_name from pg_replication_slots where database = current_database()")
            crm.run("select pg_drop_replication_slot(?)", slot)
            # The later one: it wins, if anybody gets to know of the other.
            erp.run("update client set tel = '3'")
            ended = made.concord("run", "--once", "--log-level", "error")
            assert ended.returncode == 7, ended.stderr
            assert "nothing is written to crm while its log is lost" in ended.stderr
            assert crm.run("select phone from customers") == [("2",)]
            assert made.concord("setup").returncode == 0
            assert made.concord("backfill", "crm").returncode == 0
            made.settle()
            (conflict,) = json.loads(made.concord("conflicts", "--json").stdout)["items"]
            assert sorted((conflict["winner"], conflict["loser"])) == ["crm", "erp"]
            assert crm.run("select phone from customers") == erp.run("select tel from client")
        assert made.concord("compare").returncode == 0


def test_commands_look_at_a_hub_with_a_configuration_that_it_has_not_met(files: Field) -> None:
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm:
        crm.run(CUSTOMER)
    files.settle()
    files.options = {"erp": 'mode = "send"'}
    files.configure()
    for command in (["status"], ["compare"], ["conflicts"], ["parked", "list"], ["explain", "1"]):
        ended = files.concord(*command)
        # 3: the daemon does not run.
        assert ended.returncode == (3 if command == ["status"] else 0), (command, ended.stderr)
        assert not ended.stderr
