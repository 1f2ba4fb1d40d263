"""The cache's store within one process: bounded by bytes, what was least recently used goes first.

Answers are kept as they are, so that a hit costs a look-up. What has had its time goes first of all, by a heap of ends
whose items may speak of entries that are gone already: those are known by their number, and there are never many of them.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Final

from proxy.core.cache_selector import Selector, matches
from proxy.core.cached_answer import CachedAnswer
from proxy.core.invalidations import Invalidations
from proxy.ports import CacheStats, Recalled
from proxy.stores import polling
from proxy.stores.polling import Look
from proxy.terms import CacheKey, Generation

BYTES_MAX: Final = 256 * 1024 * 1024
ENTRY_SHARE: Final = 1 / 8  # of the bound: one larger entry would cost too many others
_SWEPT_AT_ONCE: Final = 1024  # entries looked at before others may go on
_STALE_ENDS_MAX: Final = 64  # beside as many as there are entries

# What CPython needs beside the characters, rounded up. Held by a test that counts what is allocated.
_ENTRY_BYTES: Final = 1000
_TEXT_BYTES: Final = 60
_PAIR_BYTES: Final = 190


def held_bytes(cache_key: CacheKey, answer: CachedAnswer) -> int:
    """What an entry counts for."""
    labels = answer.labels
    texts = (cache_key, answer.content_type, labels.route, labels.account, labels.provider, labels.model, *labels.tags)
    return (
        _ENTRY_BYTES
        + len(answer.body)
        + len(answer.usage or b"")
        + sum(map(_text_bytes, texts))
        + sum(_PAIR_BYTES + _text_bytes(name) + _text_bytes(value) for name, value in answer.headers)
    )


def _text_bytes(text: str) -> int:
    return _TEXT_BYTES + (len(text) if text.isascii() else 4 * len(text))


class _Held:
    """``good_until``: up to this generation it was compared with what was invalidated."""

    __slots__ = ("answer", "bytes", "ends_at", "good_until", "number")

    def __init__(self, answer: CachedAnswer, size: int, ends_at: float, number: int) -> None:
        self.answer = answer
        self.bytes = size
        self.ends_at = ends_at
        self.number = number
        self.good_until = answer.generation


class MemoryCache:
    """Shapes: ``now`` gives monotonic seconds."""

    where: Final = "memory"

    def __init__(
        self, now: Callable[[], float], *, bytes_max: int = BYTES_MAX, entry_share: float = ENTRY_SHARE
    ) -> None:
        self._now = now
        self._bytes_max = bytes_max
        self._entry_bytes_max = int(bytes_max * entry_share)
        self._bytes = 0
        self._held: OrderedDict[CacheKey, _Held] = OrderedDict()  # the least recently used first
        self._ends: list[tuple[float, int, CacheKey]] = []
        self._numbers = count()
        self._invalidations = Invalidations(Generation(1))
        self._leases: OrderedDict[CacheKey, tuple[str, float]] = OrderedDict()  # the oldest first

    async def get(self, cache_key: CacheKey) -> Recalled:
        return Recalled(self._found(cache_key), self._invalidations.head)

    async def put(self, cache_key: CacheKey, answer: CachedAnswer) -> bool:
        now = self._now()
        self._drop_gone(now)
        size = held_bytes(cache_key, answer)
        if size > self._entry_bytes_max or self._invalidations.covers(answer.labels, answer.generation):
            return False
        held = self._held.get(cache_key)
        if held is not None and held.answer.generation > answer.generation:
            return False
        if held is not None:
            self._drop(cache_key)
        while self._bytes + size > self._bytes_max:
            self._drop(next(iter(self._held)))
        number = next(self._numbers)
        self._held[cache_key] = _Held(answer, size, now + answer.ttl_s, number)
        self._bytes += size
        heapq.heappush(self._ends, (now + answer.ttl_s, number, cache_key))
        return True

    async def invalidate(self, selector: Selector) -> int:
        began = Generation(self._invalidations.head + 1)
        self._invalidations = self._invalidations.after([(selector, began)])
        dropped = 0
        for place, cache_key in enumerate(tuple(self._held), start=1):
            held = self._held.get(cache_key)
            if held is not None and held.answer.generation < began and matches(selector, held.answer.labels):
                dropped += held.ends_at > self._now()
                self._drop(cache_key)
            if place % _SWEPT_AT_ONCE == 0:
                await asyncio.sleep(0)
        return dropped

    async def stats(self) -> CacheStats:
        self._drop_gone(self._now())
        return CacheStats(len(self._held), self._bytes, self._bytes_max)

    async def lease(self, cache_key: CacheKey, owner: str, for_s: float) -> bool:
        now = self._now()
        holder, until = self._leases.pop(cache_key, (owner, now))
        if holder != owner and until > now:
            self._leases[cache_key] = holder, until
            return False
        self._leases[cache_key] = owner, now + for_s
        self._drop_ended_leases(now)
        return True

    async def release(self, cache_key: CacheKey, owner: str) -> None:
        if self._leases.get(cache_key, ("", 0.0))[0] == owner:
            del self._leases[cache_key]

    async def wait(self, cache_key: CacheKey, within_s: float) -> CachedAnswer | None:
        return await polling.wait(lambda: self._look(cache_key), within_s)

    async def _look(self, cache_key: CacheKey) -> Look:
        _, until = self._leases.get(cache_key, ("", 0.0))
        return Look(self._found(cache_key), until > self._now())

    def _found(self, cache_key: CacheKey) -> CachedAnswer | None:
        held = self._held.get(cache_key)
        if held is None:
            return None
        invalidations = self._invalidations
        if held.ends_at <= self._now() or (
            held.good_until < invalidations.head and invalidations.covers(held.answer.labels, held.answer.generation)
        ):
            self._drop(cache_key)
            return None
        held.good_until = invalidations.head
        self._held.move_to_end(cache_key)
        return held.answer

    def _drop(self, cache_key: CacheKey) -> None:
        self._bytes -= self._held.pop(cache_key).bytes

    def _drop_gone(self, now: float) -> None:
        """What has had its time; and what the heap says of entries that are gone, when there is too much of it."""
        while self._ends and self._ends[0][0] <= now:
            _, number, cache_key = heapq.heappop(self._ends)
            held = self._held.get(cache_key)
            if held is not None and held.number == number:
                self._drop(cache_key)
        if len(self._ends) > 2 * len(self._held) + _STALE_ENDS_MAX:
            self._ends = [(held.ends_at, held.number, cache_key) for cache_key, held in self._held.items()]
            heapq.heapify(self._ends)

    def _drop_ended_leases(self, now: float) -> None:
        """From the oldest on: whoever crashes leaves some behind, and most are for the same time."""
        while self._leases:
            oldest = next(iter(self._leases))
            if self._leases[oldest][1] > now:
                return
            del self._leases[oldest]
