"""The daemon, and what it is doing: run, status, compare."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.output import (
    Exit,
    age_text,
    count_of,
    count_text,
    execute,
    exit_code,
    name_text,
    note,
    note_error,
    print_json,
    print_table,
    say,
    say_cut,
    size_text,
)  # fmt: skip
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption
from engine.errors import ConcordError

if TYPE_CHECKING:
    from engine.compare import Difference
    from engine.daemon import Ending
    from engine.views.systems import BackfillRow, StatusRow

# Pauses double from half a second: about a minute.
ONCE_ATTEMPTS_MAX = 8
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def run(
    config: ConfigOption = DEFAULT,
    is_once: Annotated[
        bool, typer.Option("--once", help="Stop when everything that stands in the logs now is delivered.")
    ] = False,
    apply_plan: Annotated[
        Path | None,
        typer.Option("--apply-plan", help="Write only if the first sync is what `concord plan` said."),
    ] = None,
    slack: Annotated[
        int, typer.Option("--slack", min=0, help="With a plan: rows more than planned that are accepted in each table.")
    ] = 0,
    log_format: Annotated[str, typer.Option("--log-format", help="text or json.")] = "text",
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the daemon: capture, resolve and deliver until told to stop.

    SIGTERM, or Ctrl-C once, stops reading, delivers what the journal holds and ends; Ctrl-C twice ends now. Nothing is
    lost either way: it goes on from where it was. SIGHUP begins again with configuration, dictionary and mappings as
    their files are now, if these have no mistakes. Log lines go to stderr.

    With --apply-plan systems are read one after the other, as for the plan; when all have been read, it is worked out
    what the first sync comes to. Where that is more rows made or changed than planned, nothing is written and every
    target lane is halted. Once something was delivered the plan has done its work.

    With --once a system that does not answer is tried for about a minute, with growing pauses; then its lane is halted.

    Exit codes: 0 stopped in good order, 3 told to stop while a lane was halted (see `concord status`), 75 another
    daemon owns the hub, 78 configuration, 143 told to stop before all was delivered. With --once, when a lane was
    halted: 7 at a source, 8 at a target, 9 in the hub.
    """
    if log_level not in LEVELS or log_format not in ("text", "json"):
        raise typer.BadParameter("--log-level is debug, info, warning or error; --log-format is text or json")
    # The daemon leaves interrupts ignored, until the process has ended: it has ended itself, and says how.
    ending = execute(lambda: _run(config, is_once, apply_plan, slack, log_format, LEVELS[log_level]), is_json=False)
    for lane in ending.halted:
        error = lane.error
        note(f"halted: {lane.name}: {error.message if error else ''}")
        if error is not None and error.hint:
            note(f"next:   {error.hint}")
    if ending.halted:
        raise typer.Exit(_halted_code(ending))
    if not ending.is_drained and ending.signal is not None:
        raise typer.Exit(128 + ending.signal)


def _halted_code(ending: Ending) -> Exit:
    """Where it failed; of several, the first lane's. Told to stop, the daemon ended well, though not all of it ran."""
    codes = [(exit_code(lane.error), lane.direction) for lane in ending.halted if lane.error is not None]
    if any(code is Exit.ANOTHER_DAEMON for code, _ in codes):
        return Exit.ANOTHER_DAEMON
    if ending.signal is not None or not codes:
        return Exit.DIFFERENCES
    code, direction = codes[0]
    # A system that does not answer fails whoever asks it.
    return (Exit.TARGET if direction == "target" else Exit.SOURCE) if code is Exit.SOURCE else code


async def _run(file: Path, is_once: bool, plan_file: Path | None, slack: int, log_format: str, level: int) -> Ending:
    from engine.assemble import load_meaning, open_daemon
    from engine.config.load import load_config
    from engine.planning import read_plan
    from engine.telemetry.log import Log

    # The hub's threads need Python's lock for moments between statements; a lane that computes keeps it for a whole
    # interval. Measured with 5 ms, Python's own, and 0.5 ms: 2 to 7 percent more rows/s.
    sys.setswitchinterval(0.0005)
    # Batches are acyclic: the collector would only walk thousands of live tuples again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)
    log = Log(format=log_format, level=level)
    plan = None if plan_file is None else read_plan(plan_file)
    while True:
        async with open_daemon(load_config(file), log, plan, slack) as daemon:
            daemon.check_files = lambda: load_meaning(load_config(file))
            ending = await daemon.run(until_settled=is_once, attempts_max=ONCE_ATTEMPTS_MAX if is_once else None)
        if not ending.is_reload or ending.signal is not None:
            return ending


