"""Penstock whole, on a real socket, in the test's own loop; and a client that sees every byte and every way to end."""

import asyncio
import random
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from weakref import WeakSet

import orjson

from proxy.config.resolve import parse
from proxy.core.ledger import LedgerRow
from proxy.core.routing import RoutingTable
from proxy.core.virtual_key import Pepper, Peppers
from proxy.edge.admin.shell import AdminKey
from proxy.phases.runtime import Runtime
from proxy.server.serve import Options, Service
from proxy.server.settings import Settings

CHAT = "/v1/chat/completions"
ANSWER_S = 20.0  # no test waits longer for one answer


class RecordingLog:
    """The log port, kept in memory."""

    def __init__(self) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self.bugs: list[BaseException] = []
        self.events: list[dict[str, object]] = []
        self.hidden: set[str] = set()

    def exchange(self, tell: Callable[[], Mapping[str, object]]) -> None:
        self.exchanges.append(dict(tell()))

    def bug(self, exchange_id: str, error: BaseException) -> None:
        self.bugs.append(error)

    def event(self, message: str, **facts: object) -> None:
        self.events.append({"message": message, **facts})

    def hide(self, secrets: Iterable[str]) -> None:
        self.hidden = {*self.hidden, *secrets}

    def close(self) -> None:
        return


@dataclass(slots=True)
class Gateway:
    service: Service
    log: RecordingLog
    data: Path
    _folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def port(self) -> int:
        return self.service.port

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def runtime(self) -> Runtime:
        assert self.service._surface is not None
        return self.service._surface.runtime

    async def stop(self) -> None:
        await self.service.stop()
        if self._folder is not None:
            self._folder.cleanup()

    async def booked(self, count: int = 1) -> list[LedgerRow]:
        """The ledger's rows, oldest first, once there are `count`; fails if there are more than that."""
        assert self.service._stores is not None
        ledger = self.service._stores.ledger
        async with asyncio.timeout(5):
            while len(rows := await ledger.booked(0, 2 * count + 100)) < count:
                await asyncio.sleep(0.01)
        assert len(rows) == count
        return [one.row for one in rows]

    def forgive(self) -> None:
        """Close every breaker: for a test that lets one target fail again and again."""
        assert self.service._stores is not None
        self.service._stores.breakers.reset(None, time.time())

    async def settled(self, count: int = 1) -> list[dict[str, Any]]:
        """The records of the first `count` exchanges, once they are there; fails if there are more than that."""
        async with asyncio.timeout(5):
            while len(self.log.exchanges) < count:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert len(self.log.exchanges) == count, "an exchange is settled exactly once"
        assert not self.log.bugs
        return self.log.exchanges

    async def ask(self, model: str, *, stream: bool = False, path: str = CHAT, **more: Any) -> "Answer":
        body = orjson.dumps({"model": model, "stream": stream, **_asked(path), **more})
        return await send(self.port, path, body)


def _asked(path: str) -> dict[str, Any]:
    match path.rsplit("/", 1)[-1]:
        case "responses" | "embeddings":
            return {"input": "How high is the water?"}
        case "messages":
            return {"max_tokens": 100, "messages": [{"role": "user", "content": "How high is the water?"}]}
        case "count_tokens":
            return {"messages": [{"role": "user", "content": "How high is the water?"}]}
        case _ if path.endswith("/chat/completions"):
            return {"messages": [{"role": "user", "content": "How high is the water?"}]}
        case _:
            return {"prompt": "How high is the water?"}


async def start_gateway(
    config: str,
    environ: Mapping[str, str] | None = None,
    *,
    demo: bool = False,
    admin_key: str | None = None,
    api_key: str | None = None,
    redis_url: str | None = None,
    database_url: str | None = None,
    otlp_endpoint: str | None = None,
    data: Path | None = None,
    pepper: str | None = None,
    change: Callable[[RoutingTable], RoutingTable] = lambda table: table,
    **options: Any,
) -> Gateway:
    """``options``: more of `Options`. Without ``admin_key`` the admin API is off; without ``data`` nothing is kept;
    without ``pepper`` there are no virtual keys.

    ``change``: of the table, for what a file cannot say.
    """
    log = RecordingLog()
    table = change(parse(config, "routes.yaml", environ or {}))
    asked = Options(Path("routes.yaml"), port=0, demo=demo, drain_s=0.2, **options)
    folder = None if data is not None else tempfile.TemporaryDirectory(prefix="penstock-", ignore_cleanup_errors=True)
    kept = data if folder is None else Path(folder.name)
    assert kept is not None
    settings = Settings(
        data=kept, redis_url=redis_url, database_url=database_url, api_key=api_key, otlp_endpoint=otlp_endpoint
    )
    service = Service(
        asked,
        settings,
        table,
        log,
        admin_key=None if admin_key is None else AdminKey(admin_key),
        peppers=None if pepper is None else Peppers(Pepper.of(pepper)),
    )
    await service.start()
    return Gateway(service, log, kept, folder)


