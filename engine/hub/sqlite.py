"""The hub in one SQLite file: opening, locking, migrating, and running functions inside transactions.

What a transaction can do is in `transaction`. One process owns a hub for writing (a lock beside the file); other
commands read it meanwhile through connections of their own.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import apsw

from engine.errors import HubBusy, HubCorrupt, HubError, HubFull
from engine.hub.database import Database, open_database
from engine.hub.recent import Recent
from engine.hub.transaction import HubTransaction
from engine.ports import Clock
from migrations import migrations

T = TypeVar("T")

# The default of 2 MB made the hub ten times slower: crosswalk keys arrive in no order, and each missing page is a read.
CACHE_KIB = 96 * 1024
# Pages in the write-ahead log before it is copied back; the default of 1,000 has every batch pay for a checkpoint.
CHECKPOINT_PAGES = 20_000
# A target that keeps up with its sources finds what it needs in memory, and so does one that is some batches behind. In
# memory a document takes about five times its bytes.
RECENT_ENTRIES = 100_000
RECENT_BYTES = 32 * 1024 * 1024
BUSY_SECONDS_MAX = 10.0
LOOK_SECONDS_MAX = 1.0


class SqliteHub:
    """An open hub. `hub_id` names it in the targets' markers; `epoch` is this daemon's number, the greatest so far."""

    def __init__(
        self, connection: Database, reader: Database | None, clock: Clock, *, inline: bool, path: Path | None
    ) -> None:
        self._connection = connection
        self._reader = connection if reader is None else reader
        self._reading = anyio.CapacityLimiter(1)
        self.clock = clock
        self._inline = inline
        self._limiter = anyio.CapacityLimiter(1)
        self.path = path
        row = connection.execute("select id, epoch from hub").fetchone()
        assert row is not None
        self.hub_id: str = row[0]
        self.epoch: int = row[1]
        row = connection.execute("select coalesce(max(seq), 0) from journal").fetchone()
        assert row is not None
        self.opened_at: int = row[0]
        """The journal's end when this daemon opened it: nobody has delivered more by then."""
        self.sent: dict[int, int] = {}
        """System → the newest delivery that this daemon has begun."""
        self._recent = Recent(RECENT_ENTRIES, RECENT_BYTES)
        self.transaction = HubTransaction(connection, clock, self._recent)

    async def transact(self, work: Callable[[HubTransaction], T]) -> T:
        """Run `work` in one transaction, durable when this returns; an exception rolls everything back.

        Works run one after another. In a worker thread, so that SQLite's share of the time overlaps with the others';
        `inline` (simulation) runs it here and now.
        """
        if self._inline:
            await anyio.lowlevel.checkpoint()
            return self.transact_now(work)
        return await anyio.to_thread.run_sync(self.transact_now, work, limiter=self._limiter)

    def transact_now(self, work: Callable[[HubTransaction], T]) -> T:
        """`transact` for callers that have no event loop."""
        with translated(self.path):
            self._connection.execute("begin immediate")
            try:
                result = work(self.transaction)
                self.transaction.flush()
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                self.transaction.forget()
                raise
            self.transaction.settle()
            return result

    async def read(self, work: Callable[[HubTransaction], T]) -> T:
        """Run `work`, which only reads, on one snapshot; beside a running `transact`, not behind it."""
        if self._inline:
            await anyio.lowlevel.checkpoint()
            return self.transact_now(work)
        return await anyio.to_thread.run_sync(self._read_now, work, limiter=self._reading)

    def _read_now(self, work: Callable[[HubTransaction], T]) -> T:
        with translated(self.path):
            self._reader.execute("begin")
            try:
                return work(HubTransaction(self._reader, self.clock, self._recent))
            finally:
                self._reader.execute("rollback")

    def take_over(self) -> None:
        """Raise the epoch: from now on deliveries of any earlier daemon are fenced.

        To the time of day, so that it is greater than that of any earlier daemon of any copy of this hub: one restored
        from a backup, or one whose file was copied and is run elsewhere.
        """
        now = self.clock.now() // 1000

        def raise_epoch(_: HubTransaction) -> int:
            self._connection.execute("update hub set epoch = max(epoch + 1, ?)", (now,))
            row = self._connection.execute("select epoch from hub").fetchone()
            assert row is not None
            return row[0]

        self.epoch = self.transact_now(raise_epoch)


def connect(path: Path | None, *, read_only: bool = False) -> Database:
    """A connection with the hub's settings; None: a hub in memory."""
    with translated(path):
        connection = open_database(path, read_only=read_only)
        connection.set_busy_timeout(int(BUSY_SECONDS_MAX * 1000))
        connection.execute(f"pragma cache_size = -{CACHE_KIB}")
        if not read_only:
            if connection.execute("pragma journal_mode = wal").fetchone() not in (("wal",), ("memory",)):
                raise HubError("the hub's file system does not support SQLite's write-ahead log")
            # With `normal` a power cut may take back the last commits, after the sources were told to forget them.
            connection.execute("pragma synchronous = full")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return connection


