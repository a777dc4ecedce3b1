"""What makes a system agree again that a log does not tell about: rewrite from the hub, backfill from the system."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.commands.asking import ask, view
from engine.commands.output import attempt, confirm, count_of, execute
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption


def rewrite(
    record: Annotated[
        str | None, typer.Argument(help="A record number, or SYSTEM:TABLE:KEY; with --missing all without it.")
    ] = None,
    *,
    system: Annotated[str, typer.Option("--system", help="The system that is to be written.")],
    is_missing: Annotated[bool, typer.Option("--missing", help="Make its row again if it is not there.")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask before all missing rows are made again.")] = False,
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Write a record to one system again, whole, as it is now: where `concord compare` shows that a row there is
    missing, has other values, or is one of a deleted record.

    What that system holds instead is lost; where it is what should hold, `concord backfill` takes it as changes. With
    --missing a row that is gone is made again, under the key it had. A change or deletion by the system's users that is
    on its way in its log wins all the same.

    Without a record, --missing makes again whatever `concord compare` finds missing at the system: after a table was
    emptied, which Concord takes for no deletion of its records.

    Example: concord rewrite 42 --system erp
    """
    from engine.assemble import named_system
    from engine.config.load import load_config
    from engine.operate import Wish
    from engine.views import named_record

    if record is None and not is_missing:
        raise typer.BadParameter("name a record, or say --missing for all whose rows are missing")
    attempt(lambda: named_system(load_config(config), system), is_json=is_json)
    if record is not None:
        rid = view(config, lambda tx, topology: named_record(tx, topology, record), is_json)
        ask(config, Wish(action="rewrite", id=rid, choice=system, is_missing=is_missing), is_json)
        return
    rids = execute(lambda: _missing_at(config, system), is_json=is_json)
    if rids and not is_sure:
        confirm(f"make {count_of(len(rids), 'row')} again at {system}?")
    ask(config, Wish(action="rewrite.missing", id=0, choice=system, rids=rids), is_json)


async def _missing_at(file: Path, name: str) -> tuple[int, ...]:
    """Records whose row at a system is missing. Raises what keeps a table of it from being read."""
    from engine.assemble import load_meaning, make_system, named_system, open_view
    from engine.compare import Comparison
    from engine.config.load import load_config

    config = load_config(file)
    with open_view(config, load_meaning(config)) as (tx, topology):
        comparison = Comparison(tx, topology, sys.maxsize)
        system = make_system(named_system(config, name))
        found = await comparison.compare(topology.named(name), system, frozenset())
    for error in comparison.unread:
        raise error
    missing = {d.rid for agreement in found for d in agreement.differences if d.kind == "missing"}
    return tuple(sorted(rid for rid in missing if rid is not None))


def backfill(
    system: Annotated[str, typer.Argument(help="The system whose tables are to be read again.")],
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Read all tables of one system again, beside its log: after its log position was lost, or a table was not captured
    for a while.

    Rows that are known and unchanged change nothing. Everything else that stands there is taken as a change that a user
    made, and goes to the other systems: after damage to the table, an empty column too. Rows that were deleted
    meanwhile are not found: `concord compare` shows their records as missing, `concord rewrite` makes them again.

    Example: concord backfill crm
    """
    from engine.assemble import named_system
    from engine.config.load import load_config
    from engine.operate import BACKFILL, Wish

    attempt(lambda: named_system(load_config(config), system), is_json=is_json)
    ask(config, Wish(action=BACKFILL, id=0, choice=system), is_json)
