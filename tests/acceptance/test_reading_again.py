"""Goal: rows that are read from a table, and not from a log, are not taken for new changes of its users.

Method: systems whose log was lost, or that were only written to until now, and whose rows are read (again) while the
daemon has delivered to them; what the read rows hold of our own deliveries must not win over what comes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.field import Field

CUSTOMER = "insert into customers (id, company_name, email, phone) values ('c', 'Kiln', 'k@example.org', '1')"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    made = Field(None, tmp_path, "", systems=("crm", "erp"), files=frozenset(("crm", "erp")))
    made.create()
    try:
        yield made
    finally:
        made.drop()


def settle(field: Field) -> None:
    ended = field.concord("run", "--once", "--log-level", "warning")
    assert ended.returncode == 0, ended.stderr


def test_a_system_that_becomes_a_source_says_nothing_of_what_was_delivered_to_it(files: Field) -> None:
    files.options = {"erp": 'mode = "receive"'}
    files.configure()
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run(CUSTOMER)
        settle(files)
        crm.run("update customers set phone = '2'")
        settle(files)
        files.options = {}
        files.configure()
        assert files.concord("setup").returncode == 0
        # Neither had seen the other, were the read row a change; and its time would be the later one.
        crm.run("update customers set phone = '3'")
        settle(files)
        assert crm.run("select phone from customers") == [("3",)]
        assert erp.run("select tel from client") == [("3",)]
    assert files.concord("compare").returncode == 0


def test_a_backfill_after_a_lost_log_is_done_once(files: Field) -> None:
    files.options = {"crm": 'mode = "send"'}
    files.configure()
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run(CUSTOMER)
        settle(files)
        assert files.concord("teardown", "crm", "--yes").returncode == 0
        crm.run("update customers set phone = '2'")
        assert files.concord("setup", "crm").returncode == 0
        assert files.concord("run", "--once").returncode == 7
        assert files.concord("backfill", "crm").returncode == 0
        settle(files)
        # The log begins elsewhere than the hub knew, also while nobody adds to it.
        settle(files)
        assert erp.run("select tel from client") == [("2",)]


def test_commands_look_at_a_hub_with_a_configuration_that_it_has_not_met(files: Field) -> None:
    assert files.concord("setup").returncode == 0
    with files.application("crm") as crm:
        crm.run(CUSTOMER)
    settle(files)
    files.options = {"erp": 'mode = "send"'}
    files.configure()
    for command in (["status"], ["compare"], ["conflicts"], ["parked", "list"], ["explain", "1"]):
        ended = files.concord(*command)
        # 3: the daemon does not run.
        assert ended.returncode == (3 if command == ["status"] else 0), (command, ended.stderr)
        assert not ended.stderr
