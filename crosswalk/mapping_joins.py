"""A block's `[[table.join]]`: loaded and checked as far as the file alone allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from sqlglot.expressions import Expr

from crosswalk.invert import constants_of
from crosswalk.joined import Join
from crosswalk.lines import Path
from crosswalk.mapping_forms import JoinForm, TableForm
from crosswalk.problems import Problems, convert_form, near
from engine.model.joined import Empty, Link, listed_joins
from engine.ports import KeyRule

_NAME = re.compile(r"[^\W\d][\w$]*")
_RULES = {"assigned": KeyRule.ASSIGNED, "uuid": KeyRule.UUID, "none": KeyRule.NONE}


class Parser(Protocol):
    def __call__(self, text: str | None, where: Path) -> Expr | None:
        """The SQL expression, None where there is none or it is wrong, which is noted."""
        ...


def load_joins(
    table: TableForm, path: Path, system: str, dialect: str, problems: Problems, parsed: Parser
) -> list[Join]:
    """A block's joins, owners first: one can only link to the table itself or to one that stands before it."""
    return _Loader(table, system, dialect, problems, parsed).joins(path)


class _Loader:
    def __init__(self, table: TableForm, system: str, dialect: str, problems: Problems, parsed: Parser) -> None:
        self.table, self.system, self.dialect, self.problems, self.parsed = table, system, dialect, problems, parsed

    def joins(self, path: Path) -> list[Join]:
        found: list[Join] = []
        for n, raw in enumerate(self.table.join):
            where = (*path, "join", n)
            form = convert_form(raw, JoinForm, where, self.problems)
            if form is None:
                continue
            name = form.as_ or form.name.rpartition(".")[2]
            if not _NAME.fullmatch(name):
                self.problems.add((*where, "as"), f"a plain name is wanted, not {name!r}")
            if any(join.name == name for join in found):
                self.problems.add(where, f'there are two joins named {name!r}; give one of them as = "…"')
            found.append(self._join(form, name, found, where))
        return found

    def _join(self, form: JoinForm, name: str, before: list[Join], where: Path) -> Join:
        add = self.problems.add
        links: list[Link] = []
        for column, other in form.on.items():
            owner, dot, rest = other.rpartition(".")
            if dot and all(join.name != owner for join in before):
                add((*where, "on", column), f"there is no join {owner!r} before this one")
            links.append(Link(column, owner, rest))
        owners = {link.owner for link in links}
        if len(owners) != 1:
            add((*where, "on"), 'say which columns are equal, all of one table: on = { id_c = "id" }')
        owner = next(iter(owners), "")
        key_of_owner = next((set(join.key) for join in before if join.name == owner), set(self.table.key))
        is_shared = {link.column for link in links} == set(form.key)
        if {link.other for link in links} != key_of_owner and not is_shared:
            add((*where, "on"), "either the owner's key or the joined table's own key is wanted in `on`, whole")
        is_owned = {link.other for link in links} == key_of_owner
        if form.find and is_owned:
            add((*where, "find"), "find is for a row that its owner refers to; this one refers to its owner")
        if form.empty not in (None, "keep", "delete"):
            add((*where, "empty"), f'"keep" or "delete" is wanted, not {form.empty!r}')
        if form.empty == "delete" and not is_owned:
            add((*where, "empty"), "a row that others may refer to is not deleted")
        allocate = form.allocate or ("none" if form.find or is_owned else "assigned")
        if allocate not in _RULES:
            add((*where, "allocate"), f"there is no rule {allocate!r}{near(allocate, _RULES)}")
        if form.find and allocate == "assigned":
            add((*where, "allocate"), 'what is shared has a key of our making: "uuid" or "none"')
        self._check_list(form, links, before, where)
        order = form.order or ([form.ordinal] if form.ordinal else [])
        filter_ = self.parsed(form.where, (*where, "where"))
        implied = {} if filter_ is None else constants_of(filter_)
        return Join(
            system=self.system,
            dialect=self.dialect,
            where=f"{self.problems.file}:{self.problems.line(where)}",
            name=name,
            table=form.name,
            key=tuple(form.key),
            links=tuple(links),
            filter=filter_,
            constants=implied | form.insert,
            key_rule=_RULES.get(allocate, KeyRule.NONE),
            find=tuple(form.find),
            empty=Empty.DELETE if form.empty == "delete" else Empty.KEEP,
            order=tuple(order),
            is_list=form.is_list,
            ordinal=form.ordinal or "",
            used=frozenset(),
        )

    def _check_list(self, form: JoinForm, links: Sequence[Link], before: Sequence[Join], where: Path) -> None:
        add = self.problems.add
        owner = links[0].owner if links else ""
        lists = listed_joins((join.name, join.links[0].owner, join.is_list) for join in before if join.links)
        if form.ordinal is not None and not form.is_list:
            add((*where, "ordinal"), "what is counted is a list: list = true")
        if form.is_list and (owner or {link.other for link in links} != set(self.table.key)):
            add((*where, "list"), "a list is of rows that refer to the key of the block's own row")
        if form.is_list and form.empty is not None:
            add((*where, "empty"), "a row of a list is there or not; there is nothing else to say")
        if not form.is_list and owner in lists and {link.column for link in links} != set(form.key):
            add((*where, "on"), f"{owner!r} is a list; of a list's rows only what they refer to can be joined")
