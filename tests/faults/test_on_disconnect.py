"""`on_disconnect: drain`: the client leaves, the answer is read to its end, and what it used is in the books."""

import asyncio

import orjson
import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway

MODEL = "paced:12:20ms"
SETTINGS = {
    "default": "defaults: {on_disconnect: drain}",
    "provider": "",
    "route": "",
}


async def started(start: Start, url: str, where: str) -> Gateway:
    provider = ", on_disconnect: drain" if where == "provider" else ""
    route = ", on_disconnect: drain" if where == "route" else ""
    return await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{url}"{provider}}}}}
routes: {{r: {{tiers: ["sim/{MODEL}"]{route}}}, short: {{tiers: ["sim/{MODEL}"], on_disconnect: cancel}}}}
{SETTINGS[where]}
"""
    )


async def leave(gateway: Gateway, route: str, way: str, *, stream: bool) -> None:
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": route, "stream": stream, "messages": []}))
    if stream:
        await client.until(b'"content":"')
    else:
        await asyncio.sleep(0.1)
    if way == "reset":
        client.reset()
    else:
        await client.close()


WAYS = [(where, way, stream) for where in SETTINGS for way in ("reset", "close") for stream in (True, False)]


@pytest.mark.parametrize("how", WAYS, ids=str)
async def test_the_answer_is_read_to_its_end(
    start: Start, upstream: Simulator, upstream_url: str, how: tuple[str, str, bool]
) -> None:
    where, way, stream = how
    gateway = await started(start, upstream_url, where)
    await leave(gateway, "r", way, stream=stream)
    (record,) = await gateway.settled()
    assert (record["status"], record["outcome"]) == (499, "client_cancelled")
    assert record["usage"]["output"] > 0
    assert upstream.requests[0].finished
    assert gateway.service._surface is not None
    assert gateway.service._surface.running == 0


async def test_a_route_may_cancel_all_the_same(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "provider")
    await leave(gateway, "short", "reset", stream=True)
    (record,) = await gateway.settled()
    assert (record["status"], record["outcome"]) == (499, "client_cancelled")
    async with asyncio.timeout(1):
        while upstream.requests[0].disconnected_at is None:
            await asyncio.sleep(0.005)
    assert not upstream.requests[0].finished


async def test_a_client_that_stays_sees_no_difference(start: Start, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "default")
    answer = await gateway.ask("r", stream=True)
    assert (answer.status, answer.end) == (200, "whole")
    assert (await gateway.ask("r")).status == 200
    records = await gateway.settled(2)
    assert [record["outcome"] for record in records] == ["ok", "ok"]


async def test_what_nobody_waits_for_is_still_bounded(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{on_disconnect: drain, timeouts: {{idle: 300ms, silent: 300ms, total: 2s}}}}
"""
    )
    await leave(gateway, "sim/stall:2", "reset", stream=True)
    (record,) = await gateway.settled()
    assert record["outcome"] in ("partial", "client_cancelled")
    assert record["failure"] == "stalled"
