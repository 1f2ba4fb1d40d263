"""Scripts on a real Valkey that is stopped, killed, flushed, full or a replica: nobody ever waits for it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from proxy.ports import Away
from proxy.stores.redis import scripts
from proxy.stores.redis.scripts import FAILURES_MAX, RedisScripts, Script
from tests.gateway import closed_port
from tests.lag import Timed, watched
from tests.valkey import Valkey, paused, serving

ECHO = Script("return ARGV[1]")
COUNT = Script("return redis.call('INCR', KEYS[1])")


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with serving() as server:
        yield server


@pytest.fixture
async def runner(valkey: Valkey) -> AsyncIterator[RedisScripts]:
    opened = RedisScripts(valkey.url)
    yield opened
    await opened.close()
    await asyncio.sleep(0)


async def timed(runner: RedisScripts, script: Script = ECHO, word: str = "x") -> tuple[Any, float]:
    """A reply, and how long it took, less what the machine took of that."""
    async with watched() as lag:
        span = Timed(lag)
        reply = await runner.run(script, ["k"], [word])
        return reply, await span.stop()


async def back(runner: RedisScripts) -> None:
    async with asyncio.timeout(5):
        while isinstance(await runner.run(ECHO, [], ["y"]), Away):
            await asyncio.sleep(0.01)


def connections(valkey: Valkey) -> int:
    """How many connections there have been."""
    line = next(
        one for one in valkey.command("INFO", "stats").splitlines() if one.startswith("total_connections_received")
    )
    return int(line.split(":")[1])


async def test_everybody_gets_the_answer_to_what_they_asked(runner: RedisScripts) -> None:
    words = [f"{number}" * (number % 40 + 1) for number in range(1000)]
    assert await asyncio.gather(*(runner.run(ECHO, [], [word]) for word in words)) == [word.encode() for word in words]


async def test_what_one_asks_is_done_in_that_order(runner: RedisScripts) -> None:
    assert await asyncio.gather(*(runner.run(COUNT, ["k"], []) for _ in range(500))) == list(range(1, 501))


async def test_a_stopped_server_costs_five_deadlines_and_then_nothing(runner: RedisScripts, valkey: Valkey) -> None:
    """F080. What was asked may have been done: it is, when the server goes on."""
    assert await timed(runner, COUNT) != await timed(runner)  # it knows both scripts
    with paused(valkey):
        waits = []
        for _ in range(FAILURES_MAX):
            reply, took_s = await timed(runner, COUNT)
            assert isinstance(reply, Away)
            waits.append(took_s)
        assert max(waits) <= 0.025
        assert min(waits) >= 0.014
        assert runner.away
        for _ in range(20):
            reply, took_s = await timed(runner)
            assert isinstance(reply, Away)
            assert took_s < 0.001
    await back(runner)
    assert await runner.run(COUNT, ["k"], []) == 1 + FAILURES_MAX + 1


async def test_while_it_is_away_only_the_probe_asks(
    runner: RedisScripts, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One probe an interval, and no call of an exchange waits for it."""
    monkeypatch.setattr(scripts, "PROBE_EVERY_S", 0.1)
    with paused(valkey):
        for _ in range(FAILURES_MAX):
            await timed(runner)
        deadline = time.monotonic() + 0.45
        while time.monotonic() < deadline:
            reply, took_s = await timed(runner)
            assert isinstance(reply, Away)
            assert took_s < 0.001
            await asyncio.sleep(0.002)
    await back(runner)
    pings = next(
        line for line in valkey.command("INFO", "commandstats").splitlines() if line.startswith("cmdstat_ping")
    )
    # Those that were sent while it stood still are answered afterwards; then the one that brought it back, and the start's.
    assert int(pings.split("calls=")[1].split(",")[0]) <= 8


