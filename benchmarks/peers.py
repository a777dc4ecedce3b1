"""Concord beside what else brings changes from one database to another, all in one run on the same servers and data.

    python -m benchmarks.peers --json

Rates are those of a backlog, as after an outage: everything has been committed before, and each consumer works it off.
Latency is that of single changes at a steady rate. See `legs` for who is compared, and the chapter for how.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import concord, debezium, decoding, native
from benchmarks.commits import commits_in_log, log_end
from benchmarks.consumer import RunVoid, Timed, bring_up, running, time_backlog, wait_row
from benchmarks.debezium import Kafka, start_kafka, start_worker
from benchmarks.latency import Plan as LatencyPlan
from benchmarks.latency import committed, differences, write_paced
from benchmarks.legs import Leg, MariadbLeg, PostgresLeg, Round, TopicLeg
from benchmarks.machine import OTHERS_CORES_MAX, load, machine_facts, read_counters, share_between
from benchmarks.mariadb import OPTIONS, PASSWORD
from benchmarks.report import common_arguments, percentile, print_report, say, spread, table_of
from benchmarks.servers import Contents, Pair, read_contents, start_pair
from benchmarks.workloads import WORKLOADS, Workload
from engine.testing.mariadb import start_mariadb

LEGS = ("postgres", "mariadb", "topic")
CONSUMERS = (concord.NAME, native.NAME, debezium.NAME)
USUAL = ("insert-100", "update-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. `warm_rows`: how many the JVMs have had through them before anything counts."""

    workloads: tuple[Workload, ...]
    rows: int
    repetitions: int
    latency: LatencyPlan | None
    legs: tuple[str, ...] = LEGS
    consumers: tuple[str, ...] = CONSUMERS
    warm_rows: int = 50_000
    decodes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One consumer in one repetition."""

    consumer: str
    timed: Timed
    target: Contents
    source: Contents

    @property
    def is_void(self) -> bool:
        return self.target != self.source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. 1 when the run is void."""
    options = _parser().parse_args(arguments)
    latency = LatencyPlan(rate=options.rate, seconds=options.seconds) if options.seconds else None
    plan = Plan(
        workloads=tuple(WORKLOADS[name] for name in options.workload or USUAL),
        rows=options.rows,
        repetitions=options.repetitions,
        latency=latency,
        legs=tuple(options.leg or LEGS),
        consumers=tuple(options.only or CONSUMERS),
        warm_rows=options.warm_rows,
        # Who asks for one way alone does not want it.
        decodes=not options.leg and not options.only,
    )
    try:
        with start_pair() as pair:
            document = measure(pair, plan)
    except RunVoid as error:
        say(f"void: {error}")
        return 1
    print_report(document, _tables(document), as_json=options.json)
    return 1 if document["void"] else 0


def measure(pair: Pair, plan: Plan) -> dict[str, Any]:
    """The whole run as a document. Raises `RunVoid` when a consumer fails."""
    machine = machine_facts(pair)
    void: list[str] = []
    legs: dict[str, Any] = {}
    for name in plan.legs:
        with open_leg(name, pair) as leg:
            legs[name] = measure_leg(leg, plan, void)
    return {
        "benchmark": "peers",
        "rows": plan.rows,
        "repetitions": plan.repetitions,
        "legs": legs,
        "decoding": _decoding(pair, plan) if plan.decodes else None,
        "void": void,
        "debezium": {
            "java": [*debezium.JAVA, *debezium.BROKER_HEAP, *debezium.WORKER_HEAP],
            "source": {**debezium.SOURCE, **debezium.FLATTENED},
            "sink": debezium.SINK,
        },
        "machine": {**machine, "load_after": load()},
    }


def measure_leg(leg: Leg, plan: Plan, void: list[str]) -> dict[str, Any]:
    """The rates of each workload, and the latencies. What proves nothing is added to `void`."""
    names = tuple(name for name in leg.consumers if name in plan.consumers)
    if debezium.NAME in names and plan.warm_rows:
        say(f"{leg.name}: warming with {plan.warm_rows:,} rows")
        _backlog(leg, (debezium.NAME,), plan.workloads[0], plan.warm_rows)
    found = {workload.name: _rates(leg, names, workload, plan, void) for workload in plan.workloads}
    if plan.latency is not None:
        found["latency"] = {name: _latency(leg, name, plan.latency, void) for name in names}
    return found


