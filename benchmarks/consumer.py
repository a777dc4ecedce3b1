"""What is measured: something that brings the source's changes to its target. And how a backlog is timed.

A backlog is committed and flushed at the source while the consumer stands still, its slot waiting. Then the consumer is
started. The clock runs from the moment its replication connection is made, as the source server tells it, until the
last row can be seen at the target, which is asked a hundred times a second. So a process's start-up is left out, for
the one as for the other, and reported beside. The target's commit timestamps would be more exact but are of no use
here: PostgreSQL's apply worker puts the source's in their place (`replorigin_session_origin_timestamp`).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg

from benchmarks.machine import Share, read_counters, share_between
from benchmarks.servers import has_row

# One question by primary key takes the target some 50 microseconds: half a per cent of one core, and no run measured
# here is so short that ten milliseconds are a per cent of it.
POLL_SECONDS = 0.01
# Whether a consumer has died is asked less often: asking about a subscription takes a connection.
CHECK_SECONDS = 1.0
# Nothing measured here takes minutes; a consumer that is silent this long is broken, and the run should say so.
WAIT_SECONDS_MAX = 600.0


class RunVoid(Exception):
    """A run that proves nothing: something failed, or the contents differ in the end."""


class Consumer(Protocol):
    """Something that brings changes from a source to `target_dsn`. Made ready and not running at first."""

    @property
    def name(self) -> str: ...
    @property
    def target_dsn(self) -> str: ...
    def reading_since(self) -> float | None:
        """When the connection was made by which it reads its source, seconds since 1970; None while there is none."""
        ...

    def start(self) -> None:
        """Run. Returns as soon as that has been asked for."""
        ...

    def stop(self) -> None:
        """Stop, in order; the slot is free afterwards."""
        ...

    def check(self) -> None:
        """Raise `RunVoid` when it has died."""
        ...

    def usage(self) -> Usage:
        """What its process has used so far. Only while it runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process: the most memory it ever had resident, how much of it is its own (not shared buffers), and the
    processor time it has used."""

    peak_rss_mb: float
    private_mb: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """`seconds`: see the module. `start_seconds`: from the order to start to the replication connection. `share`: of
    the machine, from that order to the end."""

    seconds: float
    start_seconds: float
    usage: Usage
    share: Share


@contextmanager
def running(consumer: Consumer) -> Generator[None]:
    """The consumer runs inside the block, however it ends."""
    consumer.start()
    try:
        yield
    finally:
        consumer.stop()


def wait_reading(consumer: Consumer) -> float:
    """Wait until the consumer reads from its source; returns when its connection was made."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (began := consumer.reading_since()) is None:
        consumer.check()
        _give_up_after(deadline, consumer, "reads nothing from its source")
        time.sleep(POLL_SECONDS)
    return began


def wait_stopped(consumer: Consumer, seconds: float) -> None:
    """Wait until the source has noticed that the consumer has gone; another one may be refused till then."""
    deadline = time.monotonic() + seconds
    while consumer.reading_since() is not None:
        if time.monotonic() > deadline:
            raise RunVoid(f"{consumer.name} does not end: it still reads after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def wait_row(consumer: Consumer, id: int) -> float:
    """Wait until the target shows the row; returns when that was, seconds since 1970."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    check_at = time.monotonic() + CHECK_SECONDS
    with psycopg.connect(consumer.target_dsn, autocommit=True) as target:
        while not has_row(target, id):
            if time.monotonic() > check_at:
                consumer.check()
                check_at = time.monotonic() + CHECK_SECONDS
            _give_up_after(deadline, consumer, f"has not delivered row {id}")
            time.sleep(POLL_SECONDS)
        return time.time()


def time_backlog(consumer: Consumer, last_id: int) -> Timed:
    """Start the consumer, wait until its target has the row `last_id`, and stop it."""
    asked, first = time.time(), read_counters()
    with running(consumer):
        began = wait_reading(consumer)
        ended = wait_row(consumer, last_id)
        share = share_between(first, read_counters())
        usage = consumer.usage()
    return Timed(seconds=ended - began, start_seconds=began - asked, usage=usage, share=share)


def bring_up(consumer: Consumer, last_id: int) -> None:
    """Let the consumer catch up, untimed."""
    with running(consumer):
        wait_row(consumer, last_id)


def read_usage(pid: int) -> Usage:
    """From /proc. Raises `RunVoid` when the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            # Behind the command's closing bracket: fields 14 and 15, counted from 1, are user and system time.
            fields = file.read().rpartition(")")[2].split()
    except OSError as error:
        raise RunVoid(f"process {pid} is gone") from error
    return Usage(
        peak_rss_mb=round(_kilobytes(status["VmHWM"]) / 1024, 1),
        private_mb=round(_kilobytes(status["RssAnon"]) / 1024, 1),
        # The kernel counts these in hundredths of a second (USER_HZ).
        cpu_seconds=(int(fields[11]) + int(fields[12])) / 100,
    )


def _kilobytes(text: str) -> int:
    return int(text.split()[0])


def _give_up_after(deadline: float, consumer: Consumer, what: str) -> None:
    if time.monotonic() > deadline:
        raise RunVoid(f"{consumer.name} {what} for {WAIT_SECONDS_MAX:.0f} s")
