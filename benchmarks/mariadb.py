"""A MariaDB as the source: the table of `workloads`, the same rows written by procedures in the server, its contents.

Values are those of the PostgreSQL source, so `Shop.contents` is what `servers.read_contents` gives of an equal table.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from benchmarks.latency import Plan
from benchmarks.servers import Contents
from benchmarks.workloads import SCATTER, Workload
from engine.testing.mariadb import MariadbServer

PASSWORD: Final = "bench"
OPTIONS: Final = {
    # How fast a source commits is not measured, so it does not wait for its disk; PostgreSQL's writers do not either.
    "innodb-buffer-pool-size": "512M",
    "innodb-log-file-size": "512M",
    "max-binlog-size": "1G",
}
TABLE: Final = """
create table bench (
  id bigint primary key,
  name varchar(100) not null,
  email varchar(100) not null,
  note text,
  quantity integer not null,
  price decimal(12,2) not null,
  is_active bit(1) not null,
  updated_at timestamp(6) not null default '2000-01-01',
  due_on date not null
) default character set utf8mb4
"""
# What `workloads` makes of a row's number i.
_ROW: Final = """
    i,
    concat(if(mixed and i mod 10 = 3, 'Müller & Söhne ', 'Customer '), i),
    concat('contact', i, '@customer.example'),
    if(mixed and i mod 10 = 7, null, concat('visited twice, asked for an offer, file ', md5(i))),
    i mod 1000,
    (i mod 100000) / 100,
    i mod 3 = 0,
    timestamp '2024-01-01 00:00:00' + interval i * 1250000 microsecond,
    date '2024-01-01' + interval i mod 365 day
"""
INSERT: Final = f"""
create procedure bench_insert(first bigint, last bigint, step bigint, mixed boolean)
begin
  declare i bigint default first;
  set autocommit = 0;
  while i <= last do
    insert into bench values ({_ROW});
    if (i - first + 1) mod step = 0 or i = last then
      commit;
    end if;
    set i = i + 1;
  end while;
  set autocommit = 1;
end
"""
UPDATE: Final = f"""
create procedure bench_update(total bigint, step bigint)
begin
  declare i bigint default 1;
  set autocommit = 0;
  while i <= total do
    update bench set quantity = quantity + 1, price = price + 1.01, updated_at = updated_at + interval 1 hour
      where id = (i * {SCATTER}) mod total + 1;
    if i mod step = 0 or i = total then
      commit;
    end if;
    set i = i + 1;
  end while;
  set autocommit = 1;
end
"""
# As PostgreSQL's COPY spells the row.
_SPELLED: Final = """
select concat_ws('\\t', id, name, email, ifnull(note, '\\\\N'), quantity, price, if(is_active, 't', 'f'),
  concat(date_format(updated_at, '%Y-%m-%d %H:%i:%s'),
    trim(trailing '.' from trim(trailing '0' from date_format(updated_at, '.%f'))), '+00'), due_on)
from bench order by id
"""
_names = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One database with the empty table, and a user for each of its readers."""

    server: MariadbServer
    name: str

    def preload(self, workload: Workload, rows: int) -> None:
        """What must be there before the workload is written: the rows that it updates."""
        if workload.updates:
            self._call("bench_insert", 1, rows, 1000, workload.mixed)

    def write(self, workload: Workload, rows: int) -> None:
        """Commit the workload."""
        if workload.updates:
            self._call("bench_update", rows, workload.transaction_rows)
        else:
            self._call("bench_insert", 1, rows, workload.transaction_rows, workload.mixed)

    def write_at_once(self, rows: int) -> None:
        """Insert rows by one statement: the log then has as many of them in an event as fit."""
        numbers = f"select seq as i, false as mixed from seq_1_to_{rows}"
        with _connect(self) as connection, connection.cursor() as cursor:
            cursor.execute(f"insert into bench select {_ROW} from ({numbers}) numbers")

    def write_end(self, number: int) -> int:
        """Commit one more row behind everything written so far. Returns its id, which is negative."""
        end = "'end', 'end', 'end', 0, 0, 0, current_timestamp(6), current_date"
        self.server.execute(f"insert into bench values ({-number}, {end})", database=self.name)
        return -number

    def contents(self) -> Contents:
        digest = hashlib.sha256()
        rows = 0
        with _connect(self, cursorclass=pymysql.cursors.SSCursor) as connection, connection.cursor() as cursor:
            cursor.execute(_SPELLED)
            for (text,) in cursor:
                digest.update(text.encode() + b"\n")
                rows += 1
        return Contents(rows=rows, sha256=digest.hexdigest())

    @contextmanager
    def writer(self, plan: Plan, began: dict[int, float]) -> Generator[Callable[[int], None]]:
        """Commits change after change; puts into `began` when each was handed to the server, by the row's id.

        The log of MariaDB 10.11 has no commit time finer than a second, so a change is timed from there: the server's
        commit is in its latency.
        """
        with _connect(self) as connection, connection.cursor() as cursor:

            def write(number: int) -> None:
                id = plan.id_of(number)
                began[id] = time.time()
                if plan.is_insert(number):
                    cursor.execute(_INSERT_ONE, (id,))
                else:
                    cursor.execute(_UPDATE_ONE, (id,))

            yield write

    def _call(self, procedure: str, *arguments: int) -> None:
        with _connect(self) as connection, connection.cursor() as cursor:
            cursor.callproc(procedure, arguments)


_INSERT_ONE: Final = (
    "insert into bench values"
    " (%s, 'Customer', 'contact@customer.example', 'a call', 1, 10.5, 1, current_timestamp(6), current_date)"
)
_UPDATE_ONE: Final = "update bench set quantity = quantity + 1, updated_at = current_timestamp(6) where id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """The connection by which a user reads the log as a replica."""

    server: MariadbServer
    user: str

    def reading_since(self) -> float | None:
        """When it began to, seconds since 1970; None while nobody reads."""
        found = self._dumps("time_ms")
        return time.time() - float(str(found[0])) / 1000 if found else None

    def release(self) -> None:
        """End what the server still holds for a reader that has gone: it notices at the next event only."""
        for connection in self._dumps("id"):
            # It may have noticed meanwhile.
            with contextlib.suppress(pymysql.err.OperationalError):
                self.server.execute(f"kill connection {connection}")

    def _dumps(self, column: str) -> list[object]:
        found = self.server.execute(
            f"select {column} from information_schema.processlist"
            f" where command = 'Binlog Dump' and user = '{self.user}'"
        )
        return [row[0] for row in found]


@contextmanager
def fresh_shop(server: MariadbServer) -> Generator[Shop]:
    """A new database; dropped at the end."""
    shop = Shop(server=server, name=f"bench_{next(_names)}")
    server.execute(f"create database {shop.name}")
    try:
        server.execute(TABLE, INSERT, UPDATE, database=shop.name)
        yield shop
    finally:
        server.execute(f"drop database {shop.name}")


def make_user(server: MariadbServer, user: str) -> None:
    """One who may read everything, rows and log."""
    server.execute(
        f"create or replace user {user}@'%' identified by '{PASSWORD}'", f"grant all privileges on *.* to {user}@'%'"
    )


@contextmanager
def _connect(shop: Shop, **options: Any) -> Generator[Any]:
    connection: Any = pymysql.Connection(
        ssl_disabled=True,
        unix_socket=str(shop.server.socket_path),
        user="root",
        database=shop.name,
        charset="utf8mb4",
        autocommit=True,
        init_command="set time_zone = '+00:00'",
        **options,
    )
    with connection:
        yield connection
