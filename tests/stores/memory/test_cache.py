"""The bounds of the cache within a process: against a slow reference, and against what is really allocated."""

import gc
import sys
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.cache_selector import EVERYTHING, Selector
from proxy.core.cached_answer import CachedAnswer
from proxy.stores.memory.cache import MemoryCache, held_bytes
from proxy.terms import CacheKey, Generation, ProviderId
from tests.cached_answers import ANSWER, answer, labels, stream

A, B = CacheKey("v1:a"), CacheKey("v1:b")
NOW: Final = Generation(1)  # of a cache of which nothing was invalidated


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_hit_is_what_was_put_itself() -> None:
    cache = MemoryCache(Clock())
    made = stream(1000, generation=NOW)
    await cache.put(A, made)
    assert (await cache.get(A)).answer is made


async def test_gone_on_time() -> None:
    clock = Clock()
    cache = MemoryCache(clock)
    made = answer(generation=NOW, ttl_s=10.0)
    await cache.put(A, made)
    clock.now += 9.999
    assert (await cache.get(A)).answer is made
    clock.now += 0.001
    assert (await cache.get(A)).answer is None
    assert (await cache.stats()).bytes == 0


async def test_an_entry_takes_no_more_than_its_share() -> None:
    room = held_bytes(A, ANSWER)
    assert await MemoryCache(Clock(), bytes_max=8 * room, entry_share=1 / 8).put(A, answer(generation=NOW))
    assert not await MemoryCache(Clock(), bytes_max=8 * room - 1, entry_share=1 / 8).put(A, answer(generation=NOW))


async def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryCache(Clock(), bytes_max=3 * held_bytes(A, ANSWER), entry_share=1)
    for name in "abc":
        await cache.put(CacheKey(f"v1:{name}"), answer(generation=NOW))
    assert (await cache.get(A)).answer is not None
    await cache.put(CacheKey("v1:d"), answer(generation=NOW))
    assert [(await cache.get(CacheKey(f"v1:{name}"))).answer is None for name in "abcd"] == [False, True, False, False]


async def test_what_was_invalidated_meanwhile_is_not_taken() -> None:
    cache = MemoryCache(Clock())
    await cache.invalidate(Selector(tag="v2"))
    assert not await cache.put(A, answer(generation=NOW))
    assert await cache.put(A, answer(generation=NOW, labels=labels(tags=())))


@dataclass
class Reference:
    """The same, slowly: a list in the order of use, looked through each time."""

    bytes_max: int
    held: list[tuple[CacheKey, CachedAnswer, float]] = field(default_factory=list)

    def get(self, cache_key: CacheKey, now: float) -> CachedAnswer | None:
        self.tidy(now)
        for entry in self.held:
            if entry[0] == cache_key:
                self.held.remove(entry)
                self.held.append(entry)
                return entry[1]
        return None

    def put(self, cache_key: CacheKey, made: CachedAnswer, now: float) -> bool:
        self.tidy(now)
        size = held_bytes(cache_key, made)
        if size > self.bytes_max // 2:
            return False
        self.held = [entry for entry in self.held if entry[0] != cache_key]
        while self.bytes + size > self.bytes_max:
            del self.held[0]
        self.held.append((cache_key, made, now + made.ttl_s))
        return True

    def tidy(self, now: float) -> None:
        self.held = [entry for entry in self.held if entry[2] > now]

    @property
    def bytes(self) -> int:
        return sum(held_bytes(cache_key, made) for cache_key, made, _ in self.held)


