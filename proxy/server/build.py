"""The composition root: puts technologies behind the ports, as the settings say."""

import asyncio
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO
from uuid import uuid4

from proxy import __version__
from proxy.core.budget_words import BudgetAlert
from proxy.core.event import EventKind
from proxy.core.routing import RoutingTable
from proxy.core.store_mode import Function
from proxy.core.virtual_key import Peppers
from proxy.phases.breakers import Breakers
from proxy.phases.budgets import Budgets
from proxy.phases.door import Door
from proxy.phases.key_ring import KeyRing
from proxy.phases.limits import Limiter
from proxy.phases.runtime import Runtime
from proxy.ports import (
    AuditLog,
    BreakerStore,
    BudgetStore,
    CacheStore,
    EventBus,
    ExchangeLog,
    KeyNews,
    Ledger,
    LimitStore,
    Meter,
    StoreAway,
    StoreState,
    StoreUnusable,
    Tracer,
)
from proxy.server import audit, books, trust
from proxy.server.journal import Journal
from proxy.server.outbox import Outbox
from proxy.server.redis_news import RedisNews
from proxy.server.retention import retain
from proxy.server.settings import Settings
from proxy.server.spending import LedgerSpend
from proxy.server.store_modes import Sources, StoreModes
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.memory.limits import MemoryLimits
from proxy.telemetry.alerts import Alerts
from proxy.telemetry.events import Events
from proxy.telemetry.log_file import LogFile
from proxy.telemetry.logs import Log
from proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from proxy.stores.redis.connection import RedisConnection
    from proxy.telemetry.traces import Traces

OPEN_S: Final = 2.0  # for the ledger and the audit log at the start, each
REPLAY_S: Final = 0.5  # for what dead processes left, which goes on behind the first requests


def build_log(settings: Settings | None = None, *, shared: bool = False) -> ExchangeLog:
    """The log, and with SENTRY_DSN what reports bugs. Raises `BadLog`. ``shared``: others write to the same stream."""
    log = Log(_log_stream(settings), shared=shared)
    if settings is None or settings.sentry_dsn is None:
        return log
    if find_spec("sentry_sdk") is None:
        log.event("bugs: SENTRY_DSN is set, but its package is not installed; install penstock[sentry]")
        return log
    from proxy.telemetry.bug_reports import BadDsn, BugReports  # noqa: PLC0415 - an extra

    try:
        return BugReports(log, settings.sentry_dsn, __version__)
    except BadDsn as bad:
        raise BadLog(f"SENTRY_DSN is none: {bad}. Copy it from the project's settings in Sentry.") from None


def _log_stream(settings: Settings | None) -> TextIO | LogFile:
    if settings is not None and settings.log is not None:
        try:
            return LogFile(settings.log, bytes_max=settings.log_bytes, files=settings.log_files)
        except OSError as error:
            raise BadLog(
                f"PENSTOCK_LOG: {settings.log} cannot be written ({error.strerror}). "
                "Name a file in a directory that this user may write to, or leave it at stdout."
            ) from None
    return sys.stdout if sys.stdout is not None else Path(os.devnull).open("w")


def build_tracer(settings: Settings, log: ExchangeLog) -> "Traces | None":
    """What takes spans, where OTEL_EXPORTER_OTLP_ENDPOINT is set. In the event loop."""
    if settings.otlp_endpoint is None:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        log.event(
            "traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, but its packages are not installed; install penstock[otel]"
        )
        return None
    from proxy.telemetry.traces import Traces  # noqa: PLC0415 - an extra

    return Traces(settings.otlp_endpoint, __version__, log, random.Random())  # noqa: S311 - ids, no secrets


class BadLog(Exception):  # noqa: N818 - a message for whoever set the variable
    """The log cannot be written where it was asked for. The message names the variable."""


class BadStore(Exception):  # noqa: N818 - a message for whoever set the variable
    """A store's address is none. The message names the variable, and no credential."""


