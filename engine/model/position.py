"""A place in one source's log."""

from __future__ import annotations

import msgspec


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A place in one source's log; everything up to and including it has been read.

    `order` compares two positions of the same log: later is greater. `token` is what the plugin needs to resume
    there when `order` alone does not say it (a GTID set, offsets by partition). PostgreSQL: order = (commit lsn,
    index of the change in its transaction, or `WHOLE` when the transaction is complete). SQLite: (journal id,).
    Positions of different sources are not comparable.
    """

    order: tuple[int, ...]
    token: str = ""

    def __lt__(self, other: Position) -> bool:
        return self.order < other.order

    def __le__(self, other: Position) -> bool:
        return self.order <= other.order


WHOLE = 2**62
"""Index of a position behind the last change of a transaction."""
