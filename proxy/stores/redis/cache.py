"""The cache's store in Redis: one key an answer, and books beside them that bound what they need together.

A hit is one round trip: a script gives the answer and what was invalidated since this process last asked, which is nothing
as a rule. So every process knows of an invalidation before it serves the next answer, without listening to anything, and
the selectors' meaning stays in one place, `core/cache_selector`. Numbers of invalidations are the server's time in
microseconds, because they must grow although all data are lost: then everything that was asked for before is stale.

The books are an index (what each answer counts for, when it was asked for, its labels) and the ends; what is over goes out
at the next put. A server that evicts keys may take books or answers alone: then the sum is too high or too low until what
it speaks of has had its time, and what is served stays right. An invalidation that a replica had not heard of when it took
over is lost with whatever else it had not heard of.

All keys share one hash tag, so that a script's keys are always on one node; those of answers that are dropped for others
are made in the script, of what the index names. Every invalidation is published on the channel `events`, for those who
want to tell people of it; nothing here listens.
"""

import asyncio
from typing import Final

import orjson

from proxy.core import cache_selector, cached_answer
from proxy.core.cache_selector import EVERYTHING, Selector, matches
from proxy.core.cached_answer import BODY_BYTES_MAX, CachedAnswer
from proxy.core.invalidations import SELECTORS_MAX, Invalidations
from proxy.ports import CacheStats, Recalled, StoreAway
from proxy.stores import polling
from proxy.stores.polling import Look
from proxy.stores.redis.connection import RedisConnection, Script
from proxy.terms import CacheKey, Generation

BYTES_MAX: Final = 256 * 1024 * 1024
# Larger ones would take a good part of an operation's deadline on the wire, and five that pass it are an outage.
ENTRY_BYTES_MAX: Final = 512 * 1024
KEPT_MS_MAX: Final = 30 * 24 * 3600 * 1000  # no answer stays longer
_BOOKS_KEPT_MS: Final = KEPT_MS_MAX + 24 * 3600 * 1000  # longer than any answer that they know of
_OVERHEAD_BYTES: Final = 450  # of an entry and its place in the books, beside what is written in them: measured
_IN_A_THREAD_FROM_BYTES: Final = 128 * 1024  # zlib takes half a millisecond for so much, and nobody else waits for it
_READ_AT_ONCE: Final = 256  # of the index: a fraction of a millisecond of the server's time
_DROPPED_AT_ONCE: Final = 64  # likewise
EVENT: Final = "cache.invalidated"


