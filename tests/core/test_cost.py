"""What answers cost: computed by hand, against fractions, and never more than their worst case."""

import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import usage
from proxy.core.cost import (
    CEILING_DEFAULT,
    OUTPUT_TOKENS_DEFAULT,
    Bounds,
    Charge,
    UnpricedMode,
    UnpricedPolicy,
    bounds,
    charge,
    cost,
    hold,
    output_cap_that_fits,
    rank,
    worst_case,
)
from proxy.core.prompt import Prompt
from proxy.core.tariff import (
    DAY_S,
    FREE,
    LOCAL,
    MINUTE_MS,
    Period,
    Price,
    Rates,
    Tariff,
    Tier,
    flat,
    rates,
    unknown,
)
from proxy.terms import NanoUsd, PriceSource, Usage

NOON = 43_200  # of 1 January 1970, UTC
NIGHT = 2 * 3600

_EACH = {"request", "image", "audio_minute", "search"}


def charged(**usd: str) -> Rates:
    """Rates as price pages print them: USD for a million tokens or characters, or for one of what `_EACH` names."""
    return rates(**{name: int(Decimal(value).scaleb(12 if name in _EACH else 6)) for name, value in usd.items()})


def priced(**usd: str) -> Tariff:
    return flat(charged(**usd))


def tiered(above: int, small: Rates, large: Rates) -> Tariff:
    return Tariff((Period((Tier(0, small), Tier(above, large))),))


GPT_4O = priced(input="2.50", output="10", cached="1.25")
GPT_5_5 = tiered(272_000, charged(input="5", output="30", cached="0.50"), charged(input="10", output="45", cached="1"))
SONNET = tiered(
    200_000,
    charged(input="3", output="15", cached="0.30", cache_write="3.75", cache_write_1h="6", search="0.01"),
    charged(input="6", output="22.50", cached="0.60", cache_write="7.50", cache_write_1h="12", search="0.01"),
)
DEEPSEEK = Tariff(
    (
        Period((Tier(0, charged(input="0.15", output="0.60", cached="0.003")),)),
        Period((Tier(0, charged(input="0.30", output="1.20", cached="0.006")),), daily=(3600, 4 * 3600)),
    )
)
WHISPER_TURBO = flat(replace(rates(audio_minute=666_666_667), audio_ms_min=10_000))  # 0.04 USD an hour

