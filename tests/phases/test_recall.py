"""Shared calls over fake ports: whoever is cancelled at whichever await, nothing is held, and each has one row."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolve import parse
from proxy.core.cache_policy import CachePolicy
from proxy.core.cached_answer import CachedAnswer
from proxy.core.failure import FailureKind
from proxy.core.ledger import LedgerRow
from proxy.phases import flight as flight_module
from proxy.phases import lifecycle, recording, watchdog
from proxy.phases.breakers import Breakers
from proxy.phases.budgets import Budgets
from proxy.phases.exchange import Exchange
from proxy.phases.recording import Recording
from proxy.phases.runtime import Runtime
from proxy.ports import Call, Fault, StoreAway
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import Api, CacheKey, ExchangeId
from tests.books import RecordingBooks, limiter
from tests.doors import open_to_all
from tests.gateway import RecordingLog
from tests.ledger import FakeLedger
from tests.phases.test_lifecycle import DONE, EVENT, FINISH, FakeDownstream, FakeReply, Steps
from tests.stopwatch import Stopwatch

TURNS_MAX = 120
WHOLE = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}'
STREAM: Steps = [EVENT, EVENT, FINISH, DONE]
CONFIG = """
providers: {a: {like: vllm, base_url: "http://127.0.0.1:1/v1", price: {"*": {input: 1, output: 2}}}}
routes: {route: {tiers: [a/m]}}
budgets: {daily: 100}
"""


class Repeating:
    """The port `Upstream`: every call gets the same answer."""

    def __init__(self) -> None:
        self.replies: list[FakeReply] = []
        self.calls: list[Call] = []
        self.hold: asyncio.Event | None = None

    async def send(self, call: Call) -> FakeReply | Fault:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        assert isinstance(call.body, bytes)
        streamed = orjson.loads(call.body)["stream"]
        kind = "text/event-stream" if streamed else "application/json"
        reply = FakeReply(200, STREAM if streamed else [WHOLE], kind)
        self.replies.append(reply)
        return reply


class Afar(MemoryCache):
    """A store over a wire: what it did is told some turns later. It hears no release for as long as it is `deaf`."""

    deaf = False

    async def lease(self, cache_key: CacheKey, owner: str, for_s: float) -> bool:
        taken = await super().lease(cache_key, owner, for_s)
        await turns(3)
        return taken

    async def put(self, cache_key: CacheKey, answer: CachedAnswer) -> bool:
        if self.deaf:
            raise StoreAway("it does not answer")
        return await super().put(cache_key, answer)

    async def release(self, cache_key: CacheKey, owner: str) -> None:
        if self.deaf:
            raise StoreAway("it does not answer")
        await super().release(cache_key, owner)


class Stage:
    """One worker before one provider; exchanges come and go."""

    def __init__(self, cache: MemoryCache | None = None) -> None:
        table = parse(CONFIG, "routes.yaml", {})
        kept = CachePolicy(60.0)
        table = replace(table, routes={name: replace(one, cache=kept) for name, one in table.routes.items()})
        self.log = RecordingLog()
        self.upstream = Repeating()
        self.books = RecordingBooks()
        self.cache = cache or MemoryCache(time.monotonic)
        self.exchanges: list[Exchange] = []
        self.sent: list[FakeDownstream] = []
        held = MemoryBudgets(lambda: int(time.time() * 1000))
        self.budgets = Budgets(held, FakeLedger(), on_alert=lambda _: None, log=self.log, wall=time.time, worker="test")
        breakers = Breakers(MemoryBreakers(time.monotonic), self.log, time.time)
        world = (table, self.upstream, self.log, time.monotonic, time.time, breakers, self.budgets, self.books)
        self.runtime = Runtime(
            *world, SqliteLedger(Path("never opened")), self.cache, limiter(self.log), open_to_all(self.log)
        )

    def arrive(self, *, stream: bool, headers: dict[str, str] | None = None, **more: Any) -> "asyncio.Task[None]":
        body = {"model": "route", "stream": stream, "messages": [{"role": "user", "content": "?"}]} | more
        name = ExchangeId(f"x{len(self.exchanges)}")
        given = {"content-type": "application/json"} | (headers or {})
        at_ms = int(time.time() * 1000)
        x = Exchange(name, name, Api.CHAT, "POST", "/v1/chat/completions", given, time.monotonic(), at_ms)
        downstream = FakeDownstream(orjson.dumps(body))
        self.exchanges.append(x)
        self.sent.append(downstream)
        return asyncio.create_task(lifecycle.run(x, self.runtime, downstream))

    @property
    def rows(self) -> dict[str, LedgerRow]:
        return {row.id: row for row in self.books.rows}

    async def check(self) -> None:
        """Nothing is held, and each exchange has one row."""
        assert not self.log.bugs
        assert self.runtime.flights == {}
        assert self.runtime.flying == set()
        assert not self.cache._leases
        assert all(reply.let_go for reply in self.upstream.replies)
        assert sorted(row.id for row in self.books.rows) == sorted(x.id for x in self.exchanges)
        assert len(self.log.exchanges) == len(self.exchanges)
        payers = self.runtime.table.budgets.payers_of(self.exchanges[0].account)
        async with asyncio.timeout(1):
            while (held := [row["held_nanousd"] for row in await self.budgets.snapshot(payers, time.time())]) != [0]:
                assert held[0] is not None
                await self.budgets._keeper.flush()
        assert len(self.runtime.ticker._watchdogs) == 0


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def over(*tasks: "asyncio.Task[None]") -> None:
    _, late = await asyncio.wait(tasks, timeout=2)
    assert not late, "somebody hangs"


async def rest() -> None:
    """Until nothing runs but this test."""
    async with asyncio.timeout(2):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


async def leader(stage: Stage, turn: int, *, stream: bool) -> bool:
    task = stage.arrive(stream=stream)
    return await cancelled(stage, task, turn)


async def leader_with_followers(stage: Stage, turn: int, *, stream: bool) -> bool:
    first = stage.arrive(stream=stream)
    others = [stage.arrive(stream=stream), stage.arrive(stream=not stream)]
    ended = await cancelled(stage, first, turn, others)
    for one in stage.sent[1:]:
        assert one.ends in (["end"], ["answer"])
        assert one.sent in (EVENT + EVENT + FINISH + DONE, WHOLE) or b"chat.completion" in one.sent
    assert len(stage.upstream.calls) <= 3
    return ended


async def follower(stage: Stage, turn: int, *, stream: bool) -> bool:
    first = stage.arrive(stream=stream)
    await turns(1)
    second = stage.arrive(stream=stream)
    ended = await cancelled(stage, second, turn, [first])
    assert stage.sent[0].ends in (["end"], ["answer"])
    assert len(stage.upstream.calls) == 1
    return ended


async def follower_in_the_other_form(stage: Stage, turn: int, *, stream: bool) -> bool:
    first = stage.arrive(stream=not stream)
    await turns(1)
    second = stage.arrive(stream=stream)
    return await cancelled(stage, second, turn, [first])


async def everybody(stage: Stage, turn: int, *, stream: bool) -> bool:
    tasks = [stage.arrive(stream=stream) for _ in range(3)]
    await turns(turn)
    ended = all(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await over(*tasks)
    late = stage.arrive(stream=stream)  # comes while the flight that all have left is still ending
    await over(late)
    assert stage.sent[-1].ends in (["end"], ["answer"])
    await rest()
    await stage.check()
    return ended


async def hit(stage: Stage, turn: int, *, stream: bool) -> bool:
    await over(stage.arrive(stream=stream))
    await rest()
    return await cancelled(stage, stage.arrive(stream=stream), turn)


async def converted(stage: Stage, turn: int, *, stream: bool) -> bool:
    await over(stage.arrive(stream=not stream))
    await rest()
    return await cancelled(stage, stage.arrive(stream=stream), turn)


async def cancelled(
    stage: Stage, task: "asyncio.Task[None]", turn: int, others: "list[asyncio.Task[None]] | None" = None
) -> bool:
    """Cancel after so many turns of the loop; whether it was over by then."""
    await turns(turn)
    ended = task.done()
    task.cancel()
    await over(task, *(others or ()))
    await rest()
    if turn:
        await stage.check()
    return ended


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "scene", [leader, leader_with_followers, follower, follower_in_the_other_form, everybody, hit, converted]
)
async def test_cancelled_at_every_await_nothing_is_held(scene: Callable[..., Any], stream: bool) -> None:
    for turn in range(1, TURNS_MAX):
        if await scene(Stage(), turn, stream=stream):
            assert turn > 2, "nothing was swept"
            return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("scene", [leader, leader_with_followers, follower, everybody])
async def test_who_leaves_while_the_lease_is_asked_for_leaves_none(scene: Callable[..., Any]) -> None:
    """Found by a busy machine: the lease was taken, its exchange cancelled, and all who came next waited for it to end."""
    for turn in range(1, TURNS_MAX):
        if await scene(Stage(Afar(time.monotonic)), turn, stream=True):
            assert turn > 5, "nothing was swept"
            return
    raise AssertionError("it never ended")


async def test_a_lease_is_given_back_as_soon_as_the_store_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "AGAIN_S", 0.01)
    cache = Afar(time.monotonic)
    cache.deaf = True
    stage = Stage(cache)
    await over(stage.arrive(stream=True))
    assert [event["message"] for event in stage.log.events] == ["cache: an answer could not be kept"]
    await asyncio.sleep(0.03)
    assert len(cache._leases) == 1
    cache.deaf = False
    async with asyncio.timeout(5):
        while stage.runtime.flying:
            await asyncio.sleep(0.005)
    await stage.check()


async def test_a_lease_that_nobody_takes_back_is_left_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(flight_module, "LEASE_S", 0.05)
    cache = Afar(time.monotonic)
    cache.deaf = True
    stage = Stage(cache)
    await over(stage.arrive(stream=True))
    async with asyncio.timeout(5):
        while stage.runtime.flying:
            await asyncio.sleep(0.005)
    assert stage.log.events[-1]["message"] == "cache: a lease could not be given back"


async def test_a_follower_waits_no_longer_than_it_may(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.01)
    stage.upstream.hold = asyncio.Event()
    first = stage.arrive(stream=True)
    await turns(3)
    hurried = {"x-penstock-timeout": "50ms"}
    others = [stage.arrive(stream=stream, headers=hurried) for stream in (True, False)]
    watch = Stopwatch.patient()
    await over(*others)
    assert watch.spent_s < 0.5
    for place in (1, 2):
        assert orjson.loads(stage.sent[place].sent)["error"]["code"] == "upstream_timeout"
    stage.upstream.hold.set()
    await over(first)
    await rest()
    assert stage.sent[0].ends == ["end"]
    assert [stage.rows[name].status for name in ("x0", "x1", "x2")] == [200, 504, 504]
    await stage.check()


async def test_a_follower_out_of_time_within_the_stream_is_told_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.01)
    go_on = asyncio.Event()
    read = FakeReply.read

    async def stalls(self: FakeReply) -> bytes | Fault:
        data = await read(self)
        if data == FINISH:
            await go_on.wait()
        return data

    monkeypatch.setattr(FakeReply, "read", stalls)
    first = stage.arrive(stream=True)
    await turns(2)
    await over(stage.arrive(stream=True, headers={"x-penstock-timeout": "50ms"}))
    sent, row = stage.sent[1], stage.rows["x1"]
    assert sent.sent.startswith(EVENT + EVENT + b'data: {"error":')
    assert sent.ends == ["break_off"]
    assert (row.outcome, row.code, row.cost_nanousd) == ("partial", "upstream_timeout", 0)
    go_on.set()
    await over(first)
    await rest()
    assert stage.sent[0].sent == EVENT + EVENT + FINISH + DONE
    await stage.check()


async def test_a_client_that_takes_nothing_is_dropped_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leader, follower, and of what is kept: each is a client of its own, and none of it a bug."""
    monkeypatch.setattr(watchdog, "TICK_S", 0.01)
    monkeypatch.setattr(watchdog, "WRITE_S", 0.05)
    tasks = [stage.arrive(stream=True) for _ in range(3)]

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    for place in (0, 1):
        monkeypatch.setattr(stage.sent[place], "write", never)
    await over(*tasks)
    assert [sent.ends for sent in stage.sent] == [["abort"], ["abort"], ["end"]]
    for stream in (True, False):
        task = stage.arrive(stream=stream)
        monkeypatch.setattr(stage.sent[-1], "write", never)
        await over(task)
        assert stage.sent[-1].ends == ["abort"]
        assert stage.rows[stage.exchanges[-1].id].code == "client_stalled"
    assert len(stage.upstream.calls) == 1
    await rest()
    await stage.check()


