"""Which columns a table map is about: by the log's own words, for the catalogue is read later than the log was written.

So names come from the table map (binlog_row_metadata = FULL), and what the catalogue adds is what a type means: json,
uuid, boolean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.errors import PositionLost
from engine.model.table import Column, Form, Kind, Shape
from plugins.mysql.catalog import MOMENTS, type_labels, type_word
from plugins.mysql.compile import LogColumn
from plugins.mysql.events import MappedColumn, TableMap
from plugins.mysql.spell import text_decoder

# Type in the log → the catalogue's words for it (field_types.h), with what to call it when the catalogue has none.
_WORDS: Final[dict[int, tuple[str, ...]]] = {
    1: ("tinyint",),
    2: ("smallint",),
    3: ("int",),
    4: ("float",),
    5: ("double",),
    7: ("timestamp",),
    8: ("bigint",),
    9: ("mediumint",),
    10: ("date",),
    11: ("time",),
    12: ("datetime",),
    13: ("year",),
    15: ("varchar", "varbinary"),
    16: ("bit",),
    17: ("timestamp",),
    18: ("datetime",),
    19: ("time",),
    140: ("text", "tinytext", "mediumtext", "longtext", "blob", "tinyblob", "mediumblob", "longblob"),
    141: ("varchar", "varbinary"),
    245: ("json",),
    246: ("decimal",),
    247: ("enum",),
    248: ("set",),
    252: ("text", "tinytext", "mediumtext", "longtext", "blob", "tinyblob", "mediumblob", "longblob", "json", "vector"),
    254: ("char", "binary", "uuid", "inet6", "inet4"),
    255: (
        *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
        *("geometrycollection", "geomcollection"),
    ),
}
_KINDS: Final = {
    **dict.fromkeys((1, 2, 3, 8, 9, 13), Kind.INTEGER),
    **dict.fromkeys((4, 5), Kind.FLOAT),
    **dict.fromkeys((7, 17), Kind.INSTANT),
    **dict.fromkeys((11, 19), Kind.TIME),
    **dict.fromkeys((12, 18), Kind.TIMESTAMP),
    10: Kind.DATE,
    16: Kind.BINARY,
    245: Kind.JSON,
    246: Kind.DECIMAL,
    247: Kind.ENUM,
    255: Kind.BINARY,
}
_BINARY: Final = 63


def shape_of(
    sent: TableMap, catalogue: Shape | None, *, name: str, system: str, character_sets: Mapping[int, str]
) -> Shape:
    """The shape of rows under the table map. Where the catalogue has these very columns it is the catalogue's shape.

    Raises `PositionLost` when the log names no columns: those of the catalogue may have been called otherwise then.
    """
    known = {column.name: column for column in catalogue.columns} if catalogue else dict[str, Column]()
    if any(column.name is None for column in sent.columns):
        raise PositionLost(
            f"system {system}, table {name}: the log has rows without the names of their columns",
            hint=f"Run: set global binlog_row_metadata = 'FULL'; flush tables; then run `concord backfill {system}`.",
        )
    columns = tuple(
        column
        if (column := known.get(str(mapped.name))) is not None and agrees(mapped, column, character_sets)
        else _made(mapped, character_sets)
        for mapped in sent.columns
    )
    if catalogue is not None and columns == catalogue.columns:
        return catalogue
    key = tuple(str(sent.columns[index].name) for index in sent.key)
    unique = tuple(u for u in catalogue.unique if set(u) <= {c.name for c in columns}) if catalogue else ()
    has_triggers = catalogue is not None and catalogue.has_triggers
    return Shape(name=name, columns=columns, form=Form.TEXT, key=key, unique=unique, has_triggers=has_triggers)


def log_columns(sent: TableMap, shape: Shape, *, character_sets: Mapping[int, str]) -> list[LogColumn]:
    """What the decoder is to know of each column. `character_sets` by collation number."""
    found: list[LogColumn] = []
    for mapped, column in zip(sent.columns, shape.columns, strict=True):
        word = type_word(column.type)
        character_set = "binary" if mapped.collation is None else character_sets.get(mapped.collation, "")
        is_unsigned = "unsigned" in column.type if mapped.is_unsigned is None else mapped.is_unsigned
        labels = _labels(mapped, character_set) or (type_labels(column.type) if word in ("enum", "set") else ())
        found.append(LogColumn(mapped, column.name, column.kind, word, character_set, is_unsigned, labels))
    return found


def agrees(mapped: MappedColumn, column: Column, character_sets: Mapping[int, str]) -> bool:
    """Whether the catalogue's column can be the log's: the same type, sign, digits and labels."""
    word = type_word(column.type)
    if word not in _WORDS.get(mapped.type, ()):
        return False
    if mapped.is_unsigned is not None and word != "year" and mapped.is_unsigned != ("unsigned" in column.type):
        return False
    if word == "decimal":
        return (mapped.metadata & 0xFF, mapped.metadata >> 8) == (column.precision, column.scale)
    if word in ("enum", "set") and mapped.labels:
        return _labels(mapped, character_sets.get(mapped.collation or 0, "utf8mb4")) == type_labels(column.type)
    if word in ("char", "varchar", "text", "tinytext", "mediumtext", "longtext", "json"):
        return mapped.collation != _BINARY
    if word in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"):
        return mapped.collation in (None, _BINARY)
    return True


def _made(mapped: MappedColumn, character_sets: Mapping[int, str]) -> Column:
    """A column that the catalogue does not have any more, or has otherwise."""
    type, is_binary = mapped.type, mapped.collation == _BINARY
    words = _WORDS.get(type, (f"type {type}",))
    word = words[0]
    kind = _KINDS.get(type, Kind.TEXT)
    if is_binary and type in (15, 252, 254):
        kind = Kind.BINARY
        word = {15: "varbinary", 252: "blob", 254: "binary"}[type]
    precision = scale = None
    labels: tuple[str, ...] = ()
    if type == 246:
        precision, scale = mapped.metadata & 0xFF, mapped.metadata >> 8
        word = f"decimal({precision},{scale})"
    elif type in (247, 248):
        named = _labels(mapped, character_sets.get(mapped.collation or 0, "utf8mb4"))
        quoted = ",".join("'" + label.replace("'", "''") + "'" for label in named)
        word = f"{word}({quoted})"
        labels = named if type == 247 else ()
    elif type == 16:
        bits = (mapped.metadata >> 8) * 8 + (mapped.metadata & 0xFF)
        word = f"bit({bits})"
        kind = Kind.BOOLEAN if bits == 1 else Kind.BINARY
    elif type in (17, 18, 19):
        scale = mapped.metadata
        word = f"{word}({scale})" if scale else word
    elif kind in MOMENTS:
        scale = 0
    if mapped.is_unsigned and type != 13:
        word += " unsigned"
    return Column(name=str(mapped.name), kind=kind, type=word, precision=precision, scale=scale, labels=labels)


def _labels(mapped: MappedColumn, character_set: str) -> tuple[str, ...]:
    decode = text_decoder(character_set)
    if decode is None:
        return ()
    return tuple(decode(label) for label in mapped.labels)
