"""A process in which several feeds see their databases for the first time at the same moment, as a daemon's do."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

import msgspec

from engine.model.table import Column, Form, Kind, Shape
from plugins.sqlite.journal import read_layouts

THREADS = 8

shape = Shape(name="t", columns=(Column(name="a", kind=Kind.TEXT, type="text"),), form=Form.NATIVE)
document = msgspec.json.encode(shape)
connection: Any = SimpleNamespace(execute=lambda _: [(n, document) for n in range(3)])  # pyright: ignore[reportUnknownLambdaType]
together = threading.Barrier(THREADS)


def read() -> None:
    together.wait()
    assert read_layouts(connection) == dict.fromkeys(range(3), shape)


sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=read) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
