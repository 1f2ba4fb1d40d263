"""What an account has for itself: how it fares is nobody else's business, and it counts where what is everybody's counts."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from proxy.config.resolve import parse
from proxy.core.breaker import Subject
from proxy.phases.budgets import Budgets
from proxy.terms import ProviderId
from tests.conftest import Start
from tests.edge.doorway import ask as ask_admin
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Answer, Gateway, get, send

ADMIN = "an-admin-key-that-is-long-enough-0123456789"
PEPPER = "a-pepper-that-is-long-enough-0123456789"
WHOLE = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "dry"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
)
EMPTY = (
    b'{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}'
)
CONFIG = """
access: {{mode: keys}}
providers:
  shared: {{like: vllm, base_url: "{url}", api_key: env:SHARED_KEY, price: {{"*": {{input: 1, output: 1}}}}}}
routes: {{simple: {{tiers: [shared/small]}}, kept: {{tiers: [shared/kept], cache: {{ttl: 1h}}}}}}
accounts:
  acme: {{providers: {{shared: {{api_key: env:ACME_KEY}}}}}}
  bravo: {{}}
"""
ENVIRON = {"SHARED_KEY": "shared-credential-4711", "ACME_KEY": "acme-credential-4711"}


@pytest.fixture
async def upstream() -> Any:
    provider = Recorder(lambda _: answer(200, WHOLE, "content-type: application/json"))
    yield provider
    await provider.stop()


async def opened(start: Start, upstream: Recorder, config: str = CONFIG, **more: Any) -> Gateway:
    text = config.format(url=await upstream.start())
    return await start(text, environ=ENVIRON, admin_key=ADMIN, pepper=PEPPER, **more)


async def new_key(gateway: Gateway, **fields: Any) -> str:
    body = orjson.dumps({"name": "a test's", **fields})
    shown = {"authorization": f"Bearer {ADMIN}", "host": "127.0.0.1"}
    secret = (await send(gateway.port, "/admin/keys", body, shown)).json()["secret"]
    assert isinstance(secret, str)
    return secret


async def ask(gateway: Gateway, key: str, model: str = "simple", **more: Any) -> Answer:
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "?"}], **more})
    return await send(gateway.port, CHAT, body, {"authorization": f"Bearer {key}"})


async def test_an_accounts_empty_balance_is_not_the_others(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    acme, bravo = await new_key(gateway, account="acme"), await new_key(gateway, account="bravo")
    viewer = await new_key(gateway, account="bravo", role="viewer")
    own_viewer = await new_key(gateway, account="acme", role="viewer")

    upstream.answers = lambda _: answer(429, EMPTY, "content-type: application/json")
    assert (await ask(gateway, acme)).error["code"] == "upstream_quota_exhausted"
    upstream.answers = lambda _: answer(200, WHOLE, "content-type: application/json")
    held_back = await ask(gateway, acme)
    assert (held_back.status, held_back.error["code"]) == (503, "no_target_available")
    assert (await ask(gateway, bravo)).status == 200
    told = {
        key: [
            one["target"]
            for one in (await ask_admin(gateway.port, "/admin/breakers", {"x-api-key": key})).json()["breakers"]
        ]
        for key in (ADMIN, viewer, own_viewer)
    }
    assert told == {ADMIN: ["acme:shared/small"], viewer: [], own_viewer: ["acme:shared/small"]}
    assert gateway.runtime.breakers.reset(Subject("acme:shared/small"), time.time())
    assert (await ask(gateway, acme)).status == 200
    shown = [one.headers["authorization"] for one in upstream.received]
    assert [f"Bearer {ENVIRON[name]}" for name in ("ACME_KEY", "SHARED_KEY", "ACME_KEY")] == shown


async def test_a_provider_of_an_account_alone_is_enough_to_serve(start: Start, upstream: Recorder) -> None:
    config = """
