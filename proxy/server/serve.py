"""The serving process: from a checked configuration to an open socket, and back to a clean exit."""

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import http_parser, web

from proxy import __version__
from proxy.config.resolve import with_demo
from proxy.core.credential import Vault
from proxy.core.redact import passwords_of
from proxy.core.routing import Provider, RoutingTable
from proxy.core.virtual_key import Peppers
from proxy.edge.admin.shell import Admin, AdminKey
from proxy.edge.connections import Connections
from proxy.edge.gauges import gauges
from proxy.edge.health import Outlook
from proxy.edge.metrics_page import MetricsPage
from proxy.edge.protocol import HttpServer
from proxy.edge.surface import Surface
from proxy.phases.probe import Probe
from proxy.ports import ExchangeLog, SecretStore, StoreUnusable
from proxy.server import descriptors, doors, own_secrets, sealed, trust
from proxy.server.audit import LifeRecord
from proxy.server.build import BadLog, BadStore, Stores, build_log, build_runtime, build_tracer
from proxy.server.notify import READY, STOPPING, notify
from proxy.server.sealed_watch import SealedWatch
from proxy.server.settings import Settings
from proxy.simulator.server import Simulator
from proxy.telemetry.metrics import Metrics
from proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from proxy.telemetry.traces import Traces

KEEPALIVE_S: Final = 75.0  # longer than the 60 s of common load balancers, so that they close first
LINE_BYTES_MAX: Final = 4 * 1024
FIELD_BYTES_MAX: Final = 16 * 1024
FIELDS_MAX: Final = 64
READ_BYTES: Final = 64 * 1024
CLEANUP_S: Final = 0.5  # for connections that the drain has left; their exchanges are over
PROBE_EVERY_S: Final = 30.0
BACKLOG: Final = 1024
SEND_BUFFER_BYTES: Final = 128 * 1024  # the kernel would let it grow to 4 MiB for a client that reads slowly

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class CannotServe(Exception):  # noqa: N818 - a message for the command line, which exits with it
    """The process must not or cannot start. The message says why and what to do."""


