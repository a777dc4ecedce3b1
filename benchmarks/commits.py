"""When a PostgreSQL committed rows that its apply worker wrote: its commit timestamps keep the source's instead.

The write-ahead log has both (`xact_time` of the commit record, and the origin's), and pg_waldump prints them.
"""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime

import psycopg

from benchmarks.consumer import RunVoid
from benchmarks.latency import Plan
from engine.testing.postgres import PostgresServer

_COMMIT = re.compile(r"tx: +(\d+),.* desc: COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")


def log_end(dsn: str) -> str:
    """Where the log ends now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    if row is None:
        raise LookupError("the server has no log")
    return row[0]


def commits_in_log(server: PostgresServer, dsn: str, since: str, plan: Plan) -> dict[int, float]:
    """When the rows of the plan were committed at this server, whoever committed them first elsewhere; seconds since
    1970, by id. `since`: an end of the log before the first of them."""
    command = [server.bin_directory / "pg_waldump", "-p", server.directory / "data" / "pg_wal", "-r", "Transaction"]
    printed = subprocess.run(
        [*command, "-s", since, "-e", log_end(dsn)], capture_output=True, text=True, env={"TZ": "UTC"}
    )
    if printed.returncode:
        raise RunVoid(f"pg_waldump failed: {printed.stderr[-1000:]}")
    times = {xid: _seconds(text) for xid, text in _COMMIT.findall(printed.stdout)}
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select id, xmin::text from public.bench where id between 1 and %s", (2 * plan.changes,)
        ).fetchall()
    return {id: times[xid] for id, xid in rows if xid in times}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
