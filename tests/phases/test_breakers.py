"""The breakers of several processes: each decides at once, all agree soon, and none needs the store."""

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core import breaker
from proxy.core.breaker import (
    EVENTS,
    PASS,
    Admission,
    Cause,
    Event,
    Policy,
    Rejection,
    State,
    Subject,
    credential_subject,
)
from proxy.core.failure import TABLE, Blame
from proxy.phases import breakers as module
from proxy.phases.breakers import SUBJECTS_MAX, Breakers
from proxy.ports import BreakerStore, Change, Lease, StoreAway, Stored
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.redis.breakers import RedisBreakers
from proxy.stores.redis.connection import DEADLINE_S, RedisConnection
from proxy.terms import ProviderId
from tests.gateway import RecordingLog
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

START = 1_800_000_000.0
T, U = Subject("openai/gpt-4o"), Subject("groq/llama")
SHARED_S = 0.25  # PRODUCT: all know within 250 ms
PROBED_S = 5.0  # somebody gets the lease; how soon is not promised
FIRST_S, AFTER_S = 0.025, 0.001  # PRODUCT: what an operation on a store that hangs may cost, at first and then


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    """Of all tests together it has so much to look at that one run of it outlasts three deadlines."""
    gc.disable()
    yield
    gc.enable()


@dataclass(slots=True)
class Clock:
    """Stands until it is set."""

    now: float = START

    def __call__(self) -> float:
        return self.now


class EventLog(RecordingLog):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, object]]] = []

    def event(self, message: str, **facts: object) -> None:
        self.told.append((message, facts))


@dataclass(slots=True)
class Process:
    """One worker: its breakers, as its exchanges use them."""

    breakers: Breakers
    clock: Clock
    log: EventLog

    def admit(self, subject: Subject = T) -> Admission | Rejection:
        return self.breakers.admit(subject, self.clock.now)

    def exchange(self, event: Event, times: int = 1, subject: Subject = T, **told: Any) -> None:
        """So many, each admitted and over at once."""
        for _ in range(times):
            decision = self.admit(subject)
            assert isinstance(decision, Admission)
            assert not decision.probe
            self.breakers.report(subject, decision, event, self.clock.now, **told)

    async def begin_probe(self, subject: Subject = T) -> Admission:
        """As soon as nobody else probes."""
        watch = Stopwatch.patient()
        while isinstance(decision := await self.breakers.lease(subject, self.clock.now), Rejection):
            assert not watch.is_over(PROBED_S)
            await asyncio.sleep(0.01)
            self.clock.now += 0.05
        assert decision.probe
        assert decision.owner
        return decision

    async def probe(self, event: Event, subject: Subject = T) -> None:
        self.breakers.report(subject, await self.begin_probe(subject), event, self.clock.now)

    def state(self, subject: Subject = T) -> State:
        return self.breakers.view(subject, self.clock.now).state


