"""PostgreSQL's own logical replication as a consumer: a publication at the source, a subscription at the target.

The subscription is what `create subscription` makes without options, but that it copies no rows and does not start by
itself. Its defaults matter for a comparison: one apply worker; `synchronous_commit = off`, so the worker's commits do
not wait for the target's disk, which is safe because it confirms to the source only what has been flushed;
`streaming = parallel` since PostgreSQL 18.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

from benchmarks.consumer import POLL_SECONDS, RunVoid, Usage, read_usage
from benchmarks.servers import Databases, slot_is_active

NAME: Final = "native"
STOP_SECONDS_MAX: Final = 60.0


@dataclass(slots=True, kw_only=True)
class Native:
    """A subscription, made and not enabled."""

    source_dsn: str
    target_dsn: str
    slot: str
    name: str = NAME

    def start(self) -> None:
        self._execute(f"alter subscription {self.slot} enable")

    def stop(self) -> None:
        self._execute(f"alter subscription {self.slot} disable")
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while slot_is_active(self.source_dsn, self.slot):
            if time.monotonic() > deadline:
                raise RunVoid("the apply worker does not end")
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        with psycopg.connect(self.target_dsn, autocommit=True) as connection:
            row = connection.execute(
                "select apply_error_count from pg_stat_subscription_stats where subname = %s", (self.slot,)
            ).fetchone()
        if row is not None and row[0]:
            raise RunVoid("the apply worker has failed; see the target server's log")

    def usage(self) -> Usage:
        with psycopg.connect(self.target_dsn, autocommit=True) as connection:
            # Workers that copy a table have a relid, parallel ones a leader; both are told apart from 16 on only.
            leader = " and leader_pid is null" if connection.info.server_version >= 16_00_00 else ""
            row = connection.execute(
                f"select pid from pg_stat_subscription where subname = %s and relid is null{leader}".encode(),
                (self.slot,),
            ).fetchone()
        if row is None or row[0] is None:
            raise RunVoid("there is no apply worker")
        return read_usage(row[0])

    def drop(self) -> None:
        """Remove the subscription with its slot."""
        self._execute(f"drop subscription if exists {self.slot}")

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self.target_dsn, autocommit=True) as connection:
            connection.execute(sql.encode())


@contextmanager
def native_consumer(databases: Databases, *, synchronous: bool = False) -> Generator[Native]:
    """Publish and subscribe. `synchronous`: the apply worker's commits wait for the target's disk."""
    # Names of slots are the server's, not the database's.
    slot = f"native_{databases.name}"
    source, target = databases.source_dsn, databases.target_dsn(NAME)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f"create publication {slot} for table public.bench".encode())
    commit = "on" if synchronous else "off"
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(
            f"create subscription {slot} connection '{source}' publication {slot}"
            f" with (enabled = false, create_slot = true, copy_data = false, synchronous_commit = '{commit}')".encode()
        )
    consumer = Native(source_dsn=source, target_dsn=target, slot=slot)
    try:
        yield consumer
    finally:
        consumer.drop()
