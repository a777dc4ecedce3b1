"""What looks have found, as batches: each look is one segment behind the marker that it saw."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.model.change import DELETE, UPDATE, Batch, EventKind, Segment, TableEvent, TableRows
from engine.model.position import WHOLE, Position
from engine.model.table import Shape
from engine.model.value import ABSENT, WireRow
from plugins.polling.look import DROPPED, ECHO, ECHO_GONE, RESHAPED, TRUNCATED
from plugins.polling.looks import Looks

EVENTS = {RESHAPED: EventKind.RESHAPED, DROPPED: EventKind.DROPPED, TRUNCATED: EventKind.TRUNCATED}
DETAILS = {
    DROPPED: "Bring the table back",
    TRUNCATED: "It had rows and was found empty: delete the records elsewhere if that was meant",
}


def read_found(looks: Looks, position: Position, rows_max: int, number: int, token: str) -> Batch:
    """What was found behind `position`, up to about `rows_max` rows; without segments where nothing was, up to the end
    of look `number`."""
    look, index = position.order
    heads = looks.rows(
        # Not how many there are: the first ones may be confirmed and gone.
        "select number, seen, seen_at_least, at, echoed,"
        " (select coalesce(max(n), -1) + 1 from found where look = number) from look"
        " where number >= ? order by number",
        (look if index != WHOLE else look + 1,),
    )
    batch = Batch(position=Position((max(number, look), WHOLE), token))
    for n, (head, seen, at_least, at, echoed, count) in enumerate(heads):
        start = index + 1 if head == look else 0
        if batch.segments and batch.rows_read + count - start > rows_max:
            batch.has_more = True
            break
        limit = rows_max if not batch.segments else count
        rows = looks.rows(
            "select f.n, f.op, f.delivery, f.time, f.row, f.shape, s.doc from found f join shape s on s.id = f.shape"
            " where f.look = ? and f.n >= ? order by f.n limit ?",
            (head, start, limit),
        )
        is_whole = start + len(rows) >= count
        batch.segments += _segments(rows, seen, at_least)
        batch.position = Position((head, WHOLE if is_whole else start + len(rows) - 1), token)
        batch.is_whole = is_whole
        shown = sum(op in (ECHO, ECHO_GONE) for _, op, *_ in rows)
        if start == 0:
            # Those that were shown for verification are counted where they are.
            batch.rows_read += max(echoed - shown, 0)
            batch.rows_echoed += max(echoed - shown, 0)
        batch.rows_read += sum(op not in EVENTS for _, op, *_ in rows)
        batch.rows_echoed += shown
        batch.size += sum(len(row[4]) for row in rows)
        batch.committed_at = at
        batch.has_more = not is_whole or n + 1 < len(heads)
        if not is_whole or batch.rows_read >= rows_max:
            break
    return batch


def _segments(rows: list[tuple[Any, ...]], seen: int, seen_at_least: int) -> list[Segment]:
    """Events, then what deliveries have made of their rows, one after the other, then what users have changed."""
    found: list[Segment] = []
    last = Segment(seen=seen or None, seen_at_least=seen_at_least)
    shapes: dict[int, Shape] = {}
    tables: dict[tuple[int, int, int], TableRows] = {}
    for _, op, delivery, time, document, number, shape in rows:
        if number not in shapes:
            shapes[number] = msgspec.json.decode(shape, type=Shape)
        own = shapes[number]
        if op in EVENTS:
            is_reshaped = op == RESHAPED
            last.events.append(TableEvent(EVENTS[op], own.name, own if is_reshaped else None, DETAILS.get(op, "")))
            continue
        if op in (ECHO, ECHO_GONE):
            if not found or found[-1].seen != delivery:
                found.append(Segment(seen=delivery))
            segment, op = found[-1].echoes, UPDATE if op == ECHO else DELETE
        else:
            segment = last.tables
        place = (id(segment), number, 0)
        if place not in tables:
            tables[place] = segment[own.name] = TableRows(own)
        tables[place].add(op, _row(own, op, document), time)
    return [*found, last]


def _row(shape: Shape, op: int, document: bytes) -> WireRow:
    values: list[Any] = msgspec.msgpack.decode(document)
    if op != DELETE:
        return tuple(values)
    key = dict(zip(shape.key, values, strict=True))
    return tuple(key.get(column.name, ABSENT) for column in shape.columns)
