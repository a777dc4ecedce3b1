"""Before the first sync: what it would do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.output import Exit, count_of, execute, note, print_json, print_table, say
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption

if TYPE_CHECKING:
    from engine.planning import Plan, PlannedPlace


def plan(
    config: ConfigOption = DEFAULT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the plan in this file, for `concord run --apply-plan`.")
    ] = None,
    is_json: JsonOption = False,
) -> None:
    """Say what the first sync would do: which rows are one record, what is made where, which values are replaced.

    Reads every mapped row of all systems, decides in a hub of its own, and writes nothing. Its samples are values of
    your rows: keep the plan where you keep these.

    Exit codes: 0 nothing waits for a person, 3 rows are ambiguous or cannot be read or written, 7 a table could not be
    read.

    Example: concord plan -o plan.json
    """
    execute(lambda: _plan(config, output, is_json), is_json=is_json)


async def _plan(file: Path, output: Path | None, is_json: bool) -> None:
    import msgspec

    from engine.assemble import load_meaning, make_system, register
    from engine.config.load import load_config
    from engine.planning import Planner, hub_of_its_own, looked_at, read_system

    config = load_config(file)
    meaning = load_meaning(config)
    said = _said if sys.stderr.isatty() else _silent
    async with hub_of_its_own() as hub:
        topology = register(hub, config, meaning)
        parts = [topology.named(system.name) for system in config.systems]
        systems = [
            (part, make_system(system, part.mapping)) for part, system in zip(parts, config.systems, strict=True)
        ]
        for part, system in systems:
            if part.is_source:
                await read_system(hub, topology, part, system, said)
        with looked_at(hub) as tx:
            found = await Planner(tx, topology).plan(systems, said)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if output is not None:
        _keep(output, msgspec.json.format(msgspec.json.encode(found), indent=2))
        note(f"kept in {output}; `concord run --apply-plan {output}` does this and no more")
    if is_json:
        print_json(msgspec.to_builtins(found))
    else:
        _show(found)
    if any(place.problem for place in found.places):
        raise typer.Exit(Exit.SOURCE)
    if any(place.ambiguous or place.unreadable or place.refused for place in found.places):
        raise typer.Exit(Exit.DIFFERENCES)


def _said(system: str, table: str, rows: int) -> None:
    sys.stderr.write(f"\r{system}: {table}: {rows:,} rows\x1b[K")


def _silent(system: str, table: str, rows: int) -> None:
    """Nobody watches."""


def _keep(file: Path, text: bytes) -> None:
    """For its owner alone: it has values of rows."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(text + b"\n")


def _show(found: Plan) -> None:
    places = found.places
    print_table(
        "",
        ("entity", "system", "table", "rows", "linked", "same", "create", "overwrite", "ambiguous", "waits"),
        [
            (p.entity, p.system, p.table, p.rows, p.linked, p.same, p.create, p.overwrite, p.ambiguous,
             "not read" if p.problem else p.unreadable + sum(p.refused.values()))
            for p in places
        ],
        empty="nothing is mapped",
    )  # fmt: skip
    changed = [(p, name, count) for p in places for name, count in p.fields.items()]
    if changed:
        say()
        print_table(
            "values that would be replaced",
            ("entity", "system", "field", "records", "for example", "here", "becomes", "as in"),
            [(p.entity, p.system, name, count, *_sample(p, name)) for p, name, count in changed],
            empty="",
        )
    for p in places:
        for message, count in p.refused.items():
            say(f"{p.system}: {count_of(count, 'record')} would be parked: {message}")
        if p.unreadable:
            say(f"{p.system}, table {p.table}: {count_of(p.unreadable, 'row')} cannot be read by the mapping")
        if p.ambiguous:
            say(
                f"{p.system}, table {p.table}: {count_of(p.ambiguous, 'row matches', 'rows match')} several records;"
                " `concord review list` shows them once the daemon has read"
            )
        if p.problem:
            say(f"{p.system}, table {p.table}: {p.problem}")
    for remark in found.remarks:
        say(remark)
    creates, overwrites = sum(p.create for p in places), sum(p.overwrite for p in places)
    say(f"{count_of(creates, 'row')} would be created, {count_of(overwrites, 'row')} changed; nothing was written")


def _sample(place: PlannedPlace, name: str) -> tuple[str, str, str, str]:
    sample = next(s for s in place.samples if s.field == name)
    return sample.key, _value(sample.here), _value(sample.wanted), sample.said_by or "-"


def _value(value: object) -> str:
    return "null" if value is None else str(value)
