"""What the first sync of populated systems would do: everything is read and decided in a hub of its own, which is
thrown away, and compared with every system. Nothing is written anywhere.

Systems are read one after the other, in the order of the configuration; of values that no owner decides and nobody has
changed since, the later system's wins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from engine.compare import Comparison, Found
from engine.errors import ConcordError, ConfigError
from engine.hub.sqlite import SqliteHub, open_hub, read_hub
from engine.hub.transaction import HubTransaction
from engine.model.change import Batch, Chunk
from engine.model.position import Position
from engine.model.record import Entry
from engine.model.table import Shape
from engine.model.value import ABSENT, CanonicalRow
from engine.pipeline.canonicalize import Canonicalizer
from engine.pipeline.commit import Committer
from engine.pipeline.copies import Copies
from engine.pipeline.joined import Joiner
from engine.pipeline.joined_system import JoinedSystem
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import System, Written
from engine.runtime.clock import SystemClock

VERSION = 1
SAMPLES_MAX = 5
# Records whose values are tried against the mapping of a target at once.
TRIED_TOGETHER = 1_000

Plain = str | int | bool | None
Said = Callable[[str, str, int], None]
"""System, table, rows so far."""


class Sample(msgspec.Struct, kw_only=True):
    """One field of one record that would be overwritten. `said_by`: the system whose value it is; "" for nobody's."""

    key: str
    field: str
    here: Plain
    wanted: Plain
    said_by: str


class PlannedPlace(msgspec.Struct, kw_only=True):
    """One block of a system's mapping. Of its `rows`, `linked` are one record with rows of other systems; `same` hold
    what the record holds, `overwrite` not. `create`: records that have no row here yet. `ambiguous`: rows that match
    several records. `unreadable`: rows that the mapping cannot read; `refused`: records of `create` and `overwrite`
    that it cannot write, by what is wrong. `fields`: how many records each field would be overwritten in."""

    system: str
    table: str
    entity: str
    rows: int = 0
    linked: int = 0
    same: int = 0
    overwrite: int = 0
    create: int = 0
    ambiguous: int = 0
    unreadable: int = 0
    refused: dict[str, int] = {}
    fields: dict[str, int] = {}
    samples: list[Sample] = []
    problem: str = ""
    """Why it was not read to its end."""


class Plan(msgspec.Struct, kw_only=True):
    """`made_at`: microseconds since 1970 UTC."""

    version: int = VERSION
    made_at: int
    places: list[PlannedPlace]
    remarks: list[str] = []


def read_plan(file: Path) -> Plan:
    """Raises `ConfigError` when the file is no plan."""
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except OSError as error:
        raise ConfigError(f"plan {file} cannot be read: {error.strerror}", hint="`concord plan` makes one.") from None
    except msgspec.MsgspecError:
        raise ConfigError(f"{file} is no plan of `concord plan --output`", hint="Make one with it.") from None
    if plan.version != VERSION:
        raise ConfigError(f"plan {file} is of another version of Concord", hint="Make one with `concord plan`.")
    return plan


@asynccontextmanager
async def hub_of_its_own() -> AsyncGenerator[SqliteHub]:
    """An empty hub that is gone afterwards."""
    with TemporaryDirectory(prefix="concord-plan-") as folder:
        async with open_hub(Path(folder) / "hub.sqlite", SystemClock()) as hub:
            yield hub


@contextmanager
def looked_at(hub: SqliteHub) -> Generator[HubTransaction]:
    """One snapshot of the hub, for as long as it takes."""
    assert hub.path is not None
    with read_hub(hub.path) as connection:
        yield HubTransaction(connection, hub.clock)


async def read_system(hub: SqliteHub, topology: Topology, part: SystemPart, system: System, said: Said) -> None:
    """Read every mapped row of a system into the hub, as its first copy would."""
    joiner = None
    inner = system
    if isinstance(system, JoinedSystem):
        joiner, inner = Joiner(part, await system.base_shapes(part.tables)), system.inner
        await hub.transact(joiner.register)
    canonicalizer = Canonicalizer(part, joiner)
    committer = Committer(topology, part, canonicalizer)
    pages = _Pages(inner, lambda table, rows: said(part.name, table, rows))
    copies = Copies(hub, topology.hub_id, part, pages, canonicalizer)
    await hub.read(copies.load)
    while copies.due_in() is not None:
        await copies.read(0)
        batch = copies.take()
        assert batch is not None, "no log tells of changes, so a page waits for none"
        await hub.transact(lambda tx, batch=batch: committer.commit(tx, batch))


