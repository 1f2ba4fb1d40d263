"""What an exchange runs on: the table, the ports, the clock. A reload makes a new one; an exchange keeps its own."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from proxy.core.balance import Speeds
from proxy.core.output_sizes import OutputSizes
from proxy.core.pricing import Terms
from proxy.core.retry_budget import RetryBudget
from proxy.core.routing import RoutingTable, Target
from proxy.phases.breakers import Breakers
from proxy.phases.budgets import Budgets
from proxy.phases.door import Door
from proxy.phases.key_ring import KeyRing
from proxy.phases.limits import Limiter
from proxy.phases.recalls import Recalls
from proxy.phases.watchdog import Ticker
from proxy.ports import (
    Books,
    CacheStore,
    Configuration,
    EventFeed,
    ExchangeLog,
    Exposition,
    Ledger,
    Meter,
    Tracer,
    Upstream,
)
from proxy.terms import AccountId, CacheKey, RouteName, TargetName

TERMS_MAX: Final = 2048  # kept in mind; clients can name targets

if TYPE_CHECKING:
    from proxy.phases.flight import Flight
    from proxy.phases.hedge import Hedging


@dataclass(slots=True)
class Runtime:
    """Shapes: ``now`` monotonic seconds, ``wall`` Unix seconds. ``plain_targets``: learned to refuse `stream_options`.

    Where ``meter``, ``exposition``, ``events`` or ``tracer`` is None, nothing is counted, shown, told or traced.
    """

    table: RoutingTable
    upstream: Upstream
    log: ExchangeLog
    now: Callable[[], float]
    wall: Callable[[], float]
    breakers: Breakers
    budgets: Budgets
    books: Books
    ledger: Ledger  # for reports: read-only
    cache: CacheStore
    limits: Limiter
    door: Door
    keys: KeyRing | None = None  # None: this process keeps no virtual keys
    meter: Meter | None = None
    exposition: Exposition | None = None
    events: EventFeed | None = None
    tracer: Tracer | None = None
    ticker: Ticker = field(init=False)
    retry_budget: RetryBudget = field(init=False)
    rng: random.Random = field(default_factory=random.Random)
    speeds: Speeds = field(default_factory=Speeds)
    hedging: "dict[str, Hedging]" = field(default_factory=dict)  # by route
    plain_targets: set[TargetName] = field(default_factory=set)
    output_sizes: OutputSizes = field(default_factory=OutputSizes)
    asked_sizes: OutputSizes = field(default_factory=OutputSizes)  # by what limited callers ask for
    recalls: Recalls = field(default_factory=Recalls)
    flights: "dict[CacheKey, Flight]" = field(default_factory=dict)  # those that others may join
    flying: "set[asyncio.Task[None]]" = field(default_factory=set)  # all, until their answers are kept
    configuration: Configuration | None = None  # None: no file was read
    _terms: dict[tuple[AccountId | None, RouteName | None, TargetName], Terms] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ticker = Ticker(self.now)
        self.retry_budget = RetryBudget(self.table.retry.budget)

    def after(self, table: RoutingTable, door: Door) -> "Runtime":
        """What exchanges run on that begin after a reload: another table, and everything that was learned."""
        made = replace(self, table=table, door=door, _terms={})
        made.ticker = self.ticker
        if table.retry.budget == self.table.retry.budget:
            made.retry_budget = self.retry_budget
        return made

    def terms(self, account: AccountId, route: RouteName | None, target: Target) -> Terms:
        """What holds for an account's target in a route; None: it was named directly."""
        table = self.table.of(account)
        key = (table.account, route, target.name)
        found = self._terms.get(key)
        if found is None:
            if len(self._terms) >= TERMS_MAX:
                self._terms.clear()
            found = self._terms[key] = table.pricing.terms(route, target.provider.id, target.model)
        return found
