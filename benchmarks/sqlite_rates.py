"""What SQLite's plugin does in a second, and what its triggers cost the programs that write.

    python -m benchmarks.sqlite_rates --json

    writer    a user's program: rows of nine columns, one or a hundred a transaction, with capture and without
    capture   the journal of those rows into batches, what was read confirmed and forgotten
    target    deliveries of 10,000 rows: inserts, updates, deletes

One file in WAL mode with `synchronous = normal`, as most programs have it that care for speed; a commit then waits for
no disk, which with `full` it would, and the triggers' share would be lost in that. No server takes part.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio

from benchmarks.machine import load, machine_facts
from benchmarks.report import common_arguments, print_report, say, spread, table_of
from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Role, TableWrite, WriteKind
from plugins.sqlite.apply import SqliteTarget
from plugins.sqlite.capture import SqliteSource
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection, connect_now
from plugins.sqlite.setup import SqliteSystem

COLUMNS = ("id", "name", "email", "note", "quantity", "price", "is_active", "updated_at", "due_on")
DDL = (
    "create table bench (id integer primary key, name text not null, email text not null, note text, quantity integer,"
    " price numeric(12,2) not null, is_active boolean not null, updated_at text, due_on date)"
)
CONFIG = SqliteConfig(path="bench.db")
BATCH_ROWS = 10_000
INSERT = f"insert into bench values ({', '.join('?' * len(COLUMNS))})"
UPDATE = "update bench set name = ?2, quantity = ?3 where id = ?1"
Laps = dict[str, list[tuple[float, float]]]
"""What was measured → rows a second and processor microseconds a row, of each repetition."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common_arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the journal and of the deliveries")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is measured")
    options = parser.parse_args(arguments)
    facts = machine_facts()
    laps_of: Laps = {}
    for number in range(options.repetitions):
        say(f"repetition {number + 1} of {options.repetitions}")
        with tempfile.TemporaryDirectory() as directory:
            anyio.run(measure, Path(directory), options.rows, laps_of)
    found = {name: [spread([lap[n] for lap in laps], n) for n in (0, 1)] for name, laps in laps_of.items()}
    document = {
        "benchmark": "sqlite_rates",
        "rows": options.rows,
        "machine": {**facts, "load_after": load()},
        "measured": {name: {"rows_per_s": rate, "cpu_us_per_row": cpu} for name, (rate, cpu) in found.items()},
    }
    shown = [(name, rate.median, rate.least, rate.greatest, cpu.median) for name, (rate, cpu) in found.items()]
    table = table_of("SQLite", ("what", "rows/s", "least", "greatest", "CPU us/row"), shown)
    print_report(document, [table], as_json=options.json)
    return 0


async def measure(directory: Path, rows: int, laps_of: Laps) -> None:
    """One repetition: two files, one of them captured."""
    for name, is_captured in (("without capture", False), ("with capture", True)):
        site = Site(name="bench", directory=directory / name, work_directory=directory)
        await anyio.Path(site.directory).mkdir()
        await anyio.Path(site.directory / CONFIG.path).touch()
        user = connect_now(site, CONFIG)
        for statement in ("pragma journal_mode = wal", "pragma synchronous = normal", DDL):
            user.execute(statement).close()
        if is_captured:
            await SqliteSystem(site, CONFIG).setup(["bench"], Role.SOURCE | Role.TARGET)
        measure_writer(user, name, rows, laps_of)
        if is_captured:
            await measure_capture(site, laps_of)
            user.execute("delete from bench")
            await measure_target(site, rows, laps_of)
        user.close()


def measure_writer(user: Connection, name: str, rows: int, laps_of: Laps) -> None:
    for size, first, until in ((1, 0, rows // 4), (100, rows // 4, rows // 2)):
        new = make_rows(first, until)
        with lap(laps_of, f"inserts {name}, {size} a commit", until - first):
            write(user, INSERT, new, size)
        changed: list[WireRow] = [(n, f"Changed {n}", n % 7) for n in range(first, until)]
        with lap(laps_of, f"updates {name}, {size} a commit", until - first):
            write(user, UPDATE, changed, size)


def write(user: Connection, sql: str, rows: list[WireRow], size: int) -> None:
    for start in range(0, len(rows), size):
        user.execute("begin")
        for row in rows[start : start + size]:
            user.execute(sql, row)
        user.execute("commit")


async def measure_capture(site: Site, laps_of: Laps) -> None:
    async with SqliteSource(site, CONFIG).feed(None, ["bench"], frozenset()) as feed:
        head = (await SqliteSystem(site, CONFIG).health()).head
        assert head is not None
        with lap(laps_of, "capture", head.order[0]):
            while feed.position < head:
                feed.confirm((await feed.receive(BATCH_ROWS)).position)


async def measure_target(site: Site, rows: int, laps_of: Laps) -> None:
    seq = 0
    async with SqliteTarget(site, CONFIG).open(["bench"]) as session:
        await session.claim("bench", 1)
        for kind in WriteKind:
            writes = [make_write(kind, n, min(n + BATCH_ROWS, rows)) for n in range(0, rows, BATCH_ROWS)]
            with lap(laps_of, f"target: {kind.value}s", rows):
                for one in writes:
                    seq += 1
                    async with session.delivery(seq) as delivery:
                        await delivery.write(one)


def make_write(kind: WriteKind, first: int, until: int) -> TableWrite:
    columns = {WriteKind.INSERT: COLUMNS, WriteKind.UPDATE: COLUMNS[:3], WriteKind.DELETE: COLUMNS[:1]}[kind]
    rows = [row[: len(columns)] for row in make_rows(first, until)]
    rids = list(range(first, until))
    return TableWrite(table="bench", place="bench", kind=kind, columns=columns, key=("id",), rows=rows, rids=rids)


def make_rows(first: int, until: int) -> list[WireRow]:
    note = "visited twice, asked for an offer, file 0cc175b9c0f1b6a831c399e269772661"
    at, day = "2024-01-01 00:00:00.25", "2024-02-29"
    return [
        (n, f"Customer {n}", f"contact{n}@customer.example", note, n % 1000, n / 4, n % 3 == 0, at, day)
        for n in range(first, until)
    ]


@contextmanager
def lap(laps_of: Laps, name: str, rows: int) -> Generator[None]:
    """A block that counts as one repetition."""
    began, cpu_began = time.perf_counter(), time.process_time()
    yield
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    laps_of.setdefault(name, []).append((rows / seconds, cpu_seconds / rows * 1e6))


if __name__ == "__main__":
    sys.exit(main())
