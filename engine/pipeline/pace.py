"""Sources and targets at one pace, as far as that is better for all.

A target that is near the journal's end gets its entries from memory. One that falls behind has them read from the disk
and decoded, and so costs the daemon half as much again, which makes it fall behind further. So a source that has
committed much gives the targets that are near a moment to stay so. Only a moment: a target that is slower than that
falls behind, and from then on nobody waits for it.
"""

from __future__ import annotations

from typing import Final

import anyio

from engine.hub.sqlite import RECENT_ENTRIES
from engine.pipeline.signals import Signals

# As far as that a target may be behind before it is waited for: so much less than what is kept in memory that it is
# still there when the target comes to it.
LAG_ENTRIES: Final = RECENT_ENTRIES * 7 // 10
# What a source waits at most, for each entry that it has committed: a quarter of the rate of one that does not wait.
WAIT_SECONDS: Final = 5e-6


async def keep_pace(signals: Signals, entries: int, last_seq: int) -> None:
    """Called by a source behind a commit of `entries`, the last of them `last_seq`."""
    with anyio.move_on_after(entries * WAIT_SECONDS):
        while True:
            lags = {last_seq - seq: system for system, seq in signals.reached.items()}
            lag = max((lag for lag in lags if LAG_ENTRIES < lag <= RECENT_ENTRIES), default=0)
            if not lag:
                return
            await signals.cursor[lags[lag]].next.wait()
