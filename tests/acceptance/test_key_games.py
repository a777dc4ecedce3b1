"""Goal: what users do to keys within one transaction is followed, not guessed.

Method: while the daemon runs, users of a CRM swap and rotate keys, delete a row and put another in its place, let one
row take over another's key, re-enter a deleted customer under a new number or under the old one, make rows that do not
live to the end of their transaction; users of a field-service system correct telephone numbers meanwhile. In the end
all systems have the CRM's customers, each with its sites, and `concord compare` finds no difference.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as default
from itertools import pairwise
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import CRM_MAPPING, Application, Field, Shape

SCHEMA = """
create table customers (
    id text primary key, company_name text not null, email text unique, phone text, credit_cents bigint,
    street text, city text
);
create table locations (
    id text primary key, customer text not null references customers on update cascade on delete cascade,
    label text not null
);
"""
TRANSACTIONS = 60


@pytest.fixture(params=["file", "server", "files"])
def games(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Field]:
    """The CRM a file among servers, a server among servers and files, a file among files."""
    files = {"file": {"crm"}, "server": {"erp"}, "files": {"crm", "fsm", "erp"}}[request.param]
    mapping = CRM_MAPPING.replace("public.", "") if "crm" in files else CRM_MAPPING
    made = Field(
        postgres_server, tmp_path, f"games_{request.param}", files=frozenset(files),
        shapes={"crm": Shape(SCHEMA, mapping)},
    )  # fmt: skip
    with made.standing():
        yield made


@dataclass
class Player:
    """A user of the CRM who plays with keys. `keys`: of the rows that are there."""

    rng: random.Random
    crm: Application
    keys: list[str] = default(default_factory=lambda: [])
    serial: int = 0

    def play(self) -> None:
        games = [self.enter, self.swap, self.rotate, self.replace, self.take_over, self.enter_again, self.flash]
        with self.crm.transaction():
            for _ in range(self.rng.choice((1, 1, 2))):
                game = self.rng.choice(games) if len(self.keys) > 4 else self.enter
                game()

    def enter(self) -> None:
        key = self._new_key()
        self._insert(key)
        self.keys.append(key)

    def swap(self) -> None:
        self._move(self.rng.sample(self.keys, 2))

    def rotate(self) -> None:
        self._move(self.rng.sample(self.keys, 3))

    def replace(self) -> None:
        """Another customer in the place of one, under the same key."""
        key = self.rng.choice(self.keys)
        self.crm.run("delete from customers where id = ?", key)
        self._insert(key)

    def take_over(self) -> None:
        """One customer goes, another gets its key; and its own key is given to a new one, at times."""
        gone, kept = self.rng.sample(self.keys, 2)
        self.crm.run("delete from customers where id = ?", gone)
        self._rename(kept, gone)
        if self.rng.random() < 0.5:
            self._insert(kept)
        else:
            self.keys.remove(kept)

    def enter_again(self) -> None:
        """The same customer, deleted and entered again under the old key or a new one."""
        key = self.rng.choice(self.keys)
        ((email,),) = self.crm.run("select email from customers where id = ?", key)
        self.crm.run("delete from customers where id = ?", key)
        self.keys.remove(key)
        key = self.rng.choice((key, self._new_key()))
        self._insert(key, str(email))
        self.keys.append(key)

    def flash(self) -> None:
        """A row that does not live to the end of the transaction, under a key that another row had before it."""
        key, other = self.rng.choice(self.keys), self._new_key()
        self._rename(key, other)
        self._insert(key)
        self.crm.run("update customers set phone = ? where id = ?", str(self.serial), key)
        self.crm.run("delete from customers where id = ?", key)
        if self.rng.random() < 0.5:
            self._rename(other, key)
        else:
            self.keys[self.keys.index(key)] = other

    def _move(self, keys: list[str]) -> None:
        """Each row gets the key of the one before it; in between, one of them has none of these."""
        self._rename(keys[0], "between")
        for to, old in pairwise(keys):
            self._rename(old, to)
        self._rename("between", keys[-1])

    def _rename(self, old: str, new: str) -> None:
        self.crm.run("update customers set id = ? where id = ?", new, old)

    def _insert(self, key: str, email: str | None = None) -> None:
        self.serial += 1
        values = (f"company {self.serial}", email or f"c{self.serial}@example.org", f"+1 {self.serial}")
        self.crm.run("insert into customers (id, company_name, email, phone) values (?, ?, ?, ?)", key, *values)
        for n in range(self.rng.randrange(3)):
            self.crm.run("insert into locations values (?, ?, ?)", f"s{self.serial}-{n}", key, f"{self.serial}/{n}")

    def _new_key(self) -> str:
        self.serial += 1
        return f"k{self.serial}"


def contents(field: Field, system: str) -> list[tuple[object, ...]]:
    """Every customer with each of its sites, by what they are called everywhere."""
    names = ("company_name", "customers", "locations", "id", "customer")
    if system != "crm":
        names = ("title", "client", "place", "client_no", "client_no")
    name, account, site, key, reference = names
    email, phone = ("email", "phone") if system == "crm" else ("mail", "tel")
    with field.application(system) as application:
        found = application.run(
            f"select a.{name}, a.{email}, a.{phone}, s.label from {account} a"
            f" left join {site} s on s.{reference} = a.{key}"
        )
    return sorted(found, key=repr)


@pytest.mark.parametrize("seed", [6, 11])
def test_systems_agree_whatever_is_done_to_keys(games: Field, seed: int) -> None:
    assert games.concord("setup").returncode == 0
    rng = random.Random(seed)
    daemon = games.start_daemon("--log-level", "warning", is_awaited=True)
    with games.application("crm") as crm, games.application("fsm") as fsm:
        player = Player(rng, crm)
        for n in range(TRANSACTIONS):
            player.play()
            if rng.random() < 0.3:
                fsm.run(
                    "update client set tel = ? where client_no = (select min(client_no) from client where mail > ?)",
                    f"+2 {n}", f"c{rng.randrange(1, player.serial + 1)}",
                )  # fmt: skip
            time.sleep(rng.choice((0, 0, 0.02, 0.1)))
    daemon.terminate()
    # 143: it was still at work, which is done below.
    assert daemon.wait(60) in (0, 143), games.log()[-3000:]
    ended = games.concord("run", "--once", "--log-level", "warning")
    assert ended.returncode == 0, ended.stderr
    wanted = contents(games, "crm")
    assert len({row[1] for row in wanted}) == len(player.keys) > 4
    for system in ("fsm", "erp"):
        assert contents(games, system) == wanted, (system, games.concord("parked", "list").stdout)
    compared = games.concord("compare", "--json")
    assert compared.returncode == 0, compared.stdout[-3000:]
