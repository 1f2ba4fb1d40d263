"""Two instances, each a process with a data folder of its own, on one Redis and one database, behind a balancer."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.edge.doorway import request
from tests.gateway import CHAT, Answer, Connection
from tests.instances.balancer import Backend, Balancer
from tests.server.process import ADMIN_KEY, ENVIRONMENT, PENSTOCK

START_S = 30.0
ANSWER_S = 60.0  # of a crowd, on a busy machine
WITHIN_S = 1.0  # in which one instance knows what was done at the other
BOOKED_S = 10.0


@dataclass(slots=True)
class Instance:
    """``lease_s`` None: `penstock serve` as it is, else with leases as short as this and a store that is waited for."""

    config: Path
    folder: Path
    environ: Mapping[str, str]
    lease_s: float | None = None
    port: int = 0
    _process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """On a port of its own, another one each time; on the folder that it had."""
        self.folder.mkdir(exist_ok=True)
        printed = self.folder / "printed"
        patient = [sys.executable, "-m", "tests.instances.process", str(self.lease_s)]
        with printed.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(PENSTOCK if self.lease_s is None else patient),
                *("serve", "--port", "0", "--config", str(self.config), "--drain", "20s"),
                stdout=sink,
                stderr=asyncio.subprocess.STDOUT,
                env={**ENVIRONMENT, "PENSTOCK_DATA": str(self.folder / "data"), **self.environ},
            )
        deadline = time.monotonic() + START_S
        while (found := re.search(r"serves on http://127\.0\.0\.1:(\d+)/v1", printed.read_text())) is None:
            assert self._process.returncode is None, printed.read_text()
            assert time.monotonic() < deadline, f"it did not start: {printed.read_text()}"
            await asyncio.sleep(0.02)
        self.port = int(found.group(1))

    async def kill(self) -> None:
        """At once, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def terminate(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(START_S):
            return await self._process.wait()

    # What is asked of it.

    async def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        connection = await Connection.open(self.port)
        given = None if body is None else orjson.dumps(body)
        connection.writer.write(request(method, path, {"authorization": f"Bearer {ADMIN_KEY}"}, given))
        answer = await connection.answer(within_s=ANSWER_S)
        await connection.close()
        assert answer.status == 200, answer.raw
        return answer.json()

    async def new_key(self, **fields: object) -> tuple[str, str]:
        """The key and its id. It is good here."""
        made = await self.admin("POST", "/admin/keys", {"name": "a test's", **fields})
        return made["secret"], made["key"]["id"]

    async def knows(self, key: str) -> bool:
        """Whether the key is let in. Nothing is booked."""
        connection = await Connection.open(self.port)
        connection.writer.write(request("GET", "/v1/models", {"authorization": f"Bearer {key}"}))
        answer = await connection.answer()
        await connection.close()
        return answer.status == 200

    async def rows(self, query: str, count: int, within_s: float = BOOKED_S) -> list[dict[str, Any]]:
        """The ledger's rows that are selected, once there are `count`; fails if there are more."""
        async with asyncio.timeout(within_s):
            while len(found := (await self.admin("GET", f"/admin/ledger?limit=1000&{query}"))["rows"]) < count:
                await asyncio.sleep(0.05)
        assert len(found) == count
        return list(found)

    async def breaker(self, target: str) -> str:
        found = (await self.admin("GET", "/admin/breakers"))["breakers"]
        return next((one["state"] for one in found if one["target"] == target), "closed")

    async def books(self, account: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.admin("GET", f"/admin/budgets?account={account}"))["budgets"]
        return found

    async def ask(self, key: str, body: bytes, **headers: str) -> Answer:
        return await ask(self.port, key, body, **headers)


@dataclass(slots=True)
class Pair:
    """``port``: the balancer's."""

    one: Instance
    other: Instance
    balancer: Balancer = field(init=False)

    def __post_init__(self) -> None:
        self.balancer = Balancer([Backend(0, is_up=False), Backend(0, is_up=False)])

    @property
    def port(self) -> int:
        return self.balancer.port

    @property
    def both(self) -> tuple[Instance, Instance]:
        return self.one, self.other

    async def new_key(self, **fields: object) -> tuple[str, str]:
        """A key that is good at both, and its id."""
        key, key_id = await self.one.new_key(**fields)
        await until(lambda: self.other.knows(key), WITHIN_S)
        return key, key_id

    def crowd(self, key: str, count: int, body: bytes) -> list["asyncio.Task[Answer]"]:
        """So many requests at once, each by a connection of its own."""
        return [asyncio.create_task(ask(self.port, key, body)) for _ in range(count)]


@asynccontextmanager
async def serving(
    folder: Path, config: str, environ: Mapping[str, str], lease_s: float | None = None
) -> AsyncIterator[Pair]:
    folder.mkdir(exist_ok=True)
    routes = folder / "routes.yaml"
    routes.write_text(config)
    pair = Pair(*(Instance(routes, folder / name, environ, lease_s) for name in ("one", "other")))
    async with AsyncExitStack() as stack:
        for instance in pair.both:
            stack.push_async_callback(instance.kill)
        await asyncio.gather(*(instance.start() for instance in pair.both))
        await pair.balancer.start()
        stack.push_async_callback(pair.balancer.stop)
        for backend, instance in zip(pair.balancer.backends, pair.both, strict=True):
            backend.port, backend.is_up = instance.port, True
        yield pair


def chat(model: str, *, stream: bool = False, **more: Any) -> bytes:
    question = [{"role": "user", "content": "How high is the water, mama?"}]
    return orjson.dumps({"model": model, "stream": stream, "messages": question, "max_tokens": 100, **more})


async def connected(port: int, key: str, body: bytes, **headers: str) -> Connection:
    connection = await Connection.open(port)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.post(CHAT, body, {"authorization": f"Bearer {key}", **given})
    return connection


async def ask(port: int, key: str, body: bytes, **headers: str) -> Answer:
    connection = await connected(port, key, body, **headers)
    try:
        return await connection.answer(within_s=ANSWER_S)
    finally:
        await connection.close()


async def until(holds: Callable[[], Awaitable[bool]], within_s: float) -> float:
    """Wait until it holds, and say after how long."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.02)
    return time.monotonic() - began
