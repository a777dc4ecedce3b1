"""Messages of real Debezium connectors, kept as files: how they are written and read.

A file is JSON lines, each an object with one name. `SCRIPT.jsonl` tells what users did and what was true then:

    {"statement": "insert …"}                            what users did, in order
    {"snapshot": true}                                    the moment when the connectors were started
    {"row": {"table": …, "values": {column: text}}}       what a table held in the end, in the database's own text

and `SCRIPT-SCENARIO.jsonl` what a connector made of that:

    {"about": {"script": …, "settings": {…}}}             the first line
    {"schema": "{…}"}                                     the schema of a message, which many share; counted from 0
    {"record": {…}}                                       one message; by topic, partition and offset

A record has topic, partition, offset, timestamp, key, value, headers. A key or value is null, a text, or
`{"schema": number, "payload": text}` for `{"schema":…,"payload":…}` as the converter spells it. What a database gives
as bytes is `{"hex": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.testing.kafka.client import Record

RECORDED = Path(__file__).parents[1] / "kafka_source" / "recorded"
SCHEMA_FIRST = '{"schema":'
PAYLOAD = ',"payload":'
Text = str | bytes | None
"""A value as a database spells it; bytes where its type is one of bytes, None for null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What users did, before the connectors were started and after, and what the tables held in the end."""

    before: tuple[str, ...]
    statements: tuple[str, ...]
    rows: tuple[tuple[str, dict[str, Text]], ...]

    def rows_of(self, table: str) -> list[dict[str, Text]]:
        return [row for name, row in self.rows if name == table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a connector with these settings made of a script."""

    script: str
    settings: dict[str, str]
    records: tuple[Record, ...]

    def of_topic(self, end: str) -> list[Record]:
        """The records of the topics whose name ends so, in their order."""
        return [record for record in self.records if record.topic.endswith(end)]


def write_told(path: Path, told: Told) -> None:
    lines: list[dict[str, Any]] = [{"statement": statement} for statement in told.before]
    lines.append({"snapshot": True})
    lines += [{"statement": statement} for statement in told.statements]
    for table, values in told.rows:
        spelled = {name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in values.items()}
        lines.append({"row": {"table": table, "values": spelled}})
    _write_lines(path, lines)


def read_told(path: Path) -> Told:
    before: list[str] = []
    statements: list[str] = []
    rows: list[tuple[str, dict[str, Text]]] = []
    present = before
    for line in _read_lines(path):
        match line:
            case {"statement": statement}:
                present.append(statement)
            case {"snapshot": True}:
                present = statements
            case {"row": {"table": table, "values": values}}:
                rows.append((table, {name: _unhex(value) for name, value in values.items()}))
            case other:
                raise ValueError(f"{path}: a line that tells nothing known: {list(other)}")
    return Told(before=tuple(before), statements=tuple(statements), rows=tuple(rows))


def write_recording(path: Path, recording: Recording) -> None:
    lines: list[dict[str, Any]] = [{"about": {"script": recording.script, "settings": recording.settings}}]
    schemas = _Schemas(lines)
    for record in recording.records:
        spelled = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": schemas.shorten(record.key),
            "value": schemas.shorten(record.value),
            "headers": [[name, None if value is None else value.decode()] for name, value in record.headers],
        }
        lines.append({"record": spelled})
    _write_lines(path, lines)


def read_recording(path: Path) -> Recording:
    schemas: list[str] = []
    records: list[Record] = []
    about: dict[str, Any] = {}
    for line in _read_lines(path):
        match line:
            case {"about": found}:
                about = found
            case {"schema": schema}:
                schemas.append(schema)
            case {"record": record}:
                records.append(_record(record, schemas))
            case other:
                raise ValueError(f"{path}: a line that is none of a recording: {list(other)}")
    return Recording(script=about["script"], settings=about["settings"], records=tuple(records))


@dataclass(slots=True)
class _Schemas:
    """The schemas met, each told once, in `lines`, before its first record."""

    lines: list[dict[str, Any]]
    known: dict[str, int] = field(default_factory=dict[str, int])

    def shorten(self, content: bytes | None) -> str | dict[str, Any] | None:
        if content is None:
            return None
        text = content.decode()
        if not text.startswith(SCHEMA_FIRST):
            return text
        _, end = json.JSONDecoder().raw_decode(text, len(SCHEMA_FIRST))
        schema, rest = text[len(SCHEMA_FIRST) : end], text[end:]
        if not (rest.startswith(PAYLOAD) and rest.endswith("}")):
            return text
        if schema not in self.known:
            self.known[schema] = len(self.known)
            self.lines.append({"schema": schema})
        return {"schema": self.known[schema], "payload": rest[len(PAYLOAD) : -1]}


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8", newline="")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    # Not by splitlines, which also splits at what JSON leaves as it is.
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _record(record: dict[str, Any], schemas: Sequence[str]) -> Record:
    return Record(
        topic=record["topic"],
        partition=record["partition"],
        offset=record["offset"],
        timestamp=record["timestamp"],
        key=_content(record["key"], schemas),
        value=_content(record["value"], schemas),
        headers=tuple((name, None if value is None else value.encode()) for name, value in record["headers"]),
    )


def _content(spelled: Any, schemas: Sequence[str]) -> bytes | None:
    if spelled is None:
        return None
    if isinstance(spelled, str):
        return spelled.encode()
    return f"{SCHEMA_FIRST}{schemas[spelled['schema']]}{PAYLOAD}{spelled['payload']}}}".encode()


def _unhex(value: Any) -> Text:
    match value:
        case {"hex": digits}:
            return bytes.fromhex(digits)
        case _:
            return value