async def test_who_comes_when_all_have_just_left_gets_an_answer(stage: Stage) -> None:
    stage.upstream.hold = asyncio.Event()
    first = stage.arrive(stream=True)
    await turns(5)
    first.cancel()
    await turns(1)
    stage.upstream.hold = None
    await over(first, stage.arrive(stream=True))
    assert stage.sent[1].ends == ["end"]
    assert stage.rows["x1"].status == 200
    await rest()
    await stage.check()


async def test_books_that_fail_leave_nobody_waiting(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(flight_module, "settle", broken)
    await over(*(stage.arrive(stream=True) for _ in range(3)))
    await rest()
    assert [type(bug) for bug in stage.log.bugs] == [KeyError]
    assert stage.runtime.flights == {}


async def test_the_drain_ends_all_at_once(stage: Stage) -> None:
    """Followers do not begin calls of their own when Penstock shuts down, and nobody is told that the client has left."""
    stage.upstream.hold = asyncio.Event()
    tasks = [stage.arrive(stream=stream) for stream in (True, True, False)]
    await turns(8)
    stage.runtime.ticker.expire_all(FailureKind.SHUTTING_DOWN)
    await over(*tasks)
    await flight_module.landed(stage.runtime, 1)
    assert len(stage.upstream.calls) == 1
    assert {orjson.loads(sent.sent)["error"]["code"] for sent in stage.sent} == {"shutting_down"}
    assert {row.code for row in stage.rows.values()} == {"shutting_down"}
    await rest()
    await stage.check()


async def test_the_cost_is_told_to_who_asks_alone(stage: Stage) -> None:
    """`x-penstock-stream-cost: comment` is of one exchange: neither others' nor what is kept has it."""
    asks = {"x-penstock-stream-cost": "comment"}
    tasks = [stage.arrive(stream=True, headers=headers) for headers in (asks, {}, asks)]
    await over(*tasks)
    for headers in (asks, {}):
        await over(stage.arrive(stream=True, headers=headers))
    assert len(stage.upstream.calls) == 1
    told = [sent.sent.count(b": penstock ") for sent in stage.sent]
    assert told == [1, 0, 1, 1, 0]
    for x, sent in zip(stage.exchanges, stage.sent, strict=True):
        if b": penstock " in sent.sent:
            comment = orjson.loads(sent.sent.split(b": penstock ")[1].split(b"\n")[0])
            assert comment["request_id"] == x.id
            assert (comment["cost_usd"] == "0.00") is (x.id != "x0"), comment
            assert sent.sent.endswith(b"\n\n" + DONE)
        assert sent.sent.startswith(EVENT + EVENT + FINISH)
    await rest()
    await stage.check()


async def test_who_wants_usage_does_not_follow_who_declined_it(stage: Stage) -> None:
    declines: dict[str, Any] = {"stream_options": {"include_usage": False}}
    tasks = [stage.arrive(stream=True, **declines), stage.arrive(stream=True, stream_options={"include_usage": True})]
    await over(*tasks)
    assert len(stage.upstream.calls) == 2
    await rest()
    await stage.check()


async def test_a_large_recording_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED_BYTES_MAX", 100)
    one = Recording()
    slow, quick = one.read(), one.read()

    async def writes() -> None:
        await one.begin(200, [])
        for number in range(50):
            await one.write(b"%010d" % number)
        await one.end()

    task = asyncio.create_task(writes())
    seen: dict[Any, list[bytes]] = {slow: [], quick: []}
    while not task.done():
        await turns(3)
        assert sum(map(len, one.chunks)) <= 110
        while (data := quick.next()) is not None:
            seen[quick].append(data)
        data = slow.next()
        seen[slow] += [data] if data is not None else []
    while (data := slow.next()) is not None:
        seen[slow].append(data)
    while (data := quick.next()) is not None:
        seen[quick].append(data)
    assert seen[slow] == seen[quick] == [b"%010d" % number for number in range(50)]
    assert one.is_large


async def test_a_large_recording_goes_on_when_the_slow_reader_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED_BYTES_MAX", 10)
    one = Recording()
    reading = one.read()
    task = asyncio.create_task(one.write(b"a" * 11))
    await turns(3)
    assert not task.done()
    reading.close()
    await over(task)
    assert one.chunks == []
