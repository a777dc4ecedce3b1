"""How a command sees the hub beside the daemon, and how it has the daemon change it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.commands.output import attempt, print_json, say

if TYPE_CHECKING:
    from engine.hub.transaction import HubTransaction
    from engine.operate import Wish
    from engine.pipeline.topology import Topology

T = TypeVar("T")
ANSWER_SECONDS_MAX = 15.0


def view(file: Path, read: Callable[[HubTransaction, Topology], T], is_json: bool) -> T:
    from engine.assemble import load_meaning, open_view
    from engine.config.load import load_config

    def work() -> T:
        config = load_config(file)
        with open_view(config, load_meaning(config)) as (tx, topology):
            return read(tx, topology)

    return attempt(work, is_json=is_json)


def ask(file: Path, wish: Wish, is_json: bool) -> None:
    """Have it done by the daemon that owns the hub, or do it here when none runs."""
    from engine.assemble import load_meaning, register
    from engine.config.load import load_config
    from engine.hub.sqlite import SqliteHub, connect, hub_lock, lock_owner, migrate, need_hub, translated
    from engine.operate import carry_out
    from engine.runtime.clock import SystemClock

    def work() -> tuple[str, int | None]:
        config = load_config(file)
        need_hub(config.hub)
        actor, owner = getpass.getuser(), lock_owner(config.hub)
        if owner is not None:
            return _leave_request(config.hub, wish, actor), owner
        meaning = load_meaning(config)
        with hub_lock(config.hub), translated(config.hub):
            connection = connect(config.hub)
            try:
                migrate(connection, SystemClock())
                hub = SqliteHub(connection, None, SystemClock(), inline=True, path=config.hub)
                topology = register(hub, config, meaning)
                return hub.transact_now(lambda tx: carry_out(tx, topology, wish, actor)), None
            finally:
                connection.close()

    answer, owner = attempt(work, is_json=is_json)
    if is_json:
        print_json({"answer": answer, "daemon": owner})
        return
    say(answer)
    if owner is None and wish.action != "parked.drop" and wish.choice != "keep":
        say("no daemon runs: `concord run` carries it out at the systems")


def _leave_request(hub: Path, wish: Wish, actor: str) -> str:
    import msgspec

    from engine.errors import HubBusy, NotNow, Unknown
    from engine.hub.sqlite import connect, translated

    with translated(hub):
        connection = connect(hub)
        try:
            number = connection.execute(
                "insert into request (at, actor, action, doc) values (?, ?, ?, ?) returning id",
                (time.time_ns() // 1000, actor, wish.action, msgspec.msgpack.encode(wish)),
            ).fetchone()
            assert number is not None
            deadline = time.monotonic() + ANSWER_SECONDS_MAX
            while time.monotonic() < deadline:
                row = connection.execute(
                    "select answer, is_ok, hint, code from request where id = ? and done_at is not null", number
                ).fetchone()
                if row is not None:
                    answer, is_ok, hint, code = row
                    if not is_ok:
                        raise (Unknown if code == Unknown.code else NotNow)(answer, hint=hint)
                    return answer
                time.sleep(0.1)
        finally:
            connection.close()
    raise HubBusy("the daemon has not answered yet", hint="It will when it can; look again with `concord status`.")
