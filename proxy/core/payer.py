"""Who pays for an exchange, and how much each may spend: what the configuration and a virtual key come to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from proxy.core.budget import PayerId
from proxy.core.window import Period
from proxy.terms import AccountId, NanoUsd


@dataclass(frozen=True, slots=True)
class Limit:
    """The cap of one period, and from what spend on somebody is told."""

    period: Period
    cap_nanousd: NanoUsd
    alert_nanousd: NanoUsd


@dataclass(frozen=True, slots=True)
class Payer:
    """One subject with its limits. ``closed_when_away``: no local slice while the store is away. Its hash is kept."""

    subject: PayerId
    limits: tuple[Limit, ...]
    zone: ZoneInfo
    closed_when_away: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.subject, self.limits, self.zone.key, self.closed_when_away)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class BudgetTable:
    """Who pays, as configured.

    Shapes: ``everybody`` pays for each exchange (the whole proxy, or nobody); ``accounts`` holds those with limits of
    their own, each with all who pay for it, the account first, so that a refusal names the narrower budget.
    """

    everybody: tuple[Payer, ...] = ()
    accounts: Mapping[AccountId, tuple[Payer, ...]] = field(default_factory=dict)

    def payers_of(self, account: AccountId) -> tuple[Payer, ...]:
        return self.accounts.get(account, self.everybody)

    def payers(self) -> tuple[Payer, ...]:
        """Every payer, once."""
        own = (payer for payers in self.accounts.values() for payer in payers)
        return tuple(dict.fromkeys([*self.everybody, *own]))


NO_BUDGETS: Final = BudgetTable()
