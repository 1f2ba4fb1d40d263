"""What is no request that we understand gets an answer that says what to do, and reaches no provider."""

import asyncio
import gzip
import zlib

import orjson
import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, get, send
from tests.stopwatch import Stopwatch

DEEP = b'{"model":"plain","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

# body, status, code, words of the message
BODIES = [
    (b"", 400, "invalid_request", "empty"),
    (b"hello", 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain"', 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain"} trailing', 400, "invalid_request", "not valid JSON"),
    (b"[]", 400, "invalid_request", "JSON object"),
    (b'"plain"', 400, "invalid_request", "JSON object"),
    (b"null", 400, "invalid_request", "JSON object"),
    (b"{}", 404, "model_not_found", "names no model"),
    (b'{"model":null}', 404, "model_not_found", "names no model"),
    (b'{"model":""}', 404, "model_not_found", "names no model"),
    (b'{"model":7}', 400, "invalid_request", "'model' must be a string"),
    (b'{"model":["plain"]}', 400, "invalid_request", "'model' must be a string"),
    (b'{"model":{"a":1}}', 400, "invalid_request", "'model' must be a string"),
    (b'{"model":"plain","stream":"yes"}', 400, "invalid_request", "'stream' must be"),
    (b'{"model":"plain","stream":1}', 400, "invalid_request", "'stream' must be"),
    (b'{"model":"plain","stream":true,"stream_options":[]}', 400, "invalid_request", "'stream_options' must be"),
    (b'{"model":"plain","n":0}', 400, "invalid_request", "'n' must be"),
    (b'{"model":"plain","n":1.5}', 400, "invalid_request", "'n' must be"),
    (b'{"model":"plain","n":true}', 400, "invalid_request", "'n' must be"),
    (b'{"model":"plain","n":100000}', 400, "invalid_request", "'n' must be"),
    (DEEP, 400, "invalid_request", "nested deeper"),
    (b'{"model":"plain","a":' + b"[" * 1024 + b"]" * 1024 + b"}", 400, "invalid_request", "nested deeper"),
    (b'{"model":"plain","a":' + b"[" * 254 + b"]" * 254 + b"}", 400, "invalid_request", "nested deeper"),
    (b'{"model":"plain","model":"other"}', 400, "invalid_request", "'model' stands twice"),
    (b'{"model":"plain","mod\\u0065l":"other"}', 400, "invalid_request", "'model' stands twice"),
    (b'{"model":"plain","stream":true,"stream":false}', 400, "invalid_request", "'stream' stands twice"),
    (b'{"model":"plain","temperature":NaN}', 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain","temperature":1e400}', 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain","user":"\\ud800"}', 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain","user":"\xff\xfe"}', 400, "invalid_request", "not valid JSON"),
    (b'{"model":"plain\\u0000"}', 404, "model_not_found", "is not a route"),
    (b'{"model":"plian"}', 404, "model_not_found", "Did you mean 'plain'?"),
    (b'{"model":"sim/"}', 404, "model_not_found", "is not a route"),
    (b'{"model":"opnai/gpt-4o"}', 404, "model_not_found", "is not a route"),
    (b'{"model":"' + b"x" * 600 + b'"}', 400, "invalid_request", "at most 512"),
    (b'{"model":"openai/gpt-4o"}', 503, "provider_inactive", "OPENAI_API_KEY"),
]


@pytest.mark.parametrize("row", BODIES, ids=lambda row: repr(row[0])[:40])
async def test_a_body_that_is_no_request(
    row: tuple[bytes, int, str, str], gateway: Gateway, upstream: Simulator
) -> None:
    body, status, code, words = row
    watch = Stopwatch.patient()
    answer = await send(gateway.port, CHAT, body)
    _is_refused(answer, status, code, words)
    assert watch.spent_s < 1
    assert upstream.served == 0
    (record,) = await gateway.settled()
    assert record["status"] == status


