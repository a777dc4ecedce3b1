"""What the audience sees: in a terminal a running account above a panel of the three systems, elsewhere plain lines."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.demo.daemon import Pulse

if TYPE_CHECKING:
    from rich.table import Table

INDENT = "       "


class Stage:
    """Prints. `seconds` is how long a pause for reading is; 0 for a run that nobody watches."""

    def __init__(self, seconds: float) -> None:
        from rich.console import Console

        self.seconds = seconds
        self.is_terminal = sys.stdout.isatty()
        self._console = Console(highlight=False)

    def title(self, text: str) -> None:
        self._print(f"\n{text}", "bold")

    def step(self, clock: str, text: str) -> None:
        """Something that somebody does, and when."""
        self._print(f"\n{clock}  {text}", "bold cyan")
        self.pause(0.6)

    def fact(self, text: str) -> None:
        """Something that came of it."""
        self._print(f"{INDENT}{text}", "green")

    def decision(self, text: str) -> None:
        """Something that Concord decided, or that waits for a person."""
        self._print(f"{INDENT}{text}", "yellow")

    def say(self, text: str = "") -> None:
        self._print(text, "")

    def aside(self, text: str) -> None:
        self._print(f"{INDENT}{text}", "dim")

    def pause(self, share: float = 1.0) -> None:
        """Time to read. Never for something to happen: that is waited for by looking."""
        if self.seconds:
            time.sleep(self.seconds * share)

    def _print(self, text: str, style: str) -> None:
        if self.is_terminal:
            from rich.text import Text

            # Lines that continue stand under the text they continue.
            hang = len(text) - len(text.lstrip(" ")) + (2 if text.startswith(" ") else 0)
            width = max(self._console.width, 40)
            shown = "\n".join(
                textwrap.fill(line, width, subsequent_indent=" " * hang, break_on_hyphens=False)
                for line in text.split("\n")
            )
            self._console.print(Text(shown, style=style))
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @contextmanager
    def panel(self, pulses: Callable[[], Mapping[str, Pulse]]) -> Generator[None]:
        """Keep a panel of the systems below the account while the block lasts; nothing without a terminal."""
        if not self.is_terminal:
            yield
            return
        from rich.live import Live

        with Live(
            console=self._console,
            get_renderable=lambda: _panel(pulses()),
            refresh_per_second=8,
            transient=True,
        ):
            yield


def _panel(pulses: Mapping[str, Pulse]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"running": "green", "paused": "yellow", "killed": "bold red", "HALTED": "bold red"}
    table = Table(box=box.ROUNDED, border_style="dim")
    for name in ("system", "reads", "writes", "rows read", "rows written", "conflicts", "parked"):
        table.add_column(name, justify="left" if name in ("system", "reads", "writes") else "right")
    for system, pulse in pulses.items():
        states = (Text(state, style=styles.get(state, "")) for state in (pulse.source, pulse.target))
        numbers = (pulse.read, pulse.written, pulse.conflicts, pulse.parked)
        table.add_row(Text(system, style="bold"), *states, *(f"{n:,}" for n in numbers))
    return table


def duration(seconds: float) -> str:
    """For people: "70 ms", "1.3 s"."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.995 else f"{seconds:.1f} s"
