"""Goal: a table that changed is told with what has become of it; once a person has mended the mapping and says so, the
running daemon reads it, and the rows that were set aside; files with mistakes never stop a daemon that runs.

Method: the SQLite file of the ERP, altered beside the daemon; the commands and signals of an operator.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.model.table import Shape
from plugins.sqlite.setup import SqliteSystem
from tests.cli.support import concord, execute
from tests.cli.test_rewrite import customers, debtors
from tests.daemons import Running


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def mend(folder: Path, before: str, after: str) -> None:
    text = (folder / "erp.toml").read_text()
    assert before in text
    (folder / "erp.toml").write_text(text.replace(before, after))


def log(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("run*.log"))


def test_a_renamed_column_waits_for_a_person_and_nothing_is_lost(agreed: Path, running: Running) -> None:
    assert concord(agreed, "schema", "list").exit_code == 0
    execute(agreed / "erp.db", "alter table debtors rename column name1 to title")
    execute(agreed / "erp.db", "update debtors set title = 'renamed'")
    until(lambda: "rows that wait: 1" in concord(agreed, "status").stdout)
    assert "concord schema list erp" in concord(agreed, "status").stdout
    listed = concord(agreed, "schema", "list")
    assert listed.exit_code == 3
    assert "column name1 is gone, perhaps it is title now; column title (TEXT) has come" in listed.stdout
    document = json.loads(concord(agreed, "schema", "list", "erp", "--json").stdout)
    ((table, waiting),) = [(item["table"], item["waiting"]) for item in document["items"]]
    assert (table, waiting) == ("debtors", 1)
    refused = concord(agreed, "schema", "ack", "erp")
    assert (refused.exit_code, "does not fit" in refused.stderr) == (5, True)
    assert customers(agreed) == ["acme"]
    mend(agreed, '"name1"', '"title"')
    told = concord(agreed, "schema", "ack", "erp", "debtors")
    assert (told.exit_code, "erp: debtors is acknowledged" in told.stdout) == (0, True)
    until(lambda: customers(agreed) == ["renamed"])
    assert running.poll() is None
    execute(agreed / "crm.db", "update customers set name = 'back'")
    until(lambda: _titles(agreed) == ["back"])
    until(lambda: concord(agreed, "status").exit_code == 0)
    assert "all mapped tables are as known" in concord(agreed, "schema", "list").stdout


def test_a_column_that_has_come_needs_nobody(agreed: Path, running: Running) -> None:
    execute(agreed / "erp.db", "alter table debtors add column extra text")
    execute(agreed / "erp.db", "update debtors set name1 = 'followed'")
    until(lambda: customers(agreed) == ["followed"])
    until(lambda: "all mapped tables are as known" in concord(agreed, "schema", "list").stdout)
    refused = concord(agreed, "schema", "ack", "erp")
    assert (refused.exit_code, "no mapped table of erp has changed" in refused.stderr) == (5, True)
    assert running.poll() is None


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_column_that_comes_as_the_daemon_starts_is_noted(
    agreed: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    real = SqliteSystem.shapes
    asked: list[str] = []

    async def and_then_it_changes(system: SqliteSystem, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        shapes = await real(system, tables)
        asked.append(system.site.name)
        if system.site.name == "erp" and asked.count("erp") == look:
            execute(agreed / "erp.db", "alter table debtors add column extra text")
        return shapes

    with monkeypatch.context() as patched:
        patched.setattr(SqliteSystem, "shapes", and_then_it_changes)
        assert concord(agreed, "run", "--once").exit_code == 0
    assert asked.count("erp") >= look
    assert "all mapped tables are as known" in concord(agreed, "schema", "list").stdout


def test_a_hangup_reads_the_files_again(agreed: Path, running: Running) -> None:
    mend(agreed, "[table.fields]", '[table.fields]\nnope = "matchcode"')
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: "daemon.not_reloaded" in log(agreed))
    execute(agreed / "crm.db", "update customers set name = 'still read'")
    until(lambda: [name for _, name in debtors(agreed)] == ["still read"])
    mend(agreed, 'nope = "matchcode"', "")
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: "daemon.reloading" in log(agreed) and log(agreed).count("daemon.started") >= 2)
    execute(agreed / "crm.db", "update customers set name = 'read anew'")
    until(lambda: [name for _, name in debtors(agreed)] == ["read anew"])
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0


def _titles(folder: Path) -> list[str]:
    erp = sqlite3.connect(folder / "erp.db")
    found = [title for (title,) in erp.execute("select title from debtors")]
    erp.close()
    return found
