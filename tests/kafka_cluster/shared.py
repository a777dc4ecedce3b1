"""One cluster for all processes of a test run: the first that asks starts it, and ends it when nobody else uses it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.kafka.broker import KafkaBroker
from engine.testing.kafka.certificates import make_certificates
from engine.testing.kafka.cluster import KafkaCluster, start_cluster
from engine.testing.kafka.connect import ConnectWorker

_numbers = itertools.count(1)


def own_name(word: str) -> str:
    """A name that no other test of this run has, in whichever process: letters, digits and underscores."""
    return f"{word}_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}_{next(_numbers)}"


def meeting_place(factory: pytest.TempPathFactory) -> Path:
    """The folder that the processes of this test run have in common; pytest-xdist's have their own below one."""
    own = factory.getbasetemp()
    return (own if os.environ.get("PYTEST_XDIST_WORKER") is None else own.parent) / "kafka"


@contextmanager
def shared_cluster(meeting: Path) -> Generator[KafkaCluster]:
    """The cluster of all who meet in this folder. Whoever started it waits on leaving until the others have left.

    Its users hold the file `users` locked together: a process that is killed uses it no more. `door` is for one to come
    or go at a time.
    """
    meeting.mkdir(exist_ok=True)
    address = meeting / "cluster.json"
    with ExitStack() as own, (meeting / "users").open("a") as users:
        with _one_at_a_time(meeting / "door"):
            is_ours = not address.exists()
            if is_ours:
                # Not in the meeting place: pytest keeps its folders after the run.
                name = own.enter_context(TemporaryDirectory(prefix="concord-kafka-", ignore_cleanup_errors=True))
                address.write_text(_spell(own.enter_context(start_cluster(Path(name)))))
            fcntl.flock(users, fcntl.LOCK_SH)
            cluster = _read(address.read_text())
        try:
            yield cluster
        finally:
            if is_ours:
                with _one_at_a_time(meeting / "door"):
                    address.unlink()
                fcntl.flock(users, fcntl.LOCK_EX)


@contextmanager
def _one_at_a_time(door: Path) -> Generator[None]:
    with door.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _spell(cluster: KafkaCluster) -> str:
    return json.dumps(
        {
            "directory": str(cluster.directory),
            "ports": dict(cluster.broker.ports),
            "proxy_port": cluster.broker.proxy_port,
            "url": cluster.connect.url,
        }
    )


def _read(spelled: str) -> KafkaCluster:
    known = json.loads(spelled)
    directory = Path(known["directory"])
    certificates = make_certificates(directory / "broker" / "certificates")
    broker = KafkaBroker(ports=known["ports"], proxy_port=known["proxy_port"], certificates=certificates)
    return KafkaCluster(broker=broker, connect=ConnectWorker(url=known["url"]), directory=directory)
