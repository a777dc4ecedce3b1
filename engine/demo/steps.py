"""The day: what the people of a service company do in their three systems, and what becomes of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from engine.demo.day import Day, Watch, at_once
from engine.demo.places import outage
from engine.demo.stage import duration
from engine.hub.transaction import HubTransaction
from engine.pipeline.topology import Topology
from engine.views.waiting import parked, reviews

Step = Callable[[Day], None]


def made_key(name: str) -> str:
    """A key as the CRM's application makes them; the same in every run, so that the closing words can name it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://crm.example.org/{name}"))


COMPANY = made_key("company/harbour-lights")
LONG_NAME = "Society for the Preservation of the Old Harbour Crane of Coldharbour Bay"


def new_customer(day: Day) -> None:
    day.stage.step("09:12", "The office enters a new customer in the CRM, with a contact and a site")
    address = ("4 Wharf Road", "Coldharbour Bay", "QX3 4PL", "GB")
    mail = "office@harbour-lights.example.org"
    day.crm.write(
        ("insert into companies (company_id, company_name, state, email, phone, street, town, post_code, country,"
         " vat_no, credit_limit, credit_currency) values (?, ?, 'A', ?, ?, ?, ?, ?, ?, ?, ?, 'GBP')",
         COMPANY, "Harbour Lights Hotel", mail, "01632 960990", *address, "GB000990017", "2500.00"),
        ("insert into people (person_id, company_id, first_name, last_name, role, email, phone_mobile, is_main)"
         " values (?, ?, 'Odile', 'Thornbeck', 'Front desk', 'odile.thornbeck@harbour-lights.example.org',"
         " '07700 900990', true)", made_key("person/harbour-lights"), COMPANY),
        ("insert into sites (site_id, company_id, site_name, street, town, post_code, country, gate_notes)"
         " values (?, ?, 'Boiler house', ?, ?, ?, ?, 'Ask for the night porter')",
         made_key("site/harbour-lights"), COMPANY, *address),
    )  # fmt: skip
    client = Watch(day.fsm, "select c.id, l.id, p.id from client c join location l on l.client_id = c.id"
                   " join person p on p.client_id = c.id where c.mail = ?", (mail,))  # fmt: skip
    customer = Watch(day.erp, "select c.cust_no, s.ship_no from customer c join ship_to s on s.cust_no = c.cust_no"
                     " where c.mail = ?", (mail,))  # fmt: skip
    day.watch(client, customer)
    assert client.row is not None
    assert customer.row is not None
    day.stage.fact(
        f"fsm: client {client.row[0]} with location {client.row[1]} and person {client.row[2]}"
        f" after {duration(client.seconds)}; the database gave the numbers"
    )
    day.stage.fact(
        f"erp: customer {customer.row[0]} with delivery address {customer.row[1]} after {duration(customer.seconds)};"
        " made by the template in erp.toml"
    )
    day.to_explain.append(f"crm:companies:{COMPANY}")


def phone_corrected(day: Day) -> None:
    company = day.known_everywhere()[0]
    day.stage.step("09:40", f"A technician corrects the telephone number of {company.name} in the FSM")
    number = "01632 960991"
    day.fsm.write(("update client set phone = ? where id = ?", number, company.client))
    crm = Watch(day.crm, "select phone from companies where company_id = ? and phone = ?", (company.company_id, number))
    erp = Watch(day.erp, "select tel from customer where cust_no = ? and tel = ?", (company.cust_no, number))
    day.watch(crm, erp)
    day.show_arrivals(crm, erp, what="{0}")
    day.stage.aside('the CRM owns customers, but this field says others = "accept" in dictionary.toml')


def price_changed(day: Day) -> None:
    sku = "PU-100"
    day.stage.step("10:05", f"The ERP puts up the price of {sku}: 18490 cents in its own words")
    day.erp.write(("update price set cents = 18490 where sku = ?", sku))
    fsm = Watch(day.fsm, "select r.amount, r.currency from part_price r join part p on p.id = r.part_id"
                " where p.part_no = ? and r.amount = 184.90", (sku,))  # fmt: skip
    day.watch(fsm)
    day.show_arrivals(fsm, what="184.90 {1}")


