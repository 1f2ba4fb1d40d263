"""How long this machine kept the test's loop from running: what a bound of time may be exceeded by, and no more.

Other work shares the machine. A bound with a fixed allowance would be too loose where nothing disturbs, and flaky elsewhere.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STEP_S = 0.001
PAUSE_S = 0.002  # a timer is late by less where nothing disturbs


class Lag:
    """``lost_s``: the time lost so far, summed up; a span of the test lost at most the difference."""

    def __init__(self) -> None:
        self.lost_s = 0.0

    async def watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(STEP_S)
            late_s = time.perf_counter() - began - STEP_S
            if late_s > PAUSE_S:
                self.lost_s += late_s


@asynccontextmanager
async def watched() -> AsyncIterator[Lag]:
    lag = Lag()
    task = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    try:
        yield lag
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Timed:
    """Times a span by the clock, less what the machine took of it."""

    def __init__(self, lag: Lag) -> None:
        self._lag = lag
        self._began, self._lost_s = time.perf_counter(), lag.lost_s

    async def stop(self) -> float:
        took_s = time.perf_counter() - self._began
        await asyncio.sleep(2 * STEP_S)  # a pause that has just ended is noticed at the next step
        return took_s - (self._lag.lost_s - self._lost_s)
