"""How often somebody who waits looks."""

import asyncio
from itertools import pairwise

import pytest

from proxy.ports import StoreAway
from proxy.stores import polling
from proxy.stores.polling import POLL_S_MIN, Look
from tests.cached_answers import ANSWER


async def _looked_at(within_s: float, looks: list[Look]) -> tuple[object, list[float]]:
    """What is waited for in vain or not, and when it was looked for; the last look is seen ever after."""
    at: list[float] = []

    async def look() -> Look:
        at.append(asyncio.get_running_loop().time())
        return looks[min(len(at), len(looks)) - 1]

    return await polling.wait(look, within_s), at


async def test_never_more_often_than_it_may() -> None:
    found, at = await _looked_at(0.42, [Look(None, leased=True)])
    assert found is None
    pauses = [later - earlier for earlier, later in pairwise(at[:-1])]
    assert all(pause >= POLL_S_MIN - 0.001 for pause in pauses)
    assert 3 <= len(at) <= 10
    assert 0.42 <= at[-1] - at[0] < 0.6


async def test_at_once_where_there_is_nothing_to_wait_for() -> None:
    for look in (Look(ANSWER, leased=True), Look(ANSWER, leased=False), Look(None, leased=False)):
        found, at = await _looked_at(5, [look])
        assert found is look.answer
        assert len(at) == 1


async def test_until_it_is_there() -> None:
    found, at = await _looked_at(5, [Look(None, leased=True), Look(None, leased=True), Look(ANSWER, leased=False)])
    assert found is ANSWER
    assert len(at) == 3


async def test_a_store_that_goes_away_is_told_of() -> None:
    async def look() -> Look:
        raise StoreAway("gone")

    with pytest.raises(StoreAway):
        await polling.wait(look, 5)
