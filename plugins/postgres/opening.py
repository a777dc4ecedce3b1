"""May the log be read from where we were? The slot, the server's history and the publication, before a feed opens.

Each of them can have been put in another's place under the same name; then what changed meanwhile would be missing
without a word. Nothing here makes or moves anything.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

import anyio

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.position import Position
from plugins.postgres.catalog import Connection
from plugins.postgres.connect import BoundedConnection, translated
from plugins.postgres.position import Cluster, Resume, cure, format_lsn, parse_lsn
from plugins.postgres.server import Publication, Server, Slot
from plugins.postgres.wire import Wire, start_replication

# 55006, the slot is in use: most often by our own feed of a moment ago, whose walsender has yet to notice its end.
RELEASE_SECONDS_MAX: Final = 5.0
RELEASE_PAUSE_SECONDS: Final = 0.05


def checked_publication(
    publication: Publication | None,
    after: Position | None,
    slot: Slot | None,
    *,
    system: str,
    name: str,
    slot_name: str,
) -> Publication:
    """The publication, if there is one. Raises `SourceUnready`, or `PositionLost` when we have read by one before."""
    if publication is not None:
        return publication
    message = f"system {system}: publication {name} does not exist"
    if after is not None:
        raise PositionLost(message, hint=cure(system, slot_name if slot else None))
    raise SourceUnready(
        message, hint=cure(system, slot_name) if slot else f"Run `concord setup {system}`, then start the daemon again."
    )


def checked_slot(slot: Slot | None, resume: Resume | None, *, system: str, slot_name: str, server: Server) -> Slot:
    """The slot, if the log behind `resume` can be had from it. Raises `PositionLost` or `SourceUnready`."""
    if slot is None:
        if resume is None:
            raise SourceUnready(
                f"system {system}: replication slot {slot_name} does not exist",
                hint=f"Run `concord setup {system}`, or: select pg_create_logical_replication_slot('{slot_name}',"
                " 'pgoutput'); then start the daemon again.",
            )
        raise PositionLost(
            f"system {system}: replication slot {slot_name} is gone; our position is {format_lsn(resume.lsn)}",
            hint=cure(system),
            slot=slot_name,
        )
    if slot.trouble:
        raise PositionLost(
            f"system {system}: the server has given up replication slot {slot_name} ({slot.trouble})",
            hint=f"Raise max_slot_wal_keep_size. {cure(system, slot_name)}",
            slot=slot_name,
        )
    if slot.database not in ("", server.database):
        raise SourceUnready(
            f"system {system}: replication slot {slot_name} belongs to database {slot.database}, not {server.database}",
            hint="Name another slot in the configuration, then start the daemon again.",
        )
    if slot.plugin != "pgoutput":
        raise SourceUnready(
            f"system {system}: replication slot {slot_name} decodes with {slot.plugin}, not pgoutput",
            hint="Name another slot in the configuration, then start the daemon again.",
        )
    if resume is not None and slot.confirmed_lsn > resume.lsn:
        raise PositionLost(
            f"system {system}: replication slot {slot_name} stands at {format_lsn(slot.confirmed_lsn)},"
            f" past our position {format_lsn(resume.lsn)}: somebody else read or advanced it",
            hint=cure(system),
            slot=slot_name,
        )
    if resume is not None and resume.lsn > server.log_end:
        raise PositionLost(
            f"system {system}: the log ends at {format_lsn(server.log_end)}, before our position"
            f" {format_lsn(resume.lsn)}: the server was restored from an older copy",
            hint=cure(system),
            slot=slot_name,
        )
    return slot


def check_same(known: Cluster | None, publication: Publication, *, system: str, slot: str) -> None:
    """Raises `PositionLost` when the publication is not the one by which our position was reached."""
    if known is not None and known.publication not in (0, publication.id):
        raise PositionLost(
            f"system {system}: publication {publication.name} was dropped and made again behind our position; what"
            " changed in between has not been sent",
            hint=cure(system, slot),
        )


async def check_history(connection: Connection, resume: Resume, cluster: Cluster, *, system: str) -> None:
    """Raises `PositionLost` when the server's log does not contain our position: restored, or another server."""
    known = resume.cluster
    if known is None or (known.identifier, known.timeline) == (cluster.identifier, cluster.timeline):
        return
    trouble = ""
    if known.identifier != cluster.identifier:
        trouble = f"its system identifier is {cluster.identifier}, not {known.identifier}"
    else:
        with translated(system, doing="read the timeline's history"):
            cursor = await connection.execute(f"TIMELINE_HISTORY {cluster.timeline}".encode())
        result = cursor.pgresult
        assert result is not None, "TIMELINE_HISTORY gives one row"
        branch = _branch(result.get_value(0, 1) or b"", known.timeline)
        if branch is None or branch < resume.lsn:
            trouble = f"its timeline {cluster.timeline} left ours, {known.timeline}, before our position"
    if trouble:
        raise PositionLost(
            f"system {system}: this is not the log that we read before: {trouble}",
            hint=cure(system),
        )


def _branch(history: bytes, timeline: int) -> int | None:
    """The LSN up to which `timeline` is part of this history; a line is: timeline, tab, LSN, tab, reason."""
    for line in history.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == str(timeline):
            return parse_lsn(words[1])
    return None


async def identified(connection: Connection, system: str, publication: Publication) -> Cluster:
    """Which log the server writes, and by which publication we read it."""
    with translated(system, doing="identify the server"):
        row = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
    assert row is not None, "IDENTIFY_SYSTEM gives one row"
    return Cluster(identifier=str(row[0]), timeline=int(row[1]), publication=publication.id)


async def started(connection: BoundedConnection, system: str, slot: str, publication: str, lsn: int) -> Wire:
    """The running stream behind `lsn`."""
    deadline = monotonic() + RELEASE_SECONDS_MAX
    while True:
        try:
            return await start_replication(connection, system=system, slot=slot, publication=publication, lsn=lsn)
        except SystemUnreachable as error:
            if error.context.get("sqlstate") != "55006" or monotonic() > deadline:
                raise
        await anyio.sleep(RELEASE_PAUSE_SECONDS)
