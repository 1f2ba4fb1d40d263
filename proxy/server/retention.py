"""Retention: rows older than some days go, in small steps; the roll-ups stay.

A step is a short transaction, so that the outbox, which writes to the same store, waits for one of them at most.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.core.ledger import US_PER_DAY, US_PER_S
from proxy.ports import ExchangeLog, Ledger, StoreAway, StoreUnusable

KEEP_DAYS_MIN: Final = 35  # a month's budget is rebuilt from rows, and no journal is older
STEP_ROWS: Final = 1_000
STEP_PAUSE_S: Final = 0.05
SWEEP_S: Final = 3600.0


async def retain(ledger: Ledger, log: ExchangeLog, keep_days: int, wall: Callable[[], float]) -> None:
    """Sweep once an hour, until cancelled. Several processes may: each removes what it finds."""
    while True:
        try:
            removed = await sweep(ledger, keep_days, wall())
        except (StoreAway, StoreUnusable) as error:
            log.event("ledger: old rows could not be removed", error=str(error))
        else:
            if removed:
                log.event("ledger: removed old rows", rows=removed, older_than_days=max(keep_days, KEEP_DAYS_MIN))
        await asyncio.sleep(SWEEP_S)


async def sweep(ledger: Ledger, keep_days: int, now_s: float) -> int:
    """Remove what started more than `keep_days` ago (at least `KEEP_DAYS_MIN`); how many rows. Raises as the port does."""
    before_us = int(now_s * US_PER_S) - max(keep_days, KEEP_DAYS_MIN) * US_PER_DAY
    removed = 0
    while count := await ledger.forget(before_us, STEP_ROWS):
        removed += count
        await asyncio.sleep(STEP_PAUSE_S)
    return removed
