"""What one worker may reserve by itself while the store of the books is away.

A *slice* is one hundredth of what was left of a book when this worker last heard of it. It is cut once, when it is first
needed, and kept until the book is known to hold what was spent from it: a store that comes and goes cuts no second one.
So what a book may be overspent by is the slices of the workers, and each is smaller than what was left.

Holds of a slice have no lease: their owner is this very process. Held by `tests/core/test_local_slice.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.core.budget import Book, Budget, BudgetLease, Claim, Refused, Standing, refused, reserve
from proxy.terms import ExchangeId

PARTS: Final = 100
_NEVER_MS: Final = 2**62


class LocalSlices:
    """The slices of one worker: for each book a budget of its own, whose cap is the slice."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: dict[Book, tuple[Budget, int]] = {}

    def reserve(self, lease: BudgetLease, known: Sequence[Standing]) -> Refused | bool:
        """Hold a lease's amount in the slice of every book, or in none; `known` is how its books stood when last heard of.

        Returns whether there was room. `Refused` where no slice would help: what is spent already leaves no room, and
        spend never falls.
        """
        for claim, standing in zip(lease.claims, known, strict=True):
            if standing.spent_nanousd + lease.amount_nanousd > claim.cap_nanousd:
                return refused(claim, standing, lease.amount_nanousd)
        slices = [self._slice(claim, standing) for claim, standing in zip(lease.claims, known, strict=True)]
        return reserve(slices, lease.exchange_id, lease.amount_nanousd, lease.admitted_ms, _NEVER_MS) is None

    def settle(self, exchange_id: ExchangeId, books: Iterable[Book], actual: int) -> None:
        for book in books:
            if book in self._slices:
                self._slices[book][0].settle(exchange_id, actual)

    def forget(self, book: Book) -> None:
        """The book holds by now what was spent from its slice; one that is still held from is kept."""
        if book in self._slices and not self._slices[book][0].entries:
            del self._slices[book]

    def forget_past(self, now: float) -> None:
        """Bounds the slices: nothing is reserved any more in a window that is over. Units: Unix seconds."""
        for book in [one for one in self._slices if now >= one.window.resets_at]:
            self.forget(book)

    def left(self, book: Book) -> int | None:
        """What may still be reserved from the slice of a book; None where none is cut."""
        if book not in self._slices:
            return None
        budget, cap = self._slices[book]
        return max(0, cap - budget.spent - budget.held)

    def _slice(self, claim: Claim, standing: Standing) -> tuple[Budget, int]:
        if claim.book not in self._slices:
            left = max(0, claim.cap_nanousd - standing.spent_nanousd - standing.held_nanousd)
            self._slices[claim.book] = (Budget(epoch=""), left // PARTS)
        return self._slices[claim.book]
