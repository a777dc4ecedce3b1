"""What waits for a person, and what is on record: conflicts, parked, review, explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.asking import ask, view
from engine.commands.output import (
    confirm,
    count_of,
    print_items,
    print_json,
    print_table,
    say,
    say_cut,
    time_text,
)
from engine.commands.prepare import DEFAULT, ConfigOption, JsonOption

if TYPE_CHECKING:
    from engine.hub.transaction import HubTransaction
    from engine.pipeline.topology import Topology
    from engine.views.records import HistoryRow
    from engine.views.waiting import ParkedRow

ALIVE_NAME = "alive"

parked_app = typer.Typer(no_args_is_help=True, help="Records a target refused and rows a mapping could not read.")
review_app = typer.Typer(no_args_is_help=True, help="Rows that match several records: which one is it?")
Limit = Annotated[int, typer.Option("--limit", min=0, help="Rows shown, 0 for all.")]
Number = Annotated[int, typer.Argument(help="The number that the list shows.")]


def conflicts(
    record: Annotated[str | None, typer.Argument(help="A record number or SYSTEM:TABLE:KEY; all without it.")] = None,
    config: ConfigOption = DEFAULT,
    is_open: Annotated[bool, typer.Option("--open", help="Only those that wait for a person.")] = False,
    take: Annotated[int | None, typer.Option("--take", help="Take the value that lost in this open conflict.")] = None,
    keep: Annotated[int | None, typer.Option("--keep", help="Close this open conflict, the value stays.")] = None,
    limit: Limit = 20,
    is_json: JsonOption = False,
) -> None:
    """Show changes that did not know of each other, or that an owner overruled: who won, who lost, by which rule.

    Rules: owner (the system of record wins), latest (the later commit), sum (a counter: both count), manual (waits for
    you: --take or --keep), deleted (a change of a record that another system deleted).

    Example: concord conflicts crm:customers:42
    """
    from engine.operate import Wish
    from engine.views.records import named_record
    from engine.views.waiting import conflicts as read_conflicts
    from engine.views.waiting import count_conflicts

    if take is not None and keep is not None:
        raise typer.BadParameter("--take and --keep exclude each other")
    if take is not None or keep is not None:
        number = take if take is not None else keep
        wish = Wish(action="conflict.choose", id=number or 0, choice="take" if take is not None else "keep")
        ask(config, wish, is_json)
        return

    def read(tx: HubTransaction, topology: Topology) -> tuple[list[Any], int]:
        rid = named_record(tx, topology, record) if record is not None else None
        rows = read_conflicts(tx, record=rid, only_open=is_open, limit=limit)
        return rows, count_conflicts(tx, record=rid, only_open=is_open)

    rows, total = view(config, read, is_json)
    if is_json:
        print_items(rows, total)
        return
    print_table(
        "",
        ("no.", "when", "entity", "record", "fields", "won", "lost", "rule"),
        [
            (
                str(r.id),
                time_text(r.recorded_at),
                r.entity,
                str(r.record),
                ", ".join(r.fields),
                f"{_values(r.fields, r.winner_values)} ({r.winner})",
                f"{_values(r.fields, r.loser_values)} ({r.loser})",
                r.rule + (" - open" if r.is_open else ""),
            )
            for r in rows
        ],
        empty="no conflicts",
    )
    say_cut(len(rows), total)


@parked_app.command("list")
def parked_list(
    config: ConfigOption = DEFAULT,
    system: Annotated[str | None, typer.Option("--system", help="Only this system's.")] = None,
    limit: Limit = 50,
    is_json: JsonOption = False,
) -> None:
    """List what is parked, the oldest first. Everything else flows meanwhile."""
    from engine.views.waiting import count_parked, parked

    rows, total = view(
        config, lambda tx, _: (parked(tx, system=system, limit=limit), count_parked(tx, system)), is_json
    )
    if is_json:
        print_items(rows, total)
        return
    print_table(
        "",
        ("no.", "system", "table", "record", "reason", "field", "tries", "since", "what"),
        [
            (
                str(r.id),
                r.system,
                r.table,
                # A row that cannot be read is in no record yet: whoever is to correct it looks for its key.
                f"key {r.key or '-'}" if r.record is None else str(r.record),
                r.reason,
                r.field,
                r.attempts,
                time_text(r.parked_at),
                r.message,
            )
            for r in rows
        ],
        empty="nothing is parked",
    )
    say_cut(len(rows), total)


@parked_app.command("show")
def parked_show(number: Number, config: ConfigOption = DEFAULT, is_json: JsonOption = False) -> None:
    """Show one parked record: what was refused, why, and what to do."""
    row = _parked_row(config, number, is_json)
    if is_json:
        print_items([row], 1)
        return
    say(f"parked {row.id}: {row.system}, table {row.table}, {row.direction} side")
    say(f"  record   {row.record if row.record is not None else '-'}    key {row.key or '-'}")
    if row.rows:
        say(f"  rows     {', '.join(row.rows)}")
    tries = count_of(row.attempts, "try", "tries")
    say(f"  since    {time_text(row.parked_at)}, {tries}, next {time_text(row.try_after)}")
    say(f"  reason   {row.reason}" + (f", field {row.field}" if row.field else ""))
    say(f"  message  {row.message}")
    if row.hint:
        say(f"  next     {row.hint}")
    if row.record is not None:
        say(f"  history  concord explain {row.record}")


def _parked_row(config: Path, number: int, is_json: bool) -> ParkedRow:
    from engine.errors import Unknown
    from engine.views.waiting import parked

    def read(tx: HubTransaction, _: Topology) -> ParkedRow:
        rows = parked(tx, number=number)
        if not rows:
            raise Unknown(f"nothing is parked under number {number}", hint="Run `concord parked list`.")
        return rows[0]

    return view(config, read, is_json)


@parked_app.command("retry")
def parked_retry(
    number: Annotated[int | None, typer.Argument(help="The number that the list shows.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="All of them, the oldest first.")] = False,
    system: Annotated[str | None, typer.Option("--system", help="With --all: only this system's.")] = None,
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Try parked records again now. The daemon does so by itself too, with growing pauses.

    Example: concord parked retry --all --system erp
    """
    from engine.operate import Wish

    if (number is None) != is_all or (system is not None and not is_all):
        raise typer.BadParameter("give a number, or --all, or --all --system NAME")
    if number is not None:
        ask(config, Wish(action="parked.retry", id=number), is_json)
    else:
        ask(config, Wish(action="parked.retry_all", id=0, choice=system or ""), is_json)