def _decoding(pair: Pair, plan: Plan) -> dict[str, Any]:
    directory = Path(tempfile.mkdtemp(prefix="decoding-", dir=pair.directory))
    with start_mariadb(directory / "mariadb", OPTIONS) as server:
        return decoding.measure(server, directory, rows=plan.rows, repetitions=plan.repetitions)


@contextmanager
def open_leg(name: str, pair: Pair) -> Generator[Leg]:
    """A way, with the servers that it needs besides the pair. JVMs are new for each: what they ever had is its own."""
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=pair.directory))
    with ExitStack() as stack:
        kafka = stack.enter_context(start_kafka(directory))
        match name:
            case "postgres":
                yield PostgresLeg(pair=pair, kafka=kafka)
            case "mariadb":
                # The daemon takes it from there; see `legs.MARIADB`.
                os.environ["BENCH_PASSWORD"] = PASSWORD
                server = stack.enter_context(start_mariadb(directory / "mariadb", OPTIONS))
                yield MariadbLeg(pair=pair, server=server, kafka=kafka)
            case _:
                feeder, _ = stack.enter_context(start_worker(directory / "feeder", kafka.broker))
                # The broker serves both, and the feeder is nobody's.
                own = Kafka(broker=kafka.broker, worker=kafka.worker, programs=kafka.programs[1:])
                yield TopicLeg(pair=pair, kafka=own, feeder=feeder)


def _rates(leg: Leg, names: tuple[str, ...], workload: Workload, plan: Plan, void: list[str]) -> dict[str, Any]:
    runs: list[Run] = []
    for repetition in range(plan.repetitions):
        order = names if repetition % 2 == 0 else names[::-1]
        for run in _backlog(leg, order, workload, plan.rows):
            say(
                f"{leg.name} {workload.name} {repetition + 1}/{plan.repetitions} {run.consumer}:"
                f" {plan.rows / run.timed.seconds:,.0f} rows/s, others used {run.timed.share.other_cores} cores"
                f"{' VOID' if run.is_void else ''}"
            )
            if run.is_void:
                place = f"{leg.name}, {workload.name}, repetition {repetition + 1}"
                void.append(f"{place}: {run.consumer}'s target differs")
            runs.append(run)
    return _summary(names, workload, plan, runs)


def _backlog(leg: Leg, order: Sequence[str], workload: Workload, rows: int) -> list[Run]:
    """One log, worked off by one consumer after the other."""
    with leg.round(order) as fresh:
        source = fresh.source
        source.preload(workload, rows)
        last = source.write_end(1)
        for consumer in fresh.consumers:
            bring_up(consumer, last)
        source.settle()
        source.write(workload, rows)
        last = source.write_end(2)
        timed = [time_backlog(consumer, last) for consumer in fresh.consumers]
        contents = source.contents()
        return [
            Run(consumer=consumer.name, timed=found, target=_target(fresh, consumer.name), source=contents)
            for consumer, found in zip(fresh.consumers, timed, strict=True)
        ]


def _target(fresh: Round, name: str) -> Contents:
    return read_contents(fresh.databases.target_dsn(name))


def _summary(names: tuple[str, ...], workload: Workload, plan: Plan, runs: Sequence[Run]) -> dict[str, Any]:
    """Of each consumer medians and spreads, and how Concord's rate compares with the others'."""
    summary: dict[str, Any] = {"title": workload.title, "rows": plan.rows}
    million = 1e6 / plan.rows
    for name in names:
        own = [run.timed for run in runs if run.consumer == name]
        summary[name] = {
            "rows_per_s": spread([plan.rows / timed.seconds for timed in own], 0),
            "cpu_seconds_per_million_rows": spread([timed.usage.cpu_seconds * million for timed in own]),
            "machine_cpu_seconds_per_million_rows": spread([timed.share.own_seconds * million for timed in own]),
            "peak_memory_mb": max(timed.usage.peak_rss_mb for timed in own),
            "private_memory_mb": max(timed.usage.private_mb for timed in own),
            "start_seconds": spread([timed.start_seconds for timed in own], 2),
            "other_cores": [timed.share.other_cores for timed in own],
        }
    if concord.NAME in names:
        rate, memory = (summary[concord.NAME][key] for key in ("rows_per_s", "peak_memory_mb"))
        others = [name for name in names if name != concord.NAME]
        summary["times_the_rate_of"] = {
            name: round(rate.median / summary[name]["rows_per_s"].median, 2) for name in others
        }
        summary["times_the_memory_of"] = {name: round(memory / summary[name]["peak_memory_mb"], 3) for name in others}
    summary["is_quiet"] = all(
        run.timed.share.other_cores + run.timed.share.stolen_cores <= OTHERS_CORES_MAX for run in runs
    )
    summary["contents"] = {
        "are_equal": not any(run.is_void for run in runs),
        "rows": [run.target.rows for run in runs],
        "sha256": [run.target.sha256 for run in runs],
        "sha256_at_source": [run.source.sha256 for run in runs],
    }
    return summary


