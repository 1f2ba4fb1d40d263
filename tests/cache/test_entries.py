"""What stands in the store is not believed, and what was invalidated in flight is not served."""

import asyncio
import pickle
import zlib
from typing import Any

import orjson
import pytest
import redis

from proxy.core.cache_selector import EVERYTHING
from proxy.simulator.server import Simulator
from tests.cache.test_recall import CONFIG, ask, cached
from tests.conftest import Start
from tests.gateway import Connection, Gateway
from tests.valkey import Valkey


class Armed:
    """Whoever unpickles it gives itself away."""

    fired = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (Armed, "fired", True)


def flipped(blob: bytes) -> bytes:
    return blob[:-1] + bytes([blob[-1] ^ 1])


def cut(blob: bytes) -> bytes:
    return blob[: len(blob) // 2]


SPOILED: dict[str, Any] = {
    "empty": lambda _: b"",
    "cut": cut,
    "a bit flipped": flipped,
    "its magic alone": lambda blob: blob[:4],
    "more behind it": lambda blob: blob + b"x",
    "zeros": lambda blob: bytes(len(blob)),
    "JSON": lambda _: orjson.dumps({"status": 200, "body": "forged"}),
    "a pickle": lambda _: pickle.dumps(Armed()),
    "compressed": zlib.compress,
    "text": lambda _: b"a foreign value",
}


@pytest.mark.parametrize("how", [*SPOILED, "of another key", "of another type"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_believed_is_a_miss(
    how: str, stream: bool, *, start: Start, upstream: Simulator, upstream_url: str, valkey: Valkey
) -> None:
    """F089: never an error, and the next good answer takes its place."""
    gateway = await start(CONFIG.format(url=upstream_url, model="m"), redis_url=valkey.url)
    cached(gateway)
    first = await ask(gateway, stream=stream)
    await settled(gateway)
    with redis.Redis.from_url(valkey.url) as client:
        spoil(client, how)
    second = await ask(gateway, stream=stream)
    assert (second.status, second.end, second.headers["x-penstock-cache"]) == (200, "whole", "miss")
    assert len(upstream.requests) == 2
    assert second.body == first.body
    await settled(gateway)
    assert (await ask(gateway, stream=stream)).headers["x-penstock-cache"] == "hit"
    assert not Armed.fired
    assert not gateway.log.bugs


def spoil(client: "redis.Redis", how: str) -> None:
    (name,) = client.scan_iter("*answer:*")
    if how == "of another type":
        client.delete(name)
        client.rpush(name, "a", "b")
        client.expire(name, 60)
        return
    blob = client.get(name)
    assert isinstance(blob, bytes)
    if how == "of another key":
        digest = name.rpartition(b".")[2]
        assert digest in blob
        client.set(name, blob.replace(digest, bytes(reversed(digest))), keepttl=True)
    else:
        client.set(name, SPOILED[how](blob), keepttl=True)


async def settled(gateway: Gateway) -> None:
    async with asyncio.timeout(2):
        while gateway.runtime.flying:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("store", ["memory", "valkey"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_invalidated_in_flight_is_not_served(
    store: str, stream: bool, *, request: pytest.FixtureRequest, start: Start, upstream: Simulator, upstream_url: str
) -> None:
    url = request.getfixturevalue("valkey").url if store == "valkey" else None
    gateway = await start(CONFIG.format(url=upstream_url, model="paced:4:40ms"), redis_url=url)
    cached(gateway)
    asking = [asyncio.create_task(ask(gateway, stream=stream)) for _ in range(2)]
    async with asyncio.timeout(2):
        while not upstream.requests:
            await asyncio.sleep(0.005)
    await gateway.runtime.cache.invalidate(EVERYTHING)
    answers = await asyncio.gather(*asking)
    assert {answer.end for answer in answers} == {"whole"}
    await settled(gateway)
    assert (await ask(gateway, stream=stream)).headers["x-penstock-cache"] == "miss"
    await settled(gateway)
    assert (await ask(gateway, stream=stream)).headers["x-penstock-cache"] == "hit"
    assert len(upstream.requests) == 2


async def test_a_drain_waits_for_what_is_still_to_be_kept(
    start: Start, upstream: Simulator, upstream_url: str, valkey: Valkey
) -> None:
    """`on_disconnect: drain`: the leader has left, nobody reads, and the call goes on to its end."""
    text = CONFIG.replace("tiers: [sim/{model}]}}\n  plain", "on_disconnect: drain, tiers: [sim/{model}]}}\n  plain")
    gateway = await start(text.format(url=upstream_url, model="paced:5:20ms"), redis_url=valkey.url)
    cached(gateway)
    connection = await Connection.open(gateway.port)
    body = {"model": "route", "stream": True, "messages": [{"role": "user", "content": "How high is the water?"}]}
    connection.post("/v1/chat/completions", orjson.dumps(body))
    await connection.until(b'"content"')
    connection.reset()
    (row,) = await gateway.booked(1)
    await settled(gateway)
    assert row.cost_nanousd > 0
    again = await ask(gateway, stream=True)
    assert (again.headers["x-penstock-cache"], len(upstream.requests)) == ("hit", 1)