class _Pages:
    """`engine.ports.Feed` of a system that is only looked at."""

    position = Position((0,))

    def __init__(self, system: System, said: Callable[[str, int], None]) -> None:
        self._system = system
        self._said = said
        self._rows: dict[str, int] = {}

    async def receive(self, rows_max: int) -> Batch:
        raise AssertionError("there is no log to read")

    def confirm(self, position: Position) -> None:
        """Nothing."""

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        page = await self._system.page(table, after, rows_max, condition)
        self._rows[table] = self._rows.get(table, 0) + len(page.rows)
        self._said(table, self._rows[table])
        return Chunk(page=page, low=self.position, high=self.position)


@dataclass(slots=True)
class Planner:
    """Finds what a hub that has read all systems would do to them. One snapshot of the hub."""

    tx: HubTransaction
    topology: Topology

    async def plan(self, systems: Sequence[tuple[SystemPart, System]], said: Said) -> Plan:
        places: list[PlannedPlace] = []
        for part, system in systems:
            places += await self._system(part, system, said)
        return Plan(made_at=self.tx.clock.now(), places=places, remarks=list(self._unmatched(places)))

    def _unmatched(self, places: Sequence[PlannedPlace]) -> Iterator[str]:
        """Entities whose rows nobody can tell to be the same, and that several systems have."""
        for part in self.topology.entities.values():
            name = part.entity.name
            here = [place for place in places if place.entity == name and place.rows]
            if part.match_keys is None and len({place.system for place in here}) > 1 and any(p.create for p in here):
                counts = ", ".join(f"{place.rows:,} in {place.system}" for place in here)
                yield f"{name}: no match rule in the dictionary, so each row counts as new elsewhere ({counts})"

    async def _system(self, part: SystemPart, system: System, said: Said) -> list[PlannedPlace]:
        places = {
            place.id: PlannedPlace(system=part.name, table=place.place.table, entity=place.entity.name)
            for place in part.places
        }
        tries = {place.id: _Tries(place, system) for place in part.places}
        names = {p.id: p.name for p in self.topology.systems.values()}

        def found(place: PlacePart, what: Found) -> None:
            if not part.is_target:
                return
            planned = places[place.id]
            if what.kind == "missing":
                planned.create += 1
                tries[place.id].creates.append(what)
            elif what.kind == "field" and what.entry is not None:
                planned.overwrite += 1
                tries[place.id].changes.append(what)
                for index in what.fields:
                    self._overwritten(planned, place, what, index, names)

        comparison = Comparison(self.tx, self.topology, differences_max=0, is_ahead=True, found=found)
        results = await comparison.compare(part, system, frozenset(), lambda table, rows: said(part.name, table, rows))
        for place, result in zip(part.places, results, strict=True):
            planned = places[place.id]
            planned.rows, planned.same, planned.problem = result.rows, result.agree, result.problem
            planned.unreadable = self._count("parked where direction = 'source' and place = ?", place.id)
            planned.ambiguous = self._count("review where decided_at is null and place = ?", place.id)
            planned.linked = self._linked(place)
            if part.is_target:
                planned.refused = await tries[place.id].run()
        return list(places.values())

    def _overwritten(
        self, planned: PlannedPlace, place: PlacePart, what: Found, index: int, names: dict[int, str]
    ) -> None:
        name = place.entity.fields[index].name
        planned.fields[name] = planned.fields.get(name, 0) + 1
        if planned.fields[name] > SAMPLES_MAX:
            return
        assert what.entry is not None
        assert what.record is not None
        here = what.record[index]
        assert here is not ABSENT, "what was not sent does not differ"
        stamp = what.entry.stamp(index)
        planned.samples.append(
            Sample(
                key=what.key,
                field=name,
                here=here,
                wanted=self._spelt(place, index, what.entry.value(index)),
                said_by="" if stamp is None else names.get(stamp.origin, ""),
            )
        )

    def _spelt(self, place: PlacePart, index: int, value: Plain) -> Plain:
        """As the system spells it: a reference by the key of the row there, null where there is none yet."""
        entity = dict(place.entity.references).get(index)
        if entity is None or not isinstance(value, int) or isinstance(value, bool):
            return value
        rid = self.tx.alias(value)
        for other in self.topology.systems[place.system].places:
            key = self.tx.keys_of(other.id, [rid]).get(rid) if other.entity.name == entity else None
            if key is not None:
                return key
        return None

    def _linked(self, place: PlacePart) -> int:
        """Records with a row here and one in another system."""
        others = [p.id for p in self.topology.places.values() if p.system != place.system]
        marks = ", ".join("?" * len(others))
        return self._count(
            f"link l where place = ? and exists (select 1 from link o where o.rid = l.rid and o.place in ({marks}))",
            place.id, *others,
        )  # fmt: skip

    def _count(self, what: str, *bindings: int) -> int:
        return self.tx.rows(f"select count(*) from {what}", bindings)[0][0]