def status(
    config: ConfigOption = DEFAULT,
    is_offline: Annotated[bool, typer.Option("--offline", help="Ask the hub alone, not the systems.")] = False,
    is_json: JsonOption = False,
) -> None:
    """Show each system's lanes: state, lag, age, what is parked, and the last error with its next step.

    reads, writes: the lane's state, or its rows a second while it is busy. changed: since the last change that was
    read. behind: journal entries to be delivered. lag, kept: bytes of log to be read, and bytes that the server keeps
    for us.

    Exit codes: 0 healthy, 3 no daemon runs, a system does not answer, or something is halted, paused, parked, held or
    waits for a review.
    """
    execute(lambda: _status(config, is_offline, is_json), is_json=is_json)


async def _status(file: Path, is_offline: bool, is_json: bool) -> None:
    import msgspec

    from engine.assemble import load_meaning, make_system, open_view
    from engine.config.load import load_config
    from engine.hub.sqlite import lock_owner
    from engine.runtime.clock import SystemClock
    from engine.views.systems import backfills as read_backfills
    from engine.views.systems import status as read_status

    config = load_config(file)
    owner = lock_owner(config.hub)
    with open_view(config, load_meaning(config)) as (tx, topology):
        rows, backfills = read_status(tx, topology), read_backfills(tx, 0, only_open=True)
        journal = tx.last_seq
    remarks: list[str] = []
    for system, row in zip(config.systems, rows, strict=True):
        if owner is None:
            row.reads = "-" if row.reads == "-" else "stopped"
            row.writes = "-" if row.writes == "-" else "stopped"
        if is_offline:
            continue
        try:
            health = await make_system(system).health()
            row.retained_bytes, row.lag_bytes = health.retained_bytes, health.lag_bytes
        except ConcordError as error:
            remarks.append(f"{system.name}: {error}")
    healthy = owner is not None and not remarks and all(_is_healthy(row) for row in rows)
    healthy = healthy and not any(row.state == "failed" for row in backfills)
    if is_json:
        systems = [msgspec.to_builtins(row) for row in rows]
        print_json(
            {
                "daemon": owner, "journal": journal, "healthy": healthy, "systems": systems, "remarks": remarks,
                "backfills": [msgspec.to_builtins(row) for row in backfills],
            }
        )  # fmt: skip
    else:
        now = SystemClock().now()
        say(f"daemon: {'not running' if owner is None else f'process {owner}'}    journal: {journal:,} entries")
        print_table(
            "",
            ("system", "reads", "writes", "changed", "behind", "lag", "kept", "parked", "confl.", "review"),
            [
                (
                    row.system,
                    _lane_text(row.reads, row.read_rate),
                    _lane_text(row.writes, row.write_rate),
                    age_text((now - row.captured_at) / 1e6) if row.captured_at else "-",
                    row.behind,
                    size_text(row.lag_bytes),
                    size_text(row.retained_bytes),
                    row.parked,
                    row.conflicts,
                    row.reviews,
                )
                for row in rows
            ],
            empty="no system is configured",
        )
        said: list[str] = []
        for row in rows:
            # Both lanes of a system that is away have met the same, and so do we.
            for text in dict.fromkeys((*row.errors, *row.held)):
                message, _, hint = text.partition("\n")
                said.append(f"{row.system}: {message}")
                say(said[-1] + (f"\n    next: {hint}" if hint else ""))
        for row in reversed(backfills):
            say(f"{row.system}: backfill {row.id} of {row.table}: {_backfill_text(row)}")
        for remark in remarks:
            if not remark.startswith(tuple(said)):
                say(remark)
    if not healthy:
        raise typer.Exit(Exit.DIFFERENCES)


def _lane_text(state: str, rate: float) -> str:
    """A lane in few letters: what it is, or how busy."""
    return f"{count_text(rate)}/s" if state == "running" and rate else state


def _backfill_text(row: BackfillRow) -> str:
    """How far it is, and what to do where it does not go on by itself."""
    rows = f"{row.rows_read:,}{'' if row.rows_total is None else f' of {row.rows_total:,}'} rows"
    if row.state == "failed":
        return f"{rows}, failed: {row.message}\n    next: mend that, then `concord backfill --resume {row.id}`"
    if row.state == "paused":
        return f"{rows}, paused"
    return f"{rows}, {count_text(row.rate)}/s, {age_text(row.seconds_left)} left"


def _is_healthy(row: StatusRow) -> bool:
    states = {row.reads, row.writes} - {"-"}
    return states <= {"running", "starting"} and not (row.parked or row.held or row.reviews)


