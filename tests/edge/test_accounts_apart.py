"""S13: a key that is bound to an account sees that account's rows and no other's, whatever it asks for."""

import time
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from proxy.core.audit import act
from proxy.core.budget import PROXY, account_subject
from proxy.core.key_record import KeyRecord
from proxy.core.ledger import US_PER_S
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.virtual_key import SecretHash
from proxy.core.window import Period
from proxy.edge.admin.endpoint import Endpoint
from proxy.edge.admin.table import ENDPOINTS
from proxy.phases.key_ring import KeyProblem, Refusal
from proxy.terms import AccountId, NanoUsd, Role, VirtualKeyId
from tests.conftest import Start
from tests.edge.doorway import KEY, ask
from tests.gateway import Answer, Gateway
from tests.rows import row

ACME, BRAVO = AccountId("acme"), AccountId("bravo")
OWN = "psk-acme-Zq8vT1nB6yKd4wXs9LpRf2Jm"
WITH_OWN = {"x-api-key": OWN}
NOW_US = int(time.time()) * US_PER_S
FOREIGN = ("bravo", "req_000002", "model-of-b", "vk_b", "route-of-b", "secret-team", "9876543")

LIMIT = Limit(Period.DAILY, NanoUsd(5 * 10**9), NanoUsd(4 * 10**9))


def _budgets() -> BudgetTable:
    zone = ZoneInfo("UTC")
    everybody = Payer(PROXY, (LIMIT,), zone)
    own = {one: (Payer(account_subject(one), (LIMIT,), zone), everybody) for one in (ACME, BRAVO)}
    return BudgetTable((everybody,), own)


@pytest.fixture
async def gateway(start: Start, request: pytest.FixtureRequest) -> Gateway:
    """Two accounts with rows, budgets and acts; and a key that is bound to the first, with the role of the test."""
    role = getattr(request, "param", Role.VIEWER)
    bound = KeyRecord(VirtualKeyId("vk_a"), SecretHash("", b""), "", "", 0, "", account=ACME, role=role)
    gateway = await start("routes: {}", admin_key=KEY, change=lambda table: replace(table, budgets=_budgets()))
    admin, stores = gateway.service._admin, gateway.service._stores
    assert admin is not None
    assert stores is not None
    admin._key_of = lambda presented: bound if presented == OWN else Refusal(KeyProblem.UNKNOWN)
    own = row(1, account="acme", model="model-of-a", started_us=NOW_US - 1, request_id="shared")
    other = row(
        2,
        account="bravo",
        model="model-of-b",
        virtual_key="vk_b",
        route="route-of-b",
        started_us=NOW_US,
        request_id="shared",
        tags=(("team", "secret-team"),),
        cost_nanousd=NanoUsd(9876543),
    )
    assert await stores.ledger.write([own, other]) == 2
    for account in (ACME, BRAVO):
        await stores.audit.append(act(NOW_US, f"key:vk_{account[0]}", "POST /admin/x", "done", account=account))
    return gateway


async def get(gateway: Gateway, path: str) -> Answer:
    return await ask(gateway.port, path, WITH_OWN)


READS = [
    "/admin/analytics/summary",
    "/admin/analytics/summary?days=366&account=acme",
    "/admin/analytics/forecast",
    "/admin/analytics/forecast?account=acme",
    "/admin/budgets",
    "/admin/budgets?account=acme",
    "/admin/ledger",
    "/admin/ledger?account=acme",
    "/admin/ledger?key=vk_b",
    "/admin/ledger?route=route-of-b",
    "/admin/ledger?model=model-of-b",
    "/admin/ledger?tag=team%3Dsecret-team",
    "/admin/ledger?after=9999999999999999.zzz",
    "/admin/ledger/shared",
    "/admin/ledger/req_000001",
    "/admin/audit",
    "/admin/audit?account=acme",
    "/admin/audit?actor=key:vk_b",
    "/admin/audit?after=1000",
    "/admin/limits",
    "/admin/limits?account=acme",
    "/admin/breakers",
    "/admin/providers",
    "/admin/routes",
]


