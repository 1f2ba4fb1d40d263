"""One timer for all that an exchange may wait for.

A timer per read would cost more than the read. So one handle ticks, coarsely, and looks at plain attributes that the
phases set as they go. When a bound is passed it notes which, and cancels the task once; the phase that was waiting asks
`claim` whether the cancellation was ours. A client that leaves cancels the same task: both may happen, and then the
client's leaving wins, as with `asyncio.timeout`.

A bound is noticed at most one tick late: a quarter of the shortest bound, at most `TICK_S_MAX`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.core.failure import FailureKind
from proxy.core.routing import Timeouts

TICK_S_MAX: Final = 0.5
TICK_S_MIN: Final = 0.005
WRITE_S: Final = 30.0  # a client that takes nothing for so long is gone


class Watchdog:
    """Made in the exchange's task, ticking from then on; `stop` it when the exchange is over."""

    __slots__ = (
        "_cancelled",
        "_handle",
        "_loop",
        "_now",
        "_task",
        "_tick_s",
        "_timeouts",
        "expired",
        "last_byte_at",
        "last_event_at",
        "limit_at",
        "limit_kind",
        "relaying",
        "total_at",
        "writing_since",
    )

    def __init__(self, timeouts: Timeouts, total_at: float, now: Callable[[], float]) -> None:
        self._timeouts = timeouts
        self._now = now
        self.total_at = total_at
        self.limit_at = float("inf")
        self.limit_kind = FailureKind.TOTAL_TIMEOUT
        self.relaying = False
        self.last_byte_at = self.last_event_at = 0.0
        self.writing_since = 0.0  # 0: not writing
        self.expired: FailureKind | None = None
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        shortest = min(timeouts.first_event_s, timeouts.idle_s, timeouts.silent_s, timeouts.total_s)
        self._tick_s = min(max(shortest / 4, TICK_S_MIN), TICK_S_MAX)
        self._handle = self._loop.call_later(self._tick_s, self._tick)

    def limit(self, kind: FailureKind, at: float) -> None:
        """Until the next call: expire as `kind` at `at` (monotonic seconds)."""
        self.limit_kind, self.limit_at = kind, at

    def relay(self, now: float) -> None:
        """From now on: expire when no byte, or no event, comes for too long."""
        self.limit_at = float("inf")
        self.last_byte_at = self.last_event_at = now
        self.relaying = True

    def stop(self) -> None:
        self._handle.cancel()

    def claim(self) -> FailureKind | None:
        """In `except CancelledError`: the bound that was passed, if this cancellation was ours alone; else None."""
        if not self._cancelled:
            return None
        self._cancelled = False
        return self.expired if self._task is not None and self._task.uncancel() == 0 else None

    def _tick(self) -> None:
        kind = None if self._cancelled else self._passed(self._now())
        if kind is not None and self._task is not None:
            self.expired = kind
            self._cancelled = True
            self._task.cancel()
        self._handle = self._loop.call_later(self._tick_s, self._tick)

    def _passed(self, now: float) -> FailureKind | None:
        if now >= self.limit_at:
            return self.limit_kind
        if now >= self.total_at:
            return FailureKind.TOTAL_TIMEOUT
        if self.writing_since:
            # While the client is slow nobody listens to the upstream: its silence does not count.
            self.last_byte_at = self.last_event_at = now
            return FailureKind.CLIENT_STALLED if now - self.writing_since >= WRITE_S else None
        if self.relaying and (
            now - self.last_byte_at >= self._timeouts.idle_s or now - self.last_event_at >= self._timeouts.silent_s
        ):
            return FailureKind.STALLED
        return None
