"""What every breaker store must do. A new one is a line in `STORES`."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.breaker import Subject
from proxy.ports import NOTHING_STORED, BreakerStore, Change, Stored
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.redis.breakers import RedisBreakers
from tests.conformance.opening import STORES, Two, twice
from tests.stopwatch import Stopwatch

A, B, C = Subject("openai/gpt-4o"), Subject("odd/ {name}:\r\n\u00e9"), Subject("openai#1a2b3c4d")
ODD_BYTES = bytes(range(256)) + b" 1 2 \r\n"


Stores = Two[BreakerStore]


def opened(request: pytest.FixtureRequest, records_max: int) -> AbstractAsyncContextManager[Stores]:
    return twice(
        request.param,
        request,
        lambda: MemoryBreakers(time.monotonic, records_max=records_max),
        lambda connection: RedisBreakers(connection, records_max=records_max),
    )


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with opened(request, 4096) as made:
        yield made


@pytest.fixture(params=STORES)
async def small_stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with opened(request, 3) as made:
        yield made


async def test_nothing_is_held_at_first(stores: Stores) -> None:
    assert await stores.one.load() == {}


async def test_what_one_stores_all_load(stores: Stores) -> None:
    assert await stores.one.swap(A, 0, b"{}", 60) is None
    assert await stores.two.swap(B, 0, ODD_BYTES, 60) is None
    assert await stores.one.swap(C, 0, b"", 60) is None
    for store in (stores.one, stores.two):
        assert await store.load() == {A: Stored(1, b"{}"), B: Stored(1, ODD_BYTES), C: Stored(1, b"")}


async def test_a_swap_needs_the_version_that_is_held(stores: Stores) -> None:
    assert await stores.one.swap(A, 7, b"x", 60) == NOTHING_STORED
    assert await stores.one.swap(A, 0, b"one", 60) is None
    assert await stores.two.swap(A, 0, b"two", 60) == Stored(1, b"one")
    assert await stores.two.swap(A, 2, b"two", 60) == Stored(1, b"one")
    assert await stores.two.swap(A, 1, b"two", 60) is None
    assert await stores.one.swap(A, 1, b"one", 60) == Stored(2, b"two")
    assert await stores.one.load() == {A: Stored(2, b"two")}


async def test_what_has_had_its_time_is_gone(stores: Stores) -> None:
    await stores.one.swap(A, 0, b"a", 0.05)
    await stores.one.swap(B, 0, b"b", 60)
    await asyncio.sleep(0.06)
    assert await stores.one.load() == {B: Stored(1, b"b")}
    await stores.one.swap(C, 0, b"c", 0.05)
    await asyncio.sleep(0.06)
    assert await stores.one.swap(C, 1, b"c", 60) == NOTHING_STORED
    assert (await stores.one.lease(C, "me", 60)).stored == NOTHING_STORED
    assert await stores.one.swap(C, 0, b"new", 60) is None
    assert (await stores.two.load())[C] == Stored(1, b"new")


async def test_a_full_store_drops_what_would_be_gone_first(small_stores: Stores) -> None:
    store = small_stores.one
    for subject, keep_s in ((A, 60.0), (B, 30.0), (C, 90.0)):
        await store.swap(subject, 0, b"x", keep_s)
    new = Subject("p/new")
    assert await store.swap(new, 0, b"y", 5.0) is None
    assert set(await store.load()) == {A, C, new}
    assert await store.swap(A, 1, b"z", 60.0) is None  # what is held already needs no room
    assert set(await store.load()) == {A, C, new}
    await store.swap(new, 1, b"y", 0.03)
    await asyncio.sleep(0.04)
    assert await store.swap(B, 0, b"x", 60) is None
    assert set(await store.load()) == {A, B, C}


async def test_one_lease_a_subject(stores: Stores) -> None:
    assert (await stores.one.lease(A, "one", 60)).wait_s == 0
    assert 59 < (await stores.two.lease(A, "two", 60)).wait_s <= 60
    assert (await stores.two.lease(B, "two", 60)).wait_s == 0
    assert (await stores.one.lease(A, "one", 90)).wait_s == 0
    assert (await stores.two.lease(A, "two", 60)).wait_s > 80
    await stores.two.unlease(A, "two")
    assert (await stores.two.lease(A, "two", 60)).wait_s > 0
    await stores.one.unlease(A, "one")
    assert (await stores.two.lease(A, "two", 60)).wait_s == 0
    await stores.one.unlease(A, "one")  # not its own any more
    assert (await stores.one.lease(A, "three", 60)).wait_s > 0
    await stores.one.unlease(C, "nobody")


async def test_a_lease_ends_by_itself(stores: Stores) -> None:
    await stores.one.lease(A, "one", 0.05)
    lease = await stores.two.lease(A, "two", 60)
    assert 0 < lease.wait_s <= 0.05
    await asyncio.sleep(0.06)
    assert (await stores.two.lease(A, "two", 60)).wait_s == 0


async def test_who_asks_for_a_lease_hears_what_is_stored(stores: Stores) -> None:
    assert (await stores.one.lease(B, "one", 60)).stored == NOTHING_STORED
    await stores.one.swap(B, 0, ODD_BYTES, 60)
    await stores.one.swap(B, 1, ODD_BYTES, 60)
    for owner in ("one", "two"):
        assert (await stores.two.lease(B, owner, 60)).stored == Stored(2, ODD_BYTES)


async def test_leases_and_records_do_not_touch_each_other(stores: Stores) -> None:
    await stores.one.lease(A, "one", 60)
    assert await stores.one.load() == {}
    await stores.one.swap(A, 0, b"x", 60)
    await stores.one.unlease(A, "one")
    assert await stores.one.load() == {A: Stored(1, b"x")}


@asynccontextmanager
async def _listening(store: BreakerStore) -> AsyncIterator["asyncio.Queue[Change | None]"]:
    heard: asyncio.Queue[Change | None] = asyncio.Queue()
    task = asyncio.create_task(store.listen(heard.put_nowait))
    assert await asyncio.wait_for(heard.get(), 5) is None
    try:
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_all_hear_of_a_swap_soon(stores: Stores) -> None:
    async with _listening(stores.one) as one, _listening(stores.two) as two:
        await stores.one.swap(B, 0, ODD_BYTES, 60)
        watch = Stopwatch.patient()
        for heard in (one, two):
            assert await asyncio.wait_for(heard.get(), 5) == Change(B, Stored(1, ODD_BYTES))
        assert watch.spent_s < 0.25
        await stores.two.swap(B, 0, b"refused", 60)
        await stores.two.lease(B, "two", 60)
        await stores.two.swap(B, 1, b"next", 60)
        for heard in (one, two):
            assert await asyncio.wait_for(heard.get(), 5) == Change(B, Stored(2, b"next"))
            assert heard.empty()


async def test_who_listens_no_more_hears_nothing(stores: Stores) -> None:
    async with _listening(stores.one) as heard:
        await stores.one.swap(A, 0, b"x", 60)
        await asyncio.wait_for(heard.get(), 5)
    await stores.one.swap(A, 1, b"y", 60)
    await asyncio.sleep(0.02)
    assert heard.empty()


async def test_of_many_at_once_one_swap_wins(stores: Stores) -> None:
    for version in range(20):
        found = await asyncio.gather(
            *((stores.one, stores.two)[n % 2].swap(A, version, b"%d" % n, 60) for n in range(20))
        )
        winners = [n for n, stored in enumerate(found) if stored is None]
        assert len(winners) == 1
        assert {stored for stored in found if stored is not None} == {Stored(version + 1, b"%d" % winners[0])}
        assert await stores.two.load() == {A: Stored(version + 1, b"%d" % winners[0])}


async def test_of_many_at_once_one_has_the_lease(stores: Stores) -> None:
    for _ in range(20):
        leases = await asyncio.gather(*((stores.one, stores.two)[n % 2].lease(A, f"o{n}", 60) for n in range(20)))
        winners = [n for n, lease in enumerate(leases) if lease.wait_s == 0]
        assert len(winners) == 1
        await stores.two.unlease(A, f"o{winners[0]}")


# Any order of anything, against two dicts.

_SUBJECTS = st.sampled_from([A, B, C])
_OWNERS = st.sampled_from(["one", "two"])
_ACTS = st.one_of(
    st.tuples(st.just("swap"), _SUBJECTS, st.integers(0, 3), st.sampled_from([b"", b"x", ODD_BYTES])),
    st.tuples(st.just("lease"), _SUBJECTS, _OWNERS, st.none()),
    st.tuples(st.just("unlease"), _SUBJECTS, _OWNERS, st.none()),
    st.tuples(st.just("load"), st.just(A), st.none(), st.none()),
)


# The fixture is made once for all examples: each has subjects of its own.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.tuples(st.booleans(), _ACTS), max_size=30))
async def test_any_order_of_anything(
    stores: Stores, acts: list[tuple[bool, tuple[str, Subject, object, object]]]
) -> None:
    name = secrets.token_hex(4)
    records: dict[Subject, Stored] = {}
    holders: dict[Subject, str] = {}
    for first, (act, each, what, data) in acts:
        store = stores.one if first else stores.two
        subject = Subject(f"{each}-{name}")
        held = records.get(subject, NOTHING_STORED)
        if act == "swap":
            assert isinstance(what, int)
            assert isinstance(data, bytes)
            found = await store.swap(subject, what, data, 60)
            assert found == (None if what == held.version else held)
            if found is None:
                records[subject] = Stored(what + 1, data)
        elif act == "lease":
            lease = await store.lease(subject, str(what), 60)
            holder = holders.setdefault(subject, str(what))
            assert (lease.wait_s == 0) == (holder == what)
            assert lease.stored == held
        elif act == "unlease":
            await store.unlease(subject, str(what))
            if holders.get(subject) == what:
                del holders[subject]
        else:
            loaded = await store.load()
            assert {known: stored for known, stored in loaded.items() if known in records} == records
    for subject, holder in holders.items():
        await stores.one.unlease(subject, holder)
