"""Goal: what waits for a person is shown as a person needs it, and what that person decides reaches every system;
a record's story says who set what, what it replaced and what lost.

Method: two SQLite systems with a field that only people decide, a group of fields and a match rule; the commands, and
the daemon between them.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_numbers import CONFIG
from tests.cli.support import concord, daemon, execute

DICTIONARY = """
[entities.customer]
description = "A customer."
match = [{ fields = ["email"], normalise = ["email"] }]
[entities.customer.fields]
name = { type = "text", owner = "crm", description = "Its name." }
email = { type = "text", description = "Where to write to." }
note = { type = "text", policy = "manual", description = "What people say of it." }
street = { type = "text", group = "address", description = "Where it is." }
city = { type = "text", group = "address", description = "Where that is." }
"""
MAPPING = """
[[table]]
name = "{table}"
entity = "customer"
key = ["id"]
{rule}
[table.fields]
name = "name"
email = "email"
note = "note"
street = "street"
city = "city"
"""
TABLE = "create table {} (id {} primary key not null, name text, email text, note text, street text, city text)"
SEND = 'path = "erp.db"\nmode = "send"'


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """One customer is in both systems: record 1, key 1 in the CRM, D0001 in the ERP."""
    texts = {
        "concord": CONFIG,
        "dictionary": DICTIONARY,
        "crm": MAPPING.format(table="customers", rule='allocate = "assigned"'),
        "erp": MAPPING.format(table="debtors", rule='allocate = { template = "D{rid:04d}" }'),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    execute(tmp_path / "crm.db", TABLE.format("customers", "integer"))
    execute(tmp_path / "erp.db", TABLE.format("debtors", "text"))
    assert concord(tmp_path, "setup").exit_code == 0
    execute(tmp_path / "crm.db", "insert into customers (name, email, note) values ('acme', 'a@acme.example', 'old')")
    settle(tmp_path)
    return tmp_path


def settle(folder: Path) -> None:
    assert daemon(folder, "--once").wait(60) == 0


def rows(folder: Path, system: str, columns: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(folder / f"{system}.db")
    found = database.execute(f"select {columns} from {'customers' if system == 'crm' else 'debtors'} order by id")
    values = found.fetchall()
    database.close()
    return values


def read(folder: Path, *words: str) -> Any:
    result = concord(folder, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("choice", ["take", "keep"])
def test_an_open_conflict_is_decided_for_all_systems(pair: Path, choice: str) -> None:
    execute(pair / "crm.db", "update customers set note = 'of the crm'")
    execute(pair / "erp.db", "update debtors set note = 'of the erp'")
    settle(pair)
    (conflict,) = read(pair, "conflicts", "--open")["items"]
    assert (conflict["fields"], conflict["rule"], conflict["is_open"]) == (["note"], "manual", True)
    shown = concord(pair, "conflicts", "--open").stdout
    assert f"{conflict['winner_values'][0]} ({conflict['winner']})" in shown
    assert "manual - open" in shown
    expected = conflict["loser_values" if choice == "take" else "winner_values"][0]
    assert {expected} < {"of the crm", "of the erp", "old"}
    done = concord(pair, "conflicts", f"--{choice}", str(conflict["id"]))
    assert done.exit_code == 0, done.output
    settle(pair)
    assert rows(pair, "crm", "note") == rows(pair, "erp", "note") == [(expected,)]
    assert read(pair, "conflicts", "--open")["items"] == []
    assert concord(pair, "conflicts", f"--{choice}", str(conflict["id"])).exit_code == 4
    assert concord(pair, "compare").exit_code == 0


def test_a_list_of_conflicts_that_is_cut_says_so(pair: Path) -> None:
    for n in range(3):
        execute(pair / "erp.db", f"update debtors set name = 'erp {n}'")
        settle(pair)
    assert "2 of 3, --limit 0 for all" in concord(pair, "conflicts", "--limit", "2").stdout
    document = read(pair, "conflicts", "crm:customers:1", "--limit", "1")
    assert (len(document["items"]), document["total"]) == (1, 3)
    assert "--limit" not in concord(pair, "conflicts", "--limit", "0").stdout
    assert read(pair, "conflicts", "--open")["total"] == 0


def test_a_group_and_a_deletion_are_told_in_words(pair: Path) -> None:
    execute(pair / "crm.db", "update customers set street = 'Main Street 1', city = 'Fernhithe'")
    execute(pair / "erp.db", "update debtors set street = 'Side Street 2', city = 'Chalkham'")
    settle(pair)
    execute(pair / "crm.db", "update customers set note = 'changed'")
    execute(pair / "erp.db", "delete from debtors")
    settle(pair)
    shown = concord(pair, "conflicts").stdout
    assert "street=Main Street 1, city=Fernhithe (crm)" in shown
    assert "street=Side Street 2, city=Chalkham (erp)" in shown
    story = concord(pair, "explain", "1", "--field", "alive").stdout
    assert "deleted" in story or "exists" in story
    assert "true" not in story
    assert "false" not in story


def test_a_record_has_a_story(pair: Path) -> None:
    execute(pair / "crm.db", "update customers set email = 'b@acme.example'")
    settle(pair)
    execute(pair / "erp.db", "update debtors set name = 'not its business'")
    settle(pair)
    record = read(pair, "explain", "erp:debtors:D0001")["record"]
    assert (record["record"], record["entity"]) == (1, "customer")
    assert record["rows"] == [["crm", "customers", "1"], ["erp", "debtors", "D0001"]]
    assert record["values"]["name"] == "acme"
    assert record["set_by"]["email"][0] == "crm"
    story = [(h["field"], h["kind"], h["system"], h["value"], h["replaced"], h["rule"]) for h in record["history"]]
    assert ("email", "set", "crm", "a@acme.example", None, None) in story
    assert ("email", "set", "crm", "b@acme.example", "a@acme.example", None) in story
    assert ("name", "lost", "erp", "not its business", "acme", "owner") in story
    assert [h["seq"] for h in record["history"]] == sorted(h["seq"] for h in record["history"])
    only = read(pair, "explain", "1", "--field", "email")["record"]
    assert {h["field"] for h in only["history"]} == {"email"}
    text = concord(pair, "explain", "1", "--field", "name").stdout
    assert "lost (owner)" in text
    assert "a@acme.example" not in text


@pytest.fixture
def unsure(pair: Path) -> Path:
    """A row of the ERP that may be either of two customers of the CRM, which the ERP does not have."""
    config = pair / "concord.toml"
    config.write_text(config.read_text().replace('path = "erp.db"', SEND))
    execute(
        pair / "crm.db", "insert into customers (name, email) values ('one', 'c@x.example'), ('two', 'c@x.example')"
    )
    settle(pair)
    execute(pair / "erp.db", "insert into debtors (id, name, email, city) values ('X', 'two', 'c@x.example', 'Here')")
    settle(pair)
    config.write_text(config.read_text().replace(SEND, 'path = "erp.db"'))
    return pair


def candidates(folder: Path) -> tuple[int, dict[str, int]]:
    """The review's number, and its candidates by name."""
    (review,) = read(folder, "review", "list")["items"]
    assert (review["system"], review["table"], review["key"]) == ("erp", "debtors", "X")
    return review["id"], {values["name"]: rid for rid, values in review["candidates"]}


