"""What the admin API tells of the process, on the ports of a whole Penstock."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolve import load
from proxy.edge.admin.table import ENDPOINTS
from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId
from tests.conftest import Start
from tests.edge.doorway import KEY, ask
from tests.gateway import Gateway, get

WITH_KEY = {"x-api-key": KEY}
CREDENTIAL = "canary-credential-4711"
CONFIG = """
providers:
  sim: {like: vllm, base_url: "http://127.0.0.1:1/v1"}
  box: {like: vllm, base_url: "https://box.example/canary-credential-4711/v1", api_key: env:BOX_KEY}
  gone: {like: openai, enabled: false}
routes:
  voice: {about: Lowest latency, tiers: [sim/small, groq/fast]}
  old: {enabled: false, tiers: [box/x]}
"""


@pytest.fixture
async def penstock(start: Start) -> Gateway:
    return await start(CONFIG, environ={"BOX_KEY": CREDENTIAL}, admin_key=KEY)


async def test_without_the_key_nothing_of_the_table_is_served(penstock: Gateway) -> None:
    for endpoint in ENDPOINTS:
        answer = await ask(penstock.port, endpoint.path, method=endpoint.method)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


async def test_providers(penstock: Gateway) -> None:
    answer = await ask(penstock.port, "/admin/providers", WITH_KEY)
    providers = {one["id"]: one for one in answer.json()["providers"]}
    assert providers["sim"] == {
        "id": "sim",
        "state": "active",
        "reason": None,
        "base_url": "http://127.0.0.1:1/v1",
        "apis": [api.value for api in CATALOGUE[ProviderId("vllm")].paths],
        "key_variables": ["VLLM_API_KEY", "HOSTED_VLLM_API_KEY"],
        "credentials": [],
        "local": True,
    }
    assert providers["groq"]["reason"] == "GROQ_API_KEY is not set"
    assert providers["groq"]["key_variables"] == ["GROQ_API_KEY"]
    assert (providers["gone"]["state"], providers["gone"]["reason"]) == ("inactive", "switched off (enabled: false)")
    assert providers["box"]["key_variables"] == ["BOX_KEY"]
    assert providers["box"]["base_url"] == "https://box.example/[redacted]/v1"
    assert CREDENTIAL.encode() not in answer.raw


async def test_routes(penstock: Gateway) -> None:
    voice, old = (await ask(penstock.port, "/admin/routes", WITH_KEY)).json()["routes"]
    assert voice == {
        "name": "voice",
        "about": "Lowest latency",
        "enabled": True,
        "tiers": [
            {"targets": [_target("sim", "small", None)], "balance": None},
            {"targets": [_target("groq", "fast", "GROQ_API_KEY is not set")], "balance": None},
        ],
    }
    assert (old["name"], old["enabled"]) == ("old", False)


def _target(provider: str, model: str, reason: str | None) -> dict[str, str | None]:
    state = "active" if reason is None else "inactive"
    return {"target": f"{provider}/{model}", "provider": provider, "model": model, "state": state, "reason": reason}


async def test_config_is_told_of_the_table_that_is_run_on(penstock: Gateway, tmp_path: Path) -> None:
    unread = (await ask(penstock.port, "/admin/config", WITH_KEY)).json()
    nothing: dict[str, object] = {
        "path": None,
        "sha256": None,
        "loaded_at": None,
        "reloads": 0,
        "failed_at": None,
        "problems": [],
    }
    assert unread == nothing
    path = tmp_path / "routes.yaml"
    path.write_bytes(CONFIG.encode())
    surface = penstock.service._surface
    assert surface is not None
    surface.runtime = replace(surface.runtime, table=load(path, {}))
    path.write_text("broken later")
    told = (await ask(penstock.port, "/admin/config", WITH_KEY)).json()
    assert told["path"] == str(path)
    assert told["sha256"] == hashlib.sha256(CONFIG.encode()).hexdigest()
    assert abs(told["loaded_at"] - path.stat().st_mtime) < 5
    assert told["problems"] == []


async def test_admin_is_served_on_its_own_port_alone_where_it_has_one(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=KEY, pepper="Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE", admin_port=0)
    apart = penstock.service.admin_port
    assert apart != penstock.port
    for endpoint in ENDPOINTS:
        here = await ask(penstock.port, endpoint.path, WITH_KEY, method=endpoint.method)
        assert (here.status, here.error["code"]) == (404, "not_found")
        assert (await ask(apart, endpoint.path, method=endpoint.method)).status == 401
        endless = endpoint.path == "/admin/events"
        there = await ask(apart, endpoint.path, WITH_KEY, method=endpoint.method, endless=endless)
        needs_a_body = endpoint.path in (
            "/admin/cache/invalidate",
            "/admin/cache/warm",
            "/admin/config/reload",
            "/admin/limits/reset",
        ) or ((endpoint.method, endpoint.path) == ("POST", "/admin/keys"))
        assert there.status == (404 if "{" in endpoint.path else 400 if needs_a_body else 200)
        assert there.status in (200, 400) or re.search("ledger has no row|no key with this id", there.error["message"])
    for path in ("/v1/models", "/health", "/livez", "/v1/chat/completions"):
        assert (await ask(apart, path)).status == 401
        assert (await ask(apart, path, WITH_KEY)).status == 404
    assert (await get(penstock.port, "/livez")).status == 200
    assert {"message": "the admin API has a port of its own", "port": apart} in penstock.log.events


async def test_admin_answers_while_the_process_drains(penstock: Gateway) -> None:
    surface = penstock.service._surface
    assert surface is not None
    await surface.drain(0)
    assert (await ask(penstock.port, "/admin/routes", WITH_KEY)).status == 200


@pytest.mark.parametrize(
    "path", ["/admin", "/admin/", "/admin?x", "/admin/x", "/admin//providers", "/admin/%70roviders", "/admin/../livez"]
)
async def test_everything_below_admin_is_behind_the_door(path: str, penstock: Gateway) -> None:
    answer = await ask(penstock.port, path)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "path",
    ["/administer", "/Admin/providers", "/%61dmin/providers", "//admin/providers", "/v1/../admin/providers"],
)
async def test_what_only_looks_like_it_is_not_there(path: str, penstock: Gateway) -> None:
    for headers in ({}, WITH_KEY):
        answer = await ask(penstock.port, path, headers)
        assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_admin_requests_are_no_exchanges(penstock: Gateway) -> None:
    await ask(penstock.port, "/admin/routes", WITH_KEY)
    await ask(penstock.port, "/admin/routes")
    assert penstock.log.exchanges == []
