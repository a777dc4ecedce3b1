"""What a statement in the log means for the tables that take part.

With row format the log has statements for what is no row: definitions, and the emptying of tables. A statement that
cannot be understood is answered as one that may have changed any table it names: the catalogue is read again.
"""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

Place = tuple[str, str]

# The parser writes to this logger about statements that it takes for commands, their text included.
_PARSER_LOG: Final = logging.getLogger("sqlglot")
_COMMENTS: Final = re.compile(r"/\*(?!!|M!).*?\*/|/\*M?!\d*|\*/|(?:--[ \t]|#)[^\n]*", re.DOTALL)
_CHANGES: Final = frozenset(("insert", "update", "delete", "replace", "load", "call", "do", "with"))
_PARTITION: Final = re.compile(
    r"\b(?:truncate|drop|exchange|convert|discard|import)\s+(?:partition|tablespace)\b", re.I
)
_REPLACED: Final = re.compile(r"^create\s+or\s+replace\s+table\b", re.I)
_DATABASE: Final = re.compile(r"^drop\s+(?:database|schema)\b", re.I)


class Effect(enum.Enum):
    NONE = "none"
    CHANGE = "change"
    """Rows may have been changed, and are not in the log."""
    TRUNCATE = "truncate"
    """Rows are gone, and their columns may be other ones."""
    DROP = "drop"
    DEFINE = "define"
    """The catalogue may say something else."""


class Statement(NamedTuple):
    """What a statement does, and to which of the tables that take part, by their names in the mapping."""

    effect: Effect
    tables: tuple[str, ...] = ()


def understand(text: str, schema: str, names: Mapping[Place, str]) -> Statement:
    """What the statement `text`, run with default database `schema`, does to the tables `names`."""
    bare = _COMMENTS.sub(" ", text).strip()
    word = bare.split(None, 1)[0].lower() if bare else ""
    lowered = bare.lower()
    if _DATABASE.match(bare):
        return Statement(Effect.DEFINE, tuple(names.values()))
    # Cheap, and true of most statements: it names none of them. A backtick inside a name is written twice.
    mentioned = [name for (_, table), name in names.items() if table.lower().replace("`", "``") in lowered]
    if word in _CHANGES:
        # A trigger or a function may write to tables that the statement does not name.
        inside = {name for (database, _), name in names.items() if database == schema}
        tables = tuple(dict.fromkeys((*mentioned, *sorted(inside))))
        return Statement(Effect.CHANGE, tables) if tables else Statement(Effect.NONE)
    if not mentioned:
        return Statement(Effect.NONE)
    if word == "alter" and _PARTITION.search(bare):
        return Statement(Effect.TRUNCATE, tuple(mentioned))
    if _REPLACED.match(bare):
        return Statement(Effect.TRUNCATE, tuple(mentioned))
    if word not in ("truncate", "drop"):
        return Statement(Effect.DEFINE, tuple(mentioned))
    found = _named(bare, schema)
    if found is None:
        # Not understood. Of a truncation the catalogue says nothing afterwards, so it is taken for one of each.
        effect = Effect.TRUNCATE if word == "truncate" else Effect.DEFINE
        return Statement(effect, tuple(mentioned))
    tables = tuple(name for place, name in names.items() if place in found)
    if not tables:
        return Statement(Effect.NONE)
    return Statement(Effect.TRUNCATE if word == "truncate" else Effect.DROP, tables)


def _named(text: str, schema: str) -> set[Place] | None:
    """The tables that a TRUNCATE or DROP TABLE is about; none for another DROP; None when it cannot be parsed."""
    _PARSER_LOG.setLevel(logging.ERROR)
    try:
        parsed = sqlglot.parse_one(text, dialect="mysql")
    except SqlglotError:
        return None
    if isinstance(parsed, exp.Drop):
        if str(parsed.args.get("kind", "")).upper() != "TABLE":
            return set() if str(parsed.args.get("kind", "")).upper() in ("VIEW", "TRIGGER", "PROCEDURE") else None
    elif not isinstance(parsed, exp.TruncateTable):
        return None
    return {(table.db or schema, table.name) for table in parsed.find_all(exp.Table)}