# what is asked: tariff, raw usage, seconds of the epoch -> nano-USD
BY_HAND: dict[str, tuple[Tariff, dict[str, Any], int, int]] = {
    "openai/gpt-4o": (
        GPT_4O,
        {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
        NOON,
        7_500_000,  # 1000 x 2.50 + 500 x 10 = 7,500 micro-USD
    ),
    "openai/gpt-4o, cached": (
        GPT_4O,
        {"prompt_tokens": 2006, "completion_tokens": 300, "prompt_tokens_details": {"cached_tokens": 1920}},
        NOON,
        5_615_000,  # 86 x 2.50 + 1920 x 1.25 + 300 x 10
    ),
    "openai/gpt-4o-mini": (
        priced(input="0.15", output="0.60"),
        {"prompt_tokens": 57, "completion_tokens": 17},
        NOON,
        18_750,  # 8.55 + 10.20
    ),
    "openai/gpt-5.5, reasoning is output": (
        GPT_5_5,
        {"input_tokens": 75, "output_tokens": 1186, "output_tokens_details": {"reasoning_tokens": 1024}},
        NOON,
        35_955_000,  # 75 x 5 + 1186 x 30
    ),
    "openai/gpt-5.5, at the edge of a tier": (
        GPT_5_5,
        {"prompt_tokens": 272_000, "completion_tokens": 1000},
        NOON,
        1_390_000_000,  # 272,000 x 5 + 1000 x 30
    ),
    "openai/gpt-5.5, above it": (
        GPT_5_5,
        {"prompt_tokens": 272_001, "completion_tokens": 1000},
        NOON,
        2_765_010_000,  # 272,001 x 10 + 1000 x 45
    ),
    "anthropic/claude-sonnet, cached beside": (
        SONNET,
        {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 4},
        NOON,
        174_000,  # 3 x 3 + 100 x 0.30 + 20 x 3.75 + 4 x 15
    ),
    "anthropic/claude-sonnet, kept an hour": (
        SONNET,
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 100,
        },
        NOON,
        6_180_000,  # 10 x 3 + 600 x 3.75 + 400 x 6 + 100 x 15
    ),
    "anthropic/claude-sonnet, web searches": (
        SONNET,
        {"input_tokens": 1000, "output_tokens": 200, "server_tool_use": {"web_search_requests": 2}},
        NOON,
        26_000_000,  # 1000 x 3 + 200 x 15 + 2 x 10,000
    ),
    "anthropic/claude-sonnet, cached input makes the tier": (
        SONNET,
        {"input_tokens": 150_000, "cache_read_input_tokens": 60_000, "output_tokens": 1000},
        NOON,
        958_500_000,  # 150,000 x 6 + 60,000 x 0.60 + 1000 x 22.50
    ),
    "deepseek/deepseek-flash, hit and miss": (
        DEEPSEEK,
        {
            "prompt_tokens": 339,
            "completion_tokens": 92,
            "prompt_cache_hit_tokens": 320,
            "prompt_cache_miss_tokens": 19,
        },
        NOON,
        59_010,  # 19 x 0.15 + 320 x 0.003 + 92 x 0.60
    ),
    "deepseek/deepseek-flash, at its peak": (
        DEEPSEEK,
        {"prompt_tokens": 339, "completion_tokens": 92, "prompt_cache_hit_tokens": 320},
        NIGHT,
        118_020,
    ),
    "xai/grok-3-mini, reasoning beside: as the recorded bill": (
        priced(input="0.30", output="0.50", cached="0.075"),
        {
            "prompt_tokens": 12,
            "completion_tokens": 1,
            "total_tokens": 241,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 228},
        },
        NOON,
        117_650,  # 10 x 0.30 + 2 x 0.075 + 229 x 0.50
    ),
    "gemini/gemini-2.5-flash, reasoning untold": (
        priced(input="0.30", output="2.50"),
        {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100},
        NOON,
        104_800,  # 66 x 0.30 + 34 x 2.50
    ),
    "moonshot/kimi, cached at the top": (
        priced(input="0.60", output="2.50", cached="0.15"),
        {"prompt_tokens": 19, "completion_tokens": 21, "cached_tokens": 10},
        NOON,
        59_400,  # 9 x 0.60 + 10 x 0.15 + 21 x 2.50
    ),
    "mistral/mistral-small": (
        priced(input="0.15", output="0.60", cached="0.015"),
        {"completion_tokens": 3, "num_cached_tokens": 700, "prompt_tokens": 781, "total_tokens": 784},
        NOON,
        24_450,  # 81 x 0.15 + 700 x 0.015 + 3 x 0.60
    ),
    "groq/gpt-oss-120b": (
        priced(input="0.15", output="0.60"),
        {"queue_time": 0.02, "prompt_tokens": 12, "completion_tokens": 26, "total_tokens": 38},
        NOON,
        17_400,
    ),
    "perplexity/sonar, a fee for each request": (
        priced(input="1", output="1", request="0.012"),
        {"prompt_tokens": 10, "completion_tokens": 251, "total_tokens": 261},
        NOON,
        12_261_000,
    ),
    "perplexity/sonar-deep-research, reasoning and searches": (
        priced(input="2", output="8", reasoning="3", search="0.005"),
        {"prompt_tokens": 100, "completion_tokens": 1000, "reasoning_tokens": 400, "num_search_queries": 6},
        NOON,
        36_200_000,  # 100 x 2 + 600 x 8 + 400 x 3 + 6 x 5000
    ),
    "openai/gpt-audio": (
        priced(input="2.50", output="10", audio_input="32", audio_output="64"),
        {
            "prompt_tokens": 100,
            "completion_tokens": 200,
            "prompt_tokens_details": {"audio_tokens": 60},
            "completion_tokens_details": {"audio_tokens": 150},
        },
        NOON,
        12_120_000,  # 40 x 2.50 + 60 x 32 + 50 x 10 + 150 x 64
    ),
    "openai/gpt-4o-transcribe": (
        priced(input="2.50", output="10", audio_input="6"),
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            "output_tokens": 45,
            "total_tokens": 59,
        },
        NOON,
        534_000,  # 14 x 6 + 45 x 10
    ),
    "openai/whisper-1, by the minute": (
        priced(audio_minute="0.006"),
        {"type": "duration", "seconds": 9},
        NOON,
        900_000,  # 0.15 minutes
    ),
    "openai/whisper-1, parts of a second": (
        priced(audio_minute="0.006"),
        {"type": "duration", "seconds": 8.47},
        NOON,
        847_000,
    ),
    "groq/whisper-large-v3-turbo, at least ten seconds": (
        WHISPER_TURBO,
        {"seconds": 3},
        NOON,
        111_112,  # 10 s of 0.04 USD an hour: 111,111.1 nano-USD
    ),
    "mistral/voxtral, its text is not charged": (
        priced(audio_minute="0.003"),
        {"prompt_audio_seconds": 36, "prompt_tokens": 13, "completion_tokens": 151, "total_tokens": 3000},
        NOON,
        1_800_000,
    ),
    "openai/gpt-image-1": (
        priced(input="5", output="40", image_input="10"),
        {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 1056,
            "total_tokens": 1106,
        },
        NOON,
        42_690_000,  # 10 x 5 + 40 x 10 + 1056 x 40
    ),
    "openai/gpt-image-1.5, its output is images": (
        priced(input="5", output="10", image_input="8", image_output="32"),
        {
            "input_tokens": 20,
            "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
            "output_tokens": 100,
            "total_tokens": 120,
        },
        NOON,
        3_300_000,  # 20 x 5 + 100 x 32
    ),
    "two images at a price each": (priced(image="0.04"), {"images": 2}, NOON, 80_000_000),
    "openai/tts-1, by the character": (priced(character="15"), {"characters": 1000}, NOON, 15_000_000),
    "openai/text-embedding-3-small": (priced(input="0.02"), {"prompt_tokens": 8, "total_tokens": 8}, NOON, 160),
    "voyage, embeddings": (priced(input="0.06"), {"total_tokens": 12}, NOON, 720),
    "cohere, rerank": (priced(search="0.002"), {"search_units": 1}, NOON, 2_000_000),
    "openai/omni-moderation": (FREE, {"prompt_tokens": 10, "total_tokens": 10}, NOON, 0),
    "less than a nano-USD is rounded up": (
        priced(input="0.0001", output="0"),
        {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1},
        NOON,
        1,
    ),
}