@pytest.mark.parametrize("path", READS)
async def test_s13_what_is_told_is_of_the_own_account(gateway: Gateway, path: str) -> None:
    answer = await get(gateway, path)
    assert answer.status == 200, answer.body
    asked = path.encode()
    for foreign in FOREIGN:
        assert foreign.encode() not in answer.body.replace(asked, b""), foreign


async def test_s13_what_is_told_is_there(gateway: Gateway) -> None:
    """Or the test above would pass for an endpoint that tells nothing."""
    assert (await get(gateway, "/admin/analytics/summary")).json()["total"]["calls"] == 1
    assert [one["id"] for one in (await get(gateway, "/admin/ledger")).json()["rows"]] == ["req_000001"]
    assert (await get(gateway, "/admin/ledger/shared")).json()["row"]["id"] == "req_000001"
    assert {one["account"] for one in (await get(gateway, "/admin/budgets")).json()["budgets"]} == {"acme"}
    actors = {one["actor"] for one in (await get(gateway, "/admin/audit")).json()["entries"]}
    assert actors == {"key:vk_a"}
    assert (await get(gateway, "/admin/analytics/forecast")).json()["account"] == "acme"
    everything = await ask(gateway.port, "/admin/ledger", {"x-api-key": KEY})
    assert len(everything.json()["rows"]) == 2


FOREIGN_PATHS = [
    "/admin/analytics/summary?account=bravo",
    "/admin/analytics/forecast?account=bravo",
    "/admin/budgets?account=bravo",
    "/admin/ledger?account=bravo",
    "/admin/ledger/req_000002",
    "/admin/audit?account=bravo",
    "/admin/limits?account=bravo",
]


@pytest.mark.parametrize("path", FOREIGN_PATHS)
async def test_s13_what_is_anothers_is_not_there(gateway: Gateway, path: str) -> None:
    answer = await get(gateway, path)
    nothing = await get(gateway, path.replace("bravo", "nobody").replace("req_000002", "req_999999"))
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    told = answer.error["message"].replace("bravo", "nobody").replace("req_000002", "req_999999")
    assert (nothing.status, nothing.error["message"]) == (404, told), "whether there is one is not told"


def _closed() -> list[Endpoint]:
    return [endpoint for endpoint in ENDPOINTS if not endpoint.per_account]


@pytest.mark.parametrize("gateway", [Role.ADMIN], indirect=True)
async def test_s13_what_concerns_everybody_is_refused(gateway: Gateway) -> None:
    assert {"/admin/breakers/reset", "/admin/cache", "/admin/cache/warm", "/admin/config"} <= {
        one.path for one in _closed()
    }
    for endpoint in _closed():
        path = endpoint.path.replace("{id}", "7")
        answer = await ask(gateway.port, path, WITH_OWN, method=endpoint.method)
        assert (answer.status, answer.error["code"]) == (403, "role_not_allowed"), path


@pytest.mark.parametrize("gateway", [Role.ADMIN], indirect=True)
async def test_s13_only_the_own_answers_are_invalidated(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await ask(gateway.port, "/admin/cache/invalidate", WITH_OWN, method="POST", body=orjson.dumps(body))

    assert (await post({"all": True})).json()["selector"] == {"account": "acme"}
    assert (await post({"route": "r"})).json()["selector"] == {"account": "acme", "route": "r"}
    assert (await post({"account": "acme"})).json()["selector"] == {"account": "acme"}
    assert (await post({"account": "bravo"})).status == 404


def test_every_endpoint_that_is_open_to_an_account_is_swept() -> None:
    """Here, and those of keys by `test_admin_keys`."""
    swept = {path.partition("?")[0] for path in (*READS, *FOREIGN_PATHS)} | {"/admin/cache/invalidate"}
    for endpoint in ENDPOINTS:
        if endpoint.per_account and not endpoint.path.startswith("/admin/keys"):
            assert any(endpoint.match(path) is not None for path in swept), endpoint.path
