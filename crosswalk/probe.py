"""Is what a field's SQL writes read back as it was? Tried with made-up values, before a row has moved.

Nothing is wrong with `lower(email)` that is written back as `email`, until another system has a capital: the row then
never reads as the record says, and its next change makes everybody's letters small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from crosswalk import convert
from crosswalk.block import Block, MappedField
from crosswalk.compile_read import compile_reader
from crosswalk.compile_write import compile_writer
from engine.model.entity import ALIVE, Entity, Field, Type
from engine.model.table import Shape


def lost_on_the_way(block: Block, shape: Shape, entity: Entity, mapped: MappedField) -> list[str]:
    """What does not come back, in words; empty also where nothing is known of it. The field compiles."""
    if mapped.read is None or mapped.is_read_only or any(column in block.key for column in mapped.writes):
        return []
    alone = replace(block, fields=(mapped,), filter=None, constants={}, touched={}, key=())
    reader, writer = compile_reader(alone, shape, entity), compile_writer(alone, shape, entity)
    index = entity.index[mapped.name]
    lost: list[str] = []
    for value, words in _samples(entity.fields[index]):
        record = tuple(True if n == ALIVE else value if n == index else None for n in range(len(entity.fields)))
        written = writer.update(writer.mask, [""], [record])
        row = written.rows[0]
        if written.problems or row is None:
            continue
        values = dict(zip(written.columns, row, strict=True))
        read = reader.read([tuple(values.get(column.name) for column in shape.columns)])
        back = read.records[0]
        if (read.problems or back is None or back[index] != value) and words not in lost:
            lost.append(words)
    return lost


def _samples(field: Field) -> Iterator[tuple[Any, str]]:
    if not field.is_required:
        yield None, "null"
    match field.type:
        case Type.TEXT if field.unit is None:
            yield from (("ab", "small letters"), ("AB", "capitals"), ("ab ", "a space at the end"))
            yield from ((" ab", "a space at the beginning"), ("a-b/7", "signs and digits"))
        case Type.INTEGER:
            yield from ((7, "numbers"), (-7, "negative numbers"), (0, "zero"))
        case Type.DECIMAL | Type.MONEY | Type.DURATION:
            scale = field.scale
            for text, words in (("7", "numbers"), ("-7", "negative numbers"), ("0", "zero")):
                yield convert.decimal_text(text, scale), words
            if scale is None or scale > 1:
                yield convert.decimal_text("7.25", scale), "decimals"
        case Type.BOOLEAN:
            yield from ((True, "true"), (False, "false"))
        case Type.ENUM:
            yield from ((value, value) for value in field.values)
        case Type.DATE:
            yield "2024-02-29", "days"
        case Type.TIME:
            yield from (("13:05:00", "times"), ("13:05:00.25", "fractions of a second"))
        case Type.TIMESTAMP:
            yield from (("2024-02-29 13:05:00+00", "moments"), ("2024-02-29 13:05:00.25+00", "fractions of a second"))
        case _:
            return