def _is_refused(answer: Answer, status: int, code: str, words: str) -> None:
    assert (answer.status, answer.error["code"]) == (status, code)
    assert words in answer.error["message"]
    assert set(answer.error) == {"message", "type", "param", "code", "metadata"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"].startswith("req_")


HEADERS = [
    ({"content-type": "text/plain"}, 400, "invalid_request", "content-type"),
    ({"content-type": "application/x-www-form-urlencoded"}, 400, "invalid_request", "-H 'content-type"),
    ({"content-type": "multipart/form-data; boundary=x"}, 400, "invalid_request", "content-type"),
    ({"content-encoding": "br"}, 415, "unsupported_encoding", "gzip, deflate"),
    ({"content-encoding": "zstd"}, 415, "unsupported_encoding", "gzip, deflate"),
    ({"content-encoding": "gzip"}, 400, "invalid_request", "cannot be decoded"),
    ({"x-penstock-timeout": "soon"}, 400, "invalid_request", "x-penstock-timeout"),
    ({"x-penstock-timeout": "0"}, 400, "invalid_request", "x-penstock-timeout"),
    ({"x-penstock-provider": "nobody"}, 400, "invalid_request", "nobody"),
]


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: str(row[0]))
async def test_headers_that_are_no_request(
    row: tuple[dict[str, str], int, str, str], gateway: Gateway, upstream: Simulator
) -> None:
    headers, status, code, words = row
    answer = await send(gateway.port, CHAT, b'{"model":"plain","messages":[]}', headers)
    _is_refused(answer, status, code, words)
    assert upstream.served == 0


