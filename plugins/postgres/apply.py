"""The target side of a PostgreSQL system: sessions, the marker, and where a transaction begins and ends.

A delivery is one transaction whose first row change is the marker's; `apply_delivery` writes into it. Commit is the
one step whose outcome we may not learn; everything else either happened or did not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio

from engine.errors import Fenced, SystemUnreachable, TargetBusy, TargetUnready
from engine.plugin import Site
from engine.ports import Assigned, Delivery, Role, TargetSession
from plugins.postgres import apply_statements as sql
from plugins.postgres.apply_delivery import PostgresDelivery
from plugins.postgres.apply_link import Link, linked
from plugins.postgres.apply_refusals import DRIVER_ERRORS
from plugins.postgres.config import PostgresConfig
from plugins.postgres.errors import sqlstate, translate

# A commit is one flush of the log, or the answer of a synchronous standby. Longer means that one of them is gone, and
# then it is better to reread the marker over a new connection.
COMMIT_SECONDS_MAX: Final = 30

# The division in `apply_statements.begin` by the count of marker rows.
_NO_MARKER: Final = "22012"

# Set-up's tables, and commits that are durable where the server's default would lose the last ones in a crash: the
# marker would then be behind what the hub knows to be delivered, which nobody can tell from a restored backup.
_READY: Final = """
select to_regclass('concord.marker') is not null and to_regclass('concord.identity') is not null,
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
    else current_setting('synchronous_commit') end, false)
"""


class PostgresTarget:
    """`engine.ports.Target` for PostgreSQL."""

    def __init__(self, site: Site, config: PostgresConfig) -> None:
        self._site = site
        self._config = config

    def open(self, tables: Sequence[str]) -> AbstractAsyncContextManager[TargetSession]:
        return self._open(tables)

    @asynccontextmanager
    async def _open(self, tables: Sequence[str]) -> AsyncGenerator[TargetSession]:
        async with linked(self._site, self._config) as link:
            try:
                ((is_ready, _),) = await link.fetch(_READY)
                link.tables |= await link.read_tables(tables)
            except DRIVER_ERRORS as error:
                raise translate(error, system=link.system, role=Role.TARGET, doing="read the catalogue") from error
            if not is_ready:
                raise _unready(link.system)
            yield PostgresSession(link)


class PostgresSession:
    """`engine.ports.TargetSession` over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._claim: tuple[str, int] | None = None

    async def claim(self, hub_id: str, epoch: int) -> int:
        self._claim = None
        try:
            rows = await self._link.fetch(sql.CLAIM, hub_id, epoch)
            found = [] if rows else await self._link.fetch(sql.MARKER)
        except DRIVER_ERRORS as error:
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="claim the marker") from error
        if not rows:
            raise self._claimed_by_other([tuple(row) for row in found], hub_id, epoch)
        self._claim = (hub_id, epoch)
        return rows[0][0]

    def delivery(self, seq: int) -> AbstractAsyncContextManager[Delivery]:
        return self._delivery(seq)

    @asynccontextmanager
    async def _delivery(self, seq: int) -> AsyncGenerator[Delivery]:
        assert self._claim is not None, "a session delivers only after it has claimed the marker"
        try:
            await self._begin(*self._claim, seq)
            yield PostgresDelivery(self._link, seq)
        except BaseException:
            await self._link.roll_back()
            raise
        await self._commit()

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        try:
            rows = await self._link.fetch(sql.ASSIGNED, seq_after)
        except DRIVER_ERRORS as error:
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="read its keys") from error
        return tuple(Assigned(rid=rid, place=place, key=key, seq=seq) for rid, place, key, seq in rows)

    async def _begin(self, hub_id: str, epoch: int, seq: int) -> None:
        try:
            await self._link.execute(sql.begin(hub_id, epoch, seq))
        except DRIVER_ERRORS as error:
            if sqlstate(error) == _NO_MARKER:
                raise Fenced(
                    f"system {self._link.system}: another daemon has claimed the marker; ours has epoch {epoch}",
                    hint="Let that daemon work, or stop it and start this one again.",
                    system=self._link.system,
                    epoch=epoch,
                ) from error
            raise translate(error, system=self._link.system, role=Role.TARGET, doing="begin a delivery") from error

    async def _commit(self) -> None:
        system = self._link.system
        tag = ""
        # Shielded: the outcome of a cancelled commit is unknown. Bounded: a shield without a deadline would turn a
        # dead target into a dead daemon.
        with anyio.move_on_after(COMMIT_SECONDS_MAX, shield=True) as scope:
            try:
                tag = await self._link.connection.execute("commit")
            except DRIVER_ERRORS as error:
                raise translate(error, system=system, role=Role.TARGET, doing="commit a delivery") from error
        if scope.cancelled_caught:
            self._link.connection.terminate()
            raise SystemUnreachable(
                f"system {system}: no answer to a commit within {COMMIT_SECONDS_MAX} s; whether it happened is unknown",
                hint="Check the server, and its synchronous standbys if it has any.",
                system=system,
            )
        if tag != "COMMIT":
            # The server answers ROLLBACK when the transaction had failed before.
            raise TargetBusy(f"system {system}: the delivery was rolled back at commit", system=system)

    def _claimed_by_other(
        self, found: list[tuple[str | None, int, int]], hub_id: str, epoch: int
    ) -> Fenced | TargetUnready:
        system = self._link.system
        if not found:
            return _unready(system)
        ((hub, other, _),) = found
        if hub is not None and hub != hub_id:
            return TargetUnready(
                f"system {system} belongs to another hub: its marker names hub {hub}, and ours is hub {hub_id}",
                hint=f"Point [hub] path at that hub, or restore that hub; to give {system} to this one for good,"
                f" run `concord teardown {system}` and `concord setup {system}`; then start the daemon again.",
                system=system,
                hub=hub,
            )
        return Fenced(
            f"system {system}: a daemon with epoch {other} has claimed the marker; ours is {epoch}",
            hint="Let that daemon work, or stop it and start this one again.",
            system=system,
            epoch=epoch,
            found=other,
        )


def _unready(system: str) -> TargetUnready:
    return TargetUnready(
        f"system {system}: the tables concord.marker and concord.identity are missing or without their rows",
        hint=f"Run `concord setup {system}`, then start the daemon again.",
        system=system,
    )
