"""Places in topics, and what of them is stored.

A set of topics has no order of its own. What orders them is told by the setup (`order` in the configuration):

    transaction   (offset in the topic of transactions, n)   all transactions that end up to that offset have been
                                                              handed out, and of the one that ends there n events;
                                                              `WHOLE` where it is complete
    partition     (offset, WHOLE)                             the one partition has been read up to that offset
    row           (sum of the offsets of all partitions,)     so many messages have been taken

The token has the rest: where to go on in each partition, which topic that was (topics that are deleted and made again
have their names and other ids), and how far the *source's* own log has been read, by which messages that the connector
sends again after a restart of its own are told from new ones.
"""

from __future__ import annotations

import msgspec

from engine.errors import PositionLost
from engine.model.position import Position

Place = tuple[int, ...]


class Part(msgspec.Struct, array_like=True):
    """A transaction of which a part has been handed out: its end's offset, its id, the seq of our delivery that it is
    (None for a user's); by collection and partition the last `data_collection_order` that was taken, and how many
    events."""

    end: int
    id: str
    seq: int | None = None
    taken: dict[str, dict[int, int]] = {}
    done: dict[str, int] = {}


class Resume(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where to go on. `next`: offsets by topic and partition; `ids`: of topics.

    `streams`: for each stream of the source's log (a replication domain, a server; "" where there is one) how far its
    transactions have been handed out; `places`: by topic and partition, or "" for all of them, the source's place of
    the last message; `times`: alike, the greatest commit time. `since`: messages before this time, milliseconds since
    1970, are older than the beginning; `is_fresh`: nothing of the topic of transactions has been seen yet; `dropped`: a
    transaction that began before the beginning. `echo`: our delivery that may go on, where
    its end is not told. `loose`: offsets before which a compacted topic may lack messages,
    because it was read from its beginning.
    """

    next: dict[str, dict[int, int]]
    ids: dict[str, str] = {}
    streams: dict[str, Place] = {}
    places: dict[str, Place] = {}
    times: dict[str, int] = {}
    since: int = 0
    is_fresh: bool = False
    dropped: str = ""
    echo: str = ""
    loose: dict[str, dict[int, int]] = {}
    part: Part | None = None

    @property
    def count(self) -> int:
        return sum(offset for partitions in self.next.values() for offset in partitions.values())


_decode = msgspec.json.Decoder(Resume).decode
_encode = msgspec.json.Encoder().encode


def position_of(order: Place, resume: Resume, *lost: str) -> Position:
    """`lost`: message and hint, where there is no reading on behind it."""
    return Position(order=order, token="\n".join((_encode(resume).decode(), *lost)))


def resume_at(position: Position, *, system: str) -> Resume:
    """Where the feed behind `position` begins. Raises `PositionLost` for a position of another kind of log, and for one
    behind which there is no reading on."""
    document, _, lost = position.token.partition("\n")
    if lost:
        message, _, hint = lost.partition("\n")
        raise PositionLost(message, hint=hint, position=position.order)
    try:
        return _decode(document)
    except msgspec.MsgspecError as error:
        raise PositionLost(
            f"system {system}: the stored position is none of Kafka topics",
            hint=f"Run `concord backfill {system}`, or restore the hub that belongs to it.",
            position=position.order,
        ) from error
