"""What this worker knows of the books: how each stood when it last heard of it, and what is to be done about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.core.budget import AlertLevel, Book, Claim, Standing, level_of
from proxy.core.budget_words import BudgetAlert
from proxy.core.payer import Limit
from proxy.terms import NanoUsd

# After the last exchange. The first one moves the mark behind it, the second one sees what became of it.
AUDITS_AFTER: Final = 2


@dataclass(slots=True)
class KnownBook:
    """One live book. ``standing`` None: not heard of yet. Times are the loop's."""

    claim: Claim
    alert_nanousd: NanoUsd
    standing: Standing | None = None
    told: AlertLevel = AlertLevel.NONE
    to_tell: AlertLevel = AlertLevel.NONE
    audit_at: float = 0.0
    audits_soon: int = 0
    audits_left: int = AUDITS_AFTER

    def untold(self) -> tuple[AlertLevel, ...]:
        """What there is to tell, in order: a book that comes to its limit in one go has passed the threshold too."""
        if self.to_tell <= self.told:
            return ()
        passed = self.standing is not None and self.standing.spent_nanousd >= self.alert_nanousd
        if self.to_tell is AlertLevel.LIMIT and self.told < AlertLevel.THRESHOLD and passed:
            return AlertLevel.THRESHOLD, AlertLevel.LIMIT
        return (self.to_tell,)

    def alert(self, level: AlertLevel, standing: Standing, at: float) -> BudgetAlert:
        window = self.claim.book.window
        return BudgetAlert(
            self.claim.book.subject,
            window.period,
            level,
            standing.spent_nanousd,
            standing.held_nanousd,
            self.claim.cap_nanousd,
            window.resets_at,
            at,
        )


class KnownBooks:
    """The live books of this worker's exchanges. Bounded by the payers, two windows each: past ones are forgotten."""

    __slots__ = ("_books",)

    def __init__(self) -> None:
        self._books: dict[Book, KnownBook] = {}

    def __iter__(self) -> Iterator[KnownBook]:
        return iter(tuple(self._books.values()))

    def get(self, book: Book) -> KnownBook | None:
        return self._books.get(book)

    def claimed(self, claim: Claim, limit: Limit, audit_at: float) -> KnownBook:
        """Take note that an exchange counts in a book now, with this cap."""
        known = self._books.get(claim.book)
        if known is None:
            known = self._books[claim.book] = KnownBook(claim, limit.alert_nanousd, audit_at=audit_at)
        known.claim, known.alert_nanousd, known.audits_left = claim, limit.alert_nanousd, AUDITS_AFTER
        return known

    def noted(self, claims: Sequence[Claim], standings: Sequence[Standing]) -> bool:
        """Take note of standings after a reservation. False where there is more to do about one: look at it by `heard`.

        What is held tells nobody anything; what is spent has changed by a settlement, of which one hears too.
        """
        for claim, standing in zip(claims, standings, strict=True):
            known = self._books.get(claim.book)
            if known is None or known.standing is None or known.standing.epoch != standing.epoch:
                return False
            known.standing = standing
        return True

    def heard(self, book: Book, standing: Standing, refused_amount: int | None = None) -> bool:
        """Take note of a standing. Returns whether the book's state was made again since the last one."""
        known = self._books.get(book)
        if known is None:
            return False
        made_again = known.standing is not None and known.standing.epoch not in ("", standing.epoch)
        if made_again:
            known.told = AlertLevel.NONE
        known.standing = standing
        level = level_of(standing, known.claim.cap_nanousd, known.alert_nanousd, refused_amount=refused_amount)
        if level > max(known.told, standing.alerted, known.to_tell):
            known.to_tell = level
        return made_again

    def forget_past(self, now: float) -> None:
        """Forget the books whose windows are over. Units: Unix seconds."""
        for book in [one for one in self._books if now >= one.window.resets_at]:
            del self._books[book]
