"""One suite for every store of limits: a new one is a line in `STORES`.

The oracle is the pure state machine (`proxy.core.limiting`), which has a slow reference of its own. Time is given, so that
leases end and buckets fill when a test says so; one test runs by the server's own clock.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core import bucket
from proxy.core.limiting import (
    NOTHING_TAKEN,
    LimitClaim,
    Limited,
    LimitId,
    LimitLease,
    LimitLeaseId,
    LimitSettlement,
    LimitStanding,
    LimitStates,
    Taken,
)
from proxy.ports import LimitStore
from proxy.stores.memory.limits import MemoryLimits
from proxy.stores.redis.connection import RedisConnection
from proxy.stores.redis.limits import RedisLimits
from tests.conformance.opening import STORES, Clock, by_clock
from tests.valkey import Valkey

LEASE_MS: Final = 60_000
T: Final = bucket.TOKEN_UNIT
R: Final = bucket.REQUEST_UNIT


Open = Callable[[Clock], AbstractAsyncContextManager[LimitStore]]


def opener(name: str, request: pytest.FixtureRequest) -> Open:
    """Opens a new and empty store."""
    return by_clock(
        name,
        request,
        lambda clock: MemoryLimits(clock, lease_ms=LEASE_MS),
        lambda connection, clock: RedisLimits(connection, lease_ms=LEASE_MS, now_ms=clock),
    )


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest) -> Open:
    return opener(request.param, request)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(open_store: Open, clock: Clock) -> AsyncIterator[LimitStore]:
    async with open_store(clock) as opened:
        yield opened
    await asyncio.sleep(0)


def claim(
    subject: str = "a",
    rps: float | None = None,
    burst: int | None = None,
    tpm: int | None = None,
    slots: int | None = None,
) -> LimitClaim:
    return LimitClaim(
        LimitId(subject),
        None if rps is None else bucket.requests(rps, burst),
        None if tpm is None else bucket.tokens(tpm),
        slots,
    )


def lease(name: str, *claims: LimitClaim, tokens: int = 0) -> LimitLease:
    return LimitLease(LimitLeaseId(name), claims, tokens)


def settlement(name: str, *claims: LimitClaim, change: int = 0) -> LimitSettlement:
    return LimitSettlement(LimitLeaseId(name), claims, change)


async def look(store: LimitStore, one: LimitClaim) -> LimitStanding:
    (standing,) = await store.look([one])
    return standing


async def taken(store: LimitStore, one: LimitLease) -> bool:
    return (await store.take(one)).refused is None


# Examples.


async def test_a_burst_and_then_the_rate(store: LimitStore, clock: Clock) -> None:
    one = claim(rps=10, burst=3)
    for number in range(3):
        assert await store.take(lease(str(number), one)) == Taken((LimitStanding((number + 1) * R, 0, 0),))
    assert await store.take(lease("x", one)) == Taken((LimitStanding(3 * R, 0, 0),), 0, Limited.REQUESTS, 100)
    clock.ms += 99
    assert (await store.take(lease("x", one))).wait_ms == 1
    clock.ms += 1
    assert await taken(store, lease("x", one))
    assert not await taken(store, lease("y", one))


async def test_tokens_are_put_right_once(store: LimitStore) -> None:
    """Below and above what was taken; twice, in one call and in two; and for what nobody has."""
    one = claim(tpm=1000)
    assert await taken(store, lease("a", one, tokens=400))
    assert await taken(store, lease("b", one, tokens=500))
    assert await store.take(lease("c", one, tokens=101)) == Taken(
        (LimitStanding(0, 900 * T, 2),), 0, Limited.TOKENS, 60
    )
    less = settlement("a", one, change=-390)
    await store.settle([less, less])
    await store.settle([less, settlement("never", one, change=-500)])
    assert await look(store, one) == LimitStanding(0, 510 * T, 1)
    await store.settle([settlement("b", one, change=700)])
    assert await look(store, one) == LimitStanding(0, 1210 * T, 0)
    assert (await store.take(lease("d", one))).wait_ms == 210 * 60, "who owes waits"
    assert await store.take(lease("e", one, tokens=1001)) == Taken(
        (LimitStanding(0, 1210 * T, 0),), 0, Limited.TOKENS, None
    )


async def test_nobody_owes_more_than_ten_minutes(store: LimitStore) -> None:
    one = claim(tpm=1000)
    assert await taken(store, lease("a", one, tokens=1))
    await store.settle([settlement("a", one, change=10**9)])
    assert await look(store, one) == LimitStanding(0, 10_000 * T, 0)


async def test_nothing_is_used_below_nothing(store: LimitStore, clock: Clock) -> None:
    one = claim(tpm=1000)
    assert await taken(store, lease("a", one, tokens=1000))
    clock.ms += 30_000
    await store.settle([settlement("a", one, change=-1000)])
    assert await look(store, one) == NOTHING_TAKEN


async def test_slots_are_leases(store: LimitStore, clock: Clock) -> None:
    one = claim(slots=2)
    assert await taken(store, lease("kept", one))
    assert await taken(store, lease("left", one))
    assert await store.take(lease("c", one)) == Taken((LimitStanding(0, 0, 2),), 0, Limited.SLOTS, None)
    await store.settle([settlement("left", one)])
    assert await taken(store, lease("left again", one))
    clock.ms += LEASE_MS - 1
    await store.renew([lease("kept", one)], "w")
    assert (await look(store, one)).running == 2
    clock.ms += 1
    assert (await look(store, one)).running == 1
    clock.ms += LEASE_MS - 2
    assert (await look(store, one)).running == 1
    clock.ms += 1
    assert (await look(store, one)).running == 0


async def test_what_runs_is_brought_back_even_above_the_limit(store: LimitStore) -> None:
    one = claim(slots=1)
    await store.renew([lease(name, one) for name in "abc"], "w")
    assert (await look(store, one)).running == 3
    assert not await taken(store, lease("d", one))
    await store.settle([settlement(name, one) for name in "abc"])
    assert await taken(store, lease("d", one))


async def test_all_subjects_or_none(store: LimitStore) -> None:
    own, shared = claim("own", rps=10, burst=5, slots=5), claim("shared", tpm=100, slots=5)
    assert await taken(store, lease("a", own, shared, tokens=60))
    refused = await store.take(lease("b", own, shared, tokens=60))
    assert (refused.refused, refused.limited, refused.wait_ms) == (1, Limited.TOKENS, 20 * 600)
    assert refused.standings == (LimitStanding(R, 0, 1), LimitStanding(0, 60 * T, 1))
    await store.settle([settlement("a", own, shared, change=-60)])
    assert list(await store.look([own, shared])) == [LimitStanding(R, 0, 0), NOTHING_TAKEN]


async def test_limits_that_are_changed_hold_at_once(store: LimitStore, clock: Clock) -> None:
    wide, narrow = claim(rps=10, burst=10, slots=10), claim(rps=1, burst=2, slots=1)
    for number in range(4):
        assert await taken(store, lease(str(number), wide))
    assert not await taken(store, lease("x", narrow))
    assert (await store.take(lease("x", narrow))).wait_ms == 3000
    await store.settle([settlement(str(number), narrow) for number in range(4)])
    clock.ms += 3000
    assert await taken(store, lease("x", narrow))
    assert await taken(store, lease("y", wide))


async def test_resetting_forgets_everything(store: LimitStore) -> None:
    one, other = claim("a", rps=1, tpm=100, slots=1), claim("b", slots=1)
    assert await taken(store, lease("a", one, other, tokens=100))
    assert await store.reset(one.subject) is True
    assert await store.reset(LimitId("nobody")) is False
    assert await look(store, one) == NOTHING_TAKEN
    assert (await look(store, other)).running == 1


async def test_many_leases_and_settlements_go_in_one_call(store: LimitStore) -> None:
    claims = [claim("a", slots=1000), claim("b", tpm=10_000)]
    assert await store.renew([lease(str(number), *claims) for number in range(120)], "w") == 1
    assert [one.running for one in await store.look(claims)] == [120, 120]
    await store.settle([settlement(str(number), *claims, change=2) for number in range(120)])
    assert list(await store.look(claims)) == [NOTHING_TAKEN, LimitStanding(0, 240 * T, 0)]


async def test_workers_count_each_other(store: LimitStore, clock: Clock) -> None:
    assert await store.renew([], "a") == 1
    assert await store.renew([], "b") == 2
    clock.ms += LEASE_MS // 3
    assert await store.renew([], "a") == 2
    clock.ms += LEASE_MS * 2 // 3
    assert await store.renew([], "a") == 1, "the other has died"


# Races.


async def test_of_1000_at_once_exactly_those_that_fit_are_let_in(store: LimitStore) -> None:
    own, shared = claim("own", rps=1, burst=300), claim("shared", tpm=100_000, slots=200)
    answers = await asyncio.gather(*(taken(store, lease(str(n), own, shared, tokens=700)) for n in range(1000)))
    assert sum(answers) == 100_000 // 700 == 142
    assert list(await store.look([own, shared])) == [LimitStanding(142 * R, 0, 0), LimitStanding(0, 142 * 700 * T, 142)]


async def test_a_race_on_one_key_by_several_workers(request: pytest.FixtureRequest, valkey: Valkey) -> None:
    """Each by a connection of its own, on the server's clock; as they come and go there are never more than the slots."""
    one = claim("raced", slots=7)
    connections = [RedisConnection(valkey.url, prefix="race", deadline_s=5.0) for _ in range(4)]
    stores = [RedisLimits(connection) for connection in connections]
    running = most = begun = 0

    async def exchange(number: int) -> None:
        nonlocal running, most, begun
        own = stores[number % 4]
        if not await taken(own, lease(str(number), one)):
            return
        running, begun = running + 1, begun + 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await own.settle([settlement(str(number), one)])

    await asyncio.gather(*(exchange(number) for number in range(400)))
    assert (await look(stores[0], one)).running == 0
    assert most <= 7 <= begun
    for connection in connections:
        await connection.close()


