"""Money in the routes file: read exactly, told where it is wrong, and what is held back refused by its name."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import money, schema
from proxy.config.problem import ConfigError
from proxy.config.resolve import parse, with_demo
from proxy.core.cost import UnpricedMode, UnpricedPolicy
from proxy.core.currency import Currency
from proxy.core.pricing import Terms
from proxy.core.routing import RoutingTable
from proxy.core.tariff import LOCAL, Period, Price, Tariff, Tier, flat, rates
from proxy.terms import NanoUsd, PriceSource, ProviderId, RouteName

BLOCKS = re.findall(
    r"^=== ([^\n]+)\n(.*?)^=== told\n(.*?)\n\n",
    (Path(__file__).parent / "money.golden").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
ABOUT_MONEY = frozenset({"cost_tiers", "cost_tier", "currency", "max_output_tokens", "unpriced"})


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing acted on the keys about money yet."""
    for section in (schema.File, schema.RouteEntry, schema.TierEntry):
        monkeypatch.setattr(section, "later", section.later | ABOUT_MONEY)


def read(text: str) -> RoutingTable:
    return parse(text, "routes.yaml", {"OPENAI_API_KEY": "x"})


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem).removeprefix("routes.yaml:") for problem in caught.value.problems]


def test_the_golden_file_is_read_whole() -> None:
    assert len(BLOCKS) == 17


