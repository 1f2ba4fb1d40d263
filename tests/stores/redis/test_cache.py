"""The cache on a real server: entries that somebody has spoilt, books that were evicted, a server that is away."""

import asyncio
import gc
import json
import pickle
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.core.cache_selector import EVERYTHING, Selector
from proxy.core.cached_answer import CachedAnswer, encode
from proxy.core.glob import Glob
from proxy.ports import StoreAway
from proxy.stores.redis.cache import ENTRY_BYTES_MAX, KEPT_MS_MAX, RedisCache
from proxy.stores.redis.connection import DEADLINE_S, RedisConnection
from proxy.terms import CacheKey, Generation, RouteName
from tests.cached_answers import ANSWER, answer, labels, stream
from tests.gateway import closed_port
from tests.stopwatch import Stopwatch
from tests.stores.redis.test_connection import SLACK_S, connected, insist, soon
from tests.valkey import Valkey

A, B = CacheKey("v1:a"), CacheKey("v1:b")
AT_A, AT_B = "penstock:{cache}:answer:v1:a", "penstock:{cache}:answer:v1:b"
AT_ONCE_S = DEADLINE_S / 2  # nothing is waited for; a busy machine may take its time
INDEX, ENDS, INVALIDATED = (f"penstock:{{cache}}:{name}" for name in ("index", "ends", "invalidations"))


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    """Of all tests together it has so much to look at that one run of it outlasts three deadlines."""
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def caching(server: Valkey, **options: Any) -> AsyncIterator[tuple[RedisCache, RedisConnection]]:
    async with connected(server.url, **options) as connection:
        yield RedisCache(connection), connection


async def put(cache: RedisCache, cache_key: CacheKey = A, **changes: Any) -> CachedAnswer:
    made = answer(generation=(await cache.get(CacheKey("v1:nobody's"))).generation, **changes)
    assert await cache.put(cache_key, made)
    return made


async def held(cache: RedisCache, cache_key: CacheKey = A) -> CachedAnswer | None:
    return (await cache.get(cache_key)).answer


# One round trip each.


async def _asked(connection: RedisConnection, operation: Awaitable[object]) -> int:
    """How many scripts have been run for it."""

    async def run() -> int:
        info = await connection.call("INFO", "commandstats")
        lines = [line for line in info.splitlines() if line.startswith(b"cmdstat_eval")]
        return sum(int(line.split(b"calls=")[1].split(b",")[0]) for line in lines)

    before = await run()
    await operation
    return await run() - before


async def test_one_round_trip_each(own_valkey: Valkey) -> None:
    async with caching(own_valkey) as (cache, connection):
        made = await put(cache)
        await cache.lease(A, "x", 1)
        await cache.release(A, "x")  # from now on the server knows the scripts
        await cache.invalidate(Selector(tag="v3"))
        assert await _asked(connection, cache.get(A)) == 1
        assert cache._known.head == (await cache.get(A)).generation  # what is known is not sent again
        assert await _asked(connection, cache.get(B)) == 1
        assert await _asked(connection, cache.put(A, made)) == 1
        assert await _asked(connection, cache.lease(A, "x", 1)) == 1
        assert await _asked(connection, cache.release(A, "x")) == 1


