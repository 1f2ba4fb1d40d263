"""`/admin/limits`: how subjects stand, whose they are, and how to make them forget it."""

from typing import Any

import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.edge.doorway import KEY
from tests.edge.doorway import ask as ask_admin
from tests.gateway import Gateway
from tests.valkey import Valkey

WITH_KEY = {"authorization": f"Bearer {KEY}"}
CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", limits: {{concurrency: 9}}}}}}
routes: {{plain: {{tiers: [sim/plain]}}}}
limits: {{rps: 0.01, burst: 3, concurrency: 4}}
accounts: {{acme: {{limits: {{tpm: 1000}}}}}}
"""


@pytest.fixture(params=["memory", "valkey"])
async def gateway(request: pytest.FixtureRequest, start: Start, upstream: Simulator) -> Gateway:
    url = CONFIG.format(url=await upstream.start())
    server: Valkey | None = None if request.param == "memory" else request.getfixturevalue("valkey")
    return await start(url, admin_key=KEY, redis_url=None if server is None else server.url)


async def listed(gateway: Gateway, query: str = "") -> dict[str, Any]:
    answer = await ask_admin(gateway.port, f"/admin/limits{query}", WITH_KEY)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


async def reset(gateway: Gateway, body: bytes) -> tuple[int, Any]:
    answer = await ask_admin(gateway.port, "/admin/limits/reset", WITH_KEY, method="POST", body=body)
    return answer.status, answer.json() if answer.status == 200 else answer.error["message"]


async def test_the_subjects_and_how_they_stand(gateway: Gateway) -> None:
    before = await listed(gateway)
    assert (before["state"], before["workers"]) == ("ok", 1)
    assert [one["subject"] for one in before["limits"]] == ["account:acme", "provider:sim"]
    assert (await gateway.ask("plain")).status == 200
    await gateway.settled()
    after = await listed(gateway)
    by_subject = {one["subject"]: one for one in after["limits"]}
    own = by_subject["account:default"]
    assert own.pop("requests_full_in_s") == pytest.approx(100, abs=5)
    assert own == {
        "subject": "account:default",
        "account": "default",
        "rps": 0.01,
        "burst": 3,
        "requests_left": 2,
        "tpm": None,
        "tokens_left": None,
        "tokens_full_in_s": None,
        "concurrency": 4,
        "under_way": 0,
        "seen": "store",
    }
    assert by_subject["provider:sim"]["account"] is None
    assert by_subject["account:acme"]["tokens_left"] == 1000
    assert [one["subject"] for one in (await listed(gateway, "?account=acme"))["limits"]] == ["account:acme"]
    assert (await listed(gateway, "?account=nobody"))["limits"] == []


async def test_resetting(gateway: Gateway) -> None:
    assert [(await gateway.ask("plain")).status for _ in range(4)] == [200, 200, 200, 429]
    assert await reset(gateway, b'{"subject": "account:default"}') == (200, {"reset": "account:default"})
    assert (await gateway.ask("plain")).status == 200
    status, message = await reset(gateway, b'{"subject": "account:defaul"}')
    assert (status, message) == (
        400,
        "Nothing is known of 'account:defaul', so it has taken nothing. Did you mean 'account:default'?",
    )
    assert await reset(gateway, b"{}") == (
        400,
        "'subject' must be a text such as account:default, virtual_key:... or provider:openai.",
    )


async def test_resetting_where_the_store_is_away(start: Start, own_valkey: Valkey) -> None:
    gateway = await start("routes: {}", admin_key=KEY, redis_url=own_valkey.url)
    own_valkey.stop()
    status, message = await reset(gateway, b'{"subject": "account:default"}')
    assert status == 503
    assert message.startswith("The limits cannot be reached now: ")