def job_done(day: Day) -> None:
    number, title = _open_job(day, 0)
    day.stage.step("10:50", f'Job {number} "{title}" is done: two and a quarter hours in the FSM')
    day.fsm.write(
        ("update job set progress = 'done', report = 'Gasket changed, pressure holds' where job_no = ?", number),
        ("insert into labour (job_id, technician, category, started_at, hours, done) select id, technician, 'work',"
         " '2026-03-02 08:30:00', 2.25, 'Gasket changed, pressure holds' from job where job_no = ?", number),
    )  # fmt: skip
    crm = Watch(day.crm, "select c.stage, e.seconds from service_cases c join case_effort e on e.case_id = c.case_id"
                " where c.case_no = ? and c.stage = 'C'", (number,))  # fmt: skip
    day.watch(crm)
    day.show_arrivals(crm, what="stage {0}, effort {1} seconds, both at once")


def same_field_twice(day: Day) -> None:
    day.forget_conflicts()
    given, family, mail = day.fsm.read("select given, family, mail from person order by id limit 1")[0]
    day.stage.step("11:02", f"CRM and FSM change the mobile number of {given} {family} in the same second")
    at_once(
        day.crm, ("update people set phone_mobile = '07700 900991' where email = ?", mail),
        day.fsm, ("update person set mobile = '07700 900992' where mail = ?", mail),
    )  # fmt: skip
    for conflict in day.next_conflicts():
        day.show_conflict(conflict)
        crm = Watch(day.crm, "select phone_mobile from people where email = ? and phone_mobile = ?",
                    (mail, conflict.winner_values[0]))  # fmt: skip
        fsm = Watch(
            day.fsm, "select mobile from person where mail = ? and mobile = ?", (mail, conflict.winner_values[0])
        )
        day.watch(crm, fsm)
        day.stage.fact(f"crm and fsm: both have {conflict.winner_values[0]}")
        day.to_explain.append(str(conflict.record))


def stock_counted(day: Day) -> None:
    sku = "VA-105"
    (stock,) = day.erp.read("select stock from article where sku = ?", sku)[0]
    expected = float(stock) + 20 - 3
    day.stage.step("11:30", f"{sku}: the ERP books 20 in while a van takes 3 out; {float(stock):g} were there")
    at_once(
        day.erp, ("update article set stock = stock + 20 where sku = ?", sku),
        day.fsm, ("update part set on_hand = on_hand - 3 where part_no = ?", sku),
    )  # fmt: skip
    erp = Watch(day.erp, "select stock from article where sku = ? and stock = ?", (sku, expected))
    fsm = Watch(day.fsm, "select on_hand from part where part_no = ? and on_hand = ?", (sku, expected))
    day.watch(erp, fsm)
    day.stage.decision(f"decided: a counter (policy sum): both movements count, {expected:g} are left")
    day.show_arrivals(erp, fsm, what=f"{expected:g}")
    day.forget_conflicts()


def owner_overrules(day: Day) -> None:
    company = day.known_everywhere()[1]
    (limit,) = day.crm.read("select credit_limit from companies where company_id = ?", company.company_id)[0]
    day.stage.step(
        "12:10", f"A salesman raises the credit limit of {company.name} to 99000 in the CRM; the ERP owns it"
    )
    day.crm.write(("update companies set credit_limit = 99000 where company_id = ?", company.company_id))
    raised = time.monotonic()
    for conflict in day.next_conflicts():
        day.show_conflict(conflict)
    crm = Watch(
        day.crm, "select credit_limit from companies where company_id = ? and credit_limit = ?",
        (company.company_id, limit),
    )  # fmt: skip
    day.watch(crm, since=raised)
    day.show_arrivals(crm, what=f"{float(limit):.2f} again")


