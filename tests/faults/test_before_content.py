"""Fault matrix A: the upstream fails before anything was relayed. Rows are named by their number."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
import trustme

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import Answer, Connection, Gateway, closed_port, get, port_of
from tests.stopwatch import Stopwatch

TIMEOUTS = "timeouts: {connect: 400ms, first_event: 500ms, idle: 400ms, silent: 800ms, total: 3s}"

# script, status, code, sends: the only target fails, whether a stream was asked for or not
ALONE = [
    ("refuse", 502, "upstream_unreachable", 1),  # F009
    ("hangup", 502, "upstream_unreachable", 1),  # F009
    ("garbage", 502, "upstream_protocol", 1),  # F010
    ("half-head", 502, "upstream_unreachable", 1),  # F011
    ("big-header:65536", 502, "upstream_protocol", 1),  # F012
    ("many-headers:5000", 502, "upstream_protocol", 1),  # F012
    ("cl-and-te", 502, "upstream_protocol", 1),  # F013
    ("two-cl", 502, "upstream_protocol", 1),  # F013
    ("401", 502, "upstream_auth", 1),  # F017
    ("403:credential", 502, "upstream_auth", 1),  # F017
    ("402", 503, "upstream_quota_exhausted", 1),
    ("429:60", 429, "rate_limit_exceeded", 1),  # F018: longer than we wait, so the client is told
    ("429:60:quota", 503, "upstream_quota_exhausted", 1),
    ("500", 502, "upstream_error", 3),
    ("status:502", 502, "upstream_error", 3),
    ("503:3600", 503, "upstream_overloaded", 1),  # F022
    ("529", 503, "upstream_overloaded", 3),  # F023
    ("html", 502, "upstream_protocol", 1),  # F024
    ("error-in-200:429", 429, "rate_limit_exceeded", 1),
    ("bad-gzip:0", 502, "upstream_protocol", 1),  # F048
]
ALONE_JSON = [
    ("empty-body", 502, "upstream_protocol", 1),
    ("not-json", 502, "upstream_protocol", 1),
    ("wrong-length", 502, "upstream_incomplete", 1),
    ("bomb:256", 502, "upstream_protocol", 1),  # F049
]
ALONE_STREAM = [
    ("head-then-silence", 504, "upstream_timeout", 1),  # F027
    ("head-then-fin", 502, "upstream_incomplete", 1),  # F028
    ("head-then-cut", 502, "upstream_incomplete", 1),
    ("error-first:429", 429, "rate_limit_exceeded", 1),  # F029
    ("error-first:500", 502, "upstream_error", 3),  # F029
    ("json-for-stream:503", 503, "upstream_overloaded", 3),
    ("silent", 504, "upstream_timeout", 1),  # F026
    ("keepalive:40", 504, "upstream_timeout", 1),  # comments are held and do not count
    ("bad-json:0", 502, "upstream_protocol", 1),
]
CASES = [(row, stream) for row in ALONE for stream in (False, True)]
CASES += [(row, False) for row in ALONE_JSON] + [(row, True) for row in ALONE_STREAM]


@pytest.fixture
async def pair(start: Start, upstream_url: str) -> Callable[[str], Awaitable[Gateway]]:
    """A route whose first target does `script`, and whose second one answers."""

    async def started(script: str) -> Gateway:
        return await start(
            f"""
providers:
  sim: {{like: vllm, base_url: "{upstream_url}"}}
  other: {{like: vllm, base_url: "{upstream_url}"}}
defaults: {{{TIMEOUTS}}}
routes:
  alone: {{tiers: ["sim/{script}"]}}
  pair: {{tiers: ["sim/{script}", other/plain]}}
