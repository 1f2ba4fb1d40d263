"""Paths without a route: one provider, sent once, method, query and body as they came; and what never leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import Answer, Connection, Gateway, get, send

FILE = answer(200, b"\x00\x01binary\xff", "content-type: application/octet-stream", "x-request-id: up-1")
ONLY = "x-penstock-provider"


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder(lambda _: FILE)
    yield recorder
    await recorder.stop()


async def started(start: Start, recorder: Recorder, *, like: str = "openai", more: str = "") -> Gateway:
    url = await recorder.start()
    config = f'providers: {{home: {{like: {like}, base_url: "{url}", api_key: env:K}}}}\n'
    return await start(f"{config}routes: {{r: {{tiers: [home/m]}}}}\n{more}", environ={"K": "provider-key"})


async def ask(gateway: Gateway, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
    connection = await Connection.open(gateway.port)
    given = {"host": "x", **headers} | ({} if body is None else {"content-length": str(len(body))})
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    connection.writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b""))
    try:
        return await connection.answer()
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/files", None),
        ("GET", "/v1/files/file-1/content?x=a%20b&y=1", None),
        ("DELETE", "/v1/files/file-1", None),
        ("POST", "/v1/batches", b'{"model":"r","input_file_id":"file-1"}'),
        ("POST", "/v1/uploads", b"any bytes \x00\xff" * 50_000),
        ("POST", "/v1/responses/resp_1/cancel", b""),
        ("GET", "/v1/responses/resp_1", None),
        ("PATCH", "/v1/things/1", b"{}"),
        ("PUT", "/v1/things/1", b"{}"),
        ("GET", "/v1/chat/completions?limit=2", None),
    ],
)
async def test_it_passes_as_it_came(
    start: Start, recorder: Recorder, method: str, target: str, body: bytes | None
) -> None:
    gateway = await started(start, recorder)
    headers = {ONLY: "home", "authorization": "Bearer mine", "content-type": "x/y", "cookie": "a=b", "openai-beta": "z"}
    got = await ask(gateway, method, target, headers, body)
    assert (got.status, got.end, got.body) == (200, "whole", b"\x00\x01binary\xff")
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["x-penstock-upstream-request-id"] == "up-1"
    assert got.headers["x-penstock-provider"] == "home"
    (received,) = recorder.received
    assert received.line == f"{method} {target} HTTP/1.1"
    assert received.body == (body or b"")
    assert received.headers["authorization"] == "Bearer provider-key"
    assert received.headers["content-type"] == "x/y"
    assert received.headers["openai-beta"] == "z"
    assert not {"cookie", ONLY} & received.headers.keys()
    assert received.headers.get("content-length", "0") == str(len(body or b""))
    assert method != "GET" or "content-length" not in received.headers
    assert "transfer-encoding" not in received.headers
    (record,) = await gateway.settled()
    assert (record["api"], record["target"], record["route"]) == ("passthrough", "home/*", None)


async def test_the_default_provider_is_the_one(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    assert (await ask(gateway, "GET", "/v1/files", {})).status == 200
    assert (await ask(gateway, "GET", "/v1/chat/completions", {})).status == 200
    assert len(recorder.received) == 2


async def test_anthropic_wants_its_own_headers(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, like="anthropic", more="default_provider: home\n")
    await ask(gateway, "GET", "/v1/messages/batches", {"anthropic-beta": "a"})
    (received,) = recorder.received
    assert received.headers["x-api-key"] == "provider-key"
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert received.headers["anthropic-beta"] == "a"
    assert "authorization" not in received.headers


@pytest.mark.parametrize(
    ("headers", "told", "words"),
    [
        ({}, (404, "not_found"), "x-penstock-provider, or set default_provider"),
        ({ONLY: "hom"}, (400, "invalid_request"), "Did you mean 'home'?"),
        ({ONLY: "groq"}, (503, "provider_inactive"), "GROQ_API_KEY is not set"),
    ],
)
async def test_without_a_provider_it_says_so(
    start: Start, recorder: Recorder, headers: dict[str, str], told: tuple[int, str], words: str
) -> None:
    gateway = await started(start, recorder)
    got = await ask(gateway, "GET", "/v1/files", headers)
    assert (got.status, got.error["code"]) == told
    assert words in got.error["message"]
    assert not recorder.received


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../admin",
        "/v1/files/../../admin",
        "/v1/files/..",
        "/v1/files/./x",
        "/v1/%2e%2e/admin",
        "/v1/files/%2E%2e",
        "/v1/files%2f..%2fadmin",
        "/v1/files%5c..",
        "/v1//files",
        "/v1/files/",
        "/v1/files/%00",
        "/v1/files/%0d%0ax",
        "/v1/files;x/../y",
        "/v1/files/%zz",
        "/v1/%63hat/completions",
        "/v1/chat/completion%73",
        "/v1/%43hat%2dx/completions",
        "/v1/files/%7Ex%5F%30",
        "/v1/",
        "/v2/files",
        "/files",
        "http://evil.example/v1/files",
        "//evil.example/v1/files",
    ],
)
async def test_what_could_be_read_differently_stays_here(start: Start, recorder: Recorder, target: str) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "GET", target, {})
    assert got.status in (400, 404)
    assert got.error["code"] in ("not_found", "invalid_request")
    assert not recorder.received


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PROPFIND"])
async def test_other_methods_stay_here(start: Start, recorder: Recorder, method: str) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    assert (await ask(gateway, method, "/v1/files", {})).status in (404, 405)
    assert not recorder.received


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (answer(404, b'{"error":{"message":"No such file","code":"x"}}'), 404, "x"),
        (answer(409, b'{"error":{"message":"In use","code":"y"}}'), 409, "y"),
        (answer(400, b'{"detail":"bad purpose"}'), 400, "invalid_request"),
        (answer(401, b'{"error":{"message":"bad key"}}'), 502, "upstream_auth"),
        (answer(500, b'{"error":{"message":"boom"}}'), 502, "upstream_error"),
        (answer(429, b'{"error":{"message":"slow"}}', "retry-after: 1"), 429, "rate_limit_exceeded"),
        (answer(302, b"", "location: http://evil.example/"), 502, "upstream_protocol"),
    ],
)
async def test_errors_are_told_and_nothing_is_sent_twice(start: Start, sent: bytes, status: int, code: str) -> None:
    recorder = Recorder(lambda _: sent)
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "POST", "/v1/batches", {"content-type": "application/json"}, b"{}")
    assert (got.status, got.error["code"]) == (status, code)
    assert len(recorder.received) == 1
    await recorder.stop()


async def test_a_head_and_an_empty_answer(start: Start) -> None:
    recorder = Recorder(lambda _: b"HTTP/1.1 204 No Content\r\n\r\n")
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "DELETE", "/v1/files/1", {})
    assert (got.status, got.body, got.end) == (204, b"", "whole")
    assert (await get(gateway.port, "/v1/files/1", "HEAD")).status == 204
    assert [one.line.split()[0] for one in recorder.received] == ["DELETE", "HEAD"]
    await recorder.stop()


async def test_a_cut_download_is_never_an_end(start: Start) -> None:
    recorder = Recorder(lambda _: b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf", early=True)
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "GET", "/v1/files/1/content", {})
    assert (got.status, got.end, got.body) == (200, "eof", b"half")
    (record,) = await gateway.settled()
    assert record["outcome"] == "partial"
    await recorder.stop()


async def test_a_page_of_another_origin_may_not_post(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(
        gateway, "POST", "/v1/files", {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, b""
    )
    assert (got.status, got.error["code"]) == (403, "origin_not_allowed")
    assert not recorder.received


async def test_a_large_upload_streams(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    connection = await Connection.open(gateway.port)
    size = 5 << 20
    connection.writer.write(
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode() + bytes(1 << 20)
    )
    async with asyncio.timeout(5):
        await recorder.arrived.wait()
    connection.writer.write(bytes(4 << 20))
    assert (await connection.answer()).status == 200
    await connection.close()
    assert len(recorder.received[0].body) == size


async def test_the_tables_own_paths_are_not_passed(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    assert (await get(gateway.port, "/v1/models")).json()["object"] == "list"
    assert (await send(gateway.port, "/health", b"{}")).status == 405
    assert not recorder.received


async def test_the_length_passes_so_that_every_client_can_tell_a_cut(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "GET", "/v1/files/1/content", {})
    assert (got.headers["content-length"], "transfer-encoding" in got.headers) == ("9", False)
    cut = Recorder(lambda _: b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf", early=True)
    other = await started(start, cut, more="default_provider: home\n")
    connection = await Connection.open(other.port)
    connection.writer.write(b"GET /v1/files/1/content HTTP/1.0\r\nhost: x\r\n\r\n")
    raw = await connection.until(b"half")
    assert b"content-length: 100" in raw.lower()
    await connection.close()
    await cut.stop()


async def test_what_the_client_has_already_is_told(start: Start) -> None:
    recorder = Recorder(lambda _: b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n')
    gateway = await started(start, recorder, more="default_provider: home\n")
    got = await ask(gateway, "GET", "/v1/files/1/content", {})
    assert (got.status, got.body, got.headers["etag"]) == (304, b"", '"a"')
    await recorder.stop()
