"""From a request that spends the budget to the webhook that hears of it, through the gateway."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web

from proxy.core.alert_channel import signature
from tests.conftest import Start

CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 0, output: 0, request: 0.3}}}}}}}}
routes: {{route: {{tiers: [sim/m]}}}}
budgets: {{daily: 1, alert_at: 0.5}}
alerts: [{{to: webhook, url: env:ALERT_URL, secret: env:ALERT_SECRET, allow_private: true}}]
"""


class Hook:
    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.heard.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response()


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    runner = web.ServerRunner(web.Server(made.take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


async def test_the_threshold_and_the_limit_are_told_once_each(start: Start, upstream_url: str, hook: Hook) -> None:
    environ = {"ALERT_URL": hook.url, "ALERT_SECRET": "s3cret-of-the-hook"}
    gateway = await start(CONFIG.format(url=upstream_url), environ=environ)
    assert [(await gateway.ask("route")).status for _ in range(3)] == [200] * 3
    refused = await gateway.ask("route")
    assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    for words in ("0.90", "1.00", "0.30", "the whole proxy", "begins anew at"):
        assert words in refused.error["message"]
    async with asyncio.timeout(5):
        while len(hook.heard) < 2:
            await asyncio.sleep(0.01)
    assert (await gateway.ask("route")).status == 402
    await asyncio.sleep(0.1)
    levels = []
    for headers, body in hook.heard:
        levels.append(orjson.loads(body)["level"])
        assert headers["x-penstock-signature"] == signature(
            environ["ALERT_SECRET"], headers["x-penstock-timestamp"], body
        )
    assert levels == ["threshold", "limit"]
