"""How long after its commit at the source a change is committed at the target, change by change.

    python -m benchmarks.latency --json

A writer commits single changes at a steady rate, half of them inserts, half updates of rows that are there, each row
touched once. Both servers keep commit timestamps (`track_commit_timestamp`) and share the machine's clock, so each
change's latency is read from the two tables afterwards and nothing disturbs the target meanwhile. A server takes the
timestamp just before it flushes its log: the source's flush is part of the latency, the target's is not, and is
reported beside as `target_flush_ms`.

PostgreSQL's own apply worker keeps the source's timestamps, so it cannot be measured in this way.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
import pymysql

from benchmarks import concord
from benchmarks.concord import concord_consumer
from benchmarks.consumer import Consumer, RunVoid, Usage, bring_up, running, wait_row
from benchmarks.machine import Share, load, machine_facts, read_counters, share_between
from benchmarks.report import common_arguments, percentile, print_report, say, table_of
from benchmarks.servers import Databases, Pair, fresh_databases, read_contents, settle, start_pair
from benchmarks.workloads import COLUMNS, insert_rows, write_end

# Single commits wait for the disk; several writers share its flushes, so the rate does not hang on one flush's time.
WRITERS = 4
FLUSHES = 200
P99_MS_MAX = 100.0

_INSERT = (
    f"insert into public.bench ({', '.join(COLUMNS)}) values"
    " (%(id)s, 'Customer', 'contact@customer.example', 'a call', 1, 10.5, true, now(), current_date)"
)
_UPDATE = "update public.bench set quantity = quantity + 1, updated_at = now() where id = %(id)s"
_COMMITS = (
    "select id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from public.bench where id between %s and %s"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`warm_seconds` are written first and not counted."""

    rate: int
    seconds: float
    warm_seconds: float = 2.0

    @property
    def changes(self) -> int:
        return int(self.rate * (self.seconds + self.warm_seconds))

    @property
    def warm_changes(self) -> int:
        return int(self.rate * self.warm_seconds)

    def is_insert(self, number: int) -> bool:
        """Every other change is an insert, the others update rows that are there."""
        return number % 2 == 0

    def id_of(self, number: int) -> int:
        """The row of a change. Rows 1 to `changes` are there at first; inserts go behind them."""
        return number + 1 + (self.changes if self.is_insert(number) else 0)


