"""A bucket of permits that fills up again: how much may be taken at once, and how much in the long run.

Kept is not what is in it but what is *used* of it, which leaks away with time: a bucket that nobody knows of is full, one
whose size was changed needs no conversion, and one that was overdrawn owes the rest.

All numbers are whole and below 2^53, so that a script of Redis, which counts in doubles, comes to the same ones. A permit is
`unit` parts: a request a million of them, an LLM token 60,000, so that what flows back in a millisecond is whole too.

Held by `tests/core/test_bucket.py`.
"""

import math
from dataclasses import dataclass
from typing import Final

REQUEST_UNIT: Final = 1_000_000
TOKEN_UNIT: Final = 60_000  # a minute's milliseconds: so many parts a millisecond are as many tokens a minute
DEBT: Final = 10  # sizes: who used more than was reserved waits for ten times the bucket's time at most


@dataclass(frozen=True, slots=True)
class Bucket:
    """Units: parts of a permit; ``unit`` parts are one. Bounds: `size` * `DEBT` below 2^53."""

    size: int
    per_ms: int
    unit: int

    @property
    def permits(self) -> int:
        """How many it holds when it is full."""
        return self.size // self.unit

    @property
    def per_s(self) -> float:
        """How many permits flow back in a second."""
        return self.per_ms * 1000 / self.unit

    def left(self, used: int) -> int:
        """Whole permits that may be taken."""
        return max(0, self.size - used) // self.unit

    def wait_ms(self, used: int, permits: int) -> int | None:
        """How long until so many fit; 0: they do. None: never, they are more than the bucket holds."""
        parts = permits * self.unit
        room = self.size - used - parts
        if room >= 0:
            return 0
        return None if parts > self.size else -(room // self.per_ms)

    def full_in_ms(self, used: int) -> int:
        return -(-used // self.per_ms)

    @property
    def debt_max(self) -> int:
        return self.size * DEBT


def requests(rps: float, burst: int | None) -> Bucket:
    """``burst`` None: as many at once as a second allows, and at least one."""
    at_once = burst if burst is not None else max(1, math.ceil(rps))
    return Bucket(at_once * REQUEST_UNIT, max(1, round(rps * (REQUEST_UNIT // 1000))), REQUEST_UNIT)


def tokens(tpm: int) -> Bucket:
    return Bucket(tpm * TOKEN_UNIT, tpm, TOKEN_UNIT)


def share(bucket: Bucket, workers: int) -> Bucket:
    """What one of so many workers may take by itself: never less than one permit at a time."""
    return Bucket(max(bucket.unit, bucket.size // workers), max(1, bucket.per_ms // workers), bucket.unit)


def leaked(used: int, at_ms: int, per_ms: int, now_ms: int) -> int:
    """What is used at `now_ms` of what was at `at_ms`. A clock that was set back leaks nothing."""
    left = used - per_ms * (now_ms - at_ms) if now_ms > at_ms else used
    return max(0, left)