def compare(
    entity: Annotated[list[str] | None, typer.Argument(help="Entities to compare; all without it.")] = None,
    config: ConfigOption = DEFAULT,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Differences shown for each table, 0 for all.")] = 20,
    is_json: JsonOption = False,
) -> None:
    """Compare every mapped row of every system with the canonical record, field by field.

    Changes that are still on their way are counted apart, and so is what is parked or waits for a review. Exact when
    nobody writes. What differs is made to agree by `concord rewrite`, from the hub to a system, or `concord backfill`,
    from a system to all others.

    Exit codes: 0 all agree, 3 there are differences, 7 a table could not be read and is not compared.
    """
    execute(lambda: _compare(config, frozenset(entity or ()), limit, is_json), is_json=is_json)


async def _compare(file: Path, entities: frozenset[str], limit: int, is_json: bool) -> None:
    from engine.assemble import load_meaning, make_system, open_view
    from engine.compare import Agreement, Comparison, differences
    from engine.config.load import load_config
    from engine.errors import no_such
    from engine.views.waiting import count_reviews

    config = load_config(file)
    meaning = load_meaning(config)
    for name in entities:
        if meaning.dictionary.entity(name) is None:
            raise no_such("entity", name, (e.name for e in meaning.dictionary.entities))
    found: list[Agreement] = []
    is_terminal = sys.stderr.isatty()
    with open_view(config, meaning) as (tx, topology):
        comparison, reviews = Comparison(tx, topology, limit or sys.maxsize), count_reviews(tx)
        for system in config.systems:

            def progress(table: str, rows: int, name: str = system.name) -> None:
                if is_terminal:
                    sys.stderr.write(f"\r{name}: {table}: {rows:,} rows\x1b[K")

            part = topology.named(system.name)
            live = make_system(system, part.mapping)
            found.extend(await comparison.compare(part, live, entities, progress))
    if is_terminal:
        sys.stderr.write("\r\x1b[K")
    count = differences(found)
    waiting = sum(agreement.parked for agreement in found)
    if is_json:
        tables = [asdict(agreement) for agreement in found]
        print_json({"differences": count, "parked": waiting, "reviews": reviews, "tables": tables})
    else:
        print_table(
            "",
            ("entity", "system", "table", "rows", "agree", "on the way", "parked", "differ"),
            [
                (a.entity, a.system, a.table, a.rows, a.agree, a.on_their_way, a.parked,
                 "not read" if a.problem else a.differ)
                for a in found
            ],
            empty="nothing is mapped",
        )  # fmt: skip
        shown = [d for agreement in found for d in agreement.differences]
        real = [d for d in shown if d.kind != "parked"]
        if shown:
            print_table(
                "",
                ("system", "table", "key", "record", "what", "fields"),
                [(d.system, d.table, d.key, name_text(d.rid), d.kind, d.field or d.detail) for d in shown],
                empty="",
            )
        for a in found:
            say_cut(len(a.differences), a.differ + a.parked, f"{a.system}, table {a.table}: ")
        if count or comparison.unread:
            say(count_of(count, "difference") + (" in what could be read" if comparison.unread else ""))
        else:
            say("no differences but what waits" if waiting or reviews else "all systems agree")
        for text in _next_steps(real, waiting, reviews):
            say(f"  {text}")
        for error in {str(error): error for error in comparison.unread}.values():
            note_error(error)
    if comparison.unread:
        raise typer.Exit(exit_code(comparison.unread[0]))
    if count:
        raise typer.Exit(Exit.DIFFERENCES)


def _next_steps(found: list[Difference], parked: int, reviews: int) -> Iterator[str]:
    """What to do about differences, each command once and with the first that it is for."""
    known = next((d for d in found if d.rid is not None and d.kind in ("field", "missing", "deleted")), None)
    if known is not None:
        yield f"concord explain {known.rid}: how it came about"
        missing = " --missing" if known.kind == "missing" else ""
        yield f"concord rewrite {known.rid} --system {known.system}{missing}: write it there again, as it is now"
    theirs = next((d for d in found if d.kind in ("field", "extra")), None)
    if theirs is not None:
        yield f"concord backfill {theirs.system}: take what stands there, in all its tables, as changes"
    if parked or any(d.kind == "unreadable" for d in found):
        yield "concord parked list: what a target refused, and rows that cannot be read"
    if reviews:
        yield f"concord review list: {count_of(reviews, 'row waits', 'rows wait')} for a decision which record it is"
