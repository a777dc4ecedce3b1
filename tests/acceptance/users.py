"""Users of a field's systems who write at random while the daemon is being killed, and the accounts of what they wrote.

Every write sets a value that occurs nowhere else and notes, in the same transaction, which value it replaced. So it can
be told afterwards, apart from Concord, whether a value was lost in silence: it is in the ancestry of a final value or
of a conflict, or it was.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as default

import psycopg
import pymysql

from tests.acceptance.field import Application, Field

TABLES = {
    "crm": ("customers", "id", ("company_name", "email", "phone", "street", "city")),
    "fsm": ("client", "client_no", ("title", "mail", "tel", "addr_street", "addr_city")),
    "erp": ("client", "client_no", ("title", "mail", "tel", "addr_street", "addr_city")),
    "portal": ("client", "client_no", ("title", "mail", "tel", "addr_street", "addr_city")),
}
STARTED = "daemon.started"
MARIADB_DEADLOCK = 1213
START_SECONDS_MAX = 60.0


@dataclass
class User:
    """One system's users: inserts and updates at random until told to stop."""

    field: Field
    system: str
    seed: int
    created: int = 0
    serial: int = 0
    parent: dict[str, str | None] = default(default_factory=lambda: {})
    """Value → the one it replaced."""
    failure: psycopg.Error | sqlite3.Error | pymysql.Error | None = None
    seconds_max: float = 0.0
    """The longest that a transaction took, waiting included."""
    is_stopping: threading.Event = default(default_factory=threading.Event)

    def run(self) -> None:
        rng = random.Random(self.seed)
        try:
            with self.field.application(self.system) as application:
                while not self.is_stopping.is_set():
                    self.work(application, rng)
                    time.sleep(rng.random() * 0.02)
        except (psycopg.Error, sqlite3.Error, pymysql.Error) as error:
            self.failure = error

    def work(self, application: Application, rng: random.Random) -> None:
        """One transaction."""
        pending: dict[str, str | None] = {}
        created = 0
        began = time.monotonic()
        try:
            with application.transaction():
                for _ in range(rng.choice((1, 1, 1, 3))):
                    created += self._write(application, rng, pending)
        except (psycopg.errors.DeadlockDetected, pymysql.err.OperationalError) as error:
            if isinstance(error, pymysql.Error) and error.args[0] != MARIADB_DEADLOCK:
                raise
            # With a delivery, or so it may be: an application tries again. SQLite's wait for one lock and have none.
            return
        self.seconds_max = max(self.seconds_max, time.monotonic() - began)
        self.parent.update(pending)
        self.created += created

    def _value(self) -> str:
        self.serial += 1
        return f"{self.system}{self.serial}"

    def _write(self, application: Application, rng: random.Random, pending: dict[str, str | None]) -> int:
        """One insert or update; returns how many accounts it made."""
        table, key, columns = TABLES[self.system]
        if rng.random() < 0.15:
            values = [self._value() for _ in columns]
            values[1] += "@example.org"
            pending.update(dict.fromkeys(values))
            names = ", ".join(columns)
            if self.system == "crm":
                names, values = f"id, {names}", [f"crm-{self.serial}", *values]
            application.run(f"insert into {table} ({names}) values ({', '.join('?' * len(values))})", *values)
            return 1
        anyone = f"order by {application.random} limit 1{application.for_update}"
        rows = application.run(f"select {key}, {', '.join(columns)} from {table} {anyone}")
        if not rows:
            return 0
        index = rng.choice((0, 2, 3, 4))
        value = self._value()
        application.run(f"update {table} set {columns[index]} = ? where {key} = ?", value, rows[0][0])
        # A value that the same transaction has set is replaced in it: nobody else ever sees it.
        pending[value] = rows[0][1 + index]
        return 0


@contextmanager
def writing(users: list[User]) -> Generator[None]:
    """All of them at work as long as the block lasts."""
    threads = [threading.Thread(target=user.run) for user in users]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for user in users:
            user.is_stopping.set()
        for thread in threads:
            thread.join()


def collide(users: list[User]) -> None:
    """Each of them works for a while, one after the other."""
    for user in users:
        rng = random.Random(user.serial)
        with user.field.application(user.system) as application:
            for _ in range(40):
                user.work(application, rng)


def kill_repeatedly(field: Field, rng: random.Random, kills: int) -> None:
    """Start the daemon and kill it at a random moment, over and over: while it starts, or when it is at work."""
    for n in range(kills):
        starts = field.log().count(STARTED)
        daemon = field.start_daemon()
        time.sleep(0.4 + rng.random() * 1.2)
        deadline = time.monotonic() + START_SECONDS_MAX
        while n % 3 and field.log().count(STARTED) == starts and time.monotonic() < deadline:
            # On a busy machine all kills might come too early for anything to go wrong.
            time.sleep(0.01 + rng.random())
        assert daemon.poll() is None, f"ended with {daemon.returncode}: {field.log()[-3000:]}"
        daemon.kill()
        daemon.wait()


def check_no_doubles(field: Field, users: list[User]) -> None:
    """Every system has the accounts that were made, each once."""
    created = sum(user.created for user in users)
    for system in field.systems:
        with field.application(system) as application:
            count = application.run(f"select count(*) from {TABLES[system][0]}")
        assert count == [(created,)], f"{system} has {count[0][0]} accounts, {created} were made"


def check_every_value_accounted(field: Field, users: list[User]) -> None:
    """Every value ever written is in the ancestry of a final value or of a conflict."""
    parent: dict[str, str | None] = {}
    for user in users:
        parent.update(user.parent)
    roots: list[object] = []
    table, _, columns = TABLES["crm"]
    with field.application("crm") as application:
        for row in application.run(f"select {', '.join(columns)} from {table}"):
            roots.extend(row)
    listed = json.loads(field.concord("conflicts", "--limit", "1000000", "--json").stdout)
    assert listed["items"], "users so close together must collide"
    for conflict in listed["items"]:
        roots.extend(conflict["winner_values"])
        roots.extend(conflict["loser_values"])
    accounted: set[str] = set()
    for root in roots:
        value = root if isinstance(root, str) else None
        while value is not None and value not in accounted:
            accounted.add(value)
            value = parent.get(value)
    lost = sorted(set(parent) - accounted)
    assert not lost, f"{len(lost)} of {len(parent)} values lost in silence: {lost[:10]}"