@dataclass(slots=True)
class Options:
    """What the command line asked for. Units: seconds. ``admin_port`` None: the admin API is on `port`."""

    config: Path
    host: str = "127.0.0.1"
    port: int = 4020
    demo: bool = False
    drain_s: float = 60.0
    admin_port: int | None = None
    admin_hosts: tuple[str, ...] = ()
    probe_every_s: float | None = None  # None: providers are not probed
    metrics_port: int | None = None  # for /metrics alone, without a key
    metrics_host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the table was made with, and what makes another one when that has changed."""

    vault: Vault
    table: Callable[[Vault], RoutingTable]


@dataclass(slots=True)
class Service:
    """A running server: what tests start and stop in their own loop, and `serve` until a signal comes.

    ``admin_key`` None: there is none, and the admin API says so. The ports are those that are open. ``sealed`` None: the
    table stays as it is. ``metrics`` is told of every table that
    requests run on; ``page`` shows them.
    """

    options: Options
    settings: Settings
    table: RoutingTable
    log: ExchangeLog
    announce: Callable[[RoutingTable, str], None] | None = None
    admin_key: AdminKey | None = None
    peppers: Peppers | None = None  # None: virtual keys are not kept
    sealed: Sealed | None = None
    port: int = 0
    admin_port: int = 0
    metrics_port: int = 0
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    page: MetricsPage | None = None
    _tracer: "Traces | None" = None
    _upstream: UpstreamClient | None = None
    _simulator: Simulator | None = None
    _demo_url: str = ""
    _secrets: SecretStore | None = None
    _watching: asyncio.Task[None] | None = None
    _runners: list[web.ServerRunner] = field(default_factory=list)
    _surface: Surface | None = None
    _stores: Stores | None = None
    _admin: Admin | None = None
    _life: LifeRecord | None = None
    _probing: asyncio.Task[None] | None = None
    _connections: Connections | None = None

    async def start(self) -> None:
        """Open the socket. Raises `CannotServe`."""
        is_open = self.table.open_access and self.settings.api_key is None
        if is_open:
            refuse_open_bind(self.options.host)
        if not http_parser.HttpRequestParser.__module__.endswith("_http_parser"):
            raise CannotServe(
                "aiohttp's C parser is missing; its Python one is too lenient. Install aiohttp from a wheel."
            )
        if self.options.demo:
            self._simulator = Simulator()
            self._demo_url = await self._simulator.start()
            self.table = with_demo(self.table, self._demo_url)
        self.log.hide(self._credentials())
        self._upstream = UpstreamClient()
        try:
            self._stores = Stores(self.settings, self.table, self.log, self.peppers)
            await self._stores.start()
        except BadStore as bad:
            raise CannotServe(str(bad)) from None
        door = doors.door(self._stores.keys, self.admin_key, self.log, is_open=is_open)
        self.metrics.follow(self.table)
        self._tracer = build_tracer(self.settings, self.log)
        runtime = build_runtime(
            self.table, self._upstream, self.log, self._stores, door, meter=self.metrics, tracer=self._tracer
        )
        admin = self._admin = Admin(
            None if self.admin_key is None else self.admin_key.role_of,
            self._stores.audit,
            time.time,
            (self.options.host, *self.options.admin_hosts),
            key_of=None if runtime.keys is None else runtime.keys.record,
        )
        moved_to = self.options.admin_port
        probe = self._probe(self._upstream)
        outlook = Outlook({} if probe is None else probe.checks, self._stores.states, self._stores.outbox.state)
        surface = self._surface = Surface(runtime, admin if moved_to is None else None, outlook)
        self._connections = Connections(descriptors.client_caps())
        page = self.page = MetricsPage(self.metrics, lambda: gauges(surface.runtime, outlook, surface.running))
        runtime.exposition = page
        self.port = self.admin_port = await self._open(surface.handle, self.options.port, "--port")
        if moved_to is not None:
            self.admin_port = await self._open(
                lambda request: admin.handle(request, surface.runtime), moved_to, "--admin-port"
            )
            self.log.event("the admin API has a port of its own", port=self.admin_port)
        if self.options.metrics_port is not None:
            await self._open_metrics(page, self.options.metrics_port)
        if probe is not None:
            self._probing = asyncio.create_task(probe.run(self._probed))
        if self.sealed is not None:
            self._watch(self.sealed)
        self._life = LifeRecord(self._stores.audit, self.log, time.time)
        self._life.started(self._facts())
        if self.announce is not None:
            self.announce(self.table, self.url)

    def _probed(self) -> Iterable[Provider]:
        """Those of the table that is served from now, which another one may have taken the place of."""
        return self.table.providers.values()

    def _credentials(self) -> list[str]:
        return [secret for provider in self.table.all_providers for secret in provider.secrets]

    def _watch(self, known: Sealed) -> None:
        """Have other credentials used as soon as what is sealed has changed. Raises `CannotServe`."""

        async def changed(vault: Vault) -> None:
            table = await asyncio.to_thread(
                known.table, vault
            )  # a provider that becomes active may need the price list
            self.table = with_demo(table, self._demo_url) if self._simulator is not None else table
            self.log.hide(self._credentials())
            if self._surface is not None:
                self._surface.runtime.take(self.table)

        try:
            self._secrets = sealed.store(self.settings)
        except StoreUnusable as unusable:
            raise CannotServe(str(unusable)) from None
        watch = SealedWatch(self._secrets, lambda: sealed.keyring(self.settings), known.vault, self.log, changed)
        self._watching = asyncio.create_task(watch.run())
        self._watching.add_done_callback(self._watched)

    def _watched(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.log.bug("sealed secrets", error)

    def _facts(self) -> dict[str, object]:
        """What the audit log keeps of a start."""
        source = self.table.source
        return {
            "version": __version__,
            "process": os.getpid(),
            "host": self.options.host,
            "port": self.port,
            "admin_port": self.admin_port,
            "config_sha256": None if source is None else source.sha256,
        }

    def _probe(self, upstream: UpstreamClient) -> Probe | None:
        every_s = self.options.probe_every_s
        return None if every_s is None else Probe(upstream, time.monotonic, time.time, every_s=every_s)

    async def _open_metrics(self, page: MetricsPage, port: int) -> None:
        own_names_only = _is_loopback(self.options.metrics_host)
        self.metrics_port = await self._open(
            lambda request: page.handle(request, own_names_only=own_names_only),
            port,
            "--metrics-port",
            self.options.metrics_host,
        )
        self.log.event("/metrics has a port of its own", host=self.options.metrics_host, port=self.metrics_port)

    async def _open(self, handle: Handle, port: int, flag: str, host: str | None = None) -> int:
        """Serve on a port, and say which it is. ``flag`` names it in messages. Raises `CannotServe`."""
        server = HttpServer(
            handle,
            lambda reason: self.log.event("refused what is not HTTP", reason=reason),
            self.log.bug,
            connections=self._connections,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            access_log=None,
            auto_decompress=False,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            read_bufsize=READ_BYTES,
            lingering_time=2.0,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=CLEANUP_S)
        self._runners.append(runner)
        await runner.setup()
        listener = _listener(host or self.options.host, port, flag)
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        opened: int = listener.getsockname()[1]
        return opened

    @property
    def url(self) -> str:
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"http://{host}:{self.port}/v1"

    async def stop(self) -> None:
        """Refuse what is new, let what runs finish within the drain time, close."""
        if self._stores is not None:
            self._stores.events.end()
        if self._surface is not None:
            self.log.event("draining", exchanges=self._surface.running, seconds=self.options.drain_s)
            await self._surface.drain(self.options.drain_s)
        if self._connections is not None:
            asyncio.get_running_loop().call_later(2 * CLEANUP_S, self._connections.abort_all)
        for runner in self._runners:
            await runner.cleanup()
        for task in (self._probing, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._close_stores()
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None
        if self._upstream is not None:
            await self._upstream.close()
        if self._simulator is not None:
            await self._simulator.stop()

    async def _close_stores(self) -> None:
        """What is still to be written is written first."""
        if self._secrets is not None:
            await self._secrets.close()
        if self._admin is not None:
            await self._admin.close()
        if self._life is not None:
            await self._life.stopped()
            self._life = None
        if self._stores is not None:
            await self._stores.close()
            self._stores = None

    def hurry(self) -> None:
        """Whoever asks twice wants it at once."""
        if self._surface is not None:
            self._surface.hurry()


def refuse_open_bind(host: str) -> None:
    """Access is open to everyone who can connect, so only this machine may. Raises `CannotServe`."""
    if not _is_loopback(host):
        raise CannotServe(
            f"Refusing to listen on {host}: access is open (access.mode: open), so everyone who can reach it could spend "
            "with your provider keys. Ask for keys (access: {mode: keys}, or PENSTOCK_API_KEY), or listen on 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # inherited by what it accepts
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotServe(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port: penstock serve {flag} {port + 1}"
        ) from None
    listener.setblocking(False)
    return listener


def settle_memory() -> None:
    """What start-up built stays until the end: the collector need not walk it, nor run after every few requests.

    At the default thresholds full collections of a loop with 1,000 streams stop it for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def serve(service: Service) -> None:
    """Serve until SIGTERM or SIGINT; the second one ends the drain's patience. A hang-up is no reason to stop."""
    stop = asyncio.Event()

    def asked_to_stop() -> None:
        if stop.is_set():
            service.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: service.log.event("SIGHUP: there is no reload yet; restart instead"))
    try:
        await service.start()
        settle_memory()
        notify(READY)
        await stop.wait()
        notify(STOPPING)
    finally:
        await service.stop()
        service.log.close()


