"""Goal: the proxy does the trouble that it is asked for, to the byte, and no other.
Method: a server that sends back what it gets, and clients that look at what arrives."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from engine.testing.proxy import Manner, Proxy, Way, proxy_to

SIZE = 300_000


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of an echo."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def echo(one: socket.socket) -> None:
        with one, suppress(OSError):
            while piece := one.recv(1 << 16):
                one.sendall(piece)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=echo, args=(listener.accept()[0],)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    with proxy_to(listener.getsockname()) as proxy:
        yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in [acceptor, *threads]:
        thread.join(10)
        assert not thread.is_alive()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def said(one: socket.socket, size: int) -> bytes:
    """Up to `size` bytes that arrive before the end, whatever that is."""
    found = b""
    with suppress(ConnectionError):
        while len(found) < size and (piece := one.recv(size - len(found))):
            found += piece
    return found


def test_bytes_go_through_and_are_counted(proxy: Proxy) -> None:
    content = bytes(range(256)) * (SIZE // 256)
    with connect(proxy) as one:
        sender = threading.Thread(target=one.sendall, args=(content,))
        sender.start()
        assert said(one, len(content)) == content
        sender.join(10)
    proxy.keep()  # Its thread counts what it has sent.
    assert set(proxy.relayed.values()) == {len(content)}


@pytest.mark.parametrize("size", [0, 1, 70_000, SIZE - 1])
@pytest.mark.parametrize("way", Way)
def test_a_cut_comes_after_so_many_bytes(proxy: Proxy, way: Way, size: int) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        one.settimeout(10)
        proxy.cut_after(size, way, Manner.CLOSE)
        with suppress(OSError):
            one.sendall(bytes(SIZE))
        arrived = said(one, SIZE)
        assert proxy.relayed[way] == size
        assert len(arrived) == size if way is Way.TO_CLIENT else len(arrived) <= size
        with suppress(ConnectionError):
            assert other.recv(1) == b"", "all connections are cut"
    assert proxy.cuts == 2
    with connect(proxy) as one:
        one.sendall(b"again")
        assert said(one, 5) == b"again"


def test_a_reset_is_an_error_and_a_close_is_an_end(proxy: Proxy) -> None:
    with connect(proxy) as one:
        one.sendall(b"x")
        assert said(one, 1) == b"x"
        proxy.cut(Manner.CLOSE)
        assert one.recv(1) == b""
    with connect(proxy) as one:
        one.sendall(b"x")
        assert said(one, 1) == b"x"
        proxy.cut(Manner.RESET)
        with pytest.raises(ConnectionResetError):
            one.recv(1)


def test_a_silence_is_neither_and_ends(proxy: Proxy) -> None:
    with connect(proxy) as one:
        one.settimeout(0.2)
        proxy.silence()
        one.sendall(b"x")
        with pytest.raises(TimeoutError):
            one.recv(1)
        proxy.resume()
        one.settimeout(10)
        assert said(one, 1) == b"x"


def test_a_silence_of_one_connection_is_not_that_of_the_next(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        proxy.cut_after(0, Way.TO_SERVER, Manner.SILENCE)
        one.sendall(b"x")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1)
        with connect(proxy) as later:
            later.sendall(b"y")
            assert said(later, 1) == b"y"
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(1)


def test_refused_and_slow(proxy: Proxy) -> None:
    proxy.is_refusing = True
    # It may be cut before the connection is there for us, or after.
    with pytest.raises(ConnectionResetError), connect(proxy) as one:
        one.recv(1)
    proxy.is_refusing, proxy.delay_seconds = False, 0.1
    with connect(proxy) as one:
        began = time.monotonic()
        one.sendall(b"x")
        assert said(one, 1) == b"x"
        assert time.monotonic() - began >= 0.2
