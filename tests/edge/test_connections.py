"""How many connections there may be, and how long a client may take for a head or an answer."""

import asyncio
import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest

from proxy.edge import connections
from proxy.edge.connections import Caps, Connections
from proxy.server import serve
from proxy.server.sockets import client_caps
from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway, get
from tests.stopwatch import Stopwatch


def post(length: int, more: str = "") -> bytes:
    """The head of a request, up to its body."""
    fields = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}"
    return f"POST {CHAT} HTTP/1.1\r\n{fields}\r\n".encode()


QUICK = {"HEAD_S": 0.3, "TICK_S": 0.02, "UNREAD_S": 0.3}
REQUEST = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(connections, name, value)


def test_the_bounds_that_are_promised() -> None:
    assert (connections.HEAD_S, connections.TICK_S) == (10.0, 0.5)
    assert connections.UNREAD_S > 30


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sent", [b"", b"G", REQUEST[:-2], REQUEST[:-1]])
async def test_f060_s48_a_head_that_does_not_come_is_given_up(sent: bytes, gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    watch = Stopwatch.patient()
    client.writer.write(sent)
    answer = await client.answer(within_s=3)
    assert watch.passed_s > 0.2
    assert watch.spent_s < 2
    assert answer.status == (408 if sent else 0)
    if sent:
        assert answer.error["code"] == "request_timeout"
        assert (await client.answer(within_s=3)).end == "eof"
    else:
        assert answer.end == "eof"
    await client.close()


@pytest.mark.usefixtures("quick")
async def test_f060_s48_a_dribbled_head_is_given_up(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    watch = Stopwatch.patient()
    answering = asyncio.create_task(client.answer(within_s=3))
    for piece in itertools.chain([b"GET / HTTP/1.1\r\nhost: x\r\nx: "], itertools.repeat(b"x")):
        if answering.done():
            break
        client.writer.write(piece)
        await asyncio.sleep(0.02)
    assert (await answering).status in (400, 408)
    assert watch.spent_s < 2
    await client.close()


@pytest.mark.usefixtures("quick")
async def test_a_kept_connection_may_be_idle_for_longer_than_a_head_may_take(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    for _ in range(2):
        client.writer.write(REQUEST)
        assert (await client.answer()).status == 200
        await asyncio.sleep(0.5)
    client.writer.write(REQUEST[:20])  # but not once its next head has begun
    assert (await client.answer(within_s=3)).status == 408
    await client.close()


@pytest.mark.usefixtures("quick")
async def test_a_head_in_pieces_and_a_long_answer_are_not_cut(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    body = orjson.dumps({"model": "sim/plain", "messages": []})
    raw = post(len(body))
    for part in (raw[:10], raw[10:40], raw[40:], body[:5]):
        client.writer.write(part)
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # longer than a head may take: the body has its own bound
    client.writer.write(body[5:])
    assert (await client.answer()).status == 200
    await client.close()


async def test_s29_fields_that_are_too_long_together(gateway: Gateway) -> None:
    for size, status in ((7_000, 200), (9_000, 400)):
        fields = "".join(f"x-{number}: {'y' * size}\r\n" for number in range(4))
        for pieces in (1, 7):
            client = await Connection.open(gateway.port)
            raw = f"GET /livez HTTP/1.1\r\nhost: x\r\n{fields}\r\n".encode()
            step = len(raw) // pieces + 1
            for at in range(0, len(raw), step):
                client.writer.write(raw[at : at + step])
                await asyncio.sleep(0.005)
            assert (await client.answer()).status == status, (size, pieces)
            await client.close()


async def test_s29_a_head_without_end_is_refused_when_it_is_too_long(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
    answering = asyncio.create_task(client.answer())
    sent = 0
    while not answering.done() and sent < 100:
        client.writer.write(b"x-%d: " % (sent % 10) + b"y" * 1000 + b"\r\n")
        sent += 1
        await asyncio.sleep(0.001)
    assert (await answering).status == 400
    assert sent < 60
    await client.close()


@pytest.mark.parametrize("junk", [b";" + b"x" * 3000, b";x=" + b"y" * 60_000])
async def test_f064_chunk_extensions_are_counted(junk: bytes, gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )
    answering = asyncio.create_task(client.answer())
    sent = 0
    with suppress(ConnectionError):
        while not answering.done() and sent < 32 * 1024 * 1024:
            piece = b"1" + junk + b"\r\n \r\n"
            client.writer.write(piece)
            sent += len(piece)
            await client.writer.drain()
            await asyncio.sleep(0)
    answer = await answering
    assert sent < 3 * 1024 * 1024
    assert answer.status in (400, 0), "the answer may be lost to the reset that ends the upload"
    await client.close()


async def test_f064_two_hundred_thousand_chunks_of_a_byte(gateway: Gateway) -> None:
    client = await Connection.open(gateway.port)
    client.writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )
    live = await Connection.open(gateway.port)
    client.writer.write(b"1\r\n \r\n" * 200_000)
    watch = Stopwatch.patient()
    live.writer.write(REQUEST)
    assert (await live.answer()).status == 200
    assert watch.spent_s < 1
    assert (await client.answer()).status in (400, 0)
    await live.close()
    await client.close()


async def test_f061_a_body_of_a_byte_a_second_makes_no_progress(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.edge.request_body.PROGRESS_S", 0.3)
    client = await Connection.open(gateway.port)
    client.writer.write(post(100))
    watch = Stopwatch.patient()
    answering = asyncio.create_task(client.answer())
    while not answering.done():
        client.writer.write(b" ")
        await asyncio.sleep(0.03)
    assert (await answering).error["code"] == "request_timeout"
    assert watch.spent_s < 2
    await client.close()


async def test_f061_a_slow_body_that_makes_progress_is_read(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.edge.request_body.PROGRESS_S", 0.3)
    body = orjson.dumps({"model": "sim/plain", "messages": [], "user": "x" * 10_000})
    client = await Connection.open(gateway.port)
    client.writer.write(post(len(body)))
    for at in range(0, len(body), 1500):
        client.writer.write(body[at : at + 1500])
        await asyncio.sleep(0.08)
    assert (await client.answer()).status == 200
    await client.close()


# Clients that do not read.


def deaf(port: int) -> socket.socket:
    """A client that takes nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    return client


async def deaf_crowd(gateway: Gateway, more: str) -> list[socket.socket]:
    """Clients that read nothing. Some answers fit into the kernel, some into Penstock's buffer too, some into neither."""
    crowd = []
    for events in range(600, 3400, 200):
        body = orjson.dumps({"model": f"sim/events:{events}", "stream": True, "messages": []})
        crowd.append(deaf(gateway.port))
        crowd[-1].sendall(post(len(body), more) + body)
    return crowd


@pytest.mark.usefixtures("quick")
async def test_s48_an_answer_that_nobody_reads_holds_no_connection(start: Start, upstream_url: str) -> None:
    """Whether Penstock still writes, or has closed and only the kernel waits: which it would for ever."""
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    assert gateway.service._connections is not None
    crowd = await deaf_crowd(gateway, "connection: close\r\n")
    await asyncio.sleep(0.1)
    assert len(gateway.service._connections) > 0
    async with asyncio.timeout(5):
        while len(gateway.service._connections):
            await asyncio.sleep(0.01)
    whole = [record for record in await gateway.settled(len(crowd)) if "failure" not in record]
    assert 0 < len(whole) < len(crowd), "both kinds were there"
    for client in crowd:
        client.close()


async def test_clients_that_read_nothing_do_not_hold_up_the_end(start: Start, upstream_url: str) -> None:
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    crowd = await deaf_crowd(gateway, "")
    await asyncio.sleep(0.2)
    try:
        async with asyncio.timeout(8):
            await gateway.service.stop()
    finally:
        for client in crowd:
            client.close()


async def test_f058_a_client_that_reads_nothing_is_given_up_and_booked(
    start: Start, upstream_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.phases.watchdog.WRITE_S", 0.4)
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    body = orjson.dumps({"model": "sim/events:200000", "stream": True, "messages": []})
    with deaf(gateway.port) as client:
        client.sendall(post(len(body)) + body)
        (record,) = await gateway.settled()
        assert (record["status"], record["failure"]) == (200, "client_stalled")
        (row,) = await gateway.booked()
        assert row.code == "client_stalled"


# How many.


def caps(monkeypatch: pytest.MonkeyPatch, total: int, per_address: int) -> None:
    monkeypatch.setattr(serve, "client_caps", lambda _: Caps(total, per_address))


async def test_s47_one_address_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    caps(monkeypatch, 40, 30)
    gateway = await start("routes: {}")
    loop = asyncio.get_running_loop()
    crowd = []
    for _ in range(300):
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", gateway.port))
        crowd.append(one)
    own = await Connection.open(gateway.port)
    answer = await own.answer()
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    await own.close()
    other = Connection(*await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=("127.0.0.2", 0)))
    other.writer.write(REQUEST)
    assert (await other.answer()).status == 200
    await other.close()
    told = [event for event in gateway.log.events if event.get("reason") == "TooManyConnections"]
    assert len(told) == 1, "a crowd fills no log"
    for one in crowd:
        one.close()
    async with asyncio.timeout(5):
        while (await get(gateway.port, "/livez")).status != 200:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("room", "expected"), [(16, Caps(16, 16)), (1023, Caps(1023, 1023)), (9936, Caps(9936, 7452))])
def test_one_address_has_three_quarters_of_a_large_room(room: int, expected: Caps) -> None:
    assert client_caps(room) == expected


class Fake:
    """A connection by itself, for the count: the real ones are above."""

    def __init__(self) -> None:
        self.late = self.aborted = 0
        self.unsent = 10

    def head_is_late(self) -> None:
        self.late += 1

    def unsent_bytes(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted += 1


@pytest.fixture
def fakes() -> Iterator[Any]:
    return iter(Fake, None)


async def test_the_count_comes_back_to_nothing(fakes: Iterator[Fake]) -> None:
    counted = Connections(Caps(3, 2))
    a, b, c, d, e = (next(fakes) for _ in range(5))
    assert counted.enter(a, "x")
    assert counted.enter(b, "x")
    assert not counted.enter(c, "x")
    assert counted.enter(c, "y")
    assert not counted.enter(d, "z")
    counted.leave(d)  # was never in
    counted.leave(a)
    counted.leave(a)
    assert counted.enter(e, "x")
    for one in (b, c, e):
        counted.leave(one)
    assert len(counted) == 0
    assert (counted._of_address, counted._heads, counted._unread) == ({}, {}, {})


@pytest.mark.usefixtures("quick")
async def test_who_reads_slowly_is_not_who_reads_nothing(fakes: Iterator[Fake]) -> None:
    counted = Connections(Caps(9, 9))
    slow, stuck = next(fakes), next(fakes)
    for one in (slow, stuck):
        assert counted.enter(one, "x")
        counted.head_ends(one)
        counted.unread(one)
    for _ in range(12):
        slow.unsent -= 1
        await asyncio.sleep(0.06)
    assert (slow.aborted, stuck.aborted) == (0, 1)
    assert (slow.late, stuck.late) == (0, 0)
