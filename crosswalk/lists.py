"""Lists: arrays of PostgreSQL, JSON arrays, and the canonical spelling between them.

A list is flat and compared as a whole, order and repetitions included. What its elements mean is `carry_read`'s and
`carry_write`'s matter, as if each of them stood in a column of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from crosswalk import convert
from crosswalk.convert import Loss
from engine.model.entity import Type

Convert = Callable[[Any], Any]

ELEMENTS: Final = (*(Type.TEXT, Type.INTEGER, Type.DECIMAL, Type.BOOLEAN, Type.DATE, Type.TIME, Type.TIMESTAMP),)
"""What a list may hold: what has one spelling that needs no second field."""

_NUMBERS: Final = (Type.INTEGER, Type.DECIMAL)
_NESTED: Final = "an array of arrays, and a list is flat"
# `array_out` of PostgreSQL quotes everything that is not plainly one word.
_PLAIN: Final = re.compile(r'[^\s{},"\\]+', re.ASCII)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_TO_ESCAPE: Final = re.compile(r'(["\\])')


def array_reader(of: Type, element: Convert) -> Convert:
    """From PostgreSQL's text of an array; `element` reads one that is there."""
    return lambda text: _spelt(of, (None if part is None else element(part) for part in array_parts(text)))


def array_writer(element: Convert) -> Convert:
    """To PostgreSQL's text of an array; `element` writes one that is there."""

    def write(value: str) -> str:
        return array_text(None if part is None else element(part) for part in convert.json_list(value))

    return write


def json_reader(of: Type, element: Convert) -> Convert:
    """From the text of a JSON array; `element` reads the text or the number of one that is there."""

    def read_one(part: Any) -> Any:
        if part is None:
            return None
        if isinstance(part, (list, dict)):
            raise Loss(_NESTED if isinstance(part, list) else "a JSON object in a list")
        kind = "boolean" if isinstance(part, bool) else "number" if isinstance(part, convert.JsonNumber) else "text"
        wanted = "boolean" if of is Type.BOOLEAN else "number" if of in _NUMBERS else "text"
        if kind != wanted:
            raise Loss(f"a JSON {kind} in a list of {of.value}")
        return part if kind == "boolean" else element(str(part))

    def read(text: Any) -> str:
        if not isinstance(text, str):
            raise Loss("no text where a JSON array is wanted")
        return _spelt(of, map(read_one, convert.json_list(text)))

    return read


def canonical(of: Type, parts: Iterable[Any]) -> str:
    """The canonical list of canonical elements."""
    return _spelt(of, parts)


def _spelt(of: Type, parts: Iterable[Any]) -> str:
    if of is Type.BOOLEAN:
        texts = ("null" if part is None else "true" if part else "false" for part in parts)
    elif of in _NUMBERS:
        texts = ("null" if part is None else str(part) for part in parts)
    else:
        texts = ("null" if part is None else convert.json_word(part) for part in parts)
    return f"[{','.join(texts)}]"


def array_parts(text: str) -> list[str | None]:
    """Elements of PostgreSQL's text of an array; None is null."""
    if text[:1] == "[":
        raise Loss("an array whose elements are not counted from 1")
    inner = text[1:-1]
    if text[:1] != "{" or text[-1:] != "}" or len(text) < 2:
        raise Loss("text that is no array of the form {a,b}")
    if not inner:
        return []
    parts: list[str | None] = []
    at = 0
    while True:
        if inner[at : at + 1] == "{":
            raise Loss(_NESTED)
        quoted = _QUOTED.match(inner, at)
        found = quoted or _PLAIN.match(inner, at)
        if found is None:
            raise Loss("text that is no array of the form {a,b}")
        parts.append(_ESCAPED.sub(r"\1", quoted[1]) if quoted else None if found[0] == "NULL" else found[0])
        at = found.end()
        if at == len(inner):
            return parts
        if inner[at] != ",":
            raise Loss("text that is no array of the form {a,b}")
        at += 1


def array_text(parts: Iterable[str | None]) -> str:
    """PostgreSQL's text of an array, spelt as PostgreSQL spells it."""
    return "{" + ",".join("NULL" if part is None else _element(part) for part in parts) + "}"


def _element(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.upper() != "NULL":
        return text
    return '"' + _TO_ESCAPE.sub(r"\\\1", text) + '"'
