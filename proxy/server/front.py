"""An HTTP server on a socket that listens: with Penstock's bounds on what clients send, and an acceptor of its own."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.config.address import is_loopback
from proxy.edge.connections import Connections
from proxy.edge.intake import Intake
from proxy.edge.metrics_page import MetricsPage
from proxy.edge.protocol import HttpServer
from proxy.ports import ExchangeLog
from proxy.server.sockets import Acceptor, Room, client_caps

KEEPALIVE_S: Final = 75.0  # longer than the 60 s of common load balancers, so that they close first
LINE_BYTES_MAX: Final = 4 * 1024
FIELD_BYTES_MAX: Final = 16 * 1024
FIELDS_MAX: Final = 64
READ_BYTES: Final = 64 * 1024
CLEANUP_S: Final = 0.5  # for connections that the drain has left; their exchanges are over
OPERATORS_MAX: Final = 64  # connections of a port that is not for clients

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Front:
    """Accepts nothing before `acceptor` is started. `close` comes last."""

    acceptor: Acceptor
    port: int
    _runner: web.ServerRunner

    async def close(self) -> None:
        """Accept no more, and close what is still open."""
        self.acceptor.close()
        await self._runner.cleanup()


async def open_front(
    handle: Handle, listens: socket.socket, room: Room, connections: Connections, log: ExchangeLog
) -> Front:
    """Answer what comes to a socket by ``handle``."""
    server = HttpServer(
        handle,
        lambda reason: log.event("refused what is not HTTP", reason=reason),
        log.bug,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_S,
        access_log=None,
        auto_decompress=False,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=FIELD_BYTES_MAX,
        max_headers=FIELDS_MAX,
        read_bufsize=READ_BYTES,
        lingering_time=2.0,
        connections=connections,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=CLEANUP_S)
    await runner.setup()
    return Front(Acceptor(listens, server, log, room), listens.getsockname()[1], runner)


async def open_metrics(page: MetricsPage, listens: socket.socket, log: ExchangeLog) -> Front:
    """A port that serves `/metrics` and nothing else, without a key."""
    host, port = listens.getsockname()[:2]
    front = await open_front(
        lambda request: page.handle(request, own_names_only=is_loopback(host)),
        listens,
        Room(OPERATORS_MAX, Intake(), log),
        Connections(client_caps(OPERATORS_MAX)),
        log,
    )
    log.event("/metrics has a port of its own", host=host, port=port)
    return front
