"""A field in which something goes wrong, and what its operator is told.

Everything that any command prints, the daemon's log and the texts in the hub are kept, so that in the end it can be
searched for values of rows, which must not be in it.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any

from tests.acceptance.field import Field
from tests.daemons import Running

WAIT_SECONDS_MAX = 60.0
PARKED_BY_KEY = "(p.key = ? or p.rid in (select rid from link where key = ?))"


@dataclass
class Trouble:
    """A field with a daemon. `secrets`: values of rows, and passwords, that nobody may be told."""

    field: Field
    secrets: set[str] = default(default_factory=lambda: set())
    said: list[str] = default(default_factory=lambda: [])
    daemon: Running | None = None
    changes: dict[str, int] = default(default_factory=lambda: {})
    """How many rows the users of each system have changed."""

    # What users do.

    def run(self, system: str, sql: str, *values: object, rows: int = 1) -> list[tuple[Any, ...]]:
        """One statement of a system's user, which changes so many rows that take part."""
        with self.field.application(system) as application:
            found = application.run(sql, *values)
        self.changes[system] = self.changes.get(system, 0) + rows
        return found

    def ask(self, system: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """A query, or a statement that changes no row that takes part."""
        return self.run(system, sql, *values, rows=0)

    # What the operator does.

    def start(self, *arguments: str) -> None:
        assert self.daemon is None
        self.daemon = self.field.start_daemon(*arguments)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def wait_exit(self) -> int:
        assert self.daemon is not None
        try:
            code = self.daemon.wait(WAIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end: {self.log()[-4000:]}") from None
        self.daemon = None
        return code

    def restart(self) -> None:
        self.stop()
        self.start()

    def concord(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command; `code`: the exit code it must have, None for any."""
        ended = self.field.concord(*arguments)
        if arguments[0] not in ("explain", "conflicts", "review"):
            self.said += [ended.stdout, ended.stderr]
        assert code is None or ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
        return ended

    def parked(self, system: str | None = None) -> list[dict[str, Any]]:
        chosen = () if system is None else ("--system", system)
        return json.loads(self.concord("parked", "list", "--json", "--limit", "1000", *chosen).stdout)["items"]

    def status(self, system: str) -> dict[str, Any]:
        found = json.loads(self.concord("status", "--json", code=None).stdout)["systems"]
        return next(row for row in found if row["system"] == system)

    def halted(self) -> list[str]:
        """What `concord status` says of lanes that do not run, the next step included."""
        found = json.loads(self.concord("status", "--json", code=None).stdout)
        return [text for row in found["systems"] for text in (*row["errors"], *row["held"])] + found["remarks"]

    # Waiting: until the hub or a database shows it.

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not condition():
            if time.monotonic() > deadline:
                parked = self.hub("select system, direction, reason, key, message from parked")
                raise AssertionError(f"not within {WAIT_SECONDS_MAX:.0f} s: {what}\n{parked}\n{self.log()[-4000:]}")
            if self.daemon is not None and self.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.daemon.returncode}: {self.log()[-4000:]}")
            assert "internal error" not in self.log(), self.log()[-4000:]
            time.sleep(0.05)

    def hub(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        path = self.field.directory / "hub.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as hub:
            return hub.execute(sql, values).fetchall()

    def wait_copied(self) -> None:
        """Until every source has been read once."""
        places = "select count(*) from place"
        self.wait(
            lambda: (self.field.directory / "hub.sqlite").exists() and self._is_hub_made()
            and self.hub(f"select count(*) = ({places}) and count(*) > 0 from snapshot where is_done") == [(1,)],
            "first copies",
        )  # fmt: skip

    def _is_hub_made(self) -> bool:
        return bool(self.hub("select 1 from sqlite_schema where name = 'snapshot'"))

    def wait_parked(self, system: str, key: str) -> dict[str, Any]:
        """Until the row with this key, or its record, is parked at a system; what the list says of it."""
        sql = f"select 1 from parked p join system s on s.id = p.system where s.name = ? and {PARKED_BY_KEY}"
        self.wait(lambda: self.hub(sql, system, key, key), f"{key} is parked at {system}")
        return next(r for r in self.parked(system) if r["key"] == key or any(n.endswith(f":{key}") for n in r["rows"]))

    def wait_unparked(self, key: str | None = None) -> None:
        """Until nothing is parked, of the row with this key or at all."""
        if key is None:
            self.wait(lambda: self.hub("select 1 from parked") == [], "nothing is parked")
        else:
            sql = f"select 1 from parked p where {PARKED_BY_KEY}"
            self.wait(lambda: self.hub(sql, key, key) == [], f"{key} is not parked any more")

    def wait_lane(self, system: str, direction: str, *states: str) -> str:
        """Until a lane is in one of the states; its error, message and next step."""
        sql = f"select {direction}_state, coalesce({direction}_error, '') from system where name = ?"
        self.wait(lambda: self.hub(sql, system)[0][0] in states, f"{system} {direction} lane is {states}")
        return self.hub(sql, system)[0][1]

    def wait_row(self, system: str, sql: str, *values: object) -> None:
        """Until the query gives one row."""
        self.wait(lambda: len(self.ask(system, sql, *values)) == 1, f"a row at {system}: {sql} {values}")

    # What must hold.

    def log(self) -> str:
        return self.field.log()

    def check_told(self, text: str, *words: str) -> None:
        """The text has all the words."""
        missing = [word for word in words if word.lower() not in text.lower()]
        assert not missing, f"not told: {missing} in: {text}"

    def check_secrets(self) -> None:
        """No value of a row in what any command printed, in the log, or in what the hub keeps to be shown."""
        told = "\n".join((*self.said, self.log()))
        if (self.field.directory / "hub.sqlite").exists():
            told += repr(self.hub("select message, hint, field from parked"))
            told += repr(self.hub("select source_error, target_error from system"))
            told += repr(self.hub("select message, hint from held"))
        for secret in self.secrets:
            assert secret not in told, f"a value was told: {secret}"
        for line in self.log().splitlines():
            assert "internal error" not in line, line
            assert "Traceback" not in line, line

    def check_agreement(self) -> None:
        """All systems agree, nothing is left over, and every row is accounted for. The daemon must have stopped."""
        compared = self.concord("compare", "--json", code=None)
        assert compared.returncode == 0, compared.stdout[-3000:]
        tables = json.loads(compared.stdout)["tables"]
        assert not [t for t in tables if t["on_their_way"] or t["parked"]], tables
        assert self.hub("select * from parked") == []
        sql = "select name, rows_read - rows_echoed, rows_echoed, rows_filtered, rows_parked from system"
        for name, changed, echoed, filtered, parked in self.hub(sql):
            if name in self.changes:
                assert changed == self.changes[name], f"{name}: {changed} rows read, {self.changes[name]} were changed"
            assert echoed >= 0
            assert filtered + parked <= changed
        self.check_secrets()
