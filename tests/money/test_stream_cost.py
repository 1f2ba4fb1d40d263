"""What a stream cost, told at its end: before its `[DONE]`, whatever the API, however the bytes come."""

import asyncio
import random
from typing import Any

import openai
import orjson
import pytest

from proxy.phases.stream_cost import _done_at
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Gateway, send
from tests.money.stage import PRICE, agree, budget, told_cost

COMPLETIONS, RESPONSES, MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
PATHS = [CHAT, COMPLETIONS, RESPONSES, MESSAGES]
SOUND = ["plain", "burst:20", "split:1", "crlf", "cr", "gzip", "multiline", "no-usage", "no-blank"]
ASK = {"x-penstock-stream-cost": "comment"}
MARK = b": penstock "


async def gateway_to(start: Start, url: str, timeouts: str = "first_event: 20s, idle: 20s, silent: 20s") -> Gateway:
    return await start(
        f"""
providers: {{p: {{like: vllm, base_url: "{url}", price: {{"*": {PRICE}}}}}}}
defaults: {{timeouts: {{{timeouts}}}}}
""",
        change=budget(),
    )


def asked(model: str) -> bytes:
    question = [{"role": "user", "content": "How high is the water, mama?"}]
    fields = {"messages": question, "input": "?", "prompt": "?", "max_tokens": 50}
    return orjson.dumps({"model": f"p/{model}", "stream": True, **fields})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "script", ["plain", "burst:20", "split:1", "crlf", "cr", "gzip", "multiline", "no-usage", "no-blank"]
)
async def test_a_comment_tells_the_cost_before_done(path: str, script: str, start: Start, upstream_url: str) -> None:
    gateway = await gateway_to(start, upstream_url)
    plain = await send(gateway.port, path, asked(script))
    told = await send(gateway.port, path, asked(script), ASK)
    assert (told.status, told.end) == (200, "whole")
    before, mark, rest = told.body.partition(MARK)
    assert mark
    comment, end, after = rest.partition(b"\n\n")
    assert end
    assert before + after == plain.body, "nothing else is changed"
    assert after.strip() in (b"data: [DONE]", b"data:[DONE]", b"")
    assert bool(after) == (b"[DONE]" in plain.body)
    first, second = await agree(gateway, 2)
    facts = orjson.loads(comment)
    assert round(float(facts["cost_usd"]) * 1e9) == second.cost_nanousd == first.cost_nanousd
    assert (facts["input_tokens"], facts["output_tokens"]) == (second.input_tokens, second.output_tokens)
    assert (facts["estimated"], facts["cost_source"]) == (script == "no-usage", second.cost_source)
    assert facts["request_id"] == told.headers["x-request-id"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("script", ["cut:3", "reset:3", "clean-end:3", "error-event:3", "bad-json:3", "stall:3"])
async def test_a_stream_that_breaks_tells_none(path: str, script: str, start: Start, upstream_url: str) -> None:
    gateway = await gateway_to(start, upstream_url, "first_event: 1s, idle: 300ms, silent: 600ms")
    told = await send(gateway.port, path, asked(script), ASK)
    assert (told.status, told.end) == (200, "eof")
    assert MARK not in told.body
    await agree(gateway, 1)


@pytest.mark.parametrize("header", [{}, {"x-penstock-stream-cost": "yes"}])
async def test_who_does_not_ask_is_not_told(header: dict[str, str], start: Start, upstream_url: str) -> None:
    gateway = await gateway_to(start, upstream_url)
    assert MARK not in (await send(gateway.port, CHAT, asked("plain"), header)).body
    whole = await send(gateway.port, CHAT, asked("plain").replace(b"true", b"false"), ASK)
    assert MARK not in whole.body
    assert whole.headers["x-penstock-cost-usd"] != ""


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


SAYS_DONE = "say\ndata: [DONE]\n\nor data: [DONE]"
CHAT_EVENTS = [
    b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": SAYS_DONE}, "finish_reason": None}]}),
    b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    b"data: " + orjson.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}}),
]
RESPONSE = {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 5, "output_tokens": 6}}
RESPONSES_EVENTS = [
    b"data: " + orjson.dumps({"type": "response.created", "response": {"id": "r"}}),
    b"data: " + orjson.dumps({"type": "response.output_text.delta", "delta": SAYS_DONE}),
    b"data: " + orjson.dumps({"type": "response.completed", "response": {**RESPONSE, "instructions": SAYS_DONE}}),
]
WRITTEN: list[tuple[str, bytes]] = [
    (CHAT, b"\n\n".join([*CHAT_EVENTS, b"data: [DONE]"]) + b"\n\n"),
    (CHAT, b"\n\n".join([*CHAT_EVENTS, b"data:[DONE]"]) + b"\n\n"),
    (CHAT, b"\r\n\r\n".join([*CHAT_EVENTS, b"event: end\r\ndata: [DONE]"]) + b"\r\n\r\n"),
    (CHAT, b"\n\n".join(CHAT_EVENTS) + b"\n\n"),
    (RESPONSES, b"\n\n".join(RESPONSES_EVENTS) + b"\n\n"),
    (RESPONSES, b"\n\n".join([*RESPONSES_EVENTS, b"data: [DONE]"]) + b"\n\n"),
]


