"""Three kinds of fault at once, chosen by a seed, round after round: after each of them everything is as it must be.

Two gateways share a Redis and an upstream, which is reached through a network that breaks. `make chaos SEED=...` repeats a
run; without a seed it makes one, and prints it.
"""

import asyncio
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import orjson
import psutil
import pytest

from proxy.simulator.server import Simulator
from tests.between import Between, between
from tests.chaos.schedule import Ask, Fault, Round, Store, rounds
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, get, port_of, send
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

SEED: Final = 20261121  # of the short run
SHORT_S: Final = 6.0
CREDENTIAL: Final = "provider-canary-5f1c"
LIVE_S: Final = 0.1
BASELINE_S: Final = 10.0
ROUND_S: Final = 20.0
TWIN_S: Final = 1.0  # so long the undisturbed upstream is listened to; what hangs hangs for longer
PIECE_BYTES, PIECE_S = 4096, 0.002  # how a slow client reads


@dataclass(slots=True)
class World:
    """``twin`` answers as the upstream does, and nothing is between. ``known``: the records of earlier rounds."""

    gateways: tuple[Gateway, Gateway]
    upstream: Simulator
    twin: Simulator
    twin_port: int
    wire: Between
    valkey: Valkey
    numbers: "count[int]" = field(default_factory=count)
    known: set[object] = field(default_factory=set)
    live_s: list[float] = field(default_factory=list)

    def records(self) -> list[dict[str, object]]:
        """Those of this round."""
        every = [record for gateway in self.gateways for record in gateway.log.exchanges]
        return [record for record in every if record["id"] not in self.known]


@dataclass(frozen=True, slots=True)
class Seen:
    ask: Ask
    question: str
    answer: Answer


@pytest.fixture
async def world(start: Start, own_valkey: Valkey) -> AsyncIterator[World]:
    upstream, twin = Simulator(record=1000), Simulator()
    upstream_port = port_of(await upstream.start())
    twin_port = port_of(await twin.start())
    async with between(upstream_port) as wire:
        config = f"""
providers: {{sim: {{like: openai, base_url: "http://127.0.0.1:{wire.port}/v1", api_key: env:K}}}}
defaults:
  timeouts: {{connect: 500ms, first_event: 400ms, idle: 300ms, silent: 600ms, total: 3s}}
  breaker: {{cooldown: 300ms}}
routes:
  after-503: {{tiers: [sim/503, "sim/events:20"]}}
  after-reset: {{tiers: [sim/refuse, "sim/events:20"]}}
  after-silence: {{tiers: [sim/silent, "sim/events:20"]}}
"""
        one = await start(config, environ={"K": CREDENTIAL}, redis_url=own_valkey.url)
        two = await start(config, environ={"K": CREDENTIAL}, redis_url=own_valkey.url)
        yield World((one, two), upstream, twin, twin_port, wire, own_valkey)
    await upstream.stop()
    await twin.stop()


# One round --------------------------------------------------------------------------------------------------------------


async def played(world: World, one: Round) -> list[Seen]:
    """All that clients saw of it."""
    world.upstream.clear()
    world.known |= {record["id"] for record in world.records()}
    world.wire.delay_s = lambda _: one.delay_s
    async with asyncio.timeout(ROUND_S), asyncio.TaskGroup() as group:
        asking = [group.create_task(asked(world, ask)) for ask in one.asks]
        if one.store is not None:
            group.create_task(store_fails(world.valkey, one.store, one.store_at_s, one.store_for_s))
        for at_s in one.cuts_at_s:
            group.create_task(cut(world.wire, at_s))
    world.wire.delay_s = lambda _: 0.0
    return [task.result() for task in asking]


