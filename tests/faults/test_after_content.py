"""Fault matrix B and what of C needs no budget: the upstream, or the client, fails after content was relayed."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, port_of
from tests.stopwatch import Stopwatch

RESPONSES, MESSAGES, COMPLETIONS = "/v1/responses", "/v1/messages", "/v1/completions"
STREAMING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)

# script, code of the STREAM-ERR
BROKEN = [
    ("cut:3", "upstream_incomplete"),  # F031
    ("reset:3", "upstream_incomplete"),  # F032
    ("mid-event:3", "upstream_incomplete"),  # F033
    ("mid-event:3:clean", "upstream_incomplete"),  # F033
    ("clean-end:3", "upstream_incomplete"),  # F035
    ("stall:3", "upstream_timeout"),  # F039
    ("drip:3", "upstream_timeout"),  # F041
    ("bad-json:3", "upstream_protocol"),  # F043
    ("error-event:3", "upstream_error"),  # F046
    ("cut-gzip:3", "upstream_incomplete"),
]
BROKEN_CHAT = [
    ("openrouter-error:3", "upstream_error"),  # F046
    ("tool-cut", "upstream_incomplete"),  # F038
]
WHOLE = ["plain", "after-done", "after-done-reset", "no-blank", "events:50", "burst:50", "split:1", "gzip", "comments"]
WHOLE += [
    "crlf",
    "cr",
    "bom",
    "multiline",
    "no-usage",
    "usage-every",
    "big-event:614400",
    "big-event:8388608",
]  # F044, F047


async def _direct(gateway: Gateway, model: str, path: str = CHAT, **more: object) -> Answer:
    """What the upstream itself sends."""
    connection = await Connection.open(port_of(_base_url(gateway)))
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 100,
        "messages": _QUESTION,
        "prompt": "?",
        "input": "?",
        **more,
    }
    connection.post(path, orjson.dumps(body))
    answer = await connection.answer(within_s=0.4)
    await connection.close()
    return answer


_QUESTION = [{"role": "user", "content": "How high is the water?"}]


def _base_url(gateway: Gateway) -> str:
    return next(provider.base_url for provider in gateway.service.table.providers.values() if provider.id == "sim")


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize(("script", "code"), BROKEN)
async def test_a_broken_stream_looks_broken(
    script: str, code: str, path: str, gateway: Gateway, upstream: Simulator
) -> None:
    answer = await gateway.ask(f"sim/{script}", stream=True, path=path)
    _is_broken(answer, code)
    assert len(upstream.requests) == 1, "nothing is sent twice after content"
    (record,) = await gateway.settled()
    assert (record["outcome"], record["code"]) == ("partial", code)
    async with asyncio.timeout(1):
        while not upstream.requests[0].finished and upstream.connections_open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("script", "code"), BROKEN_CHAT)
async def test_a_broken_chat_stream_looks_broken(script: str, code: str, gateway: Gateway) -> None:
    _is_broken(await gateway.ask(f"sim/{script}", stream=True), code)


async def test_f052_of_two_choices_one_is_cut(gateway: Gateway) -> None:
    _is_broken(await gateway.ask("sim/n-cut:3", stream=True, n=2), "upstream_incomplete")


async def test_of_several_prompts_one_is_cut(gateway: Gateway) -> None:
    """Each prompt of a completions request is a choice of its own."""
    answer = await gateway.ask("sim/n-cut:3", stream=True, path=COMPLETIONS, prompt=["a", "b"])
    _is_broken(answer, "upstream_incomplete")


def _is_broken(answer: Answer, code: str) -> None:
    assert answer.status == 200
    assert answer.end == "eof", "the last chunk must be missing"
    assert b"[DONE]" not in answer.body
    assert answer.body.endswith(b"\n\n")
    error = answer.last_error
    assert error["code"] == code
    assert error["message"]
    for event in answer.events[:-1]:
        assert event.endswith(b"}\n\n"), "half an event was relayed"


@pytest.mark.parametrize("script", ["cut:3", "reset:3", "mid-event:3", "clean-end:3", "error-event:3", "bad-json:3"])
async def test_what_was_relayed_is_a_prefix(script: str, gateway: Gateway) -> None:
    relayed = (await gateway.ask(f"sim/{script}", stream=True)).events[:-1]
    direct = await _direct(gateway, script, stream_options={"include_usage": True})
    sent = [_stripped(event) for event in direct.events[: len(relayed)]]
    assert [_stripped(event) for event in relayed] == sent
    assert len(relayed) >= 3


def _stripped(event: bytes) -> bytes:
    """An event without what differs between two answers."""
    document = orjson.loads(event.partition(b"data: ")[2])
    document.pop("id", None)
    document.pop("created", None)
    return orjson.dumps(document)


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("script", WHOLE)
async def test_a_stream_that_ended_well_ends_well(script: str, path: str, gateway: Gateway) -> None:
    answer = await gateway.ask(f"sim/{script}", stream=True, path=path)
    assert (answer.status, answer.end) == (200, "whole")
    assert b'"error"' not in answer.body.replace(b'"error":null', b"")
    if script == "after-done":
        assert answer.body.rstrip().endswith((b"[DONE]", b"}"))
    (record,) = await gateway.settled()
    assert record["outcome"] == "ok"
    if script != "no-usage":
        assert record["usage"]["output"] > 0


async def test_f036_a_finish_without_done_is_an_end_and_nothing_is_added(gateway: Gateway) -> None:
    answer = await gateway.ask("sim/no-done", stream=True)
    assert answer.end == "whole"
    assert b"[DONE]" not in answer.body


async def test_f042_after_done_the_client_is_finished_at_once(gateway: Gateway, upstream: Simulator) -> None:
    watch = Stopwatch.patient()
    answer = await gateway.ask("sim/after-done-silence", stream=True)
    assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
    assert watch.spent_s < 0.3
    async with asyncio.timeout(1):
        while upstream.requests[-1].disconnected_at is None:
            await asyncio.sleep(0.01)


async def test_f048_a_corrupt_coding_breaks_the_stream(gateway: Gateway) -> None:
    """Before content or after it, as zlib notices."""
    answer = await gateway.ask("sim/bad-gzip:3", stream=True)
    if answer.status == 200:
        _is_broken(answer, "upstream_protocol")
    else:
        assert (answer.status, answer.error["code"]) == (502, "upstream_protocol")


async def test_f049_a_bomb_is_stopped(gateway: Gateway) -> None:
    answer = await gateway.ask("sim/bomb:512", stream=True)
    assert answer.status == 502 or answer.end == "eof"
    assert len(answer.raw) < 128 * 1024 * 1024


async def test_f050_a_missing_usage_is_no_failure(gateway: Gateway) -> None:
    await gateway.ask("sim/no-usage", stream=True)
    (record,) = await gateway.settled()
    assert (record["outcome"], "estimated" in record) == ("ok", True)


async def test_the_usage_event_is_withheld_only_if_it_was_not_asked_for(gateway: Gateway, upstream: Simulator) -> None:
    unasked = await gateway.ask("sim/tokens:7:9", stream=True)
    assert b'"usage":{' not in unasked.body
    asked = await gateway.ask("sim/tokens:7:9", stream=True, stream_options={"include_usage": True})
    assert b'"usage":{' in asked.body
    assert len(asked.events) == len(unasked.events) + 1
    assert b'"stream_options":{"include_usage":true}' in upstream.requests[0].body
    for record in await gateway.settled(2):
        assert (record["usage"]["input"], record["usage"]["output"]) == (7, 9)


@pytest.mark.parametrize("script", ["mistral-usage", "groq-usage", "moonshot-usage", "usage-every"])
async def test_usage_is_read_wherever_it_stands(script: str, gateway: Gateway) -> None:
    await gateway.ask(f"sim/{script}", stream=True)
    (record,) = await gateway.settled()
    assert record["usage"]["input"] > 0
    assert record["usage"]["output"] > 0


# The client side


@pytest.mark.parametrize("script", ["silent", "head-then-silence", "stall:2", "paced:100:20ms"])
@pytest.mark.parametrize("way", ["close", "reset", "half"])
async def test_f054_to_f057_a_client_that_leaves_cancels_its_upstream(
    script: str, way: str, start: Start, upstream: Simulator, upstream_url: str
) -> None:
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": f"sim/{script}", "stream": True, "messages": _QUESTION}))
    if script in ("stall:2", "paced:100:20ms"):
        await client.until(b'"content":"')
    async with asyncio.timeout(2):
        while not upstream.requests:
            await asyncio.sleep(0.005)
    left = time.monotonic()
    if way == "close":
        await client.close()
    elif way == "half":
        client.writer.write_eof()
    else:
        client.reset()
    (record,) = await gateway.settled()
    assert (record["outcome"], record["status"]) == ("client_cancelled", 499)
    async with asyncio.timeout(1):
        while upstream.requests[-1].disconnected_at is None:
            await asyncio.sleep(0.005)
    assert time.monotonic() - left < 1
    await client.close()


async def test_f058_a_client_that_does_not_read_pauses_its_upstream(start: Start, upstream_url: str) -> None:
    """Back-pressure: while the client takes nothing, what Penstock has taken is bounded; it goes on when the client does."""
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=4096)
    client = Connection(reader, writer)
    transport: Any = writer.transport  # uvloop's is no subclass of asyncio's
    transport.pause_reading()
    body = orjson.dumps({"model": "sim/events:200000", "stream": True, "messages": _QUESTION})
    client.post(CHAT, body)
    await asyncio.sleep(0.5)
    first = _resident_bytes()
    await asyncio.sleep(0.5)
    assert _resident_bytes() - first < 4 * 1024 * 1024
    transport.resume_reading()
    taken = 0
    async with asyncio.timeout(30):
        while data := await reader.read(1 << 20):
            taken += len(data)
            if taken > 20_000_000:
                break
    await client.close()


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - not a path of ours
        return int(statm.read().split()[1]) * 4096


async def test_f069_in_small_many_clients_vanish_at_once(start: Start, upstream: Simulator, upstream_url: str) -> None:
    """All in one process and at once: how long the first event takes is not what is tested."""
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{timeouts: {{connect: 20s, first_event: 20s, idle: 20s, silent: 20s}}}}
routes: {{plain: {{tiers: [sim/plain]}}}}
"""
    )
    clients = [await Connection.open(gateway.port) for _ in range(200)]
    for client in clients:
        client.post(CHAT, orjson.dumps({"model": "sim/paced:1000:100ms", "stream": True, "messages": _QUESTION}))
    await asyncio.gather(*(client.until(b'"content":"') for client in clients))
    for client in clients:
        client.reset()
    async with asyncio.timeout(5):
        while upstream.connections_open:
            await asyncio.sleep(0.01)
    assert len(await gateway.settled(200)) == 200
