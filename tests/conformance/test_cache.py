"""What every cache store must do. A new one is a line in `STORES`."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.cache_selector import EVERYTHING, Labels, Selector, matches
from proxy.core.cached_answer import CachedAnswer
from proxy.core.glob import Glob, escape
from proxy.ports import CacheStore
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.redis.cache import RedisCache
from proxy.terms import AccountId, CacheKey, Generation, ProviderId, RouteName
from tests.cached_answers import ANSWER, answer, labels, stream
from tests.conformance.opening import STORES, Two, twice
from tests.stopwatch import Stopwatch

A, B, C, D = (CacheKey(f"v1:{name}") for name in ("a", "odd {key}:\r\n\u00e9 1 2", "c", "d"))
ODD_BYTES = bytes(range(256)) + b" 1 2 \r\n"
LARGE = 8 * 1024 * 1024


Stores = Two[CacheStore]


def opened(request: pytest.FixtureRequest, bytes_max: int) -> AbstractAsyncContextManager[Stores]:
    return twice(
        request.param,
        request,
        lambda: MemoryCache(time.monotonic, bytes_max=bytes_max, entry_share=0.5),
        lambda connection: RedisCache(connection, bytes_max=bytes_max),
    )


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with opened(request, LARGE) as made:
        yield made


@pytest.fixture(params=STORES)
async def small_stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with opened(request, 20_000) as made:
        yield made


async def _now(store: CacheStore) -> Generation:
    """The generation of whoever asks a provider now."""
    return (await store.get(CacheKey("v1:nobody's"))).generation


async def _put(store: CacheStore, cache_key: CacheKey, **changes: object) -> CachedAnswer:
    made = answer(generation=await _now(store), **changes)
    assert await store.put(cache_key, made)
    return made


async def _held(store: CacheStore, cache_key: CacheKey) -> CachedAnswer | None:
    return (await store.get(cache_key)).answer


# Kept and given again.


async def test_nothing_is_held_at_first(stores: Stores) -> None:
    assert await _held(stores.one, A) is None
    stats = await stores.one.stats()
    assert (stats.entries, stats.bytes, stats.bytes_max) == (0, 0, LARGE)
    assert await stores.one.invalidate(EVERYTHING) == 0


async def test_what_one_keeps_all_get(stores: Stores) -> None:
    kept = {
        A: await _put(stores.one, A),
        B: await _put(stores.two, B, body=ODD_BYTES, usage=None, cost_nanousd=None, headers=()),
        C: await _put(stores.one, C, body=b""),
        D: await _put(stores.two, D, body=stream(5000).body),  # as much as is read and written in a thread
    }
    for store in (stores.one, stores.two):
        assert {cache_key: await _held(store, cache_key) for cache_key in kept} == kept
    assert (await stores.one.stats()).entries == 4


async def test_a_later_answer_takes_the_place_of_an_earlier(stores: Stores) -> None:
    await _put(stores.one, A, body=b"one")
    full = await stores.two.stats()
    two = await _put(stores.two, A, body=b"two")
    assert await _held(stores.one, A) == two
    assert await stores.one.stats() == full


async def test_of_two_the_one_asked_for_later_is_kept(stores: Stores) -> None:
    early = await _now(stores.one)
    await stores.two.invalidate(Selector(route=RouteName("voice")))
    late = await _put(stores.two, A, body=b"late")
    assert not await stores.one.put(A, answer(body=b"early", generation=early))
    assert await _held(stores.one, A) == late
    assert await stores.one.put(B, answer(body=b"early", generation=early))


async def test_what_has_had_its_time_is_gone(stores: Stores) -> None:
    await _put(stores.one, A, ttl_s=0.05)
    kept = await _put(stores.one, B, ttl_s=60.0)
    assert await _held(stores.two, A) is not None
    await asyncio.sleep(0.06)
    assert await _held(stores.one, A) is None
    assert await _held(stores.one, B) == kept
    assert (await stores.two.stats()).entries == 1
    early = await _put(stores.one, A, ttl_s=0.05)
    await stores.one.invalidate(Selector(route=RouteName("voice")))
    await _put(stores.one, A, ttl_s=0.05)
    await asyncio.sleep(0.06)
    assert await stores.two.put(A, early)  # what was asked for later is not in its way any more
    assert await _held(stores.one, A) == early


async def test_bytes_are_counted(stores: Stores) -> None:
    await _put(stores.one, A)
    one = (await stores.one.stats()).bytes
    assert 500 < one < 3000
    await _put(stores.two, C, body=ANSWER.body + b" " * 1000)
    assert (await stores.one.stats()).bytes == 2 * one + 1000
    assert await stores.two.invalidate(EVERYTHING) == 2
    assert (await stores.one.stats()).bytes == 0
    for store in (stores.one, stores.two):
        await _put(store, A, ttl_s=0.03)
    await asyncio.sleep(0.04)
    assert (await stores.one.stats()).bytes == 0


async def test_no_more_bytes_than_the_bound(small_stores: Stores) -> None:
    store = small_stores.one
    for number in range(60):
        await _put(store, CacheKey(f"v1:{number}"), body=b"x" * (37 * number % 1000), ttl_s=60.0 + number)
        assert (await store.stats()).bytes <= 20_000
    assert (await store.stats()).bytes > 15_000
    held = [number for number in range(60) if await _held(store, CacheKey(f"v1:{number}")) is not None]
    assert held == list(range(60 - len(held), 60))
    assert len(held) == (await store.stats()).entries


async def test_what_is_too_large_is_not_taken(small_stores: Stores) -> None:
    kept = await _put(small_stores.one, A)
    generation = await _now(small_stores.one)
    noise = secrets.token_bytes(20_001)
    assert not await small_stores.one.put(B, answer(body=noise, generation=generation))
    assert not await small_stores.one.put(A, answer(body=noise, generation=generation))
    assert not await small_stores.one.put(B, answer(body=bytes(17 * 1024 * 1024), generation=generation))
    assert await _held(small_stores.two, A) == kept
    assert await _held(small_stores.two, B) is None


# Invalidation.

_OTHERS = labels(
    route=RouteName("voice"), account=AccountId("b*"), provider=ProviderId("groq"), model="llama", tags=("team=b",)
)


@pytest.mark.parametrize(
    "selector",
    [
        Selector(route=RouteName("simple")),
        Selector(account=AccountId("acme")),
        Selector(tag="team=a"),
        Selector(pattern=Glob.of("sim*")),
        Selector(pattern=Glob.of("openai/*")),
        Selector(pattern=Glob.of(escape("gpt-4o"))),
        Selector(RouteName("simple"), "v2", AccountId("acme"), Glob.of("gpt-*")),
    ],
)
async def test_what_is_invalidated_is_served_by_nobody(stores: Stores, selector: Selector) -> None:
    await _put(stores.one, A)
    await _put(stores.two, C, body=b"another")
    other = await _put(stores.two, B, labels=_OTHERS)
    assert await _held(stores.one, A) is not None
    assert await stores.two.invalidate(selector) == 2
    for store in (stores.one, stores.two):
        assert await _held(store, A) is None
        assert await _held(store, C) is None
        assert await _held(store, B) == other
    assert (await stores.one.stats()).entries == 1
    assert await stores.one.invalidate(selector) == 0
    new = await _put(stores.one, A)
    assert await _held(stores.two, A) == new


async def test_everything_is_invalidated(stores: Stores) -> None:
    for cache_key in (A, B, C):
        await _put(stores.one, cache_key)
    assert await stores.two.invalidate(EVERYTHING) == 3
    assert [await _held(stores.one, cache_key) for cache_key in (A, B, C)] == [None] * 3
    kept = await _put(stores.one, B)
    assert await _held(stores.two, B) == kept


async def test_selectors_that_select_nothing(stores: Stores) -> None:
    kept = await _put(stores.one, A)
    for selector in (
        Selector(route=RouteName("sim*")),
        Selector(tag="team"),
        Selector(RouteName("simple"), "v3"),
        Selector(pattern=Glob.of("acme")),
        Selector(pattern=Glob.of(r"gpt\*")),
        Selector(account=AccountId("")),
    ):
        assert await stores.two.invalidate(selector) == 0
        assert await _held(stores.one, A) == kept


@pytest.mark.parametrize("selector", [EVERYTHING, Selector(tag="v2"), Selector(pattern=Glob.of("*4o"))])
async def test_what_was_asked_for_before_and_is_put_after(stores: Stores, selector: Selector) -> None:
    """In flight while it was invalidated, on an instance that has or has not heard of it yet."""
    before = await _now(stores.one)
    await stores.two.invalidate(selector)
    await stores.one.put(A, answer(generation=before))  # which has not asked since
    await stores.two.put(C, answer(generation=before))
    assert await _now(stores.one) > before
    await stores.one.put(D, answer(generation=before))
    for store in (stores.one, stores.two):
        assert [await _held(store, cache_key) for cache_key in (A, C, D)] == [None] * 3
    kept = await _put(stores.one, A)
    assert await _held(stores.two, A) == kept
    await stores.one.put(A, answer(body=b"late", generation=before))
    assert await _held(stores.two, A) == kept
    unconcerned = answer(labels=_OTHERS, generation=before)
    if selector != EVERYTHING:
        assert await stores.one.put(B, unconcerned)
        assert await _held(stores.two, B) == unconcerned


async def test_many_invalidations_forget_too_much_and_never_too_little(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.core.invalidations.SELECTORS_MAX", 8)
    monkeypatch.setattr("proxy.stores.redis.cache.SELECTORS_MAX", 8)
    before = await _now(stores.one)
    await stores.one.invalidate(Selector(tag="v2"))
    await _put(stores.one, B)
    for number in range(7):
        await stores.two.invalidate(Selector(tag=f"document={number}"))
    assert await _held(stores.one, B) is not None
    for number in range(7, 9):  # the selector of B's tag is given up here, and everything as old as it
        kept = await _put(stores.one, C, labels=_OTHERS)
        await stores.two.invalidate(Selector(tag=f"document={number}"))
        await stores.one.put(A, answer(generation=before))
        for store in (stores.one, stores.two):
            assert await _held(store, A) is None
            assert await _held(store, C) == kept
    kept = await _put(stores.one, C, labels=_OTHERS)
    for _ in range(20):
        await stores.two.invalidate(Selector(tag="the same again"))
    assert await _held(stores.one, C) == kept


# Leases and waiting.


async def test_one_lease_a_key(stores: Stores) -> None:
    assert await stores.one.lease(A, "one", 60)
    assert not await stores.two.lease(A, "two", 60)
    assert await stores.two.lease(B, "two", 60)
    assert await stores.one.lease(A, "one", 60)
    await stores.two.release(A, "two")  # not its own
    assert not await stores.two.lease(A, "two", 60)
    await stores.one.release(A, "one")
    assert await stores.two.lease(A, "two", 60)
    await stores.one.release(A, "one")  # not its own any more
    assert not await stores.one.lease(A, "one", 60)
    await stores.one.release(C, "nobody")


async def test_a_lease_ends_by_itself_and_can_be_renewed(stores: Stores) -> None:
    assert await stores.one.lease(A, "one", 0.2)
    assert await stores.one.lease(B, "one", 0.05)
    assert await stores.one.lease(A, "one", 60)
    await asyncio.sleep(0.06)
    assert await stores.two.lease(B, "two", 60)
    assert not await stores.one.lease(B, "one", 60)
    await asyncio.sleep(0.15)
    assert not await stores.two.lease(A, "two", 60)


async def test_of_many_at_once_one_has_the_lease(stores: Stores) -> None:
    for _ in range(10):
        owners = [f"o{number}" for number in range(50)]
        taken = await asyncio.gather(
            *((stores.one, stores.two)[number % 2].lease(A, owner, 60) for number, owner in enumerate(owners))
        )
        assert taken.count(True) == 1
        await asyncio.gather(*(stores.two.release(A, owner) for owner in owners))


async def test_leases_and_answers_do_not_touch_each_other(stores: Stores) -> None:
    await stores.one.lease(A, "one", 60)
    assert await _held(stores.one, A) is None
    kept = await _put(stores.two, A)
    assert not await stores.two.lease(A, "two", 60)
    await stores.one.release(A, "one")
    assert await _held(stores.one, A) == kept
    await stores.one.lease(A, "one", 60)
    assert await stores.one.invalidate(EVERYTHING) == 1
    assert not await stores.two.lease(A, "two", 60)


async def test_followers_get_the_answer(stores: Stores) -> None:
    await stores.one.lease(A, "one", 60)
    following = [asyncio.create_task(store.wait(A, 5)) for store in (stores.one, stores.two) for _ in range(5)]
    await asyncio.sleep(0.12)
    kept = await _put(stores.one, A)
    await stores.one.release(A, "one")
    watch = Stopwatch.patient()
    assert await asyncio.gather(*following) == [kept] * 10
    assert watch.spent_s < 0.4
    assert await stores.two.wait(A, 0) == kept


async def test_followers_hear_that_there_will_be_none(stores: Stores) -> None:
    """F107: no hang of more than 1 s."""
    await stores.one.lease(A, "one", 60)
    following = asyncio.create_task(stores.two.wait(A, 5))
    await asyncio.sleep(0.02)
    await stores.one.release(A, "one")
    assert await asyncio.wait_for(following, 0.5) is None
    assert await stores.two.wait(A, 60) is None  # nobody fetches
    await stores.one.lease(A, "crashed", 0.1)
    assert await asyncio.wait_for(stores.two.wait(A, 5), 0.6) is None
    await stores.one.lease(A, "slow", 60)
    watch = Stopwatch.patient()
    assert await stores.two.wait(A, 0.15) is None
    assert watch.passed_s >= 0.149
    assert watch.spent_s < 0.6


async def test_followers_do_not_get_what_was_invalidated(stores: Stores) -> None:
    before = await _now(stores.one)
    await stores.one.lease(A, "one", 60)
    await stores.two.invalidate(Selector(tag="v2"))
    following = asyncio.create_task(stores.two.wait(A, 5))
    await stores.one.put(A, answer(generation=before))
    await asyncio.sleep(0.06)
    assert not following.done()
    await stores.one.release(A, "one")
    assert await asyncio.wait_for(following, 0.6) is None


# Any order of anything, against a dict and the list of all invalidations.

_NAMES = ["a", "b", "c"]
_ACTS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(_NAMES), st.none()),
    st.tuples(st.just("put"), st.sampled_from(_NAMES), st.integers(0, 5)),
    st.tuples(st.just("invalidate"), st.sampled_from(_NAMES), st.integers(0, 5)),
    st.tuples(st.just("lease"), st.sampled_from(_NAMES), st.sampled_from(["x", "y"])),
    st.tuples(st.just("release"), st.sampled_from(_NAMES), st.sampled_from(["x", "y"])),
)


def _labels_of(name: str, run: str) -> Labels:
    """Of one key always the same; `a` and `b` have a tag in common, `b` and `c` a route."""
    return Labels(
        RouteName(f"{'r' if name == 'a' else 's'}-{run}"),
        AccountId(f"{name}-{run}"),
        ProviderId("p"),
        f"m-{name}-{run}",
        (f"t-{run}",) if name != "c" else (),
    )


def _selector_of(name: str, kind: int, run: str) -> Selector:
    each = _labels_of(name, run)
    return (
        Selector(route=each.route),
        Selector(tag=f"t-{run}"),
        Selector(account=each.account),
        Selector(pattern=Glob.of(f"p/*{name}-{run}")),
        Selector(route=each.route, tag=f"t-{run}"),
        EVERYTHING,
    )[kind]


# The fixture is made once for all examples: each has names of its own.
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.tuples(st.booleans(), _ACTS), max_size=40))
async def test_any_order_of_anything(
    stores: Stores, acts: list[tuple[bool, tuple[str, str, int | str | None]]]
) -> None:
    run = secrets.token_hex(4)
    invalidated: list[Selector] = []
    asked: list[tuple[int, Generation]] = [(0, await _now(stores.one))]  # after how many invalidations
    held: dict[str, tuple[int, CachedAnswer]] = {}
    holders: dict[str, str] = {}
    for place, (first, (act, name, what)) in enumerate(acts):
        store = stores.one if first else stores.two
        cache_key = CacheKey(f"{name}-{run}")
        if act == "ask":
            found = await store.get(cache_key)
            after, expected = held.get(name, (0, None))
            if expected is not None and any(matches(each, expected.labels) for each in invalidated[after:]):
                expected = None
            assert found.answer == expected
            asked.append((len(invalidated), found.generation))
        elif act == "put":
            assert isinstance(what, int)
            after, generation = asked[-1 - what % len(asked)]
            made = replace(ANSWER, body=b"%d" % place, labels=_labels_of(name, run), generation=generation)
            await store.put(cache_key, made)
            if name not in held or held[name][0] <= after:
                held[name] = after, made
        elif act == "invalidate":
            assert isinstance(what, int)
            selector = _selector_of(name, what, run)
            await store.invalidate(selector)
            invalidated.append(selector)
        elif act == "lease":
            holder = holders.setdefault(name, str(what))
            assert await store.lease(cache_key, str(what), 60) == (holder == what)
        else:
            await store.release(cache_key, str(what))
            if holders.get(name) == what:
                del holders[name]
    for name, holder in holders.items():
        await stores.one.release(CacheKey(f"{name}-{run}"), holder)


async def test_at_once_nothing_stale_is_served(stores: Stores) -> None:
    """Askers, writers and invalidations together: what is got was never asked for before the last invalidation returned."""
    begun = done = 0  # invalidations that were sent, and that have returned

    async def invalidating() -> int:
        nonlocal begun, done
        for _ in range(15):
            begun += 1
            await stores.two.invalidate(Selector(route=RouteName("simple")))
            done += 1
            await asyncio.sleep(0.004)
        return 0

    async def exchanging(store: CacheStore) -> int:
        hits = 0
        while done < 15:
            already = done
            recalled = await store.get(A)
            if recalled.answer is not None:
                hits += 1
                assert int(recalled.answer.body) >= already
            else:
                generation, asked = await _now(store), begun
                await asyncio.sleep(0.002)
                await store.put(A, answer(body=b"%d" % asked, generation=generation))
            await asyncio.sleep(0)
        return hits

    hits = await asyncio.gather(*(exchanging(store) for store in (stores.one, stores.two) * 3), invalidating())
    assert sum(hits) > 0