@parked_app.command("drop")
def parked_drop(
    number: Number,
    config: ConfigOption = DEFAULT,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: JsonOption = False,
) -> None:
    """Give a parked record up: the system keeps what it has until the record changes again. Audited.

    What it leaves behind is a difference that `concord compare` shows. `concord rewrite RECORD --system NAME` undoes it
    where a target had refused the record, `concord backfill NAME` where a row could not be read.

    Example: concord parked drop 17
    """
    from engine.operate import Wish, dropped

    row = _parked_row(config, number, is_json)
    if not is_sure:
        what = f"record {row.record}" if row.record is not None else f"the row with key {row.key or '-'}"
        confirm(f"parked {number}: {what}: {row.message}\nGiven up, {dropped(row.system, row.record)}\nGive it up?")
    ask(config, Wish(action="parked.drop", id=number), is_json)


@review_app.command("list")
def review_list(config: ConfigOption = DEFAULT, limit: Limit = 20, is_json: JsonOption = False) -> None:
    """List rows that match several records. Their records go nowhere until somebody has decided."""
    from engine.views.waiting import count_reviews, reviews

    rows, total = view(config, lambda tx, _: (reviews(tx, limit), count_reviews(tx)), is_json)
    if is_json:
        print_items(rows, total)
        return
    if not rows:
        say("nothing waits for a decision")
    for r in rows:
        say(f"review {r.id}: {r.system}, table {r.table}, key {r.key}: which {r.entity} is this?")
        say(f"  the row      {_pairs(r.values)}")
        for rid, values in r.candidates:
            say(f"  record {rid:<6} {_pairs(values)}")
        say(f"  next: concord review link {r.id} RECORD, or concord review new {r.id}")
    say_cut(len(rows), total)


