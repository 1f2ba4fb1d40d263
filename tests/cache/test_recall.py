"""The cache and shared calls through the gateway, on memory and on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
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
async def open_gateway(request: pytest.FixtureRequest, start: Start, upstream_url: str) -> AsyncIterator[Any]:
    redis_url = request.getfixturevalue("valkey").url if request.param == "valkey" else None

    async def opened(model: str = "m", **changes: Any) -> Gateway:
        gateway = await start(CONFIG.format(url=upstream_url, model=model), redis_url=redis_url)
        cached(gateway, **changes)
        return gateway

    yield opened


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
