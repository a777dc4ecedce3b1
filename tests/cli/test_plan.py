"""Goal: whoever joins systems that are full knows beforehand what becomes of every row, and gets that and no more.

Method: two databases with customers of every kind: known to both, to one, told apart by nobody, spelt otherwise, not to
be read or written. The plan is compared with what the daemon then does, row by row, and with a plan made afterwards.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import concord, daemon, execute

CONFIG = """
dictionary = "dictionary.toml"
[systems.crm]
plugin = "sqlite"
path = "crm.db"
mapping = "crm.toml"
[systems.erp]
plugin = "sqlite"
path = "erp.db"
mapping = "erp.toml"
"""
DICTIONARY = """
[entities.account]
match = [{ fields = ["email"], normalise = ["email"] }]
[entities.account.fields]
name = { type = "text", owner = "crm" }
email = { type = "text" }
phone = { type = "text", owner = "erp" }
kind = { type = "enum", values = ["firm", "person"] }
[entities.contact.fields]
account = { type = "reference", reference = "account" }
name = { type = "text" }
"""
CRM = """
[[table]]
name = "customers"
entity = "account"
key = ["id"]
[table.fields]
name = "name"
email = "email"
phone = "phone"
kind = { column = "kind", values = { F = "firm", P = "person" } }
[[table]]
name = "people"
entity = "contact"
key = ["id"]
[table.fields]
account = { column = "customer", reference = "account" }
name = "name"
"""
ERP = """
[[table]]
name = "debtors"
entity = "account"
key = ["no"]
[table.fields]
name = "name1"
email = "mail"
phone = "tel"
[[table]]
name = "clerks"
entity = "contact"
key = ["no"]
[table.fields]
account = { column = "debtor", reference = "account" }
name = "name"
"""
CUSTOMERS = (
    "(1, 'Acme', 'info@acme.example', '1', 'F'), (2, 'Bolt', 'BOLT@bolt.example', '2', 'F'),"
    " (3, 'Crow', 'c@crow.example', null, 'P'), (4, 'Dove', 'd@dove.example', '4', 'P'),"
    " (5, 'Twin', 'twin@twin.example', '5', 'P'), (6, 'Twin too', 'twin@twin.example', '5', 'P'),"
    " (7, 'A name that is too long', 'long@long.example', null, 'F'), (8, 'Odd', 'odd@odd.example', null, 'X'),"
    " (9, 'Mute', null, '9', 'F')"
)
DEBTORS = (
    "(11, 'Acme', 'info@acme.example', '1'), (12, 'Bolt Ltd', 'bolt@bolt.example', '22'),"
    " (13, 'Only here', 'only@only.example', '3'), (15, 'Twin', 'twin@twin.example', '5')"
)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    for name, text in (("concord", CONFIG), ("dictionary", DICTIONARY), ("crm", CRM), ("erp", ERP)):
        (tmp_path / f"{name}.toml").write_text(text)
    columns = "name text, email text, phone text, kind text"
    execute(tmp_path / "crm.db", f"create table customers (id integer primary key, {columns})")
    execute(tmp_path / "crm.db", "create table people (id integer primary key, customer integer, name text)")
    execute(
        tmp_path / "erp.db",
        "create table debtors (no integer primary key, name1 varchar(12), mail text not null, tel text)",
    )
    execute(tmp_path / "erp.db", "create table clerks (no integer primary key, debtor integer, name text)")
    execute(tmp_path / "crm.db", f"insert into customers values {CUSTOMERS}")
    execute(tmp_path / "crm.db", "insert into people values (1, 1, 'Ann'), (2, 3, 'Cat')")
    execute(tmp_path / "erp.db", f"insert into debtors values {DEBTORS}")
    return tmp_path


def rows(folder: Path, name: str, table: str) -> dict[Any, tuple[Any, ...]]:
    connection = sqlite3.connect(folder / f"{name}.db")
    found = {row[0]: row for row in connection.execute(f"select * from {table}")}
    connection.close()
    return found


def planned(folder: Path, *words: str) -> dict[str, dict[str, Any]]:
    result = concord(folder, "plan", "--json", *words)
    assert result.exit_code in (0, 3), result.output
    document = result.output[result.output.index("{") : result.output.rindex("}") + 1]
    return {place["table"]: place for place in json.loads(document)["places"]}


def test_a_plan_says_what_becomes_of_each_row_and_writes_nothing(full: Path) -> None:
    before = {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(full.iterdir())}
    plan = planned(full)
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(full.iterdir())} == before
    customers, debtors = plan["customers"], plan["debtors"]
    counts = ("rows", "linked", "same", "overwrite", "create", "ambiguous", "unreadable")
    assert {name: customers[name] for name in counts} == {
        "rows": 9, "linked": 2, "same": 7, "overwrite": 1, "create": 1, "ambiguous": 0, "unreadable": 1,
    }  # fmt: skip
    assert {name: debtors[name] for name in counts} == {
        "rows": 4, "linked": 2, "same": 3, "overwrite": 1, "create": 6, "ambiguous": 1, "unreadable": 0,
    }  # fmt: skip
    assert customers["fields"] == {"email": 1, "phone": 1}
    assert debtors["fields"] == {"name": 1}
    samples = {sample["field"]: (sample["here"], sample["wanted"], sample["said_by"]) for sample in debtors["samples"]}
    assert samples["name"] == ("Bolt Ltd", "Bolt", "crm")
    assert list(debtors["refused"].values()) == [1, 1]
    assert "longer than 12" in next(iter(debtors["refused"]))
    assert "column mail: it must not be null" in list(debtors["refused"])[1]
    assert plan["clerks"]["create"] == 2
    execute(full / "erp.db", "insert into clerks values (7, 11, 'Ann')")
    assert "contact: no match rule in the dictionary, so each row counts as new" in concord(full, "plan").output
    rule = 'match = [{ fields = ["account", "name"] }]\n[entities.contact.fields]'
    (full / "dictionary.toml").write_text(
        DICTIONARY.replace("[entities.contact.fields]", f"[entities.contact]\n{rule}")
    )
    again = planned(full)
    assert (again["clerks"]["create"], again["clerks"]["linked"], again["people"]["create"]) == (1, 1, 0)
    told = concord(full, "plan").output
    assert "becomes" in told
    assert "1 row matches several records" in told
    assert "8 rows would be created, 2 rows changed; nothing was written" in told


def test_the_first_sync_does_what_was_planned(full: Path) -> None:
    file = full / "plan.json"
    plan = planned(full, "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    before = {(name, table): rows(full, name, table) for name, table in TABLES}
    assert concord(full, "setup").exit_code == 0
    assert daemon(full, "--once", "--apply-plan", str(file)).wait(60) == 0
    for name, table in TABLES:
        was, now = before[name, table], rows(full, name, table)
        refused = sum(plan[table]["refused"].values())
        assert len(now.keys() - was.keys()) == plan[table]["create"] - refused, table
        assert sum(now[key] != was[key] for key in was) == plan[table]["overwrite"], table
    again = planned(full)
    assert [again[table]["overwrite"] for _, table in TABLES] == [0, 0, 0, 0]
    assert rows(full, "erp", "debtors")[12][1:] == ("Bolt", "bolt@bolt.example", "22")


@pytest.mark.parametrize(("slack", "code"), [(2, 8), (3, 0)])
def test_where_more_would_be_done_than_planned_nothing_is_written(full: Path, slack: int, code: int) -> None:
    planned(full, "-o", str(full / "plan.json"))
    more = ", ".join(f"({n}, 'New {n}', 'n{n}@new.example', null, 'F')" for n in (20, 21, 22))
    execute(full / "crm.db", f"insert into customers values {more}")
    before = [rows(full, name, table) for name, table in TABLES]
    assert concord(full, "setup").exit_code == 0
    process = daemon(full, "--once", "--apply-plan", str(full / "plan.json"), "--slack", str(slack))
    assert process.wait(60) == code
    log = (full / "run0.log").read_text()
    if code:
        assert [rows(full, name, table) for name, table in TABLES] == before
        assert "system erp, table debtors: 9 rows made, 6 were planned" in log
        assert "begin again with the new plan" in log
        planned(full, "-o", str(full / "plan.json"))
        assert daemon(full, "--once", "--apply-plan", str(full / "plan.json")).wait(60) == 0
    assert 20 in rows(full, "crm", "customers")
    assert "n20@new.example" in {row[2] for row in rows(full, "erp", "debtors").values()}


def test_what_is_no_plan_is_said(full: Path) -> None:
    for text, said in ((None, "cannot be read"), ("{}", "is no plan"), ('{"version": 2', "is no plan")):
        if text is not None:
            (full / "plan.json").write_text(text)
        result = concord(full, "run", "--once", "--apply-plan", str(full / "plan.json"))
        assert result.exit_code == 78
        assert said in result.output


TABLES = (("crm", "customers"), ("crm", "people"), ("erp", "debtors"), ("erp", "clerks"))
