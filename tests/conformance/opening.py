"""How the suites open stores that a process has for itself, or that several share by Redis: new and empty, for one test."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import pytest

from proxy.stores.redis.connection import RedisConnection
from tests.valkey import Valkey, ValkeyCluster

STORES: Final = ["memory", "valkey", "valkey_cluster"]  # the last two are fixtures
NOW_MS: Final = 1_800_000_000_000
_prefixes = itertools.count()
_Store = TypeVar("_Store")


class Clock:
    """Unix milliseconds that a test sets."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def connected(server: Valkey | ValkeyCluster) -> AsyncIterator[RedisConnection]:
    """With keys of its own. The deadline is not what is tested here, and other tests share this machine."""
    connection = RedisConnection(server.url, prefix=f"test{next(_prefixes)}", deadline_s=5.0)
    try:
        yield connection
    finally:
        await connection.close()


def by_clock(
    name: str,
    request: pytest.FixtureRequest,
    in_memory: Callable[[Clock], _Store],
    on_redis: Callable[[RedisConnection, Clock], _Store],
) -> Callable[[Clock], AbstractAsyncContextManager[_Store]]:
    """Opens a store that goes by a clock."""
    server: Valkey | ValkeyCluster | None = None if name == "memory" else request.getfixturevalue(name)

    @asynccontextmanager
    async def opened(clock: Clock) -> AsyncIterator[_Store]:
        if server is None:
            yield in_memory(clock)
            return
        async with connected(server) as connection:
            yield on_redis(connection, clock)

    return opened


@dataclass(slots=True)
class Two(Generic[_Store]):
    """Two processes' handles on one store."""

    one: _Store
    two: _Store


@asynccontextmanager
async def twice(
    name: str,
    request: pytest.FixtureRequest,
    in_memory: Callable[[], _Store],
    on_redis: Callable[[RedisConnection], _Store],
) -> AsyncIterator[Two[_Store]]:
    if name == "memory":
        store = in_memory()
        yield Two(store, store)
        return
    server: Valkey | ValkeyCluster = request.getfixturevalue(name)
    server.flush()
    urls = (server.url, server.unix_url if isinstance(server, Valkey) else server.url)
    async with AsyncExitStack() as stack:
        one, two = (RedisConnection(url, deadline_s=1.0) for url in urls)
        for connection in (one, two):
            stack.push_async_callback(connection.close)
        yield Two(on_redis(one), on_redis(two))