_KEYS = st.sampled_from([CacheKey(name) for name in "abcdefgh"])
_ACTS = st.one_of(
    st.tuples(st.just("get"), _KEYS, st.just(0), st.just(0.0)),
    st.tuples(st.just("put"), _KEYS, st.integers(0, 3000), st.sampled_from([1.0, 5.0, 100.0])),
    st.tuples(st.just("time"), st.just(A), st.just(0), st.sampled_from([0.5, 1.0, 4.0])),
    st.tuples(st.just("drop"), _KEYS, st.just(0), st.just(0.0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_ACTS, min_size=20, max_size=80))
async def test_against_the_reference(acts: list[tuple[str, CacheKey, int, float]]) -> None:
    clock = Clock()
    cache = MemoryCache(clock, bytes_max=12_000, entry_share=0.5)
    reference = Reference(12_000)
    generation = NOW
    for act, cache_key, size, seconds in acts:
        if act == "get":
            recalled = await cache.get(cache_key)
            generation = recalled.generation
            assert recalled.answer == reference.get(cache_key, clock.now)
        elif act == "put":
            generation = (await cache.get(CacheKey("none"))).generation
            made = answer(
                body=bytes(size), ttl_s=seconds, generation=generation, labels=replace(ANSWER.labels, tags=(cache_key,))
            )
            assert await cache.put(cache_key, made) == reference.put(cache_key, made, clock.now)
        elif act == "time":
            clock.now += seconds
        else:
            reference.tidy(clock.now)
            left = [entry for entry in reference.held if entry[0] != cache_key]
            assert await cache.invalidate(Selector(tag=cache_key)) == len(reference.held) - len(left)
            reference.held = left
        stats = await cache.stats()
        reference.tidy(clock.now)
        assert (stats.entries, stats.bytes) == (len(reference.held), reference.bytes)
        assert len(cache._ends) <= 2 * len(cache._held) + 66


async def test_ends_do_not_pile_up() -> None:
    cache = MemoryCache(Clock())
    for _ in range(1000):
        await cache.put(A, answer(generation=NOW))
    assert len(cache._ends) < 100


async def test_what_counts_is_what_is_allocated() -> None:
    """A cache that needs twice its bound is no bound."""
    for made in (
        answer(generation=NOW, headers=()),
        answer(generation=NOW),
        answer(generation=NOW, headers=tuple((f"x-header-{number}", "value" * 5) for number in range(20))),
        answer(generation=NOW, labels=labels(tags=tuple(f"tag={number}" for number in range(30)))),
        answer(generation=NOW, labels=labels(model="\U0001f600" * 50), body=bytes(5000)),
    ):
        clock = Clock()
        cache = MemoryCache(clock)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(800):
            await cache.put(CacheKey(f"v1:{number:032x}"), _copy(made, number))
        for number in range(800):
            await cache.get(CacheKey(f"v1:{number:032x}"))
        needed = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        counted = (await cache.stats()).bytes
        assert 0.5 * counted < needed <= counted, (needed / 800, counted / 800)


def _copy(made: CachedAnswer, number: int) -> CachedAnswer:
    """With nothing in common: as each comes from another exchange."""

    def text(value: str) -> str:
        return "".join(list(value))

    assert made.usage is not None
    return replace(
        made,
        content_type=text(made.content_type),
        headers=tuple((text(name), text(value)) for name, value in made.headers),
        body=bytes(bytearray(made.body)),
        usage=bytes(bytearray(made.usage)),
        labels=replace(
            made.labels,
            model=text(made.labels.model),
            provider=ProviderId(text(made.labels.provider)),
            tags=tuple(text(tag) for tag in made.labels.tags),
        ),
        stored_at_s=1.76e9 + number,
        ttl_s=3600.5 + number,
    )


async def test_ended_leases_are_forgotten() -> None:
    clock = Clock()
    cache = MemoryCache(clock)
    for number in range(1000):
        clock.now += 1
        assert await cache.lease(CacheKey(f"{number}"), "crashed", 10)
    assert len(cache._leases) <= 11


async def test_invalidating_many_lets_others_go_on() -> None:
    """And what is put meanwhile, in the new generation, is not swept out."""
    cache = MemoryCache(Clock())
    for number in range(5000):
        await cache.put(CacheKey(f"{number}"), answer(generation=NOW))
    sweeping = cache.invalidate(EVERYTHING)
    assert sweeping.send(None) is None  # it has looked at some, and waits for a turn
    assert 0 < (await cache.stats()).entries < 5000
    new = answer(generation=(await cache.get(CacheKey("4000"))).generation)
    assert await cache.put(CacheKey("4999"), new)
    dropped = 0
    try:
        while True:
            sweeping.send(None)
    except StopIteration as done:
        dropped = done.value
    assert dropped == 4998  # one was met by the get, one by the put
    assert (await cache.get(CacheKey("4999"))).answer is new
    assert (await cache.stats()).entries == 1


def test_the_body_is_counted_once() -> None:
    assert held_bytes(A, answer(body=bytes(1001))) == held_bytes(A, answer(body=b"x")) + 1000
    assert held_bytes(A, ANSWER) > sys.getsizeof(ANSWER.body)
