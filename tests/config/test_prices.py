"""Lists made from genai-prices: the same models for the same names, the same costs, and nothing imported for nothing."""

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import ROUND_CEILING, Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers as theirs
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, Provider, TieredPrices

from proxy.config import prices as prices_module
from proxy.config.prices import LISTED_AT, listed_at, price_lists, version
from proxy.config.pricing import with_price_list
from proxy.config.resolve import parse, with_demo
from proxy.core.cost import cost
from proxy.core.routing import RoutingTable
from proxy.core.tariff import DAY_S, FREE, Period, Tariff, Tier, Unpriced, rates
from proxy.providers.rows import CATALOGUE
from proxy.terms import AccountId, PriceSource, ProviderId, Usage

WANTED = sorted(set(LISTED_AT.values()))
LISTS = price_lists(WANTED)
PROVIDERS: dict[str, Provider] = {provider.id: provider for provider in theirs if provider.id in LISTS}
NOON = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())

# Our names of what an answer used, and theirs.
USED = {
    "text": (Usage(1200, 340), {"input_tokens": 1200, "output_tokens": 340}),
    "cached": (
        Usage(90_000, 3, cached_tokens=70_000, cache_write_tokens=5000),
        {"input_tokens": 90_000, "cache_read_tokens": 70_000, "cache_write_tokens": 5000, "output_tokens": 3},
    ),
    "large": (Usage(600_001, 77), {"input_tokens": 600_001, "output_tokens": 77}),
    "at the edge": (Usage(200_000, 1), {"input_tokens": 200_000, "output_tokens": 1}),
    "kept an hour": (
        Usage(1000, 10, cache_write_tokens=900, cache_write_1h_tokens=300),
        {"input_tokens": 1000, "cache_write_tokens": 900, "cache_write_1h_tokens": 300, "output_tokens": 10},
    ),
    "searches": (Usage(10, 10, searches=3), {"input_tokens": 10, "output_tokens": 10, "web_searches": 3}),
    "heard": (
        Usage(0, 0, audio_ms=61_000),
        {"audio_seconds": 61, "input_audio_seconds": 61},
    ),
    "heard a moment": (Usage(0, 0, audio_ms=1000), {"audio_seconds": 1, "input_audio_seconds": 1}),
    "spoken": (Usage(0, 0, characters=999), {"input_characters": 999}),
}
# The hours of DeepSeek's peak, both sides of a change of prices, and long ago.
MOMENTS = [NOON, NOON - NOON % DAY_S + 2 * 3600, int(datetime(2026, 9, 9, 23, 59, 59, tzinfo=UTC).timestamp()), 0]
# What we charge and they do not, or the other way round, by what an answer cannot tell or by a choice of ours.
APART = frozenset({"input_annotated_document_kpages", "input_document_kpages", "input_text_messages_kcount"})


def names(provider: Provider) -> set[str]:
    """Names that its rules speak of, as they are and with something behind them."""
    found: set[str] = set()

    def collect(clause: Any) -> None:
        for inner in getattr(clause, "or_", None) or getattr(clause, "and_", None) or ():
            collect(inner)
        found.update(value for value in vars(clause).values() if isinstance(value, str))

    for model in provider.models:
        found.add(model.id)
        collect(model.match)
    return found | {f"{name}-20260102" for name in found} | {"nothing-like-it"}


@pytest.mark.parametrize("name", WANTED)
def test_the_same_model_for_every_name(name: str) -> None:
    for asked in names(PROVIDERS[name]):
        expected = PROVIDERS[name].find_model(asked)
        found = LISTS[name].find(asked)
        if not asked.startswith("models/"):
            assert (found.id if found else None) == (expected.id if expected else None), asked


def charges(model: ModelInfo) -> set[str]:
    every = [one.prices for one in model.prices] if isinstance(model.prices, list) else [model.prices]
    return {unit for prices in every for unit, value in vars(prices).items() if value is not None}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("kind", USED)
def test_the_same_cost_for_every_model(name: str, kind: str) -> None:
    used, asked = USED[kind]
    compared = 0
    for ours, model in zip(LISTS[name].models, PROVIDERS[name].models, strict=True):
        assert ours.id == model.id
        if isinstance(ours.tariff, Unpriced) or charges(model) & APART:
            continue
        for at_s in MOMENTS:
            said = model.calc_price(
                genai_prices.Usage(**asked),
                PROVIDERS[name],
                genai_request_timestamp=datetime.fromtimestamp(at_s, UTC),
            )
            exact = (said.total_price * 10**9).to_integral_value(ROUND_CEILING)
            # A rate of more than six decimals is rounded up to a pico-USD, of which a thousand make one of ours.
            slack = (used.input_tokens + used.output_tokens) // 1000 + 1
            assert exact <= cost(used, ours.tariff, at_s) <= exact + slack, model.id
            compared += 1
    assert compared > 3


