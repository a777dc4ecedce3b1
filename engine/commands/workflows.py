"""What follows from what, and what has followed so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.commands.asking import view
from engine.commands.output import Exit, print_json, print_table, say, time_text
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption

if TYPE_CHECKING:
    from engine.hub.transaction import HubTransaction
    from engine.pipeline.topology import Topology
    from engine.views.workflows import WorkflowRow


def workflows(config: ConfigOption = DEFAULT, is_json: JsonOption = False) -> None:
    """Show the workflows that run: how many records have set each off, what was made of them, and what waits.

    What waits is tried again whenever its record changes. Why a record is there: `concord explain RECORD`.

    Exit codes: 0, or 3 when something waits.
    """

    def read(tx: HubTransaction, topology: Topology) -> list[WorkflowRow]:
        from engine.views.workflows import workflows as rows

        return rows(tx, [workflow.name for workflow in topology.workflows])

    found = view(config, read, is_json)
    if is_json:
        import msgspec

        print_json({"workflows": msgspec.to_builtins(found)})
    else:
        print_table(
            "",
            ("workflow", "begun", "made", "waits"),
            [
                (row.name, row.begun, ", ".join(f"{count:,} {name}" for name, count in row.made.items()) or "-",
                 len(row.waiting))
                for row in found
            ],
            empty='no workflow runs; name them in concord.toml: workflows = "service"',
        )  # fmt: skip
        for row in found:
            for waiting in row.waiting:
                say(f"{row.name}: record {waiting.record}, {time_text(waiting.at)}: {waiting.message}")
    if any(row.waiting for row in found):
        raise typer.Exit(Exit.DIFFERENCES)
