"""F099, F100: worker processes behind one port, as a load balancer and a killer see them. Everything is a real process."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from proxy.server.workers import pause_s, told
from tests.edge.doorway import ask
from tests.gateway import CHAT, Connection, send
from tests.server.process import ADMIN_KEY, ENVIRONMENT, PENSTOCK, config_file
from tests.valkey import Valkey

START_S = 60.0
BODY = orjson.dumps({"model": "voice", "messages": []})


class Workers:
    """A supervisor with its workers, and what they print."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.config = folder / "routes.yaml"
        self.config.write_text(_routes("first"))
        self._output = folder / "output"
        self._read = 0
        self.rolls = 0
        given = {**ENVIRONMENT, "PENSTOCK_DATA": str(folder / "data"), **(environ or {})}
        command = [*PENSTOCK, "serve", "--port", "0", "--config", str(self.config), "--demo", "--drain", "5s"]
        with self._output.open("wb") as sink:
            self.process = subprocess.Popen([*command, *arguments], stdout=sink, stderr=subprocess.STDOUT, env=given)

    def started(self) -> "Workers":
        until = time.monotonic() + START_S
        while "all are ready" not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < until, self.printed
            time.sleep(0.02)
        return self

    @property
    def printed(self) -> str:
        """Since the last `begin`."""
        return self._output.read_text()[self._read :]

    @property
    def port(self) -> int:
        found = re.search(r"serves on http://127\.0\.0\.1:(\d+)/v1\n", self._output.read_text())
        assert found is not None
        return int(found.group(1))

    @property
    def metrics_port(self) -> int:
        found = re.search(r'/metrics has a port of its own".*"port":(\d+)', self._output.read_text())
        assert found is not None
        return int(found.group(1))

    def begin(self) -> None:
        self._read = len(self._output.read_text())

    async def until(self, text: str, *, times: int = 1, within_s: float = START_S) -> None:
        async with asyncio.timeout(within_s):
            while self.printed.count(text) < times:
                assert self.process.poll() is None, self.printed
                await asyncio.sleep(0.02)

    @property
    def pids(self) -> set[int]:
        return {one.pid for one in psutil.Process(self.process.pid).children()}

    async def serve(self, model: str) -> None:
        """Let all workers serve a model."""
        self.begin()
        self.config.write_text(_routes(model))
        self.process.send_signal(signal.SIGHUP)
        await self.until('"configuration: reloaded"', times=2)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 20)

    def kill(self) -> None:
        if self.process.poll() is None:
            for pid in (self.process.pid, *self.pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def _two(tmp_path_factory: pytest.TempPathFactory, _shared_valkey: Valkey) -> Iterator[Workers]:
    environ = {"REDIS_URL": _shared_valkey.url, "PENSTOCK_WORKERS": "2"}
    arguments = ("--grace", "500ms", "--metrics-port", "0")
    running = Workers(tmp_path_factory.mktemp("workers"), *arguments, environ=environ)
    yield running.started()
    running.kill()


@pytest.fixture
async def workers(_two: Workers) -> Workers:
    """Two, ready; every test leaves them so."""
    async with asyncio.timeout(START_S):
        while len(_two.pids) != 2:
            await asyncio.sleep(0.05)
    _two.begin()
    return _two


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Workers]:
    """One, that a test may do anything to."""
    running = Workers(tmp_path, "--workers", "1", "--grace", "0s")
    yield running.started()
    running.kill()


def _routes(model: str) -> str:
    return f"routes: {{voice: {{tiers: [openai/{model}]}}}}\n"


