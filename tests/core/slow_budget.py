"""A book, slow and obvious: nothing is summed up until it is asked for, and an entry is what its lease's end makes it."""

from dataclasses import dataclass, field

from proxy.core.budget import LAPSED_KEPT_MS, MONEY_MAX


@dataclass
class SlowBudget:
    """The same events as `proxy.core.budget.Budget`. ``entries``: amount, admitted, end of the lease."""

    spent_at_first: int = 0
    mark_ms: int = 0
    entries: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    spendings: list[tuple[int, bool]] = field(default_factory=list)  # amount, whether it was admitted since the mark

    def spent(self) -> int:
        return min(self.spent_at_first + sum(amount for amount, _ in self.spendings), MONEY_MAX)

    def held(self, now_ms: int, without: str = "") -> int:
        return sum(amount for one, (amount, _, end) in self.entries.items() if now_ms < end and one != without)

    def open(self, now_ms: int) -> dict[str, tuple[int, int, int]]:
        return {one: entry for one, entry in self.entries.items() if now_ms < entry[2] + LAPSED_KEPT_MS}

    def fits(self, exchange: str, amount: int, cap: int, now_ms: int) -> bool:
        return self.spent() + self.held(now_ms, without=exchange) + amount <= cap

    def hold(self, exchange: str, amount: int, admitted_ms: int, end_ms: int) -> None:
        self.entries[exchange] = (amount, admitted_ms, end_ms)

    def renew(self, exchange: str, amount: int, admitted_ms: int, *, cap: int, now_ms: int, end_ms: int) -> None:
        entry = self.entries.get(exchange)
        if entry is not None and now_ms < entry[2]:
            self.entries[exchange] = (entry[0], entry[1], end_ms)
        else:
            room = self.fits(exchange, amount, cap, now_ms)
            self.entries[exchange] = (amount, admitted_ms, end_ms if room else now_ms)

    def settle(self, exchange: str, actual: int, now_ms: int) -> None:
        if exchange in self.open(now_ms):
            self.spendings.append((actual, self.entries[exchange][1] >= self.mark_ms))
        self.entries.pop(exchange, None)

    def before_mark(self, now_ms: int) -> tuple[int, set[str]]:
        """What was spent of those admitted before the mark, and which of them are held; the lapsed ones are forgotten."""
        spent = self.spent_at_first + sum(amount for amount, since in self.spendings if not since)
        before = {one: end for one, (_, admitted, end) in self.open(now_ms).items() if admitted < self.mark_ms}
        for one, end in before.items():
            if now_ms >= end:
                del self.entries[one]
        return spent, {one for one, end in before.items() if now_ms < end}

    def repair(self, missing: int, mark_ms: int) -> None:
        if mark_ms >= self.mark_ms:
            self.spendings = [(amount, False) for amount, _ in self.spendings] + [(missing, False)]
            self.mark_ms = mark_ms
