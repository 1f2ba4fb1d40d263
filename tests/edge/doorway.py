"""The admin API alone, on a real socket, with a table of the test's own; and a client that sends any request to one."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from proxy.config.resolve import parse
from proxy.core.key_record import KeyRecord
from proxy.core.principal import Principal
from proxy.core.virtual_key import SecretHash
from proxy.edge.admin.endpoint import Ask, Endpoint
from proxy.edge.admin.shell import Admin, AdminKey
from proxy.edge.protocol import HttpServer
from proxy.phases.breakers import Breakers
from proxy.phases.key_ring import KeyProblem, Refusal
from proxy.phases.runtime import Runtime
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import Role, VirtualKeyId
from proxy.upstream.client import UpstreamClient
from tests.audit import MemoryAudit
from tests.books import RecordingBooks, budgets, limiter
from tests.doors import open_to_all
from tests.gateway import Answer, Connection, RecordingLog

KEY = "hush-Zq8vT1nB6yKd4wXs9LpRf2JmGc7h"
OTHER = "other-Zq8vT1nB6yKd4wXs9LpRf2JmGc"


class Handlers:
    """What handlers were called with."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    async def take(self, ask: Ask) -> Mapping[str, object]:
        self.asked.append(ask)
        return {"steps": dict(ask.steps), "query": dict(ask.query), "body": dict(ask.body)}

    async def fail(self, ask: Ask) -> Mapping[str, object]:
        self.asked.append(ask)
        raise RuntimeError("a bug in the cellar")

    def table(self) -> tuple[Endpoint, ...]:
        known = frozenset({"label", "limit"})
        return (
            Endpoint("GET", "/admin/things", Role.VIEWER, self.take, query=frozenset({"days", "by"})),
            Endpoint("POST", "/admin/things", Role.ADMIN, self.take, members=known),
            Endpoint("GET", "/admin/things/last", Role.VIEWER, self.take),
            Endpoint("DELETE", "/admin/things/{id}", Role.ADMIN, self.take),
            Endpoint("POST", "/admin/broken", Role.ADMIN, self.fail),
        )


@dataclass(slots=True)
class Door:
    port: int
    log: RecordingLog
    handlers: Handlers
    audit: MemoryAudit
    admin: Admin
    refused: list[str] = field(default_factory=list)


@asynccontextmanager
async def open_door(
    admin_key: str | None = KEY,
    names: Sequence[str] = (),
    *,
    role: Role = Role.ADMIN,
    table: Callable[[Handlers], Sequence[Endpoint]] = Handlers.table,
    others: Mapping[str, Principal] | None = None,
) -> AsyncIterator[Door]:
    """``role``: what the holder of the key may do. ``table``: the endpoints, of what handles them. ``others``: more keys."""
    log, upstream, handlers = RecordingLog(), UpstreamClient(), Handlers()
    routing = parse("routes: {}", "routes.yaml", {})
    breakers = Breakers(MemoryBreakers(time.monotonic), log, time.time)
    ledger = SqliteLedger(Path("never opened"))
    books = RecordingBooks()
    cache = MemoryCache(time.monotonic)
    world = (routing, upstream, log, time.monotonic, time.time, breakers, budgets(log), books, ledger, cache)
    runtime = Runtime(*world, limiter(log), open_to_all(log))

    audit = MemoryAudit()
    keeper = None if admin_key is None else AdminKey(admin_key)
    known = dict(others or {})

    def role_of(presented: str) -> Role | None:
        return None if keeper is None or keeper.role_of(presented) is None else role

    def key_of(presented: str) -> KeyRecord | Refusal:
        found = known.get(presented)
        if found is None:
            return Refusal(KeyProblem.UNKNOWN)
        key_id = found.virtual_key or VirtualKeyId("k")
        return KeyRecord(key_id, SecretHash("", b""), "", "", 0, "", account=found.account, role=found.role)

    admin = Admin(None if keeper is None else role_of, audit, time.time, names, table(handlers), key_of=key_of)
    door = Door(0, log, handlers, audit, admin)
    server = HttpServer(
        lambda request: admin.handle(request, runtime),
        door.refused.append,
        lambda _, error: log.bugs.append(error),
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    door.port = int(runner.addresses[0][1])
    try:
        yield door
    finally:
        await runner.cleanup()
        await admin.close()
        await upstream.close()


def request(
    method: str, path: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = (), body: bytes | None = None
) -> bytes:
    """The bytes of one request. Host is this machine's unless ``headers`` say otherwise."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    given = {name.lower() for name, _ in pairs}
    if "host" not in given:
        pairs.insert(0, ("host", "127.0.0.1"))
    if body is not None:
        pairs += [("content-length", str(len(body)))]
        pairs += [] if "content-type" in given else [("content-type", "application/json")]
    lines = b"".join(f"{name}: {value}\r\n".encode("utf-8", "surrogateescape") for name, value in pairs)
    return f"{method} {path} HTTP/1.1\r\n".encode() + lines + b"\r\n" + (body or b"")


async def ask(
    port: int,
    path: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    method: str = "GET",
    body: bytes | None = None,
    endless: bool = False,
) -> Answer:
    """``endless``: it will not end, and its head is all that is asked for."""
    connection = await Connection.open(port)
    connection.writer.write(request(method, path, headers, body))
    try:
        if endless:
            await connection.until(b"\r\n\r\n")
            return await connection.answer(within_s=0)
        return await connection.answer()
    finally:
        await connection.close()
