"""The cache and shared calls: what one instance was answered the other has too."""

import asyncio
from collections import Counter

import pytest

from tests.gateway import Answer
from tests.instances.conftest import World
from tests.instances.pair import Instance, Pair, chat, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

KEPT_S = 2.0


async def kept(instance: Instance, key: str, body: bytes) -> Answer | None:
    """What it would answer out of the cache."""
    answer = await instance.ask(key, body, cache_control="only-if-cached")
    assert answer.status in (200, 504), answer.raw
    return answer if answer.status == 200 else None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_miss_at_one_is_a_hit_at_the_other(stream: bool, pair: Pair, world: World) -> None:
    """Byte for byte; and forgotten by one it is forgotten by both."""
    key, _ = await pair.new_key(account=f"cache-{stream}")
    body = chat("kept", stream=stream)
    for there, here in (pair.both, pair.both[::-1]):
        first = await there.ask(key, body)
        assert (first.status, first.headers["x-penstock-cache"]) == (200, "miss")

        async def is_kept(at: Instance = here) -> bool:
            return await kept(at, key, body) is not None

        await until(is_kept, KEPT_S)
        again = await here.ask(key, body)
        assert (again.headers["x-penstock-cache"], again.body) == ("hit", first.body)
        done = await here.admin("POST", "/admin/cache/invalidate", {"route": "kept"})
        assert done["invalidated"] == 1
        assert [await kept(instance, key, body) for instance in pair.both] == [None, None]
    assert world.asked("tokens:10:20") == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_f107_200_at_once_over_both_are_one_call(stream: bool, pair: Pair, world: World) -> None:
    account = f"crowd-{stream}"
    key, _ = await pair.new_key(account=account)
    before = dict(pair.balancer.taken)
    answers = await asyncio.gather(*pair.crowd(key, 200, chat("shared", stream=stream)))
    assert {(one.status, one.end) for one in answers} == {(200, "whole")}
    assert len({one.body for one in answers}) == 1
    assert {pair.balancer.taken[one.port] - before.get(one.port, 0) for one in pair.both} == {100}
    assert world.asked("delay:1s") == 1
    for instance in pair.both:
        rows = await instance.rows(f"account={account}", 200)
        states = Counter(row["cache"] for row in rows)
        assert states["miss"] == 1
        assert set(states) <= {"miss", "coalesced", "hit"}
        assert states["coalesced"] > 20
        (cost,) = [row["cost_nanousd"] for row in rows if row["cost_nanousd"]]
        assert {row["saved_nanousd"] for row in rows if row["cache"] != "miss"} == {cost}
        assert len({row["id"] for row in rows}) == 200
