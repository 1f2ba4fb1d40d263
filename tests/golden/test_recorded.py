"""What real providers were recorded to send, through the whole gateway. Skipped, aloud, where there are no recordings.

None of the recorded streams ends badly by the contract: each has a finish of every choice, [DONE], or its API's own end.
"""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.core.streams import Recording, recordings
from tests.golden import oracle
from tests.golden.bench import PATHS, Bench, deliveries
from tests.golden.replay import Scripted

# The folder of a recording to the catalogue's provider that stands in for it.
LIKE: Final = {
    "alibaba": "dashscope",
    "crusoe": "vllm",
    "google": "gemini",
    "local": "vllm",
    "moonshotai": "moonshot",
    "ollama.com": "ollama",
    "zai": "zhipu",
}
# Recorded of APIs that the catalogue's row does not list, or of providers that have no row.
LIKE_ANY: Final = frozenset(
    {
        "bedrock",
        "deepseek/responses",
        "heroku",
        "open-responses",
        "perplexity/chat",
        "portkey",
        "pydantic-gateway",
        "snowflake",
        "voyage",
        "writer",
    }
)
BY_BYTE_MAX: Final = 6000  # larger ones come by seven bytes, which cuts as much

# Usage that the `.meta` does not know of, because it stands where few look.
USAGE_ELSEWHERE: Final = {"groq/chat-stream-1.sse": {"prompt_tokens": 12, "completion_tokens": 26, "total_tokens": 38}}

# recording, what the client is told, whether the body passes as it came, what of the provider's words it must see
ERRORS: Final = [
    ("azure/chat-json-404-1.json", 404, True, "The API deployment for this resource does not exist"),
    ("azure/embeddings-json-401-1.json", 502, False, "Access denied due to invalid subscription key"),
    ("deepseek/responses-json-400-1.json", 400, True, "No tool output found for tool call call-a."),
    ("google/chat-json-400-1.json", 400, True, "You exceeded your current quota"),
    ("groq/chat-json-404-1.json", 404, True, "The model `non-existent` does not exist"),
    ("openai/chat-json-400-1.json", 400, True, "Unknown parameter: 'response_format'."),
    ("openai/images-json-400-1.json", 400, True, "Unknown parameter: 'quality'."),
    ("openai/embeddings-json-404-1.json", 404, True, "The model `non-existent-embedding-model` does not exist"),
    ("openai/responses-json-400-1.json", 400, True, "The requested model 'this-model-does-not-exist' does not exist."),
    ("openrouter/chat-json-429-1.json", 429, False, "Provider returned error"),
    ("voyage/embeddings-json-400-1.json", 400, False, "Model nonexistent is not supported."),
]


def answers(recording: Recording) -> bool:
    return recording.meta["status"] == 200 and recording.meta["api"] in PATHS


def provider_of(recording: Recording) -> str:
    folder, api = recording.name.split("/")[0], recording.meta["api"]
    return "openai" if LIKE_ANY & {folder, f"{folder}/{api}"} else LIKE.get(folder, folder)


def request_of(recording: Recording, **more: Any) -> bytes:
    document = {"model": f"replayed-{provider_of(recording)}/recorded", "input": "?", **more}
    return json.dumps({**document, "stream": recording.name.endswith(".sse")}).encode()


def scripted(recording: Recording) -> Scripted:
    kind = recording.meta["content_type"]
    headers = [(name, value) for name, value in recording.meta["headers"] if name.lower() != "content-type"]
    return Scripted([recording.body], recording.meta["status"], [*([("Content-Type", kind)] if kind else []), *headers])


async def check(bench: Bench, recording: Recording, request: bytes) -> None:
    api, streamed = recording.meta["api"], recording.name.endswith(".sse")
    withhold = oracle.asks_usage(provider_of(recording), api, request)
    expected = oracle.relayed(recording.body, withhold=withhold) if streamed else recording.body
    usage = oracle.figures(USAGE_ELSEWHERE.get(recording.name, recording.meta["usage"]))
    by_byte = len(recording.body) <= BY_BYTE_MAX
    for way, answer in deliveries(scripted(recording), by_byte=by_byte):
        seen = await bench.exchange(f"/v1{PATHS[api]}", request, answer)
        assert seen.answer.body == expected, way
        assert (seen.answer.status, seen.answer.end) == (200, "whole"), way
        assert seen.record["outcome"] == "ok", way
        assert _figures(seen.record) == usage, way
        passed = oracle.passed_headers(list(answer.headers))
        assert [pair for pair in passed if pair not in seen.header_pairs] == [], way
        assert seen.own_headers["x-penstock-provider"] == f"replayed-{provider_of(recording)}"
        (received,) = seen.received
        model = json.dumps(f"replayed-{provider_of(recording)}/recorded").encode()
        inserts = oracle.USAGE_ASKED if withhold else b""
        assert received.body == oracle.sent_upstream(request, model, b'"recorded"', inserts=inserts)


def _figures(record: dict[str, Any]) -> dict[str, int] | None:
    """The tokens that the record tells; of images without usage it tells none, though it knows how many there were."""
    usage = record.get("usage")
    figures = {name: value for name, value in usage.items() if name != "cost_nanousd"} if usage else {}
    return figures if any(figures.values()) else None


@pytest.mark.parametrize("recording", recordings(".sse", answers))
async def test_recorded_streams_pass_untouched(recording: Recording, bench: Bench) -> None:
    await check(bench, recording, request_of(recording))


@pytest.mark.parametrize(
    "recording", recordings(".sse", lambda recording: answers(recording) and recording.meta["api"] in oracle.CHOICES)
)
async def test_recorded_streams_pass_untouched_with_usage_asked_for(recording: Recording, bench: Bench) -> None:
    request = request_of(recording, stream_options={"include_usage": True})
    await check(bench, recording, request)


@pytest.mark.parametrize("recording", recordings(".json", answers))
async def test_recorded_answers_pass_untouched(recording: Recording, bench: Bench) -> None:
    await check(bench, recording, request_of(recording))


async def test_recorded_errors_are_shown(recordings: Path, bench: Bench) -> None:
    for name, status, as_it_came, words in ERRORS:
        meta = json.loads((recordings / name).with_suffix(".meta").read_text("utf-8"))
        recording = Recording(name, (recordings / name).read_bytes(), meta)
        seen = await bench.exchange(f"/v1{PATHS[meta['api']]}", request_of(recording), scripted(recording))
        assert (seen.answer.status, seen.answer.end) == (status, "whole"), name
        assert words in seen.answer.error["message"], name
        assert (seen.answer.body == recording.body) is as_it_came, name
        if not as_it_came:
            assert seen.answer.error["metadata"]["raw"] == json.loads(recording.body), name
            assert seen.answer.error["metadata"]["upstream_status"] == meta["status"], name


def test_every_recorded_error_has_its_row(recordings: Path) -> None:
    errors = set()
    for path in recordings.glob("*/*.json"):
        meta = json.loads(path.with_suffix(".meta").read_text("utf-8"))
        if meta["status"] != 200 and meta["api"] in PATHS:
            errors.add(f"{path.parent.name}/{path.name}")
    assert errors == {name for name, *_ in ERRORS}
