"""Structured log lines: stable event names, facts beside them, never a row's value.

The names are a contract: dashboards and tests look for them. `EVENTS` lists every one with its level and meaning.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

Fact = str | int | float | bool | None

EVENTS: Final[dict[str, tuple[int, str]]] = {
    "daemon.started": (logging.INFO, "the daemon runs"),
    "daemon.reloading": (logging.INFO, "it begins again, with its files as they are now"),
    "daemon.not_reloaded": (logging.ERROR, "its files have mistakes; it goes on with what it has read before"),
    "daemon.draining": (logging.INFO, "told to stop; delivering what the journal holds"),
    "daemon.stopped": (logging.INFO, "the daemon ended"),
    "lane.started": (logging.INFO, "a lane opens its connection"),
    "lane.paused": (logging.WARNING, "a lane failed and will be started again"),
    "lane.resumed": (logging.INFO, "a lane is started again after a pause"),
    "lane.halted": (logging.ERROR, "a lane stopped until a person has acted"),
    "capture.batch": (logging.DEBUG, "rows of a source were committed to the hub"),
    "capture.copying": (logging.INFO, "a first copy is under way"),
    "capture.copied": (logging.INFO, "a table's first copy is complete"),
    "capture.reshaped": (logging.WARNING, "a table's columns changed"),
    "capture.held": (logging.ERROR, "a table was truncated, dropped or is no longer captured"),
    "capture.parked": (logging.WARNING, "rows that the mapping cannot read were set aside"),
    "conflict.recorded": (logging.INFO, "changes that did not know of each other, or that the owner overruled"),
    "review.opened": (logging.WARNING, "a row matches several records; a person decides"),
    "deliver.done": (logging.DEBUG, "a delivery was committed by its target"),
    "deliver.behind": (logging.INFO, "a target has much to write"),
    "loop.braked": (logging.WARNING, "a field goes to and fro between programs; its record waits for a person"),
    "deliver.parked": (logging.WARNING, "a target refused records; they wait, the rest flows"),
    "deliver.changed": (logging.DEBUG, "rows were left out: their users had changed them since they were last read"),
    "request.answered": (logging.INFO, "a command's request was carried out"),
    "hub.swept": (logging.DEBUG, "history past its retention was removed"),
    "hub.failed": (logging.ERROR, "the hub could not be written"),
}


class Log:
    """Writes events. `format` is "text" for people or "json" for machines (one object a line)."""

    def __init__(self, *, stream: TextIO | None = None, format: str = "text", level: int = logging.INFO) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._is_json = format == "json"
        self._level = level

    def event(self, name: str, **facts: Fact) -> None:
        """One line, at the level that `EVENTS` gives the name. A name that is not listed is our own mistake."""
        level, sentence = EVENTS[name]
        if level < self._level:
            return
        now = datetime.now(UTC)
        if self._is_json:
            line = {"at": now.isoformat(), "level": logging.getLevelName(level).lower(), "event": name, **facts}
            self._stream.write(msgspec.json.encode(line).decode() + "\n")
        else:
            shown = " ".join(f"{key}={_text(value)}" for key, value in facts.items())
            self._stream.write(
                f"{now:%Y-%m-%d %H:%M:%S}Z {logging.getLevelName(level):7} {name:18} {sentence}  {shown}\n"
            )
        self._stream.flush()

    def debug(self, name: str, **facts: Fact) -> None:
        """`event` for lines that come once a batch: nothing is built when nobody reads them."""
        if self._level <= logging.DEBUG:
            self.event(name, **facts)


def _text(value: Fact) -> str:
    text = str(value)
    if '"' in text or "\n" in text:
        # As JSON spells it: where it ends can be seen.
        return msgspec.json.encode(text).decode()
    return f'"{text}"' if " " in text or not text else text