async def test_an_api_that_the_target_does_not_speak(start: Start, upstream_url: str, upstream: Simulator) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: mistral, base_url: "{upstream_url}", api_key: env:K}}}}
routes: {{plain: {{tiers: [sim/plain]}}}}
""",
        environ={"K": "k"},
    )
    answer = await gateway.ask("plain", path="/v1/responses")
    _is_refused(answer, 400, "unsupported_api", "responses")
    messages = await gateway.ask("plain", path="/v1/messages")
    assert messages.json()["type"] == "error"
    assert messages.error["type"] == "invalid_request_error"
    assert upstream.served == 0


PATHS = [
    ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ("GET", "/v1/model", 404, "not_found"),
    ("GET", "/", 404, "not_found"),
    ("POST", "/v1/files", 404, "not_found"),
    ("GET", "/v1/models/plian", 404, "model_not_found"),
    ("GET", "/v1//models", 404, "not_found"),
    ("GET", "/v1/%2e%2e/models", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), PATHS)
async def test_paths_that_are_not_there(method: str, path: str, status: int, code: str, gateway: Gateway) -> None:
    answer = await get(gateway.port, path, method)
    assert (answer.status, answer.error["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v1/realtime?model=x"])
async def test_there_is_no_websocket(path: str, gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(
        f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    _is_refused(await client.answer(), 426, "upgrade_not_supported", "POST")
    await client.close()


async def test_too_large_by_its_length_is_refused_before_it_is_read(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 10000000000\r\n\r\n{"
    )
    watch = Stopwatch.patient()
    answer = await client.answer()
    _is_refused(answer, 413, "body_too_large", "32 MiB")
    assert watch.spent_s < 0.5
    await client.close()


async def test_too_large_in_chunks_is_refused_when_it_is(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    sent = 0
    answering = asyncio.create_task(client.answer())
    while not answering.done() and sent < 64:
        client.writer.write(piece)
        sent += 1
        try:
            await client.writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(0)
    answer = await answering
    assert sent <= 40
    assert answer.status in (413, 0), "the answer may be lost to the reset that ends the upload"
    await client.close()


async def test_a_compressed_body_is_decoded(gateway: Gateway, upstream: Simulator) -> None:
    body = orjson.dumps({"model": "plain", "messages": []})
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = await send(gateway.port, CHAT, packed, {"content-encoding": coding})
        assert answer.status == 200
        assert upstream.requests[-1].body == body
        assert upstream.requests[-1].header("content-encoding") is None


async def test_a_compressed_bomb_is_refused(gateway: Gateway, upstream: Simulator) -> None:
    answer = await send(gateway.port, CHAT, gzip.compress(b" " * (256 << 20)), {"content-encoding": "gzip"})
    assert answer.status in (400, 413)
    assert upstream.served == 0


async def test_f067_an_unread_body_is_never_the_next_request(gateway: Gateway, upstream: Simulator) -> None:
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    client = await Connection.open(gateway.port)
    client.post("/v1/nowhere", smuggled)
    first = await client.answer()
    assert first.status == 404
    client.post(CHAT, orjson.dumps({"model": "plain", "messages": []}))
    second = await client.answer(within_s=3)
    assert second.status in (200, 0)
    assert b'"object":"list"' not in second.raw
    await client.close()


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    for number in range(50):
        client.post(CHAT, orjson.dumps({"model": f"sim/m{number}", "messages": []}))
    for number in range(50):
        assert (await client.answer()).json()["model"] == f"m{number}"
    await client.close()


async def test_expect_100_continue_is_answered_after_the_head_is_accepted(gateway: Gateway) -> None:
    body = orjson.dumps({"model": "plain", "messages": []})
    client = await Connection.open(gateway.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    client.writer.write(head.encode() + b"expect: 100-continue\r\n\r\n")
    await client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.writer.write(body)
    await client.until(b'"finish_reason":"stop"')
    await client.close()


async def test_a_body_that_makes_no_progress_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.edge.request_body.PROGRESS_S", 0.2)
    client = await Connection.open(gateway.port)
    client.writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode()
    )
    answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    await client.close()


async def test_a_request_id_is_echoed_if_it_is_clean(gateway: Gateway) -> None:
    body = orjson.dumps({"model": "plain", "messages": []})
    assert (await send(gateway.port, CHAT, body, {"x-request-id": "my-id_1"})).headers["x-request-id"] == "my-id_1"
    for odd in ("a b", "x" * 65, "id;rm", "ü"):
        answer = await send(gateway.port, CHAT, body, {"x-request-id": odd})
        assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_models(prefix: str, gateway: Gateway) -> None:
    listed = (await get(gateway.port, f"{prefix}/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["plain", "sim/plain"]
    assert set(listed["data"][0]) == {"id", "object", "created", "owned_by"}
    assert (await get(gateway.port, f"{prefix}/models/sim/plain")).json()["id"] == "sim/plain"
    assert (await get(gateway.port, f"{prefix}/models/sim%2Fplain")).json()["id"] == "sim/plain"
    assert (await get(gateway.port, f"{prefix}/models/sim/unlisted")).json()["owned_by"] == "sim"


RAW = [
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer canary-secret\x01\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key : canary-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: canary-secret" + b"x" * 20_000 + b"\r\n\r\n",
    b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nhost: x\r\nx-api-key: canary-secret\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"canary-secret\r\n\r\n",
]


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
async def test_what_is_not_http_is_told_so_and_quoted_nowhere(
    raw: bytes, gateway: Gateway, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(raw)
    answer = await client.answer()
    await client.close()
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert b"canary-secret" not in answer.raw
    assert "canary-secret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/nope", "/v1/chat/completions", "/v1/models/nope", "/v1/models", "/health"])
async def test_head_has_no_body(path: str, gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(f"HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    raw = await client.until(b'{"status":"live"}')
    assert raw.count(b"\r\n\r\n") == 2
    assert raw.split(b"\r\n\r\n")[1].startswith(b"HTTP/1.1 200")
    await client.close()


@pytest.mark.parametrize("path", ["/livez", "/health/live", "/health/liveness", "/health/liveliness", "/readyz"])
async def test_health(path: str, gateway: Gateway) -> None:
    assert (await get(gateway.port, path)).status == 200
    assert (await get(gateway.port, path, "HEAD")).status == 200


async def test_health_is_503_while_nothing_can_serve(start: Start) -> None:
    gateway = await start("routes: {}")
    answer = await get(gateway.port, "/health")
    assert (answer.status, answer.json()["status"]) == (503, "unconfigured")
