"""What is recorded: settings of connectors, by what they are about. See `record`."""

from __future__ import annotations

from dataclasses import dataclass

TIME_MODES = ("adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds")
DECIMAL_MODES = ("precise", "string", "double")
BINARY_MODES = ("bytes", "base64", "base64-url-safe", "hex")
TOMBSTONE_MODES = ("drop", "tombstone", "rewrite", "rewrite-with-tombstone", "delete-to-tombstone")
ALL_CHANGES = {"skipped.operations": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One file: a connector's settings, beyond what they all have, over the statements of a script."""

    name: str
    settings: dict[str, str]
    schemas: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What users do: `before` the connectors start and after, and the tables that tell what is true then.

    The table `done` is the recorder's.
    """

    name: str
    before: tuple[str, ...]
    statements: tuple[str, ...]
    told: tuple[str, ...]
    scenarios: tuple[Scenario, ...]


def with_and_without_schema(name: str, settings: dict[str, str]) -> tuple[Scenario, Scenario]:
    return (
        Scenario(name=name, settings=settings, schemas=True),
        Scenario(name=f"{name}-schemaless", settings=settings, schemas=False),
    )


def type_scenarios(time_modes: tuple[str, ...], *more: Scenario) -> tuple[Scenario, ...]:
    """Every mode of times, of decimals and of bytes."""
    found = list(more)
    for mode in time_modes:
        found += with_and_without_schema(f"time-{mode}", {"time.precision.mode": mode})
    for mode in DECIMAL_MODES[1:]:
        found += with_and_without_schema(f"decimal-{mode}", {"decimal.handling.mode": mode})
    for mode in BINARY_MODES[1:]:
        found.append(Scenario(name=f"binary-{mode}", settings={"binary.handling.mode": mode}, schemas=True))
    propagated = {"column.propagate.source.type": ".*"}
    found.append(Scenario(name="source-types", settings=propagated, schemas=True))
    return tuple(found)


def change_scenarios(source_fields: str) -> tuple[Scenario, ...]:
    """The envelope with all that can be asked for beside it, and the flattened form with every way to tell a deletion.

    `source_fields` are those of the envelope's `source` that the flattened form shall keep.
    """
    asked = {
        **ALL_CHANGES,
        "provide.transaction.metadata": "true",
        "heartbeat.interval.ms": "1000",
        "include.schema.changes": "true",
    }
    found = [
        *with_and_without_schema("envelope", ALL_CHANGES),
        *with_and_without_schema("envelope-transactions", asked),
        *with_and_without_schema("envelope-without-tombstones", {**ALL_CHANGES, "tombstones.on.delete": "false"}),
    ]
    for mode in TOMBSTONE_MODES:
        found += with_and_without_schema(f"flat-{mode}", {**ALL_CHANGES, **_flattened(mode, source_fields)})
    bare = {**ALL_CHANGES, **_flattened("rewrite-with-tombstone", "")}
    found += with_and_without_schema("flat-bare", bare)
    return tuple(found)


def signal_scenarios(table: str) -> tuple[Scenario, Scenario]:
    """Rows that are read again, in chunks of two, because the table of signals says so."""
    settings = {
        "signal.data.collection": table,
        "signal.poll.interval.ms": "200",
        "incremental.snapshot.chunk.size": "2",
    }
    return with_and_without_schema("envelope", settings)


def _flattened(tombstone_mode: str, source_fields: str) -> dict[str, str]:
    fields = {"transforms.flat.add.fields": source_fields, "transforms.flat.add.headers": "op,source.table"}
    return {
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.flat.delete.tombstone.handling.mode": tombstone_mode,
        **(fields if source_fields else {}),
    }
