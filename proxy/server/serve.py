"""The serving process: from a checked configuration to an open socket, and back to a clean exit."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import http_parser

from proxy import __version__
from proxy.config.address import is_loopback
from proxy.config.resolve import with_demo
from proxy.core.credential import Vault
from proxy.core.event import EventKind
from proxy.core.redact import passwords_of
from proxy.core.routing import Provider, RoutingTable
from proxy.core.virtual_key import Peppers
from proxy.edge.admin.shell import Admin, AdminKey
from proxy.edge.connections import Connections
from proxy.edge.gauges import gauges
from proxy.edge.health import Outlook
from proxy.edge.intake import Intake
from proxy.edge.metrics_page import MetricsPage
from proxy.edge.surface import Surface
from proxy.phases.probe import Probe
from proxy.ports import ExchangeLog, SecretStore, StoreUnusable
from proxy.server import doors, own_secrets, sealed, trust
from proxy.server.audit import LifeRecord
from proxy.server.build import BadLog, BadStore, Stores, build_log, build_runtime, build_tracer
from proxy.server.cannot_serve import CannotServe
from proxy.server.control import Link
from proxy.server.front import CLEANUP_S, OPERATORS_MAX, Front, Handle, open_front, open_metrics
from proxy.server.notify import READY, STOPPING, notify
from proxy.server.pressure import Pressure, soft_limit
from proxy.server.reload import Reloader
from proxy.server.sealed_watch import SealedWatch
from proxy.server.settings import Settings
from proxy.server.sockets import Room, client_caps, connections_max, descriptors, listener, raise_descriptors
from proxy.server.table_source import TableSource
from proxy.simulator.server import Simulator
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.metrics import Snapshot as Counted
from proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from proxy.telemetry.traces import Traces

FRESH_S: Final = 0.5  # a connection younger than this may be about to ask, and is told then
PROBE_EVERY_S: Final = 30.0


@dataclass(slots=True)
class Options:
    """What the command line asked for. Units: seconds. ``admin_port`` None: the admin API is on `port`.

    ``grace_s`` is part of ``drain_s``: for so long after a stop was asked for new requests are still served.
    """

    config: Path
    host: str = "127.0.0.1"
    port: int = 4020
    demo: bool = False
    drain_s: float = 60.0
    grace_s: float = 0.0
    admin_port: int | None = None
    admin_hosts: tuple[str, ...] = ()
    probe_every_s: float | None = None  # None: providers are not probed
    workers: int = 1  # that share the machine's memory with this one, itself among them
    metrics_port: int | None = None  # for /metrics alone, without a key
    metrics_host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a worker has of its supervisor. Shapes: descriptors; ``number`` counts from 1."""

    listener: int
    control: int
    number: int
    admin: int | None = None
    announces: bool = False


