"""Places in a server's binary log, and what of them is stored.

A log is a sequence of numbered files, and a transaction stands whole in one of them. So

    (file's number, offset, 0)    all that ends at or before `offset` of the file has been handed out
    (file's number, offset, n)    and of the transaction that begins there the first n rows events

are in order. What to resume at is in the token: which server, after which transactions, the file's name and when it
was begun. MariaDB is asked by GTID, `slave_connect_state`, which lists for each domain the last transaction that was
handed out (MariaDB knowledge base, "Global Transaction ID"); MySQL by file and offset. After a restore or RESET MASTER
the same names and numbers mean other transactions; the moment at which the file was begun tells them apart.

Where the log holds what cannot be read as rows (a statement in their place, rows without all columns) there is no going
on: the position before it says so, and why, for whoever comes back to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine.errors import ConcordError, PositionLost
from engine.model.position import Position

# The token's word for no GTID at all.
_NONE = "-"


class Resume(NamedTuple):
    """Where to go on. `server`: MariaDB's server id, MySQL's uuid. `gtids` by domain. `skip`: rows events of the
    transaction that begins at `offset`. `begun`: when the file was, seconds since 1970 UTC; 0 when that is not known.
    """

    server: str
    file: str
    number: int
    offset: int
    skip: int
    gtids: dict[int, str]
    begun: int = 0


def file_number(file: str) -> int:
    """The number at the end of a log file's name: 12 of "binlog.000012". Raises ValueError without one."""
    return int(file.rpartition(".")[2])


def file_base(file: str) -> str:
    """The name that all files of one log share."""
    return file.rpartition(".")[0]


def position_of(server: str, file: str, offset: int, index: int, gtids: Mapping[int, str], begun: int = 0) -> Position:
    """The position behind `index` rows events of the transaction at `offset`, 0: behind all that ends there."""
    words = f"{server} {format_gtids(gtids) or _NONE} {begun} {file}"
    return Position(order=(file_number(file), offset, index), token=words)


def end_at(position: Position, error: ConcordError) -> Position:
    """The same place, as one that the log cannot be read on from because of `error`."""
    return Position(order=position.order, token="\n".join((position.token, error.message, error.hint)))


def resume_at(position: Position, *, system: str) -> Resume:
    """Where the feed behind `position` begins. Raises `PositionLost` for a position of another kind of log, and for one
    behind which there is no reading on."""
    if "\n" in position.token:
        _, message, hint = position.token.split("\n", 2)
        raise PositionLost(message, hint=hint, position=position.order)
    try:
        number, offset, skip = position.order
        server, gtids, begun, file = position.token.split(" ", 3)
        if file_number(file) != number:
            raise ValueError(file)
        return Resume(server, file, number, offset, skip, parse_gtids("" if gtids == _NONE else gtids), int(begun))
    except ValueError as error:
        raise PositionLost(
            f"system {system}: the stored position is none of a binary log",
            hint=f"Run `concord backfill {system}`, or restore the hub that belongs to it.",
            position=position.order,
        ) from error


def parse_gtids(text: str) -> dict[int, str]:
    """ "0-1-5,2-1-7" by domain. Raises ValueError for anything else."""
    found: dict[int, str] = {}
    for gtid in text.split(",") if text else ():
        domain, server, sequence = gtid.strip().split("-")
        found[int(domain)] = f"{int(domain)}-{int(server)}-{int(sequence)}"
    return found


def format_gtids(gtids: Mapping[int, str]) -> str:
    return ",".join(gtids[domain] for domain in sorted(gtids))
