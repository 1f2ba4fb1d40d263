"""What a key may is held on every way that leads to a provider."""

from typing import Any

import orjson
import pytest

from proxy.edge import paths
from proxy.phases.accept import FORMS
from tests.conftest import Start
from tests.edge.doorway import ask
from tests.edge.recorder import Recorder, answer
from tests.gateway import Gateway, send

ADMIN = "an-admin-key-that-is-long-enough-0123456789"
PEPPER = "a-pepper-that-is-long-enough-0123456789"
CONFIG = """
access: {{mode: keys}}
cors: {{origins: ["https://page.example"]}}
providers: {{shared: {{like: {like}, base_url: "{url}", api_key: env:SHARED_KEY, price: {{"*": {{input: 1, output: 1}}}}}}}}
default_provider: shared
default_route: complex
routes: {{simple: {{tiers: [shared/small]}}, complex: {{tiers: [shared/large]}}}}
models: {{exact: complex, "claude-*": complex, "gpt-*": shared/*}}
"""


@pytest.fixture
async def upstream() -> Any:
    provider = Recorder(lambda _: answer(200, b"{}", "content-type: application/json"))
    yield provider
    await provider.stop()


async def opened(start: Start, upstream: Recorder, like: str = "openai") -> tuple[Gateway, str]:
    """With a key that may use one route of two."""
    text = CONFIG.format(url=await upstream.start(), like=like)
    gateway = await start(text, environ={"SHARED_KEY": "shared"}, admin_key=ADMIN, pepper=PEPPER)
    body = orjson.dumps({"name": "bound", "routes": ["simple"]})
    made = await send(gateway.port, "/admin/keys", body, {"authorization": f"Bearer {ADMIN}", "host": "127.0.0.1"})
    return gateway, made.json()["secret"]


def form(model: str | None) -> bytes:
    field = "" if model is None else f'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n{model}\r\n'
    return f'{field}--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'.encode()


def requests(path: str, model: str | None) -> list[tuple[bytes, dict[str, str]]]:
    """What asks for a model there: bodies, each with its headers."""
    if paths.EXCHANGES[path] in FORMS:
        return [(form(model), {"content-type": "multipart/form-data; boundary=b"})]
    named = {} if model is None else {"model": model}
    return [(orjson.dumps({**named, "stream": streamed, "messages": []}), {}) for streamed in (False, True)]


@pytest.mark.parametrize("like", ["openai", "vllm"])  # one of them speaks each API
@pytest.mark.parametrize("path", sorted(paths.EXCHANGES))
async def test_s44_no_path_and_no_name_leads_around_the_routes_of_a_key(
    start: Start, upstream: Recorder, path: str, like: str
) -> None:
    gateway, key = await opened(start, upstream, like)
    shown = {"authorization": f"Bearer {key}"}
    for model in ("complex", "exact", "claude-x", "gpt-x", "shared/large", "shared/small", None):
        for body, headers in requests(path, model):
            refusal = await send(gateway.port, path, body, shown | headers)
            assert refusal.status in (400, 403), (model, refusal.body)
            assert b"route_not_allowed" in refusal.body or b"unsupported_api" in refusal.body, refusal.body
    for passed in ("/v1/files", "/v1/batches", "/v1/responses/resp_1/cancel"):
        assert (await send(gateway.port, passed, b"{}", shown)).status == 403
    assert upstream.received == []
    body, headers = requests(path, "simple")[0]
    allowed = await send(gateway.port, path, body, shown | headers)
    assert upstream.received or b"unsupported_api" in allowed.body, "or the key would be refused everything"


async def test_s63_what_a_key_is_told_by_get_is_kept_by_no_cache(start: Start, upstream: Recorder) -> None:
    gateway, key = await opened(start, upstream)
    for path in ("/v1/models", "/v1/models/simple"):
        for origin in ({}, {"origin": "https://page.example"}):
            told = await ask(gateway.port, path, {"x-api-key": key, **origin})
            assert (told.status, told.headers["cache-control"]) == (200, "no-store")
            assert told.headers["vary"].lower().endswith("authorization, x-api-key, api-key")
            assert ("Origin" in told.headers["vary"]) or not origin
