"""Goal: Atlas CMMS takes part with the mapping that is shipped for it: what its application writes arrives elsewhere
with every field right, and what comes from elsewhere stands in its tables as the application wants it.

Method: the product's own tables, from its catalogue, on a PostgreSQL; beside it a SQLite file that has every entity of
the mapping as a table. One daemon between them, users of either side, and in the end all must agree.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

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
insert into own_user (id, created_at, updated_at, email, enabled, first_name, last_name, owns_company, password, phone,
    rate, username, company_id, role_id, enabled_in_subscription) values
    (7, now(), now(), 'concord@nordwind.example', true, 'Concord', 'Sync', false, '-', null, 0, 'c', 3, 1, false),
    (8, now(), now(), 'tilda@nordwind.example', true, 'Tilda', 'Berg', false, '-', '+49 171 1', 62, 't', 3, 1, true);
insert into team (id, created_at, updated_at, name, company_id) values (9, now(), now(), 'North', 3);
insert into t_team_user_associations (id_team, id_user) values (9, 8);
"""
# What one day's work in the application leaves in its tables: its transactions.
DAY = (
    (
        """insert into customer (id, created_at, updated_at, created_by, updated_by, name, email, phone, website,
            billing_name, billing_address, rate, description, company_id, is_demo) values
            (1, now(), now(), 8, 8, 'Acme', 'office@acme.example', '+49 40 1', 'acme.example', 'Acme Holding AG',
             'Werftstr. 7', 80, 'Pays late', 3, false),
            (2, now(), now(), 8, 8, 'Of others', null, null, null, null, null, 0, null, 4, false)""",
    ),
    (
        """insert into location (id, created_at, updated_at, created_by, updated_by, name, custom_id,
            parent_location_id, address, latitude, longitude, company_id, is_demo) values
            (2, now(), now(), 8, 8, 'Yard', 'L000001', null, null, null, null, 3, false),
            (1, now(), now(), 8, 8, 'Plant 2', 'L000002', 2, 'Kai 1, Hamburg', 53.5413, 9.98413, 3, false)""",
        "insert into t_location_customer_associations (id_location, id_customer) values (1, 1)",
    ),
    (
        """insert into part (id, created_at, updated_at, created_by, updated_by, barcode, name, description, unit, cost,
            quantity, min_quantity, non_stock, company_id, is_demo) values
            (1, now(), now(), 8, 8, 'AF-001', 'Air filter', 'Pleated', 'each', 15.99, 10, 2.5, false, 3, false)""",
    ),
    (
        """insert into asset (id, created_at, updated_at, created_by, updated_by, name, bar_code, serial_number,
            manufacturer, model, status, archived, in_service_date, warranty_expiration_date, location_id, company_id,
            is_demo) values (1, now(), now(), 8, 8, 'Boiler', 'A-17', 'SN 4711', 'Viessmann', 'Vitocrossal', 6, false,
            '2024-02-29 23:00', '2027-06-30 22:00', 1, 3, false)""",
        "insert into t_asset_customer_associations (id_asset, id_customer) values (1, 1)",
        """insert into meter (id, created_at, updated_at, name, unit, update_frequency, company_id, asset_id, is_demo)
            values (1, now(), now(), 'Hours', 'h', 30, 3, 1, false)""",
    ),
    (
        """insert into reading (id, created_at, updated_at, value, meter_id)
            values (1, '2026-08-03 08:00:00.25', now(), 1204.5, 1)""",
    ),
    (
        """insert into preventive_maintenance (id, created_at, updated_at, estimated_duration, required_signature,
            title, name, company_id, asset_id, is_demo)
            values (1, now(), now(), 0, false, 'Service', 'Yearly', 3, 1, false)""",
        """insert into schedule (id, created_at, updated_at, disabled, ends_on, frequency, starts_on, recurrence_type,
            recurrence_based_on, preventive_maintenance_id, is_demo) values
            (1, now(), now(), false, '2027-06-30 22:00', 1, now(), 'YEARLY', 'SCHEDULED_DATE', 1, false),
            (2, now(), now(), false, null, 1, now(), 'YEARLY', 'SCHEDULED_DATE', 1, false)""",
    ),
    (
        """insert into request (id, created_at, updated_at, created_by, updated_by, custom_id, title, description,
            priority, cancelled, asset_id, estimated_duration, required_signature, company_id, is_demo) values
            (1, now(), now(), 8, 8, 'R000001', 'It is cold', 'Since Monday', 2, false, 1, 0, false, 3, false)""",
        "insert into request_customers (request_id, customers_id) values (1, 1)",
    ),
    (
        """insert into work_order (id, created_at, updated_at, created_by, updated_by, custom_id, title, description,
            priority, status, archived, estimated_duration, estimated_start_date, due_date, primary_user_id, team_id,
            location_id, asset_id, parent_request_id, required_signature, company_id, is_demo) values
            (1, now(), now(), 8, 8, 'WO000001', 'Burner does not start', 'Look at the igniter', 3, 0, false,
             1.3333333333333333, '2026-08-03 06:00', '2026-08-05 22:00', 8, 9, 1, 1, 1, false, 3, false)""",
        "insert into work_order_customers (work_order_id, customers_id) values (1, 1)",
        "update request set work_order_id = 1, updated_at = now() where id = 1",
    ),
    (
        """insert into labor (id, created_at, updated_at, created_by, updated_by, duration, hourly_rate,
            include_to_total_time, logged, started_at, status, company_id, assigned_to_id, work_order_id, is_demo)
            values (1, now(), now(), 8, 8, 5400, 62, true, true, '2026-08-03 06:10', 0, 3, 8, 1, false)""",
    ),
    (
        """insert into part_quantity (id, created_at, updated_at, created_by, updated_by, quantity, company_id, part_id,
            work_order_id, is_demo) values (1, now(), now(), 8, 8, 2, 3, 1, 1, false)""",
        """insert into additional_cost (id, created_at, updated_at, created_by, updated_by, cost, description,
            include_to_total_cost, work_order_id, is_demo)
            values (1, now(), now(), 8, 8, 149.9, 'Crane', true, 1, false)""",
        """insert into comment (id, created_at, updated_at, created_by, updated_by, user_id, content, work_order_id,
            company_id) values (1, '2026-08-03 07:00', now(), 8, 8, 8, 'Igniter replaced', 1, 3)""",
    ),
    (
        """insert into task_base (id, created_at, updated_at, label, task_type, company_id)
            values (1, now(), now(), 'Close the gas valve', 0, 3)""",
        """insert into task (id, created_at, updated_at, value, company_id, task_base_id, work_order_id)
            values (1, now(), now(), 'OPEN', 3, 1, 1)""",
    ),
    (
        """insert into file (id, created_at, updated_at, name, type, path, company_id, hidden)
            values (1, now(), now(), 'igniter.jpg', 0, 'company 3/igniter.jpg', 3, false)""",
        "insert into work_order_files (work_order_id, files_id) values (1, 1)",
    ),
    (
        """insert into purchase_order (id, created_at, updated_at, name, status, shipping_due_date, company_id, is_demo)
            values (1, now(), now(), 'PO-7', 0, '2026-08-09 22:00', 3, false)""",
        """insert into part_quantity (id, created_at, updated_at, quantity, company_id, part_id, purchase_order_id,
            is_demo) values (2, now(), now(), 20, 3, 1, 1, false)""",
    ),
)
# What of it is elsewhere: all rows of each entity, without their keys and without nulls.
ARRIVED: dict[str, list[dict[str, object]]] = {
    "company": [{
        "code": "NW", "name": "Nordwind Service GmbH", "base_currency": "EUR", "timezone": "Europe/Berlin",
    }],
    "account": [{
        "name": "Acme", "legal_name": "Acme Holding AG", "email": "office@acme.example", "phone": "+49 40 1",
        "website": "acme.example", "street": "Werftstr. 7", "notes": "Pays late",
    }],
    "site": [
        {"name": "Yard", "code": "L000001"},
        {"name": "Plant 2", "code": "L000002", "account": 1, "parent": 1, "street": "Kai 1, Hamburg",
         "latitude": "53.541300", "longitude": "9.984130"},
    ],
    "technician": [{
        "name": "Tilda Berg", "email": "tilda@nordwind.example", "phone": "+49 171 1", "team": "North",
        "hourly_cost": "62.0000", "cost_currency": "EUR", "is_active": 1,
    }],
    "item": [{
        "sku": "AF-001", "name": "Air filter", "description": "Pleated", "unit": "each", "is_stocked": 1,
        "quantity_on_hand": "10", "quantity_minimum": "2.5", "cost": "15.9900", "cost_currency": "EUR",
    }],
    "asset": [{
        "name": "Boiler", "account": 1, "site": 2, "tag": "A-17", "serial_number": "SN 4711",
        "manufacturer": "Viessmann", "model": "Vitocrossal", "status": "down", "installed_on": "2024-03-01",
        "warranty_until": "2027-07-01",
    }],
    "asset_condition": [{"asset": 1, "observed_at": "2026-08-03 08:00:00.25", "reading": "1204.5", "unit": "h"}],
    "renewal": [{"asset": 1, "kind": "preventive", "due_on": "2027-07-01"}],
    "case": [{
        "number": "R000001", "account": 1, "asset": 1, "work_order": 1, "subject": "It is cold",
        "description": "Since Monday", "priority": "normal", "status": "assigned",
    }],
    "work_order": [{
        "number": "WO000001", "title": "Burner does not start", "instructions": "Look at the igniter", "account": 1,
        "site": 2, "asset": 1, "priority": "high", "status": "scheduled", "technician": "Tilda Berg", "team": "North",
        "planned_start": "2026-08-03 06:00:00", "planned_labour": "4800", "due_at": "2026-08-05 22:00:00",
    }],
    "labour_line": [{
        "work_order": 1, "technician": "Tilda Berg", "started_at": "2026-08-03 06:10:00", "duration": "5400",
        "rate": "62.0000", "currency": "EUR",
    }],
    "part_line": [{"work_order": 1, "item": 1, "quantity_planned": "2"}],
    "cost_line": [{"work_order": 1, "description": "Crane", "amount": "149.90", "currency": "EUR"}],
    "note": [{
        "work_order": 1, "written_at": "2026-08-03 07:00:00", "author": "Tilda Berg", "body": "Igniter replaced",
    }],
    "task": [{"work_order": 1, "label": "Close the gas valve", "kind": "check", "value": "OPEN", "is_done": 0}],
    "attachment": [{"work_order": 1, "kind": "photo", "name": "igniter.jpg", "uri": "company 3/igniter.jpg"}],
    "survey": [],
    "purchase_order": [{"number": "PO-7", "status": "sent", "expected_on": "2026-08-10"}],
    "purchase_order_line": [{"purchase_order": 1, "item": 1, "quantity": "20"}],
}  # fmt: skip
# What the office enters elsewhere, each in a transaction of its own.
OFFICE = (
    "insert into account (id, name, legal_name, email, phone, website, street, city, notes) values (100, 'Bolt',"
    " 'Bolt KG', 'info@bolt.example', '+49 40 2', 'bolt.example', 'Kai 1', 'Hamburg', 'New')",
    "insert into site (id, account, name, code, parent, street, latitude, longitude)"
    " values (100, 100, 'Hall', 'H1', 2, 'Kai 9', '53.541300', '9.984130')",
    "insert into item (id, sku, name, description, kind, unit, is_stocked, quantity_on_hand, quantity_minimum, cost,"
    " cost_currency) values (100, 'VB-1', 'Belt', 'Long', 'part', 'each', 1, '0', '1', '25.5000', 'EUR'),"
    " (101, 'VB-2', 'Bare belt', null, 'part', null, null, null, null, null, null),"
    " (102, 'HOUR', 'Labour', null, 'labour', 'h', 0, null, null, null, null)",
    "insert into asset (id, account, name, site, parent, tag, serial_number, manufacturer, model, status, installed_on,"
    " warranty_until) values (100, 100, 'Pump', 100, 1, 'A-18', 'SN 5', 'Wilo', 'Stratos', 'degraded', '2024-07-01',"
    " '2026-01-31')",
    "insert into work_order (id, title, instructions, account, site, asset, priority, status, planned_labour, due_at)"
    " values (100, 'Quote 7', 'Fit a belt', 100, 100, 100, 'urgent', 'new', '4800', '2026-09-01 10:00:00')",
    "insert into part_line (id, work_order, item, quantity_planned) values (100, 100, 100, '2')",
    "insert into labour_line (id, work_order, started_at, duration, rate, currency)"
    " values (100, 100, '2026-09-01 08:00:00', '3600', '79.5000', 'EUR')",
    "insert into cost_line (id, work_order, description, amount, currency) values (100, 100, 'Permit', '30.10', 'EUR')",
    "insert into note (id, work_order, written_at, body) values (100, 100, '2026-09-01 09:00:00.5', 'Ring twice')",
    'insert into "case" (id, account, asset, subject, description, priority, status)'
    " values (100, 100, 100, 'Noise', 'Since noon', 'low', 'new')",
    "insert into purchase_order (id, number, supplier, status, expected_on)"
    " values (100, 'PO-8', 'Belts Ltd', 'partial', '2026-09-01')",
    "insert into purchase_order_line (id, purchase_order, item, quantity) values (100, 100, 100, '7')",
)
# What stands of it in Atlas's tables: every column that is not null, but for those of `OURS`.
OURS = {"created_by": 7, "updated_by": 7, "company_id": 3, "is_demo": False}
STANDS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("customer", "name = 'Bolt'", {
        "id": 51, "name": "Bolt", "billing_name": "Bolt KG", "email": "info@bolt.example", "phone": "+49 40 2",
        "website": "bolt.example", "billing_address": "Kai 1", "description": "New", "rate": 0,
    }),
    ("location", "name = 'Hall'", {
        "id": 51, "name": "Hall", "custom_id": "H1", "parent_location_id": 1, "address": "Kai 9", "latitude": 53.5413,
        "longitude": 9.98413,
    }),
    ("part", "name = 'Belt'", {
        "id": 51, "barcode": "VB-1", "name": "Belt", "description": "Long", "unit": "each", "non_stock": False,
        "quantity": 0.0, "min_quantity": 1.0, "cost": 25.5, "version": 0,
    }),
    ("part", "name = 'Bare belt'", {
        "id": 101, "barcode": "VB-2", "name": "Bare belt", "non_stock": False, "quantity": 0.0, "min_quantity": 0.0,
        "cost": 0.0, "version": 0,
    }),
    ("asset", "name = 'Pump'", {
        "id": 51, "name": "Pump", "location_id": 51, "parent_asset_id": 1, "bar_code": "A-18", "serial_number": "SN 5",
        "manufacturer": "Wilo", "model": "Stratos", "status": 0, "archived": False,
        "in_service_date": datetime(2024, 6, 30, 22), "warranty_expiration_date": datetime(2026, 1, 30, 23),
    }),
    ("work_order", "title = 'Quote 7'", {
        "id": 51, "title": "Quote 7", "description": "Fit a belt", "location_id": 51, "asset_id": 51, "priority": 3,
        "status": 0, "archived": False, "required_signature": False, "estimated_duration": 4 / 3,
        "due_date": datetime(2026, 9, 1, 10),
    }),
    ("part_quantity", "work_order_id = 51", {"id": 51, "work_order_id": 51, "part_id": 51, "quantity": 2.0}),
    ("labor", "work_order_id = 51", {
        "id": 51, "work_order_id": 51, "started_at": datetime(2026, 9, 1, 8), "duration": 3600, "hourly_rate": 80,
        "status": 0, "logged": True, "include_to_total_time": True,
    }),
    ("additional_cost", "work_order_id = 51", {
        "id": 51, "work_order_id": 51, "description": "Permit", "cost": 30.1, "include_to_total_cost": True,
        "company_id": None,
    }),
    ("comment", "work_order_id = 51", {
        "id": 51, "work_order_id": 51, "user_id": 7, "content": "Ring twice", "is_demo": None,
        "created_at": datetime(2026, 9, 1, 9, 0, 0, 500_000),
    }),
    ("request", "title = 'Noise'", {
        "id": 51, "title": "Noise", "description": "Since noon", "asset_id": 51, "priority": 1, "cancelled": False,
        "required_signature": False, "estimated_duration": 0.0,
    }),
    ("purchase_order", "name = 'PO-8'", {
        "id": 51, "name": "PO-8", "status": 0, "shipping_due_date": datetime(2026, 8, 31, 22),
    }),
    ("part_quantity", "purchase_order_id = 51", {"id": 101, "purchase_order_id": 51, "part_id": 51, "quantity": 7.0}),
)  # fmt: skip
LINKS = (
    ("t_location_customer_associations", "id_location", "id_customer"),
    ("t_asset_customer_associations", "id_asset", "id_customer"),
    ("work_order_customers", "work_order_id", "customers_id"),
    ("request_customers", "request_id", "customers_id"),
)


