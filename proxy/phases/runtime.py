"""What an exchange runs on: the table, the ports, the clock. A reload makes a new one; an exchange keeps its own."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.core.balance import Speeds
from proxy.core.breaker import Subject, credential_subject
from proxy.core.retry_budget import RetryBudget
from proxy.core.routing import RoutingTable
from proxy.phases.breakers import Breakers
from proxy.phases.watchdog import Ticker
from proxy.ports import ExchangeLog, Upstream
from proxy.terms import ProviderId, TargetName

if TYPE_CHECKING:
    from proxy.phases.hedge import Hedging


@dataclass(slots=True)
class Runtime:
    """Shapes: ``now`` monotonic seconds, ``wall`` Unix seconds. ``plain_targets``: learned to refuse `stream_options`."""

    table: RoutingTable
    upstream: Upstream
    log: ExchangeLog
    now: Callable[[], float]
    wall: Callable[[], float]
    breakers: Breakers
    ticker: Ticker = field(init=False)
    credentials: Mapping[ProviderId, Subject] = field(init=False)  # of those providers that have one
    retry_budget: RetryBudget = field(init=False)
    rng: random.Random = field(default_factory=random.Random)
    speeds: Speeds = field(default_factory=Speeds)
    hedging: "dict[str, Hedging]" = field(default_factory=dict)  # by route
    plain_targets: set[TargetName] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ticker = Ticker(self.now)
        self.credentials = {
            provider.id: credential_subject(provider.id, provider.credential)
            for provider in self.table.providers.values()
            if provider.credential is not None
        }
        self.retry_budget = RetryBudget(self.table.retry.budget)
