"""What is known of a virtual key, what may become of it, and whom it makes of a caller. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Final
from zoneinfo import ZoneInfo

from proxy.core.budget import virtual_key_subject
from proxy.core.limits import Limits
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.principal import Principal
from proxy.core.tags import Tags
from proxy.core.virtual_key import Made, Pepper, SecretHash
from proxy.core.window import Period, zone
from proxy.terms import DEFAULT_ACCOUNT, AccountId, NanoUsd, Role, VirtualKeyId

ALERT_AT: Final = 0.8  # as the routes file's budgets
GRACE_S_MAX: Final = 7 * 24 * 3600  # how long a replaced secret may go on; longer is a second key
ENVIRONMENT: Final = VirtualKeyId("environment")  # the key of PENSTOCK_API_KEY goes by this


class CacheScope(Enum):
    """With whom a key shares cached answers."""

    ACCOUNT = "account"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class KeyBudgets:
    """How much a key may spend. None: as it stands for its account, or without a limit of its own."""

    daily_nanousd: NanoUsd | None = None
    monthly_nanousd: NanoUsd | None = None
    alert_at: float | None = None
    timezone: str | None = None
    closed_when_away: bool | None = None

    @property
    def is_set(self) -> bool:
        return self.daily_nanousd is not None or self.monthly_nanousd is not None


NO_KEY_BUDGETS: Final = KeyBudgets()


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One virtual key. Holds no secret, only hashes.

    Units: Unix seconds, nano-USD. ``routes``: patterns; None: all. ``limits`` None: as configured. ``last``: the last
    letters of the key, by which its owner knows it. ``old``: the hash that a rotation replaced, good until ``old_until``.
    """

    id: VirtualKeyId
    hash: SecretHash
    last: str
    name: str
    created_at: int
    created_by: str
    account: AccountId = DEFAULT_ACCOUNT
    role: Role = Role.USER
    routes: tuple[str, ...] | None = None
    limits: Limits | None = None
    budgets: KeyBudgets = NO_KEY_BUDGETS
    expires_at: int | None = None
    tags: Tags = ()
    cache: CacheScope = CacheScope.ACCOUNT
    passthrough: bool = False
    revoked_at: int | None = None
    old: SecretHash | None = None
    old_until: int | None = None

    def is_over(self, now: float) -> bool:
        """Whether it is past its expiry. At that very second it is."""
        return self.expires_at is not None and now >= self.expires_at


def problem_of(record: KeyRecord) -> tuple[str, str] | None:
    """What cannot be meant: the field, and why. None: nothing."""
    daily, monthly = record.budgets.daily_nanousd, record.budgets.monthly_nanousd
    if daily is not None and monthly is not None and daily > monthly:
        return "budgets", "budgets.daily is more than budgets.monthly, so it could never be reached."
    if record.passthrough and record.budgets.is_set:
        return "passthrough", "A key under a budget cannot pass through: what that costs is not known beforehand."
    if record.limits is not None and record.limits.burst is not None and record.limits.rps is None:
        return "limits", "limits.burst says nothing without limits.rps."
    return None


def revoked(record: KeyRecord, now: int) -> KeyRecord:
    """Never good again, its replaced secret neither. A key that is revoked already stays as it is."""
    return record if record.revoked_at is not None else replace(record, revoked_at=now, old=None, old_until=None)


def rotated(record: KeyRecord, made: Made, pepper: Pepper, now: int, grace_s: int = 0) -> KeyRecord:
    """With a new secret under the same id; the one before is good for ``grace_s`` more, one before that no longer."""
    keeps = grace_s > 0
    return replace(
        record,
        hash=pepper.hash_of(made.id, made.secret),
        last=made.last,
        old=record.hash if keeps else None,
        old_until=now + min(grace_s, GRACE_S_MAX) if keeps else None,
    )


def principal_of(record: KeyRecord, budgets: BudgetTable) -> Principal:
    """Who its holder is. ``payers`` are the key's own.

    The passthrough right is void while the key, or its account alone, is under a budget: what the routes file says now
    counts, not what it said when the key was made.
    """
    payers = _payers(record, budgets)
    return Principal(
        account=record.account,
        role=record.role,
        virtual_key=record.id,
        routes=record.routes,
        limits=record.limits,
        payers=payers,
        tags=record.tags,
        passthrough=record.passthrough and not payers and record.account not in budgets.accounts,
        shares_cache=record.cache is CacheScope.ACCOUNT,
    )


def _payers(record: KeyRecord, table: BudgetTable) -> tuple[Payer, ...]:
    own = record.budgets
    caps: Mapping[Period, NanoUsd | None] = {Period.DAILY: own.daily_nanousd, Period.MONTHLY: own.monthly_nanousd}
    alert_at = Decimal(repr(own.alert_at or ALERT_AT))
    limits = tuple(
        Limit(period, cap, NanoUsd(math.ceil(cap * alert_at))) for period, cap in caps.items() if cap is not None
    )
    if not limits:
        return ()
    above = next(iter(table.payers_of(record.account)), None)  # its account, else the whole proxy
    closed = own.closed_when_away
    if closed is None:
        closed = above is not None and above.closed_when_away
    return (Payer(virtual_key_subject(record.id), limits, _zone(own.timezone, above), closed_when_away=closed),)


def _zone(name: str | None, above: Payer | None) -> ZoneInfo:
    found = None if name is None else zone(name)
    return found or (ZoneInfo("UTC") if above is None else above.zone)
