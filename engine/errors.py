"""Every error of Concord, and what the daemon does about each.

    ConcordError
    ├── ConfigError         HALT   the configuration or a mapping is wrong
    ├── PluginError         HALT   no plugin of that kind, or it cannot be loaded
    ├── HubError            HALT   the hub cannot be used
    │   ├── HubCorrupt      HALT   the hub file is damaged
    │   ├── HubBusy         HALT   another daemon owns this hub
    │   └── HubFull         RETRY  no space left for the hub
    ├── Fenced              HALT   another daemon has taken over this system
    ├── SystemUnreachable   RETRY  a system does not answer
    ├── SourceError
    │   ├── SourceUnready   HALT   set-up is missing or has been altered; says the SQL that mends it
    │   ├── PositionLost    HALT   the log no longer holds what stands after our position
    │   └── MalformedLog    HALT   bytes that are no log of this kind
    ├── TableHeld           HALT   one table changed its shape; the other tables go on
    ├── TargetError
    │   ├── TargetUnready   HALT   set-up is missing at the target, or a privilege is
    │   ├── DeliveryHeld    HALT   its own log is lost, and writing would overwrite what nobody has read
    │   ├── TargetBusy      RETRY  deadlock, lock timeout, read-only, full, shutting down
    │   ├── RowRefused      PARK   the target will not have this row
    │   └── MarkerAhead     HALT   a target's marker and the hub contradict each other
    ├── ValueRefused        PARK   a value that the mapping cannot carry without loss
    ├── Unknown             HALT   a person named something that there is not
    └── NotNow              HALT   what a person asks for cannot be done as things are

A message is lower case, says what was found and what was wanted, and names system, table, key and field; never a
row's value, never a secret. `hint` is one imperative sentence: the operator's next step.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from typing import ClassVar

NAMES_MAX = 30


class Disposition(enum.Enum):
    """What the daemon does about an error. Every leaf class chooses one."""

    RETRY = "retry"
    """Transient. Run the lane again from its checkpoint, after a pause."""

    PARK = "park"
    """One record is bad. Set it aside with what depends on it; everything else flows."""

    HALT = "halt"
    """Going on would lose or corrupt something. Stop the lane and tell a person."""


class ConcordError(Exception):
    """Base of all errors that are the world's fault, not a bug.

    `context` holds identifiers, counts and positions, for logs and `--json`; never values of rows.
    """

    disposition: ClassVar[Disposition] = Disposition.HALT
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigError(ConcordError):
    """The configuration, dictionary or a mapping is wrong. `problems` lists every one found, not just the first."""

    code = "config"

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = (), **context: object) -> None:
        super().__init__(message, hint=hint, **context)
        self.problems = problems


class PluginError(ConcordError):
    """A plugin is missing, cannot be imported, or was built for another version of the plugin contract."""

    code = "plugin"


class HubError(ConcordError):
    """The hub cannot be used."""

    code = "hub"


class HubCorrupt(HubError):
    """The hub file is damaged, or is no hub."""

    code = "hub.corrupt"


class HubBusy(HubError):
    """Another daemon owns this hub now."""

    code = "hub.busy"


class HubFull(HubError):
    """There is no space left to write the hub."""

    disposition = Disposition.RETRY
    code = "hub.full"


class Fenced(ConcordError):
    """A daemon with a later epoch writes to this system; we must not."""

    code = "fenced"


class SystemUnreachable(ConcordError):
    """A system does not answer, refuses connections, or dropped ours."""

    disposition = Disposition.RETRY
    code = "unreachable"


class SourceError(ConcordError):
    """Something about reading a system's log."""

    code = "source"


class SourceUnready(SourceError):
    """The source is not set up as capture needs it: log level, slot, publication, trigger or privilege."""

    code = "source.unready"


class PositionLost(SourceError):
    """The source no longer holds the log after our position. Changes may be missing; never continued silently."""

    code = "source.position_lost"


class MalformedLog(SourceError):
    """Bytes of a log that do not decode. Either a version we do not know or damage; guessing would invent changes."""

    code = "source.malformed"


class TableHeld(ConcordError):
    """A table that takes part changed in a way that its mapping cannot follow; it waits for a person."""

    code = "table.held"


class TargetError(ConcordError):
    """Something about writing to a system."""

    code = "target"


class TargetUnready(TargetError):
    """The target lacks what delivery needs: the marker table, a mapped table or column, a privilege."""

    code = "target.unready"


class DeliveryHeld(TargetError):
    """The system's own log has lost changes: a delivery could overwrite one of which nobody would ever hear."""

    code = "target.held"


class TargetBusy(TargetError):
    """The target cannot write just now: deadlock, lock or statement timeout, read-only, disk full, shutting down."""

    disposition = Disposition.RETRY
    code = "target.busy"


class RowRefused(TargetError):
    """The target will not have a row of a write. The session is usable and holds nothing of that write.

    `row_index` is the row's index in the write where the plugin can tell, else None: the engine then halves the
    write until one record is left. `reason` is a stable word: `unique`, `foreign_key`, `not_null`, `check`,
    `value`, `table`, `permission` or `other`; `column` and `constraint` are names, where known.
    """

    disposition = Disposition.PARK
    code = "target.refused"

    def __init__(
        self, message: str, *, hint: str = "", row_index: int | None = None, reason: str = "other", **context: object
    ) -> None:
        super().__init__(message, hint=hint, reason=reason, **context)
        self.row_index = row_index
        self.reason = reason


class MarkerAhead(TargetError):
    """A target's marker contradicts the hub: one of them was restored from an older copy."""

    code = "target.marker"


class ValueRefused(ConcordError):
    """A value that cannot be carried over without losing something, or that the dictionary does not allow."""

    disposition = Disposition.PARK
    code = "value.refused"


class Unknown(ConcordError):
    """A person named something that there is not."""

    code = "unknown"


class NotNow(ConcordError):
    """What a person asks for exists and cannot be done as things are."""

    code = "not_now"


def no_table(system: str, table: str) -> SourceUnready:
    """A table that is to be read and is not there."""
    return SourceUnready(
        f"system {system}: there is no table {table}",
        hint=f"Correct the mapping, or bring the table back; `concord check {system}` says if our user may not see it.",
        system=system,
        table=table,
    )


def no_such(what: str, name: str, known: Iterable[str], of: str = "") -> Unknown:
    """The error for a name that is none of those known; it says the nearest, or what there is. `of` ends the sentence:
    "of system crm"."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1)
    more = f" and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else ""
    there_is = f"There is {', '.join(names[:NAMES_MAX])}{more}." if names else "There is none."
    return Unknown(
        f"there is no {what} {name!r} {of}".rstrip(), hint=f"Did you mean {found[0]!r}?" if found else there_is
    )
