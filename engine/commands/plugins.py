"""The kinds of systems that Concord can talk to here: plugins list, plugins show."""

from __future__ import annotations

import types
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import typer

from engine.commands.output import attempt, print_json, print_table, say
from engine.commands.prepare import JsonOption
from engine.errors import no_such

if TYPE_CHECKING:
    from engine.plugin import Plugin

plugins_app = typer.Typer(no_args_is_help=True, help="The kinds of systems that Concord can talk to.")
WORDS: dict[object, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@plugins_app.command("list")
def list_plugins(is_json: JsonOption = False) -> None:
    """List the kinds of systems that are installed: what each can do, and which package brings it.

    A kind is what `plugin = "…"` in [systems.NAME] of concord.toml says. `concord plugins show` tells more of one. A
    package of your own adds one by the entry point group concord.plugins.

    Example: concord plugins list --json
    """
    found = {kind: (point, _load(kind, is_json)) for kind, point in sorted(_installed().items())}
    if is_json:
        print_json({"plugins": [_head(plugin, point) for point, plugin in found.values()]})
        return
    rows = [(p.kind, _parts(p), _from(point), p.summary) for point, p in found.values()]
    print_table("", ("plugin", "systems are", "from", "what it is"), rows, empty="no plugin is installed")


@plugins_app.command("show")
def show(
    kind: Annotated[str, typer.Argument(help="A plugin, as `concord plugins list` names it.")],
    is_json: JsonOption = False,
) -> None:
    """Show one kind of system: its settings, what it promises and what not, what set-up makes, and the rights it needs.

    The settings are keys of [systems.NAME] in concord.toml, beside those of every system (plugin, mapping, mode, role,
    without). Of a promise that is not kept it says why; a configuration that would need it is refused. What a system of
    yours makes of it (`concord check`) may be more or less than what its kind does.

    Example: concord plugins show polling
    """
    installed = _installed()
    if kind not in installed:
        attempt(lambda: _refuse(kind), is_json=is_json)
    plugin, point = _load(kind, is_json), installed[kind]
    settings = [_setting(plugin, field) for field in msgspec.structs.fields(plugin.config)]
    promises = [
        {"promise": promise.value, "meaning": promise.meaning, "is_kept": word.is_kept, "note": word.note}
        for promise, word in plugin.promises.items()
    ]
    if is_json:
        print_json(
            {
                **_head(plugin, point),
                "settings": settings,
                "promises": promises,
                "makes": list(plugin.makes),
                "rights": list(plugin.rights),
            }
        )
        return
    say(f"{plugin.kind}: {plugin.summary}")
    say(f"systems are {_parts(plugin)}; from {_from(point)}\n")
    columns = ("setting", "type", "default", "meaning")
    print_table("Settings", columns, [tuple(s[c] for c in ("name", "type", "default", "meaning")) for s in settings],
                empty="it has no settings")  # fmt: skip
    rows = [(p["promise"], "yes" if p["is_kept"] else "no", p["note"] or f"{p['meaning']}") for p in promises]
    print_table("\nPromises", ("promise", "kept", "what that means, or why not"), rows, empty="it promises nothing")
    for title, lines in (("Set-up makes", plugin.makes), ("Concord's user needs", plugin.rights)):
        say(f"\n{title}")
        for line in lines or ("nothing",):
            say(f"  {line}")
    chapter = _chapter(point)
    if chapter:
        say(f"\nIts chapter: {chapter}")


def _installed() -> dict[str, EntryPoint]:
    from engine.plugin import installed_plugins

    return installed_plugins()


def _load(kind: str, is_json: bool) -> Plugin[Any]:
    from engine.plugin import load_plugin

    return attempt(lambda: load_plugin(kind), is_json=is_json)


def _refuse(kind: str) -> None:
    raise no_such("plugin", kind, _installed())


def _head(plugin: Plugin[Any], point: EntryPoint) -> dict[str, object]:
    return {
        "kind": plugin.kind,
        "summary": plugin.summary,
        "source": plugin.source is not None,
        "target": plugin.target is not None,
        "distribution": point.dist.name if point.dist else "",
        "version": point.dist.version if point.dist else "",
        "chapter": _chapter(point),
    }


def _parts(plugin: Plugin[Any]) -> str:
    parts = [word for word, part in (("read", plugin.source), ("written", plugin.target)) if part is not None]
    return " and ".join(parts)


def _from(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _chapter(point: EntryPoint) -> str:
    """The README beside the plugin's code; "" where there is none."""
    spec = find_spec(point.module)
    page = Path(spec.origin).with_name("README.md") if spec is not None and spec.origin else None
    return str(page) if page is not None and page.is_file() else ""


def _setting(plugin: Plugin[Any], field: msgspec.structs.FieldInfo) -> dict[str, str]:
    return {
        "name": field.encode_name,
        "type": _type(field.type),
        "default": _default(field),
        "meaning": plugin.settings[field.encode_name],
    }


def _default(field: msgspec.structs.FieldInfo) -> str:
    """As concord.toml would spell it; "needed" where there is none."""
    if field.required:
        return "needed"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "none" if value is None or value == () or value == {} else msgspec.json.encode(value).decode()


def _type(given: Any) -> str:
    """What a value is, in words."""
    from engine.secret import Secret

    if given is Secret:
        return "secret"
    if given in WORDS:
        return WORDS[given]
    origin, inner = get_origin(given), [one for one in get_args(given) if one not in (type(None), ...)]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type, inner)))
    if origin is Literal:
        return ", ".join(inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}s"
    return "table"
