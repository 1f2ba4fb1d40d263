"""One suite for every store of budgets: a new one is a line in `STORES`.

The oracle is the pure state machine (`proxy.core.budget`), which has a slow reference of its own. Time is given, so that
leases end when a test says so; one test runs by the server's own clock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.budget import (
    LAPSED_KEPT_MS,
    MONEY_MAX,
    PROXY,
    AlertLevel,
    Audit,
    Book,
    Budget,
    BudgetLease,
    Claim,
    Settlement,
    Standing,
    account_subject,
    reserve,
    seeded,
)
from proxy.core.window import Period, window_at
from proxy.ports import SEEDING_MS, BudgetStore, Reservation, Unseeded
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.redis.budgets import RedisBudgets
from proxy.terms import AccountId, ExchangeId, NanoUsd
from tests.conformance.opening import STORES, Clock, by_clock, connected
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

LEASE_MS: Final = 60_000
NOW: Final = 1_800_000_000
ACME, GLOBEX = account_subject(AccountId("acme")), account_subject(AccountId('g{}|" é'))
DAY, MONTH = (window_at(period, ZoneInfo("UTC"), NOW) for period in (Period.DAILY, Period.MONTHLY))
BOOKS: Final = tuple(Book(subject, window) for subject in (ACME, GLOBEX, PROXY) for window in (DAY, MONTH))
BOOK: Final = BOOKS[0]


Open = Callable[[Clock], AbstractAsyncContextManager[BudgetStore]]


def opener(name: str, request: pytest.FixtureRequest) -> Open:
    """Opens a new and empty store."""
    return by_clock(
        name,
        request,
        lambda clock: MemoryBudgets(clock, lease_ms=LEASE_MS),
        lambda connection, clock: RedisBudgets(connection, lease_ms=LEASE_MS, now_ms=clock),
    )


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest) -> Open:
    return opener(request.param, request)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(open_store: Open, clock: Clock) -> AsyncIterator[BudgetStore]:
    async with open_store(clock) as opened:
        yield opened
    await asyncio.sleep(0)


def lease(exchange: str, amount: int, *claims: tuple[Book, int], admitted_ms: int = NOW * 1000) -> BudgetLease:
    made = tuple(Claim(book, NanoUsd(cap)) for book, cap in claims)
    return BudgetLease(ExchangeId(exchange), made, NanoUsd(amount), admitted_ms)


def settlement(exchange: str, actual: int, *books: Book) -> Settlement:
    return Settlement(ExchangeId(exchange), books, NanoUsd(actual))


def sums(standing: Standing) -> tuple[int, int]:
    return standing.spent_nanousd, standing.held_nanousd


async def seed(store: BudgetStore, *books: Book, spent: int = 0, mark_ms: int = NOW * 1000) -> None:
    for book in books:
        assert isinstance(await store.seed(book, NanoUsd(spent), mark_ms), Standing)


async def look(store: BudgetStore, book: Book = BOOK) -> tuple[int, int]:
    standings = await store.look([book])
    return sums(standings[book])


async def admitted(store: BudgetStore, one: BudgetLease, worker: str = "w") -> bool:
    answer = await store.reserve(one, worker)
    assert isinstance(answer, Reservation)
    return answer.refused is None


# Examples.


async def test_a_book_without_a_state_is_not_an_empty_one(store: BudgetStore, clock: Clock) -> None:
    one = lease("a", 10, (BOOKS[0], 100), (BOOKS[1], 100))
    await seed(store, BOOKS[1])
    assert await store.reserve(one, "w1") == Unseeded((BOOKS[0],), ())
    assert await store.reserve(one, "w2") == Unseeded((), (BOOKS[0],))
    clock.ms += SEEDING_MS
    assert await store.reserve(one, "w2") == Unseeded((BOOKS[0],), ())
    await seed(store, BOOKS[0], spent=95)
    answer = await store.reserve(one, "w1")
    assert isinstance(answer, Reservation)
    assert answer.refused == 0
    assert [sums(standing) for standing in answer.standings] == [(95, 0), (0, 0)]


async def test_who_seeds_second_changes_nothing(store: BudgetStore) -> None:
    first = await store.seed(BOOK, NanoUsd(10), 0)
    assert await store.seed(BOOK, NanoUsd(99), 0) == first
    assert await store.look(BOOKS) == {BOOK: first}


async def test_each_state_has_an_epoch_of_its_own(store: BudgetStore) -> None:
    standings = [await store.seed(book, NanoUsd(0), 0) for book in BOOKS]
    assert len({one.epoch for one in standings}) == len(BOOKS)


async def test_all_books_or_none(store: BudgetStore) -> None:
    await seed(store, *BOOKS)
    assert await admitted(store, lease("a", 60, (BOOKS[0], 100), (BOOKS[4], 100)))
    answer = await store.reserve(lease("b", 60, (BOOKS[2], 100), (BOOKS[4], 100)), "w")
    assert isinstance(answer, Reservation)
    assert answer.refused == 1
    assert [sums(standing) for standing in answer.standings] == [(0, 0), (0, 60)]
    assert await look(store, BOOKS[2]) == (0, 0)


async def test_a_settlement_counts_once(store: BudgetStore, clock: Clock) -> None:
    """Twice, in one call and in two; after the lease; in a book that has no state."""
    await seed(store, *BOOKS[:2])
    claims = [(book, 1000) for book in BOOKS[:2]]
    for exchange in ("twice", "late"):
        assert await admitted(store, lease(exchange, 100, *claims))
    twice = settlement("twice", 30, *BOOKS[:3])
    standings = await store.settle([twice, twice])
    assert {book: sums(one) for book, one in standings.items()} == {BOOKS[0]: (30, 100), BOOKS[1]: (30, 100)}
    await store.settle([twice])
    clock.ms += LEASE_MS
    assert await look(store) == (30, 0)
    for _ in range(2):
        await store.settle([settlement("late", 500, *BOOKS[:2])])
    assert await look(store) == (530, 0)


async def test_a_lease_ends_when_it_is_not_renewed(store: BudgetStore, clock: Clock) -> None:
    await seed(store, BOOK)
    kept, left = lease("kept", 40, (BOOK, 100)), lease("left", 60, (BOOK, 100))
    assert await admitted(store, kept)
    assert await admitted(store, left)
    clock.ms += LEASE_MS - 1
    assert await store.renew([kept]) == frozenset()
    assert not await admitted(store, lease("c", 1, (BOOK, 100)))
    clock.ms += 1
    assert await look(store) == (0, 40)
    clock.ms += LEASE_MS - 2
    assert await look(store) == (0, 40)


async def test_renewing_brings_leases_back_but_never_above_the_cap(store: BudgetStore, clock: Clock) -> None:
    await seed(store, BOOK)
    assert await store.renew([lease("a", 60, (BOOK, 100), (BOOKS[1], 100))]) == frozenset([BOOKS[1]])
    assert await look(store) == (0, 60)
    await store.renew([lease("b", 60, (BOOK, 100))])
    assert await look(store) == (0, 60)
    await store.settle([settlement("b", 7, BOOK)])
    assert await look(store) == (7, 60)


async def test_many_leases_and_settlements_go_in_one_call(store: BudgetStore) -> None:
    await seed(store, *BOOKS)
    leases = [lease(str(number), 1, *((book, 1000) for book in BOOKS)) for number in range(120)]
    assert await store.renew(leases) == frozenset()
    assert await look(store, BOOKS[-1]) == (0, 120)
    standings = await store.settle([settlement(str(number), 2, *BOOKS) for number in range(120)])
    assert {book: sums(one) for book, one in standings.items()} == dict.fromkeys(BOOKS, (240, 0))


async def test_what_lapsed_is_forgotten_in_the_end(store: BudgetStore, clock: Clock) -> None:
    await seed(store, BOOK)
    for number in range(250):
        assert await admitted(store, lease(str(number), 1, (BOOK, 1000)))
    clock.ms += LEASE_MS
    assert await look(store) == (0, 0)
    clock.ms += LAPSED_KEPT_MS
    await store.settle([settlement("0", 5, BOOK)])
    assert await look(store) == (0, 0)


async def test_an_audit_repairs_once(store: BudgetStore, clock: Clock) -> None:
    mark_ms = NOW * 1000
    await seed(store, BOOK, spent=100, mark_ms=mark_ms)
    clock.ms += 1000
    for exchange, at_ms in (("done", mark_ms - 1), ("open", mark_ms - 1), ("since", mark_ms)):
        assert await admitted(store, lease(exchange, 10, (BOOK, 1000), admitted_ms=at_ms))
    await store.settle([settlement("done", 7, BOOK), settlement("since", 5, BOOK)])
    audit = await store.audit(BOOK, 20_000)
    assert isinstance(audit, Audit)
    assert (audit.spent_nanousd, audit.mark_ms, audit.open_ids) == (107, mark_ms, ("open",))
    assert await store.audit(BOOK, 20_000) is None
    assert await store.repair(BOOK, audit.number, NanoUsd(30), clock.ms) is True
    assert await store.repair(BOOK, audit.number, NanoUsd(30), clock.ms) is False
    assert await look(store) == (142, 10)
    assert await store.audit(BOOKS[1], 0) is None
    assert await store.repair(BOOKS[1], 1, NanoUsd(1), 0) is False


async def test_an_alert_is_for_one_worker(store: BudgetStore) -> None:
    assert await store.alert(BOOK, AlertLevel.THRESHOLD, "a") is False
    await seed(store, BOOK)
    threshold, limit = AlertLevel.THRESHOLD, AlertLevel.LIMIT
    calls = [(threshold, "a"), (threshold, "b"), (threshold, "a"), (limit, "b"), (threshold, "a")]
    asked = [await store.alert(BOOK, level, worker) for level, worker in calls]
    assert asked == [True, False, True, True, False]
    standings = await store.look([BOOK])
    assert standings[BOOK].alerted is AlertLevel.LIMIT


async def test_money_is_exact_to_the_nano_dollar_at_its_limit(store: BudgetStore) -> None:
    await seed(store, BOOK, spent=MONEY_MAX - 10)
    assert await admitted(store, lease("a", 10, (BOOK, MONEY_MAX)))
    assert not await admitted(store, lease("b", 1, (BOOK, MONEY_MAX)))
    await store.settle([settlement("a", 9, BOOK)])
    assert await look(store) == (MONEY_MAX - 1, 0)
    assert await admitted(store, lease("c", 1, (BOOK, MONEY_MAX)))
    await store.settle([settlement("c", MONEY_MAX, BOOK)])
    assert await look(store) == (MONEY_MAX, 0)


@pytest.mark.parametrize("amount", [-1, MONEY_MAX + 1])
async def test_what_is_no_money_is_refused(store: BudgetStore, amount: int) -> None:
    await seed(store, BOOK)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.reserve(lease("a", amount, (BOOK, 100)), "w"),
        lambda: store.reserve(lease("a", 1, (BOOK, amount)), "w"),
        lambda: store.settle([settlement("a", amount, BOOK)]),
        lambda: store.seed(BOOK, NanoUsd(amount), 0),
        lambda: store.repair(BOOK, 0, NanoUsd(amount), 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="nano-USD"):
            await call()
    assert await look(store) == (0, 0)


# Races.


async def test_of_500_at_once_exactly_those_that_fit_are_admitted(store: BudgetStore) -> None:
    """A cap of 100,000 and a worst case of 700 each: 142, while none settles."""
    await seed(store, *BOOKS)
    claims = [(book, 100_000) for book in (BOOKS[0], BOOKS[4], BOOKS[5])]
    answers = await asyncio.gather(*(admitted(store, lease(str(number), 700, *claims)) for number in range(500)))
    assert sum(answers) == 100_000 // 700 == 142
    assert await look(store) == (0, 142 * 700)


async def test_settled_as_they_come_the_cap_holds_at_every_sample(store: BudgetStore) -> None:
    """Each is settled with what it held, so that what is spent in the end is at most the cap, and nearly all of it."""
    await seed(store, BOOK)

    async def exchange(number: int) -> int:
        amount = 400 + number % 7 * 100
        if not await admitted(store, lease(str(number), amount, (BOOK, 50_000))):
            return 0
        spent, held = await look(store)
        assert spent + held <= 50_000
        await store.settle([settlement(str(number), amount, BOOK)] * 2)
        return amount

    amounts = await asyncio.gather(*(exchange(number) for number in range(300)))
    assert await look(store) == (sum(amounts), 0)
    assert 50_000 - 1000 < sum(amounts) <= 50_000


# Any order of events.

AMOUNTS = st.integers(min_value=0, max_value=60) | st.sampled_from([MONEY_MAX, MONEY_MAX // 2])
CAPS = st.integers(min_value=0, max_value=150) | st.just(MONEY_MAX)
EXCHANGES = st.sampled_from("abcde")
SOME_BOOKS = st.lists(st.sampled_from(BOOKS[:3]), min_size=1, max_size=3, unique=True)
CLAIMS = SOME_BOOKS.flatmap(lambda books: st.tuples(*(st.tuples(st.just(book), CAPS) for book in books)))
AGES_MS = st.integers(min_value=-10, max_value=10)
STEPS = st.one_of(
    st.tuples(st.just("reserve"), EXCHANGES, AMOUNTS, CLAIMS, AGES_MS),
    st.tuples(st.just("reserve"), EXCHANGES, AMOUNTS, CLAIMS, AGES_MS),
    st.tuples(st.just("renew"), st.lists(st.tuples(EXCHANGES, AMOUNTS, CLAIMS, AGES_MS), max_size=3)),
    st.tuples(st.just("settle"), st.lists(st.tuples(EXCHANGES, AMOUNTS, SOME_BOOKS), max_size=4)),
    st.tuples(st.just("seed"), st.sampled_from(BOOKS[:3]), AMOUNTS),
    st.tuples(
        st.just("audit"), st.sampled_from(BOOKS[:3]), st.sampled_from([0, 1000]), st.integers(0, 20), st.integers(-1, 0)
    ),
    st.tuples(
        st.just("alert"),
        st.sampled_from(BOOKS[:3]),
        st.sampled_from([AlertLevel.THRESHOLD, AlertLevel.LIMIT]),
        EXCHANGES,
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, 500, LEASE_MS // 3, LEASE_MS, LAPSED_KEPT_MS])),
)
TRACES = st.lists(STEPS, min_size=1, max_size=40)


async def play(store: BudgetStore, clock: Clock, trace: list[tuple[Any, ...]]) -> list[object]:
    """Every answer of a store to a trace, and after each step how the books stand; epochs are not compared."""
    answers: list[object] = []
    for what, *values in trace:
        match what:
            case "reserve":
                exchange, amount, claims, age_ms = values
                answers.append(
                    await store.reserve(lease(exchange, amount, *claims, admitted_ms=clock.ms - age_ms), "w")
                )
            case "renew":
                leases = [
                    lease(one, amount, *claims, admitted_ms=clock.ms - age) for one, amount, claims, age in values[0]
                ]
                answers.append(await store.renew(leases))
            case "settle":
                answers.append(
                    await store.settle([settlement(one, actual, *books) for one, actual, books in values[0]])
                )
            case "seed":
                answers.append(await store.seed(values[0], values[1], clock.ms))
            case "audit":
                book, apart_ms, missing, off = values
                audit = await store.audit(book, apart_ms)
                answers.append(audit)
                if isinstance(audit, Audit):
                    answers[-1] = replace(audit, open_ids=tuple(sorted(audit.open_ids)))
                    answers.append(await store.repair(book, audit.number + off, missing, clock.ms))
            case "alert":
                answers.append(await store.alert(*values))
            case "wait":
                clock.ms += values[0]
        answers.append(await store.look(BOOKS[:3]))
    return [_without_epoch(answer) for answer in answers]


def _without_epoch(answer: object) -> object:
    match answer:
        case Standing():
            return replace(answer, epoch="")
        case Reservation():
            return replace(answer, standings=tuple(replace(one, epoch="") for one in answer.standings))
        case dict():
            return {book: _without_epoch(standing) for book, standing in answer.items()}
        case _:
            return answer


@pytest.mark.parametrize("name", STORES[1:])
def test_one_trace_through_memory_and_lua_gives_equal_answers(name: str, request: pytest.FixtureRequest) -> None:
    opened, in_memory = opener(name, request), opener("memory", request)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def played(open_it: Open, trace: list[tuple[Any, ...]]) -> list[object]:
            clock = Clock()
            async with open_it(clock) as store:
                await seed(store, *BOOKS[:2], spent=3)
                return await play(store, clock, trace)

        @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
        @given(TRACES)
        def equal(trace: list[tuple[Any, ...]]) -> None:
            assert runner.run(played(opened, trace)) == runner.run(played(in_memory, trace))

        equal()


@pytest.mark.parametrize("name", STORES)
def test_any_order_of_events_is_what_the_pure_machine_says(name: str, request: pytest.FixtureRequest) -> None:
    opened = opener(name, request)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        @settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
        @given(TRACES)
        def conforms(trace: list[tuple[Any, ...]]) -> None:
            runner.run(_beside_the_machine(opened, trace))

        conforms()


async def _beside_the_machine(opened: Open, trace: list[tuple[Any, ...]]) -> None:
    clock = Clock()
    machine = {book: seeded(0, clock.ms, "") for book in BOOKS[:3]}
    async with opened(clock) as store:
        await seed(store, *machine)
        for what, *values in trace:
            for budget in machine.values():
                budget.expire(clock.ms)
            match what:
                case "reserve":
                    await _reserve_both(store, machine, clock.ms, tuple(values))
                case "renew":
                    for one in values[0]:
                        await _renew_both(store, machine, clock.ms, one)
                case "settle":
                    for exchange, actual, books in values[0]:
                        for book in books:
                            machine[book].settle(exchange, actual)
                        await store.settle([settlement(exchange, actual, *books)])
                case "wait":
                    clock.ms += values[0]
                case _:
                    continue
            for book, budget in machine.items():
                budget.expire(clock.ms)
                assert await look(store, book) == (budget.spent, budget.held)


async def _reserve_both(store: BudgetStore, machine: dict[Book, Budget], now_ms: int, values: tuple[Any, ...]) -> None:
    exchange, amount, claims, age_ms = values
    asked = [(machine[book], cap) for book, cap in claims]
    refused = reserve(asked, ExchangeId(exchange), amount, now_ms - age_ms, now_ms + LEASE_MS)
    answer = await store.reserve(lease(exchange, amount, *claims, admitted_ms=now_ms - age_ms), "w")
    assert isinstance(answer, Reservation)
    assert answer.refused == refused
    if refused is None:
        assert all(sum(sums(one)) <= cap for one, (_, cap) in zip(answer.standings, claims, strict=True))


async def _renew_both(store: BudgetStore, machine: dict[Book, Budget], now_ms: int, values: tuple[Any, ...]) -> None:
    exchange, amount, claims, age_ms = values
    one = lease(exchange, amount, *claims, admitted_ms=now_ms - age_ms)
    for book, cap in claims:
        machine[book].renew(one, cap, now_ms, now_ms + LEASE_MS)
    assert await store.renew([one]) == frozenset()


# Only where the state is a server's.


@pytest.fixture
async def by_the_servers_clock(valkey: Valkey) -> AsyncIterator[RedisBudgets]:
    async with connected(valkey) as connection:
        yield RedisBudgets(connection, lease_ms=150)
    await asyncio.sleep(0)


async def test_leases_end_by_the_servers_clock(by_the_servers_clock: RedisBudgets) -> None:
    store = by_the_servers_clock
    await seed(store, BOOK)
    watch = Stopwatch.patient()
    assert await admitted(store, lease("a", 60, (BOOK, 100)))
    assert await look(store) == (0, 60)
    while await look(store) != (0, 0):
        await asyncio.sleep(0.01)
    assert watch.passed_s > 0.14
    assert watch.spent_s < 1.0


async def test_half_a_state_is_no_state(by_the_servers_clock: RedisBudgets, valkey: Valkey) -> None:
    """Whichever of a book's keys is evicted, the book is to be made again from the ledger (F084)."""
    store = by_the_servers_clock
    for ending in ("", "|leases"):
        await seed(store, BOOK, spent=50)
        assert await admitted(store, lease("a", 10, (BOOK, 100)))
        (key,) = (
            one for one in valkey.command("KEYS", f"*{BOOK.window.id}{ending}") if "{test" in one and store._tag in one
        )
        assert valkey.command("DEL", key) == 1
        assert await store.look([BOOK]) == {}
        assert await store.reserve(lease("b", 10, (BOOK, 100)), "w") == Unseeded((BOOK,), ())


