"""Goal: a system that makes more of our deliveries than we wrote stays in agreement, and what it made is not lost.

Method: triggers and cascading foreign keys in one system. A field it stores differently is no change and no
difference; a row that it changes or deletes on the side, inside our own transaction, is a change of its own.
"""

from __future__ import annotations

import json

from tests.acceptance.field import Field

TRIGGERS = """
create function tidy() returns trigger language plpgsql as $$
begin new.title := btrim(new.title); return new; end $$;
create trigger tidy before insert or update on client for each row execute function tidy();
create function mark() returns trigger language plpgsql as $$
begin update place set label = label || ' (moved)' where client_no = new.client_no; return null; end $$;
create trigger mark after update of addr_city on client for each row when (old.addr_city is distinct from new.addr_city)
execute function mark();
"""


def differences(field: Field) -> int:
    return json.loads(field.concord("compare", "--json").stdout)["differences"]


def test_what_a_systems_triggers_make_of_a_delivery_is_kept(field: Field) -> None:
    with field.connect("fsm") as connection:
        connection.execute(TRIGGERS.encode())
    assert field.concord("setup").returncode == 0
    with field.connect("crm") as crm:
        crm.execute(
            "insert into customers values ('c1', '  Kiln Bakery ', 'k@example.org', '1', 100, 'Mill Lane', 'Ash')"
        )
        crm.execute("insert into locations values ('s1', 'c1', 'Yard')")
        field.settle()
        crm.execute("update customers set phone = '2' where id = 'c1'")
        field.settle()
        assert crm.execute("select company_name, phone from customers").fetchone() == ("  Kiln Bakery ", "2")
        crm.execute("update customers set city = 'Oak' where id = 'c1'")
        field.settle()
        assert crm.execute("select label from locations").fetchone() == ("Yard (moved)",)
    with field.connect("fsm") as fsm:
        assert fsm.execute("select title, tel, addr_city from client").fetchone() == ("Kiln Bakery", "2", "Oak")
    with field.connect("erp") as erp:
        assert erp.execute("select label from place").fetchone() == ("Yard (moved)",)
    assert differences(field) == 0
    assert json.loads(field.concord("conflicts", "--json").stdout)["items"] == []


def test_what_triggers_make_of_a_delivery_that_is_read_in_parts_is_no_change(field: Field) -> None:
    """The log of one delivery may be too long for one commit of the hub; its last rows are still its own."""
    with field.connect("fsm") as connection:
        connection.execute(TRIGGERS.encode())
    assert field.concord("setup").returncode == 0
    field.settle()
    with field.connect("crm") as crm:
        crm.execute(
            "insert into customers (id, company_name, email)"
            " select 'c' || n, ' Kiln Bakery ' || n || ' ', n || '@example.org' from generate_series(1, 12000) n"
        )
        field.settle()
        field.settle()
        found = crm.execute("select count(*) from customers where company_name like '% '").fetchone()
        assert found == (12_000,)
    with field.connect("fsm") as fsm:
        assert fsm.execute("select count(*) from client where title not like '% '").fetchone() == (12_000,)
    assert differences(field) == 0
    assert json.loads(field.concord("conflicts", "--json").stdout)["items"] == []


def test_rows_that_a_cascade_deletes_inside_our_delivery_are_deleted_everywhere(field: Field) -> None:
    assert field.concord("setup").returncode == 0
    with field.connect("crm") as crm:
        crm.execute("alter table locations drop constraint locations_customer_fkey")
        crm.execute("insert into customers (id, company_name, email) values ('c1', 'Kiln Bakery', 'k@example.org')")
        crm.execute("insert into locations values ('s1', 'c1', 'Yard')")
        field.settle()
        # The CRM forgets the site; the field-service system and the ERP delete it with its client.
        crm.execute("delete from customers where id = 'c1'")
        field.settle()
        assert crm.execute("select count(*) from locations").fetchone() == (0,)
    for system in ("fsm", "erp"):
        with field.connect(system) as connection:
            assert connection.execute(
                "select (select count(*) from client), (select count(*) from place)"
            ).fetchone() == (
                0,
                0,
            )
    assert differences(field) == 0
