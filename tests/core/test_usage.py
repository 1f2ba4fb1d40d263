"""Usage as providers report it, to figures; and what no provider should report, to no exception."""

import math
from dataclasses import astuple
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import lenient_json
from proxy.core.sse import data_of
from proxy.core.usage import cost_in_headers, find, fold, normalise, of_body
from proxy.terms import NanoUsd, Usage
from tests.core.streams import Recording, recordings

# raw usage object -> (input, output, cached, cache_write, reasoning, cost in nano-USD)
ROWS: dict[str, tuple[dict[str, Any], tuple[int, int, int, int, int, int | None]]] = {
    "OpenAI": (
        {
            "prompt_tokens": 398,
            "completion_tokens": 10,
            "total_tokens": 408,
            "prompt_tokens_details": {"cached_tokens": 128, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 4, "accepted_prediction_tokens": 0},
        },
        (398, 10, 128, 0, 4, None),
    ),
    "bare": ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, (9, 5, 0, 0, 0, None)),
    "without a total": ({"prompt_tokens": 9, "completion_tokens": 5}, (9, 5, 0, 0, 0, None)),
    "Hugging Face, null details": (
        {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42, "prompt_tokens_details": None},
        (40, 2, 0, 0, 0, None),
    ),
    "OpenAI Responses": (
        {
            "input_tokens": 1977,
            "input_tokens_details": {"cached_tokens": 1024},
            "output_tokens": 65,
            "output_tokens_details": {"reasoning_tokens": 60},
            "total_tokens": 2042,
        },
        (1977, 65, 1024, 0, 60, None),
    ),
    "Bedrock Responses, cache written": (
        {
            "input_tokens": 88,
            "input_tokens_details": {"cache_write_tokens": 8, "cached_tokens": 16},
            "output_tokens": 14,
        },
        (88, 14, 16, 8, 0, None),
    ),
    "embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, (8, 0, 0, 0, 0, None)),
    "Voyage embeddings": ({"total_tokens": 12}, (12, 0, 0, 0, 0, None)),
    "Messages": ({"input_tokens": 3, "output_tokens": 4}, (3, 4, 0, 0, 0, None)),
    "Messages, cached beside": (
        {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 4},
        (123, 4, 100, 20, 0, None),
    ),
    "LiteLLM, Messages' names but inside": (
        {
            "prompt_tokens": 123,
            "completion_tokens": 4,
            "total_tokens": 127,
            "prompt_tokens_details": {"cached_tokens": 100},
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
        },
        (123, 4, 100, 20, 0, None),
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 254,
            "completion_tokens": 5,
            "total_tokens": 259,
            "cost": 0.000837,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
            "cost_details": {"upstream_inference_cost": 0.000837},
        },
        (254, 5, 6, 2, 0, 837_000),
    ),
    "OpenRouter, free": ({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0}, (1, 1, 0, 0, 0, 0)),
    "OpenRouter Responses": (
        {"input_tokens": 42, "output_tokens": 12, "total_tokens": 54, "cost": 3.6e-05},
        (42, 12, 0, 0, 0, 36_000),
    ),
    "a cost below a nano-USD is rounded up": (
        {"prompt_tokens": 1, "completion_tokens": 0, "cost": 1e-10},
        (1, 0, 0, 0, 0, 1),
    ),
    "Perplexity": (
        {
            "input_tokens": 10,
            "output_tokens": 251,
            "total_tokens": 261,
            "reasoning_tokens": 50,
            "cost": {"currency": "USD", "request_cost": 0.005, "total_cost": 0.0053},
        },
        (10, 251, 0, 0, 50, 5_300_000),
    ),
    "xAI, reasoning beside": (
        {
            "prompt_tokens": 12,
            "completion_tokens": 1,
            "total_tokens": 241,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 228},
            "cost_in_usd_ticks": 1_234_567,
        },
        (12, 229, 2, 0, 228, 123_457),
    ),
    "xAI Responses, reasoning inside": (
        {
            "input_tokens": 1606,
            "output_tokens": 292,
            "output_tokens_details": {"reasoning_tokens": 190},
            "total_tokens": 1898,
        },
        (1606, 292, 0, 0, 190, None),
    ),
    "Gemini, reasoning untold": (
        {"completion_tokens": 6, "prompt_tokens": 66, "total_tokens": 100},
        (66, 34, 0, 0, 28, None),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 339,
            "completion_tokens": 92,
            "total_tokens": 431,
            "completion_tokens_details": {"reasoning_tokens": 48},
            "prompt_cache_hit_tokens": 320,
            "prompt_cache_miss_tokens": 19,
        },
        (339, 92, 320, 0, 48, None),
    ),
    "Moonshot": (
        {"prompt_tokens": 19, "completion_tokens": 21, "total_tokens": 40, "cached_tokens": 10},
        (19, 21, 10, 0, 0, None),
    ),
    "Mistral": (
        {"completion_tokens": 3, "num_cached_tokens": 700, "prompt_tokens": 781, "total_tokens": 784},
        (781, 3, 700, 0, 0, None),
    ),
    "Groq": (
        {"queue_time": 0.01, "prompt_tokens": 18, "completion_tokens": 26, "total_tokens": 44, "total_time": 0.02},
        (18, 26, 0, 0, 0, None),
    ),
    "Z.ai": (
        {
            "prompt_tokens": 13,
            "completion_tokens": 564,
            "total_tokens": 577,
            "completion_tokens_details": {"reasoning_tokens": 561},
        },
        (13, 564, 0, 0, 561, None),
    ),
    "whole numbers as floats": ({"prompt_tokens": 9.0, "completion_tokens": 5.0}, (9, 5, 0, 0, 0, None)),
    "negative counts": ({"prompt_tokens": -9, "completion_tokens": 5}, (0, 5, 0, 0, 0, None)),
    "counts beyond all reason": ({"prompt_tokens": 10**15, "completion_tokens": 5}, (0, 5, 0, 0, 0, None)),
    "booleans": ({"prompt_tokens": True, "completion_tokens": False}, (0, 0, 0, 0, 0, None)),
    "texts": ({"prompt_tokens": "9", "completion_tokens": "5"}, (0, 0, 0, 0, 0, None)),
    "a part above its whole": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "cached_tokens": 99,
            "reasoning_tokens": 99,
            "prompt_tokens_details": {"cache_write_tokens": 99},
        },
        (10, 5, 10, 0, 5, None),
    ),
    "a negative cost": ({"prompt_tokens": 1, "completion_tokens": 0, "cost": -5}, (1, 0, 0, 0, 0, None)),
    "a cost that is no number": (
        {"prompt_tokens": 1, "completion_tokens": 0, "cost": math.nan},
        (1, 0, 0, 0, 0, None),
    ),
    "an infinite cost": ({"prompt_tokens": 1, "completion_tokens": 0, "cost": math.inf}, (1, 0, 0, 0, 0, None)),
    "a cost beyond all reason": ({"prompt_tokens": 1, "completion_tokens": 0, "cost": 10**7}, (1, 0, 0, 0, 0, None)),
    "ticks beyond all reason": (
        {"prompt_tokens": 1, "completion_tokens": 0, "cost_in_usd_ticks": 2**63},
        (1, 0, 0, 0, 0, None),
    ),
}