async def asked(world: World, ask: Ask) -> Seen:
    question = f"question {next(world.numbers)}."
    body = {"model": ask.model, "stream": ask.stream, "messages": [{"role": "user", "content": question}]}
    if ask.stream:
        body["stream_options"] = {"include_usage": True}  # else it would be asked for, and taken out of what is relayed
    await asyncio.sleep(ask.at_s)
    port = world.gateways[ask.gateway].port
    limit = PIECE_BYTES if ask.slow else 1 << 24
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=limit))
    connection.post(CHAT, orjson.dumps(body))
    try:
        if ask.leaves_s is not None:
            answer = await connection.answer(within_s=ask.leaves_s)
            connection.reset()
            return Seen(ask, question, answer)
        if ask.slow:
            await read_slowly(connection)
        return Seen(ask, question, await connection.answer())
    finally:
        await connection.close()


async def read_slowly(connection: Connection) -> None:
    """A stream; what is none is read by whoever asks for the answer."""
    while data := await connection.reader.read(PIECE_BYTES):
        connection._buffer += data
        head = connection._buffer.partition(b"\r\n\r\n")[0].lower()
        if b"chunked" not in head or connection._buffer.endswith(b"0\r\n\r\n"):
            return
        await asyncio.sleep(PIECE_S)


async def store_fails(valkey: Valkey, how: Store, at_s: float, for_s: float) -> None:
    await asyncio.sleep(at_s)
    match how:
        case Store.STOPPED:
            valkey.stop()
            await asyncio.sleep(for_s)
            await asyncio.to_thread(valkey.start)  # it waits for the server
        case Store.HUNG:
            valkey.pause()
            await asyncio.sleep(for_s)
            valkey.resume()
        case Store.EMPTIED:
            valkey.flush()
        case Store.FLUSHED:
            valkey.send("SCRIPT", "FLUSH")


async def cut(wire: Between, at_s: float) -> None:
    await asyncio.sleep(at_s)
    wire.cut()


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[None]:
    """`/health/live` is asked all the time."""

    async def watch(gateway: Gateway) -> None:
        while True:
            stopwatch = Stopwatch()
            assert (await get(gateway.port, "/health/live")).status == 200
            world.live_s.append(stopwatch.spent_s)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch(gateway)) for gateway in world.gateways]
        yield
        for task in watching:
            task.cancel()


# After each -------------------------------------------------------------------------------------------------------------


async def judged(world: World, seen: list[Seen]) -> Counter[str]:
    """Every promise that a round can break. How many ended how."""
    await settled(world, seen)
    outcomes = {record["id"]: str(record["outcome"]) for record in world.records()}
    bodies: defaultdict[str, list[bytes]] = defaultdict(list)
    for request in world.upstream.requests:
        if found := re.search(rb"question \d+\.", request.body):
            bodies[found[0].decode()].append(request.body)
    answered = [one for one in seen if one.answer.status == 200]
    sent = await asyncio.gather(*(direct(world, bodies[one.question]) for one in answered))
    for one, candidates in zip(answered, sent, strict=True):
        is_what_was_sent(one, candidates)
    for one in seen:
        assert CREDENTIAL.encode() not in one.answer.raw
        stayed = one.ask.leaves_s is None
        if stayed:
            assert one.answer.end != "open", f"it never ended: {one}"
            assert one.answer.status, f"no answer at all: {one}"
        if stayed and one.answer.status == 200:
            outcome = outcomes[one.answer.headers["x-request-id"]]
            assert (outcome == "ok") == (one.answer.end == "whole"), (outcome, one)
        elif one.answer.status and one.answer.status != 200 and one.answer.end == "whole":
            assert one.answer.error["code"]
    return Counter(outcomes.values())


async def settled(world: World, seen: list[Seen]) -> None:
    """One record for each, no more; who left at once may never have been heard."""
    heard = {one.answer.headers["x-request-id"] for one in seen if one.answer.status}
    async with asyncio.timeout(BASELINE_S):
        while any(gateway.service._surface is None or gateway.service._surface.running for gateway in world.gateways):
            await asyncio.sleep(0.01)
    ids = [record["id"] for record in world.records()]
    assert len(set(ids)) == len(ids), "an exchange is recorded once"
    assert heard <= set(ids)
    assert len(ids) <= len(seen)
    assert [gateway.log.bugs for gateway in world.gateways] == [[], []]


