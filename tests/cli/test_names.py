"""Goal: whoever names something that there is not is told so, with what there is, and by exit code 4; nothing is asked,
changed or made before that.

Method: the commands over two SQLite systems in agreement, without a daemon and beside one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import concord
from tests.daemons import Running

WRONG = [
    (["check", "crn"], "Did you mean 'crm'?"),
    (["setup", "nope"], "There is crm, erp."),
    (["teardown", "nope"], "There is crm, erp."),
    (["compare", "nope"], "There is customer."),
    (["compare", "custommer"], "Did you mean 'customer'?"),
    (["backfill", "nope"], "There is crm, erp."),
    (["mapping", "nope"], "There is crm, erp."),
    (["dictionary", "nope"], "There is customer."),
    (["explain", "nope:customers:1"], "There is crm, erp."),
    (["explain", "crm:customer:1"], "Did you mean 'customers'?"),
    (["explain", "crm:customers:999"], "parked list"),
    (["explain", "999"], "SYSTEM:TABLE:KEY"),
    (["explain", "nonsense"], "SYSTEM:TABLE:KEY"),
    (["explain", "1", "--field", "nam"], "Did you mean 'name'?"),
    (["conflicts", "crm:customers:999"], "parked list"),
    (["conflicts", "--take", "999"], "concord conflicts --open"),
    (["conflicts", "--keep", "999"], "concord conflicts --open"),
    (["parked", "list", "--system", "nope"], "There is crm, erp."),
    (["parked", "show", "999"], "concord parked list"),
    (["parked", "retry", "999"], "concord parked list"),
    (["parked", "retry", "--all", "--system", "nope"], "There is crm, erp."),
    (["parked", "drop", "999"], "concord parked list"),
    (["review", "link", "999", "1"], "concord review list"),
    (["review", "new", "999"], "concord review list"),
    (["rewrite", "999", "--system", "erp"], "SYSTEM:TABLE:KEY"),
    (["rewrite", "1", "--system", "epr"], "Did you mean 'erp'?"),
]


@pytest.mark.usefixtures("running")
def test_names_that_are_none_beside_a_daemon(agreed: Path) -> None:
    for words, next_step in WRONG:
        _is_told(agreed, words, next_step)


def test_a_part_that_is_none_is_told_with_its_whole(agreed: Path) -> None:
    told = concord(agreed, "explain", "1", "--field", "nmae").stderr
    assert "there is no field 'nmae' of entity customer" in told
    assert "Did you mean 'name'?" in told
    told = concord(agreed, "explain", "crm:custom:1").stderr
    assert "there is no table 'custom' in the mapping of system crm" in told


def test_names_that_are_none(agreed: Path) -> None:
    for words, next_step in WRONG:
        _is_told(agreed, words, next_step)
        document = json.loads(concord(agreed, *words, "--json").stdout)
        assert document["error"]["code"] == "unknown", words


def _is_told(folder: Path, words: list[str], next_step: str) -> None:
    result = concord(folder, *words)
    assert result.exit_code == 4, (words, result.output)
    assert next_step in result.stderr, result.stderr
    assert "?" not in result.stderr.replace(next_step, ""), result.stderr


def test_what_belongs_to_another_time(agreed: Path) -> None:
    config = agreed / "concord.toml"
    text = config.read_text()
    config.write_text(text.replace('path = "erp.db"', 'path = "erp.db"\nmode = "receive"'))
    told = concord(agreed, "backfill", "erp")
    assert (told.exit_code, "only written to" in told.stderr) == (5, True)
    config.write_text(text.replace('path = "erp.db"', 'path = "erp.db"\nmode = "send"'))
    told = concord(agreed, "rewrite", "1", "--system", "erp")
    assert (told.exit_code, "only read" in told.stderr) == (5, True)


def test_no_command_but_run_makes_a_hub(folder: Path) -> None:
    for words in (["backfill", "crm"], ["parked", "retry", "--all"], ["review", "new", "1"]):
        told = concord(folder, *words)
        assert (told.exit_code, "concord run" in told.stderr) == (9, True), words
    assert not (folder / "hub.sqlite").exists()


def test_words_that_exclude_each_other(agreed: Path) -> None:
    for words in (
        ["conflicts", "--take", "1", "--keep", "2"],
        ["parked", "retry"],
        ["parked", "retry", "1", "--all"],
        ["parked", "retry", "1", "--system", "erp"],
        ["conflicts", "--limit", "-1"],
    ):
        assert concord(agreed, *words).exit_code == 2, words


def test_the_daemon_answers_with_the_next_step_too(agreed: Path, running: Running) -> None:
    told = json.loads(concord(agreed, "review", "new", "999", "--json").stdout)["error"]
    assert (told["code"], told["message"]) == ("unknown", "no review 999 is open")
    assert told["hint"] == "Run `concord review list`."
    assert running.poll() is None
