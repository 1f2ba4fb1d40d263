"""From the command line to a supervisor with its sockets; what it needs, and what it starts workers with."""

import asyncio
import socket
import sys
from collections.abc import Sequence

from proxy.server.cannot_serve import CannotServe
from proxy.server.settings import Settings
from proxy.server.sockets import listener, raise_descriptors
from proxy.server.workers import Supervisor
from proxy.telemetry import logs


def supervise(
    settings: Settings,
    arguments: Sequence[str],
    count: int,
    address: tuple[str, int, int | None],
    *,
    drain_s: float,
) -> int:
    """Serve with `count` worker processes until a signal comes. The exit code. Raises `CannotServe`.

    Shapes: ``arguments`` are those of `penstock serve` but for the address, which is the host, the port, and the admin API's
    own port or None.
    """
    if count > 1 and settings.redis_url is None:
        raise CannotServe(
            f"{count} workers need REDIS_URL: without it each would have breakers, budgets, limits and a cache of its own, "
            "and a budget could be spent once in each. Set REDIS_URL, or start one worker."
        )
    host, port, admin_port = address
    raise_descriptors()
    sockets: dict[str, socket.socket] = {"listener": listener(host, port, "--port")}
    where = ["--host", host, "--port", str(_port(sockets["listener"]))]
    if admin_port is not None:
        sockets["admin"] = listener(host, admin_port, "--admin-port")
        where += ["--admin-port", str(_port(sockets["admin"]))]
    command = (sys.executable, "-P", "-m", "proxy.cli.main", "serve", *arguments, *where)
    log = logs.stdout(shared=True)
    try:
        return asyncio.run(Supervisor(command, sockets, count, log, drain_s=drain_s).run())
    finally:
        log.close()


def _port(listens: socket.socket) -> int:
    number: int = listens.getsockname()[1]
    return number
