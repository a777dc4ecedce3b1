"""Goal: a record that is written whole again changes in its row what it has fields for, and nothing else.

Method: a CRM whose table demands what no field has, and in which users have moved a row on since it was made. A value
that it refuses is corrected, and the record is tried again; a row that came from us is written again after a retry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import CRM_MAPPING, Field, Shape

SCHEMA = """
create table customers (
    id text primary key, company_name text not null, email text unique, phone text check (length(phone) < 10),
    credit_cents bigint, street text, city text, stage text not null, seller text not null
);
create table locations (
    id text primary key, customer text not null references customers, label text not null
);
"""
INSERT = """
[table.insert]
stage = "new"
seller = "nobody"
"""


@pytest.fixture(params=["servers", "files"])
def field(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    files = {"servers": frozenset[str](), "files": frozenset(("crm", "erp"))}[request.param]
    mapping = CRM_MAPPING.replace(
        '\n[[table]]\nname = "public.locations"', f'{INSERT}\n[[table]]\nname = "public.locations"'
    )
    assert INSERT in mapping
    mapping = mapping.replace("public.", "") if files else mapping
    made = Field(
        postgres_server, tmp_path, f"whole_{request.param}", systems=("crm", "erp"), files=files,
        shapes={"crm": Shape(SCHEMA, mapping)},
    )  # fmt: skip
    with made.standing():
        yield made


def parked(field: Field) -> list[str]:
    return [item["reason"] for item in json.loads(field.concord("parked", "list", "--json").stdout)["items"]]


def test_a_retry_leaves_alone_what_it_has_no_field_for(field: Field) -> None:
    assert field.concord("setup").returncode == 0
    with field.application("crm") as crm, field.application("erp") as erp:
        crm.run("insert into customers values ('c', 'Kiln', 'k@example.org', '1', null, null, null, 'open', 'Ash')")
        erp.run("insert into client (title, mail, tel) values ('Oak', 'o@example.org', '1')")
        field.settle()
        assert crm.run("select stage, seller from customers where company_name = 'Oak'") == [("new", "nobody")]
        crm.run("update customers set stage = 'won', seller = 'Fir' where company_name = 'Oak'")
        erp.run("update client set tel = 'more than there is room for'")
        field.settle()
        assert parked(field) == ["check", "check"]
        erp.run("update client set tel = '2'")
        field.settle()
        found = crm.run("select company_name, phone, stage, seller from customers order by company_name")
        assert found == [("Kiln", "2", "open", "Ash"), ("Oak", "2", "won", "Fir")]
    assert field.concord("compare").returncode == 0


def test_a_retry_does_not_want_what_only_a_new_row_needs(field: Field) -> None:
    mapping = field.directory / "crm.toml"
    # Nobody but its own users makes rows in this table.
    mapping.write_text(mapping.read_text().replace(INSERT, ""))
    assert field.concord("setup").returncode == 0
    with field.application("crm") as crm, field.application("erp") as erp:
        crm.run("insert into customers values ('c', 'Kiln', 'k@example.org', '1', null, null, null, 'open', 'Ash')")
        field.settle()
        erp.run("update client set tel = 'more than there is room for'")
        field.settle()
        assert parked(field) == ["check"]
        erp.run("update client set tel = '2'")
        field.settle()
        assert crm.run("select phone, stage, seller from customers") == [("2", "open", "Ash")]
    assert field.concord("compare").returncode == 0