access: {{mode: keys}}
routes: {{simple: {{tiers: [openai/small]}}}}
accounts: {{acme: {{providers: {{private: {{like: vllm, base_url: "{url}"}}}}, routes: {{own: {{tiers: [private/m]}}}}}}}}
"""
    gateway = await opened(start, upstream, config)
    assert gateway.runtime.table.is_active, "so it is no demo"
    told = await get(gateway.port, "/health")
    assert (told.status, told.json()["status"]) == (200, "ok")
    assert b"private" not in told.body, "health is public"
    upstream.answers = lambda _: answer(429, EMPTY, "content-type: application/json")
    acme = await new_key(gateway, account="acme")
    await ask(gateway, acme, "own")
    told = await get(gateway.port, "/health")
    assert (told.status, told.json()["status"]) == (503, "down")


def test_nobodys_provider_is_a_demo() -> None:
    assert not parse("routes: {}", "routes.yaml", {}).is_active
    assert not parse("accounts: {acme: {providers: {openai: {}}}}", "routes.yaml", {}).is_active


async def test_an_account_drains_where_it_alone_is_told_to(start: Start, upstream: Recorder) -> None:
    config = CONFIG.replace("api_key: env:ACME_KEY", "api_key: env:ACME_KEY, on_disconnect: drain")
    gateway = await opened(start, upstream, config)
    assert gateway.runtime.table.may_outlive
    assert not gateway.runtime.table.providers[ProviderId("shared")].drains


async def test_s53_an_accounts_credential_is_hidden_from_the_log(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    assert set(ENVIRON.values()) <= gateway.log.hidden


async def test_the_probe_shows_the_credential_that_counts_now(start: Start, upstream: Recorder) -> None:
    url = await upstream.start()
    gateway = await start(CONFIG.format(url=url), environ=ENVIRON, admin_key=ADMIN, pepper=PEPPER, probe_every_s=0.02)
    gateway.service._serve_by(parse(CONFIG.format(url=url), "routes.yaml", {**ENVIRON, "SHARED_KEY": "renewed-4711"}))
    async with asyncio.timeout(5):
        while not any(one.headers.get("authorization") == "Bearer renewed-4711" for one in upstream.received):
            await asyncio.sleep(0.01)


async def test_a_key_without_money_costs_its_accounts_other_keys_nothing(
    start: Start, upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leads a shared call may be refused for a budget that is its own alone; who follows asks then."""
    gateway = await opened(start, upstream)
    poor = await new_key(gateway, account="bravo", budgets={"daily": 0.000001})
    rich = await new_key(gateway, account="bravo")
    asked, reserve = asyncio.Event(), Budgets.reserve

    async def late(budgets: Budgets, *claim: Any) -> Any:
        asked.set()
        await asyncio.sleep(0.2)
        return await reserve(budgets, *claim)

    monkeypatch.setattr(Budgets, "reserve", late)
    leading = asyncio.create_task(ask(gateway, poor, "kept", max_tokens=5))
    await asked.wait()
    followers = await asyncio.gather(*(ask(gateway, key, "kept", max_tokens=5) for key in (rich, rich, poor)))
    assert (await leading).error["code"] == "budget_exceeded"
    assert [one.status for one in followers[:2]] == [200, 200]
    assert followers[2].status in (200, 402), "who has no money may have what another one pays for"
    assert len(upstream.received) == 1


async def test_two_accounts_providers_of_one_name_share_no_limits(start: Start, upstream: Recorder) -> None:
    config = """
access: {{mode: keys}}
accounts:
  acme:
    providers: {{gpu: {{like: vllm, base_url: "{url}", limits: {{rps: 0.01, burst: 1}}}}}}
    routes: {{own: {{tiers: [gpu/m]}}}}
  bravo:
    providers: {{gpu: {{like: vllm, base_url: "{url}", limits: {{rps: 0.01, burst: 2}}}}}}
    routes: {{own: {{tiers: [gpu/m]}}}}
  charlie:
    providers: {{gpu: {{like: vllm, base_url: "{url}"}}}}
    routes: {{own: {{tiers: [gpu/m]}}}}
"""
    gateway = await opened(start, upstream, config)
    for account, statuses in (("acme", [200, 429, 429]), ("bravo", [200, 200, 429]), ("charlie", [200, 200, 200])):
        key = await new_key(gateway, account=account)
        assert [(await ask(gateway, key, "own")).status for _ in range(3)] == statuses, account
    viewer = await new_key(gateway, account="acme", role="viewer")
    for shown, expected in ((viewer, ["acme"]), (ADMIN, ["acme", "bravo"])):
        told = (await ask_admin(gateway.port, "/admin/limits", {"x-api-key": shown})).json()["limits"]
        providers = {one["subject"]: one["account"] for one in told if one["subject"].startswith("provider:")}
        assert providers == {f"provider:{owner}:gpu": owner for owner in expected}
