"""A worker's budgets in a test: the ledger, the clock, the events and the alerts beside it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from proxy.core.budget import PROXY, AlertLevel, Audit, Book, BudgetLease, PayerId, Refused, Settlement, Standing
from proxy.core.budget_words import BudgetAlert
from proxy.core.payer import Limit, Payer
from proxy.core.window import Period, window_at
from proxy.phases.budgets import Budgets, Hold
from proxy.ports import Away, BudgetStore, Reservation, StoreAway, Unseeded
from proxy.terms import ExchangeId, NanoUsd
from tests.gateway import RecordingLog
from tests.ledger import FakeLedger
from tests.stopwatch import Stopwatch

UTC = ZoneInfo("UTC")


class Shielded:
    """A store before which a test puts its faults. ``calls``: what was asked; ``away``: every call is; ``deaf``: these
    operations are carried out and not acknowledged."""

    def __init__(self, store: BudgetStore) -> None:
        self._store = store
        self.calls: list[str] = []
        self.away = False
        self.deaf: set[str] = set()

    async def _do(self, name: str, *args: Any) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.away:
            raise StoreAway("switched off by the test")
        answer = await getattr(self._store, name)(*args)
        await asyncio.sleep(0)
        if name in self.deaf:
            raise StoreAway("the acknowledgement was lost")
        return answer

    async def reserve(self, lease: BudgetLease, worker: str) -> Reservation | Unseeded:
        return await self._do("reserve", lease, worker)  # type: ignore[no-any-return] # as the store answers

    async def renew(self, leases: Sequence[BudgetLease]) -> frozenset[Book]:
        return await self._do("renew", leases)  # type: ignore[no-any-return]

    async def settle(self, settlements: Sequence[Settlement]) -> Mapping[Book, Standing]:
        return await self._do("settle", settlements)  # type: ignore[no-any-return]

    async def seed(self, book: Book, spent: NanoUsd, mark_ms: int) -> Standing:
        return await self._do("seed", book, spent, mark_ms)  # type: ignore[no-any-return]

    async def look(self, books: Sequence[Book]) -> Mapping[Book, Standing]:
        return await self._do("look", books)  # type: ignore[no-any-return]

    async def audit(self, book: Book, apart_ms: int) -> Audit | None:
        return await self._do("audit", book, apart_ms)  # type: ignore[no-any-return]

    async def repair(self, book: Book, number: int, missing: NanoUsd, mark_ms: int) -> bool:
        return await self._do("repair", book, number, missing, mark_ms)  # type: ignore[no-any-return]

    async def alert(self, book: Book, level: AlertLevel, worker: str) -> bool:
        return await self._do("alert", book, level, worker)  # type: ignore[no-any-return]


@dataclass
class Worker:
    """One worker. An exchange that it ends is in the ledger from that moment, unless `unledgered`."""

    store: BudgetStore
    payers: tuple[Payer, ...]
    ledger: FakeLedger = field(default_factory=FakeLedger)
    wall: Callable[[], float] = time.time
    name: str = "w1"
    lease_s: float = 60.0
    log: RecordingLog = field(default_factory=RecordingLog)
    alerts: list[BudgetAlert] = field(default_factory=list)
    budgets: Budgets = field(init=False)

    def __post_init__(self) -> None:
        self.budgets = Budgets(
            self.store,
            self.ledger,
            on_alert=self.alerts.append,
            log=self.log,
            wall=self.wall,
            worker=self.name,
            lease_s=self.lease_s,
        )

    async def reserve(self, exchange: str, amount: int, at: float | None = None) -> Hold | Refused | Away:
        now = self.wall() if at is None else at
        return await self.budgets.reserve(ExchangeId(exchange), self.payers, NanoUsd(amount), int(now * 1000))

    async def held(self, exchange: str, amount: int, at: float | None = None) -> Hold:
        answer = await self.reserve(exchange, amount, at)
        assert isinstance(answer, Hold), answer
        return answer

    def end(self, hold: Hold, actual: int) -> None:
        """As `settle` does it: the ledger's row, then the budget."""
        assert hold.lease is not None
        subjects = {claim.book.subject for claim in hold.lease.claims}
        self.ledger.append(hold.lease.exchange_id, subjects, hold.lease.admitted_ms / 1000, actual)
        self.budgets.settle(hold, actual)

    async def spend(self, exchange: str, amount: int, actual: int | None = None) -> None:
        self.end(await self.held(exchange, amount), amount if actual is None else actual)

    def book(self, period: Period = Period.DAILY, subject: PayerId = PROXY) -> Book:
        return Book(subject, window_at(period, UTC, self.wall()))

    async def sums(self, book: Book | None = None) -> tuple[int, int]:
        """Spent and held of a book, as the store has it."""
        asked = self.book() if book is None else book
        standings = await self.store.look([asked])
        return standings[asked].spent_nanousd, standings[asked].held_nanousd

    async def until(self, spent: int, held: int, book: Book | None = None, *, within_s: float = 5.0) -> float:
        """Wait until a book stands so. Returns how long it took."""
        asked = self.book() if book is None else book
        watch = Stopwatch.patient()
        while True:
            found = None
            with suppress(StoreAway):
                found = (await self.store.look([asked])).get(asked)
            if found is not None and (found.spent_nanousd, found.held_nanousd) == (spent, held):
                return watch.spent_s
            assert not watch.is_over(within_s), f"expected {spent} and {held}, got {found}"
            await asyncio.sleep(0.005)


def payer(subject: PayerId = PROXY, *, closed: bool = False, **caps: int) -> Payer:
    """``daily`` and ``monthly`` in nano-USD; somebody is told at four fifths."""
    limits = tuple(Limit(Period(period), NanoUsd(cap), NanoUsd(cap * 4 // 5)) for period, cap in caps.items())
    return Payer(subject, limits, UTC, closed)
