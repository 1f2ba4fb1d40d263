"""Events between processes, over a real Valkey; and what becomes of them while it is away."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
import pytest

from proxy.core.event import EVENT_BYTES_MAX, TEXT_CHARS_MAX, EventKind, Happening, heard, to_bytes
from proxy.stores.redis.connection import RedisConnection
from proxy.stores.redis.events import RedisEvents
from proxy.telemetry import events
from proxy.telemetry.events import Events, Listener
from tests.gateway import RecordingLog
from tests.valkey import Valkey


async def numbers(listener: Listener, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            event = await listener.next(1.0)
            assert event is not None
            if event:
                found.append(orjson.loads(event)["number"])
    return found


@pytest.fixture
async def redis(own_valkey: Valkey) -> AsyncIterator[RedisConnection]:
    made = RedisConnection(own_valkey.url, probe_s=0.05)
    await made.start()
    yield made
    await made.close()


async def subscribed(valkey: Valkey, count: int) -> None:
    async with asyncio.timeout(5):
        while not valkey.send("PUBSUB", "NUMSUB", "penstock:events").endswith(b":%d\r\n" % count):
            await asyncio.sleep(0.01)


async def test_what_happens_while_redis_is_away_is_told_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Valkey, redis: RedisConnection
) -> None:
    monkeypatch.setattr(events, "WAITING_MAX", 4)
    log = RecordingLog()
    here, there = (Events(log, time.time, name, retry_s=0.05) for name in ("here", "there"))
    for one in (here, there):
        one.start(RedisEvents(redis))
    try:
        await subscribed(own_valkey, 2)
        own, other = here.listen(), there.listen()
        assert own is not None
        assert other is not None
        here.emit(EventKind.CONFIG, number=1)
        assert (await numbers(own, 1), await numbers(other, 1)) == ([1], [1])
        own_valkey.stop()
        for number in range(2, 5):
            here.emit(EventKind.CONFIG, number=number)
        assert await numbers(own, 3) == [2, 3, 4], "who listens here hears it at once"
        own_valkey.start()
        # The channel comes back by itself, and maybe after the events: then they are lost, and the next one is not.
        async with asyncio.timeout(10):
            while not own_valkey.send("PUBSUB", "NUMSUB", "penstock:events").endswith(b":2\r\n"):
                await asyncio.sleep(0.01)
            while here._waiting:
                await asyncio.sleep(0.01)
        here.emit(EventKind.CONFIG, number=9)
        found = await numbers(other, 1)
        while found[-1] != 9:
            found += await numbers(other, 1)
        assert found == sorted(set(found)), "in order, and none twice"
    finally:
        await here.close()
        await there.close()
    assert log.bugs == []


async def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    one = Events(RecordingLog(), time.time, "here")
    one._bus = RedisEvents(RedisConnection("redis://127.0.0.1:1"))
    for number in range(events.WAITING_MAX + 10):
        one.emit(EventKind.CONFIG, number=number)
    assert len(one._waiting) == events.WAITING_MAX
    assert orjson.loads(one._waiting[0])["number"] == 10


async def test_what_waits_is_still_given_when_it_ends() -> None:
    one = Events(RecordingLog(), time.time, "here")
    listener = one.listen()
    assert listener is not None
    one.emit(EventKind.CONFIG, number=1)
    one.end()
    assert await numbers(listener, 1) == [1]
    assert await listener.next(1.0) is None
    assert one.listen() is None
    assert not listener.dropped


def test_an_event_is_small_and_holds_no_credential() -> None:
    secret = "sk-proj-abcdefghijklmnop1234"
    data = to_bytes(Happening(EventKind.STORE, 1.23456, "here", {"error": f"{secret} {'x' * 10_000}", "away_s": 1.5}))
    told = orjson.loads(data)
    assert len(told["error"]) <= TEXT_CHARS_MAX
    assert secret.encode() not in data
    assert (told["kind"], told["at"], told["away_s"]) == ("store", 1.235, 1.5)
    assert heard(data) == ("here", data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"1", b'{"kind":"else","instance":"a"}', b'{"kind":"store"}', b'"' + b"x" * EVENT_BYTES_MAX + b'"'],
)
def test_what_is_no_event_is_not_heard(data: bytes) -> None:
    assert heard(data) is None


def test_an_event_of_somebody_else_is_on_one_line() -> None:
    found = heard(b'{"kind":\n"store",\r\n"instance":"there"}')
    assert found == ("there", b'{"kind":"store","instance":"there"}')
