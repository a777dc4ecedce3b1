"""Goal: each way of `peers` runs to its numbers, with real connectors, and a target that differs voids the run.

Method: a few hundred rows through all of it. No number that depends on the machine is looked at.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import debezium, decoding, latency, peers
from benchmarks.commits import commits_in_log, log_end
from benchmarks.consumer import RunVoid, bring_up
from benchmarks.latency import committed
from benchmarks.legs import MariadbLeg, PostgresLeg, TopicLeg
from benchmarks.mariadb import PASSWORD, fresh_shop
from benchmarks.peers import Plan
from benchmarks.servers import Pair, fresh_databases, read_contents, start_pair
from benchmarks.workloads import WORKLOADS, insert_rows, preload, write, write_end
from engine.testing.kafka import broker, connect
from engine.testing.kafka.jvm import QUICK_START
from engine.testing.mariadb import MariadbServer

pytestmark = pytest.mark.usefixtures("kafka_resolved")
ROWS = 300


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with start_pair() as servers:
        yield servers


@pytest.fixture(scope="module", autouse=True)
def quick_java() -> Iterator[None]:
    """What makes a JVM fast in the long run takes longer than these tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(debezium, "JAVA", QUICK_START)
        patched.setattr(debezium, "BROKER_HEAP", broker.HEAP)
        patched.setattr(debezium, "WORKER_HEAP", connect.HEAP)
        yield


@pytest.fixture(scope="module")
def postgres_leg(pair: Pair) -> Iterator[PostgresLeg]:
    with peers.open_leg("postgres", pair) as leg:
        assert isinstance(leg, PostgresLeg)
        yield leg


def plan(*workloads: str, **more: Any) -> Plan:
    few = latency.Plan(rate=100, seconds=1.0, warm_seconds=0.5)
    named = tuple(WORKLOADS[name] for name in workloads)
    usual: dict[str, Any] = {"workloads": named, "rows": ROWS, "repetitions": 1, "latency": few, "warm_rows": 100}
    return Plan(**{**usual, **more})


def check(found: dict[str, Any], workload: str, *consumers: str) -> None:
    for name in consumers:
        own = found[workload][name]
        # Not processor times, which are counted in hundredths: a fast machine needs less for these few rows.
        assert own["rows_per_s"].median > 0, name
        assert own["peak_memory_mb"] > 0
        times = found["latency"][name]["latency_ms"]
        assert found["latency"][name]["changes"] == 100
        assert 0 < times["p50"] <= times["p99"] <= times["max"]
    assert len({*found[workload]["contents"]["sha256"], *found[workload]["contents"]["sha256_at_source"]}) == 1


def test_three_go_from_postgresql_to_postgresql(postgres_leg: PostgresLeg) -> None:
    void: list[str] = []
    found = peers.measure_leg(postgres_leg, plan("mixed-1"), void)
    assert void == []
    check(found, "mixed-1", "concord", "native", "debezium")
    assert set(found["mixed-1"]["times_the_rate_of"]) == {"native", "debezium"}


def test_concord_goes_from_mariadb_to_postgresql(
    pair: Pair, postgres_leg: PostgresLeg, mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That Debezium does is known from `tests/kafka_cluster`, and takes its connectors a minute of processor time.
    monkeypatch.setenv("BENCH_PASSWORD", PASSWORD)
    leg, void = MariadbLeg(pair=pair, server=mariadb_server, kafka=postgres_leg.kafka), list[str]()
    found = peers.measure_leg(leg, plan("update-100", consumers=("concord",), latency=None), void)["update-100"]
    assert void == []
    assert found["concord"]["rows_per_s"].median > 0
    assert len({*found["contents"]["sha256"], *found["contents"]["sha256_at_source"]}) == 1


def test_two_go_from_a_topic_to_postgresql(
    pair: Pair, postgres_leg: PostgresLeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, worker = postgres_leg.kafka.broker, postgres_leg.kafka.worker

    @contextmanager
    def open_leg(name: str, pair: Pair) -> Generator[TopicLeg]:
        # Broker and worker run already; a second worker fills the topic, as in `peers.open_leg`.
        assert name == "topic"
        with debezium.start_worker(tmp_path / "feeder", broker) as (feeder, _):
            own = debezium.Kafka(broker=broker, worker=worker, programs=postgres_leg.kafka.programs[1:])
            yield TopicLeg(pair=pair, kafka=own, feeder=feeder)

    monkeypatch.setattr(peers, "open_leg", open_leg)
    document = peers.measure(pair, plan("update-100", legs=("topic",), decodes=False, warm_rows=0))
    assert document["void"] == []
    check(document["legs"]["topic"], "update-100", "concord", "debezium")


def test_a_mariadb_has_the_rows_that_a_postgresql_has(pair: Pair, mariadb_server: MariadbServer) -> None:
    for name in ("mixed-1", "update-100"):
        workload = WORKLOADS[name]
        with fresh_databases(pair, ()) as databases, fresh_shop(mariadb_server) as shop:
            preload(databases.source_dsn, workload, ROWS)
            write(databases.source_dsn, workload, ROWS)
            shop.preload(workload, ROWS)
            shop.write(workload, ROWS)
            assert shop.contents() == read_contents(databases.source_dsn)


def test_the_log_tells_of_commits_what_the_server_tells(pair: Pair) -> None:
    few = latency.Plan(rate=100, seconds=1.0, warm_seconds=0.0)
    with fresh_databases(pair, ()) as databases:
        since = log_end(databases.source_dsn)
        insert_rows(databases.source_dsn, first=1, last=50, step=10)
        write_end(databases.source_dsn, 1)
        found = commits_in_log(pair.source, databases.source_dsn, since, few)
        assert found == pytest.approx(committed(databases.source_dsn, few), abs=1e-5)
        assert len(found) == 50


def test_a_run_is_void_when_a_target_differs(postgres_leg: PostgresLeg, monkeypatch: pytest.MonkeyPatch) -> None:
    real = peers.time_backlog

    def spoil(consumer: Any, last_id: int) -> Any:
        timed = real(consumer, last_id)
        with psycopg.connect(consumer.target_dsn, autocommit=True) as target:
            target.execute("update public.bench set price = price + 0.01 where id = 17")
        return timed

    monkeypatch.setattr(peers, "time_backlog", spoil)
    void: list[str] = []
    found = peers.measure_leg(postgres_leg, plan("insert-100", consumers=("native",), latency=None), void)
    assert void == ["postgres, insert-100, repetition 1: native's target differs"]
    assert not found["insert-100"]["contents"]["are_equal"]


def test_a_connector_that_fails_voids_the_run_with_its_words(postgres_leg: PostgresLeg) -> None:
    with postgres_leg.round(("debezium",)) as fresh:
        with psycopg.connect(fresh.databases.target_dsn("debezium"), autocommit=True) as target:
            target.execute("alter table public.bench drop column price")
        with pytest.raises(RunVoid, match=r"(?s)sink.*bench"):
            bring_up(fresh.consumers[0], fresh.source.write_end(1))


# Of mysql-replication, where it is installed.
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
def test_decoding_reads_every_row_of_both_logs(mariadb_server: MariadbServer, tmp_path: Path) -> None:
    document = decoding.measure(mariadb_server, tmp_path, rows=500, repetitions=2)
    for shape in ("single", "many"):
        rates = document["shapes"][shape]["rows_per_s"]
        assert {"feed", "memory"} <= set(rates)
        assert all(len(rate.values) == 2 for rate in rates.values())