@pytest.mark.parametrize(("raw", "figures"), ROWS.values(), ids=ROWS)
def test_usage_in_our_terms(raw: dict[str, Any], figures: tuple[int, int, int, int, int, int | None]) -> None:
    taken, given, cached, written, reasoning, cost = figures
    exact = None if cost is None else NanoUsd(cost)
    assert normalise(raw) == Usage(taken, given, cached, written, reasoning, exact)


# What stands beside plain tokens: raw usage object -> the fields that it fills
BESIDE: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI, audio": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 200,
            "total_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 150},
        },
        Usage(100, 200, audio_input_tokens=60, audio_output_tokens=150),
    ),
    "OpenAI, transcription by tokens": (
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            "output_tokens": 45,
            "total_tokens": 59,
        },
        Usage(14, 45, audio_input_tokens=14),
    ),
    "OpenAI, transcription by seconds": ({"type": "duration", "seconds": 9}, Usage(0, 0, audio_ms=9000)),
    "parts of a millisecond are rounded up": ({"type": "duration", "seconds": 8.4701}, Usage(0, 0, audio_ms=8471)),
    "OpenRouter, transcription": (
        {"seconds": 9.2, "input_tokens": 83, "output_tokens": 30, "total_tokens": 113, "cost": 0.000508},
        Usage(83, 30, cost_nanousd=NanoUsd(508_000), audio_ms=9200),
    ),
    "Mistral, its surplus is audio": (
        {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264},
        Usage(4, 635, audio_ms=203_000),
    ),
    "images, without details of the output": (
        {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 1056,
            "total_tokens": 1106,
        },
        Usage(50, 1056, image_input_tokens=40, image_output_tokens=1056),
    ),
    "images, with details of the output": (
        {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 1056,
            "output_tokens_details": {"text_tokens": 56, "image_tokens": 1000},
        },
        Usage(50, 1056, image_input_tokens=40, image_output_tokens=1000),
    ),
    "OpenRouter, images in a chat": (
        {"prompt_tokens": 9, "completion_tokens": 1300, "completion_tokens_details": {"image_tokens": 1290}},
        Usage(9, 1300, image_output_tokens=1290),
    ),
    "xAI, images asked about": (
        {
            "prompt_tokens": 500,
            "completion_tokens": 5,
            "prompt_tokens_details": {"text_tokens": 20, "image_tokens": 480},
        },
        Usage(500, 5, image_input_tokens=480),
    ),
    "xAI, images made": ({"cost_in_usd_ticks": 200_000_000}, Usage(0, 0, cost_nanousd=NanoUsd(20_000_000))),
    "images counted": ({"images": 2}, Usage(0, 0, images=2)),
    "Messages, kept an hour, searched, thought": (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 1000,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 100,
            "output_tokens_details": {"thinking_tokens": 70},
            "server_tool_use": {"web_search_requests": 2},
        },
        Usage(1010, 100, 0, 1000, 70, cache_write_1h_tokens=400, searches=2),
    ),
    "Cohere, rerank": ({"search_units": 1}, Usage(0, 0, searches=1)),
    "Perplexity, searches": (
        {"prompt_tokens": 10, "completion_tokens": 5, "num_search_queries": 3},
        Usage(10, 5, searches=3),
    ),
    "characters": ({"characters": 12}, Usage(0, 0, characters=12)),
    "a bill alone": ({"cost": 1}, Usage(0, 0, cost_nanousd=NanoUsd(10**9))),
    "OpenRouter, a key of one's own": (
        {"prompt_tokens": 1, "cost": 0.95, "is_byok": True, "cost_details": {"upstream_inference_cost": 19}},
        Usage(1, 0, cost_nanousd=NanoUsd(19_950_000_000)),
    ),
    "OpenRouter, a key of one's own and nothing told behind it": (
        {"prompt_tokens": 1, "cost": 0.95, "is_byok": True, "cost_details": {"upstream_inference_cost": None}},
        Usage(1, 0, cost_nanousd=NanoUsd(950_000_000)),
    ),
    "a float's noise is no cost": (
        {"prompt_tokens": 1, "pydantic_ai_gateway": {"cost_estimate": 9.625000000000001e-05}},
        Usage(1, 0, cost_nanousd=NanoUsd(96_250)),
    ),
    "parts above their wholes": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"audio_tokens": 99, "image_tokens": 99},
            "completion_tokens_details": {"audio_tokens": 3, "image_tokens": 99},
        },
        Usage(10, 5, audio_input_tokens=10, audio_output_tokens=3, image_output_tokens=2),
    ),
    "seconds that are none": ({"prompt_tokens": 1, "seconds": math.nan}, Usage(1, 0)),
}