def _latency(leg: Leg, name: str, plan: LatencyPlan, void: list[str]) -> dict[str, Any]:
    """One consumer beside a writer at a steady rate."""
    with leg.round((name,)) as fresh:
        (consumer,), source, dsn = fresh.consumers, fresh.source, fresh.databases.target_dsn(name)
        source.preload(WORKLOADS["update-1"], plan.changes)
        bring_up(consumer, source.write_end(1))
        source.settle()
        since = log_end(dsn)
        with running(consumer):
            # One more row through the running consumer: from here on it is awake.
            wait_row(consumer, source.write_end(2))
            before = read_counters()
            seconds, late = write_paced(plan, lambda: source.writer(plan))
            share = share_between(before, read_counters())
            wait_row(consumer, source.write_end(3))
            usage = consumer.usage()
        if name == native.NAME:
            ended = commits_in_log(fresh.databases.pair.target, dsn, since, plan)
        else:
            ended = committed(dsn, plan)
        found = sorted(differences(plan, source.began(plan), ended))
        target, contents = _target(fresh, name), source.contents()
    if target != contents:
        void.append(f"{leg.name}, latency: {name}'s target differs")
    milliseconds = {
        "p50": percentile(found, 0.50),
        "p95": percentile(found, 0.95),
        "p99": percentile(found, 0.99),
        "max": found[-1],
    }
    say(f"{leg.name} latency {name}: p50 {milliseconds['p50'] * 1000:.1f} ms, p99 {milliseconds['p99'] * 1000:.1f} ms")
    return {
        "changes": len(found),
        "rate": plan.rate,
        "rate_achieved": round(plan.changes / seconds, 1),
        "writer_late_ms_max": round(late * 1000, 1),
        "latency_ms": {key: round(value * 1000, 2) for key, value in milliseconds.items()},
        "cpu_seconds": usage.cpu_seconds,
        "share": share,
        "contents": {"are_equal": target == contents},
    }


def _tables(document: dict[str, Any]) -> list[Any]:
    rates: list[list[object]] = []
    latencies: list[list[object]] = []
    for leg, found in document["legs"].items():
        for workload, measured in found.items():
            for name in CONSUMERS:
                if name not in measured:
                    continue
                own = measured[name]
                if workload == "latency":
                    times = own["latency_ms"]
                    latencies.append(
                        [f"{leg} {name}", own["rate_achieved"], *(times[key] for key in ("p50", "p95", "p99", "max"))]
                    )
                    continue
                rates.append(
                    [
                        f"{leg} {workload} {name}",
                        own["rows_per_s"].median,
                        own["cpu_seconds_per_million_rows"].median,
                        own["machine_cpu_seconds_per_million_rows"].median,
                        round(own["peak_memory_mb"]),
                        "yes" if measured["is_quiet"] else "no",
                        "yes" if measured["contents"]["are_equal"] else "NO",
                    ]
                )
    title = f"{document['rows']:,} rows, {document['repetitions']} repetitions; CPU seconds for a million rows"
    tables = [table_of(title, ("", "rows/s", "CPU s", "machine's", "MB", "quiet", "equal"), rates)]
    if document["decoding"]:
        tables += decoding.tables(document["decoding"])
    if latencies:
        tables.append(table_of("latency, ms", ("", "changes/s", "p50", "p95", "p99", "greatest"), latencies))
    return tables


def _parser() -> argparse.ArgumentParser:
    parser = common_arguments("Concord, PostgreSQL's own replication and Debezium's route, in one run.")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each workload (default 200000)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--leg", action="append", choices=LEGS, help="measure this way alone")
    parser.add_argument("--only", action="append", choices=CONSUMERS, help="measure this consumer alone")
    parser.add_argument(
        "--workload", action="append", choices=sorted(WORKLOADS), help=f"which; default {', '.join(USUAL)}"
    )
    parser.add_argument("--rate", type=int, default=1000, help="changes a second for the latency (default 1000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long for the latency, 0: not (default 30)")
    parser.add_argument("--warm-rows", type=int, default=50_000, help="rows that warm the JVMs (default 50000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
