"""What subjects have taken of their limits, in this process. Lost with it: a process begins with full buckets."""

from collections.abc import Callable, Sequence
from typing import Final

from proxy.core.limiting import LimitClaim, LimitId, LimitLease, LimitSettlement, LimitStanding, LimitStates, Taken

LEASE_MS: Final = 60_000


class MemoryLimits:
    """See `proxy.ports.LimitStore`. Never away. ``now_ms``: of a clock that is never set back."""

    def __init__(self, now_ms: Callable[[], int], *, lease_ms: int = LEASE_MS) -> None:
        self._now_ms = now_ms
        self._lease_ms = lease_ms
        self._states = LimitStates(lease_ms)
        self._workers: dict[str, int] = {}

    async def take(self, lease: LimitLease) -> Taken:
        return self._states.take(lease, self._now_ms())

    async def renew(self, leases: Sequence[LimitLease], worker: str) -> int:
        now_ms = self._now_ms()
        self._states.renew(leases, now_ms)
        self._workers = {one: until for one, until in self._workers.items() if until > now_ms}
        self._workers[worker] = now_ms + self._lease_ms
        return len(self._workers)

    async def settle(self, settlements: Sequence[LimitSettlement]) -> None:
        self._states.settle(settlements, self._now_ms())

    async def look(self, claims: Sequence[LimitClaim]) -> Sequence[LimitStanding]:
        return self._states.look(claims, self._now_ms())

    async def reset(self, subject: LimitId) -> bool:
        return self._states.reset(subject)
