"""Every API's normal answer, read plainly and by the official client."""

import base64
from typing import Any

import aiohttp
import jsonschema
import openai
import orjson
import pytest

from proxy.simulator.server import Simulator

from .client import ASKED, PATHS, ask, data_of, text_of

STREAMED = ("chat", "completions", "responses", "messages")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL_CHAT = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TOOL_RESPONSES = {"type": "function", "name": "weather", "parameters": SCHEMA}
TOOL_MESSAGES = {"name": "weather", "input_schema": SCHEMA}
TOOLS = {"chat": TOOL_CHAT, "responses": TOOL_RESPONSES, "messages": TOOL_MESSAGES}


def _client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)


@pytest.mark.parametrize("api", PATHS.keys() - {"speech"})
@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_each_path_answers_with_and_without_v1(base_url: str, api: str, prefix: str) -> None:
    url = base_url.removesuffix("/v1") + prefix + PATHS[api]
    async with aiohttp.ClientSession() as session, session.post(url, json={"model": "any", **ASKED[api]}) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert isinstance(await answer.json(), dict)


@pytest.mark.parametrize("api", STREAMED)
async def test_a_stream_says_what_the_whole_answer_says(base_url: str, api: str) -> None:
    streamed = await ask(base_url, api, "any", stream=True)
    whole = await ask(base_url, api, "any")
    text = text_of(streamed.body)
    assert "Penstock's simulator" in text
    assert orjson.dumps(text)[1:-1] in whole.body
    assert ("How high is the water?" in text) is True
    assert streamed.whole
    assert b"content-type: text/event-stream" in streamed.head


@pytest.mark.parametrize("api", PATHS)
async def test_the_same_request_has_the_same_answer(base_url: str, api: str) -> None:
    assert (await ask(base_url, api, "any")).raw == (await ask(base_url, api, "any")).raw


async def test_chat_through_the_official_client(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.chat.completions.create(model="any", n=2, messages=[{"role": "user", "content": "Hello"}])
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].finish_reason == "stop"
    assert "Hello" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("include_usage", [True, False])
async def test_chat_stream_through_the_official_client(base_url: str, include_usage: bool) -> None:
    async with _client(base_url) as client:
        stream = await client.chat.completions.create(
            model="any",
            stream=True,
            stream_options={"include_usage": include_usage},
            messages=[{"role": "user", "content": "Hello"}],
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert (not chunks[-1].choices) is include_usage
    assert [chunk.usage is not None for chunk in chunks].count(True) == int(include_usage)


async def test_interleaved_choices(base_url: str) -> None:
    answer = await ask(base_url, "chat", "any", stream=True, n=3)
    indexes = [orjson.loads(data)["choices"][0]["index"] for data in data_of(answer.body)[:-1]]
    assert indexes[:6] == [0, 1, 2, 0, 1, 2]
    assert indexes.count(0) == indexes.count(1) == indexes.count(2)


async def test_chat_tools_through_the_official_client(base_url: str) -> None:
    async with _client(base_url) as client:
        async with client.chat.completions.stream(
            model="any",
            messages=[{"role": "user", "content": "Weather?"}],
            tools=[TOOL_CHAT],  # type: ignore[list-item] # the SDK's TypedDict wants literal types
        ) as stream:
            choice = (await stream.get_final_completion()).choices[0]
        whole = await client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Weather?"}],
            tools=[TOOL_CHAT],  # type: ignore[list-item] # as above
        )
    assert choice.finish_reason == whole.choices[0].finish_reason == "tool_calls"
    for message in (choice.message, whole.choices[0].message):
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        assert call.function.name == "weather"
        jsonschema.validate(orjson.loads(call.function.arguments), SCHEMA)


