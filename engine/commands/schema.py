"""What has become of mapped tables, and saying that it is known: schema list, schema ack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.asking import ask
from engine.commands.output import (
    Exit,
    count_of,
    execute,
    exit_code,
    note_error,
    print_items,
    print_table,
    say,
)
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption, SystemArgument
from engine.errors import ConcordError

if TYPE_CHECKING:
    from engine.model.table import Shape

schema_app = typer.Typer(no_args_is_help=True, help="Tables whose columns are not what they were.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedTable:
    """A table that is other than known. `problems`: why the mapping, as its file is now, does not fit it; `waiting`:
    rows that were set aside because it did not."""

    system: str
    table: str
    changes: list[str]
    problems: list[str]
    waiting: int


@schema_app.command("list")
def list_changes(system: SystemArgument = None, config: ConfigOption = DEFAULT, is_json: JsonOption = False) -> None:
    """Show mapped tables whose columns are not what they were, and whether the mapping, as its file is now, fits them.

    Where it does not, rows of the table are set aside and everything else goes on: correct the mapping or the table,
    then acknowledge. A column that has another type goes on with the values that fit, and stands here until somebody
    has seen it.

    Exit codes: 0 nothing waits for a person, 3 a mapping does not fit its table, 7 a system could not be asked.
    """
    found, failures = execute(lambda: _changes(config, system), is_json=is_json)
    if is_json:
        print_items(found, len(found))
    else:
        print_table(
            "",
            ("system", "table", "what", "mapping", "waiting"),
            [
                (t.system, t.table, "; ".join(t.changes) or "-", "does not fit" if t.problems else "fits", t.waiting)
                for t in found
            ],
            empty="all mapped tables are as known" if not failures else "nothing is known to have changed",
        )
        for t in found:
            for problem in dict.fromkeys(t.problems):
                say(problem)
        for t in found:
            if not t.problems:
                say(f"  concord schema ack {t.system} {t.table}: take it as known, read what was set aside")
            else:
                say(f"  correct the mapping of {t.system} or the table, then: concord schema ack {t.system} {t.table}")
        for error in failures:
            note_error(error)
    if failures:
        raise typer.Exit(exit_code(failures[0]))
    if any(t.problems for t in found):
        raise typer.Exit(Exit.DIFFERENCES)


@schema_app.command("ack")
def acknowledge(
    system: Annotated[str, typer.Argument(help="The system.")],
    table: Annotated[str | None, typer.Argument(help="Its table; all that have changed without it.")] = None,
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Take a changed table as known, and go on with it: a running daemon begins again with the mappings as their files
    are now and reads the rows that were set aside. Refused while the mapping does not fit the table.

    Example: concord schema ack crm customers
    """
    from engine.operate import SCHEMA_ACK, Wish

    shapes = execute(lambda: _fitting(config, system, table), is_json=is_json)
    ask(config, Wish(action=SCHEMA_ACK, id=0, choice=system, shapes=shapes), is_json)


async def _changes(file: Path, name: str | None) -> tuple[list[ChangedTable], list[ConcordError]]:
    """Tables that are other than known, and why systems could not be asked."""
    from engine.assemble import chosen_systems, load_meaning, make_system, open_view
    from engine.config.load import load_config
    from engine.pipeline.shapes import changes, misfits
    from engine.views.systems import rows_set_aside

    config = load_config(file)
    found: list[ChangedTable] = []
    failures: list[ConcordError] = []
    with open_view(config, load_meaning(config)) as (tx, topology):
        for system in chosen_systems(config, name):
            part = topology.named(system.name)
            try:
                shapes = await make_system(system, part.mapping).shapes(part.tables)
            except ConcordError as error:
                failures.append(error)
                continue
            changed, waiting = changes(tx, part, shapes), rows_set_aside(tx, part)
            for table in part.tables:
                if table not in shapes:
                    continue
                problems = [str(error) for error in misfits(part, table, shapes[table])]
                if table in changed or problems or waiting.get(table):
                    sentences = changed[table].sentences() if table in changed else []
                    found.append(
                        ChangedTable(
                            system=system.name, table=table, changes=sentences, problems=problems,
                            waiting=waiting.get(table, 0),
                        )
                    )  # fmt: skip
    return found, failures


async def _fitting(file: Path, name: str, table: str | None) -> tuple[Shape, ...]:
    """The shapes to acknowledge. Raises `NotNow` where a mapping does not fit, or nothing has changed."""
    from engine.assemble import load_meaning, make_system, named_system, open_view
    from engine.config.load import load_config
    from engine.errors import NotNow, no_table
    from engine.operate import named_table
    from engine.pipeline.shapes import changes, misfits
    from engine.views.systems import rows_set_aside

    config = load_config(file)
    system = named_system(config, name)
    with open_view(config, load_meaning(config)) as (tx, topology):
        part = topology.named(name)
        wanted = part.tables if table is None else (named_table(part, table),)
        shapes = await make_system(system, part.mapping).shapes(wanted)
        if table is None:
            wanted = tuple(t for t in {**changes(tx, part, shapes), **rows_set_aside(tx, part)} if t in shapes)
    if not wanted:
        raise NotNow(f"no mapped table of {name} has changed", hint="`concord schema list` shows those that have.")
    for one in wanted:
        if one not in shapes:
            raise no_table(name, one)
        problems = misfits(part, one, shapes[one])
        if problems:
            more = count_of(len(problems) - 1, "more problem") if len(problems) > 1 else ""
            raise NotNow(
                f"the mapping does not fit: {problems[0].message}{f' (and {more})' if more else ''}",
                hint=problems[0].hint or f"Correct the mapping of {name} or the table; then acknowledge it.",
            )
    return tuple(shapes[one] for one in wanted)