def system_down(day: Day) -> None:
    first, second = day.known_everywhere()[2:4]
    is_file = day.erp.kind == "sqlite"
    what = "is closing its month and lets nobody write" if is_file else "goes down for maintenance"
    day.stage.step("13:00", f"The ERP {what}; the others go on")
    with outage(day.erp):
        day.crm.write(("update companies set street = '7 Kiln Street' where company_id = ?", first.company_id))
        day.fsm.write(("update client set phone = '01632 960993' where id = ?", second.client))
        fsm = Watch(day.fsm, "select street from client where id = ? and street = '7 Kiln Street'", (first.client,))
        crm = Watch(day.crm, "select phone from companies where company_id = ? and phone = '01632 960993'",
                    (second.company_id,))  # fmt: skip
        day.watch(fsm, crm)
        day.show_arrivals(fsm, crm, what="{0}")
        day.daemon.wait_paused("erp")
        day.stage.decision(
            "erp: its lane is paused and tries again by itself; what it misses waits in the hub's journal"
        )
        day.stage.pause(1.5)
    back = time.monotonic()
    day.stage.step("13:20", "The ERP is back")
    street = Watch(
        day.erp, "select street from customer where cust_no = ? and street = '7 Kiln Street'", (first.cust_no,)
    )
    phone = Watch(day.erp, "select tel from customer where cust_no = ? and tel = '01632 960993'", (second.cust_no,))
    day.watch(street, phone, since=back)
    day.stage.fact(f"erp: has both changes {duration(max(street.seconds, phone.seconds))} after it came back")


def daemon_killed(day: Day) -> None:
    company = day.known_everywhere()[4]
    number, title = _open_job(day, 1)
    day.stage.step("14:20", "The daemon is killed (SIGKILL) while people go on working")
    day.daemon.kill()
    day.crm.write(("update companies set email = ? where company_id = ?", "accounts@" + company.email.partition("@")[2],
                   company.company_id))  # fmt: skip
    day.fsm.write(("update job set progress = 'waiting', report = 'Part ordered' where job_no = ?", number))
    day.erp.write(("update price set cents = 9990 where sku = 'FI-110'",))
    day.stage.aside(f'a new mail address in the CRM, job {number} "{title}" waits in the FSM, a new price in the ERP')
    day.stage.pause()
    started = time.monotonic()
    day.stage.step("14:25", "The daemon is started again")
    day.daemon.start()
    mail = "accounts@" + company.email.partition("@")[2]
    watches = (
        Watch(day.fsm, "select mail from client where id = ? and mail = ?", (company.client, mail)),
        Watch(day.erp, "select mail from customer where cust_no = ? and mail = ?", (company.cust_no, mail)),
        Watch(day.crm, "select stage from service_cases where case_no = ? and stage = 'H'", (number,)),
        Watch(day.fsm, "select r.amount from part_price r join part p on p.id = r.part_id where p.part_no = 'FI-110'"
              " and r.amount = 99.90", ()),
    )  # fmt: skip
    day.watch(*watches, since=started)
    day.stage.fact(
        f"crm, fsm, erp: all four changes arrived {duration(max(w.seconds for w in watches))} after the start;"
        " nothing twice, nothing lost"
    )


def site_closed(day: Day) -> None:
    company = next(c for c in day.seed.companies if c.is_in_crm and c.client is None and c.cust_no is not None)
    ((site, name),) = day.crm.read(
        "select site_id, site_name from sites where company_id = ? order by site_id limit 1", company.company_id
    )
    day.stage.step("14:50", f"{company.name} gives up its site {name!r}: the CRM sets its deletion mark")
    gone = "select 1 where not exists (select 1 from {} where {} and {} = ?)"
    keys = day.view(lambda tx, topology: _keys_of(tx, topology, f"crm:sites:{site}"))
    day.crm.write(("update sites set is_deleted = true where site_id = ?", site))
    fsm = Watch(day.fsm, gone.format("location", "1 = 1", "id"), (int(keys["fsm"]),))
    erp = Watch(day.erp, gone.format("ship_to", "1 = 1", "ship_no"), (keys["erp"],))
    day.watch(fsm, erp)
    day.stage.fact(f"fsm: the row of location {keys['fsm']} is deleted after {duration(fsm.seconds)}")
    day.stage.fact(f"erp: the row of delivery address {keys['erp']} is deleted after {duration(erp.seconds)}")


def wrong_delete(day: Day) -> None:
    day.forget_conflicts()
    key, given, family, mail = day.fsm.read("select id, given, family, mail from person order by id desc limit 1")[0]
    day.stage.step("15:05", f"Somebody deletes {given} {family} in the FSM; contacts belong to the CRM")
    day.fsm.write(("delete from person where id = ?", key))
    deleted = time.monotonic()
    for conflict in day.next_conflicts():
        day.stage.decision(
            f"decided: the {conflict.winner} owns contacts, the record lives on; the deletion is on record"
        )
    fsm = Watch(day.fsm, "select id, given, family from person where mail = ?", (mail,))
    day.watch(fsm, since=deleted)
    day.show_arrivals(fsm, what="{1} {2} is back as person {0}")