@pytest.mark.parametrize(("tariff", "raw", "at_s", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_computed_by_hand(tariff: Tariff, raw: dict[str, Any], at_s: int, expected: int) -> None:
    used = usage.normalise(raw)
    assert used is not None
    assert cost(used, tariff, at_s) == expected


def test_what_is_both_cached_and_audio_costs_what_audio_does() -> None:
    tariff = priced(input="2", output="0", cached="1", audio_input="30")
    used = Usage(100, 0, cached_tokens=60, audio_input_tokens=100)
    assert cost(used, tariff, NOON) == 100 * 30 * 1000
    # Where audio has no rate of its own, it takes nothing from the cache's discount.
    assert cost(used, priced(input="2", output="0", cached="1"), NOON) == (40 * 2 + 60) * 1000


# Who reports: raw usage, nano-USD
REPORTED: dict[str, tuple[dict[str, Any], int]] = {
    "OpenRouter": ({"prompt_tokens": 254, "completion_tokens": 5, "cost": 0.000837, "is_byok": False}, 837_000),
    "OpenRouter, free": ({"prompt_tokens": 254, "completion_tokens": 5, "cost": 0}, 0),
    "OpenRouter, a key of one's own": (
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "cost": 0.95,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 19},
        },
        19_950_000_000,
    ),
    "xAI": ({"prompt_tokens": 12, "completion_tokens": 229, "cost_in_usd_ticks": 1_176_500}, 117_650),
    "Perplexity": (
        {"input_tokens": 10, "output_tokens": 251, "cost": {"request_cost": 0.005, "total_cost": 0.0053}},
        5_300_000,
    ),
    "a Pydantic AI gateway": (
        {"input_tokens": 494, "output_tokens": 5, "pydantic_ai_gateway": {"cost_estimate": 0.0006675}},
        667_500,
    ),
}