@pytest.mark.parametrize(("path", "body"), WRITTEN, ids=range(len(WRITTEN)))
async def test_an_answer_that_quotes_done_is_left_whole(path: str, body: bytes, start: Start) -> None:
    """Cut anywhere: the events that a client reads are those that were sent, and the comment stands before `[DONE]`."""
    rng = random.Random(body)
    ways = [[body], [body[at : at + 1] for at in range(len(body))]]
    for _ in range(6):
        cuts = sorted(rng.sample(range(1, len(body)), 3))
        ways.append([body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)])
    waiting = iter(ways)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for piece in next(waiting):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if rng.random() < 0.05:
                await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = await gateway_to(start, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    answers: list[Answer] = []
    try:
        for _ in ways:
            request = asked("m").replace(b'"stream":true', b'"stream":true,"stream_options":{"include_usage":true}')
            answers.append(await send(gateway.port, path, request, ASK))
    finally:
        server.close()
    for told in answers:
        assert told.end == "whole"
        before, _, rest = told.body.partition(MARK)
        _, _, after = rest.partition(b"\n\n")
        assert before + after == body
        assert after.strip().endswith(b"[DONE]") == body.strip().endswith(b"[DONE]")
        assert told_cost(told.body)["output_tokens"] == 6
    rows = await agree(gateway, len(ways))
    assert {row.cost_nanousd for row in rows} == {65_000}


@pytest.mark.parametrize(
    ("last", "at"),
    [
        (b"data: [DONE]\n\n", 0),
        (b"data: {}\n\ndata: [DONE]\n\n", 10),
        (b"data: {}\n\n: hi\n\ndata: [DONE]\n\n: bye\n\n", 16),
        (b'data: {"a":"data: [DONE]"}\n\n', 28),
        (b"", 0),
        (b"data: [DONE]\r\n\r\n", 0),
        (b"\n\n", 2),
    ],
)
def test_where_done_begins(last: bytes, at: int) -> None:
    assert _done_at(last) == at


@pytest.mark.parametrize("script", ["plain", "burst:20"])
async def test_an_sdk_takes_no_notice(script: str, start: Start, upstream_url: str) -> None:
    gateway = await gateway_to(start, upstream_url)
    async with openai.AsyncOpenAI(base_url=gateway.url, api_key="x", max_retries=0, default_headers=ASK) as sdk:
        chat: Any = await sdk.chat.completions.create(
            model=f"p/{script}", stream=True, messages=[{"role": "user", "content": "?"}]
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in chat if chunk.choices]
        assert "".join(pieces)
        events = [event.type async for event in await sdk.responses.create(model=f"p/{script}", input="?", stream=True)]
        assert events[-1] == "response.completed"
        written: Any = await sdk.completions.create(model=f"p/{script}", prompt="?", stream=True)
        assert [part async for part in written]
    await agree(gateway, 3)
