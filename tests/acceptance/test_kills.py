"""Goal: whatever is killed when, nothing is lost, doubled or echoed, and every value that lost is on record.

Method: three PostgreSQL systems, each with its own shape and a concurrent writer of its own, and the daemon as a
process that gets SIGKILL at random moments, over and over. Every write sets a value that occurs nowhere else and notes,
in the same transaction, which value it replaced. When the writers have stopped and the daemon has run to its end once:
all systems agree, no account is there twice, and every value ever written is in the ancestry of a final value or of a
conflict.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass
from dataclasses import field as default

import psycopg

from tests.acceptance.field import Field

KILLS = 30
TABLES = {
    "crm": ("customers", "id", ("company_name", "email", "phone", "street", "city")),
    "fsm": ("client", "client_no", ("title", "mail", "tel", "addr_street", "addr_city")),
    "erp": ("client", "client_no", ("title", "mail", "tel", "addr_street", "addr_city")),
}


@dataclass
class Writer:
    """One system's users: inserts and updates at random until told to stop."""

    field: Field
    system: str
    seed: int
    created: int = 0
    serial: int = 0
    parent: dict[str, str | None] = default(default_factory=lambda: {})
    failure: psycopg.Error | None = None
    is_stopping: threading.Event = default(default_factory=threading.Event)

    def run(self) -> None:
        rng = random.Random(self.seed)
        try:
            with self.field.connect(self.system) as connection:
                while not self.is_stopping.is_set():
                    pending: dict[str, str | None] = {}
                    created = 0
                    try:
                        with connection.transaction():
                            for _ in range(rng.choice((1, 1, 1, 3))):
                                created += self._write(connection, rng, pending)
                    except psycopg.errors.DeadlockDetected:
                        # With a delivery, or so it may be: an application tries again.
                        continue
                    self.parent.update(pending)
                    self.created += created
                    time.sleep(rng.random() * 0.02)
        except psycopg.Error as error:
            self.failure = error

    def _value(self) -> str:
        self.serial += 1
        return f"{self.system}{self.serial}"

    def _write(
        self, connection: psycopg.Connection[tuple[object, ...]], rng: random.Random, pending: dict[str, str | None]
    ) -> int:
        """One insert or update; returns how many accounts it made."""
        table, key, columns = TABLES[self.system]
        if rng.random() < 0.15:
            values = [self._value() for _ in columns]
            values[1] += "@example.org"
            names = ", ".join(columns)
            marks = ", ".join(["%s"] * len(columns))
            if self.system == "crm":
                names, marks, values = f"id, {names}", f"%s, {marks}", [f"crm-{self.serial}", *values]
            connection.execute(f"insert into {table} ({names}) values ({marks})".encode(), values)
            pending.update(dict.fromkeys(values[1:] if self.system == "crm" else values))
            return 1
        row = connection.execute(
            f"select {key}, {', '.join(columns)} from {table} order by random() limit 1 for update".encode()
        ).fetchone()
        if row is None:
            return 0
        index = rng.choice((0, 2, 3, 4))
        value = self._value()
        connection.execute(f"update {table} set {columns[index]} = %s where {key} = %s".encode(), (value, row[0]))
        replaced = row[1 + index]
        pending[value] = replaced if isinstance(replaced, str) else None
        return 0


def test_thirty_kills_lose_and_double_nothing(field: Field) -> None:
    rng = random.Random(4711)
    assert field.concord("setup").returncode == 0
    writers = [Writer(field, system, n) for n, system in enumerate(field.systems)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    kills = 0
    try:
        while kills < KILLS:
            daemon = field.start_daemon("--log-level", "warning")
            time.sleep(0.4 + rng.random() * 1.2)
            assert daemon.poll() is None, field.log()[-3000:]
            daemon.kill()
            daemon.wait()
            kills += 1
    finally:
        for writer in writers:
            writer.is_stopping.set()
        for thread in threads:
            thread.join()
    assert [writer.failure for writer in writers] == [None] * 3
    ended = field.concord("run", "--once", "--log-level", "warning")
    assert ended.returncode == 0, ended.stderr
    compared = field.concord("compare", "--json")
    assert compared.returncode == 0, compared.stdout[:3000]
    journal = json.loads(field.concord("status", "--json").stdout)["journal"]
    assert journal > 50 * len(writers), "the daemon never got to work between the kills"
    _check_no_doubles(field, sum(writer.created for writer in writers))
    _check_every_value_accounted(field, writers)


def _check_no_doubles(field: Field, created: int) -> None:
    for system in field.systems:
        with field.connect(system) as connection:
            count = connection.execute(f"select count(*) from {TABLES[system][0]}".encode()).fetchone()
        assert count == (created,), f"{system} has {count} accounts, {created} were made"


def _check_every_value_accounted(field: Field, writers: list[Writer]) -> None:
    parent: dict[str, str | None] = {}
    for writer in writers:
        parent.update(writer.parent)
    roots: list[object] = []
    with field.connect("crm") as connection:
        rows = connection.execute("select company_name, email, phone, street, city from customers").fetchall()
        roots.extend(value for row in rows for value in row)
    listed = json.loads(field.concord("conflicts", "--limit", "1000000", "--json").stdout)
    assert listed["items"], "writers so close together must collide"
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
