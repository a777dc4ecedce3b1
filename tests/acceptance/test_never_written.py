"""Goal: what a mapping never writes to a row did not arrive there, and the row that still shows the old is no change.

Method: two SQLite files. The ERP's mapping only reads the address, or keeps the rows of deleted records; the CRM
changes or deletes, then the ERP's user touches a column that nobody maps, or all of the ERP is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.field import Field, Shape

DICTIONARY = """
[entities.client]
description = "A customer"
[entities.client.fields]
name = { type = "text" }
email = { type = "text" }
"""
SCHEMA = "create table client (id integer primary key, name text, email text, remark text);"
CRM = """
[[table]]
name = "client"
entity = "client"
key = ["id"]
[table.fields]
name = "name"
email = "email"
"""
READS_ONLY = CRM.replace('email = "email"', 'email = { column = "email", read_only = true }')
LEAVES = READS_ONLY.replace("[table.fields]", 'where = "remark is null"\n[table.fields]')
KEEPS = CRM.replace("[table.fields]", 'deletes = "keep"\n[table.fields]')
TOUCHES = ["update client set remark = 'seen'", "backfill"]


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Field]:
    shapes = {"crm": Shape(SCHEMA, CRM), "erp": Shape(SCHEMA, request.param)}
    made = Field(
        None,
        tmp_path,
        "",
        systems=("crm", "erp"),
        files=frozenset(("crm", "erp")),
        dictionary=DICTIONARY,
        shapes=shapes,
    )
    with made.standing():
        assert made.concord("setup").returncode == 0
        with made.application("erp") as erp:
            erp.run("insert into client (name, email) values ('Kiln', 'old@example.org'), ('Mill', 'm@example.org')")
        made.settle()
        yield made


def touch(field: Field, how: str) -> None:
    if how == "backfill":
        assert field.concord("backfill", "erp").returncode == 0
    else:
        with field.application("erp") as erp:
            erp.run(how)
    field.settle()


@pytest.mark.parametrize("how", TOUCHES)
@pytest.mark.parametrize("files", [READS_ONLY], indirect=True)
def test_what_is_only_read_does_not_take_back_what_others_changed(files: Field, how: str) -> None:
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("update client set email = 'new@example.org' where name = 'Kiln'")
        files.settle()
        touch(files, how)
        assert crm.run("select email from client where name = 'Kiln'") == [("new@example.org",)]
        erp.run("update client set email = 'third@example.org' where name = 'Kiln'")
        files.settle()
        assert crm.run("select email from client where name = 'Kiln'") == [("third@example.org",)]


@pytest.mark.parametrize("files", [LEAVES], indirect=True)
def test_a_row_that_comes_back_does_not_take_back_what_it_only_shows(files: Field) -> None:
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("update client set email = 'new@example.org' where name = 'Kiln'")
        files.settle()
        for remark in ("away", None):
            erp.run("update client set remark = ?", remark)
            files.settle()
        assert crm.run("select email from client where name = 'Kiln'") == [("new@example.org",)]


@pytest.mark.parametrize("how", TOUCHES)
@pytest.mark.parametrize("files", [KEEPS], indirect=True)
def test_a_row_that_is_kept_does_not_bring_its_deleted_record_back(files: Field, how: str) -> None:
    with files.application("crm") as crm:
        crm.run("delete from client where name = 'Kiln'")
        files.settle()
        touch(files, how)
        assert crm.run("select name from client") == [("Mill",)]
    assert json.loads(files.concord("compare", "--json").stdout)["differences"] == 0


@pytest.mark.parametrize("files", [READS_ONLY], indirect=True)
def test_a_row_that_is_made_without_what_is_only_read_says_nothing_of_it(files: Field) -> None:
    with files.application("crm") as crm, files.application("erp") as erp:
        crm.run("insert into client (name, email) values ('Ash', 'ash@example.org')")
        files.settle()
        touch(files, TOUCHES[0])
        assert crm.run("select email from client where name = 'Ash'") == [("ash@example.org",)]
        # Where nobody has said anything, what the system sets is news.
        crm.run("insert into client (name) values ('Oak')")
        files.settle()
        erp.run("update client set email = 'oak@example.org' where name = 'Oak'")
        files.settle()
        assert crm.run("select email from client where name = 'Oak'") == [("oak@example.org",)]
