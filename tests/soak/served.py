"""Penstock's workers and the simulator that is their provider, each in processes of their own, and what they weigh."""

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.edge.doorway import ask
from tests.gateway import CHAT, send
from tests.server.process import ADMIN_KEY, ENVIRONMENT, PENSTOCK

START_S: Final = 60.0
STOP_S: Final = 30.0
WARM_ANSWERS: Final = 16  # in a row
LEFT_S: Final = 60.0  # in which what runs is over and its leases are given back


@dataclass(frozen=True, slots=True)
class Weight:
    """Units: bytes, of memory that is resident; ``descriptors`` are those that are open."""

    rss: int
    descriptors: int


@dataclass(slots=True)
class Served:
    """A supervisor with its workers. ``data``: theirs; its `log` is what they told."""

    process: subprocess.Popen[bytes]
    port: int
    config: Path
    data: Path
    simulator_port: int

    @property
    def workers(self) -> list[psutil.Process]:
        return sorted(psutil.Process(self.process.pid).children(), key=lambda one: one.pid)

    @property
    def printed(self) -> str:
        return (self.data.parent / "output").read_text() + (self.data.parent / "log").read_text()

    def weights(self) -> dict[int, Weight]:
        return {one.pid: Weight(one.memory_info().rss, one.num_fds()) for one in self.workers}

    def cpu_s(self) -> float:
        """User and system time of the workers so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.workers)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    async def admin(self, path: str, method: str = "GET", body: Mapping[str, object] | None = None) -> Any:
        given = None if body is None else json.dumps(body).encode()
        answer = await ask(self.port, path, {"x-api-key": ADMIN_KEY}, method=method, body=given)
        assert answer.status in (200, 201), (path, answer.status, answer.body[:400])
        return answer.json()

    async def warmed_up(self, model: str, headers: Mapping[str, str] | None = None) -> int:
        """Every worker has most likely answered, and heard of its budgets: until then it may refuse what it cannot hold.

        How many requests that took.
        """
        body, until, well = json.dumps({"model": model, "messages": []}).encode(), time.monotonic() + START_S, 0
        for number in itertools.count(1):
            answer = await send(self.port, CHAT, body, headers)
            well = well + 1 if answer.status == 200 else 0
            if well == WARM_ANSWERS:
                return number
            assert time.monotonic() < until, answer
        raise AssertionError

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(STOP_S)


@contextmanager
def served(
    folder: Path, config: str, redis_url: str, *, workers: int = 2, environ: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """``config`` may name the simulator's port as ``{simulator}``. All of it is gone afterwards, however it ended."""
    raise_descriptors()
    simulator = _started([*PENSTOCK, "simulate", "--port", "0"], folder / "simulator", {"PATH": os.environ["PATH"]})
    running: list[subprocess.Popen[bytes]] = [simulator]
    try:
        simulator_port = int(_found(r"http://127\.0\.0\.1:(\d+)/v1\n", simulator, folder / "simulator"))
        routes = folder / "routes.yaml"
        routes.write_text(config.replace("{simulator}", str(simulator_port)))
        given = {"PENSTOCK_DATA": str(folder / "data"), "PENSTOCK_LOG": str(folder / "log"), "REDIS_URL": redis_url}
        command = ["serve", "--port", "0", "--config", str(routes), "--workers", str(workers), "--grace", "0s"]
        process = _started([*PENSTOCK, *command], folder / "output", {**ENVIRONMENT, **given, **(environ or {})})
        running.append(process)
        (folder / "data").mkdir(exist_ok=True)
        port = int(_found(r"serves on http://127\.0\.0\.1:(\d+)/v1\n(?s:.*)all are ready", process, folder / "output"))
        yield Served(process, port, routes, folder / "data", simulator_port)
    finally:
        for one in reversed(running):
            _killed(one)


def raise_descriptors() -> None:
    """For this process and all that it starts, which have its limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _started(command: Sequence[str], output: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with output.open("wb") as sink:
        return subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=dict(environ))


def _found(pattern: str, process: subprocess.Popen[bytes], output: Path) -> str:
    until = time.monotonic() + START_S
    while (found := re.search(pattern, output.read_text())) is None:
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < until, output.read_text()
        time.sleep(0.05)
    return found.group(1)


def _killed(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        for one in family:
            one.kill()
        psutil.wait_procs(family, timeout=STOP_S)
    process.wait()
