"""Limits and budgets: however a crowd is spread over two instances, no more is let in than there is room for."""

import asyncio
import time
from collections import Counter

import pytest

from tests.gateway import Answer
from tests.instances.conftest import FITS, HELD, WORST, World
from tests.instances.pair import ANSWER_S, Pair, until
from tests.limits.stage import tokens
from tests.money.held import USED_IN, USED_OUT
from tests.money.stage import IN, OUT

pytestmark = pytest.mark.asyncio(loop_scope="package")

ASKED, LIMIT = 120, 20
COST = USED_IN * IN + USED_OUT * OUT


async def refused(asking: list["asyncio.Task[Answer]"], count: int) -> list[Answer]:
    """Those that are over while all others wait for the provider."""
    async with asyncio.timeout(ANSWER_S):
        while sum(task.done() for task in asking) < count:
            await asyncio.sleep(0.02)
    return [task.result() for task in asking if task.done()]


@pytest.mark.parametrize("limits", [{"concurrency": LIMIT}, {"rps": 0.01, "burst": LIMIT}], ids=str)
async def test_requests_of_one_key(limits: dict[str, float], pair: Pair, world: World) -> None:
    key, _ = await pair.new_key(limits=limits)
    asking = pair.crowd(key, ASKED, HELD)
    answers = await refused(asking, ASKED - LIMIT)
    assert {(one.status, one.error["code"]) for one in answers} == {(429, "rate_limit_exceeded")}
    assert len(world.held.seen) == LIMIT, "both together, not each"
    world.held.go.set()
    assert Counter(one.status for one in await asyncio.gather(*asking)) == {200: LIMIT, 429: ASKED - LIMIT}
    assert len(world.held.seen) == LIMIT


async def test_a_slot_that_one_gives_back_the_other_may_take(pair: Pair, world: World) -> None:
    key, _ = await pair.new_key(limits={"concurrency": 1})
    world.held.go.set()

    async def taken() -> bool:
        return (await pair.both[len(world.held.seen) % 2].ask(key, HELD)).status == 200

    for _ in range(6):
        await until(taken, 2.0)


async def test_tokens_of_one_key(pair: Pair, world: World) -> None:
    each = tokens(HELD)
    tpm = each * LIMIT + each // 2
    key, _ = await pair.new_key(limits={"tpm": tpm})
    began = time.monotonic()
    asking = pair.crowd(key, ASKED, HELD)
    await refused(asking, ASKED - LIMIT - 5)
    flowed_back = tpm * (time.monotonic() - began) / 60
    assert LIMIT * each <= len(world.held.seen) * each <= tpm + flowed_back
    world.held.go.set()
    counts = Counter(one.status for one in await asyncio.gather(*asking))
    assert counts[200] + counts[429] == ASKED
    assert counts[200] == len(world.held.seen)


async def test_f070_of_500_at_once_142_fit(pair: Pair, world: World) -> None:
    """None settles; spent and held are looked at all the while, at both."""
    key, _ = await pair.new_key(account="capped")
    (book,) = await pair.other.books("capped")
    cap = book["limit_nanousd"]
    assert cap // WORST == FITS
    before = dict(pair.balancer.taken)
    asking = pair.crowd(key, 500, HELD)
    samples: list[int] = []
    async with asyncio.timeout(ANSWER_S):
        while sum(task.done() for task in asking) < 500 - FITS:
            for instance in pair.both:
                (book,) = await instance.books("capped")
                samples.append(book["used_nanousd"] + book["held_nanousd"])
            await asyncio.sleep(0.02)
    assert max(samples) <= cap
    assert {pair.balancer.taken[one.port] - before.get(one.port, 0) for one in pair.both} == {250}
    answers = [task.result() for task in asking if task.done()]
    assert {(one.status, one.error["code"], one.headers["x-should-retry"]) for one in answers} == {
        (402, "budget_exceeded", "false")
    }
    assert len(world.held.seen) == FITS
    for instance in pair.both:
        (book,) = await instance.books("capped")
        assert (book["used_nanousd"], book["held_nanousd"]) == (0, FITS * WORST)
    world.held.go.set()
    assert Counter(one.status for one in await asyncio.gather(*asking)) == {200: FITS, 402: 500 - FITS}

    async def settled() -> bool:
        (here,), (there,) = [await instance.books("capped") for instance in pair.both]
        assert here["used_nanousd"] + here["held_nanousd"] <= cap
        return (
            [here["used_nanousd"], here["held_nanousd"]]
            == [there["used_nanousd"], there["held_nanousd"]]
            == [
                FITS * COST,
                0,
            ]
        )

    await until(settled, 5.0)
    assert (await pair.other.ask(key, HELD)).status == 200, "what was not used is there again"
