"""Looks after what this worker has taken of limits, behind the exchanges' backs.

- *Settlements* go to the store at once, those of one turn of the loop together, so that a client's next request finds its
  slot free. What is not acknowledged waits here and is delivered again; the store counts each once. A backlog beyond
  `SETTLEMENTS_MAX` drops the oldest: their leases end by themselves.
- *Leases* are renewed when a third of their time has passed, and by the same call the workers count each other.
- *Away*: once the store has not answered nobody waits for it, until it has taken all settlements and leases here again. Then
  it knows what runs, and the local shares are given up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from proxy.core.limiting import LimitLease, LimitLeaseId, LimitSettlement
from proxy.ports import ExchangeLog, LimitStore, StoreAway

RETRY_S: Final = 0.25
SETTLEMENTS_MAX: Final = 50_000
SETTLEMENTS_A_TURN: Final = 500
CLOSE_S: Final = 0.5  # for the last settlements when the process ends; leases end by themselves


class LimitKeeper:
    """One per worker. ``on_away`` and ``on_back`` are called as the store goes away and comes back."""

    def __init__(
        self,
        store: LimitStore,
        *,
        log: ExchangeLog,
        worker: str,
        lease_s: float,
        on_away: Callable[[], None],
        on_back: Callable[[], None],
    ) -> None:
        self._store = store
        self._log = log
        self._worker = worker
        self._renew_every_s = lease_s / 3
        self._on_away = on_away
        self._on_back = on_back
        self._leases: dict[
            LimitLeaseId, tuple[LimitLease, float]
        ] = {}  # and when it was last kept, by the loop's clock
        self._fresh: list[LimitSettlement] = []  # of this turn of the loop
        self._waiting: deque[LimitSettlement] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._to_do = asyncio.Event()
        self._renewed_at = float("-inf")
        self.away = ""  # why the store was away when it was last asked; empty where it answered
        self.workers = 1  # as last heard of

    # What the phases call; none of it waits.

    def keep(self, lease: LimitLease) -> None:
        """Renew this lease until it is settled."""
        self._leases[lease.id] = (lease, asyncio.get_running_loop().time())

    def drop(self, lease_id: LimitLeaseId) -> bool:
        """Renew it no more; False where it is settled already."""
        return self._leases.pop(lease_id, None) is not None

    def settle(self, settlement: LimitSettlement) -> None:
        """Deliver it, at once where the store is there."""
        if self.away:
            self._queue(settlement)
            return
        self._fresh.append(settlement)
        if len(self._fresh) == 1:
            task = asyncio.get_running_loop().create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def running(self) -> tuple[LimitLease, ...]:
        return tuple(lease for lease, _ in self._leases.values())

    def store_away(self, why: StoreAway) -> None:
        if not self.away:
            self.away = str(why) or "away"
            self._log.event("limit store away: each worker goes by its own share", why=self.away, workers=self.workers)
            self._on_away()
        self._to_do.set()

    @property
    def kept(self) -> int:
        return len(self._leases)

    @property
    def undelivered(self) -> int:
        return len(self._fresh) + len(self._waiting) + len(self._sending)

    # Its tasks.

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not await self._turn():
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(TimeoutError):  # then it is time to look at the leases
                async with asyncio.timeout(self._renew_every_s / 2):
                    await self._to_do.wait()

    async def flush(self) -> None:
        """Deliver what is left, within `CLOSE_S`."""
        if self._sending:
            await asyncio.wait(tuple(self._sending), timeout=CLOSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._settle()

    async def _send(self) -> None:
        batch, self._fresh = self._fresh, []
        try:
            await self._store.settle(batch)
        except StoreAway as why:
            self._waiting.extend(batch)
            self.store_away(why)
        except asyncio.CancelledError:
            self._waiting.extend(batch)
            raise

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("limits", error)

    def _queue(self, settlement: LimitSettlement) -> None:
        if len(self._waiting) >= SETTLEMENTS_MAX:
            self._waiting.popleft()
        self._waiting.append(settlement)

    async def _turn(self) -> bool:
        """One round of everything; False where the store is away, and it is to be tried again soon."""
        self._to_do.clear()
        if not (await self._settle() and await self._renew(every_s=0.0 if self.away else self._renew_every_s)):
            return False
        if self.away:
            self.away = ""
            self._log.event("limit store back", workers=self.workers)
            self._on_back()
            return await self._renew(every_s=0.0)  # what began by the local share meanwhile
        return True

    async def _settle(self) -> bool:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(SETTLEMENTS_A_TURN, len(self._waiting)))]
            delivered = False
            try:
                await self._store.settle(batch)
                delivered = True
            except StoreAway as why:
                self.store_away(why)
                return False
            finally:
                if not delivered:
                    self._waiting.extendleft(reversed(batch))
        return True

    async def _renew(self, *, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        due: Sequence[LimitLease] = [lease for lease, kept_at in self._leases.values() if now - kept_at >= every_s]
        if not due and now - self._renewed_at < every_s:
            return True
        try:
            self.workers = await self._store.renew(due, self._worker)
        except StoreAway as why:
            self.store_away(why)
            return False
        self._renewed_at = now
        for lease in due:
            if lease.id in self._leases:
                self._leases[lease.id] = (lease, now)
        return True