@pytest.fixture(scope="module")
def trouble(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    field = field_of(postgres_server, Path(tmp_path_factory.mktemp("atlas")))
    with field.standing():
        made = Trouble(field)
        with field.connect("fsm") as fsm:
            fsm.execute(SEED.encode())
            for table in (table for table in carried("atlas")[1] if not table.primary_key):
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


def rows_of(trouble: Trouble, system: str, table: str, where: str = "true") -> list[dict[str, Any]]:
    """In the order of their keys, without what is null in them."""
    with trouble.field.application(system) as application:
        cursor = application.connection.execute(f'select * from "{table}" where {where} order by id')
        names = [column[0] for column in cursor.description]
        return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in cursor.fetchall()]


def test_what_users_enter_arrives_with_every_field_right(trouble: Trouble) -> None:
    for statements_ in DAY:
        wrote(trouble, "fsm", *statements_)
    trouble.wait_row("erp", "select 1 from purchase_order_line")
    for entity, wanted in ARRIVED.items():
        found = [{k: v for k, v in row.items() if k != "id"} for row in rows_of(trouble, "erp", entity)]
        assert found == wanted, entity


def test_what_comes_from_elsewhere_stands_as_the_application_wants_it(trouble: Trouble) -> None:
    for statement in OFFICE:
        wrote(trouble, "erp", statement)
    trouble.wait_row("fsm", "select 1 from part_quantity where purchase_order_id = 51")
    for table, where, wanted in STANDS:
        (row,) = rows_of(trouble, "fsm", table, where)
        assert row.pop("updated_at") is not None
        if "created_at" not in wanted:
            assert row.pop("created_at") is not None
        assert row == {k: v for k, v in (OURS | wanted).items() if v is not None}, table
    for table, column, customer in LINKS:
        assert trouble.ask("fsm", f"select {column}, {customer} from {table} where {column} > 50") == [(51, 51)], table
    assert trouble.ask("fsm", "select 1 from part where name = 'Labour'") == []


