"""Budgets: what one subject has spent in one window and what is held for exchanges that still run.

A *book* is one subject (an account, a virtual key, the whole proxy) in one window. `Budget` is the state of a book. An
exchange reserves its worst case in every book that it counts in, all or nothing, and is settled with its actual cost.

States of an exchange in a book, its `Entry`:

- *absent*: never reserved here, or settled already, or this state was lost and made again from the ledger;
- *held*: reserved, not yet used. Its amount counts against the cap until the lease ends;
- *lapsed*: the lease ended and the amount came back, but the exchange has not been settled.

Events: `reserve` (absent or lapsed -> held; on a held one it changes the amount), `renew` (any -> held, or lapsed where
there is no room any more), `expire` (held -> lapsed -> absent), `settle` (held or lapsed -> absent, and the cost is spent),
`audit` (lapsed -> absent, once it is older than the mark).

What holds, whatever the order of events:

- a reservation or a renewal never takes ``spent + held`` above the cap; a settlement may, because what was used is booked;
- an exchange is spent at most once: to settle an absent one changes nothing, so a settlement may be sent twice, late, or
  again when its acknowledgement was lost, and nothing has to be remembered of those that are over;
- ``spent`` never falls.

What was used by an exchange that is absent (admitted while the store was away, reserved in a state that was lost, settled
long after its lease) reaches the book from the ledger instead, by an *audit*. Every entry and every ledger row carries the
moment when its exchange was admitted, and ``mark_ms`` cuts time in two: what the ledger has of exchanges admitted before the
mark, without those that are held here, is compared with what was spent of those here; the difference is added, and the mark
moves on. So both sides sum up the same exchanges, and none is added twice.

Money saturates at `MONEY_MAX`: a book as full as that is above any cap.

An entry from before the mark that appears while an audit is under way voids that audit.

After a loss a book may be overspent by what was in flight at that moment and ended before it was held again.

Deliberately not handled: a cap that changes (it comes with every reservation, so the next one sees it); a renewal that a
server carries out after it was given up, when the exchange is over and the book was made again in between (the exchange
would count twice: an error to the safe side, of one exchange).

Held by `tests/core/test_budget.py` (rows, a slow reference) and `tests/conformance/test_budgets.py` (every store).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NewType

from proxy.core.window import Period, Window
from proxy.terms import AccountId, ExchangeId, NanoUsd

MONEY_MAX: Final = NanoUsd(2**53 - 1)  # 9.0 million USD: what a double, and so a Lua number, holds exactly
LAPSED_KEPT_MS: Final = 5 * 60_000  # without an audit; afterwards a settlement comes by the ledger in any case
OPEN_MAX: Final = 10_000  # entries that an audit looks through; with more of them open it waits
AUDIT_EXCEPT_MAX: Final = 2_000  # and exchanges that it may ask a ledger to leave out
KEPT_AFTER_S: Final = 25 * 3600  # how long a book outlives its window: longer than any exchange
_NEVER: Final = 2**62

PayerId = NewType("PayerId", str)  # "account:acme", "virtual_key:...", "proxy"
PROXY: Final = PayerId("proxy")


def account_subject(account: AccountId) -> PayerId:
    return PayerId(f"account:{account}")


def virtual_key_subject(virtual_key_id: str) -> PayerId:
    return PayerId(f"virtual_key:{virtual_key_id}")


class AlertLevel(IntEnum):
    """How far a book has come. THRESHOLD: the share of the cap that was asked to be told of; LIMIT: nothing is left."""

    NONE = 0
    THRESHOLD = 1
    LIMIT = 2


@dataclass(frozen=True, slots=True)
class Book:
    """One subject in one window. Its hash is kept: an admission looks books up some twenty times."""

    subject: PayerId
    window: Window
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.subject, self.window.id)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Claim:
    """A book that an exchange counts in, and the cap that holds there now."""

    book: Book
    cap_nanousd: NanoUsd


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Standing:
    """A book as it stood when it was looked at. ``epoch`` names the state: another one, and it was made again since."""

    spent_nanousd: NanoUsd
    held_nanousd: NanoUsd
    epoch: str
    alerted: AlertLevel = AlertLevel.NONE


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an exchange may not begin. Units: nano-USD, Unix seconds. ``asked`` is what it would have reserved."""

    subject: PayerId
    period: Period
    used_nanousd: NanoUsd
    held_nanousd: NanoUsd
    limit_nanousd: NanoUsd
    asked_nanousd: NanoUsd
    resets_at: int


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Settlement:
    """An exchange is over. ``actual`` 0 releases what it held."""

    exchange_id: ExchangeId
    books: tuple[Book, ...]
    actual_nanousd: NanoUsd


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class BudgetLease:
    """What a worker holds for an exchange that still runs. ``admitted_ms``: Unix milliseconds."""

    exchange_id: ExchangeId
    claims: tuple[Claim, ...]
    amount_nanousd: NanoUsd
    admitted_ms: int


