"""The daemon as a process of its own, started, killed and stopped by the demo, and what its log tells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ConcordError

STOP_SECONDS_MAX = 40.0
PAUSED_SECONDS_MAX = 20.0
TAIL_SECONDS = 0.05


@dataclass(slots=True)
class Pulse:
    """One system as the log shows it: states of its lanes, rows read and written, conflicts, what is parked."""

    source: str = "-"
    target: str = "-"
    read: int = 0
    written: int = 0
    conflicts: int = 0
    parked: int = 0


@dataclass(slots=True)
class DemoDaemon:
    """`concord run` in the folder. `pulses` follows the log in a thread while the block lasts."""

    directory: Path
    systems: tuple[str, ...]
    pulses: dict[str, Pulse] = field(default_factory=lambda: {})
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    _is_started: threading.Event = field(default_factory=threading.Event)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def log_path(self) -> Path:
        return self.directory / "daemon.log"

    def __enter__(self) -> DemoDaemon:
        self.pulses = {system: Pulse() for system in self.systems}
        self.log_path.touch()
        self._thread = threading.Thread(target=self._follow, name="demo log", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def start(self) -> None:
        self._is_started.clear()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command(), "run", "--log-format", "json", "--log-level", "debug"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which then ends the daemon itself.
                start_new_session=True,
            )
        self.starts += 1

    def wait_started(self) -> None:
        """Until the log says that the daemon runs."""
        while not self._is_started.wait(TAIL_SECONDS):
            self.require_running()

    def wait_paused(self, system: str) -> None:
        """Until the log says that the lane into the system has paused. Raises `ConcordError` if it does not."""
        deadline = time.monotonic() + PAUSED_SECONDS_MAX
        while self.pulses[system].target != "paused":
            self.require_running()
            if time.monotonic() > deadline:
                raise ConcordError(
                    f"the {system} cannot be written, and its lane did not pause", hint=f"Read {self.log_path}."
                )
            time.sleep(TAIL_SECONDS)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to put anything in order."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for pulse in self.pulses.values():
            pulse.source = pulse.target = "killed"

    def stop(self) -> None:
        """SIGTERM: deliver what the journal holds and end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
        for pulse in self.pulses.values():
            pulse.source = pulse.target = "stopped"

    def require_running(self) -> None:
        """Raises `ConcordError` when the process has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise ConcordError(
                f"the daemon ended by itself with exit code {self.process.returncode}",
                hint=f"Read the end of {self.log_path}.",
            )

    def _follow(self) -> None:
        with self.log_path.open() as log:
            rest = ""
            while True:
                is_over = self._is_over.is_set()
                rest += log.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    self._note(line)
                if is_over:
                    return
                self._is_over.wait(TAIL_SECONDS)

    def _note(self, line: str) -> None:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if event.get("event") == "daemon.started":
            self._is_started.set()
        pulse = self.pulses.get(str(event.get("system")))
        match event.get("event"), pulse:
            case (("lane.started" | "lane.resumed"), Pulse()):
                setattr(pulse, event["direction"], "running")
            case "lane.paused", Pulse():
                setattr(pulse, event["direction"], "paused")
            case "lane.halted", Pulse():
                setattr(pulse, event["direction"], "HALTED")
            case "capture.batch", Pulse():
                pulse.read += int(event["read"]) - int(event["echoed"])
                pulse.conflicts += int(event["conflicts"])
            case "deliver.done", Pulse():
                pulse.written += int(event["rows"])
            case "deliver.parked", Pulse():
                pulse.parked += int(event["count"])
            case _:
                pass


def command() -> list[str]:
    """How to start `concord` here, whatever PATH says."""
    return [sys.executable, "-m", "engine.cli"]


def concord(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of Concord in the folder, to its end. Raises `ConcordError` when it fails."""
    done = subprocess.run(
        [*command(), *arguments], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ConcordError(
            f"`concord {' '.join(arguments)}` failed with exit code {done.returncode}: {' '.join(lines[-3:])}",
            hint=f"Run it by hand in {directory}.",
        )
    return done
