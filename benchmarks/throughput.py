"""Rows a second from source to target: PostgreSQL's own logical replication and Concord, over the same log.

    python -m benchmarks.throughput --json

Two methods, each over fresh databases in every repetition, and both in one run:

    live      the workload runs while the consumer reads; the clock stops when the last row is at the target
    backlog   the workload has been committed before; both consumers work off the same log, one after the other

A repetition whose tables are not equal in the end, in every row, is void, and so is the run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks import concord, native
from benchmarks.concord import concord_consumer
from benchmarks.consumer import Consumer, RunVoid, Timed, bring_up, running, time_backlog, wait_reading, wait_row
from benchmarks.machine import OTHERS_CORES_MAX, load, machine_facts, read_counters, share_between
from benchmarks.native import native_consumer
from benchmarks.report import common_arguments, print_report, say, spread, table_of
from benchmarks.servers import Databases, Pair, committed_at, fresh_databases, read_contents, settle, start_pair
from benchmarks.workloads import USUAL, WORKLOADS, Workload, preload, write, write_end

CONSUMERS = (native.NAME, concord.NAME)
METHODS = ("live", "backlog")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. The first of `methods` gives the numbers of a workload; the others stand beside them."""

    workloads: tuple[Workload, ...]
    rows: int
    repetitions: int
    consumers: tuple[str, ...] = CONSUMERS
    methods: tuple[str, ...] = METHODS
    native_sync: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One consumer in one repetition. `sha256` of what its target and the source hold in the end."""

    consumer: str
    timed: Timed
    rows: int
    rows_at_source: int
    sha256: str
    sha256_at_source: str

    @property
    def is_void(self) -> bool:
        return self.sha256 != self.sha256_at_source or self.rows != self.rows_at_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void."""
    options = _parser().parse_args(arguments)
    plan = Plan(
        workloads=tuple(WORKLOADS[name] for name in options.workload or USUAL),
        rows=options.rows,
        repetitions=options.repetitions,
        consumers=tuple(options.only or CONSUMERS),
        methods=tuple(options.method or METHODS),
        native_sync=options.native_sync,
    )
    try:
        with start_pair() as pair:
            document = measure(pair, plan)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    print_report(document, [_table(document)], as_json=options.json)
    return 1 if document["void"] else 0


def measure(pair: Pair, plan: Plan) -> dict[str, Any]:
    """The whole run as a document. Raises `RunVoid` when a consumer fails."""
    machine = machine_facts(pair)
    workloads: dict[str, Any] = {}
    void: list[str] = []
    for workload in plan.workloads:
        found = {method: _measure(pair, plan, workload, method, void) for method in plan.methods}
        first, *others = plan.methods
        workloads[workload.name] = found[first] | {method: found[method] for method in others}
    return {
        "benchmark": "throughput",
        "methods": plan.methods,
        "rows": plan.rows,
        "repetitions": plan.repetitions,
        "native_synchronous_commit": "on" if plan.native_sync else "off",
        "workloads": workloads,
        "void": void,
        "machine": {**machine, "load_after": load()},
    }


def _measure(pair: Pair, plan: Plan, workload: Workload, method: str, void: list[str]) -> dict[str, Any]:
    runs: list[Run] = []
    for repetition in range(plan.repetitions):
        order = plan.consumers if repetition % 2 == 0 else plan.consumers[::-1]
        measured = (_live if method == "live" else _backlog)(pair, plan, workload, order)
        for run in measured:
            say(
                f"{workload.name} {method} {repetition + 1}/{plan.repetitions} {run.consumer}:"
                f" {plan.rows / run.timed.seconds:,.0f} rows/s, others used {run.timed.share.other_cores} cores"
                f"{' VOID' if run.is_void else ''}"
            )
            if run.is_void:
                void.append(f"{workload.name}, {method}, repetition {repetition + 1}: {run.consumer}'s target differs")
        runs += measured
    return {"method": method, **_summary(workload, plan, runs)}


def _backlog(pair: Pair, plan: Plan, workload: Workload, order: Sequence[str]) -> list[Run]:
    """One log, worked off by one consumer after the other."""
    with fresh_databases(pair, order) as databases, ExitStack() as stack:
        consumers = [_open(stack, name, databases, plan) for name in order]
        if workload.updates:
            preload(databases.source_dsn, workload, plan.rows)
            last = write_end(databases.source_dsn, 1)
            for consumer in consumers:
                bring_up(consumer, last)
        settle(databases)
        write(databases.source_dsn, workload, plan.rows)
        last = write_end(databases.source_dsn, 2)
        timed = [time_backlog(consumer, last) for consumer in consumers]
        return [_run(databases, consumer, found) for consumer, found in zip(consumers, timed, strict=True)]


