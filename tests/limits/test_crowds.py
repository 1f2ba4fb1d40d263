"""A thousand at once: whatever is asked, no more is let in than the limits allow, and what was taken comes back."""

import asyncio
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.core.bucket import REQUEST_UNIT, TOKEN_UNIT
from proxy.server import build
from proxy.stores.redis.connection import RedisConnection
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Gateway, send
from tests.limits.stage import ask, body, claims_of, config, connected, standings, tokens, under_way, until_free
from tests.money.held import USED_IN, USED_OUT, Held
from tests.valkey import Valkey

ASKED, FITS = 1000, 60


@pytest.fixture(params=["memory", "two gateways on one valkey"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """How many gateways, and with which options."""
    if request.param == "memory":
        return {"count": 1}
    server: Valkey = request.getfixturevalue("valkey")
    # What happens when the store is too slow is another test's subject.
    monkeypatch.setattr(build, "_redis", partial(RedisConnection, deadline_s=5.0))
    return {"count": 2, "redis_url": server.url, "data": tmp_path}


async def started(start: Start, where: dict[str, Any], text: str) -> list[Gateway]:
    options = {name: value for name, value in where.items() if name != "count"}
    return [await start(text, **options) for _ in range(where["count"])]


async def refused(asking: list["asyncio.Task[Answer]"], count: int) -> list[Answer]:
    """Those that are refused while all others wait for the provider."""
    async with asyncio.timeout(20):
        while sum(task.done() for task in asking) < count:
            await asyncio.sleep(0.02)
    return [task.result() for task in asking if task.done()]


async def test_slots_are_never_more_than_there_are(start: Start, held: Held, where: dict[str, Any]) -> None:
    running = await started(start, where, config(await held.start(), f"{{concurrency: {FITS}}}"))
    asking = await ask(running, ASKED, body())
    async with asyncio.timeout(20):
        while sum(task.done() for task in asking) < ASKED - FITS:
            assert await under_way(running[0]) <= FITS
            assert len(held.seen) <= FITS
            await asyncio.sleep(0.02)
    answers = await refused(asking, ASKED - FITS)
    assert {(one.status, one.error["code"], one.headers["x-should-retry"]) for one in answers} == {
        (429, "rate_limit_exceeded", "true")
    }
    assert {(one.headers["retry-after"], one.error["message"]) for one in answers} == {
        ("1", f"account default may have {FITS} requests under way at once, and has. Try again soon.")
    }
    await held.until_seen(FITS)
    assert (await under_way(running[0]), len(held.seen)) == (FITS, FITS)
    held.go.set()
    assert Counter(one.status for one in await asyncio.gather(*asking)) == {200: FITS, 429: ASKED - FITS}
    await until_free(running)
    assert (await send(running[-1].port, CHAT, body())).status == 200


async def test_requests_are_never_more_than_burst_and_rate(start: Start, held: Held, where: dict[str, Any]) -> None:
    running = await started(start, where, config(await held.start(), f"{{rps: 0.01, burst: {FITS}}}"))
    began = time.monotonic()
    asking = await ask(running, ASKED, body())
    answers = await refused(asking, ASKED - FITS)
    await held.until_seen(FITS)
    assert len(held.seen) == FITS
    ((claim,), (standing,)) = claims_of(running[0]), await standings(running[0])
    assert claim.requests is not None
    assert (FITS - 1) * REQUEST_UNIT < standing.requests_used <= claim.requests.size
    lasted_s = time.monotonic() - began
    for one in answers:
        assert 99 - lasted_s <= int(one.headers["retry-after"]) <= 100
        assert one.headers["x-ratelimit-remaining-requests"] == "0"
    held.go.set()
    assert Counter(one.status for one in await asyncio.gather(*asking)) == {200: FITS, 429: ASKED - FITS}


async def test_tokens_are_never_more_than_a_minutes(start: Start, held: Held, where: dict[str, Any]) -> None:
    """Reserved by the estimate, while nobody is answered; and put right by what was used."""
    request = body()
    each = tokens(request)
    tpm = each * FITS + each // 2
    running = await started(start, where, config(await held.start(), f"{{tpm: {tpm}}}"))
    began = time.monotonic()
    asking = await ask(running, ASKED, request)
    async with asyncio.timeout(20):
        while sum(task.done() for task in asking) < ASKED - 2 * FITS:
            ((claim,), (standing,)) = claims_of(running[0]), await standings(running[0])
            assert claim.tokens is not None
            assert standing.tokens_used <= claim.tokens.size
            await asyncio.sleep(0.02)
    await held.until_seen(FITS)
    flowed_back = tpm * (time.monotonic() - began) / 60
    assert FITS * each <= len(held.seen) * each <= tpm + flowed_back
    held.go.set()
    counts = Counter(one.status for one in await asyncio.gather(*asking))
    assert counts[200] + counts[429] == ASKED
    await until_free(running)
    (standing,) = await standings(running[0])
    assert standing.tokens_used <= counts[200] * (USED_IN + USED_OUT) * TOKEN_UNIT


async def test_clients_that_are_reset_leave_nothing(start: Start, held: Held, where: dict[str, Any]) -> None:
    running = await started(
        start, where, config(await held.start(), "{concurrency: 40}", "{concurrency: 40, tpm: 1000000}")
    )
    connections = [await connected(running[number % len(running)], body()) for number in range(40)]
    await held.until_seen(40)
    assert await under_way(running[0]) == 40
    assert (await send(running[0].port, CHAT, body())).status == 429
    for connection in connections:
        connection.reset()
    await until_free(running)
    held.go.set()
    answers = await asyncio.gather(*(send(running[0].port, CHAT, body()) for _ in range(10)))
    assert {one.status for one in answers} == {200}
    await until_free(running)


async def test_a_client_after_the_other_needs_one_slot(start: Start, held: Held, where: dict[str, Any]) -> None:
    """Whoever was answered has given its slot back before it can ask again."""
    held.go.set()
    running = await started(start, where, config(await held.start(), "{concurrency: 1}"))
    connection = await connected(running[0], body())
    for _ in range(100):
        assert (await connection.answer()).status == 200
        connection.post(CHAT, body())
    await connection.close()