class Load:
    """Clients with connections that they keep, at a steady rate; every way to fail is counted by its name."""

    def __init__(self, port: int, rate: float, clients: int = 20) -> None:
        self._port = port
        self._pause_s = clients / rate
        self._clients = clients
        self._going = True
        self.seen: Counter[str] = Counter()
        self.models: Counter[str] = Counter()

    async def during(self, work: Awaitable[None]) -> None:
        tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        try:
            await work
        finally:
            self._going = False
            await asyncio.gather(*tasks)

    async def _client(self, number: int) -> None:
        await asyncio.sleep(self._pause_s * number / self._clients)
        connection: Connection | None = None
        while self._going:
            try:
                if connection is None:
                    connection = await Connection.open(self._port)
                connection.post(CHAT, BODY)
                answer = await connection.answer()
            except ConnectionError as error:
                self.seen[type(error).__name__] += 1
                connection = None
                continue
            self.seen[str(answer.status) if answer.end == "whole" else answer.end] += 1
            self.models[answer.headers.get("x-penstock-model", "")] += 1
            if answer.end != "whole" or answer.headers.get("connection") == "close":
                await connection.close()
                connection = None
            await asyncio.sleep(self._pause_s)
        if connection is not None:
            await connection.close()


async def _rolled(workers: Workers) -> None:
    before = workers.pids
    workers.begin()
    workers.process.send_signal(signal.SIGUSR2)
    await workers.until("the new ones serve")
    async with asyncio.timeout(START_S):
        while len(after := workers.pids) != 2 or after & before:
            await asyncio.sleep(0.02)


async def test_f099_a_rolling_restart_is_noticed_by_nobody(workers: Workers) -> None:
    load = Load(workers.port, rate=200)
    await load.during(_rolled(workers))
    assert set(load.seen) == {"200"}, load.seen
    assert load.seen["200"] > 100


@pytest.mark.soak
async def test_f099_rolling_restarts_under_20000_requests(workers: Workers) -> None:
    load = Load(workers.port, rate=200)

    async def enough() -> None:
        while load.seen.total() < 20_000:
            await _rolled(workers)

    await load.during(enough())
    assert set(load.seen) == {"200"}, load.seen


async def test_f100_a_killed_worker_is_replaced_and_the_others_go_on(workers: Workers) -> None:
    """Within 2 s, as far as this machine starts a process in 2 s: told by the log, and then by what is ready."""
    victim = min(workers.pids)
    streams = [await Connection.open(workers.port) for _ in range(8)]
    for client in streams:
        body = orjson.dumps({"model": "demo/paced:20:50ms", "stream": True, "messages": []})
        client.post(CHAT, body)
        await client.until(b'"content":"')
    held = [one for one in psutil.Process(victim).net_connections() if _port(one.laddr) == workers.port]
    mine = {_port(one.raddr) for one in held}
    own = [client.writer.get_extra_info("sockname")[1] in mine for client in streams]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await workers.until("another is started", within_s=2)
    assert "signal SIGKILL" in workers.printed
    for client, lost in zip(streams, own, strict=True):
        answer = await client.answer()
        assert answer.end == ("whole" if not lost else answer.end)
        await client.close()
    async with asyncio.timeout(START_S):
        while len(await _answering(workers)) < 2:
            await asyncio.sleep(0.05)
    assert victim not in await _answering(workers)
    assert time.monotonic() - began < START_S
    assert (await send(workers.port, CHAT, BODY)).status == 200


def _port(address: Any) -> int:
    """psutil's, which is empty where there is none."""
    return int(address.port) if address else 0


async def _answering(workers: Workers) -> set[int]:
    """The workers that accept now, as far as some tries find them."""
    found: set[int] = set()
    for _ in range(12):
        connection = await Connection.open(workers.port)
        connection.writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await connection.answer()).status == 200
        port = connection.writer.get_extra_info("sockname")[1]
        for pid in workers.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(_port(one.raddr) == port for one in psutil.Process(pid).net_connections()):
                    found.add(pid)
        await connection.close()
    return found


