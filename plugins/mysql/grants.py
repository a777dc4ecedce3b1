"""What our user may do, from `show grants`: it counts the roles that are active, which information_schema does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from plugins.mysql.connect import Connection, quoted

_GRANT: Final = re.compile(
    r"GRANT (.+?) ON (?:TABLE )?(\*|`(?:[^`]|``)*`)\.(\*|`(?:[^`]|``)*`) TO ", re.IGNORECASE | re.DOTALL
)
_EVERYTHING: Final = frozenset(("ALL PRIVILEGES", "ALL"))


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges on a database and a table; None stands for all of them. `database` is a pattern as of `like`."""

    privileges: frozenset[str]
    database: str | None
    table: str | None

    def has(self, privilege: str) -> bool:
        return privilege in self.privileges or bool(self.privileges & _EVERYTHING)


@dataclass(frozen=True, slots=True)
class Grants:
    """`user` is spelt for SQL, with its host."""

    user: str
    grants: tuple[Grant, ...]

    def allows_everywhere(self, privilege: str) -> bool:
        return any(grant.has(privilege) and grant.database is None for grant in self.grants)

    def allows(self, privilege: str, database: str, table: str) -> bool:
        """Whether the privilege is there for every column of the table."""
        return any(
            grant.has(privilege)
            and (grant.database is None or _is_like(database, grant.database, is_pattern=grant.table is None))
            and grant.table in (None, table)
            for grant in self.grants
        )


def load_grants(connection: Connection) -> Grants:
    """The grants of our own user, which every user may see."""
    ((user,),) = connection.rows("select current_user()")
    name, _, host = str(user).rpartition("@")
    return Grants(
        f"{quoted(name)}@{quoted(host)}", parse_grants([str(row[0]) for row in connection.rows("show grants")])
    )


def parse_grants(texts: list[str]) -> tuple[Grant, ...]:
    """Grants of privileges; those of roles and proxies are left out."""
    found: list[Grant] = []
    for text in texts:
        match = _GRANT.match(text)
        if match:
            # A privilege on some columns is none on the table: its name comes with a list, and matches nothing.
            privileges = frozenset(part.strip().upper() for part in re.split(r",\s*(?![^(]*\))", match[1]))
            found.append(Grant(privileges, _name(match[2]), _name(match[3])))
    return tuple(found)


def _name(text: str) -> str | None:
    return None if text == "*" else text[1:-1].replace("``", "`")


def _is_like(name: str, pattern: str, *, is_pattern: bool) -> bool:
    """Databases are patterns in grants on all their tables only."""
    if not is_pattern:
        return name == pattern
    wild = {"%": ".*", "_": "."}
    parts = (str(part[0]) for part in re.finditer(r"\\.|.", pattern, re.DOTALL))
    expression = "".join(wild[part] if part in wild else re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, name, re.DOTALL) is not None