def admin_key(settings: Settings, log: ExchangeLog) -> AdminKey:
    """The admin key, made if there is none. Errors: CannotServe for one that must not be used, or cannot be kept."""
    try:
        held = own_secrets.obtain(own_secrets.ADMIN_KEY, settings.admin_key, settings.data)
    except (own_secrets.SecretRefused, own_secrets.SecretUnavailable) as problem:
        raise CannotServe(str(problem)) from None
    if held.made:
        log.event("an admin key was made", file=held.origin)
    return AdminKey(held.value)


def peppers(settings: Settings, log: ExchangeLog) -> Peppers:
    """What virtual keys are hashed under. Errors: CannotServe, for a weak client key of the environment too."""
    try:
        trust.api_key(settings)
        return trust.peppers(settings, log)
    except (own_secrets.SecretRefused, own_secrets.SecretUnavailable) as problem:
        raise CannotServe(str(problem)) from None


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """What the environment gave to this process, and nobody may read in its log; credentials come with the table."""
    urls = (url for url in (settings.redis_url, settings.database_url) if url is not None)
    passwords = [part for url in urls for part in passwords_of(url)]
    own = (settings.admin_key, settings.api_key, settings.pepper, settings.pepper_previous)
    return tuple(one for one in (*own, *passwords, *sealed.own_values(settings)) if one)


def run(
    options: Options,
    settings: Settings,
    table: RoutingTable,
    announce: Callable[[RoutingTable, str], None] | None,
    *,
    known: Sealed | None = None,
) -> None:
    """Serve in a new event loop until a signal comes. Raises `CannotServe`."""
    try:
        log = build_log(settings)
    except BadLog as bad:
        raise CannotServe(str(bad)) from None
    descriptors.raise_limit()
    log.hide(secrets_of(settings))
    key = admin_key(settings, log)
    if settings.api_key is not None and key.role_of(settings.api_key) is not None:
        raise CannotServe(
            "PENSTOCK_API_KEY is the admin key, so every client could do everything. Give it another value."
        )
    main = serve(Service(options, settings, table, log, announce, key, peppers(settings, log), known))
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(main)
    else:
        asyncio.run(main)