class _Tries:
    """Whether a target's mapping can write the records, as far as can be told without its database: too long, out of
    range, of no value that the application knows. References are left out: their rows may not be there yet."""

    def __init__(self, place: PlacePart, system: System) -> None:
        self.place = place
        self.creates: list[Found] = []
        self.changes: list[Found] = []
        self._system = system

    async def run(self) -> dict[str, int]:
        if not self.creates and not self.changes:
            return {}
        part = self.place
        shape = (await self._system.shapes([part.place.table])).get(part.place.table)
        if shape is None:
            return {}
        try:
            writer = part.place.writer(shape, part.entity)
        except ConcordError as error:
            return {error.message: len(self.creates) + len(self.changes)}
        counted: dict[str, int] = {}
        references = {n for n, _ in part.entity.references}
        nothing = (None,) * len(part.entity.fields)
        referring = {
            column
            for n in references
            if writer.mask >> n & 1
            for column in writer.update(1 << n, ["0"], [nothing]).columns
            if column not in part.place.key
        }
        for start in range(0, len(self.creates), TRIED_TOGETHER):
            group = self.creates[start : start + TRIED_TOGETHER]
            records = [_without(found.entry, references, len(part.entity.fields)) for found in group]
            written = writer.insert([str(found.rid) for found in group], records)
            _count_problems(written, counted)
            self._count_nulls(written, shape, referring, counted)
        by_mask: dict[int, list[Found]] = {}
        for found in self.changes:
            mask = sum(1 << n for n in found.fields if n not in references) & writer.mask
            by_mask.setdefault(mask, []).append(found)
        for mask, group in by_mask.items():
            records = [_without(found.entry, references, len(part.entity.fields)) for found in group]
            written = writer.update(mask, [found.key for found in group], records)
            _count_problems(written, counted)
            self._count_nulls(written, shape, referring, counted)
        return counted

    def _count_nulls(self, written: Written, shape: Shape, referring: set[str], counted: dict[str, int]) -> None:
        """Nulls for columns that must not be null, where the database would not put anything else there."""
        strict = [
            (n, name)
            for n, name in enumerate(written.columns)
            if name not in referring and (column := shape.column(name)) is not None and not column.is_nullable
        ]
        for row in written.rows:
            lacking = next((name for n, name in strict if row is not None and row[n] is None), None)
            if lacking is not None:
                message = f"table {shape.name}, column {lacking}: it must not be null, and the record says nothing"
                counted[message] = counted.get(message, 0) + 1


def _without(entry: Entry | None, references: set[int], count: int) -> CanonicalRow:
    assert entry is not None
    return tuple(None if n in references else entry.value(n) for n in range(count))


def _count_problems(written: Written, counted: dict[str, int]) -> None:
    for problem in written.problems.values():
        counted[problem.message] = counted.get(problem.message, 0) + 1
