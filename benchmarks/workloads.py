"""The table, and what is written to it: the same statements for every consumer, run inside the source server.

A workload is written by one procedure call, so the writer costs no round trips and a backlog of some 100,000
transactions is there in seconds. Values are made from the row's number alone: two runs write the same rows. What reads
the log is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString

import psycopg

TABLE: Final = "public.bench"
COLUMNS: Final = ("id", "name", "email", "note", "quantity", "price", "is_active", "updated_at", "due_on")

DDL: Final = """
create table public.bench (
  id bigint primary key,
  name text not null,
  email text not null,
  note text,
  quantity integer not null,
  price numeric(12,2) not null,
  is_active boolean not null,
  updated_at timestamptz not null,
  due_on date not null
)
"""

# Multiplied with the row's number modulo the number of rows it visits every row once, in no order: 7919 is a prime,
# and no number of rows in use is a multiple of it.
SCATTER: Final = 7919

# Every tenth row of `mixed` has no note and every tenth a name outside ASCII: rows which a decoder tuned for the usual
# row does not like.
_ROW: Final[LiteralString] = """
  i,
  case when mixed and i % 10 = 3 then 'Müller & Söhne ' else 'Customer ' end || i,
  'contact' || i || '@customer.example',
  case when mixed and i % 10 = 7 then null else 'visited twice, asked for an offer, file ' || md5(i::text) end,
  (i % 1000)::int,
  ((i % 100000)::numeric / 100)::numeric(12,2),
  i % 3 = 0,
  timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second 250 milliseconds',
  date '2024-01-01' + (i % 365)::int
"""

_INSERT: Final[LiteralString] = """
create procedure bench_insert(first bigint, last bigint, step bigint, mixed boolean) language plpgsql as $$
declare
  a bigint := first;
begin
  while a <= last loop
    insert into public.bench select %s from generate_series(a, least(a + step - 1, last)) i;
    commit;
    a := a + step;
  end loop;
end $$
"""

_UPDATE: Final = f"""
create procedure bench_update(total bigint, step bigint, first bigint, last bigint) language plpgsql as $$
declare
  a bigint := first;
begin
  while a <= last loop
    update public.bench set quantity = quantity + 1, price = price + 1.01, updated_at = updated_at + interval '1 hour'
    where id = (a * {SCATTER}) % total + 1;
    if a % step = 0 or a = last then
      commit;
    end if;
    a := a + 1;
  end loop;
end $$
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is written. `transaction_rows`: rows in one source transaction. `updates`: existing rows, each key once.

    Once, because a consumer that writes only a record's newest state would be spared the rest, which is a merit of
    another kind and would flatter it here.
    """

    name: str
    title: str
    transaction_rows: int
    updates: bool = False
    mixed: bool = False


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload(name="insert-1", title="single-row insert transactions", transaction_rows=1),
        Workload(name="insert-100", title="100-row insert transactions", transaction_rows=100),
        Workload(name="update-1", title="updates by key, one a transaction", transaction_rows=1, updates=True),
        Workload(name="update-100", title="updates by key, 100 a transaction", transaction_rows=100, updates=True),
        Workload(
            name="mixed-1",
            title="single-row inserts, a fifth of them with a null or a name outside ASCII",
            transaction_rows=1,
            mixed=True,
        ),
    )
}
USUAL: Final = ("insert-1", "insert-100", "update-1")
"""The workloads of a run that asks for none by name."""


def create_table(dsn: str) -> None:
    """Make the empty table, and at a source what writes to it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(DDL.encode())
        connection.execute((_INSERT % _ROW).encode())
        connection.execute(_UPDATE.encode())


def preload(dsn: str, workload: Workload, rows: int) -> None:
    """What must be there, at the target too, before the workload is written: the rows that it updates."""
    if workload.updates:
        insert_rows(dsn, first=1, last=rows, step=1000, mixed=workload.mixed)


def write(dsn: str, workload: Workload, rows: int) -> None:
    """Commit the workload at the source."""
    if not workload.updates:
        insert_rows(dsn, first=1, last=rows, step=workload.transaction_rows, mixed=workload.mixed)
        return
    if rows % SCATTER == 0:
        raise ValueError(f"the number of rows must be no multiple of {SCATTER}")
    with writer(dsn) as connection:
        connection.execute("call bench_update(%s, %s, 1, %s)", (rows, workload.transaction_rows, rows))


def insert_rows(dsn: str, *, first: int, last: int, step: int, mixed: bool = False) -> None:
    """Insert the rows of these numbers, `step` in a transaction."""
    with writer(dsn) as connection:
        connection.execute("call bench_insert(%s, %s, %s, %s)", (first, last, step, mixed))


def write_end(dsn: str, number: int) -> int:
    """Commit one more row behind everything written so far, and flush the log. Returns its id, which is negative.

    Consumers write in commit order, so a target that has this row has all rows before it.
    """
    id = -number
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(("insert into public.bench select " + _ROW_OF_END).encode(), {"id": id})
    return id


def writer(dsn: str) -> psycopg.Connection:
    """A connection whose commits don't wait for the disk: how fast a source commits is not what is measured."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("set synchronous_commit = off")
    return connection


_ROW_OF_END: Final = "i, 'end', 'end', 'end', 0, 0, false, now(), current_date from (values (%(id)s::bigint)) v (i)"
