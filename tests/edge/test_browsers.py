"""CORS, preflights, upgrades, other methods: who may ask from where, and by which method."""

import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, get, send

PAGE = "https://app.example.com"
BODY = b'{"model":"plain","messages":[]}'
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


@pytest.fixture
async def listed(start: Start, upstream_url: str) -> Gateway:
    return await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{plain: {{tiers: [sim/plain]}}}}
cors: {{origins: ["{PAGE}", "http://localhost:3000"]}}
"""
    )


async def ask(gateway: Gateway, method: str, path: str, headers: dict[str, str]) -> Answer:
    connection = await Connection.open(gateway.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": "x", **headers}.items())
    connection.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
    try:
        return await connection.answer()
    finally:
        await connection.close()


def cors(answer: Answer) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/chat/completions", "/v1/files"])
async def test_a_preflight_of_a_listed_origin_needs_no_key(listed: Gateway, path: str) -> None:
    got = await ask(listed, "OPTIONS", path, PREFLIGHT)
    assert (got.status, got.body) == (204, b"")
    assert got.headers["access-control-allow-origin"] == PAGE
    assert got.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert "POST" in got.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in got.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**PREFLIGHT, "origin": "https://evil.example"},
        {**PREFLIGHT, "origin": "null"},
        {**PREFLIGHT, "origin": PAGE + ".evil.example"},
        {**PREFLIGHT, "origin": PAGE.upper()},
        {"origin": PAGE},
    ],
)
async def test_any_other_options_is_405(listed: Gateway, headers: dict[str, str]) -> None:
    got = await ask(listed, "OPTIONS", CHAT, headers)
    assert (got.status, got.error["code"], got.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert "access-control-allow-origin" not in got.headers or got.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-methods" not in got.headers


async def test_by_default_no_page_may_ask(gateway: Gateway) -> None:
    assert (await ask(gateway, "OPTIONS", CHAT, PREFLIGHT)).status == 405
    assert not cors(await send(gateway.port, CHAT, BODY, {"origin": PAGE}))


@pytest.mark.parametrize("stream", [b"", b',"stream":true'])
async def test_a_listed_page_may_read_the_answer(listed: Gateway, stream: bytes) -> None:
    got = await send(listed.port, CHAT, BODY[:-1] + stream + b"}", {"origin": PAGE})
    assert got.status == 200
    assert got.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in got.headers["access-control-expose-headers"]
    assert got.headers["vary"] == "Origin"
    foreign = await send(listed.port, CHAT, BODY, {"origin": "https://evil.example"})
    assert not cors(foreign)


async def test_a_listed_page_may_read_errors_and_models(listed: Gateway) -> None:
    for got in (
        await send(listed.port, CHAT, b"{", {"origin": PAGE}),
        await ask(listed, "GET", "/v1/models", {"origin": PAGE}),
        await ask(listed, "GET", "/nowhere", {"origin": PAGE}),
    ):
        assert got.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime?model=x", "/v1/chat/completions"])
async def test_a_websocket_is_told_that_there_is_none(gateway: Gateway, path: str) -> None:
    got = await ask(
        gateway,
        "GET",
        path,
        {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "x"},
    )
    assert (got.status, got.error["code"]) == (426, "upgrade_not_supported")
    assert "POST" in got.error["message"]
    assert got.headers["x-should-retry"] == "false"


async def test_an_offer_of_http2_is_not_taken_up(gateway: Gateway) -> None:
    """Java's client offers it with every request of its own accord."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQBAAAAAAIAAAAA"}
    got = await send(gateway.port, CHAT, BODY, offer)
    assert got.status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/plain", "/health", "/health/live", "/livez", "/readyz"])
async def test_head_wherever_get(gateway: Gateway, path: str) -> None:
    head, whole = await get(gateway.port, path, "HEAD"), await get(gateway.port, path)
    assert (head.status, head.body) == (whole.status, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert whole.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("HEAD", "/v1/embeddings", "POST"),
        ("PUT", "/v1/audio/transcriptions", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/health", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_names_the_right_ones(gateway: Gateway, method: str, path: str, allow: str) -> None:
    got = await get(gateway.port, path, method)
    assert (got.status, got.headers["allow"]) == (405, allow)


async def test_the_clients_request_id_comes_back_everywhere(gateway: Gateway) -> None:
    for path in ("/v1/models", "/health", "/livez", "/nowhere"):
        assert (await ask(gateway, "GET", path, {"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_that_names_no_type_may_not_ask(gateway: Gateway, site: str) -> None:
    """A browser sends a body without a type unasked; what says that it is JSON it asks about first."""
    connection = await Connection.open(gateway.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nsec-fetch-site: {site}\r\norigin: https://evil.example\r\n"
    connection.writer.write(f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY)
    got = await connection.answer()
    assert (got.status, got.error["code"]) == (403, "origin_not_allowed")
    await connection.close()
    plain = await Connection.open(gateway.port)
    plain.writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)
    assert (await plain.answer()).status == 200, "a tool that names no type still may"
    await plain.close()


async def test_options_of_a_path_without_a_route(gateway: Gateway) -> None:
    got = await get(gateway.port, "/v1/files", "OPTIONS")
    assert (got.status, got.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH, POST, PUT")
