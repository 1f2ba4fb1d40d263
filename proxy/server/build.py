"""The composition root: the only module that puts technologies behind the ports."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.core.breaker import Policy
from proxy.core.routing import RoutingTable
from proxy.phases.breakers import Breakers
from proxy.phases.runtime import Runtime
from proxy.ports import BreakerStore, ExchangeLog, StoreState
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.telemetry.logs import Log
from proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from proxy.stores.redis.connection import RedisConnection


def build_log() -> Log:
    return Log(sys.stdout if sys.stdout is not None else Path(os.devnull).open("w"))


class BadStore(Exception):  # noqa: N818 - a message for whoever set the variable
    """A store's address is none. The message names the variable, and no credential."""


class Stores:
    """What is shared with other processes, and where. ``redis`` None: it is shared with nobody.

    `start` before the first exchange, `close` after the last.
    """

    def __init__(self, redis_url: str | None, policy: Policy, log: ExchangeLog) -> None:
        """Raises `BadStore`."""
        self.redis = None if redis_url is None else _redis(redis_url)
        self.breakers = Breakers(_breaker_store(self.redis), log, time.time, policy)

    async def start(self) -> None:
        if self.redis is not None:
            await self.redis.start()
        await self.breakers.start()

    async def close(self) -> None:
        await self.breakers.close()
        if self.redis is not None:
            await self.redis.close()

    def states(self) -> Mapping[str, StoreState]:
        return {} if self.redis is None else {"redis": self.redis.state}


def _redis(url: str) -> "RedisConnection":
    from proxy.stores.redis.address import BadRedisUrl  # noqa: PLC0415 - 0.3 s, for those who use it
    from proxy.stores.redis.connection import RedisConnection  # noqa: PLC0415

    try:
        return RedisConnection(url)
    except BadRedisUrl as bad:
        raise BadStore(str(bad)) from None


def _breaker_store(redis: "RedisConnection | None") -> BreakerStore:
    if redis is None:
        return MemoryBreakers(time.monotonic)
    from proxy.stores.redis.breakers import RedisBreakers  # noqa: PLC0415 - as above

    return RedisBreakers(redis)


def build_runtime(table: RoutingTable, upstream: UpstreamClient, log: ExchangeLog, stores: Stores) -> Runtime:
    return Runtime(
        table=table,
        upstream=upstream,
        log=log,
        now=time.monotonic,
        wall=time.time,
        breakers=stores.breakers,
    )
