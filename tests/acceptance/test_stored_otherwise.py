"""Goal: a value that a system stores otherwise than it was sent, as its mapping says, is no change of its users.

Method: the CRM is a SQLite file that has everything in full; the ERP's mapping cuts a name, rounds an amount, cuts a
moment, reads an address in small letters and keeps a zero for nothing. The ERP's user changes something else in a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.field import Field, Shape

DICTIONARY = """
[entities.item]
description = "Something kept"
[entities.item.fields]
name = { type = "text" }
note = { type = "text" }
amount = { type = "decimal" }
seen = { type = "timestamp" }
email = { type = "text" }
count = { type = "integer" }
"""
MAPPING = """
timezone = "UTC"
[[table]]
name = "item"
entity = "item"
key = ["id"]
[table.fields]
note = "note"
"""
CRM = Shape(
    "create table item (id integer primary key, note text, name text, amount numeric, seen text, email text,"
    " count integer);",
    MAPPING + 'name = "name"\namount = "amount"\nseen = "seen"\nemail = "email"\ncount = "count"\n',
)
ERP = Shape(
    "create table item (id integer primary key, note text, name varchar(5), amount numeric(9, 1), seen integer,"
    " email text, count integer not null);",
    MAPPING
    + """
count = { read = "count", write = "coalesce(count, 0)" }
name = { column = "name", truncate = true }
amount = { column = "amount", round = 3 }
seen = { column = "seen", unit = "unix", truncate = true }
email = { read = "lower(email)", write = "email" }
""",
)
FULL = ("Kilnworks", 1.25, "2024-07-01 12:00:00.75", "Bob@Example.org")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    made = Field(
        None,
        tmp_path,
        "",
        systems=("crm", "erp"),
        files=frozenset(("crm", "erp")),
        dictionary=DICTIONARY,
        shapes={"crm": CRM, "erp": ERP},
    )
    with made.standing():
        assert made.concord("setup").returncode == 0
        yield made


def test_a_system_whose_log_nobody_reads_agrees_with_what_its_mapping_makes_of_a_value(files: Field) -> None:
    files.options = {"erp": 'mode = "receive"'}
    files.configure()
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("insert into item (note, name, amount, seen, email) values ('a', ?, ?, ?, ?)", *FULL)
        files.settle()
        assert files.concord("compare").returncode == 0
        erp.run("update item set amount = 1.3")
        compared = json.loads(files.concord("compare", "--json").stdout)
        assert [d["field"] for table in compared["tables"] for d in table["differences"]] == ["amount"]


def test_what_was_cut_or_rounded_stays_whole_elsewhere_until_a_user_changes_it(files: Field) -> None:
    columns = "select name, amount, seen, email from item"
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("insert into item (note, name, amount, seen, email) values ('a', ?, ?, ?, ?)", *FULL)
        files.settle()
        assert erp.run(columns) == [("Kilnw", 1.2, 1719835200, "Bob@Example.org")]
        erp.run("update item set note = 'b'")
        files.settle()
        assert crm.run("select note from item") == [("b",)]
        assert crm.run(columns) == [FULL]
        crm.run("update item set note = 'c'")
        files.settle()
        erp.run("update item set note = note, amount = 1.2")
        files.settle()
        assert crm.run(columns) == [FULL]
        assert files.concord("compare").returncode == 0
        erp.run("update item set name = 'Kiln', amount = 1.3, seen = 1719835201")
        files.settle()
        assert crm.run(columns) == [("Kiln", 1.3, "2024-07-01 12:00:01", FULL[3])]
    assert files.concord("compare").returncode == 0


def test_nothing_that_is_stored_as_zero_is_no_disagreement(files: Field) -> None:
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("insert into item (note) values ('a')")
        files.settle()
        assert erp.run("select note, count from item") == [("a", 0)]
        erp.run("update item set note = 'b'")
        files.settle()
        assert crm.run("select note, count from item") == [("b", None)]
    assert files.concord("compare").returncode == 0