@pytest.mark.parametrize(("raw", "expected"), REPORTED.values(), ids=REPORTED)
def test_what_a_provider_reports_comes_before_every_price(raw: dict[str, Any], expected: int) -> None:
    used = usage.normalise(raw)
    assert used is not None
    reported = Charge(NanoUsd(expected), PriceSource.REPORTED)
    listed = Price(GPT_4O, PriceSource.LISTED)
    for price in (listed, Price(GPT_4O, PriceSource.CONFIGURED), LOCAL, unknown("no list")):
        assert charge(used, price, NOON, UnpricedPolicy()) == reported


def test_the_cost_of_a_litellm_upstream_stands_in_a_header() -> None:
    told = usage.cost_in_headers({"x-litellm-response-cost": "1.8750000000000002e-05"})
    assert told is not None
    used = replace(Usage(57, 17), cost_nanousd=told)
    assert charge(used, unknown(""), NOON, UnpricedPolicy()) == Charge(NanoUsd(18_750), PriceSource.REPORTED)


USED = Usage(1000, 500)


@pytest.mark.parametrize(
    ("price", "policy", "expected"),
    [
        (Price(GPT_4O, PriceSource.CONFIGURED), UnpricedPolicy(), (7_500_000, PriceSource.CONFIGURED)),
        (Price(GPT_4O, PriceSource.LISTED), UnpricedPolicy(UnpricedMode.FREE), (7_500_000, PriceSource.LISTED)),
        (LOCAL, UnpricedPolicy(), (0, PriceSource.LOCAL)),
        (unknown(""), UnpricedPolicy(), (CEILING_DEFAULT, PriceSource.UNKNOWN)),
        (unknown(""), UnpricedPolicy(UnpricedMode.RESERVE, NanoUsd(7)), (7, PriceSource.UNKNOWN)),
        (unknown(""), UnpricedPolicy(UnpricedMode.REJECT, NanoUsd(7)), (7, PriceSource.UNKNOWN)),
        (unknown(""), UnpricedPolicy(UnpricedMode.FREE), (0, PriceSource.UNKNOWN)),
    ],
)
def test_who_says_what_is_booked(price: Price, policy: UnpricedPolicy, expected: tuple[int, PriceSource]) -> None:
    assert charge(USED, price, NOON, policy) == Charge(NanoUsd(expected[0]), expected[1])


@pytest.mark.parametrize(("reported", "source"), [(0, "listed"), (7_499_999, "listed"), (7_500_001, "reported")])
def test_a_report_of_an_answer_that_broke_off_is_a_part(reported: int, source: str) -> None:
    used = replace(USED, cost_nanousd=NanoUsd(reported))
    made = charge(used, Price(GPT_4O, PriceSource.LISTED), NOON, UnpricedPolicy(), whole=False)
    assert made == Charge(NanoUsd(max(reported, 7_500_000)), PriceSource(source))


def test_a_hold_by_policy() -> None:
    limits = Bounds(1000, 500)
    assert hold(Price(GPT_4O, PriceSource.LISTED), limits, NOON, UnpricedPolicy()) == 7_500_000
    assert hold(LOCAL, limits, NOON, UnpricedPolicy()) == 0
    assert hold(unknown(""), limits, NOON, UnpricedPolicy()) == CEILING_DEFAULT
    assert hold(unknown(""), limits, NOON, UnpricedPolicy(UnpricedMode.FREE)) == 0
    assert hold(unknown(""), limits, NOON, UnpricedPolicy(UnpricedMode.REJECT)) is None


def test_the_bounds_of_a_request() -> None:
    assert bounds(Prompt(1001), output_cap=100, choices=3) == Bounds(501, 300)
    pictures = bounds(Prompt(1000, images=2, image_bytes=9_999_999), output_cap=100)
    assert pictures == Bounds(4500, 100, has_images=True)
    assert bounds(Prompt(0, images=2), image_tokens_max=85).input_tokens == 170
    heard = bounds(Prompt(0, audio_bytes=6400, has_audio=True, keeps_an_hour=True))
    assert heard == Bounds(100, 0, has_audio=True, keeps_an_hour=True)