@pytest.mark.parametrize(("raw", "expected"), BESIDE.values(), ids=BESIDE)
def test_what_is_counted_beside_plain_tokens(raw: dict[str, Any], expected: Usage) -> None:
    assert normalise(raw) == expected


@pytest.mark.parametrize("raw", [{}, {"cost": -1}, {"tokens": 5}, {"prompt_audio_seconds": 0}, {"type": "duration"}])
def test_what_counts_and_bills_nothing_is_no_usage(raw: dict[str, Any]) -> None:
    assert normalise(raw) is None


_IMAGES = [{"b64_json": "aGk="}, {"url": "https://example.com/b.png", "revised_prompt": "b"}]
BODIES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "chat": ({"choices": [], "usage": {"prompt_tokens": 5}}, {"prompt_tokens": 5}),
    "embeddings": (
        {"data": [{"object": "embedding", "embedding": [0.1]}], "usage": {"total_tokens": 5}},
        {"total_tokens": 5},
    ),
    "images alone": ({"created": 1, "data": _IMAGES}, {"images": 2}),
    "images and tokens": ({"data": _IMAGES, "usage": {"input_tokens": 5}}, {"input_tokens": 5, "images": 2}),
    "Cohere, rerank": (
        {"results": [], "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}},
        {"search_units": 1},
    ),
    "Jina, rerank": ({"results": [], "usage": {"total_tokens": 815}}, {"total_tokens": 815}),
    "Groq, verbose transcription": ({"task": "transcribe", "duration": 8.47, "text": "Hi"}, {"seconds": 8.47}),
    "transcription": ({"text": "Hi"}, None),
    "moderation": ({"id": "modr", "results": [{"flagged": False}]}, None),
    "junk": ({"data": [5, None], "meta": {"billed_units": [1]}, "duration": {}}, None),
}