@dataclass(frozen=True, slots=True)
class Audit:
    """One side of an audit: what was spent of exchanges admitted before the mark, and which of those are held.

    ``number`` counts the audits of this state: a repair is taken only from the latest.
    """

    spent_nanousd: NanoUsd
    mark_ms: int
    number: int
    open_ids: tuple[ExchangeId, ...]


@dataclass(slots=True)
class Entry:
    """One exchange in one book. ``until_ms``: when a held one lapses, and when a lapsed one is forgotten."""

    amount_nanousd: int
    admitted_ms: int
    until_ms: int
    held: bool = True


@dataclass(slots=True)
class Budget:
    """The state of one book. Times are Unix milliseconds of whoever keeps it."""

    epoch: str
    spent: int = 0
    held: int = 0
    mark_ms: int = 0
    spent_since_mark: int = 0
    audits: int = 0
    audited_ms: int = 0
    alerted: AlertLevel = AlertLevel.NONE
    alerted_by: str = ""
    entries: dict[ExchangeId, Entry] = field(default_factory=dict)
    _soonest_ms: int = _NEVER  # no entry ends before this

    def standing(self) -> Standing:
        return Standing(NanoUsd(self.spent), NanoUsd(self.held), self.epoch, self.alerted)

    def expire(self, now_ms: int) -> None:
        """Leases that have ended give back what they held; what lapsed long ago is forgotten."""
        if now_ms < self._soonest_ms:
            return
        self._soonest_ms = _NEVER
        for exchange_id, entry in tuple(self.entries.items()):
            if entry.held and entry.until_ms <= now_ms:
                entry.held = False
                entry.until_ms += LAPSED_KEPT_MS
                self.held -= entry.amount_nanousd
            if not entry.held and entry.until_ms <= now_ms:
                del self.entries[exchange_id]
            else:
                self._soonest_ms = min(self._soonest_ms, entry.until_ms)

    def fits(self, exchange_id: ExchangeId, amount: int, cap: int) -> bool:
        """Whether there is room for `amount` in all for this exchange."""
        entry = self.entries.get(exchange_id)
        already = entry.amount_nanousd if entry is not None and entry.held else 0
        return self.spent + self.held - already + amount <= cap

    def hold(self, exchange_id: ExchangeId, amount: int, admitted_ms: int, until_ms: int) -> None:
        self._put(exchange_id, Entry(amount, admitted_ms, until_ms))
        self.held += amount

    def renew(self, lease: BudgetLease, cap: int, now_ms: int, until_ms: int) -> None:
        """Keep a lease, or take it again: after a pause that it did not survive, or in a state that was made again.

        Where there is no room it stays lapsed, or becomes so: its settlement counts all the same.
        """
        entry = self.entries.get(lease.exchange_id)
        if entry is not None and entry.held:
            entry.until_ms = until_ms
        elif self.fits(lease.exchange_id, lease.amount_nanousd, cap):
            self.hold(lease.exchange_id, lease.amount_nanousd, lease.admitted_ms, until_ms)
        else:
            entry = Entry(lease.amount_nanousd, lease.admitted_ms, now_ms + LAPSED_KEPT_MS, held=False)
            self._put(lease.exchange_id, entry)

    def settle(self, exchange_id: ExchangeId, actual: int) -> None:
        """Book the cost of an exchange, once; one that is absent changes nothing."""
        entry = self._drop(exchange_id)
        if entry is not None:
            self._spend(actual, since_mark=entry.admitted_ms >= self.mark_ms)

    def audit(self, now_ms: int, apart_ms: int) -> Audit | None:
        """Begin an audit; None where the last began less than `apart_ms` ago, or too much is open to look through."""
        if now_ms - self.audited_ms < apart_ms or len(self.entries) > OPEN_MAX:
            return None
        before = [(one, entry.held) for one, entry in self.entries.items() if entry.admitted_ms < self.mark_ms]
        open_ids = tuple(one for one, held in before if held)
        if len(open_ids) > AUDIT_EXCEPT_MAX:
            return None
        for one, held in before:
            if not held:
                self._drop(one)  # from here on the ledger's row is what counts, if there is or will be one
        self.audited_ms = now_ms
        self.audits += 1
        return Audit(NanoUsd(self.spent - self.spent_since_mark), self.mark_ms, self.audits, open_ids)

    def repair(self, number: int, missing: int, mark_ms: int) -> bool:
        """End audit `number`: add what was missing, move the mark on. False where a later audit has begun since."""
        if number != self.audits or mark_ms < self.mark_ms:
            return False
        self._spend(missing, since_mark=False)
        self.mark_ms, self.spent_since_mark = mark_ms, 0
        self.audits += 1
        return True

    def alert(self, level: AlertLevel, worker: str) -> bool:
        """Whether it is for `worker` to tell of `level`: it is for the first one that asks, however often that one asks."""
        if level < self.alerted or (level == self.alerted and worker != self.alerted_by):
            return False
        self.alerted, self.alerted_by = level, worker
        return True

    def _put(self, exchange_id: ExchangeId, entry: Entry) -> None:
        if self._drop(exchange_id) is None and entry.admitted_ms < self.mark_ms:
            self.audits += 1  # an audit that is under way has not seen it, and may have its cost from the ledger
        self.entries[exchange_id] = entry
        self._soonest_ms = min(self._soonest_ms, entry.until_ms)

    def _drop(self, exchange_id: ExchangeId) -> Entry | None:
        entry = self.entries.pop(exchange_id, None)
        if entry is not None and entry.held:
            self.held -= entry.amount_nanousd
        return entry

    def _spend(self, amount: int, *, since_mark: bool) -> None:
        added = min(amount, MONEY_MAX - self.spent)
        self.spent += added
        if since_mark:
            self.spent_since_mark += added


