"""Runs of events become rows of the engine."""

from __future__ import annotations

from typing import Final

import msgspec

from engine.errors import MalformedLog
from engine.model.change import DELETE, INSERT, READ, UPDATE, EventKind
from engine.model.value import WireRow
from plugins.kafka.buffer import Run
from plugins.kafka.collect import Collector, Rows
from plugins.kafka.layout import Unfit
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.message import NULL

_OPS: Final = {"c": INSERT, "u": UPDATE, "d": DELETE, "r": READ}
_TRUNCATED: Final = "Every row of it was removed at once"
_RESHAPED: Final = "its columns are not what they were"


class Marker(msgspec.Struct):
    """What is wanted of a row of the marker."""

    seq: int


_decode_marker = msgspec.json.Decoder(Marker).decode


def marker_seq(run: Run, index: int, system: str) -> int:
    """The seq in a row of the marker. Raises `MalformedLog`."""
    try:
        return _decode_marker(run.events[index].after).seq
    except msgspec.MsgspecError:
        raise MalformedLog(f"system {system}, topic {run.table.topic}: the marker's seq is no number") from None


def read_run(run: Run, layouts: Layouts, *, joins_keys: bool = True) -> list[Rows | str]:
    """The run's rows; the text `truncate` stands where the table was emptied. Changes nothing: on `NeedLayout` it may
    be called again. `joins_keys`: the two halves of a change of key make one update."""
    found: list[Rows | str] = []
    start = 0
    for index, event in enumerate(run.events):
        if event.op == "t":
            if index > start:
                found.append(_read(run, start, index, layouts, joins_keys=joins_keys))
            found.append("truncate")
            start = index + 1
    if start < len(run.events):
        found.append(_read(run, start, len(run.events), layouts, joins_keys=joins_keys))
    return found


def collect(collector: Collector, run: Run, found: list[Rows | str], layouts: Layouts) -> None:
    """Put what `read_run` found into the batch."""
    for rows in found:
        if isinstance(rows, str):
            collector.event(EventKind.TRUNCATED, run.table.name, None, _TRUNCATED)
            continue
        if layouts.tell(rows.table, rows.shape):
            collector.event(EventKind.RESHAPED, rows.table, rows.shape, _RESHAPED)
        collector.add(rows)


def _read(run: Run, start: int, end: int, layouts: Layouts, *, joins_keys: bool) -> Rows:
    layout = layouts.find(run)
    events = run.events[start:end]
    ops = bytes([_OPS[event.op] for event in events])
    times = [event.source.time for event in events]
    size = run.size * len(events) // max(1, len(run.events))
    if DELETE not in ops and not run.moved:
        try:
            rows = layout.read([event.after for event in events])
        except Unfit as error:
            raise _unfit(run, start + error.index) from None
        return Rows(run.table.name, layout.shape, ops, rows, times, size=size)
    return _read_mixed(run, start, end, layouts, joins_keys=joins_keys)


def _read_mixed(run: Run, start: int, end: int, layouts: Layouts, *, joins_keys: bool) -> Rows:
    """With deletions among them, and changes of keys."""
    layout, where = layouts.find(run), layouts.where(run.table.name)
    kept = [n for n in range(start, end) if run.events[n].op != "d"]
    try:
        whole = dict(zip(kept, layout.read([run.events[n].after for n in kept]) if kept else [], strict=True))
    except Unfit as error:
        raise _unfit(run, kept[error.index]) from None
    ops = bytearray()
    result = Rows(run.table.name, layout.shape, ops, [], [], size=run.size)
    for n in range(start, end):
        event = run.events[n]
        is_new, other = run.moved.get(n, (False, b""))
        op, row, old = _OPS[event.op], whole.get(n), None
        if row is None:
            if joins_keys and is_new:
                # The other half comes with the row as it is now.
                continue
            row = _old_row(run, n, layouts)
        elif joins_keys and other:
            op, old = UPDATE, layout.read_key(other, where)
        if old is not None:
            result.old[len(result.rows)] = old
        ops.append(op)
        result.rows.append(row)
        result.times.append(event.source.time)
    return result


def _old_row(run: Run, index: int, layouts: Layouts) -> WireRow:
    """A deleted row's key: of the row before, or of the message where the log keeps nothing of that."""
    layout, where = layouts.find(run), layouts.where(run.table.name)
    before = bytes(run.events[index].before)
    if before == NULL:
        before = layouts.unwrap_key(run.keys.get(index), where)
    return layout.read_key(before, where)


def _unfit(run: Run, index: int) -> NeedLayout:
    return NeedLayout(run, index)