@pytest.mark.parametrize(("document", "expected"), BODIES.values(), ids=BODIES)
def test_usage_of_a_whole_answer(document: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert of_body(document) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("0.00001875", 18_750),
        ("1.8750000000000002e-05", 18_750),
        ("0", 0),
        ("0.0000000001", 1),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("None", None),
        ("", None),
        ("9" * 50, None),
    ],
)
def test_a_cost_told_in_a_header(told: str, expected: int | None) -> None:
    assert cost_in_headers({"x-litellm-response-cost": told}) == expected
    assert cost_in_headers({}) is None


_U = {"prompt_tokens": 5, "completion_tokens": 7}
_ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "cost": {"total_cost": 0}}
PLACES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "top level": ({"usage": _U}, _U),
    "Groq": ({"choices": [{}], "x_groq": {"usage": _U}}, _U),
    "Moonshot": ({"choices": [{"usage": _U}]}, _U),
    "second choice": ({"choices": [{}, {"usage": _U}]}, _U),
    "Responses": ({"type": "response.completed", "response": {"usage": _U}}, _U),
    "Messages": ({"type": "message_start", "message": {"usage": _U}}, _U),
    "null at the top, real below": ({"usage": None, "choices": [{"usage": _U}]}, _U),
    "zeros at the top, real below": ({"usage": _ZERO, "x_groq": {"usage": _U}}, _U),
    "zeros alone": ({"usage": _ZERO}, None),
    "null": ({"usage": None}, None),
    "none": ({"choices": []}, None),
    "text": ({"usage": "5"}, None),
    "a list": ({"usage": [_U]}, None),
    "empty": ({"usage": {}}, None),
    "true is no count": ({"usage": {"prompt_tokens": True}}, None),
    "junk in every place": ({"usage": 1, "x_groq": [], "choices": {}, "response": "x", "message": [1]}, None),
    "junk among the choices": ({"choices": [None, 1, [], "x", {"usage": []}]}, None),
}


@pytest.mark.parametrize(("document", "found"), PLACES.values(), ids=PLACES)
def test_where_usage_stands(document: dict[str, Any], found: dict[str, Any] | None) -> None:
    assert find(document) == found


def test_later_reports_win_and_keep_what_they_omit() -> None:
    start = {"input_tokens": 3, "cache_read_input_tokens": 9, "output_tokens": 1}
    known = fold(fold(None, start), {"output_tokens": 50, "input_tokens": None})
    assert known == {"input_tokens": 3, "cache_read_input_tokens": 9, "output_tokens": 50}
    assert start["output_tokens"] == 1


