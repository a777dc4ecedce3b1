"""What every step of the day uses: the three systems, the daemon, the hub for reading, and the audience."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from engine.assemble import Meaning, load_meaning, open_view
from engine.config.load import load_config
from engine.config.model import Config
from engine.demo.daemon import DemoDaemon
from engine.demo.database import Business
from engine.demo.seed import Company, Seed
from engine.demo.stage import Stage, duration
from engine.errors import ConcordError
from engine.hub.transaction import HubTransaction
from engine.pipeline.topology import Topology
from engine.views.records import find_record
from engine.views.waiting import ConflictRow, conflicts

T = TypeVar("T")
WATCH_SECONDS = 0.01
WATCH_SECONDS_MAX = 45.0


@dataclass(slots=True)
class Watch:
    """Something that is to become visible: a query of one system that gives a row then. `row` and `seconds` when it
    has."""

    business: Business
    text: str
    values: tuple[object, ...]
    row: tuple[Any, ...] | None = None
    seconds: float = 0.0


@dataclass
class Day:
    """The demo while it runs. `to_explain`: records that the closing words name."""

    directory: Path
    businesses: dict[str, Business]
    seed: Seed
    daemon: DemoDaemon
    stage: Stage
    conflicts_seen: int = 0
    to_explain: list[str] = field(default_factory=lambda: [])

    @property
    def crm(self) -> Business:
        return self.businesses["crm"]

    @property
    def fsm(self) -> Business:
        return self.businesses["fsm"]

    @property
    def erp(self) -> Business:
        return self.businesses["erp"]

    @cached_property
    def config(self) -> Config:
        return load_config(self.directory / "concord.toml")

    @cached_property
    def meaning(self) -> Meaning:
        return load_meaning(self.config)

    def known_everywhere(self) -> list[Company]:
        """Customers that all three systems knew before they met."""
        return [c for c in self.seed.companies if c.systems == len(self.businesses)]

    def view(self, read: Callable[[HubTransaction, Topology], T]) -> T:
        with open_view(self.config, self.meaning) as (tx, topology):
            return read(tx, topology)

    def record(self, name: str) -> int:
        rid = self.view(lambda tx, topology: find_record(tx, topology, name))
        if rid is None:
            raise ConcordError(f"the hub has no record {name}", hint="Report this; the demo expects it.")
        return rid

    def watch(self, *watches: Watch, since: float | None = None) -> None:
        """Look until every watch has its row. Raises `ConcordError` when one does not come."""
        started = time.monotonic() if since is None else since
        left = list(watches)
        connections: dict[str, Any] = {}
        with _closing(connections):
            for watch in watches:
                name = watch.business.system
                if name not in connections:
                    manager = watch.business.connect()
                    connections[name] = (manager, manager.__enter__())
            while left:
                for watch in list(left):
                    rows = watch.business.run(connections[watch.business.system][1], watch.text, *watch.values)
                    if rows:
                        watch.row, watch.seconds = rows[0], max(0.0, time.monotonic() - started)
                        left.remove(watch)
                if left:
                    self.daemon.require_running()
                    if time.monotonic() - started > WATCH_SECONDS_MAX:
                        raise ConcordError(
                            f"what the demo waited for did not come to the {left[0].business.system}: {left[0].text}",
                            hint=f"Run `concord status` in {self.directory}, and read its daemon.log.",
                        )
                    time.sleep(WATCH_SECONDS)

    def until(self, read: Callable[[HubTransaction, Topology], T], what: str) -> T:
        """Look into the hub until `read` gives something."""
        started = time.monotonic()
        while True:
            found = self.view(read)
            if found:
                return found
            self.daemon.require_running()
            if time.monotonic() - started > WATCH_SECONDS_MAX:
                raise ConcordError(
                    f"{what} did not come", hint=f"Run `concord status` in {self.directory}, and read its daemon.log."
                )
            time.sleep(WATCH_SECONDS * 2)

    def next_conflicts(self) -> list[ConflictRow]:
        """Those recorded since the last time; waits for the first."""

        def read(tx: HubTransaction, _: Topology) -> list[ConflictRow]:
            return [c for c in conflicts(tx, limit=1000) if c.id > self.conflicts_seen]

        found = self.until(read, "a conflict")
        self.conflicts_seen = max(c.id for c in found)
        return sorted(found, key=lambda c: c.id)

    def forget_conflicts(self) -> list[ConflictRow]:
        """All so far; those recorded later are the next ones."""
        found = self.view(lambda tx, _: conflicts(tx, limit=1000))
        self.conflicts_seen = max((c.id for c in found), default=0)
        return found

    def show_conflict(self, conflict: ConflictRow) -> None:
        why = {
            "owner": f"the {conflict.winner} owns the field",
            "latest": "it was written later",
            "sum": "it is a counter, both count",
            "deleted": "the record was deleted elsewhere",
        }.get(conflict.rule, conflict.rule)
        fields = ", ".join(conflict.fields)
        self.stage.decision(
            f"decided: {conflict.entity} {fields}: {_values(conflict.winner_values)} ({conflict.winner}) stands, "
            f"{_values(conflict.loser_values)} ({conflict.loser}) is on record; rule {conflict.rule}: {why}"
        )

    def show_arrivals(self, *watches: Watch, what: str = "there") -> None:
        for watch in sorted(watches, key=lambda w: w.seconds):
            assert watch.row is not None
            self.stage.fact(f"{watch.business.system}: {what.format(*watch.row)} after {duration(watch.seconds)}")


@contextmanager
def _closing(connections: dict[str, Any]) -> Generator[None]:
    try:
        yield
    finally:
        for manager, _ in connections.values():
            manager.__exit__(None, None, None)


def _values(values: list[Any]) -> str:
    return " / ".join("none" if v is None else "yes" if v is True else "no" if v is False else str(v) for v in values)


def at_once(first: Business, one: tuple[object, ...], second: Business, other: tuple[object, ...]) -> None:
    """Two changes that cannot know of each other: both transactions are open before either commits."""
    with first.connect() as a, second.connect() as b:
        first.begin(a)
        second.begin(b)
        first.run(a, str(one[0]), *one[1:])
        second.run(b, str(other[0]), *other[1:])
        a.execute("commit")
        b.execute("commit")
