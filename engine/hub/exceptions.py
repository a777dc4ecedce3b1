"""What the journal does not say: where a system holds something else than the deliveries to it make one think."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.hub.database import Database
from engine.hub.links import Links
from engine.model.record import Stamp, Value

_encode = msgspec.msgpack.Encoder().encode


class Overlay(NamedTuple):
    """What a system holds of one field until delivery `until` lands there. No stamp: a value that lost."""

    value: Value
    stamp: Stamp | None
    until: int


class Stretch(NamedTuple):
    """Deliveries from `refused` on did not reach the record; `good` is the entry that makes up for it, None: none."""

    refused: int
    good: int | None


_decode_overlay = msgspec.msgpack.Decoder(tuple[Value, tuple[int, int, int] | None]).decode


class Exceptions(Links):
    """Overlays, stretches and deliveries gone astray. Kept in memory as far as it takes to say that there are none."""

    def __init__(self, connection: Database) -> None:
        super().__init__(connection)
        self._overlaid: dict[int, set[int]] | None = None
        self._stretched: dict[int, set[int]] | None = None
        self._astray: dict[int, dict[str, dict[int, int]]] | None = None

    def forget_exceptions(self) -> None:
        """Nothing in memory is true any more."""
        self._overlaid = self._stretched = self._astray = None

    def overlaid(self, system: int) -> set[int]:
        """Records of which `system` may hold something else than the journal says."""
        if self._overlaid is None:
            self._overlaid = {}
            for owner, rid in self.connection.execute("select distinct system, rid from overlay"):
                self._overlaid.setdefault(owner, set()).add(rid)
        return self._overlaid.setdefault(system, set())

    def overlays(self, system: int, rid: int) -> dict[int, Overlay]:
        if rid not in self.overlaid(system):
            return {}
        found: dict[int, Overlay] = {}
        rows = self.connection.execute(
            "select indexed, until, doc from overlay where system = ? and rid = ?", (system, rid)
        )
        for indexed, until, document in rows:
            value, stamp = _decode_overlay(document)
            found[indexed] = Overlay(value, Stamp(*stamp) if stamp else None, until)
        return found

    def set_overlay(self, system: int, rid: int, indexed: int, overlay: Overlay) -> None:
        self.overlaid(system).add(rid)
        self.connection.execute(
            "insert or replace into overlay values (?, ?, ?, ?, ?)",
            (system, rid, indexed, overlay.until, _encode((overlay.value, overlay.stamp))),
        )

    def drop_overlay(self, system: int, rid: int, indexed: int) -> None:
        if rid in self.overlaid(system):
            self.connection.execute(
                "delete from overlay where system = ? and rid = ? and indexed = ?", (system, rid, indexed)
            )

    def sweep_overlays(self, system: int, seen: int) -> None:
        """Drop what a landed delivery has ended, except where deliveries do not reach the record."""
        if not self.overlaid(system):
            return
        self.connection.execute(
            "delete from overlay where system = ?1 and until <= ?2"
            " and rid not in (select rid from stretch where system = ?1)",
            (system, seen),
        )
        assert self._overlaid is not None
        rows = self.connection.execute("select distinct rid from overlay where system = ?", (system,))
        self._overlaid[system] = {row[0] for row in rows}

    def stretched(self, system: int) -> set[int]:
        """Records with stretches in `system`'s log that deliveries did not reach."""
        if self._stretched is None:
            self._stretched = {}
            for owner, rid in self.connection.execute("select distinct system, rid from stretch"):
                self._stretched.setdefault(owner, set()).add(rid)
        return self._stretched.setdefault(system, set())

    def stretches(self, system: int, rid: int) -> list[Stretch]:
        if rid not in self.stretched(system):
            return []
        rows = self.connection.execute(
            "select refused, good from stretch where system = ? and rid = ? order by refused", (system, rid)
        )
        return [Stretch(refused, good) for refused, good in rows]

    def set_stretch(self, system: int, rid: int, stretch: Stretch) -> None:
        self.stretched(system).add(rid)
        self.connection.execute(
            "insert or replace into stretch values (?, ?, ?, ?)", (system, rid, stretch.refused, stretch.good)
        )

    def open_stretch(self, system: int, rid: int, first: int) -> None:
        """Deliveries from `first` on do not reach the record, whatever was known of later ones."""
        stretches = self.stretches(system, rid)
        if any(good is None and refused <= first for refused, good in stretches):
            return
        # What makes up for a stretch and does not arrive leaves that as it was.
        start = next((refused for refused, good in stretches if good == first), first)
        self.connection.execute(
            "delete from stretch where system = ? and rid = ? and refused > ?", (system, rid, start)
        )
        self.set_stretch(system, rid, Stretch(start, None))

    def close_stretch(self, system: int, rid: int, good: int) -> None:
        """Deliveries reach the record again, from `good` on; nothing where they always did."""
        stretches = self.stretches(system, rid)
        if stretches and stretches[-1].good is None:
            self.set_stretch(system, rid, Stretch(stretches[-1].refused, good))

    def sweep_stretches(self, system: int, seen: int) -> None:
        """Forget stretches that lie wholly before what the system's log has shown."""
        if not self.stretched(system):
            return
        self.connection.execute("delete from stretch where system = ? and good <= ?", (system, seen))
        assert self._stretched is not None
        rows = self.connection.execute("select distinct rid from stretch where system = ?", (system,))
        self._stretched[system] = {row[0] for row in rows}

    def astray(self, place: int) -> dict[str, dict[int, int]]:
        """By key: records whose deliveries up to a seq may have been made under it after it was no longer theirs. Kept
        up to date."""
        if self._astray is None:
            self._astray = {}
            for owner, key, rid, until in self.connection.execute("select place, key, rid, until from astray"):
                self._astray.setdefault(owner, {}).setdefault(key, {})[rid] = until
        return self._astray.setdefault(place, {})

    def add_astray(self, place: int, key: str, rid: int, until: int) -> None:
        self.astray(place).setdefault(key, {})[rid] = until
        self.connection.execute("insert or replace into astray values (?, ?, ?, ?)", (place, key, rid, until))

    def sweep_astray(self, place: int, seen: int) -> None:
        """Forget what the system's log has shown."""
        self.connection.execute("delete from astray where place = ? and until <= ?", (place, seen))
        self._astray = None