async def test_every_key_ends_some_time_after_its_window(by_the_servers_clock: RedisBudgets, valkey: Valkey) -> None:
    store = by_the_servers_clock
    assert isinstance(await store.reserve(lease("a", 10, (BOOK, 100), (BOOKS[1], 100)), "w"), Unseeded)
    await seed(store, BOOK)
    assert await admitted(store, lease("a", 10, (BOOK, 100)))
    keys = [key for key in valkey.command("KEYS", "*") if key.startswith(store._tag)]
    assert len(keys) == 3
    assert all(valkey.command("PTTL", key) > 0 for key in keys)
    day_ms = 24 * 3600 * 1000
    assert all(valkey.command("PTTL", key) > 2 * day_ms for key in keys if DAY.id in key)


async def test_leases_that_begin_anew_end_too(request: pytest.FixtureRequest, valkey: Valkey, clock: Clock) -> None:
    """The key of the leases goes when the last of them is forgotten, and comes back with the next."""
    async with opener("valkey", request)(clock) as store:
        assert isinstance(store, RedisBudgets)
        await seed(store, BOOK)
        assert await admitted(store, lease("a", 10, (BOOK, 100)))
        clock.ms += LEASE_MS + LAPSED_KEPT_MS
        assert await admitted(store, lease("b", 10, (BOOK, 100)))
        (key,) = [key for key in valkey.command("KEYS", "*|leases") if key.startswith(store._tag)]
        assert valkey.command("PTTL", key) > 0
    await asyncio.sleep(0)


async def test_a_flushed_script_is_sent_again(by_the_servers_clock: RedisBudgets, valkey: Valkey) -> None:
    """F086, under load: no call fails."""
    store = by_the_servers_clock
    await seed(store, BOOK)
    for round_number in range(5):
        calls = [admitted(store, lease(f"{round_number} {number}", 1, (BOOK, 10_000))) for number in range(100)]
        valkey.command("SCRIPT", "FLUSH")
        assert all(await asyncio.gather(*calls))