@review_app.command("link")
def review_link(
    number: Number,
    record: Annotated[int, typer.Argument(help="The record that the row is.")],
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Say that the row is this record; fields that differ are decided as conflicts."""
    from engine.operate import Wish

    ask(config, Wish(action="review.link", id=number, rid=record), is_json)


@review_app.command("new")
def review_new(number: Number, config: ConfigOption = DEFAULT, is_json: JsonOption = False) -> None:
    """Say that the row is none of them: it becomes a record of its own and goes to the other systems."""
    from engine.operate import Wish

    ask(config, Wish(action="review.new", id=number), is_json)


def explain(
    record: Annotated[str, typer.Argument(help="A record number, or SYSTEM:TABLE:KEY.")],
    field: Annotated[str | None, typer.Option("--field", help="Only this field.")] = None,
    config: ConfigOption = DEFAULT,
    is_json: JsonOption = False,
) -> None:
    """Tell a record's story: who set which value when, what it replaced, what lost and by which rule.

    Example: concord explain crm:customers:42 --field phone
    """
    from engine.views.records import explain as read_explanation
    from engine.views.records import named_record

    def read(tx: HubTransaction, topology: Topology) -> Any:
        return read_explanation(tx, topology, named_record(tx, topology, record), field)

    found = view(config, read, is_json)
    if is_json:
        import msgspec

        print_json({"record": msgspec.to_builtins(found)})
        return
    say(f"record {found.record}: {found.entity}")
    for system, table, key in found.rows:
        say(f"  in {system}: table {table}, key {key}")
    names = [name for name in found.values if field in (None, name)]
    print_table(
        "now",
        ("field", "value", "set by", "when", "seq"),
        [
            (name, _field_value(name, found.values[name]), *_stamp(found.set_by.get(name)))
            for name in names
            if found.values[name] is not None or name in found.set_by
        ],
        empty="no values",
    )
    print_table(
        "history",
        ("seq", "when", "field", "system", "what", "value", "instead of"),
        [
            (h.seq, time_text(h.time), h.field, h.system, _what(h),
             _field_value(h.field, h.value), _field_value(h.field, h.replaced))
            for h in found.history
        ],
        empty="no history (older than the hub's retention)",
    )  # fmt: skip
    for row in found.parked:
        say(f"parked {row.id} at {row.system}: {row.message}")


def _what(row: HistoryRow) -> str:
    if row.kind != "set":
        return f"lost ({row.rule})"
    return "set" if row.because is None else f"set, following record {row.because}"


def _stamp(stamp: tuple[str, int, int] | None) -> tuple[object, object, object]:
    return (stamp[0], time_text(stamp[1]), stamp[2]) if stamp is not None else ("-", "-", "-")


def _value(value: object) -> str:
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)


def _field_value(name: str, value: object) -> str:
    """A value for people: whether a record lives is said in words."""
    if name != ALIVE_NAME or value is None:
        return _value(value)
    return "exists" if value else "deleted"


def _values(names: list[str], values: list[Any]) -> str:
    """One value as it is; those of a group each with its field."""
    shown = [_field_value(name, value) for name, value in zip(names, values, strict=False)]
    return shown[0] if len(shown) == 1 else ", ".join(f"{n}={text}" for n, text in zip(names, shown, strict=False))


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items() if name != "alive")
