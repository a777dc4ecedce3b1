"""How the day ends: do the systems agree, what was moved, what waits, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import anyio

from engine.assemble import make_system, open_view
from engine.commands.output import print_table
from engine.compare import Agreement, Comparison
from engine.demo.day import Day
from engine.demo.stage import Stage
from engine.views.systems import status
from engine.views.waiting import conflicts, parked, reviews

LIMIT = 1000


def compare(day: Day) -> list[Agreement]:
    """Every mapped row of every system against the canonical record, as `concord compare` does it."""

    async def work() -> list[Agreement]:
        found: list[Agreement] = []
        with open_view(day.config, day.meaning) as (tx, topology):
            comparison = Comparison(tx, topology, LIMIT)
            for system in day.config.systems:
                part = topology.named(system.name)
                found.extend(await comparison.compare(part, make_system(system, part.mapping), frozenset()))
        for error in comparison.unread:
            raise error
        return found

    return anyio.run(work)


def unexplained(agreements: Sequence[Agreement]) -> int:
    """Differences that nobody has been told of: parked records are known, listed and waiting."""
    count = 0
    for agreement in agreements:
        count += agreement.differ + agreement.on_their_way
    return count


def show_comparison(stage: Stage, agreements: Sequence[Agreement]) -> None:
    stage.title("Do the three systems agree? Every mapped row, field by field:")
    rows = [
        (a.entity, a.system, a.table, a.rows, a.agree, a.parked, a.differ)
        for a in sorted(agreements, key=lambda a: a.entity)
    ]  # fmt: skip
    print_table("", ("entity", "system", "table", "rows", "agree", "parked", "differ"), rows, empty="nothing is mapped")


def show_counts(day: Day) -> None:
    with open_view(day.config, day.meaning) as (tx, topology):
        rows = status(tx, topology)
        recorded = len(conflicts(tx, limit=LIMIT))
        waiting, doubtful = parked(tx, limit=LIMIT), reviews(tx, LIMIT)
    stage = day.stage
    read, written = sum(r.rows_read - r.rows_echoed for r in rows), sum(r.rows_written for r in rows)
    stage.say(
        f"{read:,} changes read from the logs, {written:,} rows written, {recorded} conflicts on record,"
        f" {len(waiting)} parked, {len(doubtful)} to review, {day.daemon.starts} starts of the daemon"
    )
    for row in waiting:
        stage.say(f"parked {row.id}: {row.message}.")
        stage.say(
            "   Shorten the name in the CRM; the daemon tries again by itself, at once after"
            f" `concord parked retry {row.id}`. Until then the {row.system.upper()} is without it."
        )
    for row in doubtful:
        names = " or ".join(f"record {rid} ({values.get('name')})" for rid, values in row.candidates)
        stage.say(f"review {row.id}: a {row.table} of the {row.system} is {names}; only a person can say:")
        stage.say(f"   concord review link {row.id} RECORD, or concord review new {row.id}")


def show(day: Day, directory: Path, *, is_postgres: bool) -> int:
    """The comparison, the counts and the closing words; returns how many rows differ that nobody has been told of."""
    agreements = compare(day)
    show_comparison(day.stage, agreements)
    count = unexplained(agreements)
    day.stage.say("all three systems agree" if not count else f"{count} rows differ: run `concord compare`")
    show_counts(day)
    show_next(day, directory, is_postgres=is_postgres)
    return count


def show_next(day: Day, directory: Path, *, is_postgres: bool) -> None:
    stage = day.stage
    stage.title("What to try next")
    lines = [f"cd {shlex.quote(str(directory))}"]
    if is_postgres:
        lines.append("concord demo --serve . &      # the server has been stopped; the commands below need it")
    lines += [
        "concord status",
        f"concord explain {day.to_explain[0]}",
        f"concord explain {day.to_explain[1]} --field mobile",
        "concord conflicts",
        "concord review list",
        "concord parked list",
        "concord run            # then change a row in any of the three databases",
    ]
    for line in lines:
        stage.say(f"   {line}")
