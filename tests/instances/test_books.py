"""The books: whichever instance is asked, it knows every row."""

import asyncio
from typing import Any

import pytest

from tests.instances.conftest import World
from tests.instances.pair import Instance, Pair, chat

pytestmark = pytest.mark.asyncio(loop_scope="package")

COUNT = 30


async def summary(instance: Instance) -> dict[str, Any]:
    found: dict[str, Any] = await instance.admin("GET", "/admin/analytics/summary?days=2&account=books")
    return found


async def test_both_see_all_rows(pair: Pair, world: World) -> None:
    key, key_id = await pair.new_key(account="books")
    before = dict(pair.balancer.taken)
    scripts = ("tokens:10:20", "500", "plain")
    asking = [one for script in scripts for one in pair.crowd(key, COUNT // 3, chat(f"sim/{script}"))]
    answers = await asyncio.gather(*asking)
    assert {pair.balancer.taken[one.port] - before.get(one.port, 0) for one in pair.both} == {COUNT // 2}
    here, there = [await instance.rows("account=books", COUNT) for instance in pair.both]
    assert here == there
    assert {row["id"] for row in here} == {one.headers["x-request-id"] for one in answers}
    assert {row["virtual_key"] for row in here} == {key_id}
    one, other = [await summary(instance) for instance in pair.both]
    assert one == other
    assert one["total"]["calls"] == COUNT
    assert one["total"]["cost_nanousd"] == sum(row["cost_nanousd"] for row in here) > 0
