"""What passes to a provider and back, with an upstream that keeps every byte, and with hostile ones."""

from collections.abc import AsyncIterator

import orjson
import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway, closed_port, send
from tests.security.oracle import ANSWER, Oracle
from tests.stopwatch import Stopwatch

BODY = orjson.dumps({"model": "sim/plain", "messages": []})
ODD = {
    "cookie": "canary", "cookie2": "canary", "x-api-key": "canary-key", "api-key": "canary-key",
    "x-forwarded-for": "canary",
    "x-forwarded-host": "canary", "x-forwarded-proto": "canary", "x-forwarded-port": "1", "x-real-ip": "canary",
    "forwarded": "for=canary", "via": "1.1 canary", "range": "bytes=0-1", "if-none-match": "canary",
    "if-match": "canary",
    "if-modified-since": "canary", "openai-organization": "canary", "openai-project": "canary",
    "x-goog-api-key": "canary",
    "x-goog-user-project": "canary", "proxy-authorization": "canary", "proxy-authenticate": "canary",
    "proxy-connection": "x",
    "keep-alive": "timeout=1", "te": "trailers", "trailer": "x-canary", "x-secret": "canary", "x-custom": "canary",
    "x-http-method-override": "DELETE", "x-method-override": "DELETE", "x-original-url": "/canary",
    "x-rewrite-url": "/canary",
    "x-amz-date": "canary", "x-amz-security-token": "canary", "x-ms-client-request-id": "canary",
    "helicone-auth": "canary",
    "x-portkey-api-key": "canary", "x-portkey-custom-host": "canary", "x-custom-host": "canary", "x-base-url": "canary",
    "x-litellm-api-key": "canary", "x-penstock-tier": "economy",
    "x-request-id": "canary_id",
    "sec-fetch-mode": "cors", "sec-ch-ua": "canary", "origin": "https://canary.example", "accept-language": "canary",
    "cache-control": "max-age=1", "pragma": "canary", "max-forwards": "1", "date": "canary",
    "warning": "canary", "from": "canary",
    "upgrade-insecure-requests": "1", "dnt": "1", "priority": "u=1", "early-data": "1", "x-csrf-token": "canary",
}  # fmt: skip
SENT = {"host", "accept-encoding", "content-type", "content-length", "authorization"}


@pytest.fixture
async def oracle() -> AsyncIterator[Oracle]:
    oracle = Oracle()
    yield oracle
    await oracle.stop()


@pytest.fixture
async def behind(oracle: Oracle, start: Start) -> Gateway:
    url = await oracle.start()
    text = f'providers: {{sim: {{like: vllm, base_url: "{url}", api_key: env:KEY}}}}'
    return await start(text, environ={"KEY": "provider-canary-key"})


async def test_s22_s23_s24_odd_headers_stay_here(behind: Gateway, oracle: Oracle) -> None:
    assert len(ODD) >= 50
    assert (await send(behind.port, CHAT, BODY, {**ODD, "authorization": "Bearer client-canary"})).status == 200
    assert oracle.violations == []
    (request,) = oracle.seen
    assert request.names == SENT
    assert request.header(b"authorization") == b"Bearer provider-canary-key"
    assert b"canary" not in b"".join(value for name, value in request.fields if name.lower() != b"authorization")


async def test_s22_what_connection_names_stays_here(behind: Gateway, oracle: Oracle) -> None:
    headers = {
        "connection": "keep-alive, openai-beta, User-Agent",
        "openai-beta": "x",
        "user-agent": "x",
        "accept": "x/y",
    }
    assert (await send(behind.port, CHAT, BODY, headers)).status == 200
    assert oracle.seen[0].names == SENT | {"accept"}


async def test_s31_no_request_chooses_the_host(behind: Gateway, oracle: Oracle) -> None:
    canary = Oracle()
    there = await canary.start()
    for name in (
        "api_base",
        "base_url",
        "custom_host",
        "api_host",
        "endpoint",
        "url",
        "host",
        "proxy",
        "litellm_params",
    ):
        body = orjson.dumps({"model": "sim/plain", "messages": [], name: there})
        await send(behind.port, CHAT, body, {f"x-{name.replace('_', '-')}": there, "x-penstock-base-url": there})
    for model in (there, f"sim/{there}", f"sim/../{there}", "sim/@evil", "sim/plain?x=", "sim/plain#"):
        await send(behind.port, CHAT, orjson.dumps({"model": model, "messages": []}))
    assert canary.seen == []
    assert len(oracle.seen) >= 9
    assert {request.line for request in oracle.seen} == {b"POST /v1/chat/completions HTTP/1.1"}
    await canary.stop()


