"""Crowds that come, read slowly and leave at random; the provider fails at random: nobody gets what is not theirs."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
import pytest

from proxy.core.cache_policy import CachePolicy
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway
from tests.stopwatch import Stopwatch

QUESTIONS = ("blue", "green", "red")
CLIENTS = 40
EVENTS = 6
HANG_S = 1.0
CONFIG = """
providers: {{odd: {{like: vllm, base_url: "http://127.0.0.1:{port}/v1", price: {{"*": {{input: 1, output: 2}}}}}}}}
defaults: {{retry: {{attempts: 1}}, timeouts: {{connect: 1s, first_event: 2s, idle: 1s, silent: 2s, total: 8s}}}}
routes:
  route: {{tiers: [odd/m]}}
"""


@dataclass(slots=True)
class Call:
    question: str
    ends: str  # well, or how not


class OddProvider:
    """Answers word by word; fails before or after content as its dice say. Every word of an answer names its question and
    its call.
    """

    def __init__(self, rng: random.Random, failing: float) -> None:
        self.calls: list[Call] = []
        self._rng = rng
        self._failing = failing
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked = orjson.loads(await reader.readexactly(length))
            fails = self._rng.random() < self._failing
            ends = self._rng.choice(("500", "hangup", "cut", "error")) if fails else "well"
            call = Call(asked["messages"][0]["content"], ends)
            self.calls.append(call)
            await self._answer(writer, call, f"{call.question}-{len(self.calls)}", streams=asked["stream"])
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, call: Call, word: str, *, streams: bool) -> None:
        await asyncio.sleep(self._rng.random() * 0.02)
        if call.ends == "500":
            body = b'{"error":{"message":"no"}}'
            writer.write(b"HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        elif call.ends == "hangup":
            writer.transport.abort()
        elif streams:
            await self._stream(writer, call, word)
        else:
            body = orjson.dumps(whole(f"{word} " * EVENTS))
            size = len(body) + (call.ends != "well")
            kind = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n"
            writer.write(kind + b"content-length: %d\r\n\r\n%b" % (size, body))
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, call: Call, word: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n")
        broken_at = EVENTS if call.ends == "well" else self._rng.randrange(EVENTS)
        for number in range(EVENTS):
            if number == broken_at:
                if call.ends == "error":
                    writer.write(b'data: {"error":{"message":"no more"}}\n\n')
                return
            writer.write(event({"content": f"{word} "}))
            await writer.drain()
            await asyncio.sleep(self._rng.random() * 0.01)
        writer.write(event({}, "stop") + b"data: [DONE]\n\n")


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(document) + b"\n\n"


def whole(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": EVENTS, "total_tokens": 3 + EVENTS}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def post(connection: Connection, question: str, *, stream: bool) -> None:
    body = {"model": "route", "stream": stream, "messages": [{"role": "user", "content": question}]}
    connection.post(CHAT, orjson.dumps(body))


async def client(gateway: Gateway, rng: random.Random, verdicts: list[str]) -> None:
    question, stream, mood = rng.choice(QUESTIONS), rng.random() < 0.6, rng.random()
    await asyncio.sleep(rng.random() * 0.15)
    connection = await Connection.open(gateway.port)
    post(connection, question, stream=stream)
    if mood < 0.15:
        await asyncio.sleep(rng.random() * 0.05)
        connection.reset()
        return
    if mood < 0.3:
        await asyncio.sleep(rng.random() * 0.05)
        await connection.close()
        return
    if mood < 0.5:
        await asyncio.sleep(rng.random() * 0.2)  # reads nothing meanwhile
    answer = await connection.answer(within_s=8)
    await connection.close()
    verdicts.append(verdict(answer, question, stream=stream))


def verdict(answer: Answer, question: str, *, stream: bool) -> str:
    assert answer.end != "open", "it hangs"
    if answer.status != 200:
        assert answer.status in (502, 503), answer
        assert answer.end == "whole"
        return "refused"
    if not stream:
        assert answer.end == "whole"
        words = answer.json()["choices"][0]["message"]["content"].split()
        assert len(words) == EVENTS
    else:
        documents = [orjson.loads(one[6:]) for one in answer.events if b"[DONE]" not in one]
        words = "".join(
            document["choices"][0]["delta"].get("content") or "" for document in documents if document.get("choices")
        ).split()
        if answer.end == "whole":
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert len(words) == EVENTS
        else:
            assert answer.last_error["code"]
            assert b"[DONE]" not in answer.body
    assert len(set(words)) == 1, f"a mix: {words}"
    assert words[0].partition("-")[0] == question, "another question's answer"
    return "whole" if answer.end == "whole" else "broken"


async def settled(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("store", ["memory", "valkey"])
@pytest.mark.parametrize(("seed", "failing"), [(1, 0.0), (2, 0.3), (3, 0.5), (4, 0.8), (5, 0.4)])
async def test_a_crowd(request: pytest.FixtureRequest, start: Start, store: str, seed: int, failing: float) -> None:
    rng = random.Random(seed)
    provider = OddProvider(rng, failing)
    redis_url = request.getfixturevalue("valkey").url if store == "valkey" else None
    gateway = await start(CONFIG.format(port=await provider.start()), redis_url=redis_url)
    table = gateway.runtime.table
    kept = {name: replace(one, cache=CachePolicy(60.0)) for name, one in table.routes.items()}
    gateway.runtime.table = replace(table, routes=kept)
    verdicts: list[str] = []
    tasks = [asyncio.create_task(client(gateway, random.Random(f"{seed}-{n}"), verdicts)) for n in range(CLIENTS)]
    forgiving = asyncio.create_task(forgive(gateway))
    try:
        async with asyncio.timeout(15):
            await asyncio.gather(*tasks)
    finally:
        forgiving.cancel()
    runtime = gateway.runtime
    await settled(lambda: not runtime.flying and not runtime.flights, HANG_S)
    rows = await gateway.booked(CLIENTS)
    assert not gateway.log.bugs
    assert not runtime.ticker._watchdogs
    failed = sum(call.ends != "well" for call in provider.calls)
    left = sum(row.outcome == "client_cancelled" for row in rows)
    # A question needs one call that ends well; all who leave as the last may take one with them, and JSON that was
    # asked for while a stream failed may begin anew.
    assert len(provider.calls) <= len(QUESTIONS) + failed + left
    assert len(provider.calls) < CLIENTS
    assert verdicts
    if not failing:
        assert set(verdicts) == {"whole"}
    # Who leaves with the call on its way to the provider may have cost something; the provider may never see it.
    misses = [row for row in rows if row.cost_nanousd and row.outcome != "client_cancelled"]
    assert len(misses) <= len(provider.calls)
    await provider.stop()


async def forgive(gateway: Gateway) -> None:
    while True:
        gateway.forgive()
        await asyncio.sleep(0.005)


def reads(connection: Connection) -> asyncio.ReadTransport:
    return cast("asyncio.ReadTransport", connection.writer.transport)  # uvloop's does not inherit from it


async def test_who_reads_nothing_for_two_seconds_delays_nobody(start: Start, upstream_url: str) -> None:
    """Two clients stop reading, the leader among them; what 8 MiB of events are to a third is not 2 s."""
    text = f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{route: {{tiers: [sim/big-event:8000000]}}}}
"""
    gateway = await start(text)
    table = gateway.runtime.table
    kept = {name: replace(one, cache=CachePolicy(60.0)) for name, one in table.routes.items()}
    gateway.runtime.table = replace(table, routes=kept)
    lazy = [await Connection.open(gateway.port) for _ in range(2)]
    for one in lazy:
        reads(one).pause_reading()  # a stream reader reads ahead, up to its limit
        post(one, "blue", stream=True)
    await asyncio.sleep(0.05)
    watch = Stopwatch.patient()
    quick = await Connection.open(gateway.port)
    post(quick, "blue", stream=True)
    answer = await quick.answer()
    took_s = watch.spent_s
    assert (answer.end, len(answer.body) > 8_000_000) == ("whole", True)
    assert took_s < 1.0
    await asyncio.sleep(max(0.0, 2.0 - watch.passed_s))
    for one in lazy:
        reads(one).resume_reading()
    late = [await one.answer() for one in lazy]
    assert [one.body == answer.body for one in late] == [True, True]
    rows = await gateway.booked(3)
    assert sorted(row.cache for row in rows) in (["coalesced", "coalesced", "miss"], ["coalesced", "hit", "miss"])
    for one in (*lazy, quick):
        await one.close()
