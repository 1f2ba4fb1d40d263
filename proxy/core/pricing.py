"""What the configuration and the price list say about money, for every target: what it charges, and how much it may cost.

Immutable, and part of the routing table: a running exchange keeps the prices that it started with. `terms` is pure and
leaves nothing behind; for a model that the list does not have it takes some 40 us, so a plan keeps its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from proxy.core.cost import UnpricedPolicy
from proxy.core.currency import USD, Currency
from proxy.core.pattern import Pattern, patterns
from proxy.core.price_list import PriceList
from proxy.core.tariff import LOCAL, Price, Tariff, Unpriced, unknown
from proxy.terms import NanoUsd, PriceSource, ProviderId, RouteName, TargetName

_DEFAULT_POLICY: Final = UnpricedPolicy()


@dataclass(frozen=True, slots=True)
class ProviderPrices:
    """What is known of one provider's prices.

    Shapes: ``configured`` maps a model, or a pattern with one ``*``, to its tariff. ``listed`` is the provider's name in
    the price list, None where the list lacks it; ``why_unknown`` says then why nothing is known of it. ``patterns`` are
    derived.
    """

    configured: Mapping[str, Tariff] = field(default_factory=dict)
    local: bool = False
    listed: str | None = None
    why_unknown: str = "no price is configured"
    patterns: tuple[Pattern[Tariff], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", patterns(self.configured))

    def own(self, model: str) -> Tariff | None:
        """The configured tariff of a model: its own name before the longest pattern."""
        found = self.configured.get(model)
        return found or next((pattern.value for pattern in self.patterns if pattern.matches(model)), None)


@dataclass(frozen=True, slots=True)
class TargetRules:
    """What the file says of one target in one route. None: nothing. ``cost_tier``: the name that the ceiling has."""

    tariff: Tariff | None = None
    ceiling_nanousd: NanoUsd | None = None
    output_tokens_max: int | None = None
    cost_tier: str | None = None


@dataclass(frozen=True, slots=True)
class RouteRules:
    """What the file says of one route. ``ceiling_nanousd``: its cost tier; ``targets``: those with rules of their own."""

    ceiling_nanousd: NanoUsd | None = None
    unpriced: UnpricedPolicy = _DEFAULT_POLICY
    targets: Mapping[TargetName, TargetRules] = field(default_factory=dict)
    cost_tier: str | None = None


class FlatRates(NamedTuple):
    """The dearest that a token of text can be, each way, and a request. Units: pico-USD."""

    input: int
    output: int
    request: int


def _flat(tariff: Tariff | Unpriced) -> FlatRates | None:
    """The rates of a tariff that always has the same, whatever the input's size; None for any other."""
    if not isinstance(tariff, Tariff) or len(tariff.periods) > 1 or len(tariff.periods[0].tiers) > 1:
        return None
    rates = tariff.periods[0].tiers[0].rates
    return FlatRates(
        max(rates.input, rates.cached, rates.cache_write), max(rates.output, rates.reasoning), rates.request
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What using one target in one route may cost, and what to do where nobody knows.

    ``cost_tier`` is the name of the tier whose ceiling it is; None where there is no ceiling. ``unpriced`` never exceeds it.
    """

    price: Price
    ceiling_nanousd: NanoUsd | None = None
    output_tokens_max: int | None = None
    unpriced: UnpricedPolicy = _DEFAULT_POLICY
    cost_tier: str | None = None
    flat: FlatRates | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flat", _flat(self.price.tariff))
        if self.ceiling_nanousd is not None and self.ceiling_nanousd < self.unpriced.ceiling_nanousd:
            object.__setattr__(self, "unpriced", replace(self.unpriced, ceiling_nanousd=self.ceiling_nanousd))

    def within(self, cost_tier: str, ceiling_nanousd: NanoUsd) -> "Terms":
        """These terms under one more ceiling."""
        if self.ceiling_nanousd is not None and self.ceiling_nanousd <= ceiling_nanousd:
            return self
        return replace(self, ceiling_nanousd=ceiling_nanousd, cost_tier=cost_tier)


_NO_ROUTE: Final = RouteRules()
_NO_TARGET: Final = TargetRules()
_STRANGER: Final = ProviderPrices()


@dataclass(frozen=True, slots=True)
class Pricing:
    """Shapes: ``cost_tiers`` by name; ``lists`` by the provider's name in the list, empty until they are looked up."""

    providers: Mapping[ProviderId, ProviderPrices] = field(default_factory=dict)
    routes: Mapping[RouteName, RouteRules] = field(default_factory=dict)
    cost_tiers: Mapping[str, NanoUsd] = field(default_factory=dict)
    currency: Currency = USD
    lists: Mapping[str, PriceList] = field(default_factory=dict)
    edition: str = ""  # which data the lists were made from

    def terms(self, route: RouteName | None, provider: ProviderId, model: str) -> Terms:
        """What holds for a target in a route; None: it was named directly. A target's own rules come before its route's."""
        rules = _NO_ROUTE if route is None else self.routes.get(route, _NO_ROUTE)
        own = rules.targets.get(TargetName(f"{provider}/{model}"), _NO_TARGET)
        price = self.price(provider, model) if own.tariff is None else Price(own.tariff, PriceSource.CONFIGURED)
        tier = rules if own.ceiling_nanousd is None else own
        return Terms(price, tier.ceiling_nanousd, own.output_tokens_max, rules.unpriced, tier.cost_tier)

    def ceiling(self, cost_tier: str) -> NanoUsd | None:
        """The most that a request of that cost tier may cost; None: there is no tier of that name."""
        return self.cost_tiers.get(cost_tier)

    def cost_tier_names(self) -> tuple[str, ...]:
        """The names of the cost tiers, in the order of the file, for a message."""
        return tuple(self.cost_tiers)

    def price(self, provider: ProviderId, model: str) -> Price:
        """What a provider charges for a model, wherever it is used."""
        known = self.providers.get(provider, _STRANGER)
        tariff = known.own(model)
        if tariff is not None:
            return Price(tariff, PriceSource.CONFIGURED)
        if known.local:
            return LOCAL
        if known.listed is None:
            return unknown(known.why_unknown)
        prices = self.lists.get(known.listed)
        if prices is None:
            return unknown("the price list was not looked up")
        found = prices.find(model)
        if found is None:
            return unknown(f"the price list has no {model[:80]!r} of {known.listed}")
        if isinstance(found.tariff, Tariff):
            return Price(found.tariff, PriceSource.LISTED)
        return unknown(found.tariff.why)


NO_PRICES: Final = Pricing()