async def test_a_burst_at_a_stopped_server_waits_one_deadline(runner: RedisScripts, valkey: Valkey) -> None:
    await timed(runner)
    with paused(valkey):
        async with watched() as lag:
            span = Timed(lag)
            replies = await asyncio.gather(*(runner.run(ECHO, [], ["x"]) for _ in range(300)))
            assert await span.stop() <= 0.025
        assert all(isinstance(reply, Away) for reply in replies)
        assert runner.away


async def test_a_refused_connection_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """F079, from the start."""
    runner = RedisScripts(f"redis://127.0.0.1:{closed_port()}")
    for _ in range(FAILURES_MAX + 5):
        reply, took_s = await timed(runner)
        assert isinstance(reply, Away)
        assert took_s < 0.005
    assert runner.away
    await runner.close()


async def test_a_server_that_is_killed_and_comes_back_empty(
    runner: RedisScripts, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "PROBE_EVERY_S", 0.05)
    assert await runner.run(COUNT, ["k"], []) == 1
    valkey.stop()
    for _ in range(FAILURES_MAX):
        assert isinstance((await timed(runner))[0], Away)
    valkey.start()
    await back(runner)
    assert await runner.run(COUNT, ["k"], []) == 1


async def test_flushed_scripts_are_sent_again_under_load(runner: RedisScripts, valkey: Valkey) -> None:
    """F086: 0 errors, and each counts once."""
    counted: list[Any] = []
    for _ in range(10):
        calls = [runner.run(COUNT, ["k"], []) for _ in range(100)]
        valkey.command("SCRIPT", "FLUSH")
        counted += await asyncio.gather(*calls)
    assert sorted(counted) == list(range(1, 1001))


async def test_cancelled_callers_leave_no_answer_to_others(runner: RedisScripts) -> None:
    """F087: 10,000 calls, a third of them cancelled at a random moment; 0 wrong answers."""
    rng = random.Random(1)

    async def one(number: int) -> bool:
        task = asyncio.create_task(runner.run(ECHO, [], [str(number)]))
        if number % 3 == 0:
            await asyncio.sleep(rng.random() * 0.002)
            task.cancel()
        try:
            return bool(await task == str(number).encode())
        except asyncio.CancelledError:
            return True

    for start in range(0, 10_000, 500):
        assert all(await asyncio.gather(*(one(number) for number in range(start, start + 500))))


async def test_a_replica_and_a_full_server_are_unavailable_not_broken(runner: RedisScripts, valkey: Valkey) -> None:
    """F083: a read-only answer is `Away`, and the connection is made anew, because the name may lead elsewhere."""
    assert await runner.run(COUNT, ["k"], []) == 1
    valkey.command("REPLICAOF", "127.0.0.1", closed_port())
    reply = await runner.run(COUNT, ["k"], [])
    assert isinstance(reply, Away)
    assert "ReadOnlyError" in reply.detail
    assert not runner.away
    valkey.command("REPLICAOF", "NO", "ONE")
    before = connections(valkey)
    assert await runner.run(COUNT, ["k"], []) == 2
    assert connections(valkey) == before + 2  # this one, and the new one that it counts
    valkey.command("CONFIG", "SET", "maxmemory", "1")
    reply = await runner.run(COUNT, ["k"], [])
    assert isinstance(reply, Away)
    assert "OutOfMemoryError" in reply.detail


async def test_a_busy_loop_is_not_the_servers_silence(runner: RedisScripts) -> None:
    await timed(runner)
    call = asyncio.create_task(timed(runner))
    await asyncio.sleep(0)
    time.sleep(0.1)  # another request's JSON, say
    assert (await call)[0] == b"x"


async def test_what_waits_when_it_is_closed_gets_an_answer(valkey: Valkey) -> None:
    runner = RedisScripts(valkey.url)
    await timed(runner)
    with paused(valkey):
        calls = [asyncio.create_task(timed(runner)) for _ in range(FAILURES_MAX)]
        await asyncio.sleep(0.002)
        await runner.close()
        assert all(isinstance(reply, Away) for reply, _ in await asyncio.gather(*calls))
        assert isinstance((await timed(runner))[0], Away)
    await asyncio.sleep(0)
