"""Shapes and mappings for tests, from a few words."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from crosswalk.dictionary import Dictionary, load_dictionary
from crosswalk.mapping import SystemMapping, load_mapping
from engine.model.table import Column, Form, Kind, Shape

POSTGRES_KINDS = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "character": Kind.TEXT,
    "smallint": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "numeric": Kind.DECIMAL,
    "double": Kind.FLOAT,
    "real": Kind.FLOAT,
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.INSTANT,
    "interval": Kind.INTERVAL,
    "uuid": Kind.UUID,
    "jsonb": Kind.JSON,
    "bytea": Kind.BINARY,
}
LITE_KINDS = {
    "text": Kind.TEXT,
    "integer": Kind.INTEGER,
    "real": Kind.FLOAT,
    "numeric": Kind.DECIMAL,
    "boolean": Kind.BOOLEAN,
    "blob": Kind.BINARY,
    "datetime": Kind.TIMESTAMP,
    "": Kind.OTHER,
}


def column(words: str, form: Form = Form.TEXT) -> Column:
    """`column("id bigint assigned notnull")`, `column("price numeric(12,2)")`."""
    name, _, rest = words.partition(" ")
    type_, *flags = rest.split(" ") if rest else [""]
    if type_.endswith("[]"):
        return Column(
            name=name,
            kind=Kind.ARRAY,
            type=type_,
            element=column(f"element {type_.removesuffix('[]')}"),
            is_nullable="notnull" not in flags,
        )
    base, _, numbers = type_.partition("(")
    sizes = [int(size) for size in numbers.rstrip(")").split(",") if size]
    kind = (POSTGRES_KINDS if form is Form.TEXT else LITE_KINDS)[base]
    scale = None
    if kind is Kind.DECIMAL and sizes:
        scale = sizes[1] if len(sizes) > 1 else 0
    elif kind in (Kind.TIME, Kind.TIMESTAMP, Kind.INSTANT, Kind.INTERVAL) and form is Form.TEXT:
        scale = sizes[0] if sizes else 6
    return Column(
        name=name,
        kind=kind,
        type=type_,
        length=sizes[0] if kind is Kind.TEXT and sizes else None,
        precision=sizes[0] if kind is Kind.DECIMAL and sizes else None,
        scale=scale,
        is_nullable="notnull" not in flags,
        is_assigned="assigned" in flags,
        has_default="default" in flags,
        is_generated="generated" in flags,
    )


def shape(name: str, *columns: str, form: Form = Form.TEXT, key: tuple[str, ...] = ("id",)) -> Shape:
    return Shape(name=name, columns=tuple(column(words, form) for words in columns), form=form, key=key)


def dictionary(directory: Path, text: str = "") -> Dictionary:
    """The shipped dictionary, extended by `text`."""
    if not text:
        return _shipped()
    file = directory / "dictionary.toml"
    file.write_text(f'extends = "service"\n{text}')
    return load_dictionary(file)


@cache
def _shipped() -> Dictionary:
    return load_dictionary("service")


def mapping(directory: Path, text: str, *, extra: str = "", dialect: str = "postgres") -> SystemMapping:
    file = directory / "mapping.toml"
    file.write_text(text)
    return load_mapping(file, dictionary(directory, extra), system="crm", dialect=dialect)
