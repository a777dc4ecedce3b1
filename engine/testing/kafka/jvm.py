"""A Java program of ours: started from the jars, waited for, ended by its process id, its log at hand when it fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.testing.kafka.artifacts import jars_directory, what_is_missing

START_SECONDS_MAX = 90
STOP_SECONDS_MAX = 20
LOG_TAIL_BYTES = 6000
# A test's program lives for a minute: it is never worth the better compiler, and one collector thread does.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaProgram:
    """A running program. `process` is ours to end."""

    name: str
    log_path: Path
    process: subprocess.Popen[bytes]

    def log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-LOG_TAIL_BYTES:]

    def wait_until(self, is_ready: Callable[[], bool], what: str) -> None:
        """Ask `is_ready` until it says so. Raises RuntimeError, with the end of the log, when the program ends before
        or takes more than START_SECONDS_MAX."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_ready():
            code = self.process.poll()
            if code is not None:
                raise RuntimeError(f"{self.name} ended with {code} before {what}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: {START_SECONDS_MAX} s and still not {what}:\n{self.log_tail()}")
            time.sleep(0.05)


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a file of Java's properties format; backslashes, which are its escapes, are doubled."""
    lines = (f"{name}={value}\n".replace("\\", "\\\\") for name, value in properties.items())
    path.write_text("".join(lines))


def java_command(
    main_class: str, *arguments: str, options: Sequence[str], log_levels: Mapping[str, str] | None = None
) -> list[str]:
    """The command line of `main_class`. `log_levels` are by logger, the default's name is ''."""
    missing = what_is_missing()
    if missing is not None:
        raise RuntimeError(missing)
    levels = {"": "warn", **(log_levels or {})}
    logging = [
        f"-Dorg.slf4j.simpleLogger.{f'log.{name}' if name else 'defaultLogLevel'}={level}"
        for name, level in levels.items()
    ]
    logging.append("-Dorg.slf4j.simpleLogger.showDateTime=true")
    logging.append("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
    return ["java", *options, *logging, "-cp", f"{jars_directory()}/*", main_class, *arguments]


@contextmanager
def running(name: str, command: Sequence[str], directory: Path) -> Generator[JavaProgram]:
    """Run `command` in `directory`, where its output goes to `NAME.log`; end it on leaving."""
    log_path = directory / f"{name}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        yield JavaProgram(name=name, log_path=log_path, process=process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