@dataclass(slots=True)
class Pace:
    """Open loop: change n is due at its time whether the one before has been committed or not."""

    rate: int
    count: int
    began: float
    numbers: Iterator[int]
    late_seconds_max: float = 0.0

    def wait(self, number: int) -> None:
        """Sleep until change `number` is due."""
        delay = self.began + number / self.rate - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        else:
            self.late_seconds_max = max(self.late_seconds_max, -delay)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void or p99 is not under the limit."""
    options = _parser().parse_args(arguments)
    plan = Plan(rate=options.rate, seconds=options.seconds)
    try:
        with start_pair() as pair:
            document = measure(pair, plan, p99_ms_max=options.limit)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    table = table_of(
        f"{document['changes']:,} changes at {document['rate_achieved']:,.0f} a second",
        ("latency, ms", "p50", "p95", "p99", "greatest"),
        [("commit to commit", *(document["latency_ms"][key] for key in ("p50", "p95", "p99", "max")))],
    )
    print_report(document, [table], as_json=options.json)
    return 1 if document["void"] or not document["is_under_limit"] else 0


def measure(pair: Pair, plan: Plan, *, p99_ms_max: float = P99_MS_MAX) -> dict[str, Any]:
    """The whole run as a document."""
    machine = machine_facts(pair)
    with fresh_databases(pair, (concord.NAME,)) as databases, concord_consumer(databases) as consumer:
        flush = _flush_ms(consumer.target_dsn)
        insert_rows(databases.source_dsn, first=1, last=plan.changes, step=1000)
        bring_up(consumer, write_end(databases.source_dsn, 1))
        settle(databases)
        seconds, late, share, usage = _write(databases, consumer, plan)
        latencies = sorted(_latencies(databases, consumer, plan))
        source, target = read_contents(databases.source_dsn), read_contents(consumer.target_dsn)
    found = {
        "p50": percentile(latencies, 0.50),
        "p95": percentile(latencies, 0.95),
        "p99": percentile(latencies, 0.99),
        "max": latencies[-1],
    }
    return {
        "benchmark": "latency",
        "changes": len(latencies),
        "rate": plan.rate,
        "rate_achieved": round(plan.changes / seconds, 1),
        "writer_late_ms_max": round(late * 1000, 1),
        "latency_ms": {key: round(value * 1000, 2) for key, value in found.items()},
        "target_flush_ms": flush,
        "limit_p99_ms": p99_ms_max,
        "is_under_limit": found["p99"] * 1000 < p99_ms_max,
        "share": share,
        "concord": usage,
        "contents": {"are_equal": source == target, "source": asdict(source), "target": asdict(target)},
        "void": [] if source == target else ["the contents differ"],
        "machine": {**machine, "load_after": load()},
    }


def _write(databases: Databases, consumer: Consumer, plan: Plan) -> tuple[float, float, Share, Usage]:
    """Seconds that the writing took, how late a change was at worst, the machine's share, the consumer's use."""
    with running(consumer):
        # One more row through the running consumer: from here on it is awake.
        wait_row(consumer, write_end(databases.source_dsn, 2))
        before = read_counters()
        seconds, late = write_paced(plan, lambda: postgres_writer(databases.source_dsn, plan))
        share = share_between(before, read_counters())
        wait_row(consumer, write_end(databases.source_dsn, 3))
        return seconds, late, share, consumer.usage()


def write_paced(
    plan: Plan, open_writer: Callable[[], AbstractContextManager[Callable[[int], None]]]
) -> tuple[float, float]:
    """Have `WRITERS` writers make the changes of the plan, each when it is due. Seconds it took, and the most that a
    change was late. A writer takes the number of a change."""
    pace = Pace(plan.rate, plan.changes, time.monotonic(), itertools.count())
    failures: list[Exception] = []
    threads = [threading.Thread(target=_write_changes, args=(open_writer, pace, failures)) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RunVoid("the writer failed") from failures[0]
    return time.monotonic() - pace.began, pace.late_seconds_max


def _write_changes(
    open_writer: Callable[[], AbstractContextManager[Callable[[int], None]]], pace: Pace, failures: list[Exception]
) -> None:
    try:
        with open_writer() as write:
            # Taking the next number is one step of the interpreter; two threads never get the same.
            for number in pace.numbers:
                if number >= pace.count:
                    return
                pace.wait(number)
                write(number)
    except (psycopg.Error, pymysql.Error) as error:
        failures.append(error)


@contextmanager
def postgres_writer(dsn: str, plan: Plan) -> Generator[Callable[[int], None]]:
    """Commits change after change."""
    with psycopg.connect(dsn, autocommit=True) as connection:

        def write(number: int) -> None:
            sql = _INSERT if plan.is_insert(number) else _UPDATE
            connection.execute(sql, {"id": plan.id_of(number)}, prepare=True)

        yield write


def committed(dsn: str, plan: Plan) -> dict[int, float]:
    """When each change was committed at a server by one of its users, seconds since 1970, by the row's id."""
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute(_COMMITS, (1, 2 * plan.changes)).fetchall())


def counted_ids(plan: Plan) -> list[int]:
    """The rows of the changes behind the warm-up."""
    return [plan.id_of(number) for number in range(plan.warm_changes, plan.changes)]


def _latencies(databases: Databases, consumer: Consumer, plan: Plan) -> list[float]:
    """Seconds from commit to commit of every change behind the warm-up."""
    began, ended = committed(databases.source_dsn, plan), committed(consumer.target_dsn, plan)
    return differences(plan, began, ended)


def differences(plan: Plan, began: Mapping[int, float], ended: Mapping[int, float]) -> list[float]:
    """What lies between, of every change behind the warm-up. Raises `RunVoid` when one has not arrived."""
    ids = counted_ids(plan)
    missing = sum(id not in ended for id in ids)
    if missing:
        raise RunVoid(f"{missing} changes are not at the target")
    return [ended[id] - began[id] for id in ids]


def _flush_ms(dsn: str) -> dict[str, float]:
    """How long a commit of one row takes at the target while nothing else goes on, milliseconds."""
    taken: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table flush (n integer)")
        for number in range(FLUSHES):
            started = time.perf_counter()
            connection.execute("insert into flush values (%s)", (number,), prepare=True)
            taken.append((time.perf_counter() - started) * 1000)
        connection.execute("drop table flush")
    taken.sort()
    return {"p50": round(percentile(taken, 0.5), 2), "p99": round(percentile(taken, 0.99), 2)}


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("Latency of single changes from commit at the source to commit at the target.")
    parser.add_argument("--rate", type=int, default=1000, help="changes a second (default 1000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--limit", type=float, default=P99_MS_MAX, help="p99 must be under this, ms (default 100)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
