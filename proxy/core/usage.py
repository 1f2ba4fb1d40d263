"""Usage, wherever a provider puts it, its conventions normalised.

Where it stands: top-level `usage` (most), `x_groq.usage` (Groq), `choices[*].usage` (Moonshot), `response.usage`
(Responses), `message.usage` and then `usage` of `message_delta` (Messages). Some send zeros or a skeleton before the real
figures (Ollama's completions, Perplexity), some repeat it on every event (vLLM): the last that is not all zero counts,
never the first. A whole body may say it elsewhere: `meta.billed_units` (Cohere's rerank and those who copy it), or only by
what it holds: images, the length of what was transcribed.
"""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from proxy.terms import NanoUsd, Usage

KEYS_MAX: Final = 100  # a usage object has a dozen; one that grows with every event is no usage
COST_HEADER: Final = "x-litellm-response-cost"  # how a LiteLLM upstream tells its cost
_TOKENS_MAX: Final = 10**12  # larger than any answer; a provider's slip must not overflow the books
_COST_MAX_USD: Final = Decimal(10**6)
_NUMBER_CHARS_MAX: Final = 40
_DIGITS: Final = 15  # a binary float carries so many for sure; behind them stands the noise of a provider's own sums


def find(document: dict[str, Any]) -> dict[str, Any] | None:
    """The raw usage object of one event or body; None where it has none or only zeros."""
    usual = document.get("usage")
    if _counts(usual):
        return usual
    return next((place for place in _places(document) if _counts(place)), None)


def of_body(document: dict[str, Any]) -> dict[str, Any] | None:
    """The raw usage object of a whole JSON answer, or one made of what the answer holds: images, seconds of audio."""
    found = find(document)
    data = document.get("data")
    images = sum(_is_image(item) for item in data) if type(data) is list and data and _is_image(data[0]) else 0
    if found is not None:
        return {**found, "images": images} if images else found
    billed = _member(document.get("meta"), "billed_units")
    if _counts(billed):
        return billed if type(billed) is dict else None
    if images:
        return {"images": images}
    return {"seconds": document["duration"]} if "text" in document and "duration" in document else None


