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
from typing import Any

import pytest

from crosswalk.dictionary import load_dictionary
from crosswalk.mapping import mapping_file
from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field, Shape
from tests.acceptance.trouble import Trouble
from tests.products import plain
from tests.products.catalog import PRODUCTS, Table, carried, catalogue, statements

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
insert into own_user (id, created_at, updated_at, email, enabled, first_name, last_name, owns_company, password, phone,
    rate, username, company_id, role_id, enabled_in_subscription) values
    (7, now(), now(), 'concord@nordwind.example', true, 'Concord', 'Sync', false, '-', null, 0, 'concord', 3, 1, false),
    (8, now(), now(), 'tilda@nordwind.example', true, 'Tilda', 'Berg', false, '-', '+49 171 1', 62, 'tilda', 3, 1, true);
insert into team (id, created_at, updated_at, name, company_id) values (9, now(), now(), 'North', 3);
"""
# What one day's work in the application leaves in its tables, in the order of its transactions.
DAY = (
    """insert into customer (id, created_at, updated_at, created_by, updated_by, name, email, phone, website,
        billing_name, billing_address, rate, description, company_id, is_demo) values
        (1, now(), now(), 8, 8, 'Acme', 'office@acme.example', '+49 40 1', 'acme.example', 'Acme Holding AG',
         'Werftstr. 7', 80, 'Pays late', 3, false),
        (2, now(), now(), 8, 8, 'Of others', null, null, null, null, null, 0, null, 4, false)""",
    """insert into location (id, created_at, updated_at, created_by, updated_by, name, custom_id, parent_location_id,
        address, latitude, longitude, company_id, is_demo) values
        (2, now(), now(), 8, 8, 'Yard', 'L000001', null, null, null, null, 3, false),
        (1, now(), now(), 8, 8, 'Plant 2', 'L000002', 2, 'Kai 1, Hamburg', 53.5413, 9.98413, 3, false)""",
    """insert into part (id, created_at, updated_at, created_by, updated_by, barcode, name, description, unit, cost,
        quantity, min_quantity, non_stock, company_id, is_demo) values
        (1, now(), now(), 8, 8, 'AF-001', 'Air filter', 'Pleated', 'each', 15.99, 10, 2.5, false, 3, false)""",
    """insert into asset (id, created_at, updated_at, created_by, updated_by, name, bar_code, serial_number, manufacturer,
        model, status, archived, in_service_date, warranty_expiration_date, location_id, company_id, is_demo) values
        (1, now(), now(), 8, 8, 'Boiler', 'A-17', 'SN 4711', 'Viessmann', 'Vitocrossal', 6, false,
         '2024-02-29 23:00', '2027-06-30 22:00', 1, 3, false)""",
    """insert into meter (id, created_at, updated_at, name, unit, update_frequency, company_id, asset_id, is_demo)
        values (1, now(), now(), 'Hours', 'h', 30, 3, 1, false)""",
    """insert into reading (id, created_at, updated_at, value, meter_id)
        values (1, '2026-08-03 08:00:00.25', now(), 1204.5, 1)""",
    """insert into preventive_maintenance (id, created_at, updated_at, estimated_duration, required_signature, title,
        name, company_id, asset_id, is_demo) values (1, now(), now(), 0, false, 'Service', 'Yearly', 3, 1, false)""",
    """insert into schedule (id, created_at, updated_at, disabled, ends_on, frequency, starts_on, recurrence_type,
        recurrence_based_on, preventive_maintenance_id, is_demo) values
        (1, now(), now(), false, '2027-06-30 22:00', 1, now(), 'YEARLY', 'SCHEDULED_DATE', 1, false),
        (2, now(), now(), false, null, 1, now(), 'YEARLY', 'SCHEDULED_DATE', 1, false)""",
    """insert into request (id, created_at, updated_at, created_by, updated_by, custom_id, title, description, priority,
        cancelled, asset_id, estimated_duration, required_signature, company_id, is_demo) values
        (1, now(), now(), 8, 8, 'R000001', 'It is cold', 'Since Monday', 2, false, 1, 0, false, 3, false)""",
    """insert into work_order (id, created_at, updated_at, created_by, updated_by, custom_id, title, description,
        priority, status, archived, estimated_duration, estimated_start_date, due_date, primary_user_id, team_id,
        location_id, asset_id, parent_request_id, required_signature, company_id, is_demo) values
        (1, now(), now(), 8, 8, 'WO000001', 'Burner does not start', 'Look at the igniter', 3, 0, false,
         1.3333333333333333, '2026-08-03 06:00', '2026-08-05 22:00', 8, 9, 1, 1, 1, false, 3, false)""",
    "update request set work_order_id = 1, updated_at = now() where id = 1",
    """insert into labor (id, created_at, updated_at, created_by, updated_by, duration, hourly_rate,
        include_to_total_time, logged, started_at, status, company_id, assigned_to_id, work_order_id, is_demo) values
        (1, now(), now(), 8, 8, 5400, 62, true, true, '2026-08-03 06:10', 0, 3, 8, 1, false)""",
    """insert into part_quantity (id, created_at, updated_at, created_by, updated_by, quantity, company_id, part_id,
        work_order_id, is_demo) values (1, now(), now(), 8, 8, 2, 3, 1, 1, false)""",
    """insert into additional_cost (id, created_at, updated_at, created_by, updated_by, cost, description,
        include_to_total_cost, work_order_id, is_demo) values (1, now(), now(), 8, 8, 149.9, 'Crane', true, 1, false)""",
    """insert into comment (id, created_at, updated_at, created_by, updated_by, user_id, content, work_order_id,
        company_id) values (1, '2026-08-03 07:00', now(), 8, 8, 8, 'Igniter replaced', 1, 3)""",
    """insert into task_base (id, created_at, updated_at, label, task_type, company_id)
        values (1, now(), now(), 'Close the gas valve', 0, 3)""",
    """insert into task (id, created_at, updated_at, value, company_id, task_base_id, work_order_id)
        values (1, now(), now(), 'OPEN', 3, 1, 1)""",
    """insert into purchase_order (id, created_at, updated_at, name, status, shipping_due_date, company_id,
        is_demo) values (1, now(), now(), 'PO-7', 0, '2026-08-09 22:00', 3, false)""",
    """insert into part_quantity (id, created_at, updated_at, quantity, company_id, part_id, purchase_order_id, is_demo)
        values (2, now(), now(), 20, 3, 1, 1, false)""",
)


def tables_without_key() -> list[Table]:
    return [table for table in carried("atlas")[1] if not table.primary_key]


@pytest.fixture(scope="module")
def trouble(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    field = field_of(postgres_server, Path(tmp_path_factory.mktemp("atlas")))
    with field.standing():
        made = Trouble(field)
        with field.connect("fsm") as fsm:
            fsm.execute(SEED.encode())
            for table in tables_without_key():
                index = f"{table.table}_concord"
                columns = ", ".join(column.name for column in table.columns)
                fsm.execute(f"create unique index {index} on {table.table} ({columns})".encode())
                fsm.execute(f"alter table {table.table} replica identity using index {index}".encode())
            # The application takes numbers in blocks of fifty; those below 51 are its own.
            fsm.execute("select nextval(sequencename::regclass) from pg_sequences where schemaname = 'public'")
        made.concord("setup")
        found = json.loads(made.concord("check", "--json").stdout)["findings"]
        assert [f for f in found if f["is_fatal"] or "example" in f["path"]] == []
        made.start()
        made.wait_copied()
        yield made
        assert made.stop() == 0
        for t in json.loads(made.concord("compare", "--json", code=None).stdout)["tables"]:
            if t["differ"] or t["parked"]:
                print("DIFF", json.dumps(t))
        made.check_agreement()


def test_the_tables_that_are_carried_are_the_catalogue_s() -> None:
    whole = catalogue("atlas")
    if whole is None:
        pytest.skip("the catalogues are not at hand")
    product, tables = carried("atlas")
    by_name = {table.table: table for table in whole[1]}
    assert product == whole[0]
    assert all(by_name[table.table] == table for table in tables)


def wrote(trouble: Trouble, system: str, *statements: str) -> None:
    """What one of the system's users does, in one transaction; the rows that it changes are counted."""
    with trouble.field.application(system) as application, application.transaction():
        rows = sum(application.connection.execute(statement).rowcount for statement in statements)
    trouble.changes[system] = trouble.changes.get(system, 0) + rows


