"""Who may ask, through the gateway: keys, roles' headers, and accounts that have routes and credentials of their own."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolve import parse
from proxy.server.cannot_serve import CannotServe
from proxy.server.serve import Options, Service
from proxy.server.settings import Settings
from proxy.stores.sqlite.keys import SqliteKeys
from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Answer, Connection, Gateway, RecordingLog, get, send
from tests.stopwatch import Stopwatch

ADMIN = "an-admin-key-that-is-long-enough-0123456789"
PEPPER = "a-pepper-that-is-long-enough-0123456789"
CLIENT = "a-client-key-that-is-long-enough-0123456789"
WHOLE = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "dry"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
)
CONFIG = """
access: {{mode: {mode}}}
providers:
  shared: {{like: vllm, base_url: "{url}/shared", api_key: env:SHARED_KEY, price: {{"*": {{input: 1, output: 1}}}}}}
default_provider: shared
routes:
  simple: {{tiers: [shared/small]}}
  complex: {{tiers: [shared/large]}}
accounts:
  acme:
    budgets: {{daily: 5}}
    providers:
      shared: {{api_key: env:ACME_KEY}}
      private: {{like: vllm, base_url: "{url}/private", price: {{"*": {{input: 100, output: 100}}}}}}
    routes:
      complex: {{tiers: [private/huge], cache: {{ttl: 1h}}}}
