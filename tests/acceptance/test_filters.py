"""Goal: rows that leave and enter a filter stay the records that they are, also where one table holds two entities.

Method: a CRM keeps customers and their sites in one table, told apart by a column. While the daemon runs, its users
make customers prospects, which take no part, and customers again, and edit them in all states; users of a field-service
system correct names and telephone numbers meanwhile. In the end nobody is there twice, every customer is as its system
of record has it, and `concord compare` finds no difference.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Application, Field, Shape

SCHEMA = """
create table party (
    id text primary key, kind text not null, belongs_to text references party, title text not null, email text,
    phone text, credit_cents bigint, street text, city text
);
"""
MAPPING = """
[[table]]
name = "public.party"
entity = "account"
key = ["id"]
where = "kind = 'customer'"
allocate = "uuid"
[table.fields]
name = "title"
email = "email"
phone = "phone"
credit = { column = "credit_cents", unit = "0.01" }
street = "street"
city = "city"

[[table]]
name = "public.party"
place = "sites"
entity = "site"
key = ["id"]
where = "kind = 'site'"
allocate = "uuid"
[table.fields]
account = { column = "belongs_to", reference = "account", place = "public.party" }
label = "title"
"""
TRANSACTIONS = 120


@pytest.fixture(params=["servers", "files"])
def parties(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    files = {"servers": frozenset[str](), "files": frozenset(("crm", "fsm", "erp"))}[request.param]
    mapping = MAPPING.replace("public.", "") if files else MAPPING
    made = Field(
        postgres_server, tmp_path, f"filters_{request.param}", files=files, shapes={"crm": Shape(SCHEMA, mapping)}
    )
    with made.standing():
        yield made


@dataclass
class Clerk:
    """A user of the CRM. `customers`, `sites`: ids of those ever entered."""

    rng: random.Random
    crm: Application
    customers: list[str] = default(default_factory=lambda: [])
    sites: list[str] = default(default_factory=lambda: [])

    def work(self) -> None:
        """One transaction of one to three statements."""
        with self.crm.transaction():
            for _ in range(self.rng.choice((1, 1, 2, 3))):
                self._step()

    def _step(self) -> None:
        what = self.rng.random()
        if not self.customers or what < 0.15:
            id = f"p{len(self.customers)}"
            self.crm.run(
                "insert into party (id, kind, title, email) values (?, 'customer', ?, ?)",
                id,
                f"T {id}",
                f"{id}@example.org",
            )
            self.customers.append(id)
        elif what < 0.25:
            id = f"s{len(self.sites)}"
            owner = self.rng.choice(self.customers)
            self.crm.run(
                "insert into party (id, kind, belongs_to, title) values (?, 'site', ?, ?)", id, owner, f"L {id}"
            )
            self.sites.append(id)
        elif what < 0.55:
            id = self.rng.choice(self.customers)
            self.crm.run(
                "update party set kind = case kind when 'customer' then 'prospect' else 'customer' end where id = ?", id
            )
        elif what < 0.65 and self.sites:
            id = self.rng.choice(self.sites)
            self.crm.run("update party set kind = case kind when 'site' then 'plan' else 'site' end where id = ?", id)
        else:
            id, column = self.rng.choice(self.customers), self.rng.choice(("title", "phone", "city"))
            self.crm.run(f"update party set {column} = ? where id = ?", f"crm {self.rng.random()}", id)


def test_a_row_that_takes_no_part_is_left_alone_and_brought_up_to_date_when_it_does_again(parties: Field) -> None:
    assert parties.concord("setup").returncode == 0
    with parties.application("crm") as crm, parties.application("fsm") as fsm:
        crm.run("insert into party (id, kind, title, phone, city) values ('p', 'customer', 'Kiln', '1', 'Ash')")
        parties.settle()
        crm.run("update party set kind = 'prospect' where id = 'p'")
        parties.settle()
        fsm.run("update client set tel = '2'")
        parties.settle()
        assert crm.run("select phone from party") == [("1",)], "a row that takes no part is not ours to write"
        crm.run("update party set kind = 'customer', city = 'Oak' where id = 'p'")
        parties.settle()
        assert crm.run("select kind, title, phone, city from party") == [("customer", "Kiln", "2", "Oak")]
        assert fsm.run("select title, tel, addr_city from client") == [("Kiln", "2", "Oak")]
    assert parties.concord("compare").returncode == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_that_leave_and_come_back_are_the_same_records(parties: Field, seed: int) -> None:
    rng = random.Random(seed)
    ready = parties.concord("setup")
    assert ready.returncode == 0, ready.stderr
    daemon = parties.start_daemon("--log-level", "warning", is_awaited=True)
    with parties.application("crm") as crm, parties.application("fsm") as fsm:
        clerk = Clerk(rng, crm)
        for _ in range(TRANSACTIONS):
            clerk.work()
            if rng.random() < 0.5:
                clients = fsm.run("select client_no from client order by client_no")
                if clients:
                    column, (number,) = rng.choice(("tel", "addr_city", "title")), rng.choice(clients)
                    fsm.run(f"update client set {column} = ? where client_no = ?", f"fsm {rng.random()}", number)
            time.sleep(rng.random() * 0.03)
        # Whoever is a prospect in the end would be compared with nobody.
        crm.run("update party set kind = 'customer' where kind = 'prospect'")
        crm.run("update party set kind = 'site' where kind = 'plan'")
    assert daemon.poll() is None, parties.log()[-3000:]
    daemon.terminate()
    daemon.wait(60)
    ended = parties.concord("run", "--once", "--log-level", "warning")
    assert ended.returncode == 0, ended.stderr
    compared = parties.concord("compare", "--json")
    assert compared.returncode == 0, compared.stdout[:3000]
    for system in ("fsm", "erp"):
        with parties.application(system) as application:
            counted = application.run("select (select count(*) from client), (select count(*) from place)")
            assert counted == [(len(clerk.customers), len(clerk.sites))], system
    with parties.application("crm") as crm, parties.application("fsm") as fsm:
        columns = "title, email, phone, city"
        customers = crm.run(f"select {columns} from party where kind = 'customer' order by email")
        assert customers == fsm.run("select title, mail, tel, addr_city from client order by mail")


def test_a_row_whose_long_text_is_not_logged_waits_until_it_is_read(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    made = Field(postgres_server, tmp_path, "partial", systems=("crm", "erp"), shapes={"crm": Shape(SCHEMA, MAPPING)})
    with made.standing():
        assert made.concord("setup").returncode == 0
        # Longer than what PostgreSQL keeps in the row, however well it compresses.
        city = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=20_000))
        with made.application("crm") as crm, made.application("erp") as erp:
            crm.run("insert into party (id, kind, title, city) values ('p', 'prospect', 'Kiln', ?)", city)
            crm.run("insert into party (id, kind, title) values ('q', 'customer', 'Ash')")
            made.settle()
            crm.run("update party set kind = 'customer' where id = 'p'")
            made.settle()
            assert erp.run("select title, addr_city from client") == [("Ash", None)]
            (parked,) = json.loads(made.concord("parked", "list", "--json").stdout)["items"]
            assert "does not tell its city" in parked["message"]
            assert made.concord("backfill", "crm").returncode == 0
            made.settle()
            assert erp.run("select title, addr_city from client order by title") == [("Ash", None), ("Kiln", city)]
            # While it takes no part it is edited, and comes back by a change that does not tell.
            crm.run("update party set kind = 'prospect' where id = 'p'")
            crm.run("update party set city = ? where id = 'p'", city[::-1])
            crm.run("update party set kind = 'customer' where id = 'p'")
            made.settle()
            assert made.concord("backfill", "crm").returncode == 0
            made.settle()
            assert erp.run("select addr_city from client where title = 'Kiln'") == [(city[::-1],)]
        assert made.concord("parked", "list").returncode == 0
        assert made.concord("compare").returncode == 0
