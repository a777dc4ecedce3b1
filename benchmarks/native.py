"""PostgreSQL's own logical replication as a consumer: a publication at the source, a subscription at the target.

The subscription is what `create subscription` makes without options, but that it copies no rows and does not start by
itself. Its defaults matter for a comparison: one apply worker; `synchronous_commit = off`, so the worker's commits do
not wait for the target's disk, which is safe because it confirms to the source only what has been flushed;
`streaming = parallel` since PostgreSQL 18.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

from benchmarks.consumer import RunVoid, Usage, read_usage, wait_stopped
from benchmarks.servers import Databases, Slot

NAME: Final = "native"
STOP_SECONDS_MAX: Final = 60.0


@dataclass(slots=True, kw_only=True)
class Native:
    """A subscription, made and not enabled."""

    slot: Slot
    target_dsn: str
    name: str = NAME

    def reading_since(self) -> float | None:
        return self.slot.reading_since()

    def start(self) -> None:
        self._execute(f"alter subscription {self.slot.name} enable")

    def stop(self) -> None:
        self._execute(f"alter subscription {self.slot.name} disable")
        wait_stopped(self, STOP_SECONDS_MAX)

    def check(self) -> None:
        with psycopg.connect(self.target_dsn, autocommit=True) as connection:
            row = connection.execute(
                "select apply_error_count from pg_stat_subscription_stats where subname = %s", (self.slot.name,)
            ).fetchone()
        if row is not None and row[0]:
            raise RunVoid("the apply worker has failed; see the target server's log")

    def usage(self) -> Usage:
        with psycopg.connect(self.target_dsn, autocommit=True) as connection:
            # Workers that copy a table have a relid, parallel ones a leader; both are told apart from 16 on only.
            leader = " and leader_pid is null" if connection.info.server_version >= 16_00_00 else ""
            row = connection.execute(
                f"select pid from pg_stat_subscription where subname = %s and relid is null{leader}".encode(),
                (self.slot.name,),
            ).fetchone()
        if row is None or row[0] is None:
            raise RunVoid("there is no apply worker")
        return read_usage(row[0])

    def drop(self) -> None:
        """Remove the subscription with its slot."""
        self._execute(f"drop subscription if exists {self.slot.name}")

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
    consumer = Native(slot=Slot(dsn=source, name=slot), target_dsn=target)
    try:
        yield consumer
    finally:
        consumer.drop()
