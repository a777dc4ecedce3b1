"""Goal: what a workflow makes is there once, whoever is killed when, follows what it comes from as long as it may, and
is never made of what was there before.

Method: a CRM, a field-service system and an ERP, each with a column for every field; users approve quotes and work on
what comes of it, the daemon is killed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crosswalk.dictionary import load_dictionary
from tests.acceptance.field import Field, Shape
from tests.acceptance.trouble import Trouble
from tests.products.plain import mapping, schema

ENTITIES = (
    "account",
    "contact",
    "site",
    "asset",
    "item",
    "opportunity",
    "quote",
    "quote_line",
    "work_order",
    "part_line",
)


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    dictionary = load_dictionary("service")
    plain = Shape(schema(dictionary, ENTITIES), mapping(dictionary, ENTITIES))
    field = Field(
        None,
        Path(tmp_path_factory.mktemp("workflows")),
        "workflows",
        systems=("crm", "fsm", "erp"),
        files=frozenset(("crm", "fsm", "erp")),
        dictionary='extends = "service"',
        shapes=dict.fromkeys(("crm", "fsm", "erp"), plain),
        workflows="service",
    )
    with field.standing():
        made = Trouble(field)
        with field.application("crm") as crm:
            crm.run("insert into account (id, name) values (1, 'Acme')")
            crm.run("insert into item (id, sku, name) values (1, 'PU-1', 'Pump'), (2, 'FI-1', 'Filter')")
            crm.run("insert into opportunity (id, name, account, stage) values (1, 'Pump', 1, 'quoted')")
            crm.run("insert into quote (id, number, account, status) values (1, 'Q-old', 1, 'approved')")
            crm.run("insert into quote (id, number, account, status) values (2, 'Q-draft', 1, 'draft')")
            crm.run("insert into quote_line (quote, position, kind, item, quantity) values (2, 1, 'part', 2, '3')")
        made.concord("setup")
        made.start()
        made.wait_copied()
        yield made
        assert made.stop() == 0
        made.check_agreement()


def jobs(trouble: Trouble, number: str) -> list[tuple[object, ...]]:
    return trouble.ask("fsm", "select title, status, quote_number from work_order where quote_number = ?", number)


def quote(trouble: Trouble, number: str, *, scope: str = "Change the pump") -> None:
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run(
            "insert into quote (number, revision, account, opportunity, status, scope, labour) select ?, 1, 1, id,"
            " 'sent', ?, '7200' from opportunity where name = 'Pump'",
            number, scope,
        )  # fmt: skip
        crm.run(
            "insert into quote_line (quote, position, kind, item, quantity, unit_price, currency) select id, 1, 'part',"
            " 1, '2', '99.5', 'EUR' from quote where number = ?", number,
        )  # fmt: skip
        crm.run("insert into quote_line (quote, position, kind, quantity) select id, 2, 'labour', '2' from quote"
                " where number = ?", number)  # fmt: skip
    trouble.changes["crm"] = trouble.changes.get("crm", 0) + 3


def test_an_approved_quote_becomes_a_job_with_its_parts(trouble: Trouble) -> None:
    quote(trouble, "Q-1")
    trouble.wait_row(
        "fsm", "select 1 from quote_line l join quote q on q.id = l.quote where q.number = 'Q-1' and position = 2"
    )
    assert jobs(trouble, "Q-1") == []
    trouble.run("crm", "update quote set status = 'approved' where number = 'Q-1'")
    trouble.wait(lambda: jobs(trouble, "Q-1") == [("Change the pump", "new", "Q-1")], "one job")
    parts = (
        "select i.sku, p.quantity_planned, p.unit_price, p.currency from part_line p join item i on i.id = p.item"
        " join work_order w on w.id = p.work_order where w.quote_number = 'Q-1'"
    )
    trouble.wait(lambda: trouble.ask("fsm", parts) == [("PU-1", "2", "99.5000", "EUR")], "its part")
    trouble.wait_row("crm", "select 1 from opportunity where stage = 'won'")
    assert trouble.ask("fsm", "select account is not null, planned_labour from work_order") == [(1, "7200")]
    # What is read when the systems are joined has not just happened.
    assert jobs(trouble, "Q-old") == []


def test_a_quote_that_was_a_draft_when_it_was_copied_brings_its_parts(trouble: Trouble) -> None:
    trouble.run("crm", "update quote set status = 'approved' where number = 'Q-draft'")
    part = (
        "select p.quantity_planned from part_line p join work_order w on w.id = p.work_order"
        " where w.quote_number = 'Q-draft'"
    )
    trouble.wait(lambda: trouble.ask("fsm", part) == [("3",)], "its part")


def test_the_job_follows_the_quote_until_somebody_begins_it(trouble: Trouble) -> None:
    quote(trouble, "Q-2")
    trouble.run("crm", "update quote set status = 'approved' where number = 'Q-2'")
    trouble.wait(lambda: len(jobs(trouble, "Q-2")) == 1, "one job")
    trouble.run("crm", "update quote set scope = 'Change both' where number = 'Q-2'")
    trouble.wait(lambda: jobs(trouble, "Q-2") == [("Change both", "new", "Q-2")], "the new scope")
    trouble.run(
        "crm", "insert into quote_line (quote, position, kind, item, quantity) select id, 3, 'part', 2, '4' from quote"
        " where number = 'Q-2'",
    )  # fmt: skip
    parts = "select count(*) from part_line p join work_order w on w.id = p.work_order where w.quote_number = 'Q-2'"
    trouble.wait(lambda: trouble.ask("fsm", parts) == [(2,)], "another part")
    # A revision of the same number changes the same job.
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run("update quote set status = 'rejected' where number = 'Q-2'")
        crm.run("insert into quote (number, revision, account, status, scope) values ('Q-2', 2, 1, 'approved', 'Half')")
    trouble.changes["crm"] = trouble.changes.get("crm", 0) + 2
    trouble.wait(lambda: jobs(trouble, "Q-2") == [("Half", "new", "Q-2")], "the revision")
    trouble.run("crm", "update quote set scope = 'Half of it' where number = 'Q-2' and revision = 2")
    trouble.wait(lambda: jobs(trouble, "Q-2") == [("Half of it", "new", "Q-2")], "the revision's new scope")
    trouble.run("fsm", "update work_order set status = 'in_progress' where quote_number = 'Q-2'")
    trouble.wait_row("crm", "select 1 from work_order where quote_number = 'Q-2' and status = 'in_progress'")
    trouble.run("crm", "update quote set scope = 'Too late' where number = 'Q-2' and revision = 2")
    trouble.wait_row("fsm", "select 1 from quote where scope = 'Too late'")
    assert jobs(trouble, "Q-2") == [("Half of it", "in_progress", "Q-2")]


def test_kills_at_any_moment_make_nothing_twice(trouble: Trouble) -> None:
    for n in range(12):
        quote(trouble, f"K-{n}")
    for n in range(12):
        trouble.run("crm", f"update quote set status = 'approved' where number = 'K-{n}'")
        if n % 3 == 0:
            assert trouble.daemon is not None
            trouble.daemon.kill()
            trouble.wait_exit()
            trouble.start()
    numbers = "select quote_number from work_order where quote_number like 'K-%' order by quote_number"
    wanted = [(f"K-{n}",) for n in sorted(range(12), key=str)]
    for system in ("crm", "fsm"):
        trouble.wait(lambda s=system: trouble.ask(s, numbers) == wanted, f"one job each at {system}")
    parts = "select count(*) from part_line p join work_order w on w.id = p.work_order where w.quote_number like 'K-%'"
    trouble.wait(lambda: trouble.ask("fsm", parts) == [(12,)], "one part each")