_NAMES = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "reasoning_tokens",
        "cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens_details",
        "output_tokens_details",
        "cost",
        "total_cost",
        "cost_in_usd_ticks",
        "audio_tokens",
        "image_tokens",
        "text_tokens",
        "cache_creation",
        "ephemeral_1h_input_tokens",
        "seconds",
        "images",
        "search_units",
        "is_byok",
        "cost_details",
        "upstream_inference_cost",
        "data",
        "b64_json",
        "meta",
        "billed_units",
        "duration",
        "text",
        "usage",
        "choices",
        "x_groq",
        "response",
        "message",
    ]
)
_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_NAMES, values, max_size=4),
    max_leaves=8,
)


@given(document=st.dictionaries(_NAMES, _JUNK, max_size=6))
def test_hostile_values_never_raise_and_never_count_backwards(document: dict[str, Any]) -> None:
    for raw in (document, find(document), of_body(document)):
        usage = normalise(raw) if raw is not None else None
        if usage is not None:
            assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
            assert usage.reasoning_tokens <= usage.output_tokens
            assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
            assert usage.audio_input_tokens + usage.image_input_tokens <= usage.input_tokens
            assert usage.audio_output_tokens + usage.image_output_tokens <= usage.output_tokens
            assert min(count for count in astuple(usage) if count is not None) >= 0
            assert usage.cost_nanousd is None or 0 <= usage.cost_nanousd <= 10**15


def reports(recording: Recording) -> bool:
    return recording.meta["usage"] is not None and "tokens" in str(recording.meta["usage"])


@pytest.mark.parametrize("recording", recordings(".json", reports))
def test_recorded_answers(recording: Recording) -> None:
    found = of_body(orjson.loads(recording.body))
    assert found == recording.meta["usage"]
    assert found is not None
    usage = normalise(found)
    assert usage is not None
    total = found.get("total_tokens")
    assert total in (None, usage.input_tokens + usage.output_tokens)


def streamed(recording: Recording) -> dict[str, Any] | None:
    """What the events of a recorded stream report, all together."""
    known: dict[str, Any] | None = None
    for event in recording.body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = data_of(event + b"\n\n")
        if data is not None and data.strip().startswith(b"{"):
            found = find(lenient_json.loads(data))
            known = known if found is None else fold(known, found)
    return known


@pytest.mark.parametrize("recording", recordings(".sse", reports))
def test_recorded_streams(recording: Recording) -> None:
    found = streamed(recording)
    assert found == recording.meta["usage"]
    assert found is not None
    usage = normalise(found)
    assert usage is not None
    assert found["total_tokens"] == usage.input_tokens + usage.output_tokens


# Recorded usage that says more than tokens, or stands where the `.meta` does not look.
SAYS_MORE: dict[str, Usage] = {
    "groq/chat-stream-1.sse": Usage(12, 26),
    "mistral/transcriptions-json-1.json": Usage(13, 151, audio_ms=36_000),
    "openai/images-json-1.json": Usage(0, 0, images=1),
    "openai/transcriptions-json-1.json": Usage(1, 5, audio_input_tokens=1),
    "openrouter/responses-json-1.json": Usage(4020, 5, 4012, cost_nanousd=NanoUsd(2_196_000)),
    "pydantic-gateway/responses-json-1.json": Usage(494, 5, cost_nanousd=NanoUsd(667_500)),
    "xai/chat-json-1.json": Usage(12, 229, 2, 0, 228, NanoUsd(117_650)),
}


@pytest.mark.parametrize("recording", recordings("", lambda recording: recording.name in SAYS_MORE))
def test_recorded_usage_that_says_more(recording: Recording) -> None:
    whole = recording.name.endswith(".json")
    found = of_body(orjson.loads(recording.body)) if whole else streamed(recording)
    assert found is not None
    assert normalise(found) == SAYS_MORE[recording.name]
