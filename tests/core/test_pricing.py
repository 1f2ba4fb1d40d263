"""Whose word counts for a target's price, and what a route says of it."""

import pytest

from proxy.core.cost import UnpricedMode, UnpricedPolicy
from proxy.core.price_list import Fits, Model, PriceList, Rule
from proxy.core.pricing import NO_PRICES, Pricing, ProviderPrices, RouteRules, TargetRules, Terms
from proxy.core.tariff import LOCAL, Price, Tariff, Unpriced, flat, rates, unknown
from proxy.terms import NanoUsd, PriceSource, ProviderId, RouteName, TargetName


def tariff(rate: int) -> Tariff:
    return flat(rates(input=rate))


LIST = PriceList(
    (
        Model("small", Rule(Fits.WHOLE, "small"), tariff(1)),
        Model("pages", Rule(Fits.WHOLE, "pages"), Unpriced("by the page")),
    )
)
PRICING = Pricing(
    providers={
        ProviderId("listed"): ProviderPrices(listed="theirs"),
        ProviderId("priced"): ProviderPrices(
            {"small": tariff(10), "s*": tariff(11), "sma*": tariff(12), "*": tariff(13)}, listed="theirs"
        ),
        ProviderId("some"): ProviderPrices({"large*": tariff(14)}, listed="theirs"),
        ProviderId("home"): ProviderPrices(local=True),
        ProviderId("metered"): ProviderPrices({"*": tariff(15)}, local=True),
        ProviderId("elsewhere"): ProviderPrices(listed="others"),
        ProviderId("stranger"): ProviderPrices(why_unknown="nobody knows it"),
    },
    lists={"theirs": LIST},
    routes={
        RouteName("plain"): RouteRules(),
        RouteName("tight"): RouteRules(
            NanoUsd(100),
            UnpricedPolicy(UnpricedMode.REJECT),
            {
                TargetName("listed/small"): TargetRules(tariff(20), NanoUsd(50), 512),
                TargetName("home/small"): TargetRules(output_tokens_max=64),
            },
        ),
    },
)
CONFIGURED, LISTED = PriceSource.CONFIGURED, PriceSource.LISTED


@pytest.mark.parametrize(
    ("provider", "model", "price"),
    [
        ("listed", "small", Price(tariff(1), LISTED)),
        ("listed", "SMALL", Price(tariff(1), LISTED)),
        ("listed", "pages", unknown("by the page")),
        ("listed", "large", unknown("the price list has no 'large' of theirs")),
        ("priced", "small", Price(tariff(10), CONFIGURED)),
        ("priced", "smart", Price(tariff(12), CONFIGURED)),
        ("priced", "sly", Price(tariff(11), CONFIGURED)),
        ("priced", "large", Price(tariff(13), CONFIGURED)),
        ("some", "large-2", Price(tariff(14), CONFIGURED)),
        ("some", "small", Price(tariff(1), LISTED)),
        ("home", "anything", LOCAL),
        ("metered", "anything", Price(tariff(15), CONFIGURED)),
        ("elsewhere", "small", unknown("the price list was not looked up")),
        ("stranger", "small", unknown("nobody knows it")),
        ("never heard of", "small", unknown("no price is configured")),
    ],
)
def test_whose_price_counts(provider: str, model: str, price: Price) -> None:
    assert PRICING.price(ProviderId(provider), model) == price
    assert PRICING.terms(RouteName("plain"), ProviderId(provider), model) == Terms(price)
    assert PRICING.terms(None, ProviderId(provider), model) == Terms(price)


def test_a_target_comes_before_its_route() -> None:
    route, reject = RouteName("tight"), UnpricedPolicy(UnpricedMode.REJECT)
    listed = PRICING.terms(route, ProviderId("listed"), "small")
    assert listed == Terms(Price(tariff(20), CONFIGURED), NanoUsd(50), 512, reject)
    assert PRICING.terms(route, ProviderId("home"), "small") == Terms(LOCAL, NanoUsd(100), 64, reject)
    assert PRICING.terms(route, ProviderId("priced"), "small").ceiling_nanousd == 100


def test_without_a_configuration_nothing_is_known() -> None:
    assert NO_PRICES.terms(None, ProviderId("openai"), "gpt-4o").price == unknown("no price is configured")
