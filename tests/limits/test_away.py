"""F072, F079, F080 for limits: a worker is killed, the store refuses, hangs and comes back."""

import asyncio
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, get, send
from tests.lag import Timed, watched
from tests.limits.stage import body, config, connected, short_leases, under_way, until_free
from tests.money.held import Held
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

LEASE_S = 1.0
WAIT_S_MAX = 0.05


async def until(state: str, gateway: Gateway) -> None:
    async with asyncio.timeout(10):
        while (await get(gateway.port, "/health")).json()["limits"]["state"] != state:
            await asyncio.sleep(0.02)


async def two(start: Start, text: str, server: Valkey, tmp_path: Path) -> list[Gateway]:
    """Two workers that know of each other."""
    running = [await start(text, redis_url=server.url, data=tmp_path) for _ in range(2)]
    async with asyncio.timeout(10):
        while [one.runtime.limits.workers for one in running] != [2, 2]:
            await asyncio.sleep(0.02)
    return running


async def ask(gateway: Gateway, count: int) -> list[tuple[Answer, float]]:
    """One after the other, each with how long it took, less what the machine took of it."""
    answers = []
    async with watched() as lag:
        for _ in range(count):
            span = Timed(lag)
            answer = await send(gateway.port, CHAT, body())
            answers.append((answer, await span.stop()))
    return answers


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    short_leases(LEASE_S, monkeypatch.setattr)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("how", ["refused", "hung"])
async def test_f079_f080_the_store_is_away(
    how: str, start: Start, held: Held, own_valkey: Valkey, tmp_path: Path
) -> None:
    """Each worker lets its share through, nobody waits for the store, and all is shared again when it is back."""
    held.go.set()
    first, second = await two(
        start, config(await held.start(), "{rps: 0.01, burst: 20, concurrency: 8}"), own_valkey, tmp_path
    )
    assert (await send(first.port, CHAT, body())).status == 200
    if how == "hung":
        own_valkey.pause()
    else:
        own_valkey.stop()
    for gateway in (first, second):
        answers = await ask(gateway, 14)
        assert [one.status for one, _ in answers] == [200] * 10 + [429] * 4, "half of 20"
        assert max(took for _, took in answers) < WAIT_S_MAX
        assert answers[0][0].headers["x-ratelimit-limit-requests"] == "10"
        await until("local", gateway)
    if how == "hung":
        own_valkey.resume()
    else:
        own_valkey.start()
    for gateway in (first, second):
        await until("ok", gateway)
    held.go.set()
    await until_free([first, second])


@pytest.mark.usefixtures("_short")
async def test_f079_slots_of_the_share_count_what_runs(
    start: Start, held: Held, own_valkey: Valkey, tmp_path: Path
) -> None:
    """What began while the store was there counts in the share, and what began by the share counts in the store again."""
    first, second = await two(start, config(await held.start(), "{concurrency: 8}"), own_valkey, tmp_path)
    running = [await connected(first, body()) for _ in range(3)]
    await held.until_seen(3)
    own_valkey.stop()
    assert (await send(second.port, CHAT, b"{}")).status == 404  # it is away: whoever asks finds out, and nobody waits
    running += [await connected(first, body()) for _ in range(2)]
    await held.until_seen(4)
    refused = [one for one in await asyncio.gather(*(one.answer(within_s=0.5) for one in running[3:])) if one.status]
    assert [one.status for one in refused] == [429], "a half of 8, and three of those ran"
    own_valkey.start()
    await until("ok", first)
    async with asyncio.timeout(5):
        while await under_way(second) != 4:
            await asyncio.sleep(0.02)
    held.go.set()
    await until_free([first, second])
    for one in running:
        await one.close()


async def test_f079_redis_away_from_the_start(start: Start, held: Held, own_valkey: Valkey) -> None:
    held.go.set()
    url = own_valkey.url
    own_valkey.stop()
    gateway = await start(config(await held.start(), "{rps: 0.01, burst: 3}"), redis_url=url)
    assert [one.status for one, _ in await ask(gateway, 5)] == [200] * 3 + [429] * 2
    own_valkey.start()
    await until("ok", gateway)
    assert (await send(gateway.port, CHAT, body())).status == 200


@pytest.mark.usefixtures("_short")
async def test_f073_what_runs_longer_than_its_lease_keeps_its_slot(start: Start, held: Held, valkey: Valkey) -> None:
    gateway = await start(config(await held.start(), "{concurrency: 1}"), redis_url=valkey.url)
    long = await connected(gateway, body())
    await held.until_seen(1)
    ends = time.monotonic() + LEASE_S * 1.3
    while time.monotonic() < ends:
        assert await under_way(gateway) == 1
        await asyncio.sleep(0.05)
    assert (await send(gateway.port, CHAT, body())).status == 429
    held.go.set()
    assert (await long.answer()).status == 200
    await long.close()
    await until_free([gateway])


@pytest.mark.usefixtures("_short")
async def test_f072_the_slots_of_a_worker_that_was_killed(
    start: Start, held: Held, valkey: Valkey, tmp_path: Path
) -> None:
    text = config(await held.start(), "{concurrency: 5}", "{concurrency: 5}")
    (tmp_path / "routes.yaml").write_text(text)
    served = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.limits.process", str(tmp_path / "routes.yaml"), str(LEASE_S)),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "REDIS_URL": valkey.url, "PENSTOCK_DATA": str(tmp_path / "data")},
    )
    assert served.stdout is not None
    try:
        async with asyncio.timeout(20):
            while (line := await served.stdout.readline()) and b"serves on" not in line:
                continue
        found = re.search(rb":(\d+)/v1", line)
        assert found, "it did not start"
        gateway = await start(text, redis_url=valkey.url)
        clients = [await Connection.open(int(found.group(1))) for _ in range(5)]
        for client in clients:
            client.post(CHAT, body())
        await held.until_seen(5)
        assert await under_way(gateway) == 5
        assert (await send(gateway.port, CHAT, body())).status == 429
    finally:
        with suppress(ProcessLookupError):
            served.kill()
        await served.wait()
        await served.stdout.read()
    for client in clients:
        await client.close()
    watch = Stopwatch.patient()
    async with asyncio.timeout(LEASE_S * 3):
        while await under_way(gateway):
            await asyncio.sleep(0.02)
    assert not watch.is_over(LEASE_S * 1.5)
    asking = [asyncio.create_task(send(gateway.port, CHAT, body())) for _ in range(5)]
    await held.until_seen(10)
    held.go.set()
    assert [one.status for one in await asyncio.gather(*asking)] == [200] * 5
    await until_free([gateway])