def test_a_job_runs_its_course(trouble: Trouble) -> None:
    wrote(
        trouble, "fsm", "update work_order set status = 1, first_time_to_react = '2026-08-03 06:05' where id = 1",
        "insert into labor (id, created_at, updated_at, duration, hourly_rate, include_to_total_time, logged,"
        " started_at, status, company_id, assigned_to_id, work_order_id, is_demo) values"
        " (2, now(), now(), 0, 62, true, false, '2026-08-03 09:00', 1, 3, 8, 1, false)",
    )  # fmt: skip
    trouble.wait_row("erp", "select 1 from work_order where id = 1 and status = 'in_progress'"
                            " and first_response_at = '2026-08-03 06:05:00'")  # fmt: skip
    line = "select 1 from labour_line where started_at = '2026-08-03 09:00:00' and duration = ?"
    # A clock that runs is no time yet; one that is started again is the same line.
    for seconds in (600, 900):
        wrote(trouble, "fsm", f"update labor set status = 0, duration = {seconds} where id = 2")
        trouble.wait_row("erp", line, str(seconds))
        wrote(trouble, "fsm", "update labor set status = 1 where id = 2")
    wrote(
        trouble, "fsm", "update labor set status = 0 where id = 2", "update task set value = 'COMPLETE' where id = 1",
        "update work_order set status = 3, completed_on = '2026-08-03 10:00', feedback = 'Came on time' where id = 1",
    )  # fmt: skip
    trouble.wait_row("erp", "select 1 from survey where work_order = 1 and comment = 'Came on time'")
    trouble.wait_row("erp", "select 1 from work_order where id = 1 and status = 'completed'"
                            " and completed_at = '2026-08-03 10:00:00'")  # fmt: skip
    trouble.wait_row("erp", "select 1 from part_line where id = 1 and quantity_used = '2'")
    trouble.wait_row("erp", "select 1 from task where is_done and value = 'COMPLETE'")
    trouble.wait_row("erp", """select 1 from "case" where id = 1 and status = 'resolved'""")
    assert trouble.ask("erp", line, "900") == [(1,)]
    wrote(trouble, "fsm", "update work_order set archived = true where id = 1")
    trouble.wait_row("erp", "select 1 from work_order where id = 1 and status = 'closed'")


