"""Virtual keys, of `penstock serve` as it is: what is done with a key at one instance the other knows within a second."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway import Answer
from tests.instances.conftest import World
from tests.instances.pair import WITHIN_S, Instance, Pair, chat, connected, serving, until
from tests.valkey import Valkey
from tests.valkey import serving as serving_valkey

pytestmark = pytest.mark.asyncio(loop_scope="package")

PLAIN = chat("sim/plain")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def plain(_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Pair, Valkey]]:
    """A pair of its own, and its Redis, which may be stopped."""
    with serving_valkey() as redis:
        environ = _world.environ | {"REDIS_URL": redis.url}
        async with serving(tmp_path_factory.mktemp("plain"), _world.config, environ) as running:
            yield running, redis


async def told(instance: Instance, key: str, status: int, within_s: float = WITHIN_S) -> Answer:
    """The first answer with this status, which must come within that time."""
    last: list[Answer] = []

    async def comes() -> bool:
        last[:] = [await instance.ask(key, PLAIN)]
        return last[0].status == status

    await until(comes, within_s)
    return last[0]


@pytest.mark.parametrize("is_away", [False, True], ids=["", "redis away"])
async def test_made_at_one_and_revoked_at_the_other(is_away: bool, plain: tuple[Pair, Valkey], world: World) -> None:
    """Redis tells the others at once; without it they look twice a second, which is within the second too."""
    pair, redis = plain
    if is_away:
        redis.stop()
    try:
        for here, there in (pair.both, pair.both[::-1]):
            key, key_id = await here.new_key()
            assert (await here.ask(key, PLAIN)).status == 200
            await told(there, key, 200)
            revoked = await there.admin("DELETE", f"/admin/keys/{key_id}")
            assert revoked["key"]["state"] == "revoked"
            assert (await there.ask(key, PLAIN)).status == 401
            refused = await told(here, key, 401)
            assert refused.error["code"] == "invalid_api_key"
    finally:
        if is_away:
            redis.start()


@pytest.mark.parametrize("act", ["revoked", "budget lowered", "route taken away"])
async def test_f077_during_a_stream(act: str, plain: tuple[Pair, Valkey], world: World) -> None:
    """Nobody new is let in, at both; what runs is finished, and its row says whose it was."""
    pair, _ = plain
    key, key_id = await pair.new_key(account="rich", budgets={"daily": 1})
    streams = [await connected(one.port, key, chat("sim/paced:60:50ms", stream=True)) for one in pair.both]
    for stream in streams:
        await stream.until(b'"content":"')
    match act:
        case "revoked":
            status, code = 401, "invalid_api_key"
            await pair.one.admin("DELETE", f"/admin/keys/{key_id}")
        case "budget lowered":
            status, code = 402, "budget_exceeded"
            await pair.one.admin("PATCH", f"/admin/keys/{key_id}", {"budgets": {"daily": 0.000001}})
        case _:
            status, code = 403, "route_not_allowed"
            await pair.one.admin("PATCH", f"/admin/keys/{key_id}", {"routes": ["kept"]})
    for refused in await asyncio.gather(*(told(one, key, status) for one in pair.both)):
        assert refused.error["code"] == code
    for stream in streams:
        assert b"[DONE]" not in stream._buffer, "it runs still"
        answer = await stream.answer()
        assert (answer.status, answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == (200, "whole", True)
        await stream.close()
    rows = await pair.other.rows(f"key={key_id}&outcome=ok&model=paced:60:50ms", 2)
    assert {(row["virtual_key"], row["account"], row["status"]) for row in rows} == {(key_id, "rich", 200)}
