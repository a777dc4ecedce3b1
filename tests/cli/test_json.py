"""Goal: what machines read keeps its form: the keys and types of every command's document, and of its errors.

Method: two systems with a conflict, a review, a parked row and a difference; the shape of each document against the one
that is written down here. A key may be added here; one that is changed or removed breaks somebody's script.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import typer
from typer.testing import CliRunner

from engine.cli import app
from tests.cli.support import concord, execute
from tests.cli.test_decisions import pair, settle, unsure  # noqa: F401  # pyright: ignore[reportUnusedImport]


def shape(value: Any) -> Any:
    """Names and types; of a list that of its first item."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]  # pyright: ignore[reportUnknownVariableType]
    return None if value is None else type(value).__name__


FINDING = {
    "system": "str", "path": "str", "message": "str", "hint": "str", "sql": "str", "is_fatal": "bool",
    "by_setup": "bool",
}  # fmt: skip
STATUS: dict[str, Any] = {
    "system": "str", "reads": "str", "writes": "str", "position": "str", "captured_at": "int", "delivered_at": "int",
    "behind": "int", "seen": "int", "rows_read": "int", "rows_echoed": "int", "rows_filtered": "int",
    "rows_parked": "int", "rows_written": "int", "read_rate": "float", "write_rate": "float", "parked": "int",
    "conflicts": "int", "reviews": "int", "errors": [], "held": [], "copied": "str", "retained_bytes": "int",
    "lag_bytes": "int",
}  # fmt: skip
DIFFERENCE: dict[str, Any] = {
    "entity": "str", "system": "str", "table": "str", "key": "str", "rid": None, "kind": "str", "field": None,
    "detail": "str",
}  # fmt: skip
AGREEMENT: dict[str, Any] = {
    "entity": "str", "system": "str", "table": "str", "rows": "int", "agree": "int", "on_their_way": "int",
    "parked": "int", "differ": "int", "differences": [DIFFERENCE], "problem": "str",
}  # fmt: skip
PLANNED: dict[str, Any] = {
    "system": "str", "table": "str", "entity": "str", "rows": "int", "linked": "int", "same": "int", "overwrite": "int",
    "create": "int", "ambiguous": "int", "unreadable": "int", "refused": {}, "fields": {}, "samples": [],
    "problem": "str",
}  # fmt: skip
CONFLICT = {
    "id": "int", "entity": "str", "record": "int", "fields": ["str"], "rule": "str", "winner": "str",
    "winner_values": ["str"], "winner_time": "int", "loser": "str", "loser_values": ["str"], "loser_time": "int",
    "recorded_at": "int", "is_open": "bool",
}  # fmt: skip
PARKED: dict[str, Any] = {
    "id": "int", "system": "str", "direction": "str", "table": "str", "key": "str", "record": None, "reason": "str",
    "field": "str", "message": "str", "hint": "str", "attempts": "int", "parked_at": "int", "try_after": "int",
    "rows": [],
}  # fmt: skip
REVIEW = {
    "id": "int", "system": "str", "table": "str", "key": "str", "entity": "str",
    "values": {"alive": "bool", "name": "str", "email": "str", "city": "str"}, "candidates": [["int"]],
    "created_at": "int",
}  # fmt: skip
HISTORY = {
    "seq": "int", "time": "int", "field": "str", "kind": "str", "system": "str", "value": "bool", "replaced": None,
    "rule": None, "because": None,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "record": "int", "entity": "str",
    "values": {"alive": "bool", "name": "str", "email": "str", "note": "str", "street": None, "city": None},
    "set_by": {"alive": ["str"], "name": ["str"], "email": ["str"], "note": ["str"]},
    "rows": [["str"]], "history": [HISTORY], "parked": [],
}  # fmt: skip
FIELD: dict[str, Any] = {
    "name": "str", "type": "str", "owner": None, "others": "str", "policy": "str", "group": None, "reference": None,
    "unit": None, "values": [], "length": None, "scale": None, "of": None, "is_required": "bool", "is_retired": "bool",
    "description": "str", "pii": None,
}  # fmt: skip
ENTITY: dict[str, Any] = {
    "name": "str", "fields": [FIELD], "matches": [{"fields": ["str"], "normalise": ["str"], "optional": []}],
    "description": "str",
    "id": "int",
}  # fmt: skip
TABLE = {
    "name": "str", "table": "str", "entity": "str", "key": ["str"], "allocate": "str", "drawn_from": None,
    "deletes": "str", "touch": [], "joins": [],
    "fields": [{"field": "str", "read": "str", "write": ["str"]}],
}  # fmt: skip
FLOW: dict[str, Any] = {
    "entity": "str", "source": "str", "source_tables": ["str"], "target": "str", "target_tables": ["str"],
    "how": "str", "fields": "int", "owners": ["str"], "decided": [{"rule": "str", "fields": "int"}],
}  # fmt: skip
BACKFILL: dict[str, Any] = {
    "id": "int", "system": "str", "table": "str", "condition": "str", "rows_per_s": "int", "state": "str",
    "rows_read": "int", "rows_total": "int", "rate": "float", "seconds_left": None, "message": "str",
    "created_at": "int", "changed_at": "int",
}  # fmt: skip
ANSWER = {"answer": "str", "daemon": None}
DOCUMENTS: list[tuple[list[str], int, dict[str, Any]]] = [
    (["backfill", "crm", "customers", "--throttle", "5"], 0, ANSWER),
    (["backfill", "--pause", "1"], 0, ANSWER),
    (["backfill"], 0, {"items": [BACKFILL], "total": "int"}),
    (["schema", "list"], 0, {"items": [], "total": "int"}),
    (["schema", "ack", "crm", "customers"], 0, ANSWER),
    (["check"], 0, {"systems": ["str"], "findings": [FINDING]}),
    (["status"], 3, {
        "daemon": None, "journal": "int", "healthy": "bool", "systems": [STATUS], "remarks": [],
        "backfills": [BACKFILL],
    }),
    (["plan"], 3, {"version": "int", "made_at": "int", "places": [PLANNED], "remarks": []}),
    (["workflows"], 0, {"workflows": []}),
    (["compare"], 3, {"differences": "int", "parked": "int", "reviews": "int", "tables": [AGREEMENT]}),
    (["conflicts"], 0, {"items": [CONFLICT], "total": "int"}),
    (["parked", "list"], 0, {"items": [PARKED], "total": "int"}),
    (["parked", "show", "1"], 0, {"items": [PARKED], "total": "int"}),
    (["review", "list"], 0, {"items": [REVIEW], "total": "int"}),
    (["explain", "1"], 0, {"record": RECORD}),
    (["dictionary"], 0, {"entities": [ENTITY]}),
    (["flows"], 0, {"flows": [FLOW]}),
    (["mapping", "crm"], 0, {"system": "str", "tables": [TABLE]}),
    (["parked", "retry", "1"], 0, ANSWER),
    (["parked", "retry", "--all"], 0, ANSWER),
    (["parked", "drop", "1", "--yes"], 0, ANSWER),
    (["review", "new", "1"], 0, ANSWER),
    (["backfill", "crm"], 0, ANSWER),
    (["rewrite", "1", "--system", "erp"], 0, ANSWER),
    (["rewrite", "--system", "erp", "--missing", "--yes"], 0, ANSWER),
    (["teardown", "erp", "--yes"], 0, {"steps": [{"summary": "str", "sql": "str"}]}),
    (["setup", "--dry-run"], 0, {"steps": [{"system": "str", "summary": "str", "sql": "str"}], "is_done": "bool"}),
    (["setup"], 0, {"steps": [{"system": "str", "summary": "str", "sql": "str"}], "is_done": "bool"}),
    (["explain", "9999"], 4, {
        "error": {"code": "str", "message": "str", "hint": "str", "problems": [], "context": {}},
    }),
]  # fmt: skip


