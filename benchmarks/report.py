"""What a benchmark says: one JSON document, or a table for people, with the facts of the machine it ran on.

Rates of different machines are not comparable, and a busy machine's are not repeatable; so the document carries what is
needed to judge that. Progress goes to standard error, so that standard output is the document alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement repeated. `median` is what is quoted; `values` in the order they were taken."""

    median: float
    least: float
    greatest: float
    values: list[float]


def spread(values: Sequence[float], digits: int = 1) -> Spread:
    """At least one value."""
    rounded = [round(value, digits) for value in values]
    return Spread(
        median=round(statistics.median(values), digits), least=min(rounded), greatest=max(rounded), values=rounded
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; `ordered` ascends and is not empty."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def common_arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    return parser


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def print_report(document: dict[str, Any], tables: Sequence[Table], *, as_json: bool) -> None:
    """Print the document, or the tables and the facts of the machine."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    console = Console()
    for table in tables:
        console.print(table)
    facts = document["machine"]
    console.print(
        f"{facts['cores']} cores ({facts['processor']}), PostgreSQL {facts.get('postgres', '-')},"
        f" Python {facts['python']}, fsync {facts['fsync_ms']} ms, load before {facts['load_before']}",
        highlight=False,
    )
    for line in document.get("void", []):
        console.print(f"VOID: {line}", style="bold red", highlight=False)


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
