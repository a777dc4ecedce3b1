"""Goal: customers whom two systems' users enter at the same moment are there once in the end, and what refers to them
is as well; also when a person decides.

Method: the users of one system hold its write lock while they enter customers whom the other's users have just entered,
so that deliveries of these wait for their transaction and land behind it: every one of these rows is one too many.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.field import (
    CRM_MAPPING,
    CRM_SCHEMA,
    OTHER_MAPPING,
    SQLITE_OTHER_SCHEMA,
    Application,
    Field,
    Shape,
)

CUSTOMERS = 200
# Here nothing keeps a user from entering somebody twice.
SHAPES = {
    "crm": Shape(CRM_SCHEMA.replace("text unique", "text"), CRM_MAPPING.replace("public.", "")),
    "fsm": Shape(SQLITE_OTHER_SCHEMA.replace("unique ", ""), OTHER_MAPPING.replace("public.", "")),
}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Field]:
    made = Field(None, tmp_path, "doubles", files=frozenset(("crm", "fsm", "erp")), shapes=SHAPES)
    with made.standing():
        yield made


def hub_rows(field: Field, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{field.directory / 'hub.sqlite'}?mode=ro", uri=True)) as hub:
        return list(hub.execute(sql))


def wait_captured(field: Field, rows: int) -> None:
    until = time.monotonic() + 60
    while hub_rows(field, "select rows_read from system where name = 'crm'") != [(rows,)]:
        assert time.monotonic() < until, field.log()[-3000:]
        time.sleep(0.05)
    # The delivery that waits for the lock is worked out by now.
    time.sleep(0.5)


def enter_at_once(field: Field, crm: Application, fsm: Application, emails: list[str], clients: list[str]) -> None:
    """The CRM's users enter customers and their sites, those of the FSM clients, and neither knows of the other's."""
    assert field.concord("setup").returncode == 0
    field.settle()
    daemon = field.start_daemon("--log-level", "warning", is_awaited=True)
    fsm.run("begin immediate")
    with crm.transaction():
        for n, email in enumerate(emails):
            crm.run(
                "insert into customers (id, company_name, email, phone) values (?, ?, ?, '1')", f"c{n}", f"N{n}", email
            )
            crm.run("insert into locations values (?, ?, ?)", f"l{n}", f"c{n}", f"L{n}")
    for email in clients:
        fsm.run("insert into client (title, mail, tel) values ('as they say', ?, '2')", email)
    wait_captured(field, 2 * len(emails))
    fsm.run("commit")
    daemon.terminate()
    assert daemon.wait(60) == 0, field.log()[-3000:]


def test_customers_entered_in_two_systems_at_once_are_there_once(files: Field) -> None:
    emails = [f"e{n}@example.org" for n in range(CUSTOMERS)]
    with files.application("crm") as crm, files.application("fsm") as fsm:
        enter_at_once(files, crm, fsm, emails, emails)
        files.settle()
        assert hub_rows(files, "select count(*) from alias") == [(CUSTOMERS,)], "the deliveries did not wait"
        found = fsm.run("select mail, label from client left join place using (client_no) order by client_no")
        assert found == [(email, f"L{n}") for n, email in enumerate(emails)]
    compared = files.concord("compare")
    assert compared.returncode == 0, compared.stdout


def test_a_row_that_came_while_a_person_decides_is_one_too_many(files: Field) -> None:
    with files.application("crm") as crm, files.application("fsm") as fsm:
        enter_at_once(files, crm, fsm, ["same@example.org", "same@example.org"], ["same@example.org"])
        files.settle()
        (review,) = json.loads(files.concord("review", "list", "--json").stdout)["items"]
        assert fsm.run("select count(*) from client") == [(3,)], "both candidates came beside the row in question"
        ((mine,),) = fsm.run("select client_no from client where title = 'as they say'")
        linked = files.concord("review", "link", str(review["id"]), str(max(review["candidates"])[0]))
        assert linked.returncode == 0, linked.stderr
        files.settle()
        found = fsm.run("select client_no, tel, label from client left join place using (client_no) order by label")
        assert [label for _, _, label in found] == ["L0", "L1"], found
        assert mine in {number for number, _, _ in found}, "the users' own row stays"
    compared = files.concord("compare")
    assert compared.returncode == 0, compared.stdout
