"""Goal: what a field's owner says stands, and until it has said anything the field is everybody's.

Method: two SQLite files; the ERP owns the credit, and the CRM writes it before, and after, the ERP does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.field import Field


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    made = Field(None, tmp_path, "", systems=("crm", "erp"), files=frozenset(("crm", "erp")))
    with made.standing():
        assert made.concord("setup").returncode == 0
        yield made


def test_an_owner_has_no_say_until_it_has_written_and_the_last_word_from_then_on(files: Field) -> None:
    with files.application("crm") as crm, files.application("erp") as erp:

        def credits() -> tuple[object, object]:
            ((cents,),), ((amount,),) = (
                crm.run("select credit_cents from customers"),
                erp.run("select credit from client"),
            )
            return cents, amount

        crm.run(
            "insert into customers (id, company_name, email, credit_cents) values ('c', 'Kiln', 'k@example.org', 500)"
        )
        # The same customer at the owner, which says nothing of the credit.
        erp.run("insert into client (title, mail) values ('Kiln', 'k@example.org')")
        files.settle()
        assert credits() == (500, 5)
        crm.run("update customers set credit_cents = 600")
        files.settle()
        assert credits() == (600, 6)
        erp.run("update client set credit = 7")
        files.settle()
        assert credits() == (700, 7)
        crm.run("update customers set credit_cents = 800")
        files.settle()
        assert credits() == (700, 7)
        rules = [item["rule"] for item in json.loads(files.concord("conflicts", "--json").stdout)["items"]]
        assert rules == ["owner"]
    assert files.concord("compare").returncode == 0
