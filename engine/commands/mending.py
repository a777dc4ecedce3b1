"""What makes a system agree again that a log does not tell about: rewrite from the hub, backfill from the system."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.asking import ask, view
from engine.commands.output import (
    age_text,
    attempt,
    confirm,
    count_of,
    count_text,
    execute,
    note,
    print_items,
    print_table,
    say_cut,
)
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption

if TYPE_CHECKING:
    from engine.operate import Wish


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
    from engine.views.records import named_record

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
        part = topology.named(name)
        system = make_system(named_system(config, name), part.mapping)
        found = await comparison.compare(part, system, frozenset())
    for error in comparison.unread:
        raise error
    missing = {d.rid for agreement in found for d in agreement.differences if d.kind == "missing"}
    return tuple(sorted(rid for rid in missing if rid is not None))


def backfill(
    system: Annotated[str | None, typer.Argument(help="The system whose tables are to be read again.")] = None,
    table: Annotated[str | None, typer.Argument(help="Only this table; all without it.")] = None,
    condition: Annotated[
        str, typer.Option("--where", help="Only rows for which this SQL condition of the system holds.")
    ] = "",
    throttle: Annotated[int | None, typer.Option("--throttle", min=1, help="At most so many rows a second.")] = None,
    pause: Annotated[int | None, typer.Option("--pause", help="Let this backfill wait.")] = None,
    resume: Annotated[int | None, typer.Option("--resume", help="Go on with it where it stands.")] = None,
    stop: Annotated[int | None, typer.Option("--stop", help="Give it up.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Rows shown, 0 for all.")] = 20,
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Read tables of a system again, beside its log, while everything goes on: after its log position was lost, a table
    was not captured for a while, or a mapping has got a field more. Without a system: how far they are.

    Rows that are known and unchanged change nothing. Everything else that stands there is taken as a change that a user
    made, and goes to the other systems: after damage to the table, an empty column too. What the log tells meanwhile is
    newer and wins. Rows that were deleted meanwhile are not found: `concord compare` shows their records as missing,
    `concord rewrite` makes them again.

    Example: concord backfill crm customers --where "changed_at > '2026-11-01'" --throttle 500
    """
    from engine.assemble import named_system
    from engine.config.load import load_config
    from engine.operate import BACKFILL, BACKFILL_STATE, Wish

    states = [(n, s) for n, s in ((pause, "paused"), (resume, "running"), (stop, "stopped")) if n is not None]
    if len(states) + (system is not None) > 1:
        raise typer.BadParameter("a system, --pause, --resume and --stop are one at a time")
    if (condition or throttle) and table is None:
        raise typer.BadParameter("--where and --throttle are for one table: name it behind the system")
    if states:
        number, state = states[0]
        ask(config, Wish(action=BACKFILL_STATE, id=number, choice=state), is_json)
    elif system is None:
        _list_backfills(config, limit, is_json)
    else:
        chosen = attempt(lambda: named_system(load_config(config), system), is_json=is_json)
        wish = Wish(action=BACKFILL, id=0, choice=system, rows_per_s=throttle)
        if table is not None:
            checked = _one_condition(condition, chosen.plugin.dialect_for(chosen.options))
            wish = execute(lambda: _table_wish(config, wish, table, checked), is_json=is_json)
        ask(config, wish, is_json)


def _one_condition(text: str, dialect: str) -> str:
    from crosswalk.expression import one_condition
    from crosswalk.sql_scope import SqlProblem

    try:
        return one_condition(text, dialect) if text else ""
    except SqlProblem as error:
        raise typer.BadParameter(str(error), param_hint="--where") from None


async def _table_wish(file: Path, wish: Wish, table: str, condition: str) -> Wish:
    """The wish for one table, with how many rows there are. Raises what the system says of a condition."""
    from msgspec.structs import replace

    from engine.assemble import load_meaning, make_system, named_system, open_view
    from engine.config.load import load_config
    from engine.operate import named_table

    config = load_config(file)
    meaning = load_meaning(config)
    with open_view(config, meaning) as (_, topology):
        name = named_table(topology.named(wish.choice), table)
    count = await make_system(named_system(config, wish.choice)).count(name, condition)
    return replace(wish, table=name, condition=condition, rows_total=count)


def _list_backfills(config: Path, limit: int, is_json: bool) -> None:
    from engine.views.systems import backfills, count_backfills

    found, total = view(config, lambda tx, _: (backfills(tx, limit), count_backfills(tx)), is_json)
    if is_json:
        print_items(found, total)
        return
    print_table(
        "",
        ("id", "system", "table", "where", "state", "rows", "of", "rows/s", "left"),
        [
            (row.id, row.system, row.table, row.condition or "-", row.state, row.rows_read, row.rows_total,
             count_text(row.rate), age_text(row.seconds_left))
            for row in found
        ],
        empty="no table was read again by itself; first copies and those of whole systems stand in `concord status`",
    )  # fmt: skip
    say_cut(len(found), total)
    for row in found:
        if row.message:
            note(f"backfill {row.id}: {row.message}")
            note(f"next:  mend that, then `concord backfill --resume {row.id}`")