async def test_an_answer_leaves_by_itself(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        await put(cache, ttl_s=100.0)
        assert 99_000 < await connection.call("PTTL", AT_A) <= 100_000
        await put(cache, B, ttl_s=1e9)
        assert KEPT_MS_MAX - 5000 < await connection.call("PTTL", AT_B) <= KEPT_MS_MAX
        for books in (INDEX, ENDS, INVALIDATED):
            assert await connection.call("PTTL", books) > KEPT_MS_MAX


async def test_no_entry_is_so_large_that_its_deadline_is_at_risk(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, _):
        generation = (await cache.get(A)).generation
        assert not await cache.put(A, answer(body=secrets.token_bytes(ENTRY_BYTES_MAX), generation=generation))
        assert await held(cache) is None
        assert await cache.put(A, stream(100_000, generation=generation))  # 5 MB that deflate to little
        assert await held(cache) == stream(100_000, generation=generation)


async def test_what_counts_is_what_the_server_needs(valkey: Valkey) -> None:
    for made in (answer(), stream(200), answer(labels=labels(tags=tuple(f"tag={number}" for number in range(20))))):
        valkey.flush()
        async with caching(valkey) as (cache, connection):
            generation = (await cache.get(A)).generation
            for number in range(500):
                body = made.body + secrets.token_bytes(8)
                await cache.put(
                    CacheKey(f"v1:{number:064x}"), answer(body=body, labels=made.labels, generation=generation)
                )
            needed = sum([await connection.call("MEMORY", "USAGE", books, "SAMPLES", 0) for books in (INDEX, ENDS)])
            for number in range(500):
                needed += await connection.call("MEMORY", "USAGE", f"penstock:{{cache}}:answer:v1:{number:064x}")
            counted = (await cache.stats()).bytes
            assert 0.7 * counted < needed <= counted, (needed / 500, counted / 500)


# Entries that somebody has spoilt (F089).


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


async def test_spoilt_entries_are_misses(valkey: Valkey, tmp_path: Path) -> None:
    async with caching(valkey) as (cache, connection):
        made = await put(cache)
        blob = await connection.call("GET", AT_A)
        canary = tmp_path / "canary"
        spoilt = (
            b"",
            b"x",
            blob[:-1],
            blob[: len(blob) // 2],
            blob + b"x",
            blob[:40] + bytes([blob[40] ^ 1]) + blob[41:],
            blob[:4] + b"\x02" + blob[5:],
            encode(B, made),
            pickle.dumps(Evil(canary)),
            blob[:21] + pickle.dumps(Evil(canary)),
            b'{"status":200}',
            bytes(10_000),
        )
        for data in spoilt:
            await connection.call("SET", AT_A, data)
            assert await held(cache) is None
            await connection.call("SET", AT_A, blob)
            assert await held(cache) == made
        assert not canary.exists()
        assert connection.state.up


async def test_of_another_type_is_a_miss_and_is_replaced(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        for spoil in (("LPUSH", AT_A, "x"), ("HSET", AT_A, "x", "y"), ("SADD", AT_A, "x"), ("ZADD", AT_A, "1", "x")):
            await connection.call("DEL", AT_A)
            await connection.call(*spoil)
            for _ in range(6):  # more than failures that would send the connection down
                assert await held(cache) is None
            made = await put(cache)
            assert await held(cache) == made
        assert connection.state.last_error is None


async def test_books_that_somebody_has_spoilt(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        made = await put(cache)
        await connection.call("HSET", INDEX, "v1:a", "nonsense", "v1:c", "1 2 3", "v1:d", "\xff \xff \xff")
        assert await held(cache) == made
        assert await cache.invalidate(Selector(tag="v2")) == 0  # nobody knows where it is, and it is stale
        assert await held(cache) is None
        made = await put(cache)
        assert await held(cache) == made
        assert await cache.invalidate(Selector(tag="v2")) == 1
        for key, *spoil in ((INDEX, "SET", "x"), (ENDS, "SET", "x"), (INVALIDATED, "SET", "x")):
            await put(cache)
            await connection.call("DEL", key)
            await connection.call(spoil[0], key, spoil[1])
            with pytest.raises(StoreAway, match=r"WRONGTYPE|wrong kind"):
                await put(cache)
            await connection.call("DEL", key)
        assert connection.state.up


# Books that the server has evicted, or has never had.


async def test_without_the_invalidations_everything_is_stale(valkey: Valkey) -> None:
    async with caching(valkey) as (one, connection), caching(valkey) as (two, _):
        await put(one)
        assert await held(two) is not None
        before = (await one.get(A)).generation
        await one.invalidate(Selector(tag="v3"))
        await connection.call("DEL", INVALIDATED)
        for cache in (one, two):
            assert await held(cache) is None
            assert (await cache.get(A)).generation > before
        await one.put(B, answer(generation=before))
        assert await held(two, B) is None
        kept = await put(one)
        assert await held(two) == kept
        await connection.call("DEL", INVALIDATED)
        await two.invalidate(Selector(tag="v3"))
        assert await held(one) is None


async def test_what_was_given_up_is_stale_for_those_who_come_later(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.stores.redis.cache.SELECTORS_MAX", 3)
    async with caching(valkey) as (one, connection), caching(valkey) as (two, _):
        before = (await two.get(A)).generation
        for tag in ("v2", "x", "y"):
            await one.invalidate(Selector(tag=tag))
        kept = await put(one, B)
        await two.put(A, answer(generation=before))  # has not heard of them
        await one.invalidate(Selector(tag="z"))  # one more than are kept
        assert await connection.call("ZCARD", INVALIDATED) == 4
        later = RedisCache(connection)
        assert await held(later) is None
        assert await held(later, B) == kept


async def test_restarted_empty(own_valkey: Valkey) -> None:
    """F082: what was in flight may have been invalidated by what is lost."""
    async with caching(own_valkey) as (cache, connection):
        before = (await cache.get(A)).generation
        own_valkey.stop()
        own_valkey.start()
        assert await insist(connection, "PING") == b"PONG"
        await cache.put(A, answer(generation=before))
        assert await held(cache) is None
        kept = await put(cache)
        assert await held(cache) == kept


async def test_a_replica_that_had_not_heard_of_all(valkey: Valkey) -> None:
    """F083: its generation is lower than what is known here."""
    async with caching(valkey) as (one, connection), caching(valkey) as (two, _):
        before = (await two.get(A)).generation
        await one.invalidate(Selector(tag="b"))
        await two.put(B, answer(generation=before, labels=labels(tags=("b",))))  # has not heard of it
        kept = await put(one)
        head = (await one.get(A)).generation
        await connection.call("ZADD", INVALIDATED, head + 50_000_000, '{"tag":"v2"}')
        assert await held(one) is None
        await connection.call("ZREM", INVALIDATED, '{"tag":"v2"}')
        for cache in (one, two):
            recalled = await cache.get(A)
            assert (recalled.answer, recalled.generation) == (kept, head)
            assert await held(cache, B) is None  # the server knows of this one, and tells it again
        await two.invalidate(Selector(tag="v2"))
        assert await held(one) is None
        kept = await put(one)
        assert await held(two) == kept


async def test_a_clock_that_is_set_back(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        future = (await cache.get(A)).generation + 10**12
        await connection.call("ZADD", INVALIDATED, future, '{"tag":"v3"}')
        kept = await put(cache)
        assert kept.generation == future
        assert await cache.invalidate(Selector(tag="v2")) == 1
        assert (await cache.get(A)).generation == future + 1
        await cache.put(A, kept)
        assert await held(cache) is None


async def test_evicted_books_heal(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        cache = RedisCache(connection, bytes_max=15_000)
        for round_ in range(3):
            for lost in ([INDEX], [ENDS], [INDEX, ENDS]):
                for number in range(30):
                    await put(cache, CacheKey(f"v1:{round_}-{number}"), body=secrets.token_bytes(300))
                await connection.call("DEL", *lost)
        for number in range(60):
            made = await put(cache, CacheKey(f"v1:{number}"), body=secrets.token_bytes(300))
            assert await held(cache, CacheKey(f"v1:{number}")) == made
            assert (await cache.stats()).bytes <= 15_000
        stats = await cache.stats()
        assert stats.entries == await connection.call("HLEN", INDEX) - 1
        assert await cache.invalidate(EVERYTHING) == stats.entries
        assert (await cache.stats()).bytes == 0


async def test_evicted_answers(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        await put(cache)
        await put(cache, B)
        await connection.call("DEL", AT_A)
        assert await held(cache) is None
        assert await cache.invalidate(EVERYTHING) == 1
        assert (await cache.stats()).bytes == 0
        early = answer(generation=(await cache.get(A)).generation)
        await cache.invalidate(Selector(tag="v3"))
        await put(cache)
        assert not await cache.put(A, early)
        await connection.call("DEL", AT_A)
        assert await cache.put(A, early)
        assert await held(cache) == early


async def test_a_large_one_makes_room_bit_by_bit(valkey: Valkey) -> None:
    """One put drops so many at most, so that the server is there for others."""
    async with connected(valkey.url) as connection:
        cache = RedisCache(connection, bytes_max=400_000)
        generation = (await cache.get(A)).generation
        for number in range(400):
            await put(cache, CacheKey(f"v1:{number}"), ttl_s=1000.0 + number)
        large = answer(body=secrets.token_bytes(390_000), generation=generation)
        for _ in range(4):
            if await cache.put(A, large):
                break
            assert (await cache.stats()).bytes <= 400_000
        assert await held(cache) == large


# Telling.


async def test_an_invalidation_is_published(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, connection):
        heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        listening = asyncio.create_task(connection.listen("penstock:events:0", heard.put_nowait))
        assert await asyncio.wait_for(heard.get(), 5) is None
        for selector, told in (
            (EVERYTHING, {}),
            (Selector(RouteName("simple"), tag="team=\u00e9"), {"route": "simple", "tag": "team=\u00e9"}),
            (Selector(pattern=Glob.of(r"gpt-\*\\*")), {"pattern": r"gpt-\*\\*"}),
        ):
            await cache.invalidate(selector)
            message = await asyncio.wait_for(heard.get(), 5)
            assert json.loads(message or b"") == {"kind": "cache.invalidated", "selector": told}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_tag_with_any_bytes_is_invalidated_and_published(valkey: Valkey) -> None:
    async with caching(valkey) as (cache, _):
        tag = b"a=\xff\xfe".decode("utf-8", "surrogateescape")
        await put(cache, labels=labels(tags=(tag,)))
        assert await cache.invalidate(Selector(tag=tag)) == 1


# Away.


def _operations(cache: RedisCache) -> list[Awaitable[object]]:
    made = answer(generation=Generation(1))
    return [
        cache.get(A),
        cache.put(A, made),
        cache.stats(),
        cache.lease(A, "me", 5),
        cache.release(A, "me"),
        cache.wait(A, 5),
        cache.invalidate(EVERYTHING),
    ]


async def _all_away(cache: RedisCache, within_s: float) -> None:
    for operation in _operations(cache):
        watch = Stopwatch()
        with pytest.raises(StoreAway):
            await operation
        assert watch.spent_s <= within_s


async def test_refused() -> None:
    async with connected(f"redis://127.0.0.1:{closed_port()}", deadline_s=DEADLINE_S) as connection:
        await _all_away(RedisCache(connection), AT_ONCE_S)


async def test_stopped_and_hung(own_valkey: Valkey) -> None:
    async with caching(own_valkey, deadline_s=DEADLINE_S) as (cache, connection):
        for away, back in ((own_valkey.pause, own_valkey.resume), (own_valkey.stop, own_valkey.start)):
            await soon(lambda: connection.state.up)
            assert await insist(connection, "PING") == b"PONG"
            away()
            await _all_away(cache, DEADLINE_S + SLACK_S)
            assert not connection.state.up
            await _all_away(cache, AT_ONCE_S)
            back()
            await soon(lambda: connection.state.up)


@pytest.mark.parametrize(
    ("break_it", "heal_it"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("CONFIG SET min-replicas-to-write 3", "CONFIG SET min-replicas-to-write 0"),
    ],
)
async def test_a_server_that_takes_no_writes(own_valkey: Valkey, break_it: str, heal_it: str) -> None:
    async with caching(own_valkey) as (cache, connection):
        kept = await put(cache)
        assert own_valkey.send(*break_it.split()) == b"+OK\r\n"
        for _ in range(5):
            with pytest.raises(StoreAway):
                await cache.put(B, kept)
        assert not connection.state.up
        assert own_valkey.send(*heal_it.split()) == b"+OK\r\n"
        await soon(lambda: connection.state.up)
        assert (await cache.get(B)).answer is None
        kept = await put(cache)
        assert await held(cache) == kept


async def test_a_full_server_still_takes_invalidations(own_valkey: Valkey) -> None:
    async with caching(own_valkey) as (one, connection), caching(own_valkey) as (two, _):
        for selector in (Selector(tag="v2"), EVERYTHING):
            await put(one)
            await connection.call("CONFIG", "SET", "maxmemory", "1")
            assert await one.invalidate(selector) == 1
            assert await held(two) is None
            await connection.call("CONFIG", "SET", "maxmemory", "0")


async def test_a_sweep_that_is_cut_off_leaves_nothing_to_be_served(own_valkey: Valkey) -> None:
    async with caching(own_valkey) as (one, connection), caching(own_valkey) as (two, _):
        for number in range(2000):
            await put(one, CacheKey(f"v1:{number}"))
        sweep = asyncio.create_task(two.invalidate(Selector(tag="v2")))
        while (await one.get(CacheKey("v1:0"))).answer is not None:
            await asyncio.sleep(0)
        await connection.call("ACL", "SETUSER", "default", "-hscan")
        assert await asyncio.wait_for(sweep, 5) < 2000
        assert own_valkey.send("ACL", "SETUSER", "default", "+hscan") == b"+OK\r\n"
        for number in range(0, 2000, 97):
            assert await held(one, CacheKey(f"v1:{number}")) is None
        kept = await put(one, A)
        dropped = await two.invalidate(Selector(tag="v4"))  # which finds none of them
        assert dropped == 0
        assert await held(one) == kept


async def test_scripts_that_were_flushed(own_valkey: Valkey) -> None:
    """F086."""
    async with caching(own_valkey) as (cache, connection):
        for _ in range(3):
            kept = await put(cache)
            await connection.call("SCRIPT", "FLUSH")
            assert await held(cache) == kept
            await connection.call("SCRIPT", "FLUSH")
            assert await cache.invalidate(EVERYTHING) == 1


async def test_cancelled_at_random_nothing_is_taken_for_another_s(own_valkey: Valkey) -> None:
    """F087, F108: an answer never comes under another key than its own."""
    async with caching(own_valkey) as (cache, _):
        keys = [CacheKey(f"v1:{number}") for number in range(20)]
        for cache_key in keys:
            await put(cache, cache_key, body=cache_key.encode())

        async def ask(number: int) -> None:
            cache_key = keys[number % 20]
            found = await held(cache, cache_key)
            assert found is not None
            assert found.body == cache_key.encode()

        began = time.monotonic()
        for turn in range(60):
            asking = [asyncio.create_task(ask(number)) for number in range(20)]
            await asyncio.sleep(0.0002 * (turn % 5))
            for task in asking[turn % 3 :: 2]:
                task.cancel()
            for outcome in await asyncio.gather(*asking, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        assert time.monotonic() - began < 30


def test_the_answer_in_these_tests_is_as_others_know_it() -> None:
    assert ANSWER.labels.tags == ("team=a", "v2")
