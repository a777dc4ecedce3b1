"""Everything that is wrong with a TOML file, collected before anything is raised.

Whoever writes a mapping wants all mistakes at once, each with its line, not the first one ten times over.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache, cached_property
from pathlib import Path as FilePath
from typing import Any, TypeVar, cast

import msgspec

from crosswalk.lines import Path, line_of, path_text, scan
from engine.errors import ConfigError

Form = TypeVar("Form", bound=msgspec.Struct)


class Problems:
    """The problems of one file. `add` as often as needed, then `raise_if_any`."""

    def __init__(self, file: FilePath, text: str) -> None:
        self.file = file
        self.found: list[tuple[int, str]] = []
        self._text = text

    @cached_property
    def _lines(self) -> dict[Path, int]:
        # Only where somebody asks: most files have no problem.
        return scan(self._text)

    def add(self, path: Path, message: str) -> None:
        line = line_of(self._lines, path)
        where = f"{path_text(path)}: " if path else ""
        self.found.append((line, f"{self.file}:{line}: {where}{message}"))

    def line(self, path: Path) -> int:
        return line_of(self._lines, path)

    def raise_if_any(self, what: str) -> None:
        """Raise `ConfigError` with every problem, in the file's order."""
        if not self.found:
            return
        texts = tuple(dict.fromkeys(text for _, text in sorted(self.found, key=lambda found: found[0])))
        count = f"a problem: {texts[0]}" if len(texts) == 1 else f"{len(texts)} problems"
        raise ConfigError(f"{what} {self.file} has {count}", problems=texts, file=str(self.file))


def read_toml(file: FilePath, what: str) -> tuple[dict[str, Any], Problems]:
    """The file's document and an empty list of problems. Raises `ConfigError` when it is no TOML at all."""
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problem = f"{file}:1: {reason}"
        raise ConfigError(f"{what} {file} cannot be read: {reason}", problems=(problem,), file=str(file)) from error
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problem = f"{file}:{_error_line(str(error), text)}: {str(error) or 'nested too deeply'}"
        raise ConfigError(f"{what} {file} is not TOML: {problem}", problems=(problem,), file=str(file)) from error
    # tomllib reads CRLF as a line's end like we do, and refuses a bare CR, so lines are counted alike.
    return document, Problems(file, text)


def near(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or what there is when nothing is near."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; there is {', '.join(names[:30])}" if names else ""


def convert_form(
    raw: object, form: type[Form], path: Path, problems: Problems, *, is_tolerant: bool = False
) -> Form | None:
    """`raw` as a `form`, with a problem for every key that is unknown, missing or of a wrong type.

    msgspec stops at the first mistake, so each key is converted by itself. Unknown keys are left out, so that what
    else is wrong can be found too; with `is_tolerant` optional keys of a wrong type are as well. Otherwise None.
    """
    if not isinstance(raw, dict):
        problems.add(path, f"a table is wanted here, not {describe(raw)}")
        return None
    given = cast(Mapping[str, object], raw)
    known = _known(form)
    is_usable = True
    values: dict[str, object] = {}
    for key, value in given.items():
        if key not in known:
            problems.add((*path, key), f"unknown key {key!r}{near(key, known)}")
            continue
        try:
            values[known[key].name] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            problems.add((*path, key), _plain(str(error)) + _choices(known[key].type, value))
            is_usable = is_usable and is_tolerant and not known[key].required
    for key, field in known.items():
        if field.required and key not in given:
            problems.add(path, f"{key!r} is missing")
            is_usable = False
    if not is_usable:
        return None
    try:
        return form(**values)
    except (ValueError, TypeError) as error:
        # A form's own __post_init__.
        problems.add(path, _plain(str(error)))
        return None


@cache
def _known(form: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a form by their keys. Working them out reads its annotations, which takes longer than a form."""
    return {field.encode_name: field for field in msgspec.structs.fields(form)}


def _choices(wanted: object, value: object) -> str:
    """`near` for a key that takes one of a few words."""
    if isinstance(value, str) and isinstance(wanted, type) and issubclass(wanted, Enum):
        return near(value, [str(choice.value) for choice in wanted])
    return ""


def describe(value: object) -> str:
    """What a TOML value is, for messages."""
    kinds: dict[type, str] = {
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "a table",
    }
    return kinds.get(type(value), "a date or time")


def _plain(message: str) -> str:
    """msgspec's message in the voice of the others."""
    text = message.replace("`", "'").replace("$", "")
    return text[:1].lower() + text[1:]


def _error_line(message: str, text: str) -> int:
    _, found, rest = message.partition("at line ")
    number = rest.partition(",")[0].rstrip(")")
    return int(number) if found and number.isdigit() else text.count("\n") + 1
