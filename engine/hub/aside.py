"""What is set aside for people: parked rows and records, conflicts, open reviews."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.hub.database import Database
from engine.hub.exceptions import Exceptions
from engine.model.record import Stamp, Value
from engine.ports import Clock

_encode = msgspec.msgpack.Encoder().encode


class Conflict(NamedTuple):
    """A row of the conflict table. `values` run parallel to the set bits of `mask`."""

    seq: int
    rid: int
    entity: int
    mask: int
    rule: str
    winner: Stamp
    loser: Stamp
    loser_seen: int
    winner_values: list[Value]
    loser_values: list[Value]
    is_open: bool


class Parked(msgspec.Struct, kw_only=True):
    """A record or row set aside. `doc`: the wire row for the direction `source`."""

    system: int
    direction: str
    place: int
    rid: int | None
    key: str | None
    seq: int
    seen: int
    code: str
    reason: str
    message: str
    hint: str = ""
    field: str | None = None
    waits_for: int | None = None
    attempts: int = 1
    try_after: int = 0
    doc: bytes | None = None
    id: int = 0


class Aside(Exceptions):
    """Conflicts are gathered and go out with the transaction, parked ones at once."""

    def __init__(self, connection: Database, clock: Clock) -> None:
        super().__init__(connection)
        self.clock = clock
        self._parked_keys: dict[int, set[str]] | None = None
        self._undecided: set[int] | None = None

    def clear_aside(self) -> None:
        """Forget what was gathered."""
        self._conflicts: list[Conflict] = []

    def forget_aside(self) -> None:
        """Nothing in memory is true any more."""
        self._parked_keys = self._undecided = None

    def add_conflict(self, conflict: Conflict) -> None:
        self._conflicts.append(conflict)

    @property
    def undecided(self) -> set[int]:
        """Records whose identity waits for a person; whoever opens or closes a review changes it."""
        if self._undecided is None:
            rows = self.connection.execute("select rid from review where decided_at is null")
            self._undecided = {row[0] for row in rows}
        return self._undecided

    def parked_keys(self, place: int) -> set[str]:
        """Keys of rows of a source that are set aside. Kept up to date."""
        if self._parked_keys is None:
            self._parked_keys = {}
            for owner, key in self.connection.execute("select place, key from parked where direction = 'source'"):
                self._parked_keys.setdefault(owner, set()).add(key)
        return self._parked_keys.setdefault(place, set())

    def unpark_key(self, place: int, key: str) -> None:
        if key in self.parked_keys(place):
            self.parked_keys(place).discard(key)
            self.connection.execute(
                "delete from parked where direction = 'source' and place = ? and key = ?", (place, key)
            )

    def park(self, parked: Parked) -> None:
        """Set aside, replacing what was parked for the same record or key; attempts add up."""
        now = self.clock.now()
        if parked.direction == "source" and parked.key is not None:
            self.parked_keys(parked.place).add(parked.key)
        same = ("place = ? and key = ?", (parked.place, parked.key))
        if parked.direction == "target":
            same = ("system = ? and rid = ?", (parked.system, parked.rid))
        where = f"direction = '{parked.direction}' and {same[0]}"
        found = self.rows(f"select id, attempts, parked_at from parked where {where}", same[1])
        identity, attempts, since = found[0] if found else (None, 0, now)
        self.connection.execute(
            "insert or replace into parked values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                identity, parked.system, parked.direction, parked.place, parked.rid, parked.key, parked.seq,
                parked.seen, parked.code, parked.reason, parked.message, parked.hint, parked.field, parked.waits_for,
                attempts + 1, since, now, parked.try_after, parked.doc,
            ),
        )  # fmt: skip

    def flush_conflicts(self) -> None:
        """Write what was gathered."""
        if self._conflicts:
            now = self.clock.now()
            self.connection.executemany(
                "insert into conflict values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        c.seq, c.rid, c.entity, c.mask, c.rule, c.winner.origin, c.winner.seq, c.winner.time,
                        c.loser.origin, c.loser.seq, c.loser.time, c.loser_seen, _encode(c.winner_values),
                        _encode(c.loser_values), now, c.is_open,
                    )
                    for c in self._conflicts
                ],
            )  # fmt: skip
            self._conflicts = []
