"""Goal: a table is read again as its operator wants it: all or some of its rows, as slowly as said, with a pause, on
through a restart; meanwhile everything else goes on, and what the log tells is not undone.

Method: changes that stand in no log, in the SQLite file of the ERP; the commands beside the daemon and without it.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import concord, daemon, execute, until_started
from tests.cli.test_rewrite import customers, settle, unseen
from tests.daemons import Running

ROWS = 30


@pytest.fixture
def many(agreed: Path) -> Path:
    """The ERP has `ROWS` debtors more, and a change of each that its log does not have."""
    erp = sqlite3.connect(agreed / "erp.db")
    erp.executemany("insert into debtors (no, name1) values (?, 'old')", [(f"E{n:03}",) for n in range(ROWS)])
    erp.commit()
    erp.close()
    settle(agreed)
    unseen(agreed, "update debtors set name1 = 'new' where name1 = 'old'")
    return agreed


def listed(folder: Path) -> list[dict[str, Any]]:
    return json.loads(concord(folder, "backfill", "--json").stdout)["items"]


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_table_is_read_to_its_end(many: Path) -> None:
    told = concord(many, "backfill", "erp", "debtors")
    assert (told.exit_code, f"backfill 1: {ROWS + 1} rows of table debtors of erp" in told.stdout) == (0, True)
    settle(many)
    assert customers(many).count("new") == ROWS
    (row,) = listed(many)
    assert (row["state"], row["rows_read"], row["rows_total"], row["seconds_left"]) == (
        "done",
        ROWS + 1,
        ROWS + 1,
        None,
    )
    assert "done" in concord(many, "backfill").stdout
    assert "backfill" not in concord(many, "status").stdout


def test_only_the_rows_that_are_asked_for(many: Path) -> None:
    assert concord(many, "backfill", "erp", "debtors", "--where", "no between 'E000' and 'E009' -- of").exit_code == 0
    settle(many)
    assert (customers(many).count("new"), customers(many).count("old")) == (10, ROWS - 10)
    assert [(row["condition"], row["rows_read"]) for row in listed(many)] == [("no BETWEEN 'E000' AND 'E009'", 10)]


def test_it_is_slow_where_that_is_wanted_and_waits_and_goes_on_where_it_was(many: Path) -> None:
    running = daemon(many)
    try:
        until_started(many, running)
        assert concord(many, "backfill", "erp", "debtors", "--throttle", "3").exit_code == 0
        until(lambda: customers(many).count("new") >= 6)
        text = concord(many, "status").stdout
        assert f" of {ROWS + 1} rows, " in text, text
        assert " left" in text, text
        assert concord(many, "backfill", "--pause", "1").exit_code == 0
        time.sleep(1.5)
        (row,), copied = listed(many), customers(many).count("new")
        assert (row["state"], row["rows_read"] < ROWS) == ("paused", True)
        # All else goes on.
        execute(many / "crm.db", "insert into customers (name) values ('meanwhile')")
        until(lambda: _debtors_named(many, "meanwhile") == 1)
        assert customers(many).count("new") == copied
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
    # The pages that were read are not read again: these rows have come to be old in no log.
    unseen(many, "update debtors set name1 = 'unread' where no < 'E003'")
    assert concord(many, "backfill", "--resume", "1").exit_code == 0
    settle(many)
    names = customers(many)
    assert (names.count("new"), names.count("unread")) == (ROWS, 0)
    assert [(row["state"], row["rows_read"]) for row in listed(many)] == [("done", ROWS + 1)]


def test_what_the_logs_tell_meanwhile_stays(many: Path) -> None:
    """What a backfill finds counts as changed when it was asked for, however late it comes to that row."""
    assert concord(many, "backfill", "erp", "debtors").exit_code == 0
    execute(many / "erp.db", "update debtors set name1 = 'changed' where no = 'E029'")
    execute(many / "crm.db", "update customers set name = 'elsewhere' where id = (select max(id) - 1 from customers)")
    settle(many)
    names = customers(many)
    assert (names.count("changed"), names.count("elsewhere"), names.count("old")) == (1, 1, 0)
    assert concord(many, "compare").exit_code == 0


def test_one_that_is_given_up_is_read_no_more(many: Path) -> None:
    assert concord(many, "backfill", "erp", "debtors").exit_code == 0
    told = concord(many, "backfill", "--stop", "1")
    assert (told.exit_code, "given up" in told.stdout) == (0, True)
    settle(many)
    assert customers(many).count("new") == 0
    again = concord(many, "backfill", "--resume", "1")
    assert (again.exit_code, "is stopped" in again.stderr) == (5, True)


def test_one_that_cannot_be_read_is_told_and_keeps_nothing_else(many: Path) -> None:
    execute(many / "erp.db", "alter table debtors add column extra text")
    assert concord(many, "backfill", "erp", "debtors", "--where", "extra is null").exit_code == 0
    execute(many / "erp.db", "alter table debtors drop column extra")
    execute(many / "erp.db", "update debtors set name1 = 'flows' where no = 'E001'")
    settle(many)
    assert customers(many).count("flows") == 1
    text = concord(many, "status").stdout
    assert "failed: system erp, table debtors: SQLite refuses the condition: no such column: extra" in text
    assert "concord backfill --resume 1" in text
    execute(many / "erp.db", "alter table debtors add column extra text")
    assert concord(many, "backfill", "--resume", "1").exit_code == 0
    settle(many)
    assert customers(many).count("new") == ROWS - 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["erp", "nope"], 4, "there is no table 'nope' in the mapping of system erp"),
        (["nope", "debtors"], 4, "there is no system 'nope'"),
        (["erp", "debtors", "--where", "no ="], 2, "no SQL expression"),
        (["erp", "debtors", "--where", "1 = 1 limit 5"], 2, "one SQL expression"),
        (["erp", "debtors", "--where", "1 = 1) or (1 = 1"], 2, "--where"),
        (["erp", "debtors", "--where", "nope = 1"], 7, "no such column: nope"),
        (["erp", "--where", "no = '1'"], 2, "for one table"),
        (["erp", "--pause", "1"], 2, "one at a time"),
        (["--pause", "7"], 4, "there is no backfill 7"),
    ],
)
def test_what_cannot_be_asked_for_is_told(agreed: Path, words: list[str], code: int, told: str) -> None:
    result = concord(agreed, "backfill", *words)
    assert (result.exit_code, told in " ".join(result.stderr.split())) == (code, True), result.output
    assert listed(agreed) == []


def _debtors_named(folder: Path, name: str) -> int:
    erp = sqlite3.connect(folder / "erp.db")
    ((count,),) = erp.execute("select count(*) from debtors where name1 = ?", (name,)).fetchall()
    erp.close()
    return count


def test_beside_a_daemon_it_begins_at_once(many: Path, running: Running) -> None:
    told = json.loads(concord(many, "backfill", "erp", "debtors", "--json").stdout)
    assert told["daemon"] == running.pid
    until(lambda: customers(many).count("new") == ROWS)