def test_changes_go_both_ways(trouble: Trouble) -> None:
    wrote(trouble, "erp", "update item set cost = '26.0000', quantity_on_hand = '3' where id = 100")
    wrote(trouble, "erp", "update account set phone = '+49 40 3', street = null where id = 100")
    wrote(trouble, "erp", """update "case" set status = 'closed', account = 1 where id = 100""")
    trouble.wait_row("fsm", "select 1 from part where id = 51 and cost = 26 and quantity = 3")
    trouble.wait_row("fsm", "select 1 from customer where id = 51 and phone = '+49 40 3' and billing_address is null"
                            " and updated_at > created_at and updated_by = 7")  # fmt: skip
    trouble.wait_row("fsm", "select 1 from request r join request_customers c on c.request_id = r.id"
                            " where r.id = 51 and r.cancelled and c.customers_id = 1")  # fmt: skip
    # Hibernate writes a set anew whenever one of its members changes.
    wrote(
        trouble, "fsm", "delete from work_order_customers where work_order_id = 51",
        "insert into work_order_customers (work_order_id, customers_id) values (51, 1)",
        "update work_order set estimated_start_date = '2026-09-01 06:00', primary_user_id = 8 where id = 51",
    )  # fmt: skip
    trouble.wait_row("erp", "select 1 from work_order where id = 100 and account = 1 and status = 'scheduled'"
                            " and technician = 'Tilda Berg' and priority = 'urgent'")  # fmt: skip
    wrote(trouble, "fsm", "update part set quantity = quantity - 1 where id = 1")
    trouble.wait_row("erp", "select 1 from item where id = 1 and quantity_on_hand = '9'")


def test_what_is_deleted_archived_and_brought_back(trouble: Trouble) -> None:
    for archived, status in ((True, "retired"), (False, "down")):
        wrote(trouble, "fsm", f"update asset set archived = {archived} where id = 1")
        trouble.wait_row("erp", "select 1 from asset where id = 1 and status = ?", status)
    wrote(trouble, "fsm", "delete from additional_cost where id = 1")
    trouble.wait(lambda: trouble.ask("erp", "select 1 from cost_line where id = 1") == [], "the cost is gone")
    wrote(trouble, "erp", "delete from part_line where id = 1", 'delete from "case" where id = 100')
    trouble.wait(lambda: trouble.ask("fsm", "select 1 from request where id = 51") == [], "the request is gone")
    assert trouble.ask("fsm", "select 1 from request_customers where request_id = 51") == []
    # What was used on a job is the field service's: nobody else deletes it.
    trouble.wait_row("erp", "select 1 from part_line where work_order = 1 and quantity_used = '2'")
    assert trouble.ask("fsm", "select 1 from part_quantity where id = 1") == [(1,)]
