"""What `penstock explain` tells of money: what each target charges, whether it fits its cost tier, and who pays."""

from dataclasses import dataclass
from typing import Final

from proxy.core.afford import Afforded, NotAfforded, afford
from proxy.core.budget import PROXY, usd
from proxy.core.cost import Bounds
from proxy.core.payer import Payer
from proxy.core.pricing import Terms
from proxy.core.routing import RoutingTable, Target
from proxy.core.tariff import Rates, Tariff, usd_per_million
from proxy.core.window import Period
from proxy.terms import AccountId, RouteName

PROMPT_TOKENS: Final = 1000  # of the request that is imagined; it names no output cap

_A: Final = {Period.DAILY: "a day", Period.MONTHLY: "a month"}


@dataclass(frozen=True, slots=True)
class Explained:
    """One target. ``rates`` None: nobody knows what it charges."""

    terms: Terms
    rates: Rates | None
    verdict: Afforded | NotAfforded


def explained(table: RoutingTable, route: RouteName | None, target: Target, at_s: int) -> Explained:
    terms = table.pricing.terms(route, target.provider.id, target.model)
    tariff = terms.price.tariff
    rates = tariff.rates(at_s, PROMPT_TOKENS) if isinstance(tariff, Tariff) else None
    return Explained(terms, rates, afford(terms, Bounds(PROMPT_TOKENS), at_s))


def cells(one: Explained) -> tuple[str, str, str, str, str]:
    """Input, output, where the price is from, the cost tier, the output cap: of a row of the table."""
    terms, rates = one.terms, one.rates
    charged = ("", "") if rates is None else (usd_per_million(rates.input), usd_per_million(rates.output))
    ceiling = "" if terms.ceiling_nanousd is None else f"{terms.cost_tier} {usd(terms.ceiling_nanousd)}"
    return (*charged, terms.price.source.value, ceiling, "" if cap_of(one) is None else str(cap_of(one)))


def cap_of(one: Explained) -> int | None:
    return one.verdict.output_cap if isinstance(one.verdict, Afforded) else None


def too_dear(one: Explained) -> str | None:
    """Why the target would be skipped for what it costs; None: it would not."""
    return one.verdict.why if isinstance(one.verdict, NotAfforded) else None


def as_json(one: Explained) -> dict[str, object]:
    """Units: USD as text, so that no digit is lost."""
    terms, rates = one.terms, one.rates
    return {
        "price": {
            "source": terms.price.source.value,
            "usd_per_million_input": None if rates is None else usd_per_million(rates.input),
            "usd_per_million_output": None if rates is None else usd_per_million(rates.output),
        },
        "cost_tier": terms.cost_tier,
        "ceiling_usd": None if terms.ceiling_nanousd is None else usd(terms.ceiling_nanousd),
        "output_cap": cap_of(one),
        "hold_usd": usd(one.verdict.hold_nanousd) if isinstance(one.verdict, Afforded) else None,
        "too_dear": too_dear(one),
    }


def paid_by(table: RoutingTable, account: AccountId) -> str:
    """Who pays for a request of this account, in a line. What others may spend is not its business."""
    payers = table.budgets.payers_of(account)
    return f"paid by: {' and '.join(map(_payer, payers)) or 'nobody, since no budget is set'}"


def payers_as_json(table: RoutingTable, account: AccountId) -> dict[str, object]:
    return {account: [_payer_as_json(payer) for payer in table.budgets.payers_of(account)]}


def _payer(payer: Payer) -> str:
    name = "the whole proxy" if payer.subject == PROXY else payer.subject.replace(":", " ", 1)
    caps = ", ".join(f"{usd(limit.cap_nanousd)} USD {_A[limit.period]}" for limit in payer.limits)
    return f"{name} ({caps}, {payer.zone.key})"


def _payer_as_json(payer: Payer) -> dict[str, object]:
    caps = {f"{limit.period.value}_usd": usd(limit.cap_nanousd) for limit in payer.limits}
    return {"subject": payer.subject, **caps, "timezone": payer.zone.key}
