"""Usage, wherever a provider puts it, its conventions normalised.

Where it stands: top-level `usage` (most), `x_groq.usage` (Groq), `choices[*].usage` (Moonshot), `response.usage`
(Responses), `message.usage` and then `usage` of `message_delta` (Messages). Some send zeros or a skeleton before the real
figures (Ollama's completions, Perplexity), some repeat it on every event (vLLM): the last that is not all zero counts,
never the first.
"""

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final

from proxy.terms import NanoUsd, Usage

KEYS_MAX: Final = 100  # a usage object has a dozen; one that grows with every event is no usage
_TOKENS_MAX: Final = 10**12  # larger than any answer; a provider's slip must not overflow the books
_COST_MAX_USD: Final = Decimal(10**6)


def find(document: dict[str, Any]) -> dict[str, Any] | None:
    """The raw usage object of one event or body; None where it has none or only zeros."""
    usual = document.get("usage")
    if _counts(usual):
        return usual
    return next((place for place in _places(document) if _counts(place)), None)


def fold(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """What is known after another report. Later figures win; what a later report omits (Messages) is kept."""
    if before is None or len(before) > KEYS_MAX:
        return found
    return {**before, **{name: value for name, value in found.items() if value is not None}}


def normalise(raw: dict[str, Any]) -> Usage | None:
    """A raw usage object in Penstock's terms; None where it counts no tokens.

    - Messages counts cached input beside `input_tokens`; everyone else inside, also those who name it as Messages does
      (LiteLLM). A part is never more than its whole, whatever is claimed.
    - xAI counts reasoning beside `completion_tokens`, Gemini does not tell it at all; their totals include it (docs.x.ai;
      recorded answers; read 2026-11-21). So what a total has in surplus was reasoned, and is output.
    """
    beside = False
    if "prompt_tokens" in raw or "completion_tokens" in raw:
        taken = _count(raw.get("prompt_tokens"))
        given = _count(raw.get("completion_tokens"))
        taken_details, given_details = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    elif "input_tokens" in raw or "output_tokens" in raw:
        taken = _count(raw.get("input_tokens"))
        given = _count(raw.get("output_tokens"))
        beside = "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw
        taken_details, given_details = raw.get("input_tokens_details"), raw.get("output_tokens_details")
    elif "total_tokens" in raw:  # embeddings (Voyage)
        return Usage(_count(raw["total_tokens"]), 0, cost_nanousd=_cost(raw))
    else:
        return None
    cached = _first(
        _member(taken_details, "cached_tokens"),
        raw.get("cached_tokens"),
        raw.get("prompt_cache_hit_tokens"),
        raw.get("num_cached_tokens"),
        raw.get("cache_read_input_tokens"),
    )
    written = _first(_member(taken_details, "cache_write_tokens"), raw.get("cache_creation_input_tokens"))
    if beside:
        taken += cached + written
    reasoning = _first(_member(given_details, "reasoning_tokens"), raw.get("reasoning_tokens"))
    surplus = _count(raw.get("total_tokens")) - taken - given
    if surplus > 0 and reasoning in (0, surplus):
        given, reasoning = given + surplus, surplus
    cached = min(cached, taken)
    return Usage(taken, given, cached, min(written, taken - cached), min(reasoning, given), _cost(raw))


def _places(document: dict[str, Any]) -> list[Any]:
    places = [_member(document.get("x_groq"), "usage")]
    choices = document.get("choices")
    if type(choices) is list:
        places += [_member(choice, "usage") for choice in choices]
    places += [_member(document.get("response"), "usage"), _member(document.get("message"), "usage")]
    return places


def _counts(place: Any) -> bool:
    return type(place) is dict and any(type(value) in (int, float) and value for value in place.values())


def _cost(raw: dict[str, Any]) -> NanoUsd | None:
    """OpenRouter `cost` (credits are USD), Perplexity `cost.total_cost`, xAI `cost_in_usd_ticks` (10^10 to the USD)."""
    ticks = raw.get("cost_in_usd_ticks")
    if type(ticks) is int and 0 <= ticks <= _COST_MAX_USD * 10**10:
        return NanoUsd(-(-ticks // 10))
    cost = raw.get("cost")
    if type(cost) is dict:
        cost = cost.get("total_cost")
    if type(cost) not in (int, float):
        return None
    try:
        exact = Decimal(str(cost))
    except InvalidOperation:
        return None
    if not exact.is_finite() or not 0 <= exact <= _COST_MAX_USD:
        return None
    return NanoUsd(int((exact * 10**9).to_integral_value(ROUND_CEILING)))


def _member(value: object, name: str) -> Any:
    return value.get(name) if type(value) is dict else None


def _first(*values: object) -> int:
    for value in values:
        if value and (count := _count(value)):
            return count
    return 0


def _count(value: object) -> int:
    if type(value) is int:
        return value if 0 <= value <= _TOKENS_MAX else 0
    if type(value) is float and value.is_integer() and 0 <= value <= _TOKENS_MAX:
        return int(value)
    return 0
