"""Breakers: what one instance finds out the other knows, and what nobody knows one of them finds out."""

import asyncio
from collections import Counter

import pytest

from proxy.phases.breakers import OTHERS_PROBE_S
from tests.instances.conftest import COOLDOWN_S, World
from tests.instances.pair import WITHIN_S, Pair, chat, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

TARGET = "wired/delay:1500ms"
FAILURES, CROWD = 5, 30


async def test_open_at_one_is_open_at_the_other_and_one_probe_finds_out(pair: Pair, world: World) -> None:
    key, _ = await pair.new_key()
    (backend,) = world.wire.backends
    backend.is_up = False
    world.wire.cut()  # what asked for models has kept its connection
    try:
        for _ in range(FAILURES):
            assert (await pair.one.ask(key, chat(TARGET))).status == 502
    finally:
        backend.is_up = True

    async def is_open() -> bool:
        return await pair.other.breaker(TARGET) == "open"

    await until(is_open, WITHIN_S)
    for instance in pair.both:
        answer = await instance.ask(key, chat(TARGET))
        assert (answer.status, answer.error["code"]) == (503, "no_target_available")
        assert int(answer.headers["retry-after"]) >= 1
    assert world.asked("delay:1500ms") == 0, "nothing was sent"

    async def is_half_open() -> bool:
        return [await instance.breaker(TARGET) for instance in pair.both] == ["half_open"] * 2

    for probes in (1, 2):
        await until(is_half_open, COOLDOWN_S + 5)
        await asyncio.sleep(OTHERS_PROBE_S)  # so long the last probe of somebody else is thought to be under way
        crowd = pair.crowd(key, CROWD, chat(TARGET))
        statuses = Counter(one.status for one in await asyncio.gather(*crowd))
        assert statuses == {200: 1, 503: CROWD - 1}, "exactly one probe in both"
        assert world.asked("delay:1500ms") == probes

    async def is_closed() -> bool:
        return [await instance.breaker(TARGET) for instance in pair.both] == ["closed"] * 2

    await until(is_closed, WITHIN_S)
    assert {one.status for one in await asyncio.gather(*pair.crowd(key, 10, chat(TARGET)))} == {200}
    assert world.asked("delay:1500ms") == 12
