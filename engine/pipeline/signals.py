"""How lanes wake each other: something happened, look again."""

from __future__ import annotations

from collections import defaultdict

import anyio


class Bell:
    """Wakes everyone who waits. Take `next` before looking, wait on it after having found nothing."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    @property
    def next(self) -> anyio.Event:
        return self._event

    def ring(self) -> None:
        event, self._event = self._event, anyio.Event()
        event.set()


class Signals:
    """The bells of one daemon. `journal`: it grew. `cursor[S]`: the hub's cursor of a system moved, or its snapshot is
    complete. `reached[S]`: up to where a target that is at work has delivered. `opened[S]`: its source has been tried.
    `lost`: systems whose logs are known to have lost changes. `waiting`: those whose sources wait for targets."""

    def __init__(self) -> None:
        self.journal = Bell()
        self.cursor: defaultdict[int, Bell] = defaultdict(Bell)
        self.reached: dict[int, int] = {}
        self.opened: defaultdict[int, anyio.Event] = defaultdict(anyio.Event)
        self.lost: set[int] = set()
        self.waiting: set[int] = set()