def fold(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """What is known after another report. Later figures win; what a later report omits (Messages) is kept."""
    if before is None or len(before) > KEYS_MAX:
        return found
    return {**before, **{name: value for name, value in found.items() if value is not None}}


class _Tokens(NamedTuple):
    """The token counts of a usage object, whatever its provider calls them."""

    taken: int
    given: int
    taken_details: Any = None
    given_details: Any = None
    beside: bool = False  # cached input is counted beside the input


class _Units(NamedTuple):
    """What is counted beside tokens."""

    images: int = 0
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0


_NO_UNITS: Final = _Units()
_UNIT_NAMES: Final = frozenset(
    {
        "characters",
        "generated_images",
        "images",
        "num_search_queries",
        "prompt_audio_seconds",
        "search_units",
        "seconds",
        "server_tool_use",
    }
)
_INPUT_PARTS: Final = frozenset(
    {
        "cached_tokens",
        "prompt_cache_hit_tokens",
        "num_cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    }
)
_IMAGES_API: Final = frozenset({"text_tokens", "image_tokens"})  # what its input details hold


def normalise(raw: dict[str, Any]) -> Usage | None:
    """A raw usage object in Penstock's terms; None where it counts nothing that we know and bills nothing.

    - Messages counts cached input beside `input_tokens`; everyone else inside, also those who name it as Messages does
      (LiteLLM). A part is never more than its whole, whatever is claimed.
    - xAI counts reasoning beside `completion_tokens`, Gemini does not tell it at all; their totals include it (docs.x.ai;
      recorded answers; read 2026-11-21). So what a total has in surplus was reasoned, and is output. Not where seconds of
      audio are told: then it is the audio, which is billed by its seconds (Mistral).
    - The image APIs tell no details of their output: it is images alone (openai-python 3.52, `types/images_response.py`).
    """
    tokens = _tokens(raw)
    bill = _cost(raw)
    units = _NO_UNITS if _UNIT_NAMES.isdisjoint(raw) else _units(raw)
    if tokens is None:
        if bill is None and not any(units):
            return None
        tokens = _Tokens(0, 0)
    taken, given, taken_details, given_details, beside = tokens
    cached = written = reasoning = 0
    if taken_details or not _INPUT_PARTS.isdisjoint(raw):
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
    if given_details or "reasoning_tokens" in raw:
        reasoning = _first(
            _member(given_details, "reasoning_tokens"),
            raw.get("reasoning_tokens"),
            _member(given_details, "thinking_tokens"),
        )
    surplus = _count(raw.get("total_tokens")) - taken - given
    if surplus > 0 and not units.audio_ms and reasoning in (0, surplus):
        given, reasoning = given + surplus, surplus
    cached = min(cached, taken)
    written = min(written, taken - cached)
    kept = min(_count(_member(raw.get("cache_creation"), "ephemeral_1h_input_tokens")), written) if written else 0
    audio_in, image_in = _modalities(taken_details, taken)
    audio_out, image_out = _modalities(given_details, given)
    if not given_details and "input_tokens" in raw and _by_images_api(taken_details):
        image_out = given
    return Usage(
        taken,
        given,
        cached,
        written,
        min(reasoning, given),
        bill,
        kept,
        audio_in,
        audio_out,
        image_in,
        image_out,
        *units,
    )


def cost_in_headers(headers: Mapping[str, str]) -> NanoUsd | None:
    """The cost that a LiteLLM upstream tells in a header of its answer; None where there is none."""
    told = headers.get(COST_HEADER)
    return None if told is None else _nanousd(_usd(told))


def _tokens(raw: dict[str, Any]) -> _Tokens | None:
    if "prompt_tokens" in raw or "completion_tokens" in raw:
        return _Tokens(
            _count(raw.get("prompt_tokens")),
            _count(raw.get("completion_tokens")),
            raw.get("prompt_tokens_details"),
            raw.get("completion_tokens_details"),
        )
    if "input_tokens" in raw or "output_tokens" in raw:
        return _Tokens(
            _count(raw.get("input_tokens")),
            _count(raw.get("output_tokens")),
            raw.get("input_tokens_details") or raw.get("input_token_details"),  # the second: transcriptions
            raw.get("output_tokens_details") or raw.get("output_token_details"),
            "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw,
        )
    if "total_tokens" in raw:  # embeddings and rerank (Voyage, Jina)
        return _Tokens(_count(raw["total_tokens"]), 0)
    return None


def _modalities(details: object, whole: int) -> tuple[int, int]:
    """The tokens of audio and of images among `whole`."""
    if type(details) is not dict:
        return 0, 0
    audio = min(_count(details.get("audio_tokens")), whole)
    return audio, min(_count(details.get("image_tokens")), whole - audio)


def _by_images_api(taken_details: object) -> bool:
    return type(taken_details) is dict and taken_details.keys() >= _IMAGES_API


def _units(raw: dict[str, Any]) -> _Units:
    return _Units(
        _first(raw.get("images"), raw.get("generated_images")),
        _first_ms(raw.get("seconds"), raw.get("prompt_audio_seconds")),
        _count(raw.get("characters")),
        _first(
            raw.get("search_units"),
            raw.get("num_search_queries"),
            _member(raw.get("server_tool_use"), "web_search_requests"),
        ),
    )


def _is_image(item: object) -> bool:
    return type(item) is dict and ("b64_json" in item or "url" in item)


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
    """OpenRouter `cost` (credits are USD), Perplexity `cost.total_cost`, xAI `cost_in_usd_ticks` (10^10 to the USD).

    With a key of one's own at OpenRouter (`is_byok`) `cost` is its fee alone, and the bill comes from the provider behind
    it: both are paid. A Pydantic AI gateway tells its estimate. Source: openrouter.ai/docs/use-cases/usage-accounting.
    """
    ticks = raw.get("cost_in_usd_ticks")
    if type(ticks) is int and 0 <= ticks <= _COST_MAX_USD * 10**10:
        return NanoUsd(-(-ticks // 10))
    told = raw.get("cost")
    if type(told) is dict:
        told = told.get("total_cost")
    if told is None:
        told = _member(raw.get("pydantic_ai_gateway"), "cost_estimate")
    usd = _usd(told)
    if usd is not None and raw.get("is_byok") is True:
        usd += _usd(_member(raw.get("cost_details"), "upstream_inference_cost")) or 0
    return _nanousd(usd)


def _usd(told: object) -> Decimal | None:
    """A number of USD or of seconds, as it was written; None where it is none or beyond all reason."""
    if type(told) is float:
        exact = Decimal(format(told, f".{_DIGITS}g"))
    elif type(told) is int:
        exact = Decimal(told)
    elif type(told) is str and len(told) <= _NUMBER_CHARS_MAX:
        try:
            exact = Context(_DIGITS).create_decimal(told)
        except InvalidOperation:
            return None
    else:
        return None
    return exact if exact.is_finite() and 0 <= exact <= _COST_MAX_USD else None


def _nanousd(usd: Decimal | None) -> NanoUsd | None:
    return None if usd is None else NanoUsd(int((usd * 10**9).to_integral_value(ROUND_CEILING)))


def _member(value: object, name: str) -> Any:
    return value.get(name) if type(value) is dict else None


def _first(*values: object) -> int:
    for value in values:
        if value and (count := _count(value)):
            return count
    return 0


def _first_ms(*values: object) -> int:
    """The first number of seconds, in milliseconds, rounded up."""
    for value in values:
        seconds = _usd(value)
        if seconds:
            return int((seconds * 1000).to_integral_value(ROUND_CEILING))
    return 0


def _count(value: object) -> int:
    if type(value) is int:
        return value if 0 <= value <= _TOKENS_MAX else 0
    if type(value) is float and value.is_integer() and 0 <= value <= _TOKENS_MAX:
        return int(value)
    return 0
