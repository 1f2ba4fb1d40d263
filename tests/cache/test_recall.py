"""The cache and shared calls through the gateway, on memory and on a real Valkey."""

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.core.cache_policy import CachePolicy
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, send

CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1, output: 2}}}}}}}}
routes:
  route: {{tiers: [sim/{model}]}}
  plain: {{tiers: [sim/{model}]}}
"""


def cached(gateway: Gateway, **changes: Any) -> None:
    """Switch the route's cache on."""
    policy = CachePolicy(3600.0, **changes)
    table = gateway.runtime.table
    routes = {name: replace(one, cache=policy if name == "route" else None) for name, one in table.routes.items()}
    gateway.runtime.table = replace(table, routes=routes)


@pytest.fixture(params=["memory", "valkey"])
async def open_gateway(request: pytest.FixtureRequest, start: Start, upstream_url: str) -> Any:
    redis_url = request.getfixturevalue("valkey").url if request.param == "valkey" else None

    async def opened(model: str = "m", **changes: Any) -> Gateway:
        gateway = await start(CONFIG.format(url=upstream_url, model=model), redis_url=redis_url)
        cached(gateway, **changes)
        return gateway

    return opened


async def ask(gateway: Gateway, *, stream: bool = False, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    body = {"model": "route", "stream": stream, "messages": [{"role": "user", "content": "How high is the water?"}]}
    return await send(gateway.port, CHAT, orjson.dumps(body | more), headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answer_is_the_first_byte_for_byte(
    open_gateway: Any, upstream: Simulator, stream: bool
) -> None:
    gateway = await open_gateway()
    first = await ask(gateway, stream=stream)
    await gateway.booked(1)
    second = await ask(gateway, stream=stream)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    assert (first.headers["x-penstock-cache"], second.headers["x-penstock-cache"]) == ("miss", "hit")
    assert second.headers["age"] in ("0", "1")
    assert len(upstream.requests) == 1
    miss, hit = await gateway.booked(2)
    assert (miss.cache, hit.cache, hit.cost_nanousd, hit.attempts) == ("miss", "hit", 0, 0)
    assert hit.saved_nanousd == miss.cost_nanousd > 0
    assert (hit.provider, hit.model, hit.input_tokens) == (miss.provider, miss.model, miss.input_tokens)


async def crowd(gateway: Gateway, count: int, *, stream: bool, **more: Any) -> list[Answer]:
    return await asyncio.gather(*(ask(gateway, stream=stream, **more) for _ in range(count)))


@pytest.mark.parametrize("stream", [False, True])
async def test_200_at_once_are_one_call(open_gateway: Any, upstream: Simulator, stream: bool) -> None:
    """F107: one upstream call, 200 whole answers, one cost in the books."""
    gateway = await open_gateway("slow:20ms" if stream else "delay:500ms")
    answers = await crowd(gateway, 200, stream=stream)
    assert {answer.status for answer in answers} == {200}
    assert {answer.end for answer in answers} == {"whole"}
    assert len({answer.body for answer in answers}) == 1
    assert len(upstream.requests) == 1
    rows = await gateway.booked(200)
    states = [row.cache for row in rows]
    assert states.count("miss") == 1
    assert set(states) <= {"miss", "coalesced", "hit"}  # who connects late finds it kept
    assert states.count("coalesced") > 50
    (miss,) = [row for row in rows if row.cache == "miss"]
    assert miss.cost_nanousd > 0
    assert sum(row.cost_nanousd for row in rows) == miss.cost_nanousd
    assert {row.saved_nanousd for row in rows if row.cache != "miss"} == {miss.cost_nanousd}
    assert {row.outcome for row in rows} == {"ok"}
    assert len({row.id for row in rows}) == 200


async def test_followers_get_events_as_they_come(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway("paced:10:50ms")
    connections = [await Connection.open(gateway.port) for _ in range(2)]
    body = orjson.dumps({"model": "route", "stream": True, "messages": [{"role": "user", "content": "?"}]})
    connections[0].post(CHAT, body)
    await connections[0].until(b'"content"')
    connections[1].post(CHAT, body)
    seen = await connections[1].until(b'"content"')
    assert b"[DONE]" not in seen
    answers = [await connection.answer() for connection in connections]
    assert answers[0].body == answers[1].body
    assert answers[1].headers["x-penstock-cache"] == "coalesced"
    assert len(upstream.requests) == 1
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("leaves", ["all but one", "all"])
async def test_the_leader_may_leave(open_gateway: Any, upstream: Simulator, leaves: str) -> None:
    gateway = await open_gateway("paced:20:20ms")
    connections = [await Connection.open(gateway.port) for _ in range(20)]
    body = orjson.dumps({"model": "route", "stream": True, "messages": [{"role": "user", "content": "?"}]})
    connections[0].post(CHAT, body)
    await connections[0].until(b'"content"')
    for connection in connections[1:]:
        connection.post(CHAT, body)
        await connection.until(b'"content"')
    for connection in connections[:-1] if leaves == "all but one" else connections:
        connection.reset()
    if leaves == "all but one":
        answer = await connections[-1].answer()
        assert (answer.status, answer.end) == (200, "whole")
        assert answer.body.endswith(b"data: [DONE]\n\n")
        await connections[-1].close()
    rows = await gateway.booked(20)
    assert len(upstream.requests) == 1
    assert sum(row.cost_nanousd > 0 for row in rows) == 1
    again = await send(gateway.port, CHAT, body)
    assert again.headers["x-penstock-cache"] == ("hit" if leaves == "all but one" else "miss")


@pytest.mark.parametrize(("model", "status"), [("once:500", 200), ("500", 502), ("400", 400), ("hangup", 502)])
async def test_a_leader_that_fails_before_content(
    open_gateway: Any, upstream: Simulator, model: str, status: int
) -> None:
    gateway = await open_gateway(model)
    answers = await crowd(gateway, 50, stream=True)
    assert {answer.status for answer in answers} <= {status, 503}  # 503: its breaker is open by then
    assert status in {answer.status for answer in answers}
    assert len(upstream.requests) < 25  # a leader's repeats, those of one more, and of who came when both were over
    rows = await gateway.booked(50)
    assert len(rows) == 50
    if status != 200:
        assert (await ask(gateway, stream=True)).status in (status, 503)  # nothing is kept


@pytest.mark.parametrize("model", ["cut:3:20ms", "error-event:3", "bad-json:3", "clean-end:3"])
async def test_a_leader_that_fails_after_content(open_gateway: Any, upstream: Simulator, model: str) -> None:
    """F106, F107: whoever has begun is told in the stream; nothing is kept, and nobody hangs."""
    gateway = await open_gateway(model)
    answers = await asyncio.wait_for(crowd(gateway, 30, stream=True), 10)
    for answer in answers:
        if answer.status == 200:
            assert answer.end == "eof"
            assert b"[DONE]" not in answer.body
            assert answer.last_error["code"]
        else:
            assert answer.status in (502, 503)
    gateway.forgive()
    calls = len(upstream.requests)
    await ask(gateway, stream=True)
    assert len(upstream.requests) > calls


async def test_accounts_and_routes_never_meet(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway()
    await ask(gateway)
    await gateway.booked(1)
    other = await ask(gateway, model="plain")
    assert other.headers["x-penstock-cache"] == "off"
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("control", "second", "third"),
    [
        ("no-cache", "refresh", "hit"),
        ("no-store", "bypass", "hit"),
        ("max-age=0", "refresh", "hit"),
        ("max-age=3600", "hit", "hit"),
        ("max-age=oops", "refresh", "hit"),
        ("private", "hit", "hit"),
    ],
)
async def test_a_request_may_say_what_it_takes(open_gateway: Any, control: str, second: str, third: str) -> None:
    gateway = await open_gateway()
    await ask(gateway)
    await gateway.booked(1)
    await asyncio.sleep(0.01)
    assert (await ask(gateway, headers={"cache-control": control})).headers["x-penstock-cache"] == second
    await gateway.booked(2)
    assert (await ask(gateway)).headers["x-penstock-cache"] == third


async def test_only_what_is_kept(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway()
    only = {"cache-control": "only-if-cached"}
    refused = await ask(gateway, headers=only)
    assert (refused.status, refused.error["code"]) == (504, "not_cached")
    assert not upstream.requests
    await ask(gateway)
    await gateway.booked(2)
    assert (await ask(gateway, headers=only)).status == 200
    assert len(upstream.requests) == 1


async def test_the_answer_in_the_other_form(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway("tokens:7:3")
    whole = await ask(gateway)
    await gateway.booked(1)
    streamed = await ask(gateway, stream=True, stream_options={"include_usage": True})
    assert streamed.headers["x-penstock-cache"] == "hit"
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = [orjson.loads(event[6:]) for event in streamed.events if b"[DONE]" not in event]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == whole.json()["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole.json()["usage"]
    silent = await ask(gateway, stream=True)
    assert b'"usage":{' not in silent.body
    assert len(upstream.requests) == 1


async def test_usage_is_kept_and_shown_to_who_asks(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway("tokens:7:3")
    silent = await ask(gateway, stream=True)
    await gateway.booked(1)
    asking = await ask(gateway, stream=True, stream_options={"include_usage": True})
    again = await ask(gateway, stream=True)
    assert b'"prompt_tokens":7' not in silent.body
    assert b'"prompt_tokens":7' in asking.body
    assert again.body == silent.body
    assert len(upstream.requests) == 1
    rows = await gateway.booked(3)
    assert {row.input_tokens for row in rows} == {7}
    whole = await ask(gateway)
    assert whole.json()["usage"]["prompt_tokens"] == 7
    assert len(upstream.requests) == 1


async def test_answers_that_call_tools(open_gateway: Any, upstream: Simulator) -> None:
    tool: dict[str, Any] = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    asked: dict[str, Any] = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "lookup"}}}
    gateway = await open_gateway()
    for stream in (False, True):
        first = await ask(gateway, stream=stream, **asked)
        assert b"tool_calls" in first.body
        await gateway.booked(1 if not stream else 3)
        second = await ask(gateway, stream=stream, **asked)
        assert second.headers["x-penstock-cache"] == "miss"
    assert len(upstream.requests) == 4
    cached(gateway, tool_calls=True)
    await ask(gateway, **asked)
    await gateway.booked(5)
    assert (await ask(gateway, **asked)).headers["x-penstock-cache"] == "hit"


async def test_a_paced_replay(open_gateway: Any) -> None:
    gateway = await open_gateway("events:20", paced=True)
    first = await ask(gateway, stream=True)
    await gateway.booked(1)
    began = asyncio.get_running_loop().time()
    second = await ask(gateway, stream=True)
    assert second.body == first.body
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_two_instances_share_one_call(start: Start, upstream_url: str, upstream: Simulator, valkey: Any) -> None:
    text = CONFIG.format(url=upstream_url, model="delay:300ms")
    gateways = [await start(text, redis_url=valkey.url) for _ in range(2)]
    for gateway in gateways:
        cached(gateway)
    answers = await asyncio.gather(*(ask(gateways[number % 2]) for number in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len(upstream.requests) == 1
    rows = [row for gateway in gateways for row in await gateway.booked(100)]
    assert sum(row.cost_nanousd > 0 for row in rows) == 1


async def test_redis_away_costs_hits_and_no_answers(start: Start, upstream_url: str, own_valkey: Any) -> None:
    """F079, F080: a miss, never an error; calls that are the same in one process are still shared."""
    gateway = await start(CONFIG.format(url=upstream_url, model="m"), redis_url=own_valkey.url)
    cached(gateway)
    await ask(gateway)
    await gateway.booked(1)
    assert (await ask(gateway)).headers["x-penstock-cache"] == "hit"
    own_valkey.stop()
    for _ in range(10):
        assert (await ask(gateway)).status == 200
    answers = await crowd(gateway, 50, stream=True)
    assert {answer.status for answer in answers} == {200}


async def test_what_is_nobody_elses_is_asked_each_time(open_gateway: Any, upstream: Simulator) -> None:
    gateway = await open_gateway()
    for number in range(2):
        assert (await ask(gateway, store=True)).headers["x-penstock-cache"] == "bypass"
        assert len(upstream.requests) == number + 1
