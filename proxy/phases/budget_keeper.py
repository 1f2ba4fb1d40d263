"""Looks after what this worker holds, behind the exchanges' backs: one task and one timer for all of them.

- *Settlements* are delivered to the store in the order in which they were made, again until it has acknowledged them: it
  counts each once. While it is away they wait here; a backlog beyond `SETTLEMENTS_MAX` drops the oldest, whose costs then
  reach the books from the ledger.
- What was delivered in the last `AGAIN_S` is delivered once more after the store was away: a replica that took over may not
  have heard of it, and counts it then; any other store takes no notice.
- *Leases* are renewed when a third of their time has passed. An exchange that is settled is renewed no more, and its
  settlement is delivered after any renewal that is under way.
- *Alerts* that are due are claimed in the store, so that one of the workers tells of each, once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from proxy.core.budget import AlertLevel, Book, BudgetLease, Settlement, Standing
from proxy.phases.budget_audit import BudgetAudit
from proxy.phases.budget_books import KnownBook, KnownBooks
from proxy.ports import AlertSink, Away, BudgetStore, ExchangeLog, StoreAway
from proxy.terms import ExchangeId

RETRY_S: Final = 0.25
SETTLEMENTS_MAX: Final = 50_000
SETTLEMENTS_A_TURN: Final = 200
AGAIN_S: Final = 5.0
AGAIN_MAX: Final = 5_000
CLOSE_S: Final = 1.0  # for the last settlements when the process ends; the ledger has what is not delivered


class BudgetKeeper:
    """One per worker."""

    def __init__(
        self,
        store: BudgetStore,
        books: KnownBooks,
        audit: BudgetAudit,
        *,
        on_alert: AlertSink,
        wall: Callable[[], float],
        log: ExchangeLog,
        worker: str,
        lease_s: float,
    ) -> None:
        self._store = store
        self._books = books
        self._audit = audit
        self._on_alert = on_alert
        self._wall = wall
        self._log = log
        self._worker = worker
        self._renew_every_s = lease_s / 3
        self._leases: dict[ExchangeId, tuple[BudgetLease, float]] = {}  # and when it was last kept, by the loop's clock
        self._settlements: deque[Settlement] = deque()
        self._delivered: deque[tuple[float, Settlement]] = deque(maxlen=AGAIN_MAX)
        self._under_way = 0
        self._dropped = 0
        self._to_do = asyncio.Event()
        self._look_at = 0.0  # when leases are looked through again, by the loop's clock
        self._untold = False
        self._away = ""
        self._all_due = False

    # What the phases call; none of it waits.

    def keep(self, lease: BudgetLease) -> None:
        """Renew this lease until it is settled."""
        self._leases[lease.exchange_id] = (lease, asyncio.get_running_loop().time())

    def renew_all(self) -> None:
        """Every lease is due now."""
        self._all_due = True
        self._to_do.set()

    def keeps(self, exchange_id: ExchangeId) -> bool:
        return exchange_id in self._leases

    def settle(self, settlement: Settlement) -> bool:
        """False where it is settled already."""
        if self._leases.pop(settlement.exchange_id, None) is None:
            return False
        self.deliver(settlement)
        return True

    def deliver(self, settlement: Settlement) -> None:
        if len(self._settlements) >= SETTLEMENTS_MAX:
            self._settlements.popleft()
            self._dropped += 1
        self._settlements.append(settlement)
        self._to_do.set()

    def heard(self, standings: Mapping[Book, Standing], refused_amount: int | None = None) -> None:
        """Take note of how books stand, and do what follows from it."""
        self.store_answered()
        for book, standing in standings.items():
            if self._books.heard(book, standing, refused_amount):
                self._log.event("budget counted anew from the ledger", book=f"{book.subject} {book.window.id}")
                self._audit.hurry(book)
                self._all_due = True
            known = self._books.get(book)
            if known is not None and known.to_tell > AlertLevel.NONE:
                self._untold = True
            if self._all_due or self._untold:
                self._to_do.set()

    def store_away(self, why: StoreAway) -> None:
        if not self._away:
            self._log.event("budget store away", why=str(why))
        self._away = str(why) or "away"

    def store_answered(self) -> None:
        if self._away:
            self._away = ""
            self._log.event("budget store back")
            self._audit.hurry_all()
            self._all_due = True
            self._settlements.extendleft(settlement for _, settlement in reversed(self._delivered))
            self._delivered.clear()
            self._to_do.set()

    @property
    def away(self) -> str:
        """Why the store was away when it was last asked; empty where it answered."""
        return self._away

    @property
    def undelivered(self) -> int:
        return len(self._settlements) + self._under_way

    @property
    def kept(self) -> int:
        return len(self._leases)

    # The task.

    async def run(self) -> None:
        """Until cancelled."""
        looking = asyncio.get_running_loop().create_task(self._look())
        try:
            while True:
                await self._to_do.wait()
                self._to_do.clear()
                if not await self._turn():
                    await asyncio.sleep(RETRY_S)
        finally:
            looking.cancel()

    async def _look(self) -> None:
        """Leases are due by time. One timer for them: one with every settlement would cost as much as the settlement."""
        while True:
            await asyncio.sleep(self._renew_every_s / 2)
            self._to_do.set()

    async def flush(self) -> None:
        """Deliver what is left, within `CLOSE_S`."""
        deadline = asyncio.get_running_loop().time() + CLOSE_S
        while self._settlements and asyncio.get_running_loop().time() < deadline:
            if not await self._settle():
                await asyncio.sleep(RETRY_S / 5)

    async def _turn(self) -> bool:
        """One round of everything; False where the store is away, and it is to be tried again soon."""
        if self._dropped:
            self._log.event("budget settlements dropped: the ledger has them", settlements=self._dropped)
            self._dropped = 0
        done = await self._renew() and await self._settle() and await self._tell()
        if self._settlements or not done:
            self._to_do.set()
        return done

    async def _settle(self) -> bool:
        batch = [self._settlements.popleft() for _ in range(min(SETTLEMENTS_A_TURN, len(self._settlements)))]
        if not batch:
            return True
        self._under_way = len(batch)
        standings: Mapping[Book, Standing] | None = None
        try:
            standings = await self._store.settle(batch)
        except StoreAway as why:
            self.store_away(why)
            return False
        finally:
            self._under_way = 0
            if standings is None:
                self._settlements.extendleft(reversed(batch))
        now = asyncio.get_running_loop().time()
        while self._delivered and now - self._delivered[0][0] > AGAIN_S:
            self._delivered.popleft()
        self._delivered.extend((now, settlement) for settlement in batch)
        self.heard(standings)
        return True

    async def _renew(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._look_at and not self._all_due:
            return True
        self._look_at = now + self._renew_every_s / 4
        every_s, self._all_due = 0.0 if self._all_due else self._renew_every_s, False
        due = [lease for lease, kept_at in self._leases.values() if now - kept_at >= every_s]
        if not due:
            return True
        try:
            missing = await self._store.renew(due)
        except StoreAway as why:
            self.store_away(why)
            return False
        self.store_answered()
        for lease in due:
            if lease.exchange_id in self._leases:
                self._leases[lease.exchange_id] = (lease, now)
        for book in missing:
            self._audit.seed(book).add_done_callback(self._seeded)
        return True

    def _seeded(self, task: "asyncio.Task[Away | None]") -> None:
        """What could not be kept for want of a state is kept as soon as there is one."""
        if not task.cancelled() and task.exception() is None and task.result() is None:
            self.renew_all()

    async def _tell(self) -> bool:
        if not self._untold:
            return True
        self._untold = False
        for known in self._books:
            for level in known.untold():
                if not await self._tell_of(known, level):
                    self._untold = True
                    return False
        return True

    async def _tell_of(self, known: KnownBook, level: AlertLevel) -> bool:
        standing = known.standing
        try:
            mine = await self._store.alert(known.claim.book, level, self._worker)
        except StoreAway as why:
            self.store_away(why)
            return False
        self.store_answered()
        known.told = level
        if level == known.to_tell:
            known.to_tell = AlertLevel.NONE
        if mine and standing is not None:
            self._on_alert(known.alert(level, standing, self._wall()))
        return True
