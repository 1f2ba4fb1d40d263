"""Clients that are slow by intent, and the ones beside them."""

import asyncio
import socket
import time
from contextlib import suppress

import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway

ROUNDS = 100
ALLOWED_S = 0.03  # what a busy machine takes of a hundredth of requests


async def _p99(gateway: Gateway) -> float:
    client = await Connection.open(gateway.port)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        client.post(CHAT, b'{"model":"sim/plain","messages":[]}')
        assert (await client.answer()).status == 200
        took.append(time.perf_counter() - began)
    await client.close()
    return sorted(took)[ROUNDS * 99 // 100]


async def _dribble(crowd: list[socket.socket]) -> None:
    while True:
        for one in crowd:
            with suppress(OSError):
                one.send(b"x")
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(20, id="60"),
        pytest.param(170, id="510", marks=pytest.mark.soak),
    ],
)
async def test_s48_slow_clients_slow_nobody_else(each: int, start: Start, upstream_url: str) -> None:
    """Slow heads, slow bodies and slow readers, all at once: the others' p99 stays within 1.5 times of what it was."""
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    await _p99(gateway)
    alone = await _p99(gateway)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    body = b'{"model":"sim/events:100000","stream":true,"messages":[]}'
    crowd: dict[str, list[socket.socket]] = {"head": [], "body": [], "reader": []}
    for _ in range(each):
        for kind, first in (
            ("head", b"POST / HTTP/1.1\r\nx: "),
            ("body", f"{head}content-length: 100000\r\n\r\n".encode()),
            ("reader", f"{head}content-length: {len(body)}\r\n\r\n".encode() + body),
        ):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", gateway.port))
            one.send(first)
            crowd[kind].append(one)
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)  # until the readers' streams stand still
    dribbling = asyncio.create_task(_dribble(crowd["head"] + crowd["body"]))
    beside = min([await _p99(gateway) for _ in range(2)])
    dribbling.cancel()
    for slow in crowd.values():
        for client in slow:
            client.close()
    assert beside <= 1.5 * alone + ALLOWED_S
