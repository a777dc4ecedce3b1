"""Goal: `concord status` says how far behind a system is, how long ago it changed and how busy it is, and `concord
setup --dry-run` what a DBA is to run.

Method: two SQLite systems; a log that grows while no daemon runs, and users who write while one does.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.cli.support import concord, daemon, execute
from tests.daemons import Running


def status(folder: Path, system: str, *words: str) -> dict[str, Any]:
    found = json.loads(concord(folder, "status", "--json", *words).stdout)["systems"]
    return next(row for row in found if row["system"] == system)


def line(folder: Path, system: str) -> str:
    return next(text for text in concord(folder, "status").stdout.splitlines() if text.startswith(system))


def test_a_log_that_nobody_reads_is_told_with_its_bytes(agreed: Path) -> None:
    before = status(agreed, "crm")
    for n in range(20):
        execute(agreed / "crm.db", f"update customers set name = '{n}{'long' * 500}'")
    behind = status(agreed, "crm")
    assert behind["lag_bytes"] > before["lag_bytes"] + 40_000
    assert behind["retained_bytes"] >= behind["lag_bytes"]
    assert " kB" in line(agreed, "crm")
    offline = status(agreed, "crm", "--offline")
    assert (offline["lag_bytes"], offline["retained_bytes"]) == (None, None)
    assert daemon(agreed, "--once").wait(60) == 0
    after = status(agreed, "crm")
    assert after["lag_bytes"] < behind["lag_bytes"] / 10
    assert after["rows_read"] == before["rows_read"] + 20


def test_what_is_not_delivered_is_behind(agreed: Path) -> None:
    assert status(agreed, "erp")["behind"] == 0
    assert concord(agreed, "rewrite", "1", "--system", "erp").exit_code == 0
    assert status(agreed, "erp")["behind"] == 1


def test_the_age_of_the_last_change_and_the_rate(agreed: Path, running: Running) -> None:
    before = status(agreed, "crm")["captured_at"]
    deadline = time.monotonic() + 60
    row: dict[str, Any] = {}
    while not (row.get("read_rate") and status(agreed, "erp")["write_rate"]):
        assert time.monotonic() < deadline, "no rate is told though rows flow"
        assert running.poll() is None
        execute(agreed / "crm.db", f"update customers set name = '{time.monotonic()}'")
        row = status(agreed, "crm")
    assert row["captured_at"] > before
    assert "/s" in line(agreed, "crm")
    assert " s " in line(agreed, "crm")


def test_a_system_that_is_away_is_told_once(agreed: Path) -> None:
    (agreed / "erp.db").rename(agreed / "away.db")
    process = daemon(agreed)
    try:
        deadline = time.monotonic() + 60
        while len(status(agreed, "erp")["errors"]) < 2:
            assert time.monotonic() < deadline, "the lanes of a system that is away say nothing"
            assert process.poll() is None
        told = concord(agreed, "status")
    finally:
        process.kill()
        process.wait()
    assert told.exit_code == 3
    assert [text for text in told.stdout.splitlines() if "erp.db" in text] == [
        f"erp: system erp: there is no file {agreed / 'erp.db'}"
    ]


def test_a_dry_run_prints_what_a_dba_can_run_instead(folder: Path) -> None:
    before = {name: (folder / f"{name}.db").read_bytes() for name in ("crm", "erp")}
    printed = concord(folder, "setup", "--dry-run")
    assert printed.exit_code == 0
    assert "crm: not run" in printed.stderr
    assert {name: (folder / f"{name}.db").read_bytes() for name in ("crm", "erp")} == before
    assert not (folder / "hub.sqlite").exists()
    document = json.loads(concord(folder, "setup", "--dry-run", "--json").stdout)
    assert document["is_done"] is False
    assert {step["system"] for step in document["steps"]} == {"crm", "erp"}
    for step in document["steps"]:
        assert step["sql"].strip() in printed.stdout
        database = sqlite3.connect(folder / f"{step['system']}.db")
        database.executescript(step["sql"])
        database.close()
    assert json.loads(concord(folder, "setup", "--json").stdout) == {"v": 1, "steps": [], "is_done": True}
    assert concord(folder, "check").exit_code == 0
