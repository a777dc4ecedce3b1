"""What a run has of its machine: facts that never change, and how much of the processors it and everybody else used.

On a shared machine a rate alone cannot be judged. `Share` tells it apart: what the processes of the run used between
two moments, and what the rest of the machine did meanwhile. The first is the price of the work whoever else was busy.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from benchmarks.servers import SETTINGS, Pair

_FSYNC_COUNT = 200
# The kernel counts processor time in hundredths of a second for user space (USER_HZ).
_TICKS_PER_SECOND = 100
# More than this of a core taken by others, and a rate is not what the machine can do.
OTHERS_CORES_MAX = 0.15


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Cores in use on average between two moments.

    `own_cores`: this process, the servers and whatever else it started. `other_cores`: everybody else. `stolen_cores`:
    taken by the host of a virtual machine. `own_seconds`: processor time of the first.
    """

    own_cores: float
    other_cores: float
    stolen_cores: float
    own_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters at one moment, seconds."""

    at: float
    own: float
    busy: float
    stolen: float


def read_counters() -> Reading:
    """Now."""
    with open("/proc/stat", encoding="ascii") as file:
        # user, nice, system, idle, iowait, irq, softirq, steal; guest time is contained in user time.
        ticks = [int(word) for word in file.readline().split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4] - ticks[7]
    return Reading(
        at=time.monotonic(),
        own=_own_ticks() / _TICKS_PER_SECOND,
        busy=busy / _TICKS_PER_SECOND,
        stolen=ticks[7] / _TICKS_PER_SECOND,
    )


def share_between(first: Reading, last: Reading) -> Share:
    """What was used between two readings."""
    seconds = max(last.at - first.at, 0.001)
    own = last.own - first.own
    return Share(
        own_cores=round(own / seconds, 2),
        # Counters of hundredths, read one after the other, may disagree by a little.
        other_cores=round(max(0.0, last.busy - first.busy - own) / seconds, 2),
        stolen_cores=round((last.stolen - first.stolen) / seconds, 2),
        own_seconds=round(own, 2),
    )


def _own_ticks() -> int:
    """Of this process and all its descendants, those included that have ended and been waited for."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Behind the command's closing bracket. Counted from 1: field 4 is the parent, 14 to 17 the times of the
            # process and of its children that are gone.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(int(word) for word in fields[11:15])
    own = os.getpid()
    total = 0
    for pid, ticks in used.items():
        ancestor = pid
        while ancestor not in (0, 1, own):
            ancestor = parents.get(ancestor, 0)
        total += ticks if ancestor == own else 0
    return total


def machine_facts(pair: Pair | None = None) -> dict[str, Any]:
    """What it ran on and with."""
    facts: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20),
        "system": platform.platform(),
        "python": platform.python_version(),
        "concord": version("concord-cdc"),
        "load_before": load(),
        "fsync_ms": fsync_ms(),
    }
    if pair is not None:
        with psycopg.connect(pair.source.dsn("postgres"), autocommit=True) as connection:
            row = connection.execute("show server_version").fetchone()
        facts["postgres"] = row[0] if row else "unknown"
        facts["postgres_settings"] = dict(SETTINGS)
    return facts


def load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def fsync_ms() -> float:
    """Median time that one write of a page takes to reach the disk of the temporary directory, milliseconds."""
    taken: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_FSYNC_COUNT):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return round(statistics.median(taken) * 1000, 3)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
