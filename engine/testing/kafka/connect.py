"""A Kafka Connect worker with Debezium's connectors: standalone, told what to do by its REST interface."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.testing.kafka.jvm import QUICK_START, JavaProgram, java_command, running, write_properties
from engine.testing.postgres import free_port

HEAP = ("-Xms128m", "-Xmx768m")
ANSWER_SECONDS_MAX = 60
RUNNING_SECONDS_MAX = 60
# The first lines of a trace name the error and where it came from.
TRACE_CHARACTERS_MAX = 2000
SETTINGS = {
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "offset.flush.interval.ms": "500",
    # All jars are in one class path and name their connectors in META-INF/services; nothing is to be searched.
    "plugin.discovery": "service_load",
}
LOG_LEVELS = {"io.debezium": "info", "org.apache.kafka.connect.runtime": "info"}


class ConnectorFailed(Exception):
    """A connector or a task of it has stopped by an error, or its settings are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectWorker:
    """A running worker, by its REST interface."""

    url: str

    def create(self, name: str, config: Mapping[str, str]) -> None:
        """Make a connector, or give it other settings, and wait until its tasks run.

        Raises ConnectorFailed with the worker's words.
        """
        self.ask("PUT", f"/connectors/{quote(name)}/config", dict(config))
        self.wait_running(name)

    def create_stopped(self, name: str, config: Mapping[str, str]) -> None:
        """Make a connector that does nothing until `resume`."""
        self.ask("POST", "/connectors", {"name": name, "config": dict(config), "initial_state": "STOPPED"})

    def delete(self, name: str) -> None:
        """End a connector. What it has written stays; so does its slot at a PostgreSQL, and its offset here."""
        self.ask("DELETE", f"/connectors/{quote(name)}")

    def stop(self, name: str) -> None:
        """Let a connector's tasks go: its connections are closed when this returns."""
        self.ask("PUT", f"/connectors/{quote(name)}/stop")
        self._wait(name, lambda states: states == ["STOPPED"], "stopped")

    def resume(self, name: str) -> None:
        """Let a stopped connector go on, and wait until its tasks run.

        One at a time: a standalone worker that is told of the next while a connector starts may answer neither (seen
        with Kafka 4.1.1).
        """
        self.ask("PUT", f"/connectors/{quote(name)}/resume")
        self.wait_running(name)

    def names(self) -> list[str]:
        return sorted(self.ask("GET", "/connectors"))

    def status(self, name: str) -> dict[str, Any]:
        return self.ask("GET", f"/connectors/{quote(name)}/status")

    def wait_running(self, name: str) -> None:
        """Wait until the connector and at least one task run. It may still be reading its first rows then."""
        self._wait(name, lambda states: len(states) > 1 and all(state == "RUNNING" for state in states), "running")

    def check(self, name: str) -> None:
        """Raises ConnectorFailed when the connector or a task of it has failed."""
        status = self.status(name)
        for part in (status["connector"], *status["tasks"]):
            if part["state"] == "FAILED":
                raise ConnectorFailed(f"{name}: {part.get('trace', 'failed and says nothing')}")

    def states(self, name: str) -> str:
        """What the worker says of a connector and its tasks, for a test that failed: states, and why."""
        try:
            status = self.status(name)
        except (ConnectorFailed, OSError) as error:
            return f"connector {name}: {error}"
        parts = [("connector", status["connector"]), *((f"task {task['id']}", task) for task in status["tasks"])]
        told = [f"{part} {state['state']} {state.get('trace', '')[:TRACE_CHARACTERS_MAX]}" for part, state in parts]
        return f"connector {name}: " + ", ".join(map(str.strip, told))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request. Raises ConnectorFailed with the worker's answer where it refuses."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=content, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise ConnectorFailed(f"{method} {path}: {error.code} {text}") from None
        return json.loads(answer) if answer else None

    def _wait(self, name: str, is_so: Callable[[list[str]], bool], what: str) -> None:
        deadline = time.monotonic() + RUNNING_SECONDS_MAX
        while True:
            try:
                self.check(name)
                status = self.status(name)
            except ConnectorFailed as error:
                # It has been taken down but not been started yet.
                if " 404 " not in str(error):
                    raise
                states = ["UNASSIGNED"]
            else:
                states: list[str] = [status["connector"]["state"], *(task["state"] for task in status["tasks"])]
                if is_so(states):
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not {what} after {RUNNING_SECONDS_MAX} s: {self.states(name)}")
            time.sleep(0.05)


@contextmanager
def start_connect(
    directory: Path,
    bootstrap: str,
    settings: Mapping[str, str] | None = None,
    *,
    java_options: Sequence[str] = (*QUICK_START, *HEAP),
) -> Generator[tuple[ConnectWorker, JavaProgram]]:
    """Run a worker for the broker at `bootstrap`, with its offsets in `directory`; stop it on leaving."""
    directory.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{free_port()}"
    path = directory / "worker.properties"
    own = {
        "bootstrap.servers": bootstrap,
        "listeners": url,
        "offset.storage.file.filename": str(directory / "offsets"),
    }
    write_properties(path, {**SETTINGS, **own, **(settings or {})})
    main_class = "org.apache.kafka.connect.cli.ConnectStandalone"
    command = java_command(main_class, str(path), options=java_options, log_levels=LOG_LEVELS)
    worker = ConnectWorker(url=url)
    with running("connect", command, directory) as program:
        program.wait_until(lambda: _is_ready(worker), "answering at its REST interface")
        yield worker, program


def _is_ready(worker: ConnectWorker) -> bool:
    """The interface listens before it has anything to say, and answers 404 meanwhile."""
    try:
        worker.names()
    except (ConnectorFailed, OSError):
        return False
    return True