class RedisCache:
    """On a connection that others use too."""

    where: Final = "redis"

    def __init__(self, connection: RedisConnection, *, bytes_max: int = BYTES_MAX) -> None:
        self._connection = connection
        self._bytes_max = bytes_max
        self._answers = connection.key("{cache}:answer:")
        self._leases = connection.key("{cache}:lease:")
        self._index = connection.key("{cache}:index")
        self._ends = connection.key("{cache}:ends")
        self._invalidated = connection.key("{cache}:invalidations")
        # Channels are one space for all databases of a server, unlike keys.
        self._channel = connection.key(f"events:{connection.database}")
        self._known = Invalidations(Generation(0))
        self._get, self._put, self._invalidate, self._drop, self._stats, self._lease, self._unlease = (
            Script.of(__package__, f"{name}.lua")
            for name in (
                "cache_get",
                "cache_put",
                "cache_invalidate",
                "cache_drop",
                "cache_stats",
                "cache_lease",
                "unlease",
            )
        )

    async def get(self, cache_key: CacheKey) -> Recalled:
        look, generation = await self._looked(cache_key)
        return Recalled(look.answer, generation)

    async def put(self, cache_key: CacheKey, answer: CachedAnswer) -> bool:
        if len(answer.body) > BODY_BYTES_MAX or self._known.covers(answer.labels, answer.generation):
            return False
        large = len(answer.body) >= _IN_A_THREAD_FROM_BYTES
        encode = cached_answer.encode
        blob = await asyncio.to_thread(encode, cache_key, answer) if large else encode(cache_key, answer)
        labels = cache_selector.pack_labels(answer.labels)
        size = len(blob) + len(labels) + 3 * len(cache_key.encode()) + _OVERHEAD_BYTES
        if len(blob) > ENTRY_BYTES_MAX or size > self._bytes_max:
            return False
        ttl_ms = min(max(round(answer.ttl_s * 1000), 1), KEPT_MS_MAX)
        taken = await self._connection.run(
            self._put,
            [self._answers + cache_key, self._index, self._ends, self._invalidated],
            [cache_key, blob, ttl_ms, answer.generation, labels, size, self._bytes_max, _BOOKS_KEPT_MS, self._answers],
            bulk=True,
        )
        return bool(taken)

    async def invalidate(self, selector: Selector) -> int:
        packed = cache_selector.pack(selector)
        news = orjson.dumps({"kind": EVENT, "selector": orjson.Fragment(packed)})
        everything = int(selector == EVERYTHING)
        began = await self._connection.run(
            self._invalidate,
            [self._invalidated],
            [packed, everything, _BOOKS_KEPT_MS, SELECTORS_MAX, self._channel, news],
        )
        return await self._swept(selector, Generation(int(began)))

    async def stats(self) -> CacheStats:
        entries, size = await self._connection.run(self._stats, [self._index, self._ends], [])
        return CacheStats(entries, max(size, 0), self._bytes_max)

    async def lease(self, cache_key: CacheKey, owner: str, for_s: float) -> bool:
        for_ms = max(round(for_s * 1000), 1)
        return bool(await self._connection.run(self._lease, [self._leases + cache_key], [owner, for_ms]))

    async def release(self, cache_key: CacheKey, owner: str) -> None:
        await self._connection.run(self._unlease, [self._leases + cache_key], [owner])

    async def wait(self, cache_key: CacheKey, within_s: float) -> CachedAnswer | None:
        async def look() -> Look:
            return (await self._looked(cache_key))[0]

        return await polling.wait(look, within_s)

    async def _looked(self, cache_key: CacheKey) -> tuple[Look, Generation]:
        """What is held is compared with what was invalidated when the server was asked, whoever asks meanwhile."""
        known = self._known
        keys = [self._answers + cache_key, self._leases + cache_key, self._invalidated]
        blob, leased, *news = await self._connection.run(self._get, keys, [known.head, _BOOKS_KEPT_MS], bulk=True)
        if news:
            before, known = known, _after(known, *news)
            if self._known is before or known.head > self._known.head:
                self._known = known
        answer = None if blob is None else await _decoded(blob, cache_key)
        if answer is not None and known.covers(answer.labels, answer.generation):
            answer = None
        return Look(answer, bool(leased)), known.head

    async def _swept(self, selector: Selector, began: Generation) -> int:
        """Drop what is stale already. Ends early where the store goes away: its time will end what is left."""
        dropped, cursor = 0, b"0"
        try:
            while True:
                cursor, found = await self._connection.call("HSCAN", self._index, cursor, "COUNT", _READ_AT_ONCE)
                selected = [
                    key for key, entry in zip(found[::2], found[1::2], strict=True) if _selects(selector, entry)
                ]
                for at in range(0, len(selected), _DROPPED_AT_ONCE):
                    some = selected[at : at + _DROPPED_AT_ONCE]
                    dropped += await self._connection.run(
                        self._drop, [self._index, self._ends], [self._answers, began, *some]
                    )
                if cursor == b"0":
                    return dropped
        except StoreAway:
            return dropped


def _after(known: Invalidations, head: bytes, floor: bytes, news: list[bytes]) -> Invalidations:
    """What is known with the news; where the server knows of less, with nothing else."""
    lowest = Generation(int(floor))
    selectors = [
        (cache_selector.unpack(selector), Generation(int(number)))
        for selector, number in zip(news[::2], news[1::2], strict=True)
        if selector != b"floor"
    ]
    return (known if int(head) >= known.head else Invalidations(lowest)).after(selectors, lowest)


async def _decoded(blob: bytes, cache_key: CacheKey) -> CachedAnswer | None:
    if cached_answer.body_bytes(blob) < _IN_A_THREAD_FROM_BYTES:
        return cached_answer.decode(blob, cache_key)
    return await asyncio.to_thread(cached_answer.decode, blob, cache_key)


def _selects(selector: Selector, entry: bytes) -> bool:
    """Of an index' value; nothing selects what is none of ours, the sum of bytes among them."""
    try:
        labels = cache_selector.unpack_labels(entry.split(b" ", 2)[2])
    except (ValueError, IndexError):
        return False
    return matches(selector, labels)