def test_the_worst_case_takes_the_dearest_that_may_apply() -> None:
    # Cache writes are dearer than plain input, and an hour's only where it is asked for.
    assert worst_case(Bounds(1000, 100), SONNET, NOON) == (1000 * 3.75 + 100 * 15) * 1000
    assert worst_case(Bounds(1000, 100, keeps_an_hour=True), SONNET, NOON) == (1000 * 6 + 100 * 15) * 1000
    # The larger tier counts where the input may reach it.
    assert worst_case(Bounds(200_000), SONNET, NOON) == 200_000 * 3750
    assert worst_case(Bounds(200_001), SONNET, NOON) == 200_001 * 7500
    # Half an hour before the peak, the peak's price may apply.
    assert worst_case(Bounds(1000, 100), DEEPSEEK, 1800) == (1000 * 0.30 + 100 * 1.20) * 1000
    assert worst_case(Bounds(1000, 100), DEEPSEEK, 1800, horizon_s=1799) == (1000 * 0.15 + 100 * 0.60) * 1000
    audio = priced(input="2.50", output="10", audio_input="32", audio_output="64")
    assert worst_case(Bounds(100, 10), audio, NOON) == 350_000
    assert worst_case(Bounds(100, 10, has_audio=True), audio, NOON) == 3_840_000
    pictures = priced(input="5", output="10", image_input="8", image_output="32", image="0.04")
    assert worst_case(Bounds(100, 10, images=1), pictures, NOON) == 40_600_000
    assert worst_case(Bounds(100, 10, images=1, has_images=True), pictures, NOON) == 41_120_000


@pytest.mark.parametrize(
    ("ceiling_usd", "most", "choices", "cap"),
    [
        ("0.05", None, 1, 4096),  # 0.00250 of input leaves 0.0475: 4750 tokens
        ("0.05", 8192, 1, 4750),
        ("0.05", 1000, 1, 1000),
        ("0.01", None, 1, 750),
        ("0.01", None, 2, 375),
        ("0.01", None, 3, None),  # 250
        ("0.005", None, 1, None),  # 250 of less than 256
        ("0.00506", None, 1, 256),
        ("0.005", 250, 1, 250),  # a target whose own maximum is small
        ("0.005", 100, 1, 100),
        ("0.002", None, 1, None),  # less than the input alone
        ("0.0025", 1, 1, None),
    ],
)
def test_the_output_cap_that_fits(ceiling_usd: str, most: int | None, choices: int, cap: int | None) -> None:
    ceiling = NanoUsd(int(Decimal(ceiling_usd).scaleb(9)))
    limits = Bounds(1000, output_tokens=999_999)  # not looked at
    assert output_cap_that_fits(ceiling, limits, GPT_4O, NOON, choices=choices, most=most) == cap


def test_what_costs_nothing_fits_every_ceiling() -> None:
    assert output_cap_that_fits(NanoUsd(1), Bounds(10**6), FREE, NOON) == OUTPUT_TOKENS_DEFAULT


def test_the_cheapest_first() -> None:
    prices = {
        "nobody knows": unknown(""),
        "dear": Price(priced(input="3", output="15"), PriceSource.LISTED),
        "nor this": unknown(""),
        "cheap": Price(priced(input="0.15", output="0.60"), PriceSource.LISTED),
        "as cheap": Price(priced(input="0.15", output="0.60"), PriceSource.CONFIGURED),
        "cheap but for its fee": Price(priced(input="0.10", output="0.10", request="0.012"), PriceSource.LISTED),
        "local": LOCAL,
        "by the hour": Price(DEEPSEEK, PriceSource.LISTED),
    }
    assert rank(prices, prices.__getitem__, NOON) == (
        "local",
        "cheap",
        "as cheap",
        "by the hour",
        "dear",
        "cheap but for its fee",
        "nobody knows",
        "nor this",
    )
    assert rank(["by the hour", "as cheap"], prices.__getitem__, NIGHT) == ("as cheap", "by the hour")
    assert rank([], prices.__getitem__, NOON) == ()


