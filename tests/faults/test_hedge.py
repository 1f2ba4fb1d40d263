"""Hedges on real sockets: who wins is relayed whole, who loses is dropped and in the record, and there are few of them."""

import asyncio
import time
from collections import Counter

import pytest

from proxy.phases.hedge import Hedging
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway
from tests.stopwatch import Stopwatch


async def started(start: Start, url: str, first: str, *, hedge: str = "true") -> Gateway:
    return await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{url}"}}, other: {{like: vllm, base_url: "{url}"}}}}
defaults: {{timeouts: {{first_event: 2s, total: 5s}}}}
routes: {{r: {{tiers: ["{first}", "other/plain"], hedge: {hedge}}}}}
"""
    )


def known(gateway: Gateway, seconds: float = 0.03) -> Hedging:
    """As if many streams had come so quickly."""
    assert gateway.service._surface is not None
    hedging = Hedging()
    for _ in range(40):
        hedging.pace.note(seconds)
    gateway.service._surface.runtime.hedging["r"] = hedging
    return hedging


async def test_a_slow_first_event_is_raced(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "sim/delay:800ms")
    known(gateway)
    direct = await gateway.ask("other/plain", stream=True)
    watch = Stopwatch.patient()
    answer = await gateway.ask("r", stream=True)
    assert watch.spent_s < 0.7
    assert (answer.status, answer.end, answer.body) == (200, "whole", direct.body)
    assert (answer.headers["x-penstock-provider"], answer.headers["x-penstock-attempts"]) == ("other", "2")
    records = await gateway.settled(2)
    assert records[1]["outcome"] == "ok"
    assert [(one["target"], one.get("failure")) for one in records[1]["tried"]] == [
        ("sim/delay:800ms", "hedge_lost"),
        ("other/plain", None),
    ]
    async with asyncio.timeout(1):
        while upstream.requests[1].disconnected_at is None:
            await asyncio.sleep(0.01)


async def test_the_first_may_still_win(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{r: {{tiers: ["sim/delay:150ms", "sim/delay:900ms"], hedge: true}}}}
"""
    )
    known(gateway)
    answer = await gateway.ask("r", stream=True)
    assert (answer.status, answer.headers["x-penstock-model"]) == (200, "delay:150ms")
    (record,) = await gateway.settled()
    assert record["target"] == "sim/delay:150ms"
    assert sorted(str(one.get("failure")) for one in record["tried"]) == ["None", "hedge_lost"]


async def test_when_both_fail_the_tour_goes_on(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{retry: {{attempts: 1}}, timeouts: {{first_event: 300ms}}}}
routes: {{r: {{tiers: ["sim/silent", "sim/head-then-fin", "sim/plain"], hedge: true}}}}
"""
    )
    known(gateway)
    answer = await gateway.ask("r", stream=True)
    assert (answer.status, answer.headers["x-penstock-model"], answer.headers["x-penstock-attempts"]) == (
        200,
        "plain",
        "3",
    )


async def test_without_knowing_the_pace_nothing_is_hedged(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "sim/delay:150ms")
    assert (await gateway.ask("r", stream=True)).headers["x-penstock-attempts"] == "1"
    off = await started(start, upstream_url, "sim/delay:150ms", hedge="false")
    known(off)
    assert (await off.ask("r", stream=True)).headers["x-penstock-attempts"] == "1"
    assert (await gateway.ask("r")).headers["x-penstock-attempts"] == "1", "only streams are hedged"
    assert len(upstream.requests) == 3


async def test_few_are_hedged(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "sim/delay:60ms")
    known(gateway, 0.01)
    answers = [await gateway.ask("r", stream=True) for _ in range(60)]
    attempts = Counter(answer.headers["x-penstock-attempts"] for answer in answers)
    assert 1 <= attempts["2"] <= 60 * 0.02 + 1
    assert len(upstream.requests) <= 60 + attempts["2"], "a call may be dropped before it has been sent"


@pytest.mark.parametrize("after_s", [0.01, 0.06, 0.12, 0.2])
async def test_a_client_that_leaves_ends_both(
    start: Start, upstream: Simulator, upstream_url: str, after_s: float
) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{r: {{tiers: ["sim/silent:1", "sim/silent:2"], hedge: true}}}}
"""
    )
    hedging = known(gateway)
    client = await Connection.open(gateway.port)
    client.post(CHAT, b'{"model":"r","stream":true,"messages":[]}')
    await asyncio.sleep(after_s)
    client.reset()
    (record,) = await gateway.settled()
    assert record["outcome"] == "client_cancelled"
    async with asyncio.timeout(1):
        while any(request.disconnected_at is None for request in upstream.requests):
            await asyncio.sleep(0.01)
    assert hedging.budget.in_flight == 0
    assert gateway.service._stores is not None
    assert gateway.service._stores.breakers.snapshot(time.time()) == []
