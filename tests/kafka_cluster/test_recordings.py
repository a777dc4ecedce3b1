"""Goal: what was recorded of Debezium is told again byte for byte, and every scenario has been recorded.

Method: recordings are written and read; the shipped ones are compared with what `scenarios` asks for.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.testing.kafka.client import Record
from tests.kafka_cluster.record_mariadb import MARIADB
from tests.kafka_cluster.record_postgres import POSTGRES
from tests.kafka_cluster.recordings import (
    RECORDED,
    Recording,
    Told,
    read_recording,
    read_told,
    write_recording,
    write_told,
)
from tests.kafka_cluster.scenarios import Scenario, Script

SCHEMA = '{"type":"struct","fields":[{"field":"payload","type":"string"}],"name":"a,\\"payload\\":"}'
FILES = [(script, scenario) for script in (*POSTGRES, *MARIADB) for scenario in script.scenarios]


def record(offset: int, key: bytes | None, value: bytes | None) -> Record:
    headers = (("__op", b"d"), ("empty", None), ("__op", b"d"))
    return Record(topic="t", partition=1, offset=offset, timestamp=7, key=key, value=value, headers=headers)


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    with_schema = f'{{"schema":{SCHEMA},"payload":{{"payload":"\u2028 ü \\ud83d"}}}}'.encode()
    records = (
        record(0, b'{"id":1}', with_schema),
        record(1, with_schema, None),
        record(2, None, with_schema),
        # It begins as one with a schema, and is none.
        record(3, b"plain", b'{"schema":{},"more":1,"payload":2}'),
    )
    recording = Recording(script="s", settings={"a": "b"}, records=records)
    write_recording(tmp_path / "r.jsonl", recording)
    assert read_recording(tmp_path / "r.jsonl") == recording
    schemas = [line for line in (tmp_path / "r.jsonl").read_text().split("\n") if line.startswith('{"schema"')]
    assert [json.loads(line)["schema"] for line in schemas] == [SCHEMA]


def test_what_is_told_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = Told(
        before=("create table t", "insert"),
        statements=("update\u2028t",),
        rows=(("t", {"a": None, "b": "text", "c": b"\x00\xff"}), ("u", {})),
    )
    write_told(tmp_path / "t.jsonl", told)
    assert read_told(tmp_path / "t.jsonl") == told
    assert told.rows_of("t") == [{"a": None, "b": "text", "c": b"\x00\xff"}]


@pytest.mark.parametrize(("script", "scenario"), FILES, ids=[f"{s.name}-{c.name}" for s, c in FILES])
def test_every_scenario_is_recorded_as_it_is_asked_for(script: Script, scenario: Scenario) -> None:
    recording = read_recording(RECORDED / f"{script.name}-{scenario.name}.jsonl")
    assert recording.settings == {**scenario.settings, "schemas": str(scenario.schemas).lower()}
    told = read_told(RECORDED / f"{script.name}.jsonl")
    assert (told.before, told.statements) == (script.before, script.statements)
    for table in script.told:
        # As Debezium makes a topic's name of it.
        topic = table.strip('"`').replace(" ", "_")
        assert recording.of_topic(f".{topic}")


def test_no_file_is_left_of_a_scenario_that_is_gone() -> None:
    wanted = {f"{script.name}.jsonl" for script, _ in FILES}
    wanted |= {f"{script.name}-{scenario.name}.jsonl" for script, scenario in FILES}
    assert {path.name for path in RECORDED.glob("*.jsonl")} == wanted
