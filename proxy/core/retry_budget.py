"""How many repeats and hedges there may be beside the requests themselves, so that an outage is not made worse by them.

Two bounds, both must hold:

- *Credit*: every request earns a fifth of a repeat, a repeat costs a whole one, and at most ``floor`` are ever saved up, as
  many as there are at the start. So over any stretch of time the attempts are at most 1.2 x requests + 3, whenever it
  began. More saved up would be a storm in the first second of an outage.
- *In flight*: at most a fifth of the last ten seconds' requests, or ``floor`` where that is more, so that repeats which
  hang do not pile up.

Memory: a few integers. Credit is counted in thousandths, so that no rounding adds up. One per process: the floor is each
worker's own. Deliberately not handled: which repeat is worth it. Held by `tests/core/test_retry_budget.py`.
"""

from typing import Final

WINDOW_S: Final = 10
_UNIT: Final = 1000


class RetryBudget:
    """Units: ``now`` is monotonic seconds. ``share`` of the requests, of which only thousandths count."""

    __slots__ = ("_credit", "_earned", "_floor", "_in_flight", "_requests", "_seconds")

    def __init__(self, share: float = 0.2, floor: int = 3) -> None:
        self._earned = int(round(share * _UNIT, 6))
        self._floor = floor
        self._credit = floor * _UNIT
        self._in_flight = 0
        self._seconds = [-1] * WINDOW_S  # which second each of `_requests` counts
        self._requests = [0] * WINDOW_S

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def note_request(self, now: float) -> None:
        """Once per request, not per attempt."""
        self._credit = min(self._credit + self._earned, self._floor * _UNIT)
        second = int(now)
        slot = second % WINDOW_S
        if self._seconds[slot] != second:
            self._seconds[slot], self._requests[slot] = second, 0
        self._requests[slot] += 1

    def try_take(self, now: float) -> bool:
        """Whether one more attempt may be made. True: it counts as made, and is given back when it has ended."""
        if self._credit < _UNIT or self._in_flight >= self._in_flight_max(now):
            return False
        self._credit -= _UNIT
        self._in_flight += 1
        return True

    def give_back(self) -> None:
        """A repeat has ended, however. Its credit is spent."""
        self._in_flight = max(self._in_flight - 1, 0)

    def _in_flight_max(self, now: float) -> int:
        oldest = int(now) - WINDOW_S
        recent = sum(
            count for second, count in zip(self._seconds, self._requests, strict=True) if oldest < second <= now
        )
        return max(self._floor, recent * self._earned // _UNIT)
