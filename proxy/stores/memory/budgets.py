"""The books in this process. They are lost with it, and made again from the ledger when it starts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from proxy.core import budget
from proxy.core.budget import KEPT_AFTER_S, AlertLevel, Audit, Book, Budget, BudgetLease, Settlement, Standing, money
from proxy.ports import SEEDING_MS, Reservation, Unseeded
from proxy.terms import NanoUsd

LEASE_MS: Final = 60_000


class MemoryBudgets:
    """See `proxy.ports.BudgetStore`. Never away. ``now_ms``: Unix milliseconds."""

    def __init__(self, now_ms: Callable[[], int], *, lease_ms: int = LEASE_MS) -> None:
        self._now_ms = now_ms
        self._lease_ms = lease_ms
        self._budgets: dict[Book, Budget] = {}
        self._seeding: dict[Book, int] = {}  # until when somebody is at it

    async def reserve(self, lease: BudgetLease, worker: str) -> Reservation | Unseeded:  # noqa: ARG002 - there is but one
        _check(lease)
        now_ms = self._now_ms()
        found = [self._at(claim.book, now_ms) for claim in lease.claims]
        budgets = [one for one in found if one is not None]
        if len(budgets) < len(found):
            missing = [claim.book for claim, one in zip(lease.claims, found, strict=True) if one is None]
            return self._unseeded(missing, now_ms)
        refused = budget.reserve(
            [(one, claim.cap_nanousd) for one, claim in zip(budgets, lease.claims, strict=True)],
            lease.exchange_id,
            lease.amount_nanousd,
            lease.admitted_ms,
            now_ms + self._lease_ms,
        )
        return Reservation(tuple(one.standing() for one in budgets), refused)

    async def renew(self, leases: Sequence[BudgetLease]) -> frozenset[Book]:
        now_ms = self._now_ms()
        missing = set()
        for lease in leases:
            _check(lease)
            for claim in lease.claims:
                found = self._at(claim.book, now_ms)
                if found is None:
                    missing.add(claim.book)
                else:
                    found.renew(lease, claim.cap_nanousd, now_ms, now_ms + self._lease_ms)
        return frozenset(missing)

    async def settle(self, settlements: Sequence[Settlement]) -> Mapping[Book, Standing]:
        now_ms = self._now_ms()
        settled: dict[Book, Budget] = {}
        for settlement in settlements:
            actual = money(settlement.actual_nanousd)
            for book in settlement.books:
                found = self._at(book, now_ms)
                if found is not None:
                    found.settle(settlement.exchange_id, actual)
                    settled[book] = found
        return {book: one.standing() for book, one in settled.items()}

    async def seed(self, book: Book, spent: NanoUsd, mark_ms: int) -> Standing:
        money(spent)
        now_ms = self._now_ms()
        self._forget_past(now_ms)
        self._seeding.pop(book, None)
        found = self._at(book, now_ms)
        if found is None:
            found = self._budgets[book] = budget.seeded(spent, mark_ms, uuid4().hex)
        return found.standing()

    async def look(self, books: Sequence[Book]) -> Mapping[Book, Standing]:
        now_ms = self._now_ms()
        found = {book: self._at(book, now_ms) for book in books}
        return {book: one.standing() for book, one in found.items() if one is not None}

    async def audit(self, book: Book, apart_ms: int) -> Audit | None:
        now_ms = self._now_ms()
        found = self._at(book, now_ms)
        return None if found is None else found.audit(now_ms, apart_ms)

    async def repair(self, book: Book, number: int, missing: NanoUsd, mark_ms: int) -> bool:
        money(missing)
        found = self._at(book, self._now_ms())
        return found is not None and found.repair(number, missing, mark_ms)

    async def alert(self, book: Book, level: AlertLevel, worker: str) -> bool:
        found = self._at(book, self._now_ms())
        return found is not None and found.alert(level, worker)

    def _at(self, book: Book, now_ms: int) -> Budget | None:
        found = self._budgets.get(book)
        if found is not None:
            found.expire(now_ms)
        return found

    def _unseeded(self, missing: Sequence[Book], now_ms: int) -> Unseeded:
        mine = tuple(book for book in missing if self._seeding.get(book, 0) <= now_ms)
        self._seeding.update((book, now_ms + SEEDING_MS) for book in mine)
        return Unseeded(mine, tuple(book for book in missing if book not in mine))

    def _forget_past(self, now_ms: int) -> None:
        """Bounds the books: a new one comes with each window, and each time the old ones go."""
        for kept in (self._budgets, self._seeding):
            for book in [one for one in kept if now_ms >= (one.window.resets_at + KEPT_AFTER_S) * 1000]:
                del kept[book]


def _check(lease: BudgetLease) -> None:
    money(lease.amount_nanousd)
    for claim in lease.claims:
        money(claim.cap_nanousd)
