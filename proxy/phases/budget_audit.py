"""The books beside the ledger: makes those that have no state, and repairs those that lost something.

- *Seeding*: a book without a state gets what the ledger says was spent. One worker is told by the store to do it, and in
  it one task; whoever else needs the book waits for that task, or asks again.
- *Audits*: every `AUDIT_EVERY_S` each live book is compared with the ledger, by one of the workers; twice within seconds
  where something may be lost: after the store was away, and when a state was made again.
"""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from proxy.core.budget import Audit, Book
from proxy.core.local_slice import LocalSlices
from proxy.phases.budget_books import AUDITS_AFTER, KnownBook, KnownBooks
from proxy.ports import Away, BudgetStore, ExchangeLog, SpendSource, StoreAway
from proxy.terms import ExchangeId, NanoUsd

AUDIT_EVERY_S: Final = 20.0
AUDIT_SOON_S: Final = (
    2.0  # between the two audits of a book that may have lost something: the ledger's rows are there by then
)
LOOK_EVERY_S: Final = 0.5
LEDGER_S: Final = 5.0  # for one sum; a reservation does not wait so long


class BudgetAudit:
    """One per worker."""

    def __init__(
        self,
        store: BudgetStore,
        spends: SpendSource,
        books: KnownBooks,
        slices: LocalSlices,
        *,
        wall: Callable[[], float],
        log: ExchangeLog,
    ) -> None:
        self._store = store
        self._spends = spends
        self._books = books
        self._slices = slices
        self._wall = wall
        self._log = log
        self._seeding: dict[Book, asyncio.Task[Away | None]] = {}

    # Seeding.

    def seed(self, book: Book) -> "asyncio.Task[Away | None]":
        """The task that makes the state of a book: a new one, or the one that is at it."""
        task = self._seeding.get(book)
        if task is None:
            task = self._seeding[book] = asyncio.create_task(self._seed(book))
            task.add_done_callback(partial(self._seeded, book))
        return task

    def _seeded(self, book: Book, task: "asyncio.Task[Away | None]") -> None:
        self._seeding.pop(book, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug(f"seeding {_named(book)}", error)

    def being_seeded(self, book: Book) -> "asyncio.Task[Away | None] | None":
        return self._seeding.get(book)

    async def spent(self, book: Book) -> NanoUsd | Away:
        """What the ledger says of a book now."""
        return await self._ask_ledger(book, self._now_ms())

    async def _seed(self, book: Book) -> Away | None:
        mark_ms = self._now_ms()
        spent = await self._ask_ledger(book, mark_ms)
        if isinstance(spent, Away):
            self._log.event("budget not counted: the ledger is away", book=_named(book), why=spent.detail)
            return spent
        try:
            await self._store.seed(book, spent, mark_ms)
        except StoreAway as why:
            return Away(str(why))
        self.hurry(book)
        return None

    async def _ask_ledger(self, book: Book, before_ms: int, without: Collection[ExchangeId] = ()) -> NanoUsd | Away:
        try:
            async with asyncio.timeout(LEDGER_S):
                return await self._spends.spent(book.subject, book.window, before_ms, without)
        except TimeoutError:
            return Away(f"the ledger did not answer within {LEDGER_S:.0f} s")

    async def close(self) -> None:
        tasks = tuple(self._seeding.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Audits.

    def hurry(self, book: Book) -> None:
        """Something may be missing from this book: audit it now, and again when the ledger is sure to have it."""
        known = self._books.get(book)
        if known is not None:
            known.audit_at, known.audits_soon = 0.0, 2

    def hurry_all(self) -> None:
        for known in self._books:
            self.hurry(known.claim.book)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._books.forget_past(self._wall())
            self._slices.forget_past(self._wall())
            now = asyncio.get_running_loop().time()
            for known in self._books:
                if now >= known.audit_at:
                    await self._audit(known, now)

    async def _audit(self, known: KnownBook, now: float) -> None:
        soon = known.audits_soon > 0
        known.audit_at = now + (AUDIT_SOON_S if soon else AUDIT_EVERY_S)
        if not soon and not known.audits_left:
            return
        known.audits_left = max(0, known.audits_left - 1)
        apart_ms = int((AUDIT_SOON_S if soon else AUDIT_EVERY_S) * 500)  # half, so that clocks may differ
        book = known.claim.book
        try:
            audit = await self._store.audit(book, apart_ms)
            if audit is not None and audit.open_ids:
                # What is open may be a dead worker's, whose cost comes by the ledger alone once its lease is over.
                known.audits_left = AUDITS_AFTER
            repaired = audit is not None and await self._repair(book, audit)
        except StoreAway:
            return  # when it is back there are two audits soon
        if repaired and soon:
            known.audits_soon -= 1
            if known.audits_soon == 0:
                self._slices.forget(book)

    async def _repair(self, book: Book, audit: Audit) -> bool:
        next_mark_ms = self._now_ms()
        spent = await self._ask_ledger(book, audit.mark_ms, audit.open_ids)
        if isinstance(spent, Away):
            return False
        missing = NanoUsd(max(0, spent - audit.spent_nanousd))
        repaired = await self._store.repair(book, audit.number, missing, max(next_mark_ms, audit.mark_ms))
        if missing and repaired:
            self._log.event("budget repaired from the ledger", book=_named(book), missing_nanousd=missing)
        return repaired

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)


def _named(book: Book) -> str:
    return f"{book.subject} {book.window.id}"