HOSTILE = {
    "a cookie": b"set-cookie: canary=1\r\nset-cookie2: canary",
    "words of ours": b"x-penstock-cost-usd: canary\r\nx-ratelimit-limit-requests: canary\r\nserver: canary",
    "a policy": b"content-security-policy: canary\r\naccess-control-allow-origin: *\r\nstrict-transport-security: canary",
    "the credential": b"x-echo: provider-canary-key",
    "hop by hop": b"connection: x-canary\r\nx-canary: canary\r\nproxy-authenticate: canary\r\nupgrade: canary",
    "0xff": b"x-canary: canary\xff",
    "escapes": b"x-canary: canary\x1b[31m",
    "utf-8": b"x-canary: canary\xc3\xa9",
    "NUL": b"x-canary: canary\x00",
    "a CR": b"x-canary: canary\rx-other: canary",
    "a folded field": b"x-a: b\r\n canary: canary",
    "64 KiB": b"x-canary: canary" + b"y" * 65536,
    "5,000 fields": b"\r\n".join(b"x-%d: canary" % number for number in range(5000)),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_s24_s25_s26_a_hostile_head_harms_nobody(name: str, behind: Gateway, oracle: Oracle) -> None:
    oracle.answer = ANSWER.replace(b"content-type", HOSTILE[name] + b"\r\ncontent-type", 1)
    watch = Stopwatch.patient()
    first = await send(behind.port, CHAT, BODY)
    assert first.status in (200, 502)
    assert b"provider-canary-key" not in first.raw
    head = first.raw.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    if name != "a folded field":  # which is one value of one harmless field, as the rule for folding says
        assert b"canary" not in head
    oracle.answer = ANSWER
    behind.forgive()
    second = await send(behind.port, CHAT, BODY)
    assert (second.status, second.body) == (200, b'{"text":"pipe"}')
    assert watch.spent_s < 3
    assert behind.log.bugs == []


@pytest.mark.parametrize(
    "raw",
    [
        ANSWER + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ncanary",
        ANSWER + b"canary",
        b"HTTP/1.1 103 Early Hints\r\nlink: canary\r\n\r\n" * 50 + ANSWER,
        ANSWER.replace(b"content-length: 15", b"content-length: 15\r\ncontent-length: 16"),
        ANSWER.replace(b"content-length: 15", b"content-length: 15\r\ntransfer-encoding: chunked"),
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/canary\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 307 Found\r\nlocation: //127.0.0.1:9/canary\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["glued answer", "glued bytes", "1xx flood", "two lengths", "two framings", "302", "307"],
)
async def test_f013_the_next_request_gets_its_own_answer(raw: bytes, behind: Gateway, oracle: Oracle) -> None:
    for _ in range(3):
        oracle.answer = raw
        first = await send(behind.port, CHAT, BODY)
        assert first.status in (200, 502)
        assert b"canary" not in first.raw
        oracle.answer = ANSWER
        behind.forgive()
        second = await send(behind.port, CHAT, BODY)
        assert (second.status, second.body) == (200, b'{"text":"pipe"}')


async def test_s57_errors_tell_nothing_of_the_inside(start: Start) -> None:
    port = closed_port()
    text = f'providers: {{sim: {{like: vllm, base_url: "http://127.0.0.1:{port}/v1/secret-path", api_key: env:KEY}}}}'
    gateway = await start(text, environ={"KEY": "provider-canary-key"})
    refused = await send(gateway.port, CHAT, BODY)
    assert refused.status == 502
    for word in (
        b"provider-canary-key",
        b"secret-path",
        b"127.0.0.1",
        str(port).encode(),
        b"Traceback",
        b".py",
        b"aiohttp",
    ):
        assert word not in refused.raw, word


@pytest.mark.parametrize("where", ["model", "user-agent", "user", "path"])
async def test_s55_nobody_writes_lines_of_their_own(where: str, behind: Gateway, oracle: Oracle) -> None:
    evil = 'x\\r\\n{"canary":1}\\u001b[31m\\u2028'
    body = BODY
    headers = {}
    path = CHAT
    if where in ("model", "user"):
        body = (
            BODY.replace(b"sim/plain", evil.encode())
            if where == "model"
            else BODY[:-1] + f',"user":"{evil}"}}'.encode()
        )
    elif where == "user-agent":
        headers["user-agent"] = "x\t[31m\u2028"
    else:
        path = "/v1/%0d%0a%1b[31m"
    await send(behind.port, path, body, headers)
    for record in behind.log.exchanges:
        line = orjson.dumps(record, default=str)
        assert b"\n" not in line
        assert b"\x1b" not in line


async def test_s03_what_is_refused_is_refused_before_its_body_is_asked_for(behind: Gateway) -> None:
    for path, more, status in (
        ("/nowhere", "content-type: application/json", 404),
        (CHAT, "content-type: application/json", 413),
        (CHAT, "content-type: text/plain", 400),
        (CHAT, "content-type: application/json\r\ncontent-encoding: br", 415),
    ):
        client = await Connection.open(behind.port)
        watch = Stopwatch.patient()
        fields = f"host: x\r\n{more}\r\nexpect: 100-continue\r\ncontent-length: 10000000000\r\n"
        client.writer.write(f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode())
        answer = await client.answer()
        assert watch.spent_s < 0.5
        assert (answer.status, answer.headers.get("connection")) == (status, "close")
        assert b"100 Continue" not in answer.raw
        await client.close()
