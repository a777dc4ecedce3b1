"""`concord demo`: the whole thing at work, on this machine, without anything of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.commands.output import Exit, attempt


def demo(
    directory: Annotated[Path, typer.Option("--directory", help="The folder that is made.")] = Path("concord-demo"),
    is_postgres: Annotated[
        bool, typer.Option("--postgres", help="PostgreSQL instead of SQLite; the server comes with Concord.")
    ] = False,
    is_fast: Annotated[bool, typer.Option("--fast", help="No pauses for reading.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make an earlier demo's folder anew.")] = False,
    served: Annotated[
        Path | None,
        typer.Option("--serve", help="Only run the PostgreSQL server of this demo's folder, until Ctrl-C."),
    ] = None,
) -> None:
    """Show Concord at work: a CRM, a field-service system and an ERP through one day of business, in about a minute.

    Makes a folder with three databases, the hub and concord.toml, and leaves it: every other command works there.

    Exit codes: 0 the three systems agree at the end, 3 they do not, 78 the folder cannot be used.
    """
    from engine.demo.run import run_demo, serve

    def work() -> bool:
        if served is not None:
            serve(served)
            return True
        return run_demo(directory, is_postgres=is_postgres, is_fast=is_fast, replace=replace)

    try:
        agrees = attempt(work, is_json=False)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    if not agrees:
        raise typer.Exit(Exit.DIFFERENCES)