def test_most_rates_are_the_same_to_the_last_digit() -> None:
    """The bound above lets rounded rates pass; few are."""
    apart = 0
    total = 0
    used, asked = USED["cached"]
    for name in WANTED:
        for ours, model in zip(LISTS[name].models, PROVIDERS[name].models, strict=True):
            if isinstance(ours.tariff, Tariff) and not charges(model) & APART:
                said = model.calc_price(
                    genai_prices.Usage(**asked),
                    PROVIDERS[name],
                    genai_request_timestamp=datetime.fromtimestamp(NOON, UTC),
                )
                total += 1
                apart += cost(used, ours.tariff, NOON) != (said.total_price * 10**9).to_integral_value(ROUND_CEILING)
    assert total > 1200
    assert apart < 30


def one(prices: ModelPrice | list[ConditionalPrice], model_id: str = "x") -> Tariff | Unpriced:
    """What becomes of one model's prices."""
    return prices_module._tariff(ModelInfo(model_id, PROVIDERS["openai"].models[0].match, prices=prices), 0)


def usd(text: str) -> Decimal:
    return Decimal(text)


def test_rates_that_are_finer_than_a_step_are_rounded_up() -> None:
    made = one(ModelPrice(input_mtok=usd("0.0833333333333333"), output_mtok=usd("0.13999999999999999")))
    assert isinstance(made, Tariff)
    charged = made.rates(0, 0)
    assert (charged.input, charged.output) == (83_334, 140_000)


def test_tiers_of_several_kinds_are_joined() -> None:
    made = one(
        ModelPrice(
            input_mtok=TieredPrices(usd("1"), [genai_prices.types.Tier(100, usd("2"))]),
            output_mtok=TieredPrices(usd("5"), [genai_prices.types.Tier(300, usd("6"))]),
            cache_read_mtok=usd("0.1"),
        )
    )
    steps = [(0, 1, 5), (100, 2, 5), (300, 2, 6)]
    tiers = tuple(
        Tier(above, rates(input=taken * 10**6, output=given * 10**6, cached=10**5)) for above, taken, given in steps
    )
    assert made == Tariff((Period(tiers),))


def test_days_and_hours_are_utc() -> None:
    def price(dollars: str) -> ModelPrice:
        return ModelPrice(input_mtok=usd(dollars))

    east = timezone(timedelta(hours=8))
    made = one(
        [
            ConditionalPrice(prices=price("1")),
            ConditionalPrice(genai_prices.types.StartDateConstraint(date(1970, 1, 3)), prices=price("2")),
            ConditionalPrice(genai_prices.types.TimeOfDateConstraint(time(7, tzinfo=east), time(9)), prices=price("3")),
        ]
    )
    assert isinstance(made, Tariff)
    assert [(period.since_s, period.daily) for period in made.periods] == [
        (None, None),
        (2 * DAY_S, None),
        (None, (23 * 3600, 9 * 3600)),
    ]


@pytest.mark.parametrize(
    ("provider", "model", "known"),
    [
        ("openai", "omni-moderation-latest", True),
        ("openrouter", "meta-llama/llama-3.3-70b-instruct:free", True),
        ("mistral", "mistral-ocr-latest", False),  # by the page
        ("google", "gemma-4-31b-it", False),  # neither a price nor a zero
        ("cerebras", "qwen-3-coder-480b", False),
    ],
)
def test_an_entry_without_a_price_is_unknown_unless_its_name_says_that_it_is_free(
    provider: str, model: str, known: bool
) -> None:
    found = LISTS[provider].find(model)
    assert found is not None
    if known:
        assert found.tariff is FREE
    else:
        assert isinstance(found.tariff, Unpriced)


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", None),
        ("https://api.openai.com.example.com/v1", None),
        ("https://open.bigmodel.cn/api/paas/v4", "zhipuai"),
        ("https://router.huggingface.co/v1", None),
        ("http://localhost:11434/v1", None),
    ],
)
def test_a_price_belongs_to_whoever_stands_at_the_address(base_url: str, name: str | None) -> None:
    assert listed_at(base_url) == name


