"""The ledger as the budgets ask it: what somebody spent in a window, of what was admitted before a moment.

Whole days of everybody come from the daily sums, so that a month's budget does not walk a month's rows; the rest, and
whatever belongs to one account or virtual key, from an index over the rows.
"""

from collections.abc import Collection

from proxy.core.budget import PROXY, PayerId
from proxy.core.ledger import US_PER_DAY, US_PER_S, LedgerRow, Spender
from proxy.core.summary import Span
from proxy.core.window import Window
from proxy.ports import Away, Ledger, StoreAway, StoreUnusable
from proxy.terms import ExchangeId, NanoUsd

_US_PER_MS = 1000


class LedgerSpend:
    """The port `SpendSource`, over a `Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def spent(
        self, subject: PayerId, window: Window, before_ms: int, without: Collection[ExchangeId] = ()
    ) -> NanoUsd | Away:
        since_us = window.starts_at * US_PER_S
        until_us = min(window.resets_at * US_PER_S, before_ms * _US_PER_MS)
        by, name = _spender(subject)
        try:
            total = await self._sum(by, name, since_us, until_us) if until_us > since_us else 0
            for exchange_id in without:
                row = await self._ledger.row(exchange_id)
                if row is not None and row.id == exchange_id and since_us <= row.started_us < until_us:
                    total -= row.cost_nanousd if _pays(by, name, row) else 0
        except (StoreAway, StoreUnusable) as error:
            return Away(str(error))
        return NanoUsd(max(total, 0))

    async def _sum(self, by: Spender, name: str, since_us: int, until_us: int) -> int:
        first_day, end_day = -(-since_us // US_PER_DAY), until_us // US_PER_DAY
        if by != "everybody" or first_day >= end_day:
            return await self._ledger.spent(by, name, since_us, until_us)
        days = await self._ledger.days(Span(first_day, end_day - 1))
        before = await self._ledger.spent(by, name, since_us, first_day * US_PER_DAY)
        after = await self._ledger.spent(by, name, end_day * US_PER_DAY, until_us)
        return before + sum(sums.cost_nanousd for _, sums in days) + after


def _spender(subject: PayerId) -> tuple[Spender, str]:
    if subject == PROXY:
        return "everybody", ""
    kind, _, name = subject.partition(":")
    return ("account" if kind == "account" else "virtual_key"), name


def _pays(by: Spender, name: str, row: LedgerRow) -> bool:
    return by == "everybody" or name == (row.account if by == "account" else row.virtual_key)
