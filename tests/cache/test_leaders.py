"""Leaders of unusual kinds: refused by a budget, hedged, uploads, and those who wait for another instance and leave."""

import asyncio

import orjson
import pytest

from proxy.simulator.server import Simulator
from tests.cache.test_recall import CONFIG, ask, cached, crowd
from tests.conftest import Start
from tests.gateway import CHAT, Connection, send
from tests.valkey import Valkey

QUESTION = orjson.dumps(
    {"model": "route", "stream": True, "messages": [{"role": "user", "content": "How high is the water?"}]}
)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_budget_refuses_all_alike(stream: bool, start: Start, upstream: Simulator, upstream_url: str) -> None:
    """402 to the leader and to who follows; nothing is sent, and nothing kept."""
    gateway = await start(CONFIG.format(url=upstream_url, model="m") + "budgets: {daily: 0}\n")
    cached(gateway)
    answers = await crowd(gateway, 20, stream=stream)
    assert {(answer.status, answer.error["code"]) for answer in answers} == {(402, "budget_exceeded")}
    assert not upstream.requests
    rows = await gateway.booked(20)
    assert {(row.outcome, row.cost_nanousd, row.saved_nanousd) for row in rows} == {("refused", 0, 0)}


async def test_a_hedged_call_is_shared_and_kept(start: Start, upstream: Simulator, upstream_url: str) -> None:
    text = f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}", price: {{"*": {{input: 1, output: 2}}}}}}}}
routes: {{route: {{tiers: [sim/delay:400ms, sim/m], hedge: true}}}}
"""
    gateway = await start(text)
    cached(gateway)
    answers = await crowd(gateway, 10, stream=True)
    assert {(answer.status, answer.end) for answer in answers} == {(200, "whole")}
    assert len({answer.body for answer in answers}) == 1
    assert len(upstream.requests) <= 2
    rows = await gateway.booked(10)
    assert sum(row.cost_nanousd > 0 for row in rows) == 1
    assert (await ask(gateway, stream=True)).headers["x-penstock-cache"] == "hit"
    assert gateway.runtime.flights == {}


async def test_uploads_go_their_own_way(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url, model="m"))
    cached(gateway)
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nroute\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
    )
    for _ in range(2):
        kind = {"content-type": "multipart/form-data; boundary=b"}
        answer = await send(gateway.port, "/v1/audio/transcriptions", form, kind)
        assert (answer.status, answer.headers["x-penstock-cache"]) == (200, "bypass")
    assert len(upstream.requests) == 2


async def test_leaders_who_leave_while_another_instance_asks_take_nobody_with_them(
    start: Start, upstream: Simulator, upstream_url: str, valkey: Valkey
) -> None:
    """Each of them hands the wait on: however many leave, who stays is no failure, and asks nobody."""
    text = CONFIG.format(url=upstream_url, model="delay:600ms")
    one, other = [await start(text, redis_url=valkey.url) for _ in range(2)]
    for gateway in (one, other):
        cached(gateway)
    first = asyncio.create_task(ask(one, stream=True))
    async with asyncio.timeout(2):
        while not upstream.requests:
            await asyncio.sleep(0.005)
    waiting = [await Connection.open(other.port) for _ in range(6)]
    for connection in waiting:
        connection.post(CHAT, QUESTION)
        await asyncio.sleep(0.01)
    for connection in waiting[:4]:
        connection.reset()
        await asyncio.sleep(0.03)
    answers = [await first, *[await connection.answer() for connection in waiting[4:]]]
    assert {(answer.status, answer.end) for answer in answers} == {(200, "whole")}
    assert len({answer.body for answer in answers}) == 1
    assert len(upstream.requests) == 1
    assert sum(row.cost_nanousd > 0 for row in await other.booked(6)) == 0
    for connection in waiting[4:]:
        await connection.close()


async def test_an_answer_without_the_other_form_is_asked_for_once(
    start: Start, upstream: Simulator, upstream_url: str
) -> None:
    """Responses cannot be made into events: a crowd that wants those, while JSON is kept, shares one call."""
    gateway = await start(CONFIG.format(url=upstream_url, model="m"))
    cached(gateway)
    body = {"model": "route", "input": "How high is the water?"}
    await send(gateway.port, "/v1/responses", orjson.dumps(body))
    asked = orjson.dumps(body | {"stream": True})
    answers = await asyncio.gather(*(send(gateway.port, "/v1/responses", asked) for _ in range(20)))
    assert {(answer.status, answer.end) for answer in answers} == {(200, "whole")}
    assert len(upstream.requests) == 2
    states = [answer.headers["x-penstock-cache"] for answer in answers]
    assert states.count("refresh") == 1
    assert set(states) <= {"refresh", "coalesced", "hit"}