# Properties.

_RATE = st.integers(0, 10**8)
_COUNT = st.integers(0, 3 * 10**6)
_SMALL = st.integers(0, 1000)


def _rates(request: st.SearchStrategy[int] = _RATE) -> st.SearchStrategy[Rates]:
    optional = st.none() | _RATE
    return st.builds(
        rates,
        input=_RATE,
        output=_RATE,
        cached=optional,
        cache_write=optional,
        cache_write_1h=optional,
        reasoning=optional,
        audio_input=optional,
        audio_output=optional,
        image_input=optional,
        image_output=optional,
        request=request,
        image=_RATE,
        audio_minute=_RATE,
        character=_RATE,
        search=_RATE,
    )


_KINDS_IN = ("plain_in", "cached", "written", "an_hour", "audio_in", "image_in")
_KINDS_OUT = ("plain_out", "reasoning", "audio_out", "image_out")
_UNITS = ("images", "audio_ms", "characters", "searches")
_PARTS = st.fixed_dictionaries(dict.fromkeys(_KINDS_IN + _KINDS_OUT, _COUNT) | dict.fromkeys(_UNITS, _SMALL))


def used_of(parts: dict[str, int]) -> Usage:
    """An answer whose kinds of tokens do not overlap."""
    return Usage(
        input_tokens=sum(parts[name] for name in _KINDS_IN),
        output_tokens=sum(parts[name] for name in _KINDS_OUT),
        cached_tokens=parts["cached"],
        cache_write_tokens=parts["written"] + parts["an_hour"],
        reasoning_tokens=parts["reasoning"],
        cache_write_1h_tokens=parts["an_hour"],
        audio_input_tokens=parts["audio_in"],
        audio_output_tokens=parts["audio_out"],
        image_input_tokens=parts["image_in"],
        image_output_tokens=parts["image_out"],
        images=parts["images"],
        audio_ms=parts["audio_ms"],
        characters=parts["characters"],
        searches=parts["searches"],
    )


def exact_nanousd(parts: dict[str, int], charged: Rates) -> Fraction:
    """The slow, obvious reference."""
    lines = {
        "plain_in": charged.input,
        "cached": charged.cached,
        "written": charged.cache_write,
        "an_hour": charged.cache_write_1h,
        "audio_in": charged.audio_input,
        "image_in": charged.image_input,
        "plain_out": charged.output,
        "reasoning": charged.reasoning,
        "audio_out": charged.audio_output,
        "image_out": charged.image_output,
        "images": charged.image,
        "characters": charged.character,
        "searches": charged.search,
    }
    picousd = sum(Fraction(parts[name]) * rate for name, rate in lines.items())
    picousd += Fraction(parts["audio_ms"], MINUTE_MS) * charged.audio_minute + charged.request
    return picousd / 1000


@given(parts=_PARTS, charged=_rates())
def test_exact_and_rounded_up_once(parts: dict[str, int], charged: Rates) -> None:
    assert cost(used_of(parts), flat(charged), NOON) == math.ceil(exact_nanousd(parts, charged))


@given(parts=_PARTS, more=_PARTS, charged=_rates())
def test_more_of_anything_never_costs_less(parts: dict[str, int], more: dict[str, int], charged: Rates) -> None:
    tariff = flat(charged)
    both = {name: count + more[name] for name, count in parts.items()}
    assert cost(used_of(both), tariff, NOON) >= cost(used_of(parts), tariff, NOON)


@given(parts=_PARTS, more=_PARTS, charged=_rates(request=st.just(0)))
def test_a_sum_costs_what_its_parts_do_within_rounding(
    parts: dict[str, int], more: dict[str, int], charged: Rates
) -> None:
    tariff = flat(charged)
    both = {name: count + more[name] for name, count in parts.items()}
    apart = cost(used_of(parts), tariff, NOON) + cost(used_of(more), tariff, NOON)
    assert 0 <= apart - cost(used_of(both), tariff, NOON) <= 1