async def test_responses_through_the_official_client(base_url: str) -> None:
    async with _client(base_url) as client:
        whole = await client.responses.create(model="any", input="Hello")
        async with client.responses.stream(model="any", input="Hello") as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
    assert whole.output_text == final.output_text
    assert "Hello" in whole.output_text
    assert final.usage is not None
    numbered = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert numbered == list(range(len(numbered)))
    assert [event.type for event in events][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert events[-1].type == "response.completed"


async def test_responses_have_event_lines_and_no_done(base_url: str) -> None:
    answer = await ask(base_url, "responses", "any", stream=True)
    kinds = [line[7:] for line in answer.body.split(b"\n") if line.startswith(b"event: ")]
    assert kinds == [orjson.loads(data)["type"].encode() for data in data_of(answer.body)]
    assert b"[DONE]" not in answer.body


async def test_responses_tools_through_the_official_client(base_url: str) -> None:
    async with (
        _client(base_url) as client,
        client.responses.stream(
            model="any",
            input="Weather?",
            tools=[TOOL_RESPONSES],  # type: ignore[list-item] # the SDK's TypedDict wants literal types
        ) as stream,
    ):
        final = await stream.get_final_response()
    (item,) = final.output
    assert item.type == "function_call"
    jsonschema.validate(orjson.loads(item.arguments), SCHEMA)


async def test_messages_stream(base_url: str) -> None:
    answer = await ask(base_url, "messages", "tokens:100:20:30:10", stream=True)
    events = [orjson.loads(data) for data in data_of(answer.body)]
    assert [event["type"] for event in events if event["type"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (
        events[0]["message"]["usage"]["input_tokens"] == 60
    )  # what was read from or written to the cache is beside it
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 30
    assert events[-2]["usage"] == {"output_tokens": 20}
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


async def test_messages_tools(base_url: str) -> None:
    answer = await ask(base_url, "messages", "any", stream=True, tools=[TOOL_MESSAGES])
    events = [orjson.loads(data) for data in data_of(answer.body)]
    assert events[1]["content_block"]["name"] == "weather"
    pieces = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    jsonschema.validate(orjson.loads("".join(pieces)), SCHEMA)
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    whole = (await ask(base_url, "messages", "any", tools=[TOOL_MESSAGES])).json()
    jsonschema.validate(whole["content"][0]["input"], SCHEMA)


@pytest.mark.parametrize(
    ("api", "more"),
    [
        ("chat", {"tool_choice": "none"}),
        ("messages", {"tool_choice": {"type": "none"}}),
        ("responses", {"tool_choice": "none"}),
        ("chat", {"messages": [{"role": "user", "content": "?"}, {"role": "tool", "content": "fine"}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "fine"}]}]}),
        (
            "responses",
            {"input": [{"role": "user", "content": "?"}, {"type": "function_call_output", "output": "fine"}]},
        ),
    ],
)
async def test_no_tool_is_called_unasked_or_twice(base_url: str, api: str, more: dict[str, Any]) -> None:
    answer = await ask(base_url, api, "any", tools=[TOOLS[api]], **more)
    assert b"Penstock's simulator" in answer.body


async def test_the_tool_that_is_named_is_called(base_url: str) -> None:
    second = {"type": "function", "function": {"name": "second"}}
    choice = {"type": "function", "function": {"name": "second"}}
    answer = await ask(base_url, "chat", "any", tools=[TOOL_CHAT, second], tool_choice=choice)
    call = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call == {"name": "second", "arguments": "{}"}


@pytest.mark.parametrize(
    ("api", "more"),
    [
        ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}),
        ("responses", {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}),
        ("messages", {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ],
)
async def test_structured_output_is_valid(base_url: str, api: str, more: dict[str, Any]) -> None:
    answer = await ask(base_url, api, "any", stream=True, **more)
    jsonschema.validate(orjson.loads(text_of(answer.body)), SCHEMA)


