"""Before the daemon runs: check, setup, teardown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.output import Exit, attempt, confirm, count_of, execute, note, print_json, say

if TYPE_CHECKING:
    from engine.config.model import Config, SystemConfig
    from engine.ports import Finding

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SystemArgument = Annotated[str | None, typer.Argument(help="A system of the configuration; all without it.")]
DEFAULT = Path("concord.toml")


def check(config: ConfigOption = DEFAULT, system: SystemArgument = None, is_json: JsonOption = False) -> None:
    """Check the configuration, the mappings and their examples, and every system it can reach.

    Changes nothing. Prints each problem with its place and, where there is one, the exact SQL that mends it.

    Example: concord check crm
    """
    execute(lambda: _check(config, system, is_json), is_json=is_json)


async def _check(file: Path, only: str | None, is_json: bool) -> None:
    from crosswalk.check import Placed, senders_to
    from crosswalk.check import check as check_place
    from engine.assemble import (
        chosen_systems,
        load_meaning,
        make_system,
        role_of,
        tables_of,
        unkept_findings,
    )
    from engine.config.load import load_config
    from engine.errors import ConcordError
    from engine.ports import Finding, Role

    config = load_config(file)
    chosen = chosen_systems(config, only)
    meaning = load_meaning(config)
    results: list[tuple[str, Finding]] = [("dictionary", remark) for remark in meaning.remarks]
    placed: list[Placed] = []
    for system in chosen:
        mapping = meaning.mappings[system.name]
        try:
            live = make_system(system, mapping)
            tables = tables_of(mapping)
            results.extend((system.name, finding) for finding in await live.check(tables, role_of(system)))
            shapes = await live.shapes(tables)
            for place in mapping.places:
                entity = meaning.dictionary.entity(place.entity)
                shape = shapes.get(place.table)
                if shape is not None and entity is not None:
                    placed.append((system.name, place, shape, entity))
        except ConcordError as error:
            results.append((system.name, Finding(path="connection", message=error.message, hint=error.hint)))
    # What a column is sent is known only when all systems have been looked at.
    are_all = {name for name, *_ in placed} == {system.name for system in config.systems}
    sources = {system.name for system in chosen if Role.SOURCE in role_of(system)}
    sending = [found for found in placed if found[0] in sources]
    for name, place, shape, entity in placed:
        senders = senders_to(name, sending) if are_all else None
        results.extend((name, finding) for finding in check_place(place, shape, entity, senders))
    seen = {(name, place.table): shape for name, place, shape, _ in placed}
    names = {system.name for system in chosen}
    results.extend(found for found in unkept_findings(config, meaning, seen) if found[0] in names)
    fatal = [finding for _, finding in results if finding.is_fatal]
    if is_json:
        print_json(
            {
                "systems": [system.name for system in chosen],
                "findings": [
                    {"system": name, "path": f.path, "message": f.message, "hint": f.hint, "sql": f.sql,
                     "is_fatal": f.is_fatal, "by_setup": f.by_setup}
                    for name, f in results
                ],
            }
        )  # fmt: skip
    else:
        for name, finding in results:
            # What `concord setup` does is told in one line below: nobody has to run its SQL by hand.
            if not (finding.by_setup and finding.is_fatal):
                _say_finding(name, finding)
        for system in chosen:
            steps = [f"{f.path}: {f.message}" for n, f in results if n == system.name and f.by_setup and f.is_fatal]
            if steps:
                missing = count_of(len(steps), "step is missing", "steps are missing")
                say(f"{system.name}: problem: not set up, {missing}")
                for step in steps:
                    say(f"    {step}")
                say(f"    Run `concord setup {system.name}`; with --dry-run it prints the SQL.")
        names = ", ".join(system.name for system in chosen)
        if fatal:
            remarks = count_of(len(results) - len(fatal), "remark")
            say(f"{count_of(len(fatal), 'problem')}, {remarks} ({names})")
        else:
            say(f"ready: {names} ({count_of(len(results), 'remark')})")
    if fatal:
        raise typer.Exit(Exit.DIFFERENCES)


def _say_finding(system: str, finding: Finding) -> None:
    say(f"{system}: {'problem' if finding.is_fatal else 'remark'}: {finding.path}: {finding.message}")
    if finding.hint:
        say(f"    {finding.hint}")
    if finding.sql:
        say("    " + finding.sql.strip().replace("\n", "\n    "))


def setup(
    config: ConfigOption = DEFAULT,
    system: SystemArgument = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Print the SQL and do nothing.")] = False,
    is_json: JsonOption = False,
) -> None:
    """Make the systems ready: publication and slot, or triggers; marker and identity tables.

    Prints the exact SQL, so that a DBA can run it instead (--dry-run). Safe to repeat; a log position that was lost is
    never made anew.

    Example: concord setup --dry-run
    """
    execute(lambda: _setup(config, system, is_dry, is_json), is_json=is_json)


async def _setup(file: Path, only: str | None, is_dry: bool, is_json: bool) -> None:
    from engine.assemble import chosen_systems, load_meaning, make_system, role_of, tables_of
    from engine.config.load import load_config

    config = load_config(file)
    meaning = load_meaning(config)
    done: list[dict[str, str]] = []
    for system in chosen_systems(config, only):
        mapping = meaning.mappings[system.name]
        live, tables = make_system(system, mapping), tables_of(mapping)
        steps = await (live.plan if is_dry else live.setup)(tables, role_of(system))
        done.extend({"system": system.name, "summary": step.summary, "sql": step.sql} for step in steps)
        if not is_json:
            for step in steps:
                say(f"-- {system.name}: {step.summary}\n{step.sql.strip()}\n")
            note(f"{system.name}: {'nothing to do' if not steps else 'not run' if is_dry else 'ready'}")
    if is_json:
        print_json({"steps": done, "is_done": not is_dry})


def teardown(
    system: Annotated[str, typer.Argument(help="The system to take out.")],
    config: ConfigOption = DEFAULT,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: JsonOption = False,
) -> None:
    """Remove from one system everything that `setup` made. Its log position and its marker are lost with it.

    The hub remembers what it has delivered there: set up again, it refuses the system until the marker is put back,
    for which this prints what the marker said; the plugin's chapter tells how.

    Example: concord teardown crm --yes
    """
    from engine.assemble import named_system
    from engine.config.load import load_config

    settings = attempt(lambda: load_config(config), is_json=is_json)
    chosen = attempt(lambda: named_system(settings, system), is_json=is_json)
    attempt(lambda: _need_no_daemon(settings, system), is_json=is_json)
    if not is_sure:
        confirm(
            f"Remove slot, publication or triggers, marker and identity tables from {system}? "
            "Changes made from then on are not captured, and this hub will not write to it again"
        )
    execute(lambda: _teardown(chosen, is_json), is_json=is_json)


def _need_no_daemon(config: Config, system: str) -> None:
    """Raises `NotNow` while a daemon reads the log that is to go."""
    from engine.errors import NotNow
    from engine.hub.sqlite import lock_owner

    owner = lock_owner(config.hub)
    if owner is not None:
        raise NotNow(
            f"the daemon (process {owner or 'unknown'}) reads and writes system {system}",
            hint="Stop it first, or take the system out of its configuration.",
        )


async def _teardown(system: SystemConfig, is_json: bool) -> None:
    from engine.assemble import make_system

    name, steps = system.name, await make_system(system).teardown()
    if is_json:
        print_json({"steps": [{"summary": step.summary, "sql": step.sql} for step in steps]})
        return
    for step in steps:
        say(f"-- {name}: {step.summary}\n{step.sql.strip()}\n")
    note(f"{name}: {'nothing was there' if not steps else 'removed'}")
