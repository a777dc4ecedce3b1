"""Whose the dictionary's fields are in one configuration: roles, and the systems that play them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping

from crosswalk.dictionary import Dictionary, load_dictionary
from crosswalk.mapping import SystemMapping
from crosswalk.problems import near, read_toml
from engine.config.model import Config
from engine.ports import Finding

NAMED_MAX = 3


def chosen_dictionary(config: Config) -> Dictionary:
    """The dictionary with the owners that the configuration chooses. Raises `ConfigError` for what does not fit."""
    dictionary = load_dictionary(config.dictionary)
    _, problems = read_toml(config.file, "configuration")
    chosen = dictionary.with_owners(config.owners, ("owners",), problems)
    problems.raise_if_any("configuration")
    return chosen


def ownerless(config: Config, dictionary: Dictionary, mappings: Mapping[str, SystemMapping]) -> list[str]:
    """Problems: fields that several systems map and that belong to none of them, so that nobody says who is right."""
    roles = [system.role for system in config.systems]
    problems: list[str] = []
    for entity in dictionary.entities:
        mapped = Counter(
            name
            for mapping in mappings.values()
            for name in {name for place in mapping.places if place.entity == entity.name for name in place.field_names}
        )
        by_owner: dict[str, list[str]] = {}
        for field in entity.fields:
            if mapped[field.name] > 1 and field.owner is not None and field.owner not in roles:
                by_owner.setdefault(field.owner, []).append(field.name)
        for owner, names in by_owner.items():
            line = f'[owners] {entity.name} = "{roles[0]}"'
            if "alive" not in names:
                # The entity's own owner is another one, whom its line would change.
                line = f"[owners.{entity.name}] " + ", ".join(f'{name} = "{roles[0]}"' for name in names)
            problems.append(
                f"{config.file}: owners: {_some([f'{entity.name}.{name}' for name in names])}"
                f" {'belongs' if len(names) == 1 else 'belong'} to {owner!r}, and no system plays this"
                f' role{near(owner, roles)}; say role = "{owner}" in [systems.NAME], or whose it is here, as {line},'
                ' with "" for nobody, where the later change wins'
            )
    return problems


def unplayed_owners(dictionary: Dictionary, mapped: set[str], roles: list[str]) -> list[Finding]:
    """Owners that no system is, as with a dictionary for more systems than there are; or by a slip of the pen, which is
    a problem."""
    fields: dict[str, list[str]] = {}
    for entity in dictionary.entities:
        for field in entity.fields:
            if entity.name in mapped and field.owner and field.owner not in roles:
                fields.setdefault(field.owner, []).append(f"{entity.name}.{field.name}")
    return [
        Finding(
            path=f"owner {owner}",
            message=f"no system plays this role, so nobody owns {_some(names)}{near(owner, roles)}",
            hint="What follows wins there, else the field's policy. `role` in [systems.NAME] gives a system a role.",
            # A name that is nearly a system's is a slip of the pen; another, a system that does not take part.
            is_fatal=bool(difflib.get_close_matches(owner, roles, n=1)),
        )
        for owner, names in fields.items()
    ]


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