def migrate(connection: Database, clock: Clock) -> None:
    """Bring the schema up to date. Raises `HubError` for a hub made by a later version of Concord."""
    steps = migrations()
    row = connection.execute("pragma user_version").fetchone()
    version: int = row[0] if row else 0
    if version > steps[-1].number:
        raise HubError(
            f"the hub has schema version {version}; this Concord knows versions up to {steps[-1].number}",
            hint="Install the version of Concord that wrote it, or a later one.",
        )
    tables = connection.execute("select count(*) from sqlite_schema").fetchone()
    if version == 0 and tables != (0,):
        raise HubCorrupt("the file is a SQLite database but no hub", hint="Point [hub] path at another file.")
    for step in steps:
        if step.number <= version:
            continue
        connection.execute("begin immediate")
        try:
            connection.execute(step.sql)
            if step.number == 1:
                connection.execute("insert into hub values (1, ?, 0, ?)", (uuid.uuid4().hex, clock.now()))
            connection.execute(f"pragma user_version = {step.number}")
            connection.execute("commit")
        except BaseException:
            connection.execute("rollback")
            raise


@asynccontextmanager
async def open_hub(path: Path, clock: Clock) -> AsyncGenerator[SqliteHub]:
    """Own the hub for writing, making it first where there is none.

    Raises `HubBusy` when another process owns it, `HubCorrupt` when the file is damaged or something else.
    """
    with hub_lock(path), translated(path):
        _make_private(path)
        connection = connect(path)
        try:
            if connection.execute("pragma quick_check(1)").fetchone() != ("ok",):
                raise _corrupt(path)
            migrate(connection, clock)
            reader = connect(path)
            try:
                yield SqliteHub(connection, reader, clock, inline=False, path=path)
            finally:
                reader.close()
        finally:
            connection.close()


def _make_private(path: Path) -> None:
    """Make the file, where there is none, for its owner alone: it holds what all systems hold of people. SQLite gives
    the files beside it the same mode."""
    with suppress(FileExistsError, PermissionError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def memory_hub(clock: Clock, connection: Database | None = None) -> SqliteHub:
    """A hub in memory whose works run inline, for simulations; pass the connection again for the next life."""
    connection = connection or connect(None)
    migrate(connection, clock)
    return SqliteHub(connection, None, clock, inline=True, path=None)


def need_hub(path: Path) -> None:
    """Raises `HubError` when there is no hub yet: only the daemon makes one."""
    if not path.exists():
        raise HubError(f"there is no hub at {path}", hint="Start `concord run` first; it makes the hub.")


@contextmanager
def read_hub(path: Path) -> Generator[Database]:
    """A read-only connection beside a running daemon. Raises `HubError` when there is no hub yet, or an older one."""
    need_hub(path)
    with translated(path):
        connection = connect(path, read_only=True)
        try:
            # One snapshot for all queries of a command: its numbers agree with each other.
            connection.execute("begin")
            (version,) = connection.execute("pragma user_version").fetchone() or (0,)
            if version == 0:
                if connection.execute("select count(*) from sqlite_schema").fetchone() == (0,):
                    raise HubError(f"the hub {path} is being made", hint="Try again in a moment.")
                raise HubCorrupt(f"{path} is no hub", hint="Point [hub] path at the hub's file.")
            latest = migrations()[-1].number
            if version < latest:
                raise HubError(
                    f"the hub {path} has schema version {version}, which this Concord reads only when it is {latest}",
                    hint="Start the daemon of this version: it brings the hub up to date.",
                )
            yield connection
        finally:
            connection.close()


@contextmanager
def hub_lock(path: Path) -> Generator[None]:
    """Hold the hub's lock file. The kernel lets go of it when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HubError(
            f"the hub's folder {path.parent} cannot be written: {error.strerror}",
            hint="Make it writable for this user, or point [hub] path elsewhere.",
        ) from error
    try:
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise HubBusy(
                f"another daemon owns the hub {path} (process {owner})",
                hint="Stop it first; one hub has one daemon.",
                pid=owner,
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock; whoever only looks who has it (`lock_owner`) holds it for a moment."""
    until = time.monotonic() + LOOK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_SECONDS_MAX / 20)


def lock_owner(path: Path) -> int | None:
    """The process id of the daemon that owns the hub now, or None when nobody does."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


@contextmanager
def translated(path: Path | None) -> Generator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _corrupt(path) from error
    except apsw.FullError as error:
        raise HubFull(f"no space is left for the hub {path}", hint="Free space on its disk.") from error
    except apsw.BusyError as error:
        raise HubBusy(
            f"the hub {path} is locked by another program", hint="Close whatever has the file open for writing."
        ) from error
    except apsw.IOError as error:
        raise HubFull(f"the hub {path} cannot be read or written: disk error", hint="Check the disk.") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
        raise HubError(
            f"the hub {path} cannot be opened for writing", hint="Check the file's and its folder's permissions."
        ) from error


def _corrupt(path: Path | None) -> HubCorrupt:
    return HubCorrupt(
        f"the hub {path} is damaged or is no hub",
        hint="Restore the hub from its newest backup, then run `concord compare`; do not start with an empty one.",
    )