async def test_a_reload_that_one_is_asked_for_is_every_workers(workers: Workers) -> None:
    await workers.serve("second")
    workers.begin()
    workers.config.write_text(_routes("third"))
    answer = await ask(workers.port, "/admin/config/reload", {"x-api-key": ADMIN_KEY}, method="POST")
    change = "route voice: served by openai/third, demo/third, was openai/second, demo/second"
    assert answer.json()["changes"] == [change]
    await workers.until('"configuration: reloaded"', times=2, within_s=5)
    models = {(await send(workers.port, CHAT, BODY)).headers["x-penstock-model"] for _ in range(10)}
    assert models == {"third"}


async def _counted(port: int, headers: dict[str, str]) -> float:
    """Requests of `voice`, by all workers."""
    page = (await ask(port, "/metrics", headers)).body.decode()
    found = re.findall(r'^penstock_requests_total\{.*route="voice".*\} (\S+)$', page, re.MULTILINE)
    return sum(map(float, found))


async def test_one_port_tells_of_all_workers_and_of_those_before_them(workers: Workers) -> None:
    """Served by the supervisor: the port is none of a worker's."""
    key = {"x-api-key": ADMIN_KEY}
    listening = [one.laddr for one in psutil.Process(workers.process.pid).net_connections() if one.status == "LISTEN"]
    assert workers.metrics_port in map(_port, listening)
    before = await _counted(workers.metrics_port, {})
    for _ in range(20):
        assert (await send(workers.port, CHAT, BODY)).status == 200
    assert await _counted(workers.metrics_port, {}) == before + 20
    await _rolled(workers)
    assert (await send(workers.port, CHAT, BODY)).status == 200
    assert await _counted(workers.metrics_port, {}) == before + 21
    assert await _counted(workers.port, key) == before + 21


async def test_f105_a_new_generation_that_cannot_start_leaves_the_old_one(workers: Workers) -> None:
    before = workers.pids
    workers.config.write_text("routes: {voice: {tiers: [opnai/x]}}")
    workers.process.send_signal(signal.SIGHUP)
    await workers.until("NOT reloaded", times=2)
    workers.process.send_signal(signal.SIGUSR2)
    await workers.until("rolling restart given up")
    assert workers.pids == before
    assert (await send(workers.port, CHAT, BODY)).status == 200
    await workers.serve("first")


async def test_f097_all_drain_with_their_supervisor_whoever_is_told(one: Workers) -> None:
    """A service manager tells every process of the group, and a terminal too: twice is not at once then."""
    client = await Connection.open(one.port)
    client.post(CHAT, orjson.dumps({"model": "demo/paced:20:50ms", "stream": True, "messages": []}))
    await client.until(b'"content":"')
    for pid in (one.process.pid, *one.pids):
        os.kill(pid, signal.SIGTERM)
    answer = await client.answer()
    assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
    assert await one.ended() == 0
    await client.close()


async def test_workers_end_with_a_supervisor_that_is_killed(one: Workers) -> None:
    (pid,) = one.pids
    one.process.kill()
    one.process.wait()
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.02)


def _refused(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PENSTOCK, "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **(environ or {})},
        check=False,
        timeout=30,
    )


def test_more_than_one_needs_redis_and_says_so() -> None:
    ran = _refused("--workers", "2")
    assert ran.returncode == 1
    assert "2 workers need REDIS_URL" in ran.stderr


def test_what_a_worker_cannot_start_with_ends_the_supervisor_too(tmp_path: Path) -> None:
    config = config_file(tmp_path, "routes: {a: {tiers: [opnai/m]}}")
    ran = _refused("--workers", "1", "--config", config, environ={"PENSTOCK_DATA": str(tmp_path / "data")})
    assert ran.returncode == 1
    assert "Did you mean 'openai'?" in ran.stderr


def test_one_that_dies_at_once_again_and_again_is_waited_for() -> None:
    assert [pause_s(deaths) for deaths in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30]
    assert pause_s(10_000) == 30
    assert (told(3), told(-9), told(-99)) == ("exit code 3", "signal SIGKILL", "signal 99")
