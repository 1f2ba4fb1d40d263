"""From the command line to a supervisor with its sockets; what it needs, and what it starts workers with."""

import asyncio
import socket
import sys
from collections.abc import Sequence

from proxy.ports import ExchangeLog
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
    metrics: tuple[str, int] | None = None,
) -> int:
    """Serve with `count` worker processes until a signal comes. The exit code. Raises `CannotServe`.

    Shapes: ``arguments`` are those of `penstock serve` but for the address, which is the host, the port, and the admin API's
    own port or None. ``metrics``: where this process serves `/metrics` for all of them, off the loops that serve requests.
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
    shown = None if metrics is None else listener(*metrics, "--metrics-port")
    log = logs.stdout(shared=True)
    try:
        return asyncio.run(_run(Supervisor(command, sockets, count, log, drain_s=drain_s), shown, log))
    finally:
        log.close()


async def _run(supervisor: Supervisor, shown: socket.socket | None, log: ExchangeLog) -> int:
    if shown is None:
        return await supervisor.run()
    from proxy.edge.metrics_page import MetricsPage  # noqa: PLC0415 - an HTTP server, where this process is to be one
    from proxy.server.front import open_metrics  # noqa: PLC0415

    front = await open_metrics(MetricsPage(supervisor.counted), shown, log)
    front.acceptor.start()
    try:
        return await supervisor.run()
    finally:
        await front.close()


def _port(listens: socket.socket) -> int:
    number: int = listens.getsockname()[1]
    return number
