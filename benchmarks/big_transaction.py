"""One transaction of a million rows passes, whole, and the daemon's memory stays flat.

    python -m benchmarks.big_transaction --json

The daemon runs and is idle; then the source commits a million inserts at once. The target is asked all the while for
the first and the last of the rows: it must show both or neither, because it may never show half of what the source
committed at once. Peak memory is the kernel's high-water mark of the daemon's process (`VmHWM`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from benchmarks import concord
from benchmarks.concord import Concord, concord_consumer
from benchmarks.consumer import CHECK_SECONDS, WAIT_SECONDS_MAX, RunVoid, running, wait_row
from benchmarks.machine import load, machine_facts, read_counters, share_between
from benchmarks.report import common_arguments, print_report, say, table_of
from benchmarks.servers import Pair, fresh_databases, read_contents, start_pair
from benchmarks.workloads import insert_rows, write_end

MEMORY_MB_MAX = 400.0
WATCH_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the target showed. `seconds`: from the source's commit to the rows."""

    seconds: float
    has_shown_part: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void or a limit is broken."""
    options = _parser().parse_args(arguments)
    try:
        with start_pair() as pair:
            document = measure(pair, rows=options.rows, memory_mb_max=options.limit)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    table = table_of(
        f"one transaction of {document['rows']:,} rows",
        ("", "rows/s", "seconds", "idle MB", "peak MB", "hub MB", "contents"),
        [
            (
                "concord",
                document["rows_per_s"],
                document["seconds"],
                document["idle_memory_mb"],
                document["peak_memory_mb"],
                document["hub_mb"],
                "equal" if document["contents"]["are_equal"] else "DIFFER",
            )
        ],
    )
    print_report(document, [table], as_json=options.json)
    return 1 if document["void"] or not document["is_under_limit"] else 0


def measure(pair: Pair, *, rows: int, memory_mb_max: float = MEMORY_MB_MAX) -> dict[str, Any]:
    """The whole run as a document."""
    machine = machine_facts(pair)
    with fresh_databases(pair, (concord.NAME,)) as databases, concord_consumer(databases) as consumer:
        with running(consumer):
            wait_row(consumer, write_end(databases.source_dsn, 1))
            idle = consumer.usage()
            before = read_counters()
            started = time.time()
            insert_rows(databases.source_dsn, first=1, last=rows, step=rows)
            committed = time.time()
            watched = _watch(consumer, rows, committed)
            share = share_between(before, read_counters())
            usage = consumer.usage()
            wait_row(consumer, write_end(databases.source_dsn, 2))
        hub_bytes = consumer.hub_bytes()
        source, target = read_contents(databases.source_dsn), read_contents(consumer.target_dsn)
    void = [] if source == target else ["the contents differ"]
    if watched.has_shown_part:
        void.append("the target showed a part of the transaction")
    return {
        "benchmark": "big_transaction",
        "rows": rows,
        "seconds": round(watched.seconds, 2),
        "rows_per_s": round(rows / watched.seconds),
        "source_seconds": round(committed - started, 2),
        "idle_memory_mb": idle.peak_rss_mb,
        "peak_memory_mb": usage.peak_rss_mb,
        "private_memory_mb": usage.private_mb,
        "cpu_seconds": usage.cpu_seconds,
        "hub_mb": round(hub_bytes / (1 << 20), 1),
        "limit_memory_mb": memory_mb_max,
        "is_under_limit": usage.peak_rss_mb < memory_mb_max,
        "has_shown_part": watched.has_shown_part,
        "share": share,
        "contents": {"are_equal": source == target, "source": asdict(source), "target": asdict(target)},
        "void": void,
        "machine": {**machine, "load_after": load()},
    }


def _watch(consumer: Concord, rows: int, committed: float) -> Watched:
    """Wait for the rows, looking for a moment at which some are there and some are not."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    check_at = time.monotonic() + CHECK_SECONDS
    has_shown_part = False
    with psycopg.connect(consumer.target_dsn, autocommit=True) as target:
        while time.monotonic() < deadline:
            # Rows 1 and `rows`, and one in the middle: one statement, one snapshot.
            found = target.execute(
                "select count(*) from public.bench where id in (1, %s, %s)", (max(2, rows // 2), rows)
            ).fetchone()
            count = 0 if found is None else found[0]
            if count == 3:
                return Watched(seconds=time.time() - committed, has_shown_part=has_shown_part)
            has_shown_part = has_shown_part or count > 0
            if time.monotonic() > check_at:
                consumer.check()
                check_at = time.monotonic() + CHECK_SECONDS
            time.sleep(WATCH_SECONDS)
    raise RunVoid(f"the transaction has not arrived after {WAIT_SECONDS_MAX:.0f} s: {consumer.log_tail()}")


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("One large transaction through the daemon: memory, time, and that it arrives whole.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the transaction (default 1000000)")
    parser.add_argument("--limit", type=float, default=MEMORY_MB_MAX, help="peak memory in MB (default 400)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
