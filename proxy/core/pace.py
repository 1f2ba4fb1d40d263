"""How long a route's first events take: what a hedge waits for before it asks a second target."""

from collections import deque
from typing import Final

SAMPLES_MAX: Final = 200
SAMPLES_MIN: Final = 20  # fewer tell nothing of the slowest twentieth
_AGAIN: Final = 10  # new samples after which the quantile is worked out anew


class Pace:
    """The latest first events of one route. Units: seconds."""

    __slots__ = ("_known", "_new", "_samples")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._known: float | None = None
        self._new = 0

    def note(self, took_s: float) -> None:
        self._samples.append(took_s)
        self._new += 1

    def p95_s(self) -> float | None:
        """The time within which 95 of 100 first events came; None while too few are known."""
        if len(self._samples) < SAMPLES_MIN:
            return None
        if self._known is None or self._new >= _AGAIN:
            ordered = sorted(self._samples)
            self._known = ordered[-(-len(ordered) * 95 // 100) - 1]
            self._new = 0
        return self._known