@dataclass(slots=True)
class Service:
    """A running server: what tests start and stop in their own loop, and `serve` until a signal comes.

    ``admin_key`` None: there is none, and the admin API says so. ``tables`` None: the table stays as it is. The ports are
    those that are open. ``link``: to the supervisor. ``metrics`` is told of every table that requests run on; ``page``
    shows them.
    """

    options: Options
    settings: Settings
    table: RoutingTable
    log: ExchangeLog
    announce: Callable[[RoutingTable, str], None] | None = None
    admin_key: AdminKey | None = None
    peppers: Peppers | None = None  # None: virtual keys are not kept
    tables: TableSource | None = None
    inherited: Inherited | None = None
    link: Link | None = None
    port: int = 0
    admin_port: int = 0
    metrics_port: int = 0
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    page: MetricsPage | None = None
    intake: Intake = field(default_factory=Intake)
    reloader: Reloader | None = None
    _demo_url: str = ""
    _upstream: UpstreamClient | None = None
    _simulator: Simulator | None = None
    _front: Front | None = None  # for clients
    _fronts: list[Front] = field(default_factory=list)  # all of them
    _surface: Surface | None = None
    _outlook: Outlook | None = None
    _stores: Stores | None = None
    _admin: Admin | None = None
    _life: LifeRecord | None = None
    _connections: Connections | None = None
    _tracer: "Traces | None" = None
    _secrets: SecretStore | None = None
    _watching: asyncio.Task[None] | None = None
    _pressure: Pressure | None = None
    _probing: asyncio.Task[None] | None = None
    _serving: bool = False
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Open the socket. Raises `CannotServe`."""
        self._refuse_open_bind(self.table)
        if not http_parser.HttpRequestParser.__module__.endswith("_http_parser"):
            raise CannotServe(
                "aiohttp's C parser is missing; its Python one is too lenient. Install aiohttp from a wheel."
            )
        if self.options.demo:
            self._simulator = Simulator()
            self._demo_url = await self._simulator.start()
            self.table = with_demo(self.table, self._demo_url)
        self.log.hide(_secrets_in(self.table))
        self._upstream = UpstreamClient()
        try:
            self._stores = Stores(self.settings, self.table, self.log, self.peppers)
            await self._stores.start()
        except BadStore as bad:
            raise CannotServe(str(bad)) from None
        await self._listen(self._upstream, self._stores)
        self._life = LifeRecord(self._stores.audit, self.log, time.time)
        self._life.started(self._facts())
        self._serving = True
        if self.announce is not None:
            self.announce(self.table, self.url)

    async def _listen(self, upstream: UpstreamClient, stores: Stores) -> None:
        """From open stores to open sockets. Raises `CannotServe`."""
        self.metrics.follow(self.table)
        self._tracer = build_tracer(self.settings, self.log)
        door = doors.door(stores.keys, self.admin_key, self.log, is_open=self._is_open(self.table))
        runtime = build_runtime(self.table, upstream, self.log, stores, door, meter=self.metrics, tracer=self._tracer)
        admin = self._admin = Admin(
            None if self.admin_key is None else self.admin_key.role_of,
            stores.audit,
            time.time,
            (self.options.host, *self.options.admin_hosts),
            key_of=None if runtime.keys is None else runtime.keys.record,
        )
        moved_to = self.options.admin_port
        probe = self._probe(upstream)
        outlook = Outlook({} if probe is None else probe.checks, stores.states, stores.outbox.state, stores.modes.look)
        surface = self._surface = Surface(runtime, admin if moved_to is None else None, outlook, self.intake)
        runtime.exposition = self.page = MetricsPage(self._counted_by_all)
        self._outlook = outlook
        self._follow_the_file(surface)
        most = connections_max(descriptors(), demo=self.options.demo)
        connections = self._connections = Connections(client_caps(most))
        self._front = await self._open(surface.handle, self._listener(), Room(most, self.intake, self.log), connections)
        self.port = self.admin_port = self._front.port
        if moved_to is not None:
            room = Room(OPERATORS_MAX, Intake(), self.log)
            apart = await self._open(
                lambda request: admin.handle(request, surface.runtime),
                self._admin_listener(moved_to),
                room,
                Connections(client_caps(OPERATORS_MAX)),
            )
            self.admin_port = apart.port
            self.log.event("the admin API has a port of its own", port=self.admin_port)
        if self.options.metrics_port is not None:
            listens = listener(self.options.metrics_host, self.options.metrics_port, "--metrics-port")
            shown = await open_metrics(self.page, listens, self.log)
            self._fronts.append(shown)
            self.metrics_port = shown.port
        self._pressure = Pressure(
            self.intake, self.log, time.monotonic, soft_limit(self.settings.memory_bytes, self.options.workers)
        )
        self._pressure.start()
        if probe is not None:
            self._probing = asyncio.create_task(probe.run(self._providers))
        if self.tables is not None:
            self._watch(self.tables)
        for front in self._fronts:
            front.acceptor.start()
        if self.reloader is not None:
            self.reloader.start()

    def _is_open(self, table: RoutingTable) -> bool:
        return table.open_access and self.settings.api_key is None

    def _refuse_open_bind(self, table: RoutingTable) -> None:
        """Raises `CannotServe`, where everybody who can connect could come in."""
        if self._is_open(table):
            refuse_open_bind(self.options.host)

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

    def _watch(self, tables: TableSource) -> None:
        """Have other credentials used as soon as what is sealed has changed. Raises `CannotServe`."""

        async def changed(vault: Vault) -> None:
            tables.vault = vault
            if self.reloader is not None:
                await self.reloader.renew(lambda: self._with_demo(tables.table()))
            else:
                self._serve_by(self._with_demo(await asyncio.to_thread(tables.table)))

        try:
            self._secrets = sealed.store(self.settings)
        except StoreUnusable as unusable:
            raise CannotServe(str(unusable)) from None
        watch = SealedWatch(self._secrets, lambda: sealed.keyring(self.settings), tables.vault, self.log, changed)
        self._watching = asyncio.create_task(watch.run())
        self._watching.add_done_callback(self._watched)

    def _watched(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.log.bug("sealed secrets", error)

    def _probe(self, upstream: UpstreamClient) -> Probe | None:
        every_s = self.options.probe_every_s
        return None if every_s is None else Probe(upstream, time.monotonic, time.time, every_s=every_s)

    def _providers(self) -> Iterable[Provider]:
        """Those of the table that is served now."""
        return self.table.providers.values()

    # Sockets.

    def _listener(self) -> socket.socket:
        if self.inherited is None:
            return listener(self.options.host, self.options.port, "--port")
        return _inherited(self.inherited.listener)

    def _admin_listener(self, port: int) -> socket.socket:
        if self.inherited is None or self.inherited.admin is None:
            return listener(self.options.host, port, "--admin-port")
        return _inherited(self.inherited.admin)

    async def _open(self, handle: Handle, listens: socket.socket, room: Room, connections: Connections) -> Front:
        front = await open_front(handle, listens, room, connections, self.log)
        self._fronts.append(front)
        return front

    @property
    def url(self) -> str:
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"http://{host}:{self.port}/v1"

    # Reload.

    def _follow_the_file(self, surface: Surface) -> None:
        source, tables = self.table.source, self.tables
        if source is None or tables is None:
            return
        self.reloader = Reloader(
            self.options.config,
            self.table,
            source,
            read=lambda: self._with_demo(tables.read_again()),
            swap=self._serve_by,
            log=self.log,
            wall=time.time,
        )
        self.reloader.told = self._reloaded
        surface.runtime.configuration = self.reloader
        if self.link is not None:
            self.reloader.others = lambda: self.say("reload")

    def _with_demo(self, table: RoutingTable) -> RoutingTable:
        return with_demo(table, self._demo_url) if self._demo_url else table

    def _serve_by(self, table: RoutingTable) -> None:
        """Serve what comes from now on by another table. Raises `CannotServe`, and then nothing has changed."""
        self._refuse_open_bind(table)
        if self._surface is None or self._stores is None:
            return
        self.log.hide(_secrets_in(table))
        self.metrics.follow(table)
        runtime = self._surface.runtime
        self._surface.runtime = runtime.after(table, runtime.door.after(is_open=self._is_open(table)))
        self._stores.follow(table)
        self.table = table

    def _reloaded(self, *, ok: bool) -> None:
        self.metrics.reloaded(ok=ok)
        if self._stores is not None:
            self._stores.events.emit(EventKind.CONFIG, result="ok" if ok else "failed")

    def reload(self, why: str) -> None:
        """Read the routes file again, soon."""
        if self.reloader is None:
            self.log.event("there is no routes file to read again")
        else:
            self.reloader.ask(why)

    # Other workers.

    def say(self, word: str) -> None:
        """Tell the supervisor, where there is one."""
        if self.link is not None:
            self.link.say(word)

    async def counted(self) -> Counted:
        """What this process has counted, and how it stands."""
        if self._surface is None or self._outlook is None:
            return self.metrics.snapshot()
        return self.metrics.snapshot() | await gauges(self._surface.runtime, self._outlook, self._surface.running)

    async def _counted_by_all(self) -> Counted:
        """All workers together; without a supervisor that answers, this one."""
        told = None if self.link is None else await self.link.counted()
        return await self.counted() if told is None else told

    # The end.

    async def stop(self, *, handing_over: bool = False) -> None:
        """Refuse what is new, let what runs finish within the drain time, close.

        ``handing_over``: others accept from the same sockets, so that this process is not missed: it takes no more
        connections, and serves those that it has to their ends.
        """
        if self.reloader is not None:
            await self.reloader.close()
        if self._serving and self._surface is not None:
            await self._drain(self._surface, handing_over=handing_over)
        for front in self._fronts:
            front.acceptor.close()
        if self._connections is not None:
            asyncio.get_running_loop().call_later(2 * CLEANUP_S, self._connections.abort_all)
        for front in self._fronts:
            await front.close()
        if self._pressure is not None:
            await self._pressure.close()
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

    async def _drain(self, surface: Surface, *, handing_over: bool) -> None:
        ends_at = time.monotonic() + self.options.drain_s
        grace_s = min(self.options.grace_s, self.options.drain_s)
        if self._stores is not None:
            self._stores.events.end()
        self.intake.closing = True
        self.intake.unready = not handing_over
        self.log.event("draining", exchanges=surface.running, seconds=self.options.drain_s, grace_s=grace_s)
        if handing_over:
            for front in self._fronts:
                front.acceptor.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._hurried.wait()
        if self._front is not None:
            self._front.acceptor.close()
            self._front.acceptor.close_idle(0.0 if handing_over else FRESH_S)
        await surface.drain(0.0 if self._hurried.is_set() else max(ends_at - time.monotonic(), 0.0))

    def hurry(self) -> None:
        """Whoever asks twice wants it at once."""
        self._hurried.set()
        if self._surface is not None:
            self._surface.hurry()


def _inherited(descriptor: int) -> socket.socket:
    listens = socket.socket(fileno=descriptor)
    listens.setblocking(False)
    return listens


def _secrets_in(table: RoutingTable) -> list[str]:
    return [secret for provider in table.all_providers for secret in provider.secrets]


def refuse_open_bind(host: str) -> None:
    """Access is open to everyone who can connect, so only this machine may. Raises `CannotServe`."""
    if not is_loopback(host):
        raise CannotServe(
            f"Refusing to listen on {host}: access is open (access.mode: open), so everyone who can reach it could spend "
            "with your provider keys. Ask for keys (access: {mode: keys}, or PENSTOCK_API_KEY), or listen on 127.0.0.1."
        )


def settle_memory() -> None:
    """What start-up built stays until the end: the collector need not walk it, nor run after every few requests.

    At the default thresholds full collections of a loop with 1,000 streams stop it for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Stop:
    """When and how a process is to stop. Set by signals, and by the supervisor of a worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.asked = asyncio.Event()
        self.handing_over = False

    def by_signal(self) -> None:
        """A second one ends the patience; not a worker's, whose supervisor gets the same signals and tells it."""
        if self.asked.is_set() and self._service.inherited is None:
            self._service.hurry()
        self.asked.set()

    def retire(self) -> None:
        self.handing_over = True
        self.asked.set()

    def orphaned(self) -> None:
        if not self.asked.is_set():
            self._service.log.event("the supervisor is gone")
        self.asked.set()


