"""Limits, as the phases use them: take before anything begins, settle when it is over.

One store call for all subjects of an exchange, none where nobody is limited. While the store is away a worker goes by its
own share of each limit (`proxy.core.local_limits`), and asks nobody.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from proxy.core.limiting import (
    LimitClaim,
    Limited,
    LimitId,
    LimitLease,
    LimitSettlement,
    LimitStanding,
)
from proxy.core.local_limits import LocalLimits
from proxy.phases.limit_keeper import LimitKeeper
from proxy.ports import ExchangeLog, LimitStore, StoreAway

LEASE_S: Final = 60.0
AFTER_BUG_S: Final = 1.0


class Grant(NamedTuple):
    """What was taken of limits, ended by `Limiter.settle`; ``lease`` None: nothing of it has to be.

    ``claims`` and ``standings``: as of that moment. ``local``: as it was taken of this worker's share.
    """

    claims: tuple[LimitClaim, ...]
    standings: tuple[LimitStanding, ...]
    lease: LimitLease | None = None
    local: LimitLease | None = None


class LimitReached(NamedTuple):
    """Nothing was taken. ``claim`` has no room; ``wait_ms`` None: nobody knows until when, or it never will have.

    ``never``: more tokens are asked for than there may be in a minute.
    """

    claims: tuple[LimitClaim, ...]
    standings: tuple[LimitStanding, ...]
    claim: LimitClaim
    limited: Limited
    wait_ms: int | None

    @property
    def never(self) -> bool:
        return self.limited is Limited.TOKENS and self.wait_ms is None


class Limiter:
    """One per worker and event loop. `start` it before the first exchange, `close` it after the last."""

    def __init__(
        self,
        store: LimitStore,
        *,
        log: ExchangeLog,
        worker: str,
        lease_s: float = LEASE_S,
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        """``worker`` is unique among those that share the store; ``lease_s`` is what the store was made with."""
        self._store = store
        self._log = log
        self._now_ms = now_ms
        self._local = LocalLimits()
        self._keeper = LimitKeeper(
            store, log=log, worker=worker, lease_s=lease_s, on_away=self._went_away, on_back=self._local.end
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keeper.run())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Give back what is settled, as far as the store is there; leases end by themselves in any case."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._keeper.flush()

    async def take(self, lease: LimitLease) -> Grant | LimitReached:
        """Take what a lease says of all its subjects, or nothing."""
        if self._keeper.away:
            return self._alone(lease)
        try:
            taken = await self._store.take(lease)
        except StoreAway as why:
            self._keeper.store_away(why)
            self._give_back(lease)
            return self._alone(lease)
        except asyncio.CancelledError:
            self._give_back(lease)
            raise
        if taken.refused is not None and taken.limited is not None:
            claim = lease.claims[taken.refused]
            return LimitReached(lease.claims, taken.standings, claim, taken.limited, taken.wait_ms)
        return Grant(lease.claims, taken.standings, self._kept(lease))

    def settle(self, grant: Grant, tokens: int) -> None:
        """Give back what is left of a grant. Once; waits for nothing, and cannot fail. ``tokens``: as were used."""
        lease, local = grant.lease, grant.local
        if lease is None or not self._keeper.drop(lease.id):
            return
        # What was taken here the store never heard of; what was taken there is no part of what was used here.
        change = tokens if local is not None else tokens - lease.tokens
        if not self._local.empty:
            here = 0 if local is None else tokens - local.tokens
            self._local.settle(LimitSettlement(lease.id, lease.claims, here), self._now_ms())
        self._keeper.settle(LimitSettlement(lease.id, lease.claims, change))

    async def look(self, claims: Sequence[LimitClaim]) -> tuple[str, Sequence[LimitStanding]]:
        """How subjects stand, for operators, and where that is from: `store`, or `local` while it is away."""
        if not self._keeper.away:
            try:
                return "store", await self._store.look(claims)
            except StoreAway as why:
                self._keeper.store_away(why)
        return "local", self._local.look(claims, self._now_ms())

    async def reset(self, subject: LimitId) -> bool:
        """Forget what a subject has taken. Whether there was anything. Raises `StoreAway`."""
        self._local.reset(subject)
        return await self._store.reset(subject)

    @property
    def away(self) -> str:
        """Why the store was away when it was last asked, for /health; empty where it answered."""
        return self._keeper.away

    @property
    def workers(self) -> int:
        """How many there are, as last heard of."""
        return self._keeper.workers

    @property
    def kept(self) -> int:
        """Leases that run, for metrics."""
        return self._keeper.kept

    @property
    def undelivered(self) -> int:
        """Settlements that wait for the store, for metrics."""
        return self._keeper.undelivered

    def _alone(self, lease: LimitLease) -> Grant | LimitReached:
        shared = self._local.lease(lease)
        taken = self._local.take(shared, self._now_ms())
        if taken.refused is not None and taken.limited is not None:
            claim = shared.claims[taken.refused]
            return LimitReached(shared.claims, taken.standings, claim, taken.limited, taken.wait_ms)
        return Grant(shared.claims, taken.standings, self._kept(lease), shared)

    def _kept(self, lease: LimitLease) -> LimitLease | None:
        """None where the lease has nothing that has to be given back."""
        for claim in lease.claims:
            if claim.is_leased:
                self._keeper.keep(lease)
                return lease
        return None

    def _give_back(self, lease: LimitLease) -> None:
        """The store may have done what it did not acknowledge."""
        self._keeper.settle(LimitSettlement(lease.id, lease.claims, -lease.tokens))

    def _went_away(self) -> None:
        self._local.begin(self._keeper.running(), self._keeper.workers, self._now_ms())

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """The keeper ends only when it is cancelled: otherwise that is a bug, and it begins again."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._task is task:
            self._log.bug("limits", error)
            asyncio.get_running_loop().call_later(AFTER_BUG_S, self.start)