class Stores:
    """What is kept, and where. ``redis`` None: nothing is shared with other processes.

    `start` before the first exchange, `close` after the last. ``peppers`` None: virtual keys are not kept.
    """

    def __init__(
        self, settings: Settings, table: RoutingTable, log: ExchangeLog, peppers: Peppers | None = None
    ) -> None:
        """Raises `BadStore`: an address is none, or the journal cannot be written."""
        worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.events = Events(log, time.time, worker)
        news = RedisNews(log, self.events, time.time)
        self.redis = None if settings.redis_url is None else _redis(settings.redis_url, told=news)
        self.breakers = Breakers(_breaker_store(self.redis), log, time.time, table.breaker, events=self.events)
        try:
            self.ledger = books.ledger(settings)
            # Apart, so that a report that looks through a million rows does not stand before what a budget must know.
            self.reports = books.ledger(settings, read_only=True)
            self.keys = None if peppers is None else _key_ring(settings, table, log, peppers, self.redis)
            self.audit = audit.audit_log(settings)
            journal = Journal(settings.data / books.JOURNAL, log)
            self.outbox = Outbox(journal, self.ledger, log, events=self.events)
        except StoreUnusable as unusable:
            raise BadStore(str(unusable)) from None
        except OSError as error:
            raise BadStore(
                f"{settings.data} cannot be written ({error.strerror}), and nothing is served that is not written down. "
                "Set PENSTOCK_DATA to a directory on a local disk that this user may write to."
            ) from None
        self.alerts = Alerts(table.alerts, log, time.time, random.Random())  # noqa: S311 - it spreads retries
        self.budgets = Budgets(
            _budget_store(self.redis),
            LedgerSpend(self.ledger),
            on_alert=self._alerted,
            log=log,
            wall=time.time,
            worker=worker,
        )
        self.limits = Limiter(_limit_store(self.redis), log=log, worker=worker)
        self.cache = _cache_store(self.redis)
        redis = self.redis
        self._payers = table.budgets.payers()
        sources = Sources(
            None if redis is None else lambda: redis.state,
            "sqlite" if settings.database_url is None else "postgres",
            self.budgets,
            self.limits,
            self.keys,
            self.outbox.state,
            budgets_close=lambda: any(payer.closed_when_away for payer in self._payers),
        )
        asked = {Function.LEDGER: self.ledger.newest_seq, Function.AUDIT: self.audit.head}
        self.modes = StoreModes(sources, asked, log, time.time)
        self._keep_days = table.ledger_keep_days
        self._started = False
        self._log = log
        self._retaining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises `BadStore` where a store is there and cannot be used; one that is away is waited for by nobody."""
        if self.redis is not None:
            await self.redis.start()
        self.events.start(_event_bus(self.redis))
        await self.breakers.start()
        await self._open(self.ledger, "ledger: away at the start, rows wait in the journal")
        if self.keys is not None:
            try:
                await self.keys.start()
            except StoreUnusable as unusable:
                raise BadStore(str(unusable)) from None
        await self._open(self.audit, "audit: away at the start, the admin API changes nothing")
        await self.outbox.start(REPLAY_S)
        self.alerts.start()
        self.budgets.start()
        self.limits.start()
        self.modes.start()
        self._started = True
        self._retain()

    def follow(self, table: RoutingTable) -> None:
        """Do as another table says, from now on."""
        self._payers = table.budgets.payers()
        self.breakers.policy = table.breaker
        self.alerts.follow(table.alerts)
        if self.keys is not None:
            self.keys.use(table.budgets)
        if table.ledger_keep_days != self._keep_days:
            self._keep_days = table.ledger_keep_days
            if self._retaining is not None:
                self._retaining.cancel()
                self._retaining = None
            self._retain()

    def _retain(self) -> None:
        if self._keep_days is not None and self._started:
            self._retaining = asyncio.create_task(retain(self.ledger, self._log, self._keep_days, time.time))

    async def _open(self, store: Ledger | AuditLog, away_means: str) -> None:
        """Raises `BadStore`. One that is away is used when it is back."""
        try:
            async with asyncio.timeout(OPEN_S):
                await store.open()
        except (StoreAway, TimeoutError) as away:
            self._log.event(away_means, error=str(away) or "no answer")
        except StoreUnusable as unusable:
            raise BadStore(str(unusable)) from None

    async def close(self) -> None:
        """What is settled is delivered, as far as the stores are there; the rest waits in the journal."""
        await self.modes.close()
        if self._retaining is not None:
            self._retaining.cancel()
            await asyncio.gather(self._retaining, return_exceptions=True)
        if self.keys is not None:
            await self.keys.close()
        await self.limits.close()
        await self.budgets.close()
        await self.alerts.close()
        await self.outbox.close()
        await self.reports.close()
        await self.ledger.close()
        await self.audit.close()
        await self.breakers.close()
        await self.events.close()
        if self.redis is not None:
            await self.redis.close()

    def _alerted(self, alert: BudgetAlert) -> None:
        self.alerts(alert)
        self.events.emit(
            EventKind.BUDGET,
            subject=alert.subject,
            period=alert.period.value,
            level=alert.level.name.lower(),
            spent_nanousd=alert.spent_nanousd,
            held_nanousd=alert.held_nanousd,
            limit_nanousd=alert.limit_nanousd,
            resets_at=alert.resets_at,
        )

    def states(self) -> Mapping[str, StoreState]:
        return {} if self.redis is None else {"redis": self.redis.state}


def _redis(url: str, *, told: RedisNews) -> "RedisConnection":
    from proxy.stores.redis.address import BadRedisUrl  # noqa: PLC0415 - 0.3 s, for those who use it
    from proxy.stores.redis.connection import RedisConnection  # noqa: PLC0415

    try:
        return RedisConnection(url, told=told)
    except BadRedisUrl as bad:
        raise BadStore(str(bad)) from None


def _breaker_store(redis: "RedisConnection | None") -> BreakerStore:
    if redis is None:
        return MemoryBreakers(time.monotonic)
    from proxy.stores.redis.breakers import RedisBreakers  # noqa: PLC0415 - as above

    return RedisBreakers(redis)


def _budget_store(redis: "RedisConnection | None") -> BudgetStore:
    if redis is None:
        return MemoryBudgets(lambda: int(time.time() * 1000))
    from proxy.stores.redis.budgets import RedisBudgets  # noqa: PLC0415 - as above

    return RedisBudgets(redis)


def _limit_store(redis: "RedisConnection | None") -> LimitStore:
    if redis is None:
        return MemoryLimits(lambda: time.monotonic_ns() // 1_000_000)
    from proxy.stores.redis.limits import RedisLimits  # noqa: PLC0415 - as above

    return RedisLimits(redis)


def _cache_store(redis: "RedisConnection | None") -> CacheStore:
    if redis is None:
        return MemoryCache(time.monotonic)
    from proxy.stores.redis.cache import RedisCache  # noqa: PLC0415 - as above

    return RedisCache(redis)


def _key_ring(
    settings: Settings, table: RoutingTable, log: ExchangeLog, peppers: Peppers, redis: "RedisConnection | None"
) -> KeyRing:
    """Raises `StoreUnusable`."""
    return KeyRing(
        trust.keys(settings),
        peppers,
        table.budgets,
        log,
        time.time,
        time.monotonic,
        news=None if redis is None else _key_news(redis),
        environment_key=settings.api_key,
    )


def _key_news(redis: "RedisConnection") -> KeyNews:
    from proxy.stores.redis.key_news import RedisKeyNews  # noqa: PLC0415 - as above

    return RedisKeyNews(redis)


def _event_bus(redis: "RedisConnection | None") -> EventBus | None:
    if redis is None:
        return None
    from proxy.stores.redis.events import RedisEvents  # noqa: PLC0415 - as above

    return RedisEvents(redis)


def build_runtime(
    table: RoutingTable,
    upstream: UpstreamClient,
    log: ExchangeLog,
    stores: Stores,
    door: Door,
    *,
    meter: Meter | None = None,
    tracer: Tracer | None = None,
) -> Runtime:
    return Runtime(
        table=table,
        upstream=upstream,
        log=log,
        now=time.monotonic,
        wall=time.time,
        breakers=stores.breakers,
        budgets=stores.budgets,
        books=stores.outbox,
        ledger=stores.reports,
        cache=stores.cache,
        door=door,
        keys=stores.keys,
        limits=stores.limits,
        meter=meter,
        events=stores.events,
        tracer=tracer,
    )