@pytest.mark.parametrize(
    ("api", "more", "mark"),
    [
        ("chat", {"max_tokens": 5}, b'"finish_reason":"length"'),
        ("responses", {"max_output_tokens": 5}, b'"incomplete_details":{"reason":"max_output_tokens"}'),
        ("messages", {"max_tokens": 5}, b'"stop_reason":"max_tokens"'),
        ("completions", {"max_tokens": 5}, b'"finish_reason":"length"'),
    ],
)
async def test_the_longest_length_is_kept_to(base_url: str, api: str, more: dict[str, Any], mark: bytes) -> None:
    for stream in (False, True):
        answer = await ask(base_url, api, "any", stream=stream, **more)
        assert mark in answer.body
        assert len(text_of(answer.body).encode()) <= 20


async def test_images_are_taken(base_url: str) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    answer = await ask(base_url, "chat", "any", messages=[{"role": "user", "content": parts}])
    assert "What is this?" in answer.json()["choices"][0]["message"]["content"]


async def test_embeddings_through_the_official_client(base_url: str) -> None:
    async with _client(base_url) as client:  # it asks for base64 by itself
        answer = await client.embeddings.create(model="any", input=["a", "b", "a"], dimensions=8)
        plain = await client.embeddings.create(model="any", input="a", encoding_format="float")
    assert [len(one.embedding) for one in answer.data] == [8, 8, 8]
    assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding
    assert answer.data[0].embedding == plain.data[0].embedding[:8]
    assert len(plain.data[0].embedding) == 1536


async def test_packed_embeddings_are_little_endian_floats(base_url: str) -> None:
    packed = (await ask(base_url, "embeddings", "any", encoding_format="base64", dimensions=4)).json()
    assert len(base64.b64decode(packed["data"][0]["embedding"])) == 16


async def test_count_tokens(base_url: str) -> None:
    assert (await ask(base_url, "count_tokens", "tokens:77")).json() == {"input_tokens": 77}


async def test_models_through_the_official_client(base_url: str) -> None:
    async with _client(base_url) as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("meta/any:free")
    assert "simulator" in listed
    assert "cut" in listed
    assert one.id == "meta/any:free"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b"{}", 400),
        ("POST", "/chat/completions", b'{"model": 3}', 400),
        ("POST", "/chat/completions", b'{"model": "cut:abc", "stream": true}', 400),
        ("POST", "/chat/completions", b'{"model": "delay:soon"}', 400),
        ("POST", "/chat/completions", b'{"model": "tokens:many"}', 400),
        ("POST", "/chat/completions", b'{"model": "status:99"}', 400),
        ("POST", "/chat/completions", b'{"model": "429:nonsense"}', 400),
        ("POST", "/chat/completions", b'{"model": "redirect:302:http://x\\r\\ny: z"}', 400),
        ("POST", "/../unknown", b"{}", 404),
        ("POST", "/rerank", b'{"documents": []}', 400),
        ("POST", "/audio/transcriptions", b'{"file": "x"}', 400),
        ("POST", "/batches", b"{}", 400),
        ("POST", "/files", b"{}", 400),
        ("GET", "/files/file-unknown", b"", 404),
        ("GET", "/batches/batch_unknown", b"", 404),
        ("GET", "/chat/completions", b"", 405),
        ("DELETE", "/models", b"", 405),
    ],
)
async def test_its_own_errors_are_shaped_as_openai_shapes_them(
    base_url: str, method: str, path: str, body: bytes, status: int
) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, base_url + path, data=body) as answer:
        assert answer.status == status
        assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "more",
    [
        {"messages": None},
        {"messages": [None]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [None, {"type": "text"}]}]},
        {"tools": [None, {}, {"function": None}]},
        {"tools": {}, "tool_choice": 3, "n": "x", "max_tokens": "many", "stream_options": []},
        {"response_format": "json", "n": -4},
    ],
)
async def test_odd_bodies_are_answered(base_url: str, simulator: Simulator, more: dict[str, Any]) -> None:
    assert (await ask(base_url, "chat", "any", **more)).status == 200
    assert (await ask(base_url, "chat", "any", stream=True, **more)).whole