class Wire:
    """One process's way to the store, which may be cut or hang; what is sent meanwhile is never heard."""

    def __init__(self, store: BreakerStore) -> None:
        self._store = store
        self.away = self.hangs = self.deaf = False
        self.delay_s = 0.0
        self.leases_asked = 0
        self.acts: list[str] = []
        self._told: list[Callable[[Change | None], None]] = []

    def heal(self) -> None:
        self.away = self.hangs = self.deaf = False
        for told in self._told:
            told(None)

    async def load(self) -> Mapping[Subject, Stored]:
        await self._pass()
        return await self._store.load()

    async def swap(self, subject: Subject, expected: int, data: bytes, keep_s: float) -> Stored | None:
        self.acts.append("swap")
        await self._pass()
        return await self._store.swap(subject, expected, data, keep_s)

    async def lease(self, subject: Subject, owner: str, hold_s: float) -> Lease:
        self.leases_asked += 1
        await self._pass()
        return await self._store.lease(subject, owner, hold_s)

    async def unlease(self, subject: Subject, owner: str) -> None:
        self.acts.append("unlease")
        await self._pass()
        await self._store.unlease(subject, owner)

    async def listen(self, told: Callable[[Change | None], None]) -> None:
        self._told.append(told)
        await self._store.listen(lambda change: None if self.away or self.hangs or self.deaf else told(change))

    async def _pass(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.hangs:
            await asyncio.sleep(5)
        if self.away:
            raise StoreAway("cut")


@asynccontextmanager
async def process(store: BreakerStore, clock: Clock, **options: Any) -> AsyncIterator[Process]:
    log = EventLog()
    breakers = Breakers(store, log, clock, **{"retry_s": 0.02, **options})
    await breakers.start()
    try:
        yield Process(breakers, clock, log)
    finally:
        await breakers.close()
    assert log.bugs == []


@asynccontextmanager
async def connected(server: Valkey, clock: Clock, deadline_s: float = 1.0) -> AsyncIterator[Process]:
    """Patient, so that a busy machine is not taken for a server that is away, unless that is what is tested."""
    connection = RedisConnection(server.url, probe_s=0.1, deadline_s=deadline_s)
    await connection.start()
    try:
        async with process(RedisBreakers(connection), clock) as made:
            yield made
    finally:
        await connection.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, of whoever asks for a lease."""
    monkeypatch.setattr(module, "LEASE_ASKED_S", 1.0)


@pytest.fixture(params=["memory", "valkey"])
async def pair(request: pytest.FixtureRequest, patient: None) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes on one store, with one clock."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            store = MemoryBreakers(time.monotonic)
            made = [await stack.enter_async_context(process(store, clock)) for _ in range(2)]
        else:
            server = request.getfixturevalue("valkey")
            made = [await stack.enter_async_context(connected(server, clock)) for _ in range(2)]
        yield made[0], made[1]


@pytest.fixture
async def alone() -> AsyncIterator[Process]:
    async with process(MemoryBreakers(time.monotonic), Clock()) as made:
        yield made


async def soon(is_so: Callable[[], object], within_s: float = SHARED_S) -> None:
    watch = Stopwatch.patient()
    while not is_so():
        assert not watch.is_over(within_s)
        await asyncio.sleep(0.001)


# One process.


async def test_what_is_healthy_leaves_no_trace(alone: Process) -> None:
    for event in (Event.SUCCESS, Event.IGNORED):
        assert alone.admit() is PASS
        alone.exchange(event, 100)
    alone.exchange(Event.FAILURE, 4)
    alone.exchange(Event.SUCCESS)
    assert alone.admit() is PASS
    assert alone.breakers.snapshot(START) == []


async def test_it_opens_at_once(alone: Process) -> None:
    """With no await between the fifth failure and the first rejection."""
    alone.exchange(Event.FAILURE, 5, error="server_error")
    assert alone.admit() == Rejection(START + 60, Cause.FAILURES, "server_error")
    assert alone.admit(U) is PASS
    assert alone.log.told == [
        (
            "breaker open",
            {"subject": T, "cause": "failures", "failures": 5, "error": "server_error", "seconds": 60.0},
        )
    ]


async def test_a_whole_life(alone: Process) -> None:
    alone.exchange(Event.FAILURE, 5)
    alone.clock.now += 60
    assert alone.state() is State.HALF_OPEN
    await alone.probe(Event.FAILURE)
    assert alone.state() is State.OPEN
    alone.clock.now += 60
    await alone.probe(Event.SUCCESS)
    await alone.probe(Event.SUCCESS)
    assert alone.state() is State.CLOSED
    alone.exchange(Event.SUCCESS, 3)
    assert [message for message, _ in alone.log.told] == ["breaker open", "breaker open", "breaker closed"]


async def test_one_probe_at_a_time(alone: Process) -> None:
    alone.exchange(Event.FAILURE, 5)
    alone.clock.now += 60
    decisions = await asyncio.gather(*(alone.breakers.lease(T, alone.clock.now) for _ in range(20)))
    probes = [decision for decision in decisions if isinstance(decision, Admission)]
    assert len(probes) == 1
    assert alone.admit() == Rejection(alone.clock.now + 0.25, Cause.FAILURES, "")
    alone.clock.now += Policy().lease_s  # it never came back: the lease ends by itself
    assert isinstance(alone.admit(), Admission)


async def test_a_flood_of_client_faults_never_opens(alone: Process) -> None:
    """F110."""
    faults = [kind for kind, row in TABLE.items() if row.blame is Blame.CLIENT]
    assert len(faults) > 10
    for number, kind in zip(range(10_000), itertools.cycle(faults), strict=False):
        for_target, for_credential = EVENTS[TABLE[kind].tally]
        alone.exchange(for_target, error=kind.value)
        alone.exchange(for_credential, subject=credential_subject(ProviderId("openai"), "sk-1"), error=kind.value)
        assert alone.admit() is PASS, number
    assert alone.breakers.snapshot(START) == []


async def test_clients_who_choose_names_fill_no_memory(alone: Process) -> None:
    alone.exchange(Event.FAILURE, 5)
    alone.exchange(Event.COOL_DOWN_LONG, subject=U)
    for number in range(3 * SUBJECTS_MAX):
        alone.exchange(Event.FAILURE, subject=Subject(f"openai/{number}"))
    for number in range(3 * SUBJECTS_MAX):
        alone.exchange(Event.QUARANTINE, subject=Subject(f"openai/unknown-{number}"))
    assert len(alone.breakers.snapshot(START)) <= SUBJECTS_MAX
    assert (alone.state(T), alone.state(U)) == (State.OPEN, State.OPEN)


async def test_what_operators_see(alone: Process) -> None:
    alone.exchange(Event.FAILURE, 5, error="stalled")
    alone.exchange(Event.COOL_DOWN, subject=U, hint_s=7.0, error="throttled")
    alone.exchange(Event.FAILURE, 2, subject=Subject("a/b"), error="server_error")
    View = module.View  # noqa: N806 - it is a class
    assert alone.breakers.snapshot(START) == [
        View(Subject("a/b"), State.CLOSED, None, None, 2, Cause.NONE, "server_error"),
        View(U, State.OPEN, None, START + 7, 0, Cause.THROTTLED, "throttled"),
        View(T, State.OPEN, START, START + 60, 5, Cause.FAILURES, "stalled"),
    ]
    assert alone.breakers.snapshot(START + 61) == [
        View(Subject("a/b"), State.CLOSED, None, None, 2, Cause.NONE, "server_error"),
        View(T, State.HALF_OPEN, START + 60, None, 5, Cause.FAILURES, "stalled"),
    ]
    assert alone.breakers.view(Subject("c/d"), START).state is State.CLOSED


async def test_a_late_report_changes_nothing(alone: Process) -> None:
    early = alone.admit()
    assert isinstance(early, Admission)
    alone.exchange(Event.FAILURE, 5)
    alone.clock.now += 60
    for event in (Event.SUCCESS, Event.SUCCESS, Event.SUCCESS, Event.FAILURE, Event.QUARANTINE):
        alone.breakers.report(T, early, event, alone.clock.now)
        assert alone.state() is State.HALF_OPEN
    await alone.probe(Event.SUCCESS)
    await alone.probe(Event.SUCCESS)
    for _ in range(9):
        alone.breakers.report(T, early, Event.FAILURE, alone.clock.now)
    assert alone.state() is State.CLOSED


async def test_a_reload_s_policy_counts_from_then_on(alone: Process) -> None:
    alone.breakers.policy = Policy(failures=2, cooldown_s=5.0, successes=1)
    alone.exchange(Event.FAILURE, 2)
    assert alone.admit() == Rejection(START + 5, Cause.FAILURES, "")
    alone.clock.now += 5
    await alone.probe(Event.SUCCESS)
    assert alone.state() is State.CLOSED


# Two processes.


async def test_two_open_and_close_together(pair: tuple[Process, Process]) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 5, error="server_error")
    await soon(lambda: two.state() is State.OPEN)
    assert two.breakers.snapshot(START) == one.breakers.snapshot(START)
    assert two.log.told == []  # who decided has said it
    one.clock.now += 60
    await two.probe(Event.SUCCESS)
    await one.probe(Event.SUCCESS)
    assert one.state() is State.CLOSED
    await soon(lambda: two.state() is State.CLOSED)


async def test_tallies_are_each_one_s_own(pair: tuple[Process, Process]) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 4)
    two.exchange(Event.FAILURE, 4)
    await asyncio.sleep(0.02)
    assert (one.state(), two.state()) == (State.CLOSED, State.CLOSED)


async def test_both_open_before_they_hear_of_each_other(pair: tuple[Process, Process]) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 5)
    one.clock.now += 0.1
    two.exchange(Event.QUARANTINE)
    await soon(lambda: one.breakers.snapshot(START) == two.breakers.snapshot(START))
    assert one.admit() == Rejection(START + 900.1, Cause.QUARANTINE, "")


async def test_a_429_cools_for_all(pair: tuple[Process, Process]) -> None:
    """F018."""
    one, two = pair
    one.exchange(Event.COOL_DOWN, hint_s=2.0, error="throttled")
    await soon(lambda: two.admit() == Rejection(START + 2, Cause.THROTTLED, "throttled"))
    one.clock.now += 2
    for process in pair:
        decision = process.admit()
        assert isinstance(decision, Admission)
        assert not decision.probe


async def test_a_failed_probe_opens_for_all(pair: tuple[Process, Process]) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 5)
    await soon(lambda: two.state() is State.OPEN)
    one.clock.now += 60
    await two.probe(Event.FAILURE)
    await soon(lambda: one.admit() == Rejection(START + 120, Cause.FAILURES, ""))


async def test_two_processes_have_one_probe_and_its_client_leaves(pair: tuple[Process, Process]) -> None:
    """F109."""
    one, two = pair
    one.exchange(Event.FAILURE, 5)
    await soon(lambda: two.state() is State.OPEN)
    one.clock.now += 60
    decisions = await asyncio.gather(
        *(process.breakers.lease(T, one.clock.now) for process in (one, two) for _ in range(5))
    )
    probes = [decision for decision in decisions if isinstance(decision, Admission)]
    assert len(probes) == 1
    holder, other = (one, two) if probes[0] in decisions[:5] else (two, one)
    assert isinstance(await other.breakers.lease(T, one.clock.now), Rejection)
    holder.breakers.report(T, probes[0], Event.IGNORED, one.clock.now)
    assert holder.state() is State.HALF_OPEN
    await other.probe(Event.SUCCESS)
    await other.probe(Event.SUCCESS)
    assert other.state() is State.CLOSED


@pytest.mark.parametrize("event", [Event.SUCCESS, Event.COOL_DOWN, Event.IGNORED])
async def test_every_end_of_a_probe_gives_the_lease_back(pair: tuple[Process, Process], event: Event) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 5)
    one.clock.now += 60
    await one.probe(event)
    one.clock.now += 1  # a 429 without a hint cools for so long
    await soon(lambda: two.state() is State.HALF_OPEN)
    await two.probe(Event.FAILURE)


async def test_whoever_is_cancelled_while_it_asks_leaves_no_lease(pair: tuple[Process, Process]) -> None:
    one, two = pair
    one.exchange(Event.FAILURE, 5)
    await soon(lambda: two.state() is State.OPEN)
    one.clock.now += 60
    cancelled = 0
    for turns in range(12):
        asking = asyncio.create_task(one.breakers.lease(T, one.clock.now))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        try:
            decision = await asking
        except asyncio.CancelledError:
            cancelled += 1
        else:
            assert isinstance(decision, Admission)
            one.breakers.report(T, decision, Event.IGNORED, one.clock.now)
        held = await two.begin_probe()
        two.breakers.report(T, held, Event.IGNORED, two.clock.now)
        one.clock.now += 1
        await soon(lambda: isinstance(one.admit(), Admission))
    assert cancelled >= 2


class InTurns(Wire):
    """A store whose reply takes turns of the loop, however long those are."""

    async def lease(self, subject: Subject, owner: str, hold_s: float) -> Lease:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().lease(subject, owner, hold_s)


async def test_a_busy_loop_is_not_a_store_that_is_away() -> None:
    """Or each process would have a probe of its own."""
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    async with process(store, clock) as two, process(InTurns(store), clock) as one:
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        clock.now += 60
        assert isinstance(await two.breakers.lease(T, clock.now), Admission)
        asking = asyncio.create_task(one.breakers.lease(T, clock.now))
        while not asking.done():
            await asyncio.sleep(0)
            time.sleep(0.03)  # other work, in every turn of the loop
        assert isinstance(await asking, Rejection)


async def test_a_lease_that_comes_after_its_client_has_left_is_given_back() -> None:
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    wire = Wire(store)
    async with process(store, clock) as two, process(wire, clock) as one:
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        clock.now += 60
        wire.delay_s = 0.01
        asking = asyncio.create_task(one.breakers.lease(T, clock.now))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(one.admit(), Rejection)  # until it is known whether there is a lease to give back
        await asyncio.sleep(0.05)
        assert isinstance(await two.breakers.lease(T, clock.now), Admission)


async def test_what_a_probe_has_found_out_is_told_before_its_lease_is_given_back() -> None:
    wire = Wire(MemoryBreakers(time.monotonic))
    async with process(wire, Clock()) as alone:
        alone.exchange(Event.FAILURE, 5)
        alone.clock.now += 60
        held = await alone.begin_probe()
        await asyncio.sleep(0.01)
        wire.acts.clear()
        alone.breakers.report(T, held, Event.FAILURE, alone.clock.now)
        await soon(lambda: len(wire.acts) == 2)
        assert wire.acts == ["swap", "unlease"]


async def test_a_reset_is_for_all(pair: tuple[Process, Process]) -> None:
    one, two = pair
    for subject in (T, U):
        one.exchange(Event.FAILURE, 5, subject=subject)
    await soon(lambda: len(two.breakers.snapshot(START)) == 2)
    assert two.breakers.reset(T, START) == [T]
    assert two.state() is State.CLOSED
    await soon(lambda: one.state() is State.CLOSED)
    assert one.state(U) is State.OPEN
    assert two.breakers.reset(Subject("a/b"), START) == []
    two.exchange(Event.FAILURE, 5)
    await soon(lambda: one.state() is State.OPEN)
    assert sorted(one.breakers.reset(None, START)) == sorted([T, U])
    await soon(lambda: (two.state(T), two.state(U)) == (State.CLOSED, State.CLOSED))


async def test_who_starts_later_knows(valkey: Valkey, patient: None) -> None:
    clock = Clock()
    async with connected(valkey, clock) as one:
        one.exchange(Event.FAILURE, 5)
        await asyncio.sleep(0.02)
    async with connected(valkey, clock) as two:
        assert two.state() is State.OPEN


async def test_who_ends_gives_its_lease_back(valkey: Valkey, patient: None) -> None:
    clock = Clock()
    async with connected(valkey, clock) as two:
        async with connected(valkey, clock) as one:
            one.exchange(Event.FAILURE, 5)
            clock.now += 60
            await one.begin_probe()
            await soon(lambda: two.state() is State.HALF_OPEN)
        await two.begin_probe()


async def test_what_is_corrupt_in_the_store_harms_nobody(valkey: Valkey, patient: None) -> None:
    clock = Clock()
    valkey.send("HSET", "penstock:{breakers}:records", str(T), "7 9999999999999 not a record")
    valkey.send("HSET", "penstock:{breakers}:records", str(U), "nor this")
    valkey.send("HSET", "penstock:{breakers}:records", b"\xff", "1 9999999999999 {}")
    valkey.send("HSET", "penstock:{breakers}:records", "long", "9" * 5000 + " 9999999999999 {}")
    async with connected(valkey, clock) as one, connected(valkey, clock) as two:
        assert (one.admit(T), one.admit(U)) == (PASS, PASS)
        valkey.send("PUBLISH", "penstock:{breakers}:changes:0", "nonsense")
        for subject in (T, U):
            one.exchange(Event.FAILURE, 5, subject=subject)
        await soon(lambda: (two.state(T), two.state(U)) == (State.OPEN, State.OPEN))


# The store is away.


async def test_no_store_from_the_start() -> None:
    store = Wire(MemoryBreakers(time.monotonic))
    store.away = True
    async with process(store, Clock()) as alone:
        alone.exchange(Event.FAILURE, 5)
        alone.clock.now += 60
        first = await alone.begin_probe()
        assert isinstance(await alone.breakers.lease(T, alone.clock.now), Rejection)  # its own lease holds all the same
        alone.breakers.report(T, first, Event.IGNORED, alone.clock.now)
        await alone.probe(Event.SUCCESS)
        await alone.probe(Event.SUCCESS)
        assert alone.state() is State.CLOSED


async def test_a_store_that_hangs_costs_a_probe_its_deadline_and_nobody_else_anything() -> None:
    store = Wire(MemoryBreakers(time.monotonic))
    async with process(store, Clock()) as alone:
        alone.exchange(Event.FAILURE, 5)
        await asyncio.sleep(0.01)
        alone.clock.now += 60
        store.hangs = True
        watch = Stopwatch()
        held = await alone.begin_probe()
        assert watch.spent_s <= FIRST_S
        began_s = time.thread_time()
        for _ in range(20):
            assert isinstance(alone.admit(), Rejection)
            assert alone.admit(U) is PASS
        alone.breakers.report(T, held, Event.FAILURE, alone.clock.now)
        assert time.thread_time() - began_s <= AFTER_S
        store.hangs = False


async def test_nobody_asks_the_store_again_and_again_who_probes() -> None:
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    wire = Wire(store)
    async with process(store, clock) as one, process(wire, clock) as two:
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        clock.now += 60
        await one.begin_probe()
        for _ in range(1000):
            assert isinstance(await two.breakers.lease(T, clock.now), Rejection)
            clock.now += 0.001
        assert wire.leases_asked <= 5


async def test_who_has_not_heard_learns_it_with_the_lease() -> None:
    """A probe has failed, and its news is lost: the next one hears of it before it is sent."""
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    wire = Wire(store)
    async with process(store, clock) as one, process(wire, clock) as two:
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        clock.now += 60
        wire.deaf = True
        await one.probe(Event.FAILURE)
        await asyncio.sleep(0.01)
        assert two.state() is State.HALF_OPEN
        assert await two.breakers.lease(T, clock.now) == Rejection(START + 120, Cause.FAILURES, "")
        await asyncio.sleep(0.01)
        clock.now = START + 120
        await one.begin_probe()  # nobody has kept the lease


async def test_what_a_lost_message_said_comes_with_the_next_poll() -> None:
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    wire = Wire(store)
    async with process(store, clock) as one, process(wire, clock, poll_s=0.05) as two:
        wire.deaf = True
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)


async def _probe_left(process: Process, asking: Awaitable[Admission | Rejection]) -> None:
    held = await asking
    assert isinstance(held, Admission)
    process.breakers.report(T, held, Event.IGNORED, process.clock.now)


async def _held_up(process: Process) -> None:
    """Five probes wait for the store no longer than they may; by then it is known to be away, and nobody waits."""
    for _ in range(5):
        watch = Stopwatch()
        await _probe_left(process, process.breakers.lease(T, process.clock.now))
        assert watch.spent_s <= FIRST_S
    await asyncio.sleep(5 * DEADLINE_S)  # what was to be given back has met the same end
    spent_s = 0.0
    for _ in range(20):
        began, turns = time.thread_time(), 0
        asking = asyncio.create_task(process.breakers.lease(T, process.clock.now))
        while not asking.done():
            await asyncio.sleep(0)
            turns += 1
        spent_s += time.thread_time() - began
        assert turns <= 5
        await _probe_left(process, asking)
    assert spent_s <= 20 * AFTER_S


@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_the_server_is_stopped_or_hangs_and_comes_back(own_valkey: Valkey, fault: str) -> None:
    clock = Clock()
    async with (
        connected(own_valkey, clock, DEADLINE_S) as one,
        connected(own_valkey, clock, DEADLINE_S) as two,
    ):
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        clock.now += 60
        getattr(own_valkey, fault)()
        for process in (one, two):
            await _held_up(process)
        # Each is alone now: one finds out that all is well, the other opens something else.
        await one.probe(Event.SUCCESS)
        await one.probe(Event.SUCCESS)
        two.exchange(Event.FAILURE, 5, subject=U)
        await asyncio.sleep(0.05)
        assert (one.state(T), one.state(U)) == (State.CLOSED, State.CLOSED)
        assert (two.state(T), two.state(U)) == (State.HALF_OPEN, State.OPEN)
        own_valkey.start() if fault == "stop" else own_valkey.resume()
        await soon(lambda: one.breakers.snapshot(clock.now) == two.breakers.snapshot(clock.now), within_s=3)
        assert (two.state(T), two.state(U)) == (State.CLOSED, State.OPEN)


async def test_the_server_is_restarted_empty(own_valkey: Valkey, patient: None) -> None:
    clock = Clock()
    async with connected(own_valkey, clock) as one, connected(own_valkey, clock) as two:
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        own_valkey.stop()
        own_valkey.start()
        async with connected(own_valkey, clock) as three:
            await soon(lambda: three.state() is State.OPEN, within_s=3)
            three.clock.now += 60
            await three.probe(Event.SUCCESS)
            await two.probe(Event.SUCCESS)
            await soon(lambda: {process.state() for process in (one, two, three)} == {State.CLOSED})


async def test_scripts_are_forgotten_by_the_server(pair: tuple[Process, Process], valkey: Valkey) -> None:
    one, two = pair
    for _ in range(10):
        valkey.send("SCRIPT", "FLUSH")
        one.exchange(Event.FAILURE, 5)
        await soon(lambda: two.state() is State.OPEN)
        valkey.send("SCRIPT", "FLUSH")
        one.clock.now += 60
        await two.probe(Event.SUCCESS)
        await one.probe(Event.SUCCESS)
        await soon(lambda: two.state() is State.CLOSED)


async def test_a_bug_of_a_task_is_told() -> None:
    class Broken(Wire):
        async def swap(self, subject: Subject, expected: int, data: bytes, keep_s: float) -> Stored | None:
            raise ZeroDivisionError

    log = EventLog()
    breakers = Breakers(Broken(MemoryBreakers(time.monotonic)), log, Clock())
    await breakers.start()
    breakers.report(T, PASS, Event.QUARANTINE, START)
    await soon(lambda: len(log.bugs) == 1)
    assert isinstance(log.bugs[0], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        await breakers.close()


# Any processes, any faults: when all can talk again, all say the same.

_STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            [
                "fail",
                "fail",
                "ok",
                "429",
                "quota",
                "reset",
                "probe ok",
                "probe fail",
                "probe left",
                "away",
                "deaf",
                "heal",
            ]
        ),
        st.sampled_from([0.0, 0.0, 1.0, 30.0, 61.0]),
    ),
    max_size=40,
)
_WORDS = {
    "ok": Event.SUCCESS,
    "fail": Event.FAILURE,
    "429": Event.COOL_DOWN,
    "quota": Event.COOL_DOWN_LONG,
    "left": Event.IGNORED,
}


async def _take(process: Process, wire: Wire, word: str) -> None:
    now = process.clock.now
    match word.split():
        case ["away"]:
            wire.away = True
        case ["deaf"]:
            wire.deaf = True
        case ["heal"]:
            wire.heal()
        case ["reset"]:
            process.breakers.reset(None, now)
        case ["probe", end]:
            decision = await process.breakers.lease(T, now)
            if isinstance(decision, Admission):
                process.breakers.report(T, decision, _WORDS[end], now)
        case [end]:
            decision = process.admit()
            if isinstance(decision, Admission) and not decision.probe:
                for _ in range(5):
                    process.breakers.report(T, decision, _WORDS[end], now)


@settings(max_examples=100, deadline=None)
@given(steps=_STEPS)
async def test_when_all_can_talk_again_all_say_the_same(steps: list[tuple[int, str, float]]) -> None:
    clock = Clock()
    store = MemoryBreakers(time.monotonic)
    wires = [Wire(store) for _ in range(3)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(process(wire, clock, retry_s=0.001)) for wire in wires]
        await asyncio.sleep(0)
        for number, word, pause_s in steps:
            await _take(processes[number], wires[number], word)
            clock.now += pause_s
        for wire in wires:
            wire.heal()

        def told() -> list[list[module.View]]:
            return [each.breakers.snapshot(clock.now) for each in processes]

        def same() -> bool:
            shown = [[(view.state, view.until, view.cause) for view in views if view.since] for views in told()]
            return shown[0] == shown[1] == shown[2]

        await soon(same, within_s=2)
        held = (await store.load()).get(T)
        records = {breaker.from_bytes(held.data)} if held is not None else set()
        assert len(records) <= 1
        assert None not in records
