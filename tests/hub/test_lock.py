"""Goal: one hub has one daemon, and looking who that is keeps nobody from becoming it.

Method: the lock file, held by another descriptor as another process would hold it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from engine.errors import HubBusy
from engine.hub.sqlite import hub_lock, lock_owner


def _hold(path: Path) -> int:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_look_at_the_lock_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    looking = threading.Timer(0.2, os.close, [_hold(path)])
    looking.start()
    with hub_lock(path):
        assert lock_owner(path) == os.getpid()
    looking.join()
    assert lock_owner(path) is None


def test_an_owned_hub_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    descriptor = _hold(path)
    os.write(descriptor, b"4711")
    with pytest.raises(HubBusy, match="4711"), hub_lock(path):
        pass
    os.close(descriptor)
