"""The section `budgets`, of the whole proxy and of an account: its shape, what cannot be meant, and what it comes to.

    budgets: {daily: 100, monthly: 1000, alert_at: 0.8, timezone: UTC, when_away: slice}

The limits at the top hold for all accounts together, and so for each of them too; an account may have narrower ones. What
an account does not say of `alert_at`, `timezone` and `when_away` it has from the top.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from zoneinfo import available_timezones

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from proxy.config.money import BudgetUsd, budget_usd, nanousd
from proxy.config.problem import Path
from proxy.config.scalars import ShareAboveZero
from proxy.config.section import Section, invalid, shown
from proxy.core.budget import PROXY, PayerId, account_subject, usd
from proxy.core.nearest import did_you_mean
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.window import Period, zone
from proxy.terms import AccountId, NanoUsd

ALERT_AT: Final = 0.8
TIMEZONE: Final = "UTC"


def _zone(value: object) -> str:
    if not isinstance(value, str):
        raise invalid(f"expected a time zone such as Europe/Paris, got {shown(value)}")
    if zone(value) is None:
        near = sorted(one for one in available_timezones() if one[:1].casefold() == value[:1].casefold())
        raise invalid(f"{shown(value)} is no time zone of the IANA list.{did_you_mean(value, near)}")
    return value


def _when_away(value: object) -> object:
    if value not in ("slice", "closed"):
        raise invalid(f"expected slice or closed, got {shown(value)}")
    return value


TimeZone = Annotated[
    str, BeforeValidator(_zone), WithJsonSchema({"type": "string", "examples": [TIMEZONE, "Europe/Paris"]})
]
WhenAway = Annotated[
    Literal["slice", "closed"],
    BeforeValidator(_when_away),
    WithJsonSchema({"type": "string", "enum": ["slice", "closed"]}),
]


class Budgets(Section):
    """How much may be spent. Amounts are in USD; what is not said has no limit of its own."""

    daily: BudgetUsd | None = Field(default=None, description="USD from midnight to midnight.")
    monthly: BudgetUsd | None = Field(default=None, description="USD from the 1st to the 1st.")
    alert_at: ShareAboveZero | None = Field(
        default=None, description=f"From which share of a budget on somebody is told; {ALERT_AT} where nothing is said."
    )
    timezone: TimeZone | None = Field(
        default=None, description=f"Whose midnight counts: a name of the IANA list; {TIMEZONE} where nothing is said."
    )
    when_away: WhenAway | None = Field(
        default=None,
        description=(
            "While the shared store of the books is away: slice (each worker goes on with a hundredth of what was left)"
            " or closed (what costs is refused). slice where nothing is said."
        ),
    )


def problems(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What cannot be meant, in a document whose shape may still be wrong: where, and why."""
    top = _caps(data.get("budgets"))
    yield from _beyond(("budgets",), top)
    accounts = data.get("accounts")
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        own = _caps(account.get("budgets")) if isinstance(account, dict) else {}
        path: Path = ("accounts", name, "budgets")
        yield from _beyond(path, own)
        for period in ("daily", "monthly"):
            if period in own and period in top and own[period] > top[period]:
                why = (
                    f"{usd(own[period])} is more than the whole proxy's {usd(top[period])}, so it can never be reached"
                )
                yield (*path, period), why


def _beyond(path: Path, caps: Mapping[str, NanoUsd]) -> Iterator[tuple[Path, str]]:
    if "daily" in caps and "monthly" in caps and caps["daily"] > caps["monthly"]:
        why = f"{usd(caps['daily'])} a day is more than {usd(caps['monthly'])} a month, so it can never be reached"
        yield (*path, "daily"), why


def _caps(section: object) -> dict[str, NanoUsd]:
    """The caps of a section that are amounts, in nano-USD; others are told as errors of shape."""
    found = section if isinstance(section, dict) else {}
    caps: dict[str, NanoUsd] = {}
    for period in ("daily", "monthly"):
        with suppress(PydanticCustomError):
            caps[period] = nanousd(budget_usd(found.get(period)))
    return caps


def budget_table(top: Budgets | None, accounts: Mapping[str, Budgets | None]) -> BudgetTable:
    """Who pays, from the section at the top and those of the accounts."""
    top = top or Budgets()
    everybody = _payers(PROXY, top, top)
    own = {
        AccountId(name): _payers(account_subject(AccountId(name)), section, top)
        for name, section in accounts.items()
        if section is not None
    }
    return BudgetTable(everybody, {name: (*payers, *everybody) for name, payers in own.items() if payers})


def _payers(subject: PayerId, section: Budgets, top: Budgets) -> tuple[Payer, ...]:
    alert_at = section.alert_at or top.alert_at or ALERT_AT
    given = ((Period.DAILY, section.daily), (Period.MONTHLY, section.monthly))
    caps = [(period, nanousd(cap)) for period, cap in given if cap is not None]
    limits = tuple(Limit(period, cap, _alert_from(cap, alert_at)) for period, cap in caps)
    named = zone(section.timezone or top.timezone or TIMEZONE)
    if not limits or named is None:
        return ()
    when_away = section.when_away or top.when_away
    return (Payer(subject, limits, named, closed_when_away=when_away == "closed"),)


def _alert_from(cap: NanoUsd, alert_at: float) -> NanoUsd:
    """Rounded up, so that nobody is told too early."""
    return NanoUsd(math.ceil(cap * Decimal(repr(alert_at))))
