"""The books of unit tests: what an outbox is told, kept in memory, budgets that nobody has limits in, and limits."""

import time
from dataclasses import dataclass, field

from proxy.core.ledger import Intent, LedgerRow
from proxy.phases.budgets import Budgets
from proxy.phases.limits import Limiter
from proxy.ports import ExchangeLog
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.memory.limits import MemoryLimits
from tests.ledger import FakeLedger


@dataclass
class RecordingBooks:
    """The port `Books`. ``refuses``: no intent can be written down."""

    intents: list[Intent] = field(default_factory=list)
    rows: list[LedgerRow] = field(default_factory=list)
    refuses: bool = False
    trouble: str | None = None

    def intend(self, intent: Intent) -> bool:
        if not self.refuses:
            self.intents.append(intent)
        return not self.refuses

    def book(self, row: LedgerRow) -> None:
        self.rows.append(row)


def budgets(log: ExchangeLog) -> Budgets:
    def now_ms() -> int:
        return int(time.time() * 1000)

    store = MemoryBudgets(now_ms)
    return Budgets(store, FakeLedger(), on_alert=lambda _: None, log=log, wall=time.time, worker="test")


def limiter(log: ExchangeLog) -> Limiter:
    return Limiter(MemoryLimits(lambda: time.monotonic_ns() // 1_000_000), log=log, worker="test")
