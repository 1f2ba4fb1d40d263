"""The real SDKs are given an answer in the other form than it came in, and read the same."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from proxy.simulator.server import Simulator
from tests.cache.test_recall import CONFIG, cached
from tests.clients.install import node_packages, python_of
from tests.clients.sdks import HERE, NODE
from tests.clients.stage import with_parent
from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import Gateway

pytestmark = pytest.mark.clients

LOGPROBS = [{"token": word, "logprob": -0.25, "bytes": [104], "top_logprobs": []} for word in ("high ", "tide ☔")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "level", "arguments": '{"river":"Aare"}'}}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ENVELOPE = {"id": "chatcmpl-1", "created": 1795251810, "model": "m", "system_fingerprint": "fp_1"}
ASKED: dict[str, Any] = {
    "model": "route",
    "messages": [{"role": "user", "content": "?"}],
    "n": 2,
    "logprobs": True,
}


def _whole() -> bytes:
    said = {"role": "assistant", "content": "high tide ☔", "refusal": None}
    called = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]}
    choices = [
        {"index": 0, "message": said, "logprobs": {"content": LOGPROBS, "refusal": None}, "finish_reason": "stop"},
        {"index": 1, "message": called, "logprobs": None, "finish_reason": "tool_calls"},
    ]
    return json.dumps(ENVELOPE | {"object": "chat.completion", "choices": choices, "usage": USAGE}).encode()


def _events() -> bytes:
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "level", "arguments": ""}}
    deltas: list[tuple[int, dict[str, Any], Any, str | None]] = [
        (0, {"role": "assistant", "content": "", "refusal": None}, None, None),
        (1, {"role": "assistant", "content": None, "tool_calls": [head]}, None, None),
        *((0, {"content": one["token"]}, {"content": [one], "refusal": None}, None) for one in LOGPROBS),
        *((1, {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}, None, None) for part in ARGUMENTS),
        (0, {}, None, "stop"),
        (1, {}, None, "tool_calls"),
    ]
    choices = [
        [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
        for index, delta, logprobs, finish in deltas
    ]
    kind = ENVELOPE | {"object": "chat.completion.chunk"}
    documents = [*(kind | {"choices": one} for one in choices), kind | {"choices": [], "usage": USAGE}]
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in documents) + b"data: [DONE]\n\n"


ARGUMENTS = ('{"river":', '"Aare"}')
FORMS = {
    "json": answer(200, _whole(), "content-type: application/json"),
    "stream": answer(200, _events(), "content-type: text/event-stream"),
}


@pytest.fixture(params=FORMS)
async def kept(request: pytest.FixtureRequest, start: Start) -> AsyncIterator[tuple[str, Gateway, Recorder]]:
    """In which form the provider answers first, the gateway, and the provider."""
    provider = Recorder(lambda _: FORMS[request.param])
    gateway = await start(CONFIG.format(url=await provider.start(), model="m"))
    cached(gateway, tool_calls=True)
    yield request.param, gateway, provider
    await provider.stop()


async def _streamed(client: AsyncOpenAI, **more: Any) -> tuple[Any, Any, str]:
    raw = await client.chat.completions.with_raw_response.create(**ASKED, stream=True, **more)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    usage = None
    async for chunk in raw.parse():
        state.handle_chunk(chunk)
        usage = chunk.usage or usage
    choices = state.current_completion_snapshot.to_dict(mode="json")["choices"]
    return choices, None if usage is None else usage.to_dict(), raw.headers["x-penstock-cache"]


async def _read(client: AsyncOpenAI) -> tuple[Any, Any, str]:
    raw = await client.chat.completions.with_raw_response.create(**ASKED)
    document = raw.parse().to_dict(mode="json")
    return document["choices"], document["usage"], raw.headers["x-penstock-cache"]


def _said(choices: Any) -> list[Any]:
    """What a program reads of choices, whichever way they were put together."""
    return [
        (
            choice["index"],
            choice["message"].get("content") or "",
            [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls(choice)],
            (choice.get("logprobs") or {}).get("content"),
            choice["finish_reason"],
        )
        for choice in choices
    ]


def calls(choice: Any) -> Any:
    return choice["message"].get("tool_calls") or ()


async def test_openai_python_reads_the_same_in_both_forms(kept: tuple[str, Gateway, Recorder]) -> None:
    first, gateway, provider = kept
    expected = _said(json.loads(_whole())["choices"])
    async with AsyncOpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
        if first == "stream":
            choices, usage, cache = await _streamed(client)
            assert (_said(choices), usage, cache) == (expected, None, "miss")
        choices, usage, cache = await _read(client)
        assert (_said(choices), usage, cache) == (expected, USAGE, "hit" if first == "stream" else "miss")
        choices, usage, cache = await _streamed(client, stream_options={"include_usage": True})
        assert (_said(choices), usage, cache) == (expected, USAGE, "hit")
        choices, usage, cache = await _streamed(client)
        assert (_said(choices), usage, cache) == (expected, None, "hit")
    assert len(provider.received) == 1


@pytest.mark.parametrize("package", ["openai", "openai-6"])
async def test_openai_node_reads_the_same_in_both_forms(package: str, kept: tuple[str, Gateway, Recorder]) -> None:
    first, gateway, provider = kept
    script = node_packages("openai-node", NODE, [NODE / "cached.mjs"]) / "cached.mjs"
    environ = {"OPENAI_BASE_URL": gateway.url, "OPENAI_API_KEY": "any"}
    seen = await _ran(["node", script, package, "route", first], environ)
    whole = json.loads(_whole())
    assert (_said(seen["whole"]["choices"]), seen["whole"]["usage"]) == (_said(whole["choices"]), USAGE)
    called = {"id": "call_1", "name": "level", "arguments": "".join(ARGUMENTS)}
    for form, usage in (("asking", USAGE), ("silent", None)):
        assert seen[form]["usage"] == usage
        assert seen[form]["choices"] == [
            {"content": "high tide ☔", "calls": [], "logprobs": LOGPROBS, "finish": "stop"},
            {"content": "", "calls": [called], "logprobs": [], "finish": "tool_calls"},
        ]
    missed = "silent" if first == "stream" else "whole"
    assert {form: seen[form]["cache"] for form in seen} == {
        form: "miss" if form == missed else "hit" for form in ("whole", "asking", "silent")
    }
    assert len(provider.received) == 1


async def test_responses_from_a_stream_to_json(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url, model="m"))
    cached(gateway)
    async with AsyncOpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
        async with client.responses.stream(model="route", input="How high is the water?") as stream:
            first = await stream.get_final_response()
        raw = await client.responses.with_raw_response.create(model="route", input="How high is the water?")
    assert raw.headers["x-penstock-cache"] == "hit"
    whole = raw.parse()
    assert (whole.output_text, whole.usage, whole.id, whole.status) == (
        first.output_text,
        first.usage,
        first.id,
        "completed",
    )
    assert len(upstream.requests) == 1


async def test_messages_from_a_stream_to_json(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url, model="m"))
    cached(gateway)
    environ = {"ANTHROPIC_BASE_URL": gateway.url.removesuffix("/v1"), "ANTHROPIC_API_KEY": "any"}
    seen = await _ran([python_of("anthropic"), "-P", HERE / "cached_messages.py"], environ)
    assert seen["cache"] == "hit"
    for name in ("id", "stop_reason"):
        assert seen["whole"][name] == seen["stream"][name]
    assert [part["text"] for part in seen["whole"]["content"]] == [part["text"] for part in seen["stream"]["content"]]
    for name in ("input_tokens", "output_tokens"):
        assert seen["whole"]["usage"][name] == seen["stream"]["usage"][name] > 0
    assert len(upstream.requests) == 1


async def _ran(command: list[str | Path], environ: dict[str, str]) -> Any:
    """What a client prints as its last line."""
    process = await asyncio.create_subprocess_exec(
        *with_parent(command),
        env={"PATH": os.environ["PATH"], **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()[-3000:]
    return json.loads(said.splitlines()[-1])
