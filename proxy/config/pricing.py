"""From the file to what its targets charge and may cost; the price list is looked up apart from it, where it is needed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from proxy.config import money, schema
from proxy.config.address import is_private
from proxy.config.prices import listed_at, price_lists, version
from proxy.core.pricing import Pricing, ProviderPrices, RouteRules, TargetRules
from proxy.core.routing import Provider, RoutingTable
from proxy.terms import NanoUsd, ProviderId, RouteName, TargetName


def pricing(file: schema.File, providers: Mapping[ProviderId, Provider]) -> Pricing:
    """Everything about money that the file says. A file without cost tiers has the usual five."""
    tiers = money.COST_TIERS if file.cost_tiers is None else file.cost_tiers
    ceilings = {name: money.nanousd(usd) for name, usd in tiers.items()}
    return Pricing(
        providers={known.id: _provider(known, file.providers.get(known.id)) for known in providers.values()},
        routes={
            RouteName(name): _route(entry, ceilings, file.defaults.cost_tier) for name, entry in file.routes.items()
        },
        cost_tiers=ceilings,
        currency=money.currency(file.currency),
    )


def with_price_list(table: RoutingTable, providers: Iterable[ProviderId] | None = None) -> RoutingTable:
    """The table with the price list of every active provider and the baseline's, or of those given, that have one.

    Where none needs it (demo mode, local servers alone) nothing is imported. Takes 0.1 s the first time.
    """
    known = table.pricing.providers
    asked = providers if providers is not None else _charging(table)
    wanted = {known[name].listed for name in asked if name in known}
    lists = price_lists(name for name in wanted if name is not None)
    edition = version() if lists else ""
    views = {account: with_price_list(view, providers) for account, view in table.views.items()}
    return replace(table, pricing=replace(table.pricing, lists=lists, edition=edition), views=views)


def _charging(table: RoutingTable) -> Iterator[ProviderId]:
    yield from (one.id for one in table.providers.values() if one.inactive is None)
    if table.baseline is not None:  # nobody needs to be able to ask the model that reports compare with
        yield table.baseline.provider.id


def local(prices: Pricing, provider: ProviderId) -> Pricing:
    """With one more provider that costs nothing: the simulator."""
    return replace(prices, providers={**prices.providers, provider: ProviderPrices(local=True)})


def _provider(provider: Provider, entry: schema.ProviderEntry | None) -> ProviderPrices:
    configured = {} if entry is None else {model: money.tariff(price) for model, price in entry.price.items()}
    host = urlsplit(provider.base_url).hostname or ""
    if provider.local and (provider.allow_private or is_private(host)):
        return ProviderPrices(configured, local=True)
    listed = listed_at(provider.base_url)
    why = f"no price is configured, and the price list has none of {host or provider.id}" if listed is None else ""
    return ProviderPrices(configured, listed=listed, why_unknown=why)


def _route(entry: schema.RouteEntry, ceilings: Mapping[str, NanoUsd], usual: str | None) -> RouteRules:
    cost_tier = entry.cost_tier or usual
    targets = {}
    for target in _long_forms(entry):
        rules = TargetRules(
            tariff=None if target.price is None else money.tariff(target.price),
            ceiling_nanousd=None if target.cost_tier is None else ceilings[target.cost_tier],
            output_tokens_max=target.max_output_tokens,
            cost_tier=target.cost_tier,
        )
        if rules != TargetRules():
            targets[TargetName(target.target)] = rules
    return RouteRules(
        ceiling_nanousd=None if cost_tier is None else ceilings[cost_tier],
        unpriced=money.policy(entry.unpriced),
        targets=targets,
        cost_tier=cost_tier,
    )


def _long_forms(entry: schema.RouteEntry) -> Iterator[schema.TierEntry]:
    """Every target of a route that may have rules of its own."""
    for tier in entry.tiers:
        if isinstance(tier, schema.TierEntry):
            yield tier
        elif isinstance(tier, schema.BalancedTier):
            yield from (target for target in tier.targets if not isinstance(target, str))