"""
ENVIRON = {"SHARED_KEY": "shared-credential", "ACME_KEY": "acme-credential"}


@pytest.fixture
async def upstream() -> Any:
    provider = Recorder(lambda _: answer(200, WHOLE, "content-type: application/json"))
    yield provider
    await provider.stop()


async def opened(start: Start, upstream: Recorder, mode: str = "keys", **more: Any) -> Gateway:
    return await start(
        CONFIG.format(url=await upstream.start(), mode=mode), environ=ENVIRON, admin_key=ADMIN, pepper=PEPPER, **more
    )


async def ask(gateway: Gateway, key: str | None, model: str = "simple", **headers: str) -> Answer:
    shown = {} if key is None else {"authorization": f"Bearer {key}"}
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "?"}]})
    return await send(
        gateway.port, CHAT, body, shown | {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def models(gateway: Gateway, **headers: str) -> Answer:
    connection = await Connection.open(gateway.port)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    connection.writer.write(f"GET /v1/models HTTP/1.1\r\nhost: penstock\r\n{lines}\r\n".encode())
    found = await connection.answer()
    await connection.close()
    return found


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/embeddings", "/chat/completions", "/v1/messages", "/v1/files", "/v1/audio/speech"]
)
async def test_s03_without_a_key_nothing_is_read_and_nothing_sent(start: Start, upstream: Recorder, path: str) -> None:
    gateway = await opened(start, upstream)
    for shown in ("", "authorization: Bearer wrong\r\n", "x-api-key: wrong\r\n"):
        connection = await Connection.open(gateway.port)
        watch = Stopwatch.patient()
        head = f"POST {path} HTTP/1.1\r\nhost: p\r\n{shown}content-type: application/json\r\ncontent-length: 10000000000\r\n"
        connection.writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
        refusal = await connection.answer()
        assert watch.spent_s < 0.5
        assert (refusal.status, refusal.raw[:12]) == (401, b"HTTP/1.1 401"), "no 100 before it"
        assert refusal.headers["www-authenticate"] == 'Bearer realm="penstock"'
        assert refusal.headers["x-should-retry"] == "false"
        connection.reset()
    assert upstream.received == []
    assert not gateway.log.bugs


async def test_the_environments_key_makes_access_by_keys(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream, mode="open", api_key=CLIENT)
    assert (await ask(gateway, None)).error["code"] == "invalid_api_key"
    assert (await ask(gateway, CLIENT[:-1])).status == 401
    assert (await ask(gateway, CLIENT)).status == 200
    assert (await ask(gateway, ADMIN)).status == 200
    assert (await models(gateway)).status == 401
    assert (await models(gateway, x_api_key=CLIENT)).status == 200
    for public in ("/health", "/health/live", "/health/ready"):
        assert (await get(gateway.port, public)).status == 200
    assert [row.status for row in await gateway.booked(2)] == [200, 200], "who is nobody writes into no book"
    sent = str(upstream.received)
    assert CLIENT not in sent
    assert ADMIN not in sent
    assert sent.count("shared-credential") == 2


async def test_an_account_has_its_own_routes_and_credentials_first(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    for model, account in (("complex", None), ("complex", "acme"), ("simple", "acme"), ("simple", "globex")):
        named = {} if account is None else {"x_penstock_account": account}
        assert (await ask(gateway, ADMIN, model, **named)).status == 200
    texts = [str(one) for one in upstream.received]
    assert ["/private/" in one for one in texts] == [False, True, False, False]
    assert ["acme-credential" in one for one in texts] == [False, False, True, False]
    assert ["shared-credential" in one for one in texts] == [True, False, False, True]
    rows = await gateway.booked(4)
    assert [(row.account, row.provider, row.cost_nanousd) for row in rows] == [
        ("default", "shared", 15_000),
        ("acme", "private", 1_500_000),
        ("acme", "shared", 15_000),
        ("globex", "shared", 15_000),
    ]
    listed = {one["id"] for one in (await models(gateway, api_key=ADMIN)).json()["data"]}
    own = {one["id"] for one in (await models(gateway, api_key=ADMIN, x_penstock_account="acme")).json()["data"]}
    assert own - listed == {"private/huge"}
    assert (await ask(gateway, ADMIN, "private/huge")).status == 404, "what is an account's own is nobody else's"


async def test_paths_without_a_route_are_not_for_who_is_under_a_budget(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    shown = {"authorization": f"Bearer {ADMIN}"}
    assert (await send(gateway.port, "/v1/files", b"{}", shown)).status == 200
    refusal = await send(gateway.port, "/v1/files", b"{}", shown | {"x-penstock-account": "acme"})
    assert (refusal.status, refusal.error["code"]) == (403, "route_not_allowed")
    assert len(upstream.received) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_an_open_door_is_for_this_machine_alone(host: str, tmp_path: Path) -> None:
    table = parse("routes: {}", "routes.yaml", {})
    service = Service(Options(Path("routes.yaml"), host=host, port=0), Settings(data=tmp_path), table, RecordingLog())
    with pytest.raises(CannotServe, match="access is open"):
        await service.start()


async def test_a_warm_up_is_an_accounts(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    shown = {"authorization": f"Bearer {ADMIN}", "host": "127.0.0.1"}
    asked = {"requests": [{"model": "complex", "messages": []}], "account": "acme"}
    told = (await send(gateway.port, "/admin/cache/warm", orjson.dumps(asked), shown)).json()
    assert (told["requests"], told["warmed"]) == (1, 1)
    (row,) = await gateway.booked(1)
    assert (row.account, row.provider, row.cache) == ("acme", "private", "miss")
    refusal = await send(gateway.port, "/admin/cache/warm", orjson.dumps(asked | {"account": "a/b"}), shown)
    assert (refusal.status, refusal.error["param"]) == (400, "account")


async def test_health_says_how_old_what_is_known_of_the_keys_is(start: Start, upstream: Recorder) -> None:
    gateway = await opened(start, upstream)
    ring = gateway.runtime.keys
    assert ring is not None
    assert isinstance(ring.store, SqliteKeys)
    path = ring.store._thread._opened._path

    async def until(state: str) -> float:
        async with asyncio.timeout(5):
            while (told := (await get(gateway.port, "/health")).json()["keys"])["state"] != state:
                await asyncio.sleep(0.05)
        return float(told["age_s"])

    assert await until("ok") < 2
    path.rename(path.with_name("elsewhere"))
    await until("away")
    ring.stale_s = 0.0
    assert await until("refusing") > 0
    ring.stale_s = 3600.0
    path.with_name("elsewhere").rename(path)
    await until("ok")
