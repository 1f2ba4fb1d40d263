"""Waiting for an answer that somebody else fetches, perhaps in another process: by asking the store now and then.

Not by subscribing: a notification can be missed while a connection is opened anew, so that polling were needed behind it
all the same; and within one process nobody polls, because there one exchange asks for all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from proxy.core.cached_answer import CachedAnswer

POLL_S_MIN: Final = 0.05
POLL_S_MAX: Final = 0.5
_POLL_SHARE: Final = 0.1  # of what has been waited already: what came late may be seen later


class Look(NamedTuple):
    """What one look at a store shows: an answer, and whether somebody has the lease to fetch it."""

    answer: CachedAnswer | None
    leased: bool


async def wait(look: Callable[[], Awaitable[Look]], within_s: float) -> CachedAnswer | None:
    """None: nobody fetches it any more, or the time is over. Raises what `look` raises."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        answer, leased = await look()
        waited_s = loop.time() - began
        if answer is not None or not leased or waited_s >= within_s:
            return answer
        pause_s = min(max(waited_s * _POLL_SHARE, POLL_S_MIN), POLL_S_MAX)
        # Rounded up: timers know milliseconds, and what is left of one would be looked through again and again.
        await asyncio.sleep(min(pause_s, within_s - waited_s + 0.001))
