"""Every golden answer that ends well, through routes that keep answers: given again it is what it was, byte for byte."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.core.cache_policy import CachePolicy
from tests.core.streams import cut_at
from tests.golden import oracle
from tests.golden.bench import Bench, Case, Seen, golden_cases

CASES = [case for case in golden_cases() if case.expected["outcome"] == "ok"]
STREAMS = [case for case in CASES if case.streamed]
WHOLE = [case for case in CASES if not case.streamed]
ASKS_USAGE = b',"stream_options":{"include_usage":true}'
RANDOM_WAYS = 4
# What an answer that is given again says of its own exchange, or of how it is framed.
PER_ANSWER = {"x-request-id", "date", "age", "server", "content-length", "transfer-encoding"}
TYPES: dict[str, Any] = {"chat": ChatCompletion, "completions": Completion}
JSON = [("Content-Type", "application/json")]


def named(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def route_of(case: Case) -> str:
    return case.name.replace("/", "-")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    routes = "".join(f"  {route_of(case)}: {{tiers: [{case.asked}]}}\n" for case in CASES)
    bench = await Bench.start(f"routes:\n{routes}")
    runtime = bench.gateway.runtime
    kept = CachePolicy(3600.0, tool_calls=True)
    table = {name: replace(route, cache=kept) for name, route in runtime.table.routes.items()}
    runtime.table = replace(runtime.table, routes=table)
    yield bench
    await bench.stop()


def asked(case: Case, *, stream: bool | None = None, usage: bool = False) -> bytes:
    """The case's request for its route; ``stream``: in which form, if not in its own."""
    request = case.request.replace(f'"{case.asked}"'.encode(), f'"{route_of(case)}"'.encode())
    if stream is not None:
        document = json.loads(request)
        document["stream"] = stream
        if not stream:
            document.pop("stream_options", None)
        return json.dumps(document).encode()
    brace = request.rindex(b"}")
    return request[:brace] + ASKS_USAGE + request[brace:] if usage else request


async def ask(
    bench: Bench, case: Case, writes: Sequence[bytes] | None = None, *, fresh: bool = False, **form: Any
) -> Seen:
    control = {"cache-control": "no-cache"} if fresh else {}
    return await bench.exchange(case.path, asked(case, **form), case.scripted(writes), control)


def passed(seen: Seen) -> list[tuple[str, str]]:
    """The headers of the answer that are the provider's."""
    own = [pair for pair in seen.header_pairs if pair[0] not in PER_ANSWER]
    return sorted(
        pair for pair in own if not pair[0].startswith("x-penstock-") or pair[0] == "x-penstock-upstream-request-id"
    )


@named(CASES)
async def test_a_kept_answer_is_the_first_one_byte_for_byte(case: Case, bench: Bench) -> None:
    rng = random.Random(case.name)
    for way in range(RANDOM_WAYS):
        cuts = [rng.randrange(len(case.body)) for _ in range(rng.choice((0, 1, 5, 40)))]
        first = await ask(bench, case, cut_at(case.body, cuts), fresh=way > 0)
        again = await ask(bench, case)
        assert (len(first.received), again.received) == (1, []), cuts
        assert (first.answer.status, first.answer.end, first.answer.body) == (200, "whole", case.relayed), cuts
        assert (again.answer.status, again.answer.end, again.answer.body) == (200, "whole", case.relayed), cuts
        shown = (first.answer.headers["x-penstock-cache"], again.answer.headers["x-penstock-cache"])
        assert shown == ("refresh" if way else "miss", "hit")
        assert passed(first) == passed(again)
        assert passed(first) == [pair for pair in oracle.passed_headers(case.headers) if pair[0] not in PER_ANSWER]
        assert first.record.get("usage") == again.record.get("usage") == case.expected["usage"]


@named(STREAMS)
@pytest.mark.parametrize("first_asks", [False, True])
async def test_usage_is_withheld_from_who_does_not_ask(case: Case, first_asks: bool, bench: Bench) -> None:
    if not case.asks_usage:
        pytest.skip("usage is not asked for at this provider, or asked for by the client")
    await ask(bench, case, usage=first_asks)
    for usage in (False, True, False):
        seen = await ask(bench, case, usage=usage)
        assert seen.received == []
        assert seen.answer.body == (oracle.ended(case.body) if usage else case.relayed)