def seeded(spent: int, mark_ms: int, epoch: str) -> Budget:
    """The state of a book of which the ledger says that `spent` is all of what was admitted before `mark_ms`."""
    return Budget(epoch=epoch, spent=min(spent, MONEY_MAX), mark_ms=mark_ms)


def reserve(
    claims: Sequence[tuple[Budget, int]], exchange_id: ExchangeId, amount: int, admitted_ms: int, until_ms: int
) -> int | None:
    """Hold `amount` in every budget, each with its cap, or in none. Returns the index of the first without room."""
    for index, (budget, cap) in enumerate(claims):
        if not budget.fits(exchange_id, amount, cap):
            return index
    for budget, _ in claims:
        budget.hold(exchange_id, amount, admitted_ms, until_ms)
    return None


def money(amount: int) -> NanoUsd:
    """`amount` as money. Errors: ValueError for what no book can hold; whoever computes money bounds it first."""
    if not 0 <= amount <= MONEY_MAX:
        raise ValueError(f"expected 0 to {MONEY_MAX} nano-USD, got {amount}")
    return NanoUsd(amount)


def refused(claim: Claim, standing: Standing, asked: NanoUsd) -> Refused:
    return Refused(
        claim.book.subject,
        claim.book.window.period,
        standing.spent_nanousd,
        standing.held_nanousd,
        claim.cap_nanousd,
        asked,
        claim.book.window.resets_at,
    )


def level_of(standing: Standing, cap: int, alert_from: int, *, refused_amount: int | None = None) -> AlertLevel:
    """What there is to tell of a book.

    LIMIT: all of the cap is spent, or a reservation was refused because of what is spent: beside what is held it would
    have fitted an unspent budget. One that is larger than the cap, or that only other holds kept out, says nothing.
    """
    spent, held = standing.spent_nanousd, standing.held_nanousd
    if spent >= cap or (refused_amount is not None and held + refused_amount <= cap):
        return AlertLevel.LIMIT
    return AlertLevel.THRESHOLD if spent >= alert_from else AlertLevel.NONE


def usd(amount: int) -> str:
    """Nano-USD as a person writes dollars: exact, at least two decimals."""
    whole, rest = divmod(amount, 10**9)
    return f"{whole}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