@dataclass(slots=True)
class Answer:
    """``end``: how it ended: `whole` (by its framing), `eof` (before that), `reset`, `open` (nothing more came)."""

    raw: bytes
    end: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json()["error"]
        assert isinstance(error, dict)
        return error

    @property
    def events(self) -> list[bytes]:
        return [part + b"\n\n" for part in self.body.split(b"\n\n") if part]

    @property
    def last_error(self) -> dict[str, Any]:
        """The error of STREAM-ERR: the last event's."""
        error = orjson.loads(self.events[-1].split(b"data: ", 1)[1])["error"]
        assert isinstance(error, dict)
        return error


class Connection:
    """One client connection. Sends what it is told to, byte for byte."""

    _made: ClassVar["WeakSet[Connection]"] = WeakSet()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._buffer = bytearray()
        self._made.add(self)

    @classmethod
    def close_all(cls) -> None:
        """What a test did not close, because it failed in the middle."""
        for connection in tuple(cls._made):
            connection.writer.close()
        cls._made.clear()

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        given = {"host": "penstock", "content-type": "application/json", "content-length": str(len(body))}
        given |= dict(headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.writer.write(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    async def answer(self, *, within_s: float = ANSWER_S) -> Answer:
        """The next answer, to its end or the connection's."""
        deadline = time.monotonic() + within_s
        while (answer := _parsed(bytes(self._buffer)) if _may_be_whole(self._buffer) else None) is None:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    data = await self.reader.read(1 << 20)
            except TimeoutError:
                return _broken(bytes(self._buffer), "open")
            except ConnectionError:
                return _broken(bytes(self._buffer), "reset")
            if not data:
                return _broken(bytes(self._buffer), "eof")
            self._buffer += data
        self._buffer = self._buffer[len(answer.raw) :]
        return answer

    async def until(self, text: bytes) -> bytes:
        """Everything up to and including `text`, left in the buffer."""
        async with asyncio.timeout(ANSWER_S):
            while text not in self._buffer:
                data = await self.reader.read(1 << 16)
                assert data, f"the connection ended before {text!r}: {self._buffer!r}"
                self._buffer += data
        return bytes(self._buffer)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        own: socket.socket = self.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def send(port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    connection = await Connection.open(port)
    connection.post(path, body, headers)
    try:
        return await connection.answer()
    finally:
        await connection.close()


async def get(port: int, path: str, method: str = "GET") -> Answer:
    connection = await Connection.open(port)
    connection.writer.write(f"{method} {path} HTTP/1.1\r\nhost: penstock\r\n\r\n".encode())
    try:
        if method == "HEAD":
            return _broken(await connection.until(b"\r\n\r\n"), "open")
        return await connection.answer()
    finally:
        await connection.close()


def port_of(base_url: str) -> int:
    port = urlsplit(base_url).port
    assert port is not None
    return port


def closed_port() -> int:
    """A port of this machine on which nothing listens: below those that the system gives to others."""
    while True:
        port = random.randrange(19_000, 25_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _head(raw: bytes) -> tuple[int, dict[str, str], bytes] | None:
    head, blank, rest = raw.partition(b"\r\n\r\n")
    if not blank:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), headers, rest


def _may_be_whole(raw: bytearray) -> bool:
    """A cheap look, so that a large answer is not parsed after every read."""
    return len(raw) < 65536 or raw.endswith(b"0\r\n\r\n") or b"chunked" not in raw[:4096]


def _parsed(raw: bytes) -> Answer | None:
    head = _head(raw)
    if head is None:
        return None
    status, headers, rest = head
    if headers.get("transfer-encoding") == "chunked":
        body, used = _unchunked(rest)
        return None if used is None else Answer(raw[: len(raw) - len(rest) + used], "whole", status, headers, body)
    length = int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None
    return Answer(raw[: len(raw) - len(rest) + length], "whole", status, headers, rest[:length])


def _unchunked(rest: bytes) -> tuple[bytes, int | None]:
    """The body as far as it came, and how many bytes it used; None where the last chunk is missing."""
    parts: list[bytes] = []
    position = 0
    while True:
        end = rest.find(b"\r\n", position)
        if end < 0:
            return b"".join(parts), None
        size, start = int(rest[position:end], 16), end + 2
        if size == 0:
            return b"".join(parts), start + 2 if rest[start : start + 2] == b"\r\n" else None
        parts.append(rest[start : start + size])
        position = start + size + 2
        if position > len(rest):
            return b"".join(parts), None


def _broken(raw: bytes, end: str) -> Answer:
    head = _head(raw)
    if head is None:
        return Answer(raw, end)
    status, headers, rest = head
    body = _unchunked(rest)[0] if headers.get("transfer-encoding") == "chunked" else rest
    return Answer(raw, end, status, headers, body)