"""
        )

    return started


@pytest.mark.parametrize(("row", "stream"), CASES, ids=str)
async def test_the_only_target_fails(
    row: tuple[str, int, str, int], stream: bool, pair: Callable[[str], Awaitable[Gateway]], upstream: Simulator
) -> None:
    script, status, code, sends = row
    gateway = await pair(script)
    answer = await gateway.ask("alone", stream=stream)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.end == "whole"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == ("true" if status == 429 else "false")
    assert answer.headers["x-penstock-attempts"] == str(sends)
    assert len(upstream.requests) == sends
    told = answer.error["metadata"]["attempts"]
    assert [attempt["target"] for attempt in told] == [f"sim/{script}"] * sends
    (record,) = await gateway.settled()
    assert record["outcome"] == "failed"
    assert record["status"] == status
    await _nothing_left_open(upstream)


@pytest.mark.parametrize(("row", "stream"), CASES, ids=str)
async def test_the_next_target_answers_unseen(
    row: tuple[str, int, str, int], stream: bool, pair: Callable[[str], Awaitable[Gateway]], upstream: Simulator
) -> None:
    gateway = await pair(row[0])
    answer = await gateway.ask("pair", stream=stream)
    direct = await gateway.ask("other/plain", stream=stream)
    assert answer.status == 200
    assert answer.body == direct.body
    assert answer.end == "whole"
    assert answer.headers["x-penstock-attempts"] == "2"
    assert answer.headers["x-penstock-provider"] == "other"
    assert [request.finished for request in upstream.requests][-1]
    records = await gateway.settled(2)
    assert (records[0]["outcome"], records[0]["attempts"], records[0]["target"]) == ("ok", 2, "other/plain")


async def _nothing_left_open(upstream: Simulator) -> None:
    """What failed is closed within a second; what answered well may be kept."""
    async with asyncio.timeout(1.5):
        while (
            any(not r.finished and r.disconnected_at is None for r in upstream.requests) and upstream.connections_open
        ):
            await asyncio.sleep(0.01)


async def test_f001_connection_refused(start: Start) -> None:
    gateway = await start(_config({"gone": f"http://127.0.0.1:{closed_port()}/v1"}))
    watch = Stopwatch.patient()
    answer = await gateway.ask("route")
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert answer.headers["x-should-retry"] == "false"
    assert watch.spent_s < 1
    (record,) = await gateway.settled()
    assert record["attempts"] == 3


async def test_f002_refused_then_the_fallback(start: Start, upstream_url: str) -> None:
    gateway = await start(_config({"gone": f"http://127.0.0.1:{closed_port()}/v1", "sim": upstream_url}))
    for stream in (False, True):
        answer = await gateway.ask("route", stream=stream)
        direct = await gateway.ask("sim/m", stream=stream)
        assert (answer.status, answer.body) == (200, direct.body)
        assert answer.headers["x-penstock-provider"] == "sim"


async def test_f003_a_black_hole_costs_the_connect_timeout(start: Start, upstream_url: str) -> None:
    """A listener whose queue is full drops the SYN: connecting hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        hole = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        gateway = await start(_config({"hole": hole, "sim": upstream_url}))
        watch = Stopwatch.patient()
        answer = await gateway.ask("route")
        assert answer.status == 200
        assert answer.headers["x-penstock-attempts"] == "2"
        assert watch.passed_s > 0.35
        assert watch.spent_s < 1.5
        alone = await gateway.ask("hole/m")
        assert (alone.status, alone.error["code"]) == (504, "upstream_timeout")
        for filler in fillers:
            filler.close()


