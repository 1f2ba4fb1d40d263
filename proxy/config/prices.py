"""The price list, from the data that the package genai-prices ships: at load, and only for providers that may be asked.

The package is imported within the process that serves. With the lists of five providers that takes 0.1 s of its start and
6.5 MiB; a child process in its place took 0.3 s and 1.5 MiB, 0.1 s where it ran beside other imports (measured 2026-11-21,
2 cores, pydantic being there already). Its data is turned into lists of our own, and its look-ups, which remember every name
for good, are not used. It opens no connection.

What the data cannot tell stays unknown, and is never 0: providers that it lacks (dashscope, huggingface, azure's
deployments), a model without a price (but for those that are free by their name), and what is charged by units that no
answer counts (pages, pixels). Its variants by service tier and for batches are left out.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from proxy.core.price_list import Fits, Model, PriceList, Rule
from proxy.core.tariff import DAY_S, FREE, Period, Rates, Tariff, Tier, Unpriced, rates

if TYPE_CHECKING:
    from genai_prices import types

# Whoever stands at an address charges its prices, whatever the provider is called here. Host to provider of the list.
LISTED_AT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api.openai.com": "openai",
        "api.anthropic.com": "anthropic",
        "api.mistral.ai": "mistral",
        "generativelanguage.googleapis.com": "google",
        "api.deepseek.com": "deepseek",
        "api.moonshot.ai": "moonshotai",
        "api.z.ai": "zai",
        "open.bigmodel.cn": "zhipuai",
        "api.groq.com": "groq",
        "api.x.ai": "x-ai",
        "api.perplexity.ai": "perplexity",
        "openrouter.ai": "openrouter",
        "api.together.ai": "together",
        "api.together.xyz": "together",
        "api.fireworks.ai": "fireworks",
        "api.cerebras.ai": "cerebras",
        "api.cohere.com": "cohere",
        "api.cohere.ai": "cohere",
        "api.voyageai.com": "voyageai",
    }
)

_PICO: Final = 10**12  # of a USD
_MILLION: Final = 10**6
# A unit of the list: the name of a rate, and how many of what is counted it is the price of.
_UNITS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "input_mtok": ("input", _MILLION),
        "output_mtok": ("output", _MILLION),
        "cache_read_mtok": ("cached", _MILLION),
        "cache_write_mtok": ("cache_write", _MILLION),
        "cache_write_1h_mtok": ("cache_write_1h", _MILLION),
        "output_reasoning_mtok": ("reasoning", _MILLION),
        "input_audio_mtok": ("audio_input", _MILLION),
        "output_audio_mtok": ("audio_output", _MILLION),
        "input_image_mtok": ("image_input", _MILLION),
        "output_image_mtok": ("image_output", _MILLION),
        "requests_kcount": ("request", 1000),
        "input_mchars": ("character", _MILLION),
        "input_audio_hours": ("audio_minute", 60),
        "audio_hours": ("audio_minute", 60),
        "rerank_searches_kcount": ("search", 1000),
        "web_searches_kcount": ("search", 1000),
    }
)
_SHORTEST_MS: Final = {"groq": 10_000}  # what the shortest recording counts as (console.groq.com/docs/speech-to-text)
_CLAUSES: Final[Mapping[str, tuple[Fits, str]]] = MappingProxyType(
    {
        "ClauseEquals": (Fits.WHOLE, "equals"),
        "ClauseStartsWith": (Fits.START, "starts_with"),
        "ClauseEndsWith": (Fits.END, "ends_with"),
        "ClauseContains": (Fits.PART, "contains"),
        "ClauseRegex": (Fits.EXPRESSION, "regex"),
    }
)


def listed_at(base_url: str) -> str | None:
    """The provider of the list that stands at an address, None where the list has no prices of it."""
    return LISTED_AT.get((urlsplit(base_url).hostname or "").lower())


def price_lists(wanted: Iterable[str]) -> dict[str, PriceList]:
    """The lists of some of its providers, by the provider's name there. Imports the package, if any is wanted."""
    names = frozenset(wanted)
    if not names:
        return {}
    from genai_prices.data import providers  # noqa: PLC0415 - 70 ms and 5 MiB, for those who need a price

    return {provider.id: _list(provider) for provider in providers if provider.id in names}