async def direct(world: World, bodies: list[bytes]) -> list[bytes]:
    """What the upstream sends to each of these, if nothing comes between."""

    async def heard(body: bytes) -> bytes:
        connection = await Connection.open(world.twin_port)
        connection.post(CHAT, body)
        answer = await connection.answer(within_s=TWIN_S)
        await connection.close()
        return answer.body

    return await asyncio.gather(*map(heard, dict.fromkeys(bodies)))


def is_what_was_sent(one: Seen, candidates: list[bytes]) -> None:
    relayed = one.answer.body
    if not one.ask.stream:
        relayed = relayed if one.answer.end == "whole" else b""
    elif one.answer.end == "eof" and b'data: {"error"' in relayed:
        relayed = relayed[: relayed.rindex(b'data: {"error"')]  # STREAM-ERR, which is Penstock's own
    elif one.answer.end != "whole":
        relayed = relayed[: relayed.rfind(b"\n\n") + 2 if b"\n\n" in relayed else 0]  # they left in the middle of one
    assert any(sent.startswith(relayed) for sent in candidates), (
        f"nobody sent this: {one.ask} {one.answer.end} {relayed[-300:]!r} of {[sent[-300:] for sent in candidates]}"
    )
    if one.answer.end == "eof":
        assert b"[DONE]" not in relayed
        assert not re.search(rb'"finish_reason":"', relayed)


async def at_baseline(world: World, descriptors: int, tasks: int) -> None:
    """Of what a round opened nothing is left; kept connections to the upstream are cut first, and Redis may keep some."""
    world.wire.cut()
    async with asyncio.timeout(BASELINE_S):
        while descriptors_held(world) > descriptors or tasks_held() > tasks or world.upstream.connections_open:
            await asyncio.sleep(0.02)


def descriptors_held(world: World) -> int:
    own = psutil.Process()
    to_redis = [one for one in own.net_connections("tcp") if one.raddr[1:] == (world.valkey.port,)]
    return own.num_fds() - len(to_redis)


def tasks_held() -> int:
    """But for those that connections to Redis come and go with."""
    return sum("proxy/stores/redis" not in repr(task) for task in asyncio.all_tasks())


# Whole ------------------------------------------------------------------------------------------------------------------


async def run(world: World, seed: int, seconds: float) -> None:
    print(f"chaos: seed {seed}, {seconds:.0f} s")
    await asyncio.to_thread(time.sleep, 0)  # its thread is there from now on
    for gateway in world.gateways:
        await send(gateway.port, CHAT, b'{"model":"sim/plain","messages":[]}')
    world.wire.cut()
    await asyncio.sleep(0.1)
    descriptors, tasks = descriptors_held(world), tasks_held()
    ends = time.monotonic() + seconds
    ended: Counter[str] = Counter()
    faults: Counter[Fault] = Counter()
    for number, one in enumerate(rounds(seed)):
        if time.monotonic() > ends:
            break
        async with watched(world):
            seen = await played(world, one)
            outcomes = await judged(world, seen)
        print(f"  round {number}: {one}: {dict(outcomes)}")
        await at_baseline(world, descriptors, tasks)
        ended += outcomes
        faults.update(one.faults)
    assert max(world.live_s) <= LIVE_S
    assert ended["ok"], "something must have gone well"
    async with asyncio.timeout(BASELINE_S):
        for gateway in world.gateways:
            while (await get(gateway.port, "/health")).json()["stores"] != {"redis": {"state": "up"}}:
                await asyncio.sleep(0.02)
    told = {fault.value: times for fault, times in faults.items()}
    print(f"  {ended.total()} exchanges {dict(ended)}; {told}; live within {max(world.live_s) * 1000:.0f} ms")


async def test_a_few_rounds(world: World) -> None:
    await run(world, SEED, SHORT_S)


@pytest.mark.soak
async def test_rounds(world: World) -> None:
    given = os.environ.get("PENSTOCK_CHAOS_SEED") or str(random.randrange(1 << 32))
    await run(world, int(given), float(os.environ.get("PENSTOCK_CHAOS_SECONDS") or 60))