@named([case for case in STREAMS if case.api in ("chat", "completions", "messages")])
async def test_a_stream_is_given_as_json(case: Case, bench: Bench) -> None:
    """openai-python reads it, and it says what the stream said."""
    await ask(bench, case)
    seen = await ask(bench, case, stream=False)
    assert seen.received == []
    assert (seen.answer.status, seen.answer.headers["x-penstock-cache"]) == (200, "hit")
    assert seen.answer.headers["content-type"] == "application/json"
    assert seen.record.get("usage") == case.expected["usage"]
    document = seen.answer.json()
    if case.api == "messages":
        assert (document["type"], document["role"]) == ("message", "assistant")
        return
    async with AsyncOpenAI(base_url=bench.gateway.url, api_key="any", max_retries=0) as client:
        body = json.loads(asked(case, stream=False))
        read = await client.post(case.path.removeprefix("/v1"), body=body, cast_to=TYPES[case.api])
    assert read.to_dict(mode="json", warnings=False) == document
    if case.api == "chat":
        told = dict(case.expected["usage"] or {})
        told.pop("cost_nanousd", None)
        assert (oracle.figures(document.get("usage")) or {}) == told
        for choice in document["choices"]:
            content, calls = streamed(case.body, choice["index"])
            message = choice["message"]
            assert [call["function"]["arguments"] for call in message.get("tool_calls") or ()] == calls
            if type(message.get("content")) is not list:  # Mistral's has parts
                assert (message.get("content") or "") == content


@named([case for case in CASES if case.api == "responses"])
async def test_a_stream_that_does_not_say_it_all_has_no_other_form(case: Case, bench: Bench) -> None:
    """These golden streams leave out the events that tell the items whole: who asks for JSON gets a call of its own."""
    await ask(bench, case)
    seen = await bench.exchange(case.path, asked(case, stream=False), replace(case.scripted([b"{}"]), headers=JSON))
    assert (len(seen.received), seen.answer.headers["x-penstock-cache"], seen.answer.body) == (1, "refresh", b"{}")


def streamed(body: bytes, index: int) -> tuple[str, list[str]]:
    """What the deltas of one choice put together: its text, and the arguments of its calls."""
    content, calls = "", dict[int, str]()
    for event in oracle.events_of(body):
        document = oracle.parsed(oracle.data_in(event) or b"")
        for choice in (document or {}).get("choices", ()):
            delta = choice.get("delta", {})
            if choice["index"] == index and type(delta.get("content")) is str:
                content += delta["content"]
            for call in (delta.get("tool_calls") or ()) if choice["index"] == index else ():
                at = call.get("index", 0)
                calls[at] = calls.get(at, "") + (call["function"].get("arguments") or "")
    return content, [calls[at] for at in sorted(calls)]


@named([case for case in WHOLE if case.api in ("chat", "completions")])
async def test_json_is_given_as_a_stream(case: Case, bench: Bench) -> None:
    first = await ask(bench, case)
    for usage in (False, True):
        async with AsyncOpenAI(base_url=bench.gateway.url, api_key="any", max_retries=0) as client:
            body = json.loads(asked(case, stream=True)) | ({"stream_options": {"include_usage": True}} if usage else {})
            stream: AsyncStream[ChatCompletionChunk] = await client.post(
                case.path.removeprefix("/v1"),
                body=body,
                cast_to=ChatCompletion,
                stream=True,
                stream_cls=AsyncStream[ChatCompletionChunk],
            )
            assert stream.response.headers["x-penstock-cache"] == "hit"
            chunks = [chunk async for chunk in stream]
        whole = first.answer.json()
        texts = {choice["index"]: choice["message"].get("content") or "" for choice in whole["choices"]}
        assert {index: text(chunks, index) for index in texts} == texts
        told = [chunk.usage.to_dict() for chunk in chunks if chunk.usage is not None]
        assert told == ([whole["usage"]] if usage else [])


def text(chunks: list[ChatCompletionChunk], index: int) -> str:
    deltas = (choice.delta for chunk in chunks for choice in chunk.choices if choice.index == index)
    return "".join(delta.content or "" for delta in deltas)