def test_every_document_has_the_form_that_is_promised(unsure: Path) -> None:  # noqa: F811
    execute(unsure / "erp.db", "update debtors set name = 'not its business' where id = 'D0001'")
    execute(unsure / "crm.db", "insert into customers (name, email) values (x'ff', 'bad')")
    settle(unsure)
    for words, code, expected in DOCUMENTS:
        result = concord(unsure, *words, "--json")
        assert result.exit_code == code, (words, result.output)
        document = json.loads(result.stdout)
        assert document["v"] == 1
        assert shape(document) == {"v": "int", **expected}, words


HEAD = {
    "kind": "str", "summary": "str", "source": "bool", "target": "bool", "distribution": "str", "version": "str",
    "chapter": "str",
}  # fmt: skip


def test_plugins_are_documents_too() -> None:
    document = json.loads(CliRunner().invoke(app, ["plugins", "list", "--json"]).stdout)
    assert shape(document) == {"v": "int", "plugins": [HEAD]}
    for plugin in document["plugins"]:
        shown = json.loads(CliRunner().invoke(app, ["plugins", "show", plugin["kind"], "--json"]).stdout)
        assert {key: shown[key] for key in HEAD} == plugin
        assert shape(shown) == {
            "v": "int",
            **HEAD,
            "settings": [{"name": "str", "type": "str", "default": "str", "meaning": "str"}],
            "promises": [{"promise": "str", "meaning": "str", "is_kept": "bool", "note": "str"}],
            "makes": ["str"],
            "rights": ["str"],
        }


def test_no_command_was_forgotten() -> None:
    """Each has `--json`, but the daemon, which speaks in log lines, and the demo, which speaks to people."""
    names = {" ".join(words[:2]) for words, _, _ in DOCUMENTS} | {words[0] for words, _, _ in DOCUMENTS}
    for name, command in commands():
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json is (name not in ("run", "demo")), name
        assert name in names | {"run", "demo", "plugins list", "plugins show", "review link"}, name


def commands() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in cast("Any", typer.main.get_command(app)).commands.items():
        parts = getattr(command, "commands", {})
        found += [(f"{name} {part}", one) for part, one in parts.items()] or [(name, command)]
    return found
