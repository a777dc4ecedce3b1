"""The command `concord`: one function per command, in the order an operator meets them.

Commands import what they need when they run: `concord --help` must not wait for SQL parsers and database drivers.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from engine.commands import (
    deciding,
    demo,
    governance,
    meaning,
    mending,
    plan,
    plugins,
    prepare,
    running,
    schema,
    workflows,
)
from engine.commands.output import EXIT_HELP, Exit, say

app = typer.Typer(
    name="concord",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep the databases of a service business in agreement.\n\n"
    "Begin with `concord demo`. For your own systems: write concord.toml and a mapping for each, then `concord check`,"
    f" `concord setup`, `concord run`.\n\n{EXIT_HELP}",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        say(f"concord {version('concord-cdc')}")
        raise typer.Exit


@app.callback()
def _options(
    is_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("check")(prepare.check)
app.command("setup")(prepare.setup)
app.command("plan")(plan.plan)
app.command("run")(running.run)
app.command("status")(running.status)
app.command("compare")(running.compare)
app.command("conflicts")(deciding.conflicts)
app.add_typer(deciding.parked_app, name="parked")
app.add_typer(deciding.review_app, name="review")
app.command("rewrite")(mending.rewrite)
app.command("backfill")(mending.backfill)
app.add_typer(schema.schema_app, name="schema")
app.command("explain")(deciding.explain)
app.add_typer(plugins.plugins_app, name="plugins")
app.command("dictionary")(meaning.dictionary)
app.command("mapping")(meaning.mapping)
app.command("flows")(governance.flows)
app.command("workflows")(workflows.workflows)
app.command("teardown")(prepare.teardown)


def main() -> None:
    """Entry point of the console script."""
    if not __debug__:
        sys.stderr.write("error: concord relies on its assertions and does not run with python -O\n")
        raise SystemExit(Exit.USAGE)
    code: str | int | None = Exit.OK
    try:
        app()
    except SystemExit as ending:
        code = ending.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try once more when it ends, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.PIPE_CLOSED
    raise SystemExit(code)


if __name__ == "__main__":
    main()