def _live(pair: Pair, plan: Plan, workload: Workload, order: Sequence[str]) -> list[Run]:
    """A log for each consumer, written while it reads. The clock runs from the first commit."""
    runs: list[Run] = []
    for name in order:
        with fresh_databases(pair, (name,)) as databases, ExitStack() as stack:
            consumer = _open(stack, name, databases, plan)
            preload(databases.source_dsn, workload, plan.rows)
            last = write_end(databases.source_dsn, 1)
            bring_up(consumer, last)
            settle(databases)
            asked, before = time.time(), read_counters()
            with running(consumer):
                started = wait_reading(consumer)
                first = write_end(databases.source_dsn, 2)
                write(databases.source_dsn, workload, plan.rows)
                last = write_end(databases.source_dsn, 3)
                ended = wait_row(consumer, last)
                share = share_between(before, read_counters())
                usage = consumer.usage()
            began = committed_at(databases.source_dsn, first)
            timed = Timed(seconds=ended - began, start_seconds=started - asked, usage=usage, share=share)
            runs.append(_run(databases, consumer, timed))
    return runs


def _open(stack: ExitStack, name: str, databases: Databases, plan: Plan) -> Consumer:
    if name == native.NAME:
        return stack.enter_context(native_consumer(databases, synchronous=plan.native_sync))
    return stack.enter_context(concord_consumer(databases))


def _run(databases: Databases, consumer: Consumer, timed: Timed) -> Run:
    source, target = read_contents(databases.source_dsn), read_contents(consumer.target_dsn)
    return Run(
        consumer=consumer.name,
        timed=timed,
        rows=target.rows,
        rows_at_source=source.rows,
        sha256=target.sha256,
        sha256_at_source=source.sha256,
    )


def _summary(workload: Workload, plan: Plan, runs: Sequence[Run]) -> dict[str, Any]:
    """Medians and spreads; the ratio is of the medians, `ratio_spread` of the repetitions one by one."""
    summary: dict[str, Any] = {"title": workload.title, "rows": plan.rows}
    rates: dict[str, list[float]] = {}
    for name in plan.consumers:
        own = [run for run in runs if run.consumer == name]
        rates[name] = [plan.rows / run.timed.seconds for run in own]
        rate = spread(rates[name], 0)
        summary[f"{name}_rows_per_s"] = rate.median
        summary[f"{name}_spread"] = rate
        summary[f"{name}_peak_memory_mb"] = max(run.timed.usage.peak_rss_mb for run in own)
        summary[f"{name}_private_memory_mb"] = max(run.timed.usage.private_mb for run in own)
        summary[f"{name}_cpu_seconds"] = spread([run.timed.usage.cpu_seconds for run in own], 2)
        summary[f"{name}_start_seconds"] = spread([run.timed.start_seconds for run in own], 2)
        costs = [run.timed.share.own_seconds / plan.rows * 1e6 for run in own]
        summary[f"{name}_machine_us_per_row"] = spread(costs, 2)
        summary[f"{name}_other_cores"] = [run.timed.share.other_cores for run in own]
        summary[f"{name}_stolen_cores"] = [run.timed.share.stolen_cores for run in own]
    if set(CONSUMERS) <= set(rates):
        pairs = zip(rates[concord.NAME], rates[native.NAME], strict=True)
        summary["ratio"] = round(summary["concord_rows_per_s"] / summary["native_rows_per_s"], 3)
        summary["ratio_spread"] = spread([own / theirs for own, theirs in pairs], 3)
    summary["is_quiet"] = all(
        run.timed.share.other_cores + run.timed.share.stolen_cores <= OTHERS_CORES_MAX for run in runs
    )
    summary["contents"] = {
        "are_equal": not any(run.is_void for run in runs),
        "rows": [run.rows for run in runs],
        "sha256": [run.sha256 for run in runs],
        "sha256_at_source": [run.sha256_at_source for run in runs],
    }
    return summary


def _table(document: dict[str, Any]) -> Any:
    columns = ("workload", "method", "concord/s", "native/s", "ratio", "least", "MB", "quiet", "equal")
    rows: list[list[object]] = []
    for name, first in document["workloads"].items():
        for found in (first, *(first[method] for method in document["methods"][1:])):
            ratios = found.get("ratio_spread")
            rows.append(
                [
                    name,
                    found["method"],
                    found.get("concord_rows_per_s"),
                    found.get("native_rows_per_s"),
                    found.get("ratio"),
                    ratios.least if ratios else None,
                    round(found.get("concord_peak_memory_mb", 0)) or None,
                    "yes" if found["is_quiet"] else "no",
                    "yes" if found["contents"]["are_equal"] else "NO",
                ]
            )
    title = f"{document['rows']:,} rows, {document['repetitions']} repetitions, rows/s"
    return table_of(title, columns, rows)


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("Rows a second, Concord and PostgreSQL's own logical replication, in one run.")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each workload (default 200000)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument(
        "--workload", action="append", choices=sorted(WORKLOADS), help=f"which; default {', '.join(USUAL)}"
    )
    parser.add_argument("--only", action="append", choices=CONSUMERS, help="measure this consumer alone")
    parser.add_argument("--method", action="append", choices=METHODS, help="measure by this method alone")
    parser.add_argument(
        "--native-sync", action="store_true", help="the subscription with synchronous_commit = on, not its default off"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