async def serve(service: Service) -> None:
    """Serve until SIGTERM or SIGINT; the second one ends the drain's patience. SIGHUP reloads."""
    stop = _Stop(service)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.by_signal)
    loop.add_signal_handler(signal.SIGHUP, service.reload, "SIGHUP")
    if service.inherited is None:
        no_restart = "SIGUSR2: a rolling restart needs a supervisor; start with --workers"
        loop.add_signal_handler(signal.SIGUSR2, service.log.event, no_restart)
    else:
        orders = {
            "drain": stop.asked.set,
            "retire": stop.retire,
            "hurry": service.hurry,
            "reload": lambda: service.reload("all workers do"),
            "gone": stop.orphaned,
        }
        service.link = Link(service.inherited.control, orders, service.log)
        service.link.count = service.counted
        await service.link.start()
    try:
        await service.start()
        settle_memory()
        service.say("ready")
        if service.inherited is None:
            notify(READY)
        await stop.asked.wait()
        if service.inherited is None:
            notify(STOPPING)
    finally:
        await service.stop(handing_over=stop.handing_over)
        if service.link is not None:
            await service.link.close(service.metrics.snapshot())
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
    tables: TableSource | None = None,
    inherited: Inherited | None = None,
) -> None:
    """Serve in a new event loop until a signal comes. Raises `CannotServe`."""
    try:
        log = build_log(settings, shared=inherited is not None)
    except BadLog as bad:
        raise CannotServe(str(bad)) from None
    raise_descriptors()
    log.hide(secrets_of(settings))

    async def main() -> None:
        key, own = admin_key(settings, log), peppers(settings, log)
        if settings.api_key is not None and key.role_of(settings.api_key) is not None:
            raise CannotServe(
                "PENSTOCK_API_KEY is the admin key, so every client could do everything. Give it another value."
            )
        service = Service(options, settings, table, log, announce, key, own, tables, inherited)
        await serve(service)

    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(main())
    else:
        asyncio.run(main())
