"""Goal: what is parked can be looked at, tried again and given up, one by one and all together; nobody is left with a
difference that nobody told them of.

Method: the ERP has a check that refuses some names, the CRM rows that are no text; the commands without a daemon and
beside one.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.cli import app
from tests.cli.support import concord, daemon, execute, until_started
from tests.daemons import Running

DEBTORS = "create table debtors (no text primary key not null, name1 text{}, matchcode text)"


@pytest.fixture
def refusing(folder: Path) -> Path:
    """Three customers whom the ERP refuses, one row of the CRM that cannot be read, one that is everywhere."""
    execute(folder / "erp.db", "drop table debtors")
    execute(folder / "erp.db", DEBTORS.format(" check (name1 not like 'bad%')"))
    assert concord(folder, "setup").exit_code == 0
    execute(folder / "crm.db", "insert into customers (name) values ('bad 1'), ('bad 2'), ('bad 3'), ('good'), (x'ff')")
    assert daemon(folder, "--once").wait(60) == 0
    return folder


def items(folder: Path, *words: str) -> list[dict[str, Any]]:
    return json.loads(concord(folder, "parked", "list", *words, "--json").stdout)["items"]


def mend(folder: Path) -> None:
    """The ERP takes every name from now on. The table stays the same one, as after `alter table … drop constraint`."""
    connection = sqlite3.connect(folder / "erp.db")
    connection.execute("pragma writable_schema = on")
    connection.execute("update sqlite_schema set sql = replace(sql, 'bad%', 'none%')")
    connection.execute("pragma schema_version = 4711")
    connection.commit()
    connection.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_list_that_is_cut_says_so(refusing: Path) -> None:
    told = concord(refusing, "parked", "list", "--limit", "2").stdout
    assert "2 of 4, --limit 0 for all" in told
    document = json.loads(concord(refusing, "parked", "list", "--limit", "2", "--json").stdout)
    assert (len(document["items"]), document["total"]) == (2, 4)
    for words in (["--limit", "0"], ["--limit", "4"], []):
        assert "--limit 0" not in concord(refusing, "parked", "list", *words).stdout
    assert len(items(refusing, "--limit", "0")) == 4
    assert "1 of 3" in concord(refusing, "parked", "list", "--system", "erp", "--limit", "1").stdout
    assert {row["system"] for row in items(refusing, "--system", "crm")} == {"crm"}


def test_a_row_that_cannot_be_read_is_listed_with_its_key(refusing: Path) -> None:
    listed = concord(refusing, "parked", "list").stdout.splitlines()[2:]
    assert [line.split()[1:5] for line in listed if " crm " in line] == [["crm", "customers", "key", "5"]]
    records = [str(row["record"]) for row in items(refusing, "--system", "erp")]
    assert [line.split()[3] for line in listed if " erp " in line] == records


def test_all_of_one_system_are_tried_again(refusing: Path) -> None:
    mend(refusing)
    told = concord(refusing, "parked", "retry", "--all", "--system", "erp")
    assert told.exit_code == 0
    assert told.stdout.startswith("3 parked records are tried again at erp\nno daemon runs")
    assert daemon(refusing, "--once").wait(60) == 0
    assert [row["system"] for row in items(refusing)] == ["crm"]


def test_all_are_tried_again_beside_the_daemon(refusing: Path) -> None:
    process = daemon(refusing)
    try:
        until_started(refusing, process)
        attempts = {row["id"]: row["attempts"] for row in items(refusing)}
        told = concord(refusing, "parked", "retry", "--all")
        assert (told.exit_code, told.stdout) == (0, "4 parked records are tried again\n")
        assert told.stderr == ""
        wait_until(lambda: all(row["attempts"] > attempts[row["id"]] for row in items(refusing)))
        assert {row["id"] for row in items(refusing)} == set(attempts)
    finally:
        process.kill()
        process.wait()


def answered(folder: Path, answer: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "-c", str(folder / "concord.toml")], input=answer)


def test_giving_up_says_what_it_leaves_and_how_to_undo_that(refusing: Path) -> None:
    refused = items(refusing, "--system", "erp")[0]
    number, record = refused["id"], refused["record"]
    for answer in ("n\n", ""):
        asked = answered(refusing, answer, "parked", "drop", str(number))
        assert asked.exit_code == 130
        assert f"parked {number}: record {record}: system erp, table debtors" in asked.stderr
        assert f"concord rewrite {record} --system erp" in asked.stderr
        assert "concord compare" in asked.stderr
        assert "nothing was done" in asked.stderr
    assert len(items(refusing)) == 4
    done = answered(refusing, "y\n", "parked", "drop", str(number))
    assert done.exit_code == 0
    assert f"concord rewrite {record} --system erp" in done.stdout
    assert "no daemon" not in done.stdout, "nothing is left to do"
    assert len(items(refusing)) == 3
    compared = concord(refusing, "compare")
    assert compared.exit_code == 3
    assert f"concord rewrite {record} --system erp" in compared.stdout
    # And that does undo it.
    mend(refusing)
    assert concord(refusing, "rewrite", str(record), "--system", "erp").exit_code == 0
    assert daemon(refusing, "--once").wait(60) == 0
    assert refused["record"] not in [row["record"] for row in items(refusing)]
    shown = json.loads(concord(refusing, "compare", "--json").stdout)
    assert record not in [row["rid"] for table in shown["tables"] for row in table["differences"]]


def test_a_row_that_is_given_up_is_read_by_a_backfill(refusing: Path) -> None:
    (unread,) = items(refusing, "--system", "crm")
    done = concord(refusing, "parked", "drop", str(unread["id"]), "--yes")
    assert "concord backfill crm" in done.stdout
    assert concord(refusing, "parked", "show", str(unread["id"])).exit_code == 4
    assert concord(refusing, "backfill", "crm").exit_code == 0
    assert daemon(refusing, "--once").wait(60) == 0
    (again,) = items(refusing, "--system", "crm")
    assert again["id"] > unread["id"]


def test_a_row_that_cannot_be_read_is_one_difference(refusing: Path) -> None:
    execute(refusing / "crm.db", "update customers set name = x'fe' where name = 'good'")
    assert daemon(refusing, "--once").wait(60) == 0
    shown = json.loads(concord(refusing, "compare", "--json").stdout)
    (table,) = [table for table in shown["tables"] if table["system"] == "crm"]
    assert [row["kind"] for row in table["differences"]] == ["unreadable", "unreadable"]
    assert (table["rows"], table["differ"]) == (5, 2)


def test_one_that_is_tried_again_beside_the_daemon_keeps_its_number(refusing: Path) -> None:
    process: Running = daemon(refusing)
    try:
        until_started(refusing, process)
        first = items(refusing, "--system", "erp")[0]
        number, attempts = first["id"], first["attempts"]
        assert concord(refusing, "parked", "retry", str(number)).exit_code == 0
        wait_until(lambda: items(refusing, "--system", "erp")[0]["attempts"] > attempts)
        assert items(refusing, "--system", "erp")[0]["id"] == number
    finally:
        process.kill()
        process.wait()