@pytest.mark.parametrize(("text", "expected"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_every_problem_is_told_with_its_place(text: str, expected: str) -> None:
    assert told(text) == expected.split("\n")


HELD_BACK = """
cost_tiers: {low: -1}
currency: {}
routes:
  a: {tiers: [{target: openai/x, cost_tier: nope, max_output_tokens: 0, price: {input: 1, output: 2}}], unpriced: 5}
  b: {tiers: [openai/y], cost_tier: nope}
"""


@pytest.mark.usefixtures("held_back")
def test_what_nothing_acts_on_yet_is_refused_and_only_that_is_told() -> None:
    later = "is not supported by this version of Penstock yet. Remove it"
    assert told(HELD_BACK) == [
        f"2:1  cost_tiers: 'cost_tiers' {later}",
        f"3:1  currency: 'currency' {later}",
        f"5:34  routes.a.tiers[0].cost_tier: 'cost_tier' {later}",
        f"5:51  routes.a.tiers[0].max_output_tokens: 'max_output_tokens' {later}",
        f"5:105  routes.a.unpriced: 'unpriced' {later}",
        f"6:26  routes.b.cost_tier: 'cost_tier' {later}",
    ]


@pytest.mark.usefixtures("held_back")
def test_an_editor_is_not_offered_what_is_refused() -> None:
    made = schema.json_schema()
    assert "cost_tiers" not in made["properties"]
    assert "cost_tier" not in made["$defs"]["RouteEntry"]["properties"]
    assert "price" in made["$defs"]["TierEntry"]["properties"]
    assert "CurrencyEntry" not in made["$defs"]


WHOLE = """
currency: {code: CAD, per_usd: 1.38}
cost_tiers: {low: 0.001, high: "0.50"}
providers:
  openai:
    price:
      "gpt-*": {input: 2.5, output: "10", cached: 1.25}
      gpt-4o: {input: 3, output: 11}
  gpu-box: {like: vllm, base_url: "http://10.0.0.5:8000/v1", allow_private: true}
  cloud: {like: vllm, base_url: "https://gpu.example.com/v1"}
routes:
  a:
    cost_tier: high
    unpriced: {reserve: 0.02}
    tiers:
      - {target: openai/gpt-4o, cost_tier: low, max_output_tokens: 512}
      - target: openai/gpt-5
        price:
          input: 3
          output: 15
          request: 0.005
          image: 0.04
          audio_minute: 0.006
          characters: 15
          search: "0.000000000001"
          above:
            - {input_tokens: 400000, input: 12, output: 45}
            - {input_tokens: 200000, input: 6, output: 22.5, cached: 0.6}
      - gpu-box/llama
      - cloud/llama
  b: {tiers: [openai/gpt-5], unpriced: reject}
  c: {tiers: [openai/gpt-5], unpriced: free}
  d: {tiers: [openai/gpt-5]}
"""
OPENAI = ProviderId("openai")
FEES: dict[str, int] = {
    "request": 5 * 10**9,
    "image": 4 * 10**10,
    "audio_minute": 6 * 10**9,
    "character": 15 * 10**6,
    "search": 1,
}


def configured(tariff: Tariff) -> Price:
    return Price(tariff, PriceSource.CONFIGURED)


def test_a_file_about_money() -> None:
    pricing = read(WHOLE).pricing
    assert pricing.currency == Currency("CAD", Decimal("1.38"))
    assert pricing.cost_tiers == {"low": 10**6, "high": 5 * 10**8}
    high, kept = NanoUsd(5 * 10**8), UnpricedPolicy(UnpricedMode.RESERVE, NanoUsd(2 * 10**7))

    def terms(route: str, provider: str, model: str) -> Terms:
        return pricing.terms(RouteName(route), ProviderId(provider), model)

    own = configured(flat(rates(input=3_000_000, output=11_000_000)))
    assert terms("a", "openai", "gpt-4o") == Terms(own, NanoUsd(10**6), 512, kept, "low")
    tiers = (
        Tier(0, rates(input=3_000_000, output=15_000_000, **FEES)),
        Tier(200_000, rates(input=6_000_000, output=22_500_000, cached=600_000, **FEES)),
        Tier(400_000, rates(input=12_000_000, output=45_000_000, **FEES)),
    )
    assert terms("a", "openai", "gpt-5") == Terms(configured(Tariff((Period(tiers),))), high, None, kept, "high")
    family = configured(flat(rates(input=2_500_000, output=10_000_000, cached=1_250_000)))
    assert terms("b", "openai", "gpt-5") == Terms(family, unpriced=UnpricedPolicy(UnpricedMode.REJECT))
    assert terms("c", "openai", "gpt-5") == Terms(family, unpriced=UnpricedPolicy(UnpricedMode.FREE))
    assert terms("d", "openai", "gpt-5") == Terms(family)
    assert terms("a", "gpu-box", "llama") == Terms(LOCAL, high, None, kept, "high")
    cloud = terms("a", "cloud", "llama").price
    assert cloud.source is PriceSource.UNKNOWN, "a server of a public address is not ours, whatever it is like"


@pytest.mark.parametrize(
    ("provider", "source"),
    [
        ("ollama", "local"),
        ("vllm", "local"),
        ("dashscope", "unknown"),
        ("huggingface", "unknown"),
        ("azure", "unknown"),
        ("demo", "local"),
    ],
)
def test_who_costs_nothing_and_whom_nobody_knows(provider: str, source: str) -> None:
    pricing = with_demo(read("{}"), "http://127.0.0.1:9/v1").pricing
    assert pricing.price(ProviderId(provider), "anything").source.value == source


def test_the_cost_tier_of_the_defaults_is_every_routes_that_names_none() -> None:
    pricing = read(
        """
cost_tiers: {low: 0.001, high: 0.5}
defaults: {cost_tier: low}
routes:
  a: {tiers: [openai/x, {target: openai/y, cost_tier: high}]}
  b: {tiers: [openai/x], cost_tier: high}
"""
    ).pricing
    found = {
        (route, model): pricing.terms(RouteName(route), OPENAI, model).cost_tier
        for route, model in (("a", "x"), ("a", "y"), ("b", "x"))
    }
    assert found == {("a", "x"): "low", ("a", "y"): "high", ("b", "x"): "high"}
    assert pricing.terms(RouteName("a"), OPENAI, "x").ceiling_nanousd == 10**6
    assert pricing.terms(None, OPENAI, "x").ceiling_nanousd is None, "it was named directly: it has no route"


def test_a_cost_tier_by_its_name() -> None:
    pricing = read("cost_tiers: {low: 0.001, high: 0.5}").pricing
    assert (pricing.ceiling("low"), pricing.ceiling("high"), pricing.ceiling("Low")) == (10**6, 5 * 10**8, None)
    assert pricing.cost_tier_names() == ("low", "high")


def test_a_file_without_cost_tiers_has_the_usual_ones() -> None:
    assert read("{}").pricing.cost_tiers == {
        "ultra_economy": 100_000,
        "economy": 1_000_000,
        "standard": 10_000_000,
        "premium": 50_000_000,
        "enterprise": 500_000_000,
    }


@given(micro=st.integers(0, 10**12))
def test_a_number_is_read_as_it_stands_in_the_file(micro: int) -> None:
    """Not as the binary fraction next to it: 0.1 + 0.2 is no price."""
    written = f"{micro // 10**6}.{micro % 10**6:06}"
    for text in (written, f'"{written}"'):
        table = read(f"providers: {{openai: {{price: {{x: {{input: {text}, output: 0}}}}}}}}")
        tariff = table.pricing.price(OPENAI, "x").tariff
        assert tariff == flat(rates(input=micro))


JUNK: list[Any] = [
    None,
    True,
    "x",
    "1/2",
    "0x10",
    float("inf"),
    float("nan"),
    [],
    {},
    "",
    " ",
    "1 000",
    "1_0",
    "-1",
    "1e3",
]


@pytest.mark.parametrize("value", JUNK)
def test_what_is_no_amount(value: Any) -> None:
    assert money.amount(value) is None
