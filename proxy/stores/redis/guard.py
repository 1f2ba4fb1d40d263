"""Whether Redis is asked at all: up, or down after so many failures in a row that the next one is not worth its wait.

States: up, down. `failed` counts while up, and the fifth in a row goes down. What brings it back is the probe of whoever
owns the guard, by `recovered`; operations that were under way when it went down count no more. Deliberately not handled:
time, probing, and whether it was our own loop that stood still while deadlines passed: the probe comes at once, and finds
out. Held by `tests/stores/redis/test_guard.py`.
"""

from typing import Final

FAILURES: Final = 5


class Guard:
    """Units: ``at`` Unix seconds."""

    __slots__ = ("_failures", "down_since", "last_error")

    def __init__(self) -> None:
        self._failures = 0
        self.down_since: float | None = None
        self.last_error: str | None = None

    @property
    def up(self) -> bool:
        return self.down_since is None

    def succeeded(self) -> None:
        if self.down_since is None:
            self._failures = 0

    def failed(self, error: str, at: float) -> bool:
        """Whether it went down by this."""
        self.last_error = error
        if self.down_since is not None:
            return False
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self.fall(error, at)
        return True

    def fall(self, error: str, at: float) -> None:
        """Down at once, because Redis was looked for and is not there."""
        self.last_error = error
        self.down_since = at

    def recovered(self) -> None:
        self.down_since = None
        self._failures = 0