# Any order of events.

NAMES = st.sampled_from("abcde")
CLAIMS = st.builds(
    claim,
    st.sampled_from(["s", 't{}|" é', "u"]),
    st.none() | st.sampled_from([0.5, 1, 10]),
    st.integers(1, 4),
    st.none() | st.sampled_from([60, 100]),
    st.none() | st.integers(1, 3),
)
SOME_CLAIMS = st.lists(CLAIMS, min_size=1, max_size=3, unique_by=lambda one: one.subject).map(tuple)
TOKENS = st.integers(0, 130)
STEPS = st.one_of(
    st.tuples(st.just("take"), NAMES, SOME_CLAIMS, TOKENS),
    st.tuples(st.just("take"), NAMES, SOME_CLAIMS, TOKENS),
    st.tuples(st.just("settle"), st.lists(st.tuples(NAMES, SOME_CLAIMS, st.integers(-130, 2000)), max_size=4)),
    st.tuples(st.just("renew"), st.lists(st.tuples(NAMES, SOME_CLAIMS), max_size=3)),
    st.tuples(st.just("reset"), st.sampled_from("su")),
    st.tuples(st.just("wait"), st.sampled_from([-10, 1, 7, 500, 4000, LEASE_MS // 3, LEASE_MS])),
)
TRACES = st.lists(STEPS, min_size=1, max_size=40)
WATCHED: Final = [claim(subject, rps=1, burst=4, tpm=60, slots=3) for subject in ("s", 't{}|" é', "u")]


class Pure:
    """The state machine, called as a store is."""

    def __init__(self, clock: Clock) -> None:
        self._states, self._clock = LimitStates(LEASE_MS), clock

    async def take(self, one: LimitLease) -> Taken:
        return self._states.take(one, self._clock())

    async def renew(self, leases: Sequence[LimitLease], worker: str) -> int:
        self._states.renew(leases, self._clock())
        return 1

    async def settle(self, settlements: Sequence[LimitSettlement]) -> None:
        self._states.settle(settlements, self._clock())

    async def look(self, claims: Sequence[LimitClaim]) -> Sequence[LimitStanding]:
        return self._states.look(claims, self._clock())

    async def reset(self, subject: LimitId) -> bool:
        return self._states.reset(subject)


async def play(store: LimitStore, clock: Clock, trace: list[tuple[Any, ...]]) -> list[object]:
    """Every answer of a store to a trace, and after each step how the subjects stand."""
    answers: list[object] = []
    for number, (what, *values) in enumerate(trace):
        match what:
            case "take":
                name, claims, tokens = values
                answers.append(await store.take(lease(f"{name}{number if number % 2 else ''}", *claims, tokens=tokens)))
            case "settle":
                await store.settle([settlement(name, *claims, change=change) for name, claims, change in values[0]])
            case "renew":
                answers.append(await store.renew([lease(name, *claims) for name, claims in values[0]], "w"))
            case "reset":
                await store.reset(LimitId(values[0]))
            case "wait":
                clock.ms += values[0]
        answers.append(tuple(await store.look(WATCHED)))
    return answers


@pytest.mark.parametrize("name", STORES)
def test_one_trace_through_the_pure_machine_and_a_store_gives_equal_answers(
    name: str, request: pytest.FixtureRequest
) -> None:
    opened = opener(name, request)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def played(trace: list[tuple[Any, ...]]) -> tuple[list[object], list[object]]:
            clock, own = Clock(), Clock()
            async with opened(clock) as store:
                return await play(store, clock, trace), await play(Pure(own), own, trace)

        @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
        @given(TRACES)
        def equal(trace: list[tuple[Any, ...]]) -> None:
            found, expected = runner.run(played(trace))
            assert found == expected

        equal()


async def test_without_a_given_time_the_servers_clock_counts(valkey: Valkey) -> None:
    connection = RedisConnection(valkey.url, prefix="own clock", deadline_s=5.0)
    store = RedisLimits(connection, lease_ms=50)
    one = claim(rps=20, burst=1, slots=1)
    assert await taken(store, lease("a", one))
    assert not await taken(store, lease("b", one))
    async with asyncio.timeout(5):
        while not await taken(store, lease("b", one)):
            await asyncio.sleep(0.01)
    await connection.close()
