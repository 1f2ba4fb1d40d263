"""What one worker lets begin by itself while the store of the limits is away: its share of each limit.

The share is the limit divided by the workers there were when the store was last heard of, and never less than one request at
a time. What this worker had under way when the store went away counts in it; what it had used of the buckets does not, so
that all workers together may let through one bucket more than configured, once for each time that the store goes away.

Held by `tests/core/test_local_limits.py`.
"""

from collections.abc import Iterable, Sequence

from proxy.core.limiting import (
    LimitClaim,
    LimitId,
    LimitLease,
    LimitSettlement,
    LimitStanding,
    LimitStates,
    Taken,
    share,
)


class LocalLimits:
    """Units: ``now_ms`` of a clock that is never set back. A lease is this process's own, and ends with it."""

    def __init__(self) -> None:
        self._states = LimitStates(2**52)
        self._workers = 1

    def begin(self, running: Iterable[LimitLease], workers: int, now_ms: int) -> None:
        """The store is away from now on, and `running` had been taken there."""
        self._workers = max(1, workers)
        self._states.clear()
        self._states.renew(tuple(running), now_ms)

    def end(self) -> None:
        self._states.clear()

    def lease(self, lease: LimitLease) -> LimitLease:
        """A lease as it is taken here: of shares. What is larger than a share takes all of it."""
        claims = tuple(share(claim, self._workers) for claim in lease.claims)
        sizes = [claim.tokens.permits for claim in claims if claim.tokens is not None]
        whole = [claim.tokens.permits for claim in lease.claims if claim.tokens is not None]
        fits = lease.tokens <= min(whole, default=lease.tokens)
        return LimitLease(lease.id, claims, min([lease.tokens, *sizes]) if fits else lease.tokens)

    def take(self, shared: LimitLease, now_ms: int) -> Taken:
        return self._states.take(shared, now_ms)

    def settle(self, settlement: LimitSettlement, now_ms: int) -> None:
        self._states.settle((settlement,), now_ms)

    def look(self, claims: Sequence[LimitClaim], now_ms: int) -> tuple[LimitStanding, ...]:
        return self._states.look([share(claim, self._workers) for claim in claims], now_ms)

    @property
    def empty(self) -> bool:
        """Whether nothing is known: the store is there, or nobody asked yet."""
        return self._states.empty

    def reset(self, subject: LimitId) -> bool:
        return self._states.reset(subject)
