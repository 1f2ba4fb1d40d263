"""F097: what a process does between SIGTERM and its end."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from proxy.core.ledger import LedgerRow
from proxy.server.databases import LEDGER_FILE
from proxy.stores.sqlite.ledger import SqliteLedger
from tests.gateway import CHAT, Answer, Connection, get
from tests.server.process import config_file, serving

STREAMS = 200


def streamed(model: str) -> bytes:
    return orjson.dumps({"model": model, "stream": True, "messages": []})


async def rows_of(data: Path) -> list[LedgerRow]:
    ledger = SqliteLedger(data / LEDGER_FILE)
    await ledger.open()
    try:
        return [one.row for one in await ledger.booked(0, 1000)]
    finally:
        await ledger.close()


async def test_f097_streams_finish_and_new_requests_are_served_for_a_grace(tmp_path: Path) -> None:
    """SIGTERM with 200 streams: half end in time, half are told; readiness fails at once; the books are whole."""
    data = tmp_path / "data"
    config = config_file(tmp_path, "routes: {}")
    given = ("--config", config, "--demo", "--drain", "3s", "--grace", "1s")
    with serving(*given, environ={"PENSTOCK_DATA": str(data)}) as (process, port, _):
        short = [await Connection.open(port) for _ in range(STREAMS // 2)]
        long = [await Connection.open(port) for _ in range(STREAMS // 2)]
        for client in short:
            client.post(CHAT, streamed("demo/paced:15:100ms"))
        for client in long:
            client.post(CHAT, streamed("demo/paced:2000:100ms"))
        for client in (*short, *long):
            await client.until(b'"content":"')
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ready = await _unready(port)
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        late = await Connection.open(port)
        late.post(CHAT, orjson.dumps({"model": "demo", "messages": []}))
        answer = await late.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert time.monotonic() - began < 1
        await _until_refused(port, until=began + 2.5)
        assert time.monotonic() - began >= 0.9
        for client in short:
            answer = await client.answer()
            assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
        for client in long:
            answer = await client.answer()
            assert (answer.end, answer.last_error["code"]) == ("eof", "shutting_down")
        assert await asyncio.to_thread(process.wait, 10) == 0
        for client in (*short, *long, late):
            await client.close()
    rows = await rows_of(data)
    assert len(rows) == STREAMS + 1
    assert sum(row.code == "shutting_down" for row in rows) == STREAMS // 2


async def _unready(port: int) -> Answer:
    """A signal is not there as soon as it is sent."""
    async with asyncio.timeout(1):
        while (answer := await get(port, "/readyz")).status == 200:
            await asyncio.sleep(0.005)
    return answer


async def _until_refused(port: int, until: float) -> None:
    while time.monotonic() < until:
        try:
            connection = await Connection.open(port)
        except ConnectionError:
            return
        await connection.close()
        await asyncio.sleep(0.02)
    pytest.fail("it still listens")


async def test_f097_a_second_signal_ends_the_grace(tmp_path: Path) -> None:
    given = ("--config", config_file(tmp_path, "routes: {}"), "--demo", "--grace", "30s")
    with serving(*given) as (process, port, _):
        process.send_signal(signal.SIGTERM)
        await _unready(port)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 5) == 0


async def test_f097_a_connection_that_asks_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    given = ("--config", config_file(tmp_path, "routes: {}"), "--demo", "--grace", "100ms")
    with serving(*given) as (process, port, _):
        idle = await Connection.open(port)
        idle.writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await idle.answer()).headers.get("connection") != "close"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await idle.reader.read() == b""
        try:
            assert await asyncio.to_thread(process.wait, 5) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it waits for a connection that asks nothing")
        assert time.monotonic() - began < 3
        await idle.close()
