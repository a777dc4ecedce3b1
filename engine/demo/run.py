"""The demo from the empty folder to the closing words."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.commands.output import Exit
from engine.demo import ending, folder, places
from engine.demo.daemon import DemoDaemon, concord
from engine.demo.database import SYSTEMS, Business
from engine.demo.day import Day
from engine.demo.seed import make_seed
from engine.demo.stage import Stage, duration
from engine.demo.steps import STEPS
from engine.errors import ConcordError
from engine.hub.transaction import HubTransaction
from engine.pipeline.topology import Topology
from engine.views.systems import status

PAUSE_SECONDS = 1.6


def run_demo(directory: Path, *, is_postgres: bool, is_fast: bool, replace: bool) -> bool:
    """Whether all three systems agree at the end. Raises `ConcordError` when something does not go as planned."""
    folder.prepare(directory, replace=replace)
    stage = Stage(0.0 if is_fast else PAUSE_SECONDS)
    with ExitStack() as stack:
        stack.enter_context(terminable())
        if is_postgres:
            stage.say("starting PostgreSQL in the folder ...")
        businesses = stack.enter_context(places.server(directory) if is_postgres else places.files(directory))
        seed = make_seed()
        stage.title("Three systems of one service company that have never heard of each other")
        folder.fill_systems(businesses, seed)
        folder.write_configuration(directory, businesses)
        for system in SYSTEMS:
            tables = ", ".join(f"{len(rows)} {table}" for table, (_, rows) in seed.rows[system].items())
            stage.say(f"   {system}: {tables}")
        stage.pause()
        daemon = stack.enter_context(DemoDaemon(directory, SYSTEMS))
        day = Day(directory, businesses, seed, daemon, stage)
        _begin(day)
        with stage.panel(lambda: daemon.pulses):
            _first_sync(day)
            for step in STEPS:
                step(day)
                stage.pause()
            stage.step("17:00", "Closing time: the daemon is told to stop (SIGTERM) and ends when all is delivered")
            daemon.stop()
        # What was only on its way, like the echo of the last delivery, is read once more before anything is compared.
        concord(directory, "run", "--once", "--log-level", "warning")
        count = ending.show(day, directory, is_postgres=is_postgres)
    return count == 0


def serve(directory: Path) -> None:
    """Run the server of a demo's folder until Ctrl-C, so that the other commands work there."""
    folder.require_served(directory)
    stage = Stage(0.0)
    with terminable(), places.running_server(directory) as server:
        places.move_port(directory / "concord.toml", server.port)
        stage.say(
            f"PostgreSQL serves crm, fsm and erp on port {server.port}; concord.toml says so too. Ctrl-C ends it."
        )
        stage.say(f"   psql '{server.dsn('crm')}'")
        while server.process.poll() is None:
            time.sleep(0.2)
    raise ConcordError("the server has ended", hint=f"Read {directory / places.SERVER / 'server.log'}.")


@contextmanager
def terminable() -> Generator[None]:
    """SIGTERM unwinds like Ctrl-C while the block lasts: no process may stay behind."""

    def unwind(number: int, frame: object) -> None:
        raise SystemExit(Exit.TERMINATED)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(day: Day) -> None:
    day.stage.title("concord setup: change capture and Concord's own tables in each; concord check: ready")
    concord(day.directory, "setup")
    concord(day.directory, "check")


def _first_sync(day: Day) -> None:
    day.stage.step("08:00", "concord run: the daemon starts and brings the systems together")
    started = time.monotonic()
    day.daemon.start()

    def settled(tx: HubTransaction, topology: Topology) -> bool:
        rows = status(tx, topology)
        return tx.last_seq > 0 and all(
            row.behind == 0 and row.copied.partition("/")[0] == row.copied.partition("/")[2] for row in rows
        )

    # The hub is made by the daemon; there is nothing to look at before it says that it runs.
    day.daemon.wait_started()
    day.until(settled, "the first copy")
    seconds = time.monotonic() - started
    found = day.forget_conflicts()
    counts = {b.system: _row_count(day, b) for b in day.businesses.values()}
    day.stage.fact(f"every system has every customer after {duration(seconds)}, start included: " + ", ".join(
        f"{system} {count:,} rows" for system, count in counts.items()))  # fmt: skip
    matched = sum(1 for c in day.seed.companies if c.systems > 1)
    day.stage.fact(f"{matched} customers were known to two systems or to all three; tax number and mail address told")
    for conflict in found:
        day.show_conflict(conflict)


def _row_count(day: Day, business: Business) -> int:
    place = {"crm": ("companies", "people", "sites", "installed_base", "service_cases", "case_effort", "bills",
                     "bill_lines"),
             "fsm": ("client", "person", "location", "equipment", "part", "part_price", "job", "labour"),
             "erp": ("customer", "ship_to", "article", "price", "invoice", "invoice_line")}  # fmt: skip
    return sum(business.read(f"select count(*) from {table}")[0][0] for table in place[business.system])
