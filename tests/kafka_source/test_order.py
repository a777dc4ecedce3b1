"""Goal: whatever comes first from whichever partition, however often the connector and we are started again: each
change once, in the order of commits, and behind the delivery that it had seen.

Method: random histories, told by a connector that repeats itself, shown in random pieces; feeds that end and go on at
random positions. What was handed out up to the position that the last feed began at, and what that feed handed out, is
the history.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from engine.model.change import Batch
from engine.model.position import Position
from engine.model.table import Column, Form, Kind, Shape
from plugins.kafka.config import KafkaConfig
from plugins.kafka.gather import Gatherer
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.names import Names
from plugins.kafka.position import Resume, position_of, resume_at
from tests.kafka_source.world import MARKER, PREFIX, TABLES, TRANSACTIONS, Change, Told, World

SEEDS = 150
SHAPES = {
    name: Shape(
        name=name,
        form=Form.TEXT,
        key=("id",),
        columns=(
            Column(name="id", kind=Kind.INTEGER, type="integer"),
            Column(name="value", kind=Kind.INTEGER, type="integer"),
        ),
    )
    for name in TABLES
}
CONFIG = KafkaConfig(servers=("none:9092",), prefix=PREFIX, marker=MARKER)


@dataclass(slots=True)
class Reader:
    """Feeds over a world, one after the other. `handed`: batches, `at`: where each began."""

    world: World
    random: Random
    verify: frozenset[str] = frozenset()
    handed: list[Batch] = field(default_factory=lambda: [])
    at: list[Position] = field(default_factory=lambda: [])

    def read(self) -> None:
        """Until all that the world told is handed out."""
        names = Names(CONFIG, TABLES)
        first: dict[str, dict[int, int]] = {}
        for topic, number in self.world.logs:
            if topic in {table.topic for table in names.all} | {TRANSACTIONS}:
                first.setdefault(topic, {})[number] = 0
        position = position_of((-1, 0), Resume(next=first))
        while not self._live(position, names):
            # Any batch may have been the last that somebody kept.
            kept = self.random.randint(0, len(self.handed))
            position = self.at[kept] if kept < len(self.at) else self.handed[-1].position if self.handed else position
            del self.handed[kept:], self.at[kept:]

    def _live(self, position: Position, names: Names) -> bool:
        resume = resume_at(position, system="w")
        starts = {(topic, n): offset for topic, numbers in resume.next.items() for n, offset in numbers.items()}
        layouts = Layouts("w", CONFIG, "postgres", SHAPES)
        gatherer = Gatherer("w", CONFIG, names, layouts, resume, {}, self.verify)
        while True:
            gatherer.take_in(self.world.show(starts))
            is_full = True
            while is_full:
                at = gatherer.handed
                try:
                    is_full = gatherer.take(self.random.choice((1, 2, 3, 50)))
                except NeedLayout as need:
                    gatherer.learn(need)
                    continue
                if not gatherer.is_empty or self.random.random() < 0.1:
                    batch = gatherer.hand_out(is_full=is_full)
                    assert at <= batch.position
                    self.at.append(at)
                    self.handed.append(batch)
                if self.random.random() < 0.02:
                    return False
            if self.world.is_shown(starts):
                assert gatherer.waiting == ""
                return True


def seen_of(batches: list[Batch]) -> list[tuple[str, int, int | None]]:
    """(table, value, seq of the newest delivery before it) of each change, rows of a table in their order."""
    found: list[tuple[str, int, int | None]] = []
    seen: int | None = None
    for batch in batches:
        for segment in batch.segments:
            seen = segment.seen if segment.seen is not None else seen
            for table, rows in segment.tables.items():
                for op, row in zip(rows.ops, rows.rows, strict=True):
                    found.append((table, -int(str(row[0])) if op == ord("D") else int(str(row[1])), seen))
    return found


def expected(world: World) -> list[tuple[str, int, int | None]]:
    """The same, by the history. A deleted row tells its key alone."""
    found: list[tuple[str, int, int | None]] = []
    seen: int | None = None
    for told in world.history:
        if isinstance(told, Change):
            found.append((told.table, told.value, seen))
        elif told.seq is not None:
            seen = told.seq
        else:
            found += [
                (change.table, -change.key if change.op == "d" else change.value, seen)
                for change in told.changes
                if change.table in TABLES
            ]
    return found


@pytest.mark.parametrize("connector", ["postgresql", "mariadb"])
def test_each_change_is_handed_out_once_and_in_the_order_of_commits(connector: str) -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        world = World(random, connector)
        world.live(random.randint(1, 25))
        reader = Reader(world, random)
        reader.read()
        found, wanted = seen_of(reader.handed), expected(world)
        read = {change.value for change in world.history if isinstance(change, Change)}
        for table in TABLES:
            ours = [(value, seen) for name, value, seen in found if name == table and value not in read]
            assert ours == [(v, seen) for name, v, seen in wanted if name == table and v not in read], f"seed {seed}"
        _check_read(world, found, seed)


@pytest.mark.parametrize("connector", ["postgresql", "mariadb"])
def test_a_batch_that_says_so_ends_where_a_transaction_does(connector: str) -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        world = World(random, connector)
        world.live(random.randint(1, 25))
        reader = Reader(world, random)
        reader.read()
        sizes = [
            [change.value for change in told.changes if change.table in TABLES and change.op != "d"]
            for told in world.history
            if isinstance(told, Told) and told.seq is None
        ]
        handed: set[int] = set()
        for batch in reader.handed:
            handed |= {value for _, value, _ in seen_of([batch]) if value > 0}
            if batch.is_whole:
                for values in sizes:
                    assert not values or handed.issuperset(values) or handed.isdisjoint(values), f"seed {seed}"


@pytest.mark.parametrize("connector", ["postgresql", "mariadb"])
def test_rows_of_our_deliveries_are_shown_once_where_somebody_verifies(connector: str) -> None:
    for seed in range(SEEDS // 3):
        random = Random(seed)
        world = World(random, connector)
        world.live(random.randint(1, 25))
        reader = Reader(world, random, verify=frozenset(TABLES))
        reader.read()
        found = [
            (segment.seen, table, str(row[0]), op)
            for batch in reader.handed
            for segment in batch.segments
            for table, rows in segment.echoes.items()
            for op, row in zip(rows.ops, rows.rows, strict=True)
        ]
        ops = {"c": ord("I"), "u": ord("U"), "d": ord("D")}
        wanted = [
            (told.seq, change.table, str(change.key), ops[change.op])
            for told in world.history
            if isinstance(told, Told) and told.seq is not None
            for change in told.changes
            if change.table in TABLES
        ]
        assert sorted(map(str, found)) == sorted(map(str, wanted)), f"seed {seed}"


def _check_read(world: World, found: list[tuple[str, int, int | None]], seed: int) -> None:
    """A row that was read stands behind what changed it before, and before what changed it later."""
    order = {value: n for n, (_, value, _) in enumerate(found)}
    last = {value: n for n, (_, value, _) in enumerate(found)}
    for n, told in enumerate(world.history):
        if not isinstance(told, Change):
            continue
        assert told.value in order, f"seed {seed}: a row that was read was left out"
        later = {
            change.value
            for other in world.history[n + 1 :]
            if isinstance(other, Told) and other.seq is None
            for change in other.changes
            if (change.table, change.key) == (told.table, told.key) and change.op != "d"
        }
        assert all(last[told.value] < order[value] for value in later), f"seed {seed}: a row that was read came late"