def version() -> str:
    """Which edition of the data there is."""
    from genai_prices import __version__  # noqa: PLC0415

    return f"genai-prices {__version__}"


def _list(provider: "types.Provider") -> PriceList:
    shortest_ms = _SHORTEST_MS.get(provider.id, 0)
    return PriceList(
        tuple(Model(model.id, _rule(model.match), _tariff(model, shortest_ms)) for model in provider.models)
    )


def _rule(clause: Any) -> Rule:
    kind = type(clause).__name__
    if kind == "ClauseOr":
        return Rule(Fits.ANY, rules=tuple(_rule(inner) for inner in clause.or_))
    if kind == "ClauseAnd":
        return Rule(Fits.ALL, rules=tuple(_rule(inner) for inner in clause.and_))
    how, attribute = _CLAUSES[kind]
    text: str = getattr(clause, attribute)
    return Rule(how, text if how is Fits.EXPRESSION else text.lower())


def _tariff(model: "types.ModelInfo", shortest_ms: int) -> Tariff | Unpriced:
    if isinstance(model.prices, list):
        dated = [(_charged(one.prices), one.constraint) for one in model.prices]
    else:
        dated = [(_charged(model.prices), None)]
    known = [charged for charged, _ in dated if charged]
    if not known and _is_free(model.id):
        return FREE
    if len(known) < len(dated):
        return Unpriced(f"the price list has {model.id}, and no price that an answer can be charged by")
    return Tariff(
        tuple(
            Period(_tiers(charged, shortest_ms), since_s=_since_s(constraint), daily=_daily(constraint))
            for charged, constraint in dated
        )
    )


def _is_free(model_id: str) -> bool:
    """Whether an entry without a price is one of those that cost nothing (OpenRouter's `:free`, OpenAI's moderation)."""
    return model_id.endswith(":free") or model_id == "moderation"


def _charged(prices: "types.ModelPrice") -> dict[str, "Decimal | types.TieredPrices"]:
    """The prices of units that an answer can be counted in."""
    return {unit: value for unit, value in vars(prices).items() if unit in _UNITS and value is not None}


def _tiers(charged: Mapping[str, "Decimal | types.TieredPrices"], shortest_ms: int) -> tuple[Tier, ...]:
    starts = {tier.start for value in charged.values() if not isinstance(value, Decimal) for tier in value.tiers}
    return tuple(Tier(above, _rates(charged, above, shortest_ms)) for above in sorted({0, *starts}))


def _rates(charged: Mapping[str, "Decimal | types.TieredPrices"], above: int, shortest_ms: int) -> Rates:
    """The rates of an input of more than `above` tokens. The list's price of a tier is that of all tokens."""
    found: dict[str, int] = {}
    for unit, value in charged.items():
        usd = value
        if not isinstance(usd, Decimal):
            usd = next((tier.price for tier in reversed(usd.tiers) if 0 < tier.start <= above), usd.base)
        name, of = _UNITS[unit]
        found[name] = int((usd * _PICO / of).to_integral_value(ROUND_CEILING))
    return rates(**found, audio_ms_min=shortest_ms)


def _since_s(constraint: object) -> int | None:
    day = getattr(constraint, "start_date", None)
    return None if day is None else int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _daily(constraint: object) -> tuple[int, int] | None:
    start, end = getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)
    return None if start is None or end is None else (_second(start), _second(end))


def _second(moment: time) -> int:
    """The second of the UTC day; a time without a zone is UTC."""
    offset_s = int((moment.utcoffset() or timedelta()).total_seconds())
    return (moment.hour * 3600 + moment.minute * 60 + moment.second - offset_s) % DAY_S
