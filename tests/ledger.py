"""A ledger for tests: rows in a list, summed as the port `SpendSource` says."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from proxy.core.budget import PayerId
from proxy.core.window import Window
from proxy.ports import Away
from proxy.terms import ExchangeId, NanoUsd


@dataclass
class FakeLedger:
    """``rows``: exchange, those who pay, when it was admitted, what it cost. ``asked``: what was summed, in order.

    ``turns``: of the loop that an answer takes, `slow_s` each.
    """

    rows: dict[str, tuple[frozenset[str], int, int]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    slow_s: float = 0.0
    turns: int = 1

    def append(self, exchange_id: str, subjects: Collection[str], admitted_at: float, cost: int) -> None:
        self.rows.setdefault(exchange_id, (frozenset(subjects), int(admitted_at * 1000), cost))

    def total(self, subject: str) -> int:
        return sum(cost for subjects, _, cost in self.rows.values() if subject in subjects)

    async def spent(
        self, subject: PayerId, window: Window, before_ms: int, without: Collection[ExchangeId] = ()
    ) -> NanoUsd | Away:
        self.asked.append((subject, window.id))
        for _ in range(self.turns):
            await asyncio.sleep(self.slow_s)
        if self.away:
            return Away("the ledger is away")
        return NanoUsd(
            sum(
                cost
                for one, (subjects, admitted_ms, cost) in self.rows.items()
                if subject in subjects
                and window.starts_at * 1000 <= admitted_ms < min(window.resets_at * 1000, before_ms)
                and one not in without
            )
        )
