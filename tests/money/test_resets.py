"""F056: clients that reset their connection around the end of their answer: as many rows as exchanges, each paid once."""

import asyncio
import random
import time

import orjson
import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Connection
from tests.money.stage import PRICE, agree, budget


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.soak)])
async def test_clients_reset_at_random_around_settle(count: int, start: Start, upstream_url: str) -> None:
    gateway = await start(
        f'providers: {{p: {{like: vllm, base_url: "{upstream_url}", price: {{"*": {PRICE}}}}}}}', change=budget()
    )
    rng = random.Random(56)
    body = orjson.dumps({"model": "p/paced:3:2ms", "stream": True, "max_tokens": 50, "messages": []})
    whole = orjson.dumps({"model": "p/plain", "max_tokens": 50, "messages": []})
    took: list[float] = []
    for _ in range(5):
        began = time.monotonic()
        client = await Connection.open(gateway.port)
        client.post(CHAT, body)
        await client.answer()
        took.append(time.monotonic() - began)
        await client.close()
    usual = sorted(took)[2]

    async def one() -> None:
        connection = await Connection.open(gateway.port)
        connection.post(CHAT, rng.choice((body, body, whole)))
        # All of the head is there: from here on it is an exchange, whatever its client does.
        await asyncio.sleep(usual * rng.uniform(0.5, 1.5))
        connection.reset()

    for _ in range(count // 20):
        await asyncio.gather(*(one() for _ in range(20)))
    assert gateway.service._surface is not None
    async with asyncio.timeout(10):
        while gateway.service._surface.running:
            await asyncio.sleep(0.01)
    rows = await agree(gateway, count + 5)
    outcomes = {row.outcome for row in rows}
    assert outcomes == {"ok", "client_cancelled"}, "they were reset before the end, and after it"
    assert all(row.cost_nanousd > 0 for row in rows)
