"""Goal: every command teaches, speaks to machines, and ends with the exit code that its help promises; bad input gives
a message with a next step, never a traceback.

Method: the commands themselves over two SQLite systems in agreement, in this process; the daemon's signals and its lock
in processes of their own.
"""

from __future__ import annotations

import json
import signal
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.cli import app
from tests.acceptance.test_numbers import CONFIG
from tests.cli.support import concord, daemon, execute
from tests.daemons import Running

COMMANDS = (
    ["demo"], ["check"], ["setup"], ["run"], ["status"], ["compare"], ["conflicts"], ["parked"], ["parked", "list"],
    ["parked", "show"], ["parked", "retry"], ["parked", "drop"], ["review"], ["review", "list"], ["backfill"],
    ["rewrite"], ["schema", "list"], ["schema", "ack"], ["explain"], ["plugins", "list"],
    ["plugins", "show"], ["dictionary"], ["mapping"], ["teardown"],
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


@pytest.mark.parametrize("words", [["compare"], ["conflicts"], ["parked", "list"], ["review", "list"], ["check"]])
def test_machines_get_one_document(agreed: Path, words: list[str]) -> None:
    result = concord(agreed, *words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["v"] == 1


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"concord {version('concord-cdc')}\n")


@pytest.mark.parametrize(
    ("erp", "told"),
    [
        ("alter table debtors rename to creditors", "table debtors"),
        ("alter table debtors rename column name1 to name2", "name1"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_and_the_others_are_compared(agreed: Path, erp: str, told: str) -> None:
    execute(agreed / "erp.db", erp)
    found = concord(agreed, "compare")
    assert (found.exit_code, told in found.stderr, "not read" in found.stdout) == (7, True, True), found.output
    assert "agree\n" not in found.stdout
    document = json.loads(concord(agreed, "compare", "--json").stdout)
    assert [(t["system"], t["agree"], bool(t["problem"])) for t in document["tables"]] == [
        ("crm", 1, False), ("erp", 0, True),
    ]  # fmt: skip


def test_status_is_healthy_while_the_daemon_runs_and_not_without(agreed: Path, running: Running) -> None:
    deadline = time.monotonic() + 60
    while (result := concord(agreed, "status", "--json")).exit_code and time.monotonic() < deadline:
        time.sleep(0.1)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["daemon"] == running.pid
    assert max(len(line) for line in concord(agreed, "status").stdout.splitlines()) <= 80
    running.kill()
    running.wait()
    assert concord(agreed, "status").exit_code == 3


def test_a_record_is_found_by_its_row_and_a_row_that_is_none_is_not(agreed: Path) -> None:
    assert "acme" in concord(agreed, "explain", "crm:customers:1").output
    unknown = concord(agreed, "explain", "crm:customers:999")
    assert unknown.exit_code == 4
    assert json.loads(concord(agreed, "explain", "crm:customers:999", "--json").stdout)["error"]["code"] == "unknown"


def test_the_files_are_shown_as_they_are_understood(folder: Path) -> None:
    fields = concord(folder, "dictionary", "customer").output
    assert "sort_name" in fields
    assert "erp" in fields
    document = json.loads(concord(folder, "mapping", "erp", "--json").stdout)
    (table,) = document["tables"]
    assert (table["entity"], table["allocate"], table["key"]) == ("customer", "template", ["no"])
    found = {field["field"]: (field["read"], field["write"]) for field in table["fields"]}
    assert found["name"] == ("name1", ["name1"])
    assert found["sort_name"] == ("matchcode", [])
    shown = concord(folder, "mapping", "erp").output.splitlines()
    assert shown[0] == "debtors is customer; key no, of new rows: template; a deleted record's row is deleted"
    assert any(line.startswith("sort_name ") and "matchcode" in line for line in shown)
    assert concord(folder, "mapping", "nobody").exit_code == 4
    assert concord(folder, "dictionary", "nothing").exit_code == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["explain", "nobody:customers:1"], 4),
        (["parked", "show", "999"], 4),
        (["parked", "drop", "999", "--yes"], 4),
        (["backfill", "nobody"], 4),
        (["explain"], 2),
        (["status", "--nonsense"], 2),
        (["no-such-command"], 2),
    ],
    ids=str,
)
def test_what_is_not_there_or_not_said_right(agreed: Path, words: list[str], code: int) -> None:
    assert concord(agreed, *words).exit_code == code


def test_differences_have_a_code_of_their_own(agreed: Path) -> None:
    execute(agreed / "erp.db", "update debtors set name1 = 'other'")
    assert concord(agreed, "compare").exit_code == 3


def test_before_set_up_check_finds_problems_and_commands_say_that_there_is_no_hub(folder: Path) -> None:
    checked = concord(folder, "check")
    assert checked.exit_code == 3
    assert "crm: problem: not set up, 4 steps are missing" in checked.stdout
    assert "create table" not in checked.stdout
    found = json.loads(concord(folder, "check", "--json").stdout)["findings"]
    assert all(finding["sql"] for finding in found if finding["by_setup"])
    for words in (["status"], ["compare"], ["conflicts"], ["parked", "list"]):
        result = concord(folder, *words)
        assert result.exit_code == 9, words
        assert "concord run" in result.stderr


def test_a_configuration_that_is_wrong_or_missing(folder: Path) -> None:
    (folder / "concord.toml").write_text(CONFIG.replace("sqlite", "sqlight"))
    for words in (["status"], ["check"], ["run"], ["setup"]):
        assert concord(folder, *words).exit_code == 78
    (folder / "concord.toml").unlink()
    assert concord(folder, "status").exit_code == 78


def test_a_word_that_is_none_of_the_few_possible_is_told_once_with_the_nearest(folder: Path) -> None:
    dictionary = folder / "dictionary.toml"
    dictionary.write_text(dictionary.read_text().replace('type = "text"', 'type = "txt"', 1))
    told = concord(folder, "check").output
    assert told.count("'txt'") == 1
    assert "did you mean 'text'?" in told


def test_a_hub_that_is_something_else(agreed: Path) -> None:
    (agreed / "hub.sqlite").write_bytes(b"no hub at all" * 1000)
    for suffix in ("-wal", "-shm"):
        (agreed / f"hub.sqlite{suffix}").unlink(missing_ok=True)
    result = concord(agreed, "status")
    assert result.exit_code == 9
    assert "damaged or is no hub" in result.stderr


def test_a_term_signal_drains(running: Running) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0


def test_a_second_daemon_is_told_of_the_first(agreed: Path, running: Running) -> None:
    second = daemon(agreed)
    assert second.wait(60) == 75
    assert str(running.pid) in (agreed / "run2.log").read_text()


def test_nothing_is_removed_beside_the_daemon(agreed: Path, running: Running) -> None:
    refused = concord(agreed, "teardown", "crm", "--yes")
    assert (refused.exit_code, f"process {running.pid}" in refused.stderr) == (5, True)
    running.kill()
    running.wait()
    assert concord(agreed, "teardown", "crm", "--yes").exit_code == 0


@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05])
def test_interrupts_stop_at_once_also_where_it_has_nearly_stopped(running: Running, seconds: float) -> None:
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        time.sleep(seconds)
    assert running.wait(60) in (0, 130)


def test_a_hub_of_an_older_version_is_told_and_the_daemon_brings_it_up_to_date(agreed: Path) -> None:
    workflows = ("underived", "child_index", "child", "followed", "begun", "derived")
    for table in (*workflows, "joined_link", "joined_row", "joined_index", "joined_table", "shape", "backfill"):
        execute(agreed / "hub.sqlite", f"drop table {table}")
    execute(agreed / "hub.sqlite", "pragma user_version = 6")
    told = concord(agreed, "status")
    assert (told.exit_code, "schema version 6" in told.stderr, "next:" in told.stderr) == (9, True, True)
    assert daemon(agreed, "--once").wait(60) == 0
    assert concord(agreed, "compare").exit_code == 0