def doubtful_match(day: Day) -> None:
    one, other = day.seed.companies[:2]
    day.stage.step(
        "15:30", "A dispatcher types a client into the FSM whose mail address two prospects of the CRM share"
    )
    day.fsm.write(
        ("insert into client (title, mail, phone, street, town, zip, country) values (?, ?, ?, ?, ?, ?, 'GB')",
         one.name.split()[0], one.email, "01632 960994", *one.address),
    )  # fmt: skip
    found = day.until(lambda tx, _: reviews(tx), "a review")[-1]
    day.stage.decision(
        f"not guessed: it may be {one.name} or {other.name}; it waits as review {found.id} for a person to say,"
        " and goes nowhere until then"
    )


def refused_name(day: Day) -> None:
    key = made_key("company/crane")
    day.stage.step(
        "15:55", f"The CRM gets a customer with a name of {len(LONG_NAME)} characters; the ERP's labels have 40"
    )
    day.crm.write(
        ("insert into companies (company_id, company_name, state, email, town, country)"
         " values (?, ?, 'A', 'crane@harbour-crane.example.org', 'Coldharbour Bay', 'GB')", key, LONG_NAME),
    )  # fmt: skip
    fsm = Watch(day.fsm, "select id from client where title = ?", (LONG_NAME,))
    day.watch(fsm)
    day.show_arrivals(fsm, what="client {0}")
    row = day.until(lambda tx, _: parked(tx, system="erp"), "a parked record")[-1]
    day.stage.decision(f"erp: set aside as parked {row.id}, everything else flows on: {row.message}")
    day.to_explain.append(f"crm:companies:{key}")


def invoice_written(day: Day) -> None:
    company = day.known_everywhere()[0]
    number = "R-2026-9001"
    day.stage.step("16:40", f"The ERP writes invoice {number} with two lines to {company.name}, in cents")
    day.erp.write(
        ("insert into invoice (invoice_no, doc_type, cust_no, state_no, issued, due, net_cents, tax_cents, gross_cents)"
         " values (?, 'RE', ?, 20, '2026-03-02', '2026-04-01', 32890, 6578, 39468)", number, company.cust_no),
        ("insert into invoice_line (invoice_no, line_no, sku, words, qty, net_cents)"
         " values (?, 1, 'LAB-1', 'Technician, hour', 2.25, 14400)", number),
        ("insert into invoice_line (invoice_no, line_no, sku, words, qty, net_cents)"
         " values (?, 2, 'PU-100', 'Circulation pump S', 1, 18490)", number),
    )  # fmt: skip
    crm = Watch(day.crm, "select b.gross, b.currency, count(*) from bills b join bill_lines l on l.bill_id = b.bill_id"
                " where b.bill_no = ? group by b.bill_id, b.gross, b.currency", (number,))  # fmt: skip
    day.watch(crm)
    assert crm.row is not None
    day.stage.fact(
        f"crm: bill over {float(crm.row[0]):.2f} {crm.row[1]} with {crm.row[2]} lines after {duration(crm.seconds)},"
        " never half of it"
    )


def _open_job(day: Day, n: int) -> tuple[str, str]:
    rows = day.fsm.read("select job_no, title from job where progress = 'planned' order by id limit 1 offset ?", n)
    return rows[0][0], rows[0][1]


def _keys_of(tx: HubTransaction, topology: Topology, name: str) -> dict[str, str]:
    """System → key of one record."""
    from engine.views.records import explain, find_record

    rid = find_record(tx, topology, name)
    assert rid is not None
    return {system: key for system, _, key in explain(tx, topology, rid).rows}


STEPS: tuple[Step, ...] = (
    new_customer,
    phone_corrected,
    price_changed,
    job_done,
    same_field_twice,
    stock_counted,
    owner_overrules,
    system_down,
    daemon_killed,
    site_closed,
    wrong_delete,
    doubtful_match,
    refused_name,
    invoice_written,
)
