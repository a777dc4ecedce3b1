"""Goal: Atlas CMMS takes part with the mapping that is shipped for it: what its application writes to its tables arrives
elsewhere with every field right, and what comes from elsewhere stands in its tables as the application wants it.

Method: the product's own tables, from its catalogue, on a PostgreSQL; beside it a SQLite file that has every entity of
the mapping as a table. One daemon between them, users of either side, and in the end all must agree.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosswalk.dictionary import load_dictionary
from crosswalk.mapping import mapping_file
from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field, Shape
from tests.acceptance.trouble import Trouble
from tests.products import plain
from tests.products.catalog import PRODUCTS, carried, catalogue, statements

MAPPING = mapping_file("atlas")
SETTINGS = 'settings = { company = 3, code = "NW", user = 7, currency = "EUR", zone = "Europe/Berlin" }'
OF_THE_CRM = {"account", "site", "case", "renewal"}


def field_of(server: PostgresServer, directory: Path) -> Field:
    """Atlas as the FSM, and one file that has all of the same entities."""
    product, tables = carried("atlas")
    sequences: dict[str, int] = json.loads((PRODUCTS / "atlas.sequences.json").read_text())
    text = MAPPING.read_text()
    entities = {table["entity"] for table in tomllib.loads(text)["table"]}
    dictionary = load_dictionary("service")
    directory.mkdir(exist_ok=True)
    # The one partner plays the CRM too.
    owners = "\n".join(f'{e.name} = "erp"' for e in dictionary.entities if e.name in entities & OF_THE_CRM)
    return Field(
        server,
        directory,
        "atlas",
        systems=("fsm", "erp"),
        files=frozenset({"erp"}),
        dictionary='extends = "service"',
        shapes={
            "fsm": Shape(";\n".join(statements(product.kind, tables, sequences.items())), text),
            "erp": Shape(plain.schema(dictionary, entities), plain.mapping(dictionary, entities)),
        },
        options={"fsm": SETTINGS, "erp": f"[owners]\n{owners}"},
    )


SEED = """
insert into currency values (1, 'EUR', 'Euro');
insert into company (id, created_at, updated_at, employees_count, name) values
    (3, now(), now(), 12, 'Nordwind Service GmbH'), (4, now(), now(), 2, 'Another tenant');
insert into general_preferences (id, ask_feed_back_onwoclosed, auto_assign_requests, auto_assign_work_orders,
    disable_closed_work_orders_notif, labor_cost_in_total_cost, time_zone, wo_update_for_requesters, currency_id)
    values (31, true, false, false, false, true, 'Europe/Berlin', true, 1);
insert into company_settings (id, company_id, general_preferences_id) values (30, 3, 31);
update company set company_settings_id = 30 where id = 3;
"""
AUDIT = "created_at, updated_at, created_by, updated_by"
NOW = "now(), now(), 8, 8"


@pytest.fixture(scope="module")
def trouble(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    field = field_of(postgres_server, Path(tmp_path_factory.mktemp("atlas")))
    with field.standing():
        made = Trouble(field)
        with field.connect("fsm") as fsm:
            fsm.execute(SEED.encode())
        made.concord("setup")
        found = json.loads(made.concord("check", "--json").stdout)["findings"]
        assert [f for f in found if f["is_fatal"] or "example" in f["path"]] == []
        made.start()
        made.wait_copied()
        yield made
        assert made.stop() == 0
        made.check_agreement()


def test_the_tables_that_are_carried_are_the_catalogue_s() -> None:
    whole = catalogue("atlas")
    if whole is None:
        pytest.skip("the catalogues are not at hand")
    product, tables = carried("atlas")
    by_name = {table.table: table for table in whole[1]}
    assert product == whole[0]
    assert all(by_name[table.table] == table for table in tables)


def test_the_company_and_its_customers_arrive_and_no_other_tenant_s(trouble: Trouble) -> None:
    trouble.wait_row(
        "erp", "select 1 from company where code = 'NW' and name = 'Nordwind Service GmbH' and base_currency = 'EUR'"
        " and timezone = 'Europe/Berlin'",
    )  # fmt: skip
    trouble.run(
        "fsm", f"insert into customer (id, {AUDIT}, name, email, phone, website, billing_name, billing_address, rate,"
        f" description, company_id, is_demo) values (1, {NOW}, 'Acme', 'office@acme.example', '+49 40 1', 'acme.example',"
        " 'Acme Holding AG', 'Werftstr. 7', 80, 'Pays late', 3, false)",
    )  # fmt: skip
    acme = (
        "select 1 from account where name = 'Acme' and email = 'office@acme.example' and phone = '+49 40 1'"
        " and website = 'acme.example' and legal_name = 'Acme Holding AG' and street = 'Werftstr. 7'"
        " and notes = 'Pays late'"
    )
    trouble.wait_row("erp", acme)
    trouble.run(
        "fsm", f"insert into customer (id, {AUDIT}, name, rate, company_id, is_demo)"
        f" values (2, {NOW}, 'Of others', 0, 4, false)",
    )  # fmt: skip
    trouble.run("erp", "insert into account (name, email, street) values ('Bolt', 'info@bolt.example', 'Kai 1')")
    bolt = (
        "select 1 from customer where name = 'Bolt' and email = 'info@bolt.example' and billing_address = 'Kai 1'"
        " and company_id = 3 and rate = 0 and not is_demo and created_by = 7 and updated_by = 7"
        " and created_at is not null and updated_at is not null"
    )
    trouble.wait_row("fsm", bolt)
    trouble.run("erp", "update account set phone = '+49 40 2' where name = 'Bolt'")
    trouble.wait_row("fsm", f"{bolt} and phone = '+49 40 2' and updated_at > created_at")
    trouble.run("erp", "delete from account where name = 'Bolt'")
    trouble.wait(lambda: trouble.ask("fsm", "select 1 from customer where name = 'Bolt'") == [], "gone")
    trouble.run("fsm", "delete from customer where id = 1")
    trouble.wait(lambda: trouble.ask("erp", "select 1 from account where name = 'Acme'") == [], "gone")
    assert trouble.ask("erp", "select 1 from account") == []
