"""Goal: each benchmark runs from its command to its JSON document, and says so when a run proves nothing.

Method: the real thing on two servers of its own, with a few hundred rows. No number that depends on the machine is
looked at; that the contents are equal, and that what is promised is in the document, is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from benchmarks import big_transaction, latency, stages, throughput
from benchmarks.concord import concord_consumer
from benchmarks.consumer import RunVoid, running
from benchmarks.native import native_consumer
from benchmarks.servers import Pair, fresh_databases, read_contents, start_pair
from benchmarks.throughput import Plan
from benchmarks.workloads import WORKLOADS, insert_rows, preload, write


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    # Not below pytest's temporary directory: every pytest that starts closes that to other users, and the servers'
    # user is another one when the tests run as root.
    with start_pair() as servers:
        yield servers


def plan(*names: str) -> Plan:
    return Plan(workloads=tuple(WORKLOADS[name] for name in names), rows=300, repetitions=1, methods=("backlog",))


def test_throughput_compares_both_over_one_log(pair: Pair) -> None:
    # Nulls and other alphabets are in the mixed rows.
    document = throughput.measure(pair, plan("mixed-1", "update-1"))
    assert document["void"] == []
    assert list(document["workloads"]) == ["mixed-1", "update-1"]
    for found in document["workloads"].values():
        assert found["contents"]["are_equal"]
        assert len({*found["contents"]["sha256"], *found["contents"]["sha256_at_source"]}) == 1
        for name in ("concord_rows_per_s", "native_rows_per_s", "ratio", "concord_peak_memory_mb"):
            assert found[name] > 0


def test_contents_differ_when_one_value_of_one_row_does(pair: Pair) -> None:
    with fresh_databases(pair, ("native",)) as databases:
        for dsn in (databases.source_dsn, databases.target_dsn("native")):
            insert_rows(dsn, first=1, last=50, step=10)
        same = read_contents(databases.source_dsn)
        assert same == read_contents(databases.target_dsn("native"))
        with psycopg.connect(databases.target_dsn("native"), autocommit=True) as target:
            target.execute("update public.bench set price = price + 0.01 where id = 17")
        assert same != read_contents(databases.target_dsn("native"))


def test_a_run_is_void_when_a_target_differs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = throughput.time_backlog

    def spoil(consumer: Any, last_id: int) -> Any:
        timed = real(consumer, last_id)
        with psycopg.connect(consumer.target_dsn, autocommit=True) as target:
            target.execute("delete from public.bench where id = 17")
        return timed

    monkeypatch.setattr(throughput, "time_backlog", spoil)
    only_native = Plan(
        workloads=(WORKLOADS["insert-100"],), rows=300, repetitions=1, consumers=("native",), methods=("backlog",)
    )
    document = throughput.measure(pair, only_native)
    assert document["void"] == ["insert-100, backlog, repetition 1: native's target differs"]
    assert not document["workloads"]["insert-100"]["contents"]["are_equal"]


def test_a_dead_daemon_voids_the_run_with_its_last_words(pair: Pair) -> None:
    with fresh_databases(pair, ("concord",)) as databases, concord_consumer(databases) as consumer:
        (consumer.directory / "source.toml").write_text("table = []")
        with running(consumer):
            assert consumer.process is not None
            consumer.process.wait(timeout=60)
            with pytest.raises(RunVoid, match=r"(?s)the daemon ended with.*source\.toml"):
                consumer.check()


def test_updates_touch_every_row_once(pair: Pair) -> None:
    workload = WORKLOADS["update-100"]
    with fresh_databases(pair, ("native",)) as databases:
        preload(databases.source_dsn, workload, 1234)
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            source.execute("create table before as select id, quantity from public.bench")
            write(databases.source_dsn, workload, 1234)
            found = source.execute(
                "select count(*), min(b.quantity - o.quantity), max(b.quantity - o.quantity)"
                " from public.bench b join before o using (id)"
            ).fetchone()
        assert found == (1234, 1, 1)


def test_the_subscription_has_postgresqls_defaults(pair: Pair) -> None:
    with fresh_databases(pair, ("native",)) as databases, native_consumer(databases) as consumer:
        with psycopg.connect(consumer.target_dsn, autocommit=True) as target:
            target.execute("create subscription plain connection 'host=127.0.0.1' publication p with (connect = false)")
            columns = "subsynccommit, subbinary, substream, subtwophasestate, suborigin, subdisableonerr"
            found = target.execute(f"select distinct {columns} from pg_subscription").fetchall()
            target.execute("alter subscription plain set (slot_name = none)")
            target.execute("drop subscription plain")
        assert len(found) == 1
        assert found[0][0] == "off"


def test_latency_counts_every_change_behind_the_warm_up(pair: Pair) -> None:
    document = latency.measure(pair, latency.Plan(rate=200, seconds=1.0, warm_seconds=0.5))
    assert document["void"] == []
    assert document["changes"] == 200
    found = document["latency_ms"]
    assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


def test_a_large_transaction_is_never_seen_in_part(pair: Pair) -> None:
    document = big_transaction.measure(pair, rows=25_000)
    assert document["void"] == []
    assert not document["has_shown_part"]
    assert document["peak_memory_mb"] >= document["idle_memory_mb"] > 0


def test_stages_measure_each_stage(pair: Pair) -> None:
    document = stages.measure(pair, ("insert-1", "update-1"), rows=500, repetitions=2)
    for found in document["workloads"].values():
        assert tuple(found) == stages.STAGES
        assert all(len(stage["rows_per_s"].values) == 2 for stage in found.values())


def test_a_run_measures_live_and_a_backlog_beside_it_and_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code = throughput.main(["--json", "--rows", "200", "--repetitions", "1", "--workload", "insert-100"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["benchmark"] == "throughput"
    assert document["machine"]["postgres"]
    assert document["void"] == []
    found = document["workloads"]["insert-100"]
    assert (found["method"], found["backlog"]["method"]) == ("live", "backlog")
    assert found["ratio"] > 0
    assert found["backlog"]["ratio"] > 0


def test_a_run_leaves_no_slots_behind(pair: Pair) -> None:
    both = ("native", "concord")
    with fresh_databases(pair, both) as databases, native_consumer(databases), concord_consumer(databases):
        pass
    with psycopg.connect(pair.source.dsn("postgres"), autocommit=True) as source:
        assert source.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
