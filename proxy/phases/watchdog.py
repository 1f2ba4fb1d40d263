"""One timer for all that all exchanges may wait for.

A timer per read would cost more than the read, and one per exchange still 8 us of it. So one handle ticks for the whole
process, coarsely, and looks at plain attributes that the phases set as they go. When a bound is passed it notes which, and
cancels the exchange's task once; the phase that was waiting asks `claim` whether the cancellation was ours. A client that
leaves cancels the same task: both may happen, and then the client's leaving wins, as with `asyncio.timeout`.

A bound is noticed at most one tick late: 0.1 s, and longer with thousands of exchanges, to bound what ticking costs. A tick
that is late itself says that this process was busy, not that others were slow. So it judges nobody before the loop has had
the turns to read what came meanwhile, and everybody is given the time that was lost: who sends in pieces, or waits for us to
take them, could not go on either. The time of the whole is what the client was promised, and stays.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.core.failure import FailureKind
from proxy.core.routing import Timeouts

TICK_S: Final = 0.1
EXCHANGES_A_TICK: Final = 2000  # with twice as many, ticks are twice as far apart
LATE_S: Final = 0.05  # no loop of ours is so busy in peace
LATE_TURNS: Final = 4  # of the loop: sockets are read, what was read wakes its exchange, the exchange notes it
WRITE_S: Final = 30.0  # a client that takes nothing for so long is gone


class Ticker:
    """The watchdogs of one event loop. Ticks only while there are any."""

    __slots__ = ("_due_at", "_now", "_ticking", "_watchdogs")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._watchdogs: set[Watchdog] = set()
        self._ticking = False
        self._due_at = 0.0  # by the loop's clock

    def watch(self, timeouts: Timeouts, total_at: float) -> "Watchdog":
        """A watchdog over the current task. Its owner hands it to `release` when the exchange is over."""
        watchdog = Watchdog(timeouts, total_at)
        self._watchdogs.add(watchdog)
        if not self._ticking:
            self._ticking = True
            self._schedule()
        return watchdog

    def release(self, watchdog: "Watchdog") -> None:
        self._watchdogs.discard(watchdog)

    def expire_all(self, kind: FailureKind) -> None:
        """Let every exchange end now, as `kind`."""
        for watchdog in tuple(self._watchdogs):
            watchdog.expire(kind)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_at = loop.time() + TICK_S * (1 + len(self._watchdogs) // EXCHANGES_A_TICK)
        loop.call_at(self._due_at, self._tick)

    def _tick(self) -> None:
        late_s = asyncio.get_running_loop().time() - self._due_at
        if late_s <= LATE_S:
            self._look_after(0)
            return
        now = self._now()
        for watchdog in self._watchdogs:
            watchdog.forgive(late_s, now)
        self._look_after(LATE_TURNS)

    def _look_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._look_after, turns - 1)
            return
        if not self._watchdogs:
            self._ticking = False
            return
        now = self._now()
        for watchdog in tuple(self._watchdogs):
            watchdog.look(now)
        self._schedule()


class Watchdog:
    """Over one exchange's task. Times are monotonic seconds."""

    __slots__ = (
        "_cancelled",
        "_task",
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

    def __init__(self, timeouts: Timeouts, total_at: float) -> None:
        self._timeouts = timeouts
        self.total_at = total_at
        self.limit_at = float("inf")
        self.limit_kind = FailureKind.TOTAL_TIMEOUT
        self.relaying = False
        self.last_byte_at = self.last_event_at = 0.0
        self.writing_since = 0.0  # 0: not writing
        self.expired: FailureKind | None = None
        self._cancelled = False
        self._task = asyncio.current_task()

    def limit(self, kind: FailureKind, at: float) -> None:
        """Until the next call: expire as `kind` at `at`."""
        self.limit_kind, self.limit_at = kind, at

    def relay(self, now: float) -> None:
        """From now on: expire when no byte, or no event, comes for too long."""
        self.limit_at = float("inf")
        self.last_byte_at = self.last_event_at = now
        self.relaying = True

    def claim(self) -> FailureKind | None:
        """In `except CancelledError`: the bound that was passed, if this cancellation was ours alone; else None.

        Afterwards nothing is bounded but a write, until `limit` or `relay` says so: what is told of a bound that has
        passed must not be cancelled by it again.
        """
        if not self._cancelled:
            return None
        self._cancelled = self.relaying = False
        self.limit_at = self.total_at = float("inf")
        return self.expired if self._task is not None and self._task.uncancel() == 0 else None

    def forgive(self, lost_s: float, now: float) -> None:
        """Leave out a time in which this process did nothing for anybody."""
        if self.limit_kind is not FailureKind.TOTAL_TIMEOUT:
            self.limit_at += lost_s
        self.last_byte_at = min(now, self.last_byte_at + lost_s)
        self.last_event_at = min(now, self.last_event_at + lost_s)
        if self.writing_since:
            self.writing_since = min(now, self.writing_since + lost_s)

    def look(self, now: float) -> None:
        """Cancel the task if a bound has been passed."""
        kind = self._passed(now)
        if kind is not None:
            self.expire(kind)

    def expire(self, kind: FailureKind) -> None:
        """Cancel the task, as `kind`, once until it is claimed."""
        if not self._cancelled and self._task is not None:
            self.expired = kind
            self._cancelled = True
            self._task.cancel()

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