_SIZES = st.lists(st.integers(1, 2 * 10**6), max_size=3, unique=True).map(sorted)


@st.composite
def _tariffs(draw: st.DrawFn) -> Tariff:
    periods = []
    for number in range(draw(st.integers(1, 4))):
        tiers = [Tier(0, draw(_rates())), *(Tier(above, draw(_rates())) for above in draw(_SIZES))]
        since_s = draw(st.none() | st.integers(0, 3 * DAY_S)) if number else None
        daily = draw(st.none() | st.tuples(*[st.integers(0, DAY_S - 1)] * 2)) if number else None
        periods.append(Period(tuple(tiers), since_s, daily))
    return Tariff(tuple(periods))


_WITHIN = st.fixed_dictionaries(
    {"input": st.integers(0, 3 * 10**6), "output": st.integers(0, 10**6)}
    | {name: st.integers(0, 100) for name in ("images", "audio_ms", "characters", "searches")}
    | {name: st.booleans() for name in ("has_audio", "has_images", "keeps_an_hour")}
)


@st.composite
def _used_within(draw: st.DrawFn, limits: Bounds) -> Usage:
    """Any answer within some bounds, its kinds overlapping as they like."""
    taken, given = draw(st.integers(0, limits.input_tokens)), draw(st.integers(0, limits.output_tokens))
    cached = draw(st.integers(0, taken))
    written = draw(st.integers(0, taken - cached))
    audio_in = draw(st.integers(0, taken)) if limits.has_audio else 0
    audio_out = draw(st.integers(0, given)) if limits.has_audio else 0
    return Usage(
        input_tokens=taken,
        output_tokens=given,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(st.integers(0, given)),
        cache_write_1h_tokens=draw(st.integers(0, written)) if limits.keeps_an_hour else 0,
        audio_input_tokens=audio_in,
        audio_output_tokens=audio_out,
        image_input_tokens=draw(st.integers(0, taken - audio_in)) if limits.has_images else 0,
        image_output_tokens=draw(st.integers(0, given - audio_out)) if limits.has_images else 0,
        images=draw(st.integers(0, limits.images)),
        audio_ms=draw(st.integers(0, limits.audio_ms)),
        characters=draw(st.integers(0, limits.characters)),
        searches=draw(st.integers(0, limits.searches)),
    )


def limits_of(most: dict[str, Any]) -> Bounds:
    named = {name: value for name, value in most.items() if name not in {"input", "output"}}
    return Bounds(most["input"], most["output"], **named)


@given(data=st.data(), tariff=_tariffs(), most=_WITHIN, at_s=st.integers(0, 4 * DAY_S))
def test_no_answer_within_the_bounds_costs_more_than_the_worst_case(
    data: st.DataObject, tariff: Tariff, most: dict[str, Any], at_s: int
) -> None:
    limits = limits_of(most)
    used = data.draw(_used_within(limits))
    later_s = data.draw(st.integers(0, 3600))
    assert cost(used, tariff, at_s + later_s) <= worst_case(limits, tariff, at_s)


@given(
    tariff=_tariffs(),
    most=_WITHIN,
    at_s=st.integers(0, 4 * DAY_S),
    ceiling=st.integers(0, 10**12),
    asked=st.tuples(st.integers(1, 8), st.none() | st.integers(1, 10**5)),
)
def test_the_cap_is_the_largest_that_fits(
    tariff: Tariff, most: dict[str, Any], at_s: int, ceiling: int, asked: tuple[int, int | None]
) -> None:
    choices, largest = asked
    limits = limits_of(most)
    upmost = OUTPUT_TOKENS_DEFAULT if largest is None else largest

    def fits(cap: int) -> bool:
        return worst_case(replace(limits, output_tokens=cap * choices), tariff, at_s) <= ceiling

    cap = output_cap_that_fits(NanoUsd(ceiling), limits, tariff, at_s, choices=choices, most=largest)
    if cap is None:
        assert not fits(min(256, upmost))
    else:
        assert min(256, upmost) <= cap <= upmost
        assert fits(cap)
        assert cap == upmost or not fits(cap + 1)
