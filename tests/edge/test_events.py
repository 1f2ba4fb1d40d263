"""`GET /admin/events`: what happens, as it happens, over a real gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from proxy.core.event import EventKind
from proxy.edge.admin import events, shell
from proxy.edge.admin.table import ENDPOINTS
from proxy.telemetry import events as telemetry
from proxy.terms import Role
from tests.conftest import Start
from tests.edge.doorway import KEY, ask, open_door, request
from tests.gateway import Connection, Gateway
from tests.valkey import Valkey

WITH_KEY = {"x-api-key": KEY}
CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}"}}}}
routes: {{broken: {{tiers: ["sim/status:500"]}}, kept: {{tiers: [sim/gpt-small], cache: {{ttl: 1h}}}}}}
"""


@pytest.fixture
async def penstock(start: Start, upstream_url: str) -> Gateway:
    return await start(CONFIG.format(url=upstream_url), admin_key=KEY)


class Follower:
    """One who listens."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def until(self, text: bytes) -> bytes:
        return await self.connection.until(text)

    async def event(self, word: str) -> dict[str, Any]:
        """The first event that has a word in it."""
        async with asyncio.timeout(10):
            while True:
                for line in (await self.until(b"\n\n")).replace(b"\r\n", b"\n").split(b"\n"):
                    if line.startswith(b"data: ") and line.endswith(b"}") and word.encode() in line:
                        told: dict[str, Any] = orjson.loads(line[6:])
                        return told
                await asyncio.sleep(0.01)
                self.connection._buffer += await self.connection.reader.read(1 << 16)


@asynccontextmanager
async def following(port: int) -> AsyncIterator[Follower]:
    connection = await Connection.open(port)
    connection.writer.write(request("GET", "/admin/events", WITH_KEY))
    try:
        head = await connection.until(b": penstock\n\n")
        assert b"200 OK" in head
        assert b"text/event-stream" in head
        yield Follower(connection)
    finally:
        await connection.close()


async def test_a_breaker_that_opens_is_told(penstock: Gateway) -> None:
    async with following(penstock.port) as follower:
        for _ in range(5):
            await penstock.ask("broken")
        told = await follower.event('"open"')
        assert (told["kind"], told["state"], told["subject"]) == ("breaker", "open", "sim/status:500")


async def test_what_an_admin_empties_is_told(penstock: Gateway) -> None:
    async with following(penstock.port) as follower:
        body = orjson.dumps({"route": "kept"})
        assert (await ask(penstock.port, "/admin/cache/invalidate", WITH_KEY, method="POST", body=body)).status == 200
        told = await follower.event("invalidated")
        assert (told["kind"], told["act"], told["route"], told["dropped"]) == ("cache", "invalidated", "kept", 0)


async def test_a_budget_that_comes_to_its_end_is_told(start: Start, upstream_url: str) -> None:
    config = """
    providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
    routes: {{general: {{tiers: [sim/gpt-small]}}}}
    budgets: {{daily: 0.2, alert_at: 0.01}}
    """
    penstock = await start(config.format(url=upstream_url), admin_key=KEY)
    async with following(penstock.port) as follower:
        assert (await penstock.ask("general", max_tokens=50)).status == 200
        told = await follower.event('"budget"')
        assert (told["level"], told["period"], told["limit_nanousd"]) == ("threshold", "daily", 200_000_000)


async def test_it_takes_a_viewer(start: Start, upstream_url: str) -> None:
    async with open_door(role=Role.VIEWER, table=lambda _: ENDPOINTS) as door:
        # It has no events, which only who is let in is told.
        assert (await ask(door.port, "/admin/events", WITH_KEY)).status == 503
    async with open_door(role=Role.USER, table=lambda _: ENDPOINTS) as door:
        assert (await ask(door.port, "/admin/events", WITH_KEY)).status == 403


async def test_silence_is_broken_by_heartbeats(penstock: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with following(penstock.port) as follower:
        await follower.until(b":\n\n")


async def test_a_drain_ends_it(penstock: Gateway) -> None:
    async with following(penstock.port) as follower:
        await penstock.service.stop()
        assert b'event: end\ndata: {"why":"shutting down"}\n\n' in await follower.until(b"0\r\n\r\n")


async def test_who_leaves_is_forgotten(penstock: Gateway) -> None:
    assert penstock.service._stores is not None
    listeners = penstock.service._stores.events._listeners
    async with following(penstock.port):
        assert len(listeners) == 1
    async with asyncio.timeout(5):
        while listeners:
            await asyncio.sleep(0.01)


async def test_who_is_too_slow_is_told_so(penstock: Gateway) -> None:
    assert penstock.service._stores is not None
    hub = penstock.service._stores.events
    async with following(penstock.port) as follower:
        for _ in range(telemetry.QUEUE_MAX + 1):  # in one turn of the loop, so that nothing is fetched meanwhile
            hub.emit(EventKind.CONFIG, filler="x" * 200)
        assert not hub._listeners
        ended = await follower.until(b"0\r\n\r\n")
        assert b'{"why":"too slow: events were lost"}' in ended
        assert ended.count(b'"filler"') == telemetry.QUEUE_MAX


async def test_who_takes_nothing_is_cut_off(penstock: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "FEED_WRITE_S", 0.1)
    assert penstock.service._stores is not None
    hub = penstock.service._stores.events
    async with following(penstock.port) as follower:
        transport = follower.connection.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # of a socket's transport
        async with asyncio.timeout(10):
            while hub._listeners:
                for _ in range(100):
                    hub.emit(EventKind.CONFIG, **{f"f{number}": "x" * 200 for number in range(15)})
                await asyncio.sleep(0.01)


async def test_so_many_may_listen(penstock: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LISTENERS_MAX", 1)
    async with following(penstock.port):
        answer = await ask(penstock.port, "/admin/events", WITH_KEY)
        assert (answer.status, answer.error["code"]) == (503, "overloaded")


async def test_head_begins_nothing(penstock: Gateway) -> None:
    connection = await Connection.open(penstock.port)
    connection.writer.write(request("HEAD", "/admin/events", WITH_KEY))
    assert b"text/event-stream" in await connection.until(b"\r\n\r\n")
    await connection.close()
    assert penstock.service._stores is not None
    assert not penstock.service._stores.events._listeners


async def test_processes_hear_of_each_other(start: Start, upstream_url: str, valkey: Valkey) -> None:
    config = CONFIG.format(url=upstream_url)
    here, there = [await start(config, admin_key=KEY, redis_url=valkey.url) for _ in range(2)]
    async with following(here.port) as one, following(there.port) as other:
        async with asyncio.timeout(5):
            while b"penstock:events" not in valkey.send("PUBSUB", "CHANNELS", "penstock:*"):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # for the second of them
        valkey.send("PUBLISH", "penstock:events", b"not ours")
        for _ in range(5):
            await there.ask("broken")
        assert (await other.event('"open"'))["subject"] == "sim/status:500"
        told = await one.event('"open"')
        assert told["subject"] == "sim/status:500"
        text = bytes(one.connection._buffer)
        assert text.count(b'"state":"open"') == 1
        assert b"not ours" not in text


async def test_redis_that_goes_away_and_comes_back_is_told(start: Start, upstream_url: str, own_valkey: Valkey) -> None:
    penstock = await start(CONFIG.format(url=upstream_url), admin_key=KEY, redis_url=own_valkey.url)
    assert penstock.service._stores is not None
    redis = penstock.service._stores.redis
    assert redis is not None
    async with following(penstock.port) as follower:
        own_valkey.stop()
        async with asyncio.timeout(10):
            while redis.state.up:
                await ask(penstock.port, "/admin/cache", WITH_KEY)
        told = await follower.event('"away"')
        assert (told["kind"], told["store"]) == ("store", "redis")
        own_valkey.start()
        told = await follower.event('"back"')
        assert told["away_s"] >= 0
    away, back = [one for one in penstock.log.events if str(one["message"]).startswith("redis: ")]
    assert away["message"] == "redis: away"
    assert "REDIS_URL" in str(away["meaning"])
    assert back["message"] == "redis: back"