def row(trouble: Trouble, system: str, table: str, where: str) -> dict[str, Any]:
    """The only row, without what is null in it."""
    with trouble.field.application(system) as application:
        cursor = application.connection.execute(f"select * from {table} where {where}")
        (found,) = cursor.fetchall()
        names = [column[0] for column in cursor.description]
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def test_dev(trouble: Trouble) -> None:
    for statement in DAY:
        wrote(trouble, "fsm", statement)
    trouble.wait_row("erp", "select 1 from purchase_order_line")
    OFFICE = (
        "insert into account (id, name, legal_name, email, phone, website, street, city, notes, credit_hold) values (100, 'Bolt', 'Bolt KG', 'info@bolt.example', '+49 40 2', 'bolt.example', 'Kai 1', 'Hamburg', 'New', 0)",
        "insert into site (id, account, name, code, parent, street, city, latitude, longitude) values (100, 100, 'Hall', 'H1', 2, 'Kai 9', 'Hamburg', '53.541300', '9.984130')",
        "insert into item (id, sku, name, description, kind, unit, is_stocked, quantity_on_hand, quantity_minimum, cost, cost_currency) values (100, 'VB-1', 'Belt', 'Long', 'part', 'each', 1, '0', '1', '25.5000', 'EUR'), (101, 'HOUR', 'Labour', null, 'labour', 'h', 0, null, null, null, null)",
        "insert into item (id, sku, name, kind) values (102, 'VB-2', 'Bare belt', 'part')",
        "insert into asset (id, name, site, tag, serial_number, manufacturer, model, status, installed_on, warranty_until) values (100, 'Pump', 100, 'A-18', 'SN 5', 'Wilo', 'Stratos', 'degraded', '2024-07-01', '2026-01-31')",
        "insert into work_order (id, number, title, instructions, account, site, asset, priority, status, planned_labour, due_at, planned_start) values (100, null, 'Quote 7', 'Fit a belt', 100, 100, 100, 'urgent', 'new', '4800', '2026-09-01 10:00:00+00', null)",
        "insert into part_line (id, work_order, item, quantity_planned) values (100, 100, 100, '2')",
        "insert into labour_line (id, work_order, started_at, duration, rate, currency) values (100, 100, '2026-09-01 08:00:00', '3600', '79.5000', 'EUR')",
        "insert into cost_line (id, work_order, description, amount, currency) values (100, 100, 'Permit', '30.10', 'EUR')",
        "insert into note (id, work_order, written_at, body) values (100, 100, '2026-09-01 09:00:00.5', 'Ring twice')",
        """insert into "case" (id, account, asset, subject, description, priority, status) values (100, 100, 100, 'Noise', 'Since noon', 'low', 'new')""",
        "insert into purchase_order (id, number, supplier, status, expected_on, currency) values (100, 'PO-8', 'Belts Ltd', 'partial', '2026-09-01', 'EUR')",
        "insert into purchase_order_line (id, purchase_order, item, quantity) values (100, 100, 100, '7')",
    )
    for s in OFFICE:
        wrote(trouble, "erp", s)
    import time

    time.sleep(3)
    print(trouble.hub("select system, direction, reason, key, message from parked"))
    with trouble.field.application("fsm") as e:
        for entity in (
            "customer",
            "location",
            "part",
            "asset",
            "work_order",
            "labor",
            "part_quantity",
            "additional_cost",
            "comment",
            "request",
            "purchase_order",
        ):
            c = e.connection.execute(f'select * from "{entity}" where id > 50'.encode())
            n = [x[0] for x in c.description]
            for r in c.fetchall():
                print(entity, {k: v for k, v in zip(n, r) if v is not None})
    print(trouble.hub("select * from conflict"))
