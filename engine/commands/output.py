"""How commands speak: data on stdout, everything else on stderr, exit codes with one meaning each."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import anyio
import msgspec
import typer

from engine.errors import (
    ConcordError,
    ConfigError,
    Fenced,
    HubBusy,
    HubError,
    NotNow,
    PluginError,
    SourceError,
    SystemUnreachable,
    TableHeld,
    TargetError,
    Unknown,
)

T = TypeVar("T")
PLAIN_WIDTH = 10_000


class Exit(enum.IntEnum):
    """What a command's exit code means, to scripts and service managers."""

    OK = 0
    BUG = 1
    USAGE = 2
    DIFFERENCES = 3
    """It ran well and found differences, problems or something unhealthy."""
    NOT_FOUND = 4
    REFUSED = 5
    """What was asked for cannot be done as things are."""
    SOURCE = 7
    TARGET = 8
    HUB = 9
    ANOTHER_DAEMON = 75
    CONFIG = 78
    INTERRUPTED = 130
    """Ctrl-C, or a question that was not answered with yes."""
    PIPE_CLOSED = 141
    """Whoever read the output has read enough, as `head` does."""
    TERMINATED = 143


EXIT_HELP = (
    "Exit codes: 0 fine, 3 differences or problems found, 4 not found, 5 not now, 7 source, 8 target, 9 hub,"
    " 78 configuration."
)


def exit_code(error: ConcordError) -> Exit:
    """The code that belongs to an error."""
    if isinstance(error, (ConfigError, PluginError)):
        return Exit.CONFIG
    if isinstance(error, (HubBusy, Fenced)):
        return Exit.ANOTHER_DAEMON
    if isinstance(error, HubError):
        return Exit.HUB
    if isinstance(error, TargetError):
        return Exit.TARGET
    if isinstance(error, (SourceError, SystemUnreachable, TableHeld)):
        return Exit.SOURCE
    if isinstance(error, Unknown):
        return Exit.NOT_FOUND
    return Exit.REFUSED if isinstance(error, NotNow) else Exit.BUG


def fail(error: ConcordError, *, is_json: bool) -> NoReturn:
    """Print an error and leave: message and next step for people, one object for machines."""
    if is_json:
        print_json(
            {
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "hint": error.hint,
                    "problems": list(error.problems) if isinstance(error, ConfigError) else [],
                    "context": {key: str(value) for key, value in error.context.items()},
                }
            }
        )
    else:
        note_error(error)
    raise typer.Exit(exit_code(error))


def note_error(error: ConcordError) -> None:
    """An error for people, on stderr."""
    sys.stderr.write(f"error: {error.message}\n")
    if isinstance(error, ConfigError) and error.problems:
        sys.stderr.writelines(f"  {problem}\n" for problem in error.problems if problem not in error.message)
    if error.hint:
        sys.stderr.write(f"next:  {error.hint}\n")


def execute(work: Callable[[], Coroutine[Any, Any, T]], *, is_json: bool) -> T:
    """Run an async command; errors of the world are printed, not raised."""
    try:
        return anyio.run(work, backend="asyncio", backend_options={"use_uvloop": has_uvloop()})
    except* ConcordError as group:
        fail(_first(group), is_json=is_json)
    except* KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def attempt(work: Callable[[], T], *, is_json: bool) -> T:
    """`execute` for commands that wait for nothing."""
    try:
        return work()
    except ConcordError as error:
        fail(error, is_json=is_json)


def has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return False
    return True


def _first(group: BaseExceptionGroup[ConcordError]) -> ConcordError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConcordError)
    return error


def print_json(document: object) -> None:
    """One JSON document on stdout; `v` is the version of its form, which only ever grows."""
    if isinstance(document, dict):
        document = {"v": 1, **document}  # pyright: ignore[reportUnknownVariableType]
    say(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_items(rows: Sequence[Any], total: int) -> None:
    """A list for machines, cut or whole."""
    print_json({"items": [msgspec.to_builtins(row) for row in rows], "total": total})


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table on stdout: folded to fit a terminal, and elsewhere as wide as its values. `empty` is said when there are
    no rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Without a terminal rich would fold at 80 columns, in the middle of words that scripts look for.
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if not rows:
        say(empty)
        return
    if title:
        # A title of the table's own is folded at its width, which its values make.
        say(title)
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        # One blank on the right of each column and the box's one: ten columns of `concord status` fit 80.
        padding=(0, 1, 0, 0),
    )
    for n, name in enumerate(columns):
        is_number = all(isinstance(row[n], (int, float)) or row[n] in ("", "-") for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    # Captured: at a closed pipe rich would end the process by itself, with a code of its own.
    with console.capture() as captured:
        console.print(table)
    _write(captured.get())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def say(text: str = "") -> None:
    """A line on stdout."""
    _write(text + "\n")


def say_cut(shown: int, total: int, what: str = "") -> None:
    """A list that was cut says so."""
    if shown < total:
        say(f"{what}{shown:,} of {total:,}, --limit 0 for all")


def count_of(number: int, one: str, many: str = "") -> str:
    """ "1 problem", "2 problems"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def confirm(question: str) -> None:
    """Ask; whoever does not say yes ends the command here, with nothing done."""
    try:
        is_sure = typer.confirm(question, err=True)
    except typer.Abort:
        note("")
        is_sure = False
    if not is_sure:
        note("nothing was done; --yes does it without a question")
        raise typer.Exit(Exit.INTERRUPTED)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def note(text: str) -> None:
    """A line on stderr: progress, remarks, next steps."""
    sys.stderr.write(text + "\n")


def time_text(microseconds: int | None) -> str:
    """RFC 3339 in UTC, to the second; "-" for never."""
    if not microseconds:
        return "-"
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def name_text(number: int | None) -> str:
    """A number that names something, as a command takes it."""
    return "-" if number is None else str(number)


def age_text(seconds: float | None) -> str:
    """A duration for people: "3 s", "5 min", "2 h", "4 d"."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * 2:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size_text(count: int | None) -> str:
    """Bytes for people: "16 MB"."""
    if count is None:
        return "-"
    size, unit = _scaled(count, ("B", "kB", "MB", "GB", "TB"))
    return f"{size:.0f} {unit}"


def count_text(count: float) -> str:
    """A number for people, in at most four letters: "0.4", "12", "3.1k", "120k"."""
    size, unit = _scaled(count, ("", "k", "M", "G"))
    return f"{size:.1f}{unit}" if size < (9.95 if unit else 10) and (unit or size != int(size)) else f"{size:.0f}{unit}"


def _scaled(count: float, units: Sequence[str]) -> tuple[float, str]:
    """The number in the unit in which it has at most three digits before the point."""
    size, number = float(count), 0
    while size >= 999.5 and number < len(units) - 1:
        size, number = size / 1000, number + 1
    return size, units[number]
