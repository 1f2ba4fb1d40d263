"""F102, F103: the end of descriptors and of memory. New work waits or is refused; what runs goes on; it passes by itself."""

import asyncio
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import psutil
import pytest

from proxy.edge.intake import Intake
from proxy.server.pressure import Pressure, memory_limit, soft_limit
from proxy.server.sockets import CONNECTIONS_MIN, connections_max
from tests.gateway import CHAT, Connection, Gateway, RecordingLog, get, send
from tests.server.process import config_file, serving

CLIENTS = 400
LIMIT = 512


def asked(model: str, *, stream: bool = True) -> bytes:
    return orjson.dumps({"model": model, "stream": stream, "messages": []})


async def test_f102_descriptors_run_out_and_everybody_is_served_in_turn(tmp_path: Path, upstream_url: str) -> None:
    """RLIMIT_NOFILE 512 and 400 clients, each with two connections: none is cut, the rest waits, no loop turns in vain."""
    config = config_file(
        tmp_path, f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}\nroutes: {{a: {{tiers: [sim/a]}}}}'
    )
    limited = [sys.executable, "-c", _LIMITED, "-m", "proxy.cli.main"]
    environ = {"PENSTOCK_DATA": str(tmp_path / "data")}
    with serving("--config", config, environ=environ, program=limited) as (process, port, _):
        assert psutil.Process(process.pid).rlimit(resource.RLIMIT_NOFILE) == (LIMIT, LIMIT)
        clients = await asyncio.gather(*(Connection.open(port) for _ in range(CLIENTS)))
        for client in clients:
            client.post(CHAT, asked("sim/paced:4:500ms"))
        await asyncio.sleep(0.7)  # the first are being answered, the others wait
        before, began = _cpu_s(process), time.monotonic()
        await asyncio.sleep(0.8)
        used = (_cpu_s(process) - before) / (time.monotonic() - began)
        answers = await asyncio.gather(*(client.answer() for client in clients))
        ends = Counter((answer.status, answer.end) for answer in answers)
        assert ends == {(200, "whole"): CLIENTS}, ends
        assert used < 0.5, f"{used:.0%} of a core while nothing but waiting was to be done"
        assert (await send(port, CHAT, asked("sim/plain"))).status == 200
        for client in clients:
            await client.close()


_LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _cpu_s(process: "subprocess.Popen[str]") -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


async def test_f102_idle_connections_make_room(gateway: Gateway) -> None:
    """A full house of connections that ask nothing keeps nobody waiting for longer than half a second."""
    assert gateway.service._front is not None
    acceptor = gateway.service._front.acceptor
    acceptor._room._max = 4
    idle = [await Connection.open(gateway.port) for _ in range(4)]
    for client in idle:
        client.post(CHAT, asked("sim/plain", stream=False))
        answer = await client.answer()
        assert (answer.status, answer.headers.get("connection")) == (200, None)
    await asyncio.sleep(0.4)
    assert not gateway.service.intake.crowded  # nobody waits
    began = time.monotonic()
    answer = await send(gateway.port, CHAT, asked("sim/plain", stream=False))
    assert time.monotonic() - began < 5
    assert answer.status == 200
    for client in idle:
        assert await client.reader.read() == b""
        await client.close()
    assert not gateway.service.intake.crowded
    assert [one["message"] for one in gateway.log.events].count("full: new connections wait") == 1


async def test_f103_memory_runs_out(tmp_path: Path) -> None:
    """Above the limit: new requests 503 with a time to wait, not ready; what runs ends well; alone, one is served."""
    given = ("--config", config_file(tmp_path, "routes: {}"), "--demo")
    environ = {"PENSTOCK_MEMORY_BYTES": str(20 * 1024 * 1024), "PENSTOCK_DATA": str(tmp_path / "data")}
    with serving(*given, environ=environ) as (_, port, _printed):
        client = await Connection.open(port)
        client.post(CHAT, asked("demo/paced:10:50ms"))
        await client.until(b'"content":"')
        refused = await send(port, CHAT, asked("demo"))
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "overloaded", "2")
        assert refused.headers["x-should-retry"] == "true"
        assert "MiB" in refused.error["message"]
        assert (await get(port, "/readyz")).json() == {"status": "overloaded"}
        answer = await client.answer()
        assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
        assert (await send(port, CHAT, asked("demo", stream=False))).status == 200
        await client.close()


async def test_too_many_exchanges_are_refused(gateway: Gateway) -> None:
    gateway.service.intake.exchanges_max = 2
    running = [await Connection.open(gateway.port) for _ in range(2)]
    for client in running:
        client.post(CHAT, asked("sim/paced:10:50ms"))
        await client.until(b'"content":"')
    refused = await send(gateway.port, CHAT, asked("sim/plain"))
    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    for client in running:
        assert (await client.answer()).end == "whole"
        await client.close()
    assert (await send(gateway.port, CHAT, asked("sim/plain"))).status == 200


def pressure(memory_max: int | None) -> tuple[Intake, RecordingLog, Pressure]:
    intake, log = Intake(), RecordingLog()
    return intake, log, Pressure(intake, log, time.monotonic, memory_max)


async def test_f103_what_passes_is_told_once_each_way() -> None:
    intake, log, looks = pressure(1)
    for _ in range(3):
        looks.look()
    assert intake.refusal(running=5) is not None
    assert intake.refusal(running=0) is None
    looks._memory_max = 1 << 50
    for _ in range(3):
        looks.look()
    assert intake.refusal(running=5) is None
    assert [one["message"] for one in log.events] == ["overloaded: new requests are refused", "no longer overloaded"]
    await looks.close()


async def test_what_is_barely_below_the_limit_is_still_too_much() -> None:
    intake, _, looks = pressure(1)
    looks.look()
    used = looks.memory
    assert used is not None
    looks._memory_max = int(used * 1.02)
    looks.look()
    assert intake.overload is not None
    await looks.close()


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"sys/fs/cgroup/memory.max": "1000\n"}, 1000),
        (
            {
                "proc/self/cgroup": "0::/pods/one\n",
                "sys/fs/cgroup/pods/memory.max": "500",
                "sys/fs/cgroup/pods/one/memory.max": "900",
            },
            500,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/docker/x\n1:name=systemd:/\n",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "700",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            700,
        ),
    ],
)
def test_the_limit_of_the_cgroup(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory_limit(tmp_path) == limit
    assert soft_limit(None, 2, tmp_path) == (None if limit is None else int(limit * 0.9) // 2)
    assert soft_limit(12345, 2, tmp_path) == 12345


def test_how_many_connections_there_may_be() -> None:
    assert connections_max(LIMIT) == 224
    assert connections_max(LIMIT, demo=True) == 149
    assert connections_max(10) == CONNECTIONS_MIN
