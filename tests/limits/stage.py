"""Gateways with limits, what is asked of them, and how their subjects stand."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.core.estimate import input_tokens
from proxy.core.limit_table import limited_subjects
from proxy.core.limiting import LimitClaim, LimitStanding
from proxy.core.principal import ANYBODY
from proxy.core.prompt import measure
from proxy.phases.limits import Limiter
from proxy.server import build
from proxy.stores.memory.limits import MemoryLimits
from proxy.stores.redis.connection import RedisConnection
from proxy.stores.redis.limits import RedisLimits
from tests.gateway import CHAT, Answer, Connection, Gateway, send

CAP = 100  # of output tokens


def config(url: str, limits: str = "", provider: str = "", more: str = "") -> str:
    at_provider = f", limits: {provider}" if provider else ""
    at_top = f"limits: {limits}" if limits else ""
    return f"""
providers: {{p: {{like: vllm, base_url: "{url}"{at_provider}}}}}
defaults: {{timeouts: {{first_event: 30s, total: 30s}}, retry: {{attempts: 1, max: 10ms}}}}
routes: {{r: {{tiers: [p/m]}}}}
{at_top}
{more}
"""


def body(user: str = "somebody", **more: Any) -> bytes:
    question = [{"role": "user", "content": "How high is the water, mama?"}]
    return orjson.dumps({"model": "r", "messages": question, "max_tokens": CAP, "user": user, **more})


def tokens(request: bytes) -> int:
    """What a request takes of the tokens: its input as it is guessed, and its output cap."""
    return input_tokens(measure(len(request), orjson.loads(request)), request) + CAP


async def ask(gateways: list[Gateway], count: int, request: bytes) -> list["asyncio.Task[Answer]"]:
    """So many requests at once, spread over the gateways."""

    async def one(number: int) -> Answer:
        return await send(gateways[number % len(gateways)].port, CHAT, request)

    return [asyncio.create_task(one(number)) for number in range(count)]


def claims_of(gateway: Gateway) -> tuple[LimitClaim, ...]:
    """Of anybody, and of the providers."""
    table = gateway.runtime.table.limits
    return (*limited_subjects(ANYBODY, table), *table.sent.values())


async def standings(gateway: Gateway) -> tuple[LimitStanding, ...]:
    seen, found = await gateway.runtime.limits.look(claims_of(gateway))
    assert seen == "store"
    return tuple(found)


async def under_way(gateway: Gateway) -> int:
    """The most that any subject has."""
    return max(one.running for one in await standings(gateway))


async def until_free(gateways: Iterable[Gateway], within_s: float = 5.0) -> None:
    """Wait until nothing is under way, and no worker keeps anything."""
    for gateway in gateways:
        deadline = time.monotonic() + within_s
        while gateway.runtime.limits.kept or gateway.runtime.limits.undelivered or await under_way(gateway):
            assert time.monotonic() < deadline, await standings(gateway)
            await asyncio.sleep(0.01)
        assert not gateway.log.bugs


async def connected(gateway: Gateway, request: bytes) -> Connection:
    connection = await Connection.open(gateway.port)
    connection.post(CHAT, request)
    return connection


def short_leases(lease_s: float, put: Any = setattr) -> None:
    """Leases as short as this; ``put`` replaces a name of a module."""
    lease_ms = int(lease_s * 1000)

    def store(redis: RedisConnection | None) -> MemoryLimits | RedisLimits:
        if redis is None:
            return MemoryLimits(lambda: time.monotonic_ns() // 1_000_000, lease_ms=lease_ms)
        return RedisLimits(redis, lease_ms=lease_ms)

    def limiter(*args: Any, **options: Any) -> Limiter:
        return Limiter(*args, **options, lease_s=lease_s)

    put(build, "_limit_store", store)
    put(build, "Limiter", limiter)
