"""Positions of PostgreSQL's log: what the order means, what the token holds, and where to resume.

A transaction is placed by the start of its commit record (the `final_lsn` of a Begin message), because that number is
known before the transaction's end has arrived, and the walsender decides by it too: it sends a transaction when its
commit record starts at or behind the LSN it was told (`SnapBuildXactNeedsSkip`, src/backend/replication/logical/
snapbuild.c). So

    (final_lsn, WHOLE)  token: the commit record's end     all of the transaction has been handed out
    (final_lsn, n)      token: final_lsn                   its first n row changes have been handed out
    (lsn - 1, WHOLE)    token: lsn                         the log holds no commit before `lsn` that was not handed out

and the token's LSN is always the one to resume at and the one to confirm. Beside it stand timeline and system
identifier: a server that was restored to an earlier moment counts LSNs again that it has already used. And the
publication's object id: one that was dropped and made again has the same name and has not sent what changed meanwhile.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.errors import PositionLost
from engine.model.position import WHOLE, Position

# PostgreSQL counts from 2000, the engine from 1970; both in microseconds.
EPOCH_MICROSECONDS: Final = 946_684_800_000_000


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Which log an LSN counts in: the cluster's system identifier and its timeline. `publication`: the object id of the
    one by which it is read, 0 where that is not known."""

    identifier: str
    timeline: int
    publication: int = 0


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on: the LSN to ask the walsender for, and the row changes of the transaction `final_lsn` to skip."""

    lsn: int
    final_lsn: int = 0
    skip: int = 0
    cluster: Cluster | None = None


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number. Raises ValueError for anything else."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def behind_transaction(final_lsn: int, end_lsn: int, cluster: Cluster) -> Position:
    """All of a transaction has been handed out."""
    return Position(order=(final_lsn, WHOLE), token=_token(end_lsn, cluster))


def inside_transaction(final_lsn: int, count: int, cluster: Cluster) -> Position:
    """The first `count` row changes of a transaction have been handed out."""
    return Position(order=(final_lsn, count), token=_token(final_lsn, cluster))


def before(lsn: int, cluster: Cluster) -> Position:
    """Everything that committed before `lsn` has been handed out."""
    return Position(order=(lsn - 1, WHOLE), token=_token(lsn, cluster))


def resume_at(position: Position, *, system: str) -> Resume:
    """Where the feed behind `position` begins. Raises `PositionLost` for a position of another kind of log."""
    try:
        final_lsn, index = position.order
        words = position.token.split()
        cluster = Cluster(identifier=words[2], timeline=int(words[1])) if len(words) > 1 else None
        if cluster is not None and len(words) > 3:
            cluster = msgspec.structs.replace(cluster, publication=int(words[3]))
        lsn = parse_lsn(words[0]) if words else final_lsn + (index == WHOLE)
    except (ValueError, IndexError) as error:
        raise PositionLost(
            f"system {system}: the stored position is none of a PostgreSQL log",
            hint=f"Run `concord backfill {system}`, or restore the hub that belongs to it.",
            position=position.order,
        ) from error
    if index == WHOLE:
        return Resume(lsn=lsn, cluster=cluster)
    return Resume(lsn=lsn, final_lsn=final_lsn, skip=index, cluster=cluster)


def cure(system: str, slot: str | None = None) -> str:
    """What helps when the log behind our position cannot be had. `slot`: it stands and cannot be used any more; only a
    person drops it, since what it holds is lost with it."""
    drop = f"select pg_drop_replication_slot('{slot}'); then " if slot else ""
    return f"Run: {drop}`concord setup {system}`, then `concord backfill {system}`: changes may have been missed."


def _token(lsn: int, cluster: Cluster) -> str:
    return f"{format_lsn(lsn)} {cluster.timeline} {cluster.identifier} {cluster.publication}"
