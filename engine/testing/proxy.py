"""A TCP relay on loopback that can be trouble: it cuts at a byte, delays, goes silent, refuses.

Put it between a plugin and its server. One thread relays all connections and ends with the block. What it counts is
over all connections together: a plugin opens several for one purpose, and a cut may fall on any of them.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

READ_SIZE = 1 << 16
CONNECT_SECONDS_MAX = 10
JOIN_SECONDS_MAX = 10
# Closing a socket with this sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """Where bytes go."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Manner(enum.Enum):
    """How a connection ends."""

    CLOSE = "close"
    """In good order, as by a server that is shut down: both sides read an end."""
    RESET = "reset"
    """As by a firewall that says so: both sides read an error."""
    SILENCE = "silence"
    """As by one that does not: the connection stays open, half-open, and nothing more comes of it."""


@dataclass(slots=True, eq=False)
class _Flow:
    """One direction of a connection. It reads again when what it holds has been passed on."""

    way: Way
    source: socket.socket
    sink: socket.socket
    held: bytes = b""
    due: float = 0.0
    is_done: bool = False


@dataclass(slots=True, eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    is_silent: bool = False
    flows: tuple[_Flow, _Flow] = field(init=False)

    def __post_init__(self) -> None:
        self.flows = (
            _Flow(Way.TO_SERVER, self.client, self.server),
            _Flow(Way.TO_CLIENT, self.server, self.client),
        )


@dataclass(slots=True)
class _Cut:
    way: Way
    left: int
    manner: Manner


class Proxy:
    """A running relay.

    `port` is where it listens, on 127.0.0.1. `relayed`: bytes passed on each way so far. `cuts`: connections it ended.
    `delay_seconds`: how long each piece waits before it is passed on. `is_refusing`: whoever connects is sent away.
    """

    def __init__(self, server: tuple[str, int], port: int = 0) -> None:
        self.server = server
        self.relayed = dict.fromkeys(Way, 0)
        self.cuts = 0
        self.delay_seconds = 0.0
        self.is_refusing = False
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[_Link] = []
        self._cut: _Cut | None = None
        self._is_silent = False
        self._is_ending = False
        self._wishes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._rung = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    def cut_after(self, size: int, way: Way, manner: Manner = Manner.RESET) -> None:
        """Once `size` bytes more have gone that way, end all connections so; those that come later are relayed."""

        def wish() -> None:
            self._cut = _Cut(way, size, manner)

        self._ask(wish)

    def keep(self) -> None:
        """No cut, if there has been none yet."""

        def wish() -> None:
            self._cut = None

        self._ask(wish)

    def cut(self, manner: Manner = Manner.RESET) -> None:
        """End all connections now."""
        self._ask(lambda: self._end_all(manner))

    def silence(self) -> None:
        """All connections are half-open from now on: new ones are accepted too, and nothing is passed on, not even an
        end."""

        def wish() -> None:
            self._is_silent = True

        self._ask(wish)

    def resume(self) -> None:
        """Pass everything on again, and what has come meanwhile."""

        def wish() -> None:
            self._is_silent = False

        self._ask(wish)

    def end(self) -> None:
        """Close everything; the thread has ended when this returns."""

        def wish() -> None:
            self._is_ending = True

        self._ask(wish)
        self._thread.join(JOIN_SECONDS_MAX)
        for one in (self._listener, self._bell, self._rung):
            one.close()

    def _ask(self, wish: Callable[[], None]) -> None:
        """Have it done by the thread, and wait until it is."""
        is_done = threading.Event()

        def then() -> None:
            wish()
            is_done.set()

        self._wishes.put(then)
        self._bell.send(b"!")
        if not is_done.wait(JOIN_SECONDS_MAX):
            raise RuntimeError(f"the proxy at port {self.port} has ended")

    def _run(self) -> None:
        while not self._is_ending:
            wanted, wait = self._wanted()
            with selectors.DefaultSelector() as selector:
                for one, (events, flows) in wanted.items():
                    selector.register(one, events, flows)
                ready = [(key.fileobj, key.data, events) for key, events in selector.select(wait)]
            for one, flows, events in ready:
                if one is self._listener:
                    self._accept()
                elif one is self._rung:
                    for _ in self._rung.recv(READ_SIZE):
                        self._wishes.get()()
                else:
                    for flow in flows:
                        if events & selectors.EVENT_READ and flow.source is one and not flow.held:
                            self._read(flow)
                        if events & selectors.EVENT_WRITE and flow.sink is one and flow.held:
                            self._write(flow)
        self._end_all(Manner.RESET)

    def _wanted(self) -> tuple[dict[socket.socket, tuple[int, list[_Flow]]], float | None]:
        """What to wait for, and for how long at most."""
        wanted: dict[socket.socket, tuple[int, list[_Flow]]] = {
            self._listener: (selectors.EVENT_READ, []),
            self._rung: (selectors.EVENT_READ, []),
        }
        wait: float | None = None
        now = time.monotonic()
        for flow in self._flows():
            if self._is_silent or flow.is_done:
                continue
            if flow.held and flow.due > now:
                wait = flow.due - now if wait is None else min(wait, flow.due - now)
                continue
            one, event = (flow.sink, selectors.EVENT_WRITE) if flow.held else (flow.source, selectors.EVENT_READ)
            events, flows = wanted.get(one, (0, []))
            wanted[one] = (events | event, [*flows, flow])
        return wanted, wait

    def _flows(self) -> list[_Flow]:
        return [flow for link in self._links if not link.is_silent for flow in link.flows]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self.is_refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self.server, CONNECT_SECONDS_MAX)
        except OSError:
            _close(client, Manner.RESET)
            return
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(_Link(client, server))

    def _read(self, flow: _Flow) -> None:
        try:
            flow.held = flow.source.recv(READ_SIZE)
            flow.due = time.monotonic() + self.delay_seconds
            if not flow.held:
                flow.is_done = True
                flow.sink.shutdown(socket.SHUT_WR)
                if flow.way is Way.TO_SERVER:
                    # A client that has said all waits for no answer.
                    self._end(flow, Manner.CLOSE)
        except BlockingIOError:
            return
        except OSError:
            self._end(flow, Manner.RESET)

    def _write(self, flow: _Flow) -> None:
        cut = self._cut if self._cut is not None and self._cut.way is flow.way else None
        allowed = len(flow.held) if cut is None else min(cut.left, len(flow.held))
        try:
            size = flow.sink.send(flow.held[:allowed]) if allowed else 0
        except BlockingIOError:
            return
        except OSError:
            self._end(flow, Manner.RESET)
            return
        flow.held = flow.held[size:]
        self.relayed[flow.way] += size
        if cut is not None:
            cut.left -= size
            if cut.left == 0:
                self._cut = None
                self._end_all(cut.manner)

    def _end(self, flow: _Flow, manner: Manner) -> None:
        for link in self._links:
            if flow in link.flows:
                self._links.remove(link)
                _close_both(link, manner)
                return

    def _end_all(self, manner: Manner) -> None:
        for link in [link for link in self._links if not link.is_silent or manner is not Manner.SILENCE]:
            self.cuts += not link.is_silent
            if manner is Manner.SILENCE:
                link.is_silent = True
            else:
                self._links.remove(link)
                _close_both(link, manner)


@contextmanager
def proxy_to(server: tuple[str, int], port: int = 0) -> Generator[Proxy]:
    """A relay to the server's address for as long as the block lasts; at a port of its own choice, unless the server
    tells its clients to come by a certain one."""
    proxy = Proxy(server, port)
    try:
        yield proxy
    finally:
        proxy.end()


def _close_both(link: _Link, manner: Manner) -> None:
    for flow in link.flows:
        # Nothing of it in this round any more.
        flow.is_done, flow.held = True, b""
        _close(flow.source, manner)


def _close(one: socket.socket, manner: Manner) -> None:
    with contextlib.suppress(OSError):
        if manner is Manner.RESET:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            one.shutdown(socket.SHUT_WR)
            # What is closed with something unread in it is reset all the same.
            while one.recv(READ_SIZE):
                pass
    one.close()
