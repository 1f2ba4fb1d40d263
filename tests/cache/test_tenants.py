"""F108: the same words from two accounts never meet, in memory or in Valkey, in flight or kept."""

import asyncio
from typing import Any

import orjson
import pytest

from proxy.core.principal import Principal
from proxy.phases import lifecycle
from proxy.phases.exchange import Exchange
from proxy.terms import AccountId
from tests.cache.test_recall import cached
from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Answer, Gateway, send

ACCOUNTS = ("acme", "globex")
CONFIG = """
providers: {{echo: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1, output: 2}}}}}}}}
routes: {{route: {{tiers: [echo/m]}}}}
"""


def identify(x: Exchange, *_: object) -> None:
    x.is_identified = True
    x.principal = Principal(AccountId(x.headers["x-account"]))


@pytest.fixture(params=["memory", "valkey"])
async def scene(request: pytest.FixtureRequest, start: Start, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gateway that takes an account's name from a header, before a provider whose every answer is another."""
    monkeypatch.setattr(lifecycle, "identify", identify)
    url = request.getfixturevalue("valkey").url if request.param == "valkey" else None
    provider = Recorder(lambda number: answer(200, whole(f"canary-{number}"), "content-type: application/json"))
    gateway = await start(CONFIG.format(url=await provider.start()), redis_url=url)
    cached(gateway)
    yield gateway, provider
    await provider.stop()


def whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


async def ask(gateway: Gateway, account: str, *, stream: bool = False) -> Answer:
    body = {"model": "route", "stream": stream, "messages": [{"role": "user", "content": "who am I?"}]}
    return await send(gateway.port, CHAT, orjson.dumps(body), {"x-account": account})


async def test_each_account_has_its_own_answer(scene: tuple[Gateway, Recorder]) -> None:
    gateway, provider = scene
    canaries: dict[str, bytes] = {}
    for count, account in enumerate(ACCOUNTS, 1):
        first = await ask(gateway, account)
        assert first.headers["x-penstock-cache"] == "miss"
        canaries[account] = first.json()["choices"][0]["message"]["content"].encode()
        await gateway.booked(count)
    assert len(set(canaries.values())) == len(provider.received) == 2
    for stream in (False, True):
        for account in ACCOUNTS:
            again = await ask(gateway, account, stream=stream)
            assert again.headers["x-penstock-cache"] == "hit"
            assert canaries[account] in again.body
            assert not any(canary in again.raw for name, canary in canaries.items() if name != account)
    rows = await gateway.booked(6)
    assert [row.account for row in rows] == [*ACCOUNTS, *ACCOUNTS, *ACCOUNTS]


async def test_nor_do_they_share_a_call(scene: tuple[Gateway, Recorder]) -> None:
    gateway, provider = scene
    answers = await asyncio.gather(*(ask(gateway, ACCOUNTS[number % 2]) for number in range(40)))
    bodies = [{one.body for one in answers[place::2]} for place in (0, 1)]
    assert [len(found) for found in bodies] == [1, 1]
    assert bodies[0] != bodies[1]
    assert len(provider.received) == 2
