"""Budgets, as the phases use them: reserve before anything is sent, settle when it is over.

One store call an admission, none where nobody who pays has a limit. When the store is away, a worker admits from its own
slice of what was left (`proxy.core.local_slice`), or nothing where the budget asks for that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from proxy.core.budget import (
    MONEY_MAX,
    AlertLevel,
    Book,
    BudgetLease,
    Claim,
    Refused,
    Settlement,
    Standing,
    level_of,
    refused,
)
from proxy.core.local_slice import LocalSlices
from proxy.core.payer import Limit, Payer
from proxy.core.window import window_at
from proxy.phases.budget_audit import AUDIT_SOON_S, BudgetAudit
from proxy.phases.budget_books import KnownBook, KnownBooks
from proxy.phases.budget_keeper import BudgetKeeper
from proxy.ports import AlertSink, Away, BudgetStore, ExchangeLog, Reservation, SpendSource, StoreAway, Unseeded
from proxy.terms import ExchangeId, NanoUsd

LEASE_S: Final = 60.0
# How long an admission waits for a book to be made from the ledger, once a window or after a loss: 0.25 s, in turns of the
# loop, so that a loop which was busy with a crowd does not take its own pause for the ledger's.
SEED_TURN_S: Final = 0.01
SEED_TURNS: Final = 25
SEEDED_S: Final = SEED_TURN_S * SEED_TURNS
HEALING_S: Final = 0.03  # after a state was lost: what still runs is held again before anything new is admitted
AFTER_BUG_S: Final = 1.0
CLAIMS_MAX: Final = 10_000  # sets of payers whose windows are kept in mind

_Run = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Hold:
    """What was reserved for one exchange; ``lease`` None: nothing had to be. Owned by the exchange, ended by `settle`.

    ``local``: out of this worker's slice, because the store was away.
    """

    lease: BudgetLease | None = None
    local: bool = False


FREE: Final = Hold()


class _Claims(NamedTuple):
    """The claims of a set of payers, good until the first of their windows is over."""

    until: int
    claims: tuple[Claim, ...]
    limits: tuple[Limit, ...]
    closed: bool


class Budgets:
    """One per worker and event loop. `start` it before the first exchange, `close` it after the last."""

    def __init__(
        self,
        store: BudgetStore,
        spends: SpendSource,
        *,
        on_alert: AlertSink,
        log: ExchangeLog,
        wall: Callable[[], float],
        worker: str,
        lease_s: float = LEASE_S,
    ) -> None:
        """``worker`` is unique among those that share the store; ``lease_s`` is what the store was made with."""
        self._store = store
        self._wall = wall
        self._worker = worker
        self._log = log
        self._books = KnownBooks()
        self._slices = LocalSlices()
        self._audit = BudgetAudit(store, spends, self._books, self._slices, wall=wall, log=log)
        self._keeper = BudgetKeeper(
            store, self._books, self._audit, on_alert=on_alert, wall=wall, log=log, worker=worker, lease_s=lease_s
        )
        self._claims: dict[tuple[Payer, ...], _Claims] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    def start(self) -> None:
        self._started = True
        self._start_task(self._keeper.run)
        self._start_task(self._audit.run)

    async def close(self) -> None:
        """Deliver what was settled, as far as the store is there; the ledger has it in any case."""
        self._started = False
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._audit.close()
        await self._keeper.flush()

    # Admission.

    async def reserve(
        self, exchange_id: ExchangeId, payers: tuple[Payer, ...], amount: NanoUsd, admitted_ms: int
    ) -> Hold | Refused | Away:
        """Hold the worst case of an exchange in every book of its payers, or in none.

        Units: nano-USD; ``admitted_ms``: when the exchange was admitted, in Unix milliseconds, the same that its ledger row
        gets: it decides the windows. Again for the same exchange (a dearer target): the amount is changed. Errors: `Away`
        where the store is away and this worker may not admit by itself, which the client is told as `budget_unavailable`.
        """
        if not payers or amount <= 0:
            return FREE
        found = self._claims_of(payers, admitted_ms / 1000)
        if not found.claims:
            return FREE
        amount = min(amount, MONEY_MAX)
        lease = BudgetLease(exchange_id, found.claims, amount, admitted_ms)
        audit_at = asyncio.get_running_loop().time() + AUDIT_SOON_S
        for claim, limit in zip(found.claims, found.limits, strict=True):
            self._books.claimed(claim, limit, audit_at)
        try:
            answer = await self._ask(lease)
            if isinstance(answer, Away):
                return self._kept(lease, await self._alone(lease, answer, closed=found.closed), local=True)
        except asyncio.CancelledError:
            self._give_back(lease)
            raise
        return self._kept(lease, self._told(lease, answer), local=False)

    def settle(self, hold: Hold, actual: int) -> None:
        """Book what an exchange cost, and give back what it held. Once; waits for nothing, and cannot fail."""
        lease = hold.lease
        if lease is None:
            return
        settlement = Settlement(lease.exchange_id, _books_of(lease), NanoUsd(min(max(actual, 0), MONEY_MAX)))
        if self._keeper.settle(settlement):
            self._slices.settle(settlement.exchange_id, settlement.books, settlement.actual_nanousd)

    def release(self, hold: Hold) -> None:
        """Nothing was used."""
        self.settle(hold, 0)

    async def _ask(self, lease: BudgetLease) -> Reservation | Away:
        """One store call; more only where a book has no state, once a window or after a loss."""
        try:
            answer = await self._store.reserve(lease, self._worker)
            return await self._ask_again(lease, answer) if isinstance(answer, Unseeded) else answer
        except StoreAway as why:
            self._keeper.store_away(why)
            return Away(str(why))

    async def _ask_again(self, lease: BudgetLease, answer: Unseeded) -> Reservation | Away:
        turns = iter(range(SEED_TURNS))
        lost = any(self._was_heard_of(book) for book in (*answer.mine, *answer.others))
        while True:
            away = await self._until_seeded(answer, turns)
            if away is not None:
                return away
            if lost:
                self._keeper.renew_all()
                await asyncio.sleep(HEALING_S)
            found = await self._store.reserve(lease, self._worker)
            if not isinstance(found, Unseeded):
                return found
            answer = found

    async def _until_seeded(self, missing: Unseeded, turns: Iterator[int]) -> Away | None:
        """Wait until books have a state, or may have one; `Away` where they will not before the turns are over."""
        tasks = [self._audit.seed(book) for book in missing.mine]
        others = (self._audit.being_seeded(book) for book in missing.others)
        tasks += [task for task in others if task is not None]
        for _ in turns:
            if not tasks:
                await asyncio.sleep(SEED_TURN_S)
                return None
            done, pending = await asyncio.wait(tasks, timeout=SEED_TURN_S)
            away = next(
                (task.result() for task in done if task.exception() is None and task.result() is not None), None
            )
            if away is not None or not pending:
                return away
        return Away("the books are being counted from the ledger")

    def _was_heard_of(self, book: Book) -> bool:
        known = self._books.get(book)
        return known is not None and known.standing is not None and bool(known.standing.epoch)

    def _told(self, lease: BudgetLease, answer: Reservation) -> Refused | bool:
        index = answer.refused
        if index is None and not self._keeper.away and self._books.noted(lease.claims, answer.standings):
            return True
        books = _books_of(lease)
        self._keeper.heard(dict(zip(books, answer.standings, strict=True)))
        if index is None:
            return True
        standing = answer.standings[index]
        self._keeper.heard({books[index]: standing}, lease.amount_nanousd)
        return refused(lease.claims[index], standing, lease.amount_nanousd)

    async def _alone(self, lease: BudgetLease, away: Away, *, closed: bool) -> Refused | bool | Away:
        """Without the store: out of the slices, by what was last heard of each book, or else by what the ledger says."""
        if closed:
            return away
        known: list[Standing] = []
        for claim in lease.claims:
            standing = await self._last_heard(claim.book)
            if isinstance(standing, Away):
                return standing
            known.append(standing)
        return self._slices.reserve(lease, known) or away

    async def _last_heard(self, book: Book) -> Standing | Away:
        known = self._books.get(book)
        if known is not None and known.standing is not None:
            return known.standing
        try:
            async with asyncio.timeout(SEEDED_S):
                spent = await self._audit.spent(book)
        except TimeoutError:
            return Away("neither the store nor the ledger answers")
        if isinstance(spent, Away):
            return spent
        standing = Standing(spent, NanoUsd(0), "")
        if known is not None and known.standing is None:
            known.standing = standing
        return standing

    def _kept(self, lease: BudgetLease, answer: Refused | bool | Away, *, local: bool) -> Hold | Refused | Away:
        if answer is True:
            self._keeper.keep(lease)
            return Hold(lease, local)
        if local:
            self._give_back(lease)
        assert not isinstance(answer, bool)  # noqa: S101 - no room in a slice is `Away`
        return answer

    def _give_back(self, lease: BudgetLease) -> None:
        """The store may have done what it did not acknowledge. What the exchange held before is kept."""
        if not self._keeper.keeps(lease.exchange_id):
            self._keeper.deliver(_release(lease))

    def _claims_of(self, payers: tuple[Payer, ...], now: float) -> _Claims:
        found = self._claims.get(payers)
        if (
            found is not None
            and now < found.until
            and all(claim.book.window.starts_at <= now for claim in found.claims)
        ):
            return found
        if len(self._claims) >= CLAIMS_MAX:
            self._claims.clear()
        pairs = [
            (Claim(Book(payer.subject, window_at(limit.period, payer.zone, now)), limit.cap_nanousd), limit)
            for payer in payers
            for limit in payer.limits
        ]
        found = self._claims[payers] = _Claims(
            min((claim.book.window.resets_at for claim, _ in pairs), default=2**62),
            tuple(claim for claim, _ in pairs),
            tuple(limit for _, limit in pairs),
            any(payer.closed_when_away for payer in payers),
        )
        return found

    # What there is to see.

    async def snapshot(self, payers: tuple[Payer, ...], now: float) -> list[dict[str, Any]]:
        """Every book of these payers, for /admin/budgets. Units: nano-USD, Unix seconds.

        Shapes: ``seen`` says where the figures come from: `store`; `memory` (the store is away: as last heard of); `ledger`
        (neither: what is held is not known). Figures are None where even the ledger is away. ``slice_left_nanousd`` is what
        this worker may still admit by itself, None where it does not.
        """
        found = self._claims_of(payers, now)
        standings: Mapping[Book, Standing] | None = None
        try:
            standings = await self._store.look([claim.book for claim in found.claims])
            self._keeper.heard(standings)
        except StoreAway as why:
            self._keeper.store_away(why)
        rows: list[dict[str, Any]] = []
        counts = True  # whether the ledger is worth asking: where it is away, one book waits for it and no more
        for claim, limit in zip(found.claims, found.limits, strict=True):
            rows.append(await self._row(claim, limit, standings, counts=counts))
            counts = counts and rows[-1]["spent_nanousd"] is not None
        return rows

    async def _row(
        self, claim: Claim, limit: Limit, standings: Mapping[Book, Standing] | None, *, counts: bool
    ) -> dict[str, Any]:
        known = self._books.get(claim.book)
        seen, standing = await self._seen(claim.book, known, standings, counts=counts)
        row: dict[str, Any] = {
            "subject": claim.book.subject,
            "period": limit.period.value,
            "window": claim.book.window.id,
            "resets_at": claim.book.window.resets_at,
            "cap_nanousd": claim.cap_nanousd,
            "alert_nanousd": limit.alert_nanousd,
            "seen": seen,
            "slice_left_nanousd": self._slices.left(claim.book),
        }
        if standing is None:
            return row | dict.fromkeys(("spent_nanousd", "held_nanousd", "left_nanousd", "alert"))
        spent, held = standing.spent_nanousd, standing.held_nanousd
        alerted = max(standing.alerted, level_of(standing, claim.cap_nanousd, limit.alert_nanousd))
        return row | {
            "spent_nanousd": spent,
            "held_nanousd": held,
            "left_nanousd": max(0, claim.cap_nanousd - spent - held),
            "alert": alerted.name.lower(),
        }

    async def _seen(
        self, book: Book, known: KnownBook | None, standings: Mapping[Book, Standing] | None, *, counts: bool
    ) -> tuple[str, Standing | None]:
        if standings is not None and book in standings:
            return "store", standings[book]
        if standings is None and known is not None and known.standing is not None:
            return "memory", known.standing
        spent = await self._audit.spent(book) if counts else Away("the ledger did not answer")
        return "ledger", None if isinstance(spent, Away) else Standing(spent, NanoUsd(0), "", AlertLevel.NONE)

    async def left(self, payers: tuple[Payer, ...], now: float, most: int) -> list[tuple[str, str, int]]:
        """Of at most `most` books of these payers the subject, the period and what is left, for metrics.

        One store call, and the ledger is not asked: a book in which nothing was reserved is left out. Where the store is
        away, as last heard. Units: nano-USD.
        """
        found = self._claims_of(payers, now)
        pairs = list(zip(found.claims, found.limits, strict=True))[:most]
        try:
            standings = await self._store.look([claim.book for claim, _ in pairs])
            self._keeper.heard(standings)
        except StoreAway as why:
            self._keeper.store_away(why)
            heard = {claim.book: self._books.get(claim.book) for claim, _ in pairs}
            standings = {
                book: one.standing for book, one in heard.items() if one is not None and one.standing is not None
            }
        lefts = []
        for claim, limit in pairs:
            standing = standings.get(claim.book)
            if standing is not None:
                left = claim.cap_nanousd - standing.spent_nanousd - standing.held_nanousd
                lefts.append((str(claim.book.subject), limit.period.value, max(0, left)))
        return lefts

    @property
    def away(self) -> str:
        """Why the store was away when it was last asked, for /health; empty where it answered."""
        return self._keeper.away

    @property
    def undelivered(self) -> int:
        """Settlements that wait for the store, for metrics."""
        return self._keeper.undelivered

    @property
    def kept(self) -> int:
        """Exchanges that hold something, for metrics."""
        return self._keeper.kept

    # Its tasks.

    def _start_task(self, run: _Run) -> None:
        if self._started:
            task = asyncio.create_task(run())
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, run))

    def _ended(self, run: _Run, task: "asyncio.Task[None]") -> None:
        """A task that looks after the books ends only when it is cancelled: otherwise that is a bug, and it begins again."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("budgets", error)
            asyncio.get_running_loop().call_later(AFTER_BUG_S, self._start_task, run)


def _books_of(lease: BudgetLease) -> tuple[Book, ...]:
    return tuple([claim.book for claim in lease.claims])


def _release(lease: BudgetLease) -> Settlement:
    return Settlement(lease.exchange_id, _books_of(lease), NanoUsd(0))