def test_compare_names_the_reviews_that_wait(unsure: Path) -> None:
    settle(unsure)
    told = concord(unsure, "compare")
    assert "concord review list: 1 row waits" in told.stdout
    assert "all systems agree" not in told.stdout
    assert json.loads(concord(unsure, "compare", "--json").stdout)["reviews"] == 1
    number, _ = candidates(unsure)
    record = read(unsure, "explain", "erp:debtors:X")["record"]["record"]
    refused = concord(unsure, "rewrite", str(record), "--system", "crm")
    assert (refused.exit_code, "concord review list" in refused.stderr) == (5, True)
    assert f"concord review new {number}" in concord(unsure, "review", "list").stdout


def test_a_row_is_the_record_that_a_person_names(unsure: Path) -> None:
    number, found = candidates(unsure)
    assert set(found) == {"one", "two"}
    wrong = concord(unsure, "review", "link", str(number), "1")
    assert (wrong.exit_code, str(found["two"]) in wrong.stderr) == (4, True)
    assert concord(unsure, "review", "link", str(number), str(found["two"])).exit_code == 0
    settle(unsure)
    assert rows(unsure, "crm", "name, city") == [("acme", None), ("one", None), ("two", "Here")]
    assert sorted(name for (name,) in rows(unsure, "erp", "name")) == ["acme", "one", "two"]
    assert read(unsure, "review", "list") == {"v": 1, "items": [], "total": 0}
    assert concord(unsure, "compare").exit_code == 0


def test_a_row_is_a_record_of_its_own(unsure: Path) -> None:
    number, _ = candidates(unsure)
    assert concord(unsure, "review", "new", str(number)).exit_code == 0
    settle(unsure)
    assert rows(unsure, "crm", "name, city") == [("acme", None), ("one", None), ("two", None), ("two", "Here")]
    assert sorted(name for (name,) in rows(unsure, "erp", "name")) == ["acme", "one", "two", "two"]
    assert concord(unsure, "review", "new", str(number)).exit_code == 4
    assert concord(unsure, "compare").exit_code == 0