@asynccontextmanager
async def _tls_listener(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server that records what it is sent in the clear of the tunnel; without a context: one that never speaks."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                if context is not None:
                    got.append(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()


@pytest.mark.parametrize("names", [("localhost",), ("wrong.example",)], ids=["self-signed", "wrong-host"])
async def test_f005_a_certificate_that_nobody_vouches_for(start: Start, names: tuple[str, ...]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(*names).configure_cert(context)
    async with _tls_listener(context) as (port, got):
        gateway = await start(
            _config({"tls": f"https://localhost:{port}/v1"}, key="env:CANARY"), environ={"CANARY": "canary-credential"}
        )
        answer = await gateway.ask("route")
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
        assert got == []
        (record,) = await gateway.settled()
        assert record["failure"] == "tls_failed"


async def test_f006_a_handshake_that_stalls(start: Start, upstream_url: str) -> None:
    async with _tls_listener(None) as (port, _):
        gateway = await start(_config({"tls": f"https://localhost:{port}/v1", "sim": upstream_url}))
        watch = Stopwatch.patient()
        assert (await gateway.ask("route")).status == 200
        assert watch.spent_s < 1.5
        answer = await gateway.ask("tls/m")
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_f007_a_stale_connection_is_replaced_once(start: Start, way: str) -> None:
    """The second request on a kept connection finds it closed with nothing answered; a fresh one answers."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if connections == 1 and turn == 1:
                break
            body = b'{"choices":[]}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n" + body)
        if way == "rst":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = await start(_config({"own": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}))
    first, second = await gateway.ask("route"), await gateway.ask("route")
    assert (first.status, second.status) == (200, 200)
    assert connections == 2
    assert second.headers["x-penstock-attempts"] == "2"
    records = await gateway.settled(2)
    assert records[1]["tried"][0]["failure"] == "stale_connection"
    server.close()


async def test_a_close_after_long_work_is_no_stale_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request was at work when its kept connection closed: it is not sent again."""
    monkeypatch.setattr("proxy.upstream.client.STALE_S", 0.05)
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            got += 1
            if turn == 0:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await asyncio.sleep(0.2)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = await start(_config({"own": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}))
    assert (await gateway.ask("route")).status == 200
    assert (await gateway.ask("route")).status == 502
    assert got == 2
    server.close()


async def test_f013_glued_bytes_never_become_an_answer(gateway: Gateway, upstream: Simulator) -> None:
    glued = await gateway.ask("sim/glued")
    assert glued.status == 200
    assert b"HTTP/1.1" not in glued.body
    after = await gateway.ask("sim/plain")
    assert after.json()["model"] == "plain"
    assert b"glued" not in after.body


@pytest.mark.parametrize("when", ["glued", "late", "unsolicited 408"])
async def test_f013_what_comes_unasked_is_never_the_next_answer(when: str, start: Start) -> None:
    """A second answer behind the last bytes of the first, or on the idle connection, belongs to nobody."""

    def answer(word: bytes) -> bytes:
        body = b'{"choices":[],"word":"%b"}' % word
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    surplus = answer(b"poison")
    if when == "unsolicited 408":
        surplus = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                own = answer(b"own")
                writer.write(own[:-3])
                await asyncio.sleep(0.02)
                if when == "glued":
                    writer.write(own[-3:] + surplus)
                else:
                    writer.write(own[-3:])
                    await asyncio.sleep(0.02)
                    writer.write(surplus)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = await start(_config({"own": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}))
    for _ in range(4):
        got = await gateway.ask("route")
        assert (got.status, got.json()["word"]) == (200, "own")
        assert got.headers["x-penstock-attempts"] == "1"
        await asyncio.sleep(0.05)
    server.close()


@pytest.mark.parametrize(
    ("label", "body", "status", "code"),
    [
        ("text/event-stream", b'{"error":{"message":"slow down","code":429}}', 429, "rate_limit_exceeded"),
        ("text/event-stream", b'\n{"error":"busy","code":"rate_limit"}', 429, "rate_limit_exceeded"),
        ("application/json", b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', 200, ""),
        ("text/plain", b': hi\n\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', 200, ""),
        ("text/event-stream", b"<html>please log in</html>", 502, "upstream_protocol"),
    ],
)
async def test_what_is_a_stream_is_told_by_its_bytes(
    label: str, body: bytes, status: int, code: str, start: Start
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        length = f"content-type: {label}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + length.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = await start(_config({"own": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}))
    answer = await gateway.ask("route", stream=True)
    assert answer.status == status
    if code:
        assert answer.error["code"] == code
    else:
        assert answer.body == body
    server.close()


async def test_f014_interim_answers_are_skipped(gateway: Gateway) -> None:
    for stream in (False, True):
        answer = await gateway.ask("sim/early-hints", stream=stream)
        assert (answer.status, answer.end) == (200, "whole")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_f016_a_redirect_is_not_followed(gateway: Gateway, upstream: Simulator, code: int) -> None:
    canary = Simulator(record=10)
    url = await canary.start()
    answer = await gateway.ask(f"sim/redirect:{code}:{url}")
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol")
    assert canary.served == 0
    await canary.stop()


async def test_f018_a_short_retry_after_is_waited_for(gateway: Gateway, upstream: Simulator) -> None:
    began = time.monotonic()
    answer = await gateway.ask("sim/429:1")
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-penstock-attempts"] == "3"
    assert time.monotonic() - began >= 2


async def test_a_wait_outlasts_the_bound_of_the_attempt_before_it(start: Start, upstream_url: str) -> None:
    """Found by tests/chaos: the first event's bound of what had failed long ago ended the connection without an answer."""
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{timeouts: {{first_event: 200ms, total: 5s}}}}
"""
    )
    got = await gateway.ask("sim/once:503:waits", stream=True)
    assert (got.status, got.end) == (200, "whole")
    got = await gateway.ask("sim/503:1", stream=True)
    assert (got.status, got.end, got.error["code"]) == (503, "whole", "upstream_overloaded")
    assert [record["outcome"] for record in await gateway.settled(2)] == ["ok", "failed"]


async def test_who_waits_for_another_attempt_is_told_of_a_shutdown(start: Start, upstream_url: str) -> None:
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    asking = asyncio.create_task(gateway.ask("sim/503:2", stream=True))
    await asyncio.sleep(0.2)
    await gateway.stop()
    got = await asking
    assert (got.status, got.end, got.error["code"]) == (503, "whole", "shutting_down")


async def test_f020_the_clients_fault_passes_as_it_came(gateway: Gateway, upstream: Simulator) -> None:
    direct = await _directly(upstream, gateway, "400")
    for stream in (False, True):
        answer = await gateway.ask("sim/400", stream=stream)
        assert answer.status == 400
        assert answer.body == direct
        assert answer.headers["x-penstock-attempts"] == "1"
    context = await gateway.ask("sim/400:context")
    assert (context.status, context.error["code"]) == (400, "context_length_exceeded")


async def _directly(upstream: Simulator, gateway: Gateway, script: str) -> bytes:
    body = orjson.dumps({"model": script, "messages": []})
    connection = await Connection.open(port_of(gateway.service.table.providers["sim"].base_url))  # type: ignore[index]
    connection.post("/v1/chat/completions", body)
    answer = await connection.answer()
    await connection.close()
    upstream.requests.pop()
    return answer.body


async def test_f021_one_500_then_200(gateway: Gateway) -> None:
    for stream in (False, True):
        answer = await gateway.ask(f"sim/once:500:{stream}", stream=stream)
        assert (answer.status, answer.headers["x-penstock-attempts"]) == (200, "2")


async def test_f022_a_long_retry_after_is_told_at_once(gateway: Gateway) -> None:
    watch = Stopwatch.patient()
    answer = await gateway.ask("sim/503:3600")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "3600"
    assert answer.headers["x-should-retry"] == "false"
    assert watch.spent_s < 1


async def test_f026_the_upstream_is_dropped_at_the_timeout(gateway: Gateway, upstream: Simulator) -> None:
    watch = Stopwatch.patient()
    answer = await gateway.ask("sim/silent", stream=True)
    assert answer.status == 504
    assert watch.passed_s > 0.5
    assert watch.spent_s < 1.6
    async with asyncio.timeout(1):
        while upstream.requests[-1].disconnected_at is None:
            await asyncio.sleep(0.01)


async def test_a_json_answer_is_bounded_by_total(gateway: Gateway) -> None:
    answer = await _ask_with(gateway, "sim/silent", {"x-penstock-timeout": "700ms"})
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


async def test_the_deadline_counts_over_all_attempts(start: Start, upstream_url: str) -> None:
    tiers = ", ".join(f"sim/silent:{number}" for number in range(5))
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{timeouts: {{connect: 1s, first_event: 500ms, idle: 1s, silent: 1s, total: 1200ms}}}}
routes: {{route: {{tiers: [{tiers}]}}}}
"""
    )
    watch = Stopwatch.patient()
    answer = await gateway.ask("route", stream=True)
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert watch.spent_s < 1.9
    assert int(answer.headers["x-penstock-attempts"]) < 5


async def test_all_throttled_is_429_with_the_shortest_wait(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{route: {{tiers: ["sim/429:90", "sim/429:60"]}}}}
"""
    )
    answer = await gateway.ask("route")
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert "2 targets" in answer.error["message"]


async def test_a_model_missing_upstream_is_404_only_if_named_directly(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes: {{route: {{tiers: ["sim/404"]}}}}
"""
    )
    assert (await gateway.ask("route")).status == 502
    direct = await gateway.ask("sim/404")
    assert direct.status == 404
    assert direct.error["code"] == "model_not_found"


async def test_a_refused_stream_options_is_left_out_and_remembered(gateway: Gateway, upstream: Simulator) -> None:
    first = await gateway.ask("sim/reject-usage", stream=True)
    assert (first.status, first.headers["x-penstock-attempts"]) == (200, "2")
    second = await gateway.ask("sim/reject-usage", stream=True)
    assert (second.status, second.headers["x-penstock-attempts"]) == (200, "1")
    assert [b"stream_options" in request.body for request in upstream.requests] == [True, False, False]


async def test_health_answers_throughout(gateway: Gateway) -> None:
    asking = [asyncio.create_task(gateway.ask("sim/silent", stream=True)) for _ in range(50)]
    await asyncio.sleep(0.1)
    took = []
    for _ in range(9):
        watch = Stopwatch.patient()
        assert (await get(gateway.port, "/health/live")).status == 200
        took.append(watch.spent_s)
    assert sorted(took)[4] < 0.1
    await asyncio.gather(*asking)


async def _ask_with(gateway: Gateway, model: str, headers: dict[str, str]) -> Answer:
    connection = await Connection.open(gateway.port)
    connection.post("/v1/chat/completions", orjson.dumps({"model": model, "messages": []}), headers)
    answer = await connection.answer()
    await connection.close()
    return answer


def _config(urls: dict[str, str], key: str | None = None) -> str:
    credential = f", api_key: {key}" if key else ""
    providers = "\n".join(f'  {name}: {{like: vllm, base_url: "{url}"{credential}}}' for name, url in urls.items())
    tiers = ", ".join(f"{name}/m" for name in urls)
    return f"providers:\n{providers}\ndefaults: {{{TIMEOUTS}}}\nroutes: {{route: {{tiers: [{tiers}]}}}}\n"


async def test_f030_in_small_an_outage_is_not_made_worse(start: Start, upstream_url: str, upstream: Simulator) -> None:
    """Repeats are a fifth of 60 requests at once, and three more; once the breaker is open nothing is sent."""
    gateway = await start(_config({"sim": upstream_url}).replace("sim/plain", "sim/status:503"))
    answers = await asyncio.gather(*(gateway.ask("sim/status:503") for _ in range(60)))
    assert {answer.status for answer in answers} == {503}
    assert 5 <= len(upstream.requests) <= 1.2 * 60 + 3
    sent = len(upstream.requests)
    watch = Stopwatch.patient()
    refused = await gateway.ask("sim/status:503")
    assert watch.spent_s < 0.1
    assert (refused.status, refused.error["code"]) == (503, "no_target_available")
    assert 55 < int(refused.headers["retry-after"]) <= 60
    assert len(upstream.requests) == sent