def test_every_provider_of_the_catalogue_is_listed_or_known_to_be_missing() -> None:
    without = {row.id for row in CATALOGUE.values() if listed_at(row.base_url) is None}
    assert without == {
        "azure",
        "dashscope",
        "github-models",
        "groq",  # its address is a template
        "huggingface",
        "llama.cpp",
        "lmstudio",
        "ollama",
        "vllm",
        "zhipu",  # likewise
    }
    assert set(LISTS) == set(WANTED), "a provider that the list calls otherwise now"


def table(text: str, environ: dict[str, str] | None = None) -> RoutingTable:
    return parse(text, "routes.yaml", environ or {})


def source(made: RoutingTable, provider: str, model: str) -> PriceSource:
    return made.pricing.price(ProviderId(provider), model).source


def test_the_lists_of_the_active_providers_are_looked_up() -> None:
    made = with_price_list(
        table(
            "providers: {acme: {like: openai, api_key: env:ACME}, moved: {like: openai, base_url: 'https://a.example'}}",
            {"ACME": "x", "OPENAI_API_KEY": "x", "GROQ_API_KEY": "x"},
        )
    )
    assert set(made.pricing.lists) == {"openai", "groq"}
    assert made.pricing.edition == version() == f"genai-prices {genai_prices.__version__}"
    assert source(made, "openai", "gpt-4o") is PriceSource.LISTED
    assert source(made, "acme", "gpt-4o") is PriceSource.LISTED
    assert source(made, "groq", "openai/gpt-oss-120b") is PriceSource.LISTED
    assert source(made, "moved", "gpt-4o") is PriceSource.UNKNOWN
    assert source(made, "anthropic", "claude-sonnet-4-5") is PriceSource.UNKNOWN


def test_the_baseline_has_a_price_although_nobody_may_ask_it() -> None:
    made = with_price_list(table("{baseline: openai/gpt-4o, accounts: {acme: {providers: {groq: {}}}}}"))
    assert made.providers[ProviderId("openai")].inactive is not None
    assert source(made, "openai", "gpt-4o") is PriceSource.LISTED
    assert source(made.of(AccountId("acme")), "openai", "gpt-4o") is PriceSource.LISTED


def test_lists_may_be_looked_up_for_others() -> None:
    made = with_price_list(table("{}"), [ProviderId("anthropic"), ProviderId("ollama")])
    assert set(made.pricing.lists) == {"anthropic"}


@pytest.mark.parametrize(
    ("model", "input_usd", "output_usd"),
    [
        ("openrouter/openai/gpt-4o-mini", "0.15", "0.6"),
        ("openai/gpt-4o", "2.5", "10"),
        ("openai/ft:gpt-4o-mini-2024-07-18:acme::x", "0.3", "1.2"),
        ("anthropic/claude-sonnet-4-5", "3", "15"),
        ("deepseek/deepseek-flash", "0.15", "0.6"),
        ("gemini/models/gemini-2.5-flash", "0.3", "2.5"),
        ("moonshot/kimi-k3", "3", "15"),
        ("xai/grok-4.7", "2", "6"),
        ("perplexity/perplexity/sonar", "0.25", "2.5"),
        ("zhipu/glm-4.6", "0.6", "2.2"),
    ],
)
def test_known_prices(model: str, input_usd: str, output_usd: str) -> None:
    provider, _, name = model.partition("/")
    made = with_price_list(table("{}"), [ProviderId(provider)]).pricing.price(ProviderId(provider), name)
    assert isinstance(made.tariff, Tariff)
    charged = made.tariff.rates(NOON, 0)
    assert (charged.input, charged.output) == (int(usd(input_usd) * 10**6), int(usd(output_usd) * 10**6))


IDLE = """
import sys
from proxy.config.pricing import with_price_list
from proxy.config.resolve import parse, with_demo
table = with_price_list(parse(sys.argv[1], "routes.yaml", {}, listening=["ollama"]))
table = with_demo(table, "http://127.0.0.1:9/v1")
print([name for name in ("genai_prices", "httpx2") if name in sys.modules], table.pricing.lists)
"""


@pytest.mark.parametrize("text", ["{}", "routes: {a: {tiers: [openai/gpt-4o, ollama/x]}}"])
def test_nothing_is_imported_where_nobody_needs_a_price(text: str) -> None:
    done = subprocess.run([sys.executable, "-c", IDLE, text], capture_output=True, text=True, check=True)
    assert done.stdout == "[] {}\n"


def test_the_simulator_costs_nothing() -> None:
    made = with_demo(table("{}"), "http://127.0.0.1:9/v1")
    assert source(made, "demo", "anything") is PriceSource.LOCAL
