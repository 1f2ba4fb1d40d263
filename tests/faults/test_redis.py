"""Gateways that share one Redis, and what becomes of them when it goes: answers go on, nobody waits, and nothing is lost
that a process knew (F079, F080, F082, F086)."""

import asyncio
import gc
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from proxy.core.breaker import State, Subject, credential_subject, target_subject
from proxy.phases import breakers
from proxy.server import build
from proxy.stores.redis.connection import RedisConnection
from proxy.terms import ProviderId, TargetName
from tests.conftest import Start
from tests.edge.doorway import KEY
from tests.edge.doorway import ask as ask_admin
from tests.edge.recorder import Recorder, answer
from tests.gateway import Gateway, get
from tests.server.process import ENVIRONMENT, PENSTOCK, config_file
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

GOOD = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")
BUSY = answer(500, b'{"error":{"message":"boom"}}')
REFUSED = answer(401, b'{"error":{"message":"Incorrect API key"}}')
SHARED_S: Final = 0.25
FIRST, FIRST_S, AFTER_S = 5, 0.025, 0.001
PROBE_S: Final = 0.1  # until one probe's lease is given back
FOUND_S: Final = (
    3.0  # Redis is tried once a second, what was not sent once a second, and the channel opened again after one
)
TARGET: Final = target_subject(TargetName("sim/m"))
CREDENTIAL: Final = credential_subject(ProviderId("sim"), "provider-key")
COOLDOWN_S: Final = 0.03
PROBES: Final = 60
PASSING: Final = 200


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    """Of all tests together it has so much to look at that one run of it outlasts a deadline."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder(lambda _: BUSY)
    await recorder.start()
    yield recorder
    await recorder.stop()


async def started(
    start: Start, recorder: Recorder, redis_url: str | None, *, cooldown: str = "30s", failures: int = 5
) -> Gateway:
    assert recorder._server is not None
    port = recorder._server.sockets[0].getsockname()[1]
    return await start(
        f"""
providers: {{sim: {{like: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: env:K}}}}
defaults: {{breaker: {{failures: {failures}, cooldown: {cooldown}, successes: 2}}, retry: {{attempts: 1}}}}
routes: {{alone: {{tiers: [sim/m]}}, other: {{tiers: [sim/n]}}}}
""",
        environ={"K": "provider-key"},
        admin_key=KEY,
        redis_url=redis_url,
    )


async def pair(start: Start, recorder: Recorder, valkey: Valkey, cooldown: str = "30s") -> tuple[Gateway, Gateway]:
    one = await started(start, recorder, valkey.url, cooldown=cooldown)
    return one, await started(start, recorder, valkey.url, cooldown=cooldown)


def state(gateway: Gateway, subject: Subject = TARGET) -> State:
    assert gateway.service._stores is not None
    return gateway.service._stores.breakers.view(subject, time.time()).state


async def becomes(what: Callable[[], bool], within_s: float) -> float:
    """How long it took."""
    watch = Stopwatch.patient()
    while not what():
        assert not watch.is_over(within_s)
        await asyncio.sleep(0.002)
    return watch.passed_s


async def redis_is(gateway: Gateway, word: str) -> None:
    async with asyncio.timeout(FOUND_S):
        while (await get(gateway.port, "/health")).json()["stores"] != {"redis": {"state": word}}:
            await asyncio.sleep(0.02)


async def fail(gateway: Gateway, times: int = 5) -> None:
    for _ in range(times):
        assert (await gateway.ask("alone")).status == 502


# Together ---------------------------------------------------------------------------------------------------------------


async def test_they_open_and_close_together(start: Start, recorder: Recorder, valkey: Valkey) -> None:
    one, two = await pair(start, recorder, valkey, "400ms")
    await fail(one)
    opened_s = await becomes(lambda: state(two) is State.OPEN, SHARED_S)
    held = await two.ask("alone")
    assert (held.status, held.error["code"], len(recorder.received)) == (503, "no_target_available", 5)
    recorder.answers = lambda _: GOOD
    await asyncio.sleep(0.45)
    assert state(two) is State.HALF_OPEN
    assert (await one.ask("alone")).status == 200
    again = Stopwatch.patient()
    while (await one.ask("alone")).status != 200:
        assert not again.is_over(PROBE_S), "the lease of the first probe is not taken for somebody else's"
        await asyncio.sleep(0.002)
    closed_s = await becomes(lambda: state(two) is State.CLOSED, SHARED_S)
    print(f"open after {opened_s * 1000:.1f} ms, closed after {closed_s * 1000:.1f} ms")


async def test_one_probe_of_both(
    start: Start, recorder: Recorder, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What happens when the store is too slow is another test's subject.
    monkeypatch.setattr(build, "_redis", partial(RedisConnection, deadline_s=5.0))
    monkeypatch.setattr(breakers, "LEASE_ASKED_S", 5.0)
    one, two = await pair(start, recorder, valkey, "400ms")
    await fail(one)
    await becomes(lambda: state(two) is State.OPEN, SHARED_S)
    await asyncio.sleep(0.45)
    began = time.monotonic()
    answers = await asyncio.gather(*(each.ask("alone") for each in (one, two) for _ in range(20)))
    probes = len(recorder.received) - 5
    assert 1 <= probes <= 1 + (time.monotonic() - began) / 0.4, "one, and one more after each cool-down"
    assert sorted(got.status for got in answers) == [502] * probes + [503] * (40 - probes)


async def test_a_refused_credential_is_known_to_both(start: Start, recorder: Recorder, valkey: Valkey) -> None:
    one, two = await pair(start, recorder, valkey)
    recorder.answers = lambda _: REFUSED
    assert (await one.ask("alone")).error["code"] == "upstream_auth"
    await becomes(lambda: state(two, CREDENTIAL) is State.OPEN, SHARED_S)
    held = await two.ask("other")
    assert (held.status, held.error["code"], len(recorder.received)) == (503, "no_target_available", 1)
    assert b"provider-key" not in held.raw
    assert b"provider-key" not in valkey.send("KEYS", "*")


async def test_a_reset_reaches_the_other(start: Start, recorder: Recorder, valkey: Valkey) -> None:
    one, two = await pair(start, recorder, valkey)
    await fail(one)
    await becomes(lambda: state(two) is State.OPEN, SHARED_S)
    done = await ask_admin(
        two.port, "/admin/breakers/reset", {"x-api-key": KEY}, method="POST", body=b'{"target":"sim/m"}'
    )
    assert done.json() == {"reset": ["sim/m"]}
    await becomes(lambda: state(one) is State.CLOSED, SHARED_S)
    recorder.answers = lambda _: GOOD
    assert (await one.ask("alone")).status == 200


# Away -------------------------------------------------------------------------------------------------------------------


def go(valkey: Valkey, how: str) -> None:
    (valkey.pause if how == "hung" else valkey.stop)()


def come(valkey: Valkey, how: str) -> None:
    (valkey.resume if how == "hung" else valkey.start)()


@pytest.mark.parametrize("how", ["refused", "stopped", "hung"])
async def test_alone_meanwhile_and_together_again(
    start: Start, recorder: Recorder, own_valkey: Valkey, how: str
) -> None:
    if how == "refused":
        own_valkey.stop()
    one, two = await pair(start, recorder, own_valkey)
    if how != "refused":
        await redis_is(one, "up")
        go(own_valkey, how)
    await fail(one)
    assert (await one.ask("alone")).status == 503
    await asyncio.sleep(SHARED_S)
    assert state(two) is State.CLOSED, "nobody told it"
    recorder.answers = lambda _: GOOD
    assert (await two.ask("alone")).status == 200
    come(own_valkey, how)
    await becomes(lambda: state(two) is State.OPEN, 2 * FOUND_S)
    await redis_is(one, "up")
    await redis_is(two, "up")
    recorder.answers = lambda _: REFUSED
    assert (await two.ask("other")).error["code"] == "upstream_auth"
    await becomes(lambda: state(one, CREDENTIAL) is State.OPEN, FOUND_S)
    assert not one.log.bugs
    assert not two.log.bugs


async def test_f082_restarted_empty_it_is_told_again(start: Start, recorder: Recorder, own_valkey: Valkey) -> None:
    one, two = await pair(start, recorder, own_valkey)
    await fail(one)
    await becomes(lambda: state(two) is State.OPEN, SHARED_S)
    own_valkey.stop()
    own_valkey.start()
    assert [(await each.ask("alone")).status for each in (one, two)] == [503, 503]
    await becomes(lambda: b"records" in own_valkey.send("KEYS", "*"), 2 * FOUND_S)
    third = await started(start, recorder, own_valkey.url)
    assert (await third.ask("alone")).status == 503
    assert len(recorder.received) == 5


async def probed(gateway: Gateway, times: int) -> list[float]:
    """How long each of so many requests took that went as a probe, the only ones that ask Redis before they go."""
    took: list[float] = []
    while len(took) < times:
        watch = Stopwatch()
        got = await gateway.ask("alone")
        if got.status == 502:
            took.append(watch.spent_s)
        await asyncio.sleep(COOLDOWN_S + 0.002)
    return took


async def passed(gateway: Gateway, times: int) -> list[float]:
    """How long each of so many requests took whose breaker is closed."""
    took = []
    for _ in range(times):
        watch = Stopwatch()
        await gateway.ask("other")
        took.append(watch.spent_s)
    return took


@pytest.mark.parametrize("how", ["refused", "stopped", "hung"])
async def test_f079_f080_nobody_waits(start: Start, recorder: Recorder, own_valkey: Valkey, how: str) -> None:
    recorder.answers = lambda _: BUSY
    if how == "refused":
        own_valkey.stop()
    without = await started(start, recorder, None, cooldown="30ms", failures=1)
    gateway = await started(start, recorder, own_valkey.url, cooldown="30ms", failures=1)
    await without.ask("alone")
    await gateway.ask("alone")
    await probed(without, 5)
    if how != "refused":
        await probed(gateway, 5)
        go(own_valkey, how)
    first = await probed(gateway, FIRST)
    await redis_is(gateway, "away")
    # In turns, so that both see the same machine.
    after, alone, gone, here = [], [], [], []
    for _ in range(4):
        recorder.answers = lambda _: BUSY
        after += await probed(gateway, PROBES // 4)
        alone += await probed(without, PROBES // 4)
        recorder.answers = lambda _: GOOD
        gone += await passed(gateway, PASSING // 4)
        here += await passed(without, PASSING // 4)
    assert max(first) - median(alone) <= FIRST_S, first
    assert median(after) - median(alone) <= AFTER_S
    assert median(gone) - median(here) <= AFTER_S
    print(
        f"{how}: probes {max(first) * 1000:.2f} ms at first, then {median(after) * 1000:.2f} ms, without Redis "
        f"{median(alone) * 1000:.2f} ms; others {median(gone) * 1000:.2f} ms and {median(here) * 1000:.2f} ms"
    )
    come(own_valkey, how)
    await redis_is(gateway, "up")
    assert not gateway.log.bugs


async def test_f086_scripts_may_be_flushed_at_any_time(start: Start, recorder: Recorder, own_valkey: Valkey) -> None:
    gateway = await started(start, recorder, own_valkey.url, cooldown="30ms", failures=1)
    other = await started(start, recorder, own_valkey.url, cooldown="30ms", failures=1)
    assert (await gateway.ask("alone")).status == 502
    for _ in range(20):
        assert own_valkey.send("SCRIPT", "FLUSH") == b"+OK\r\n"
        await probed(gateway, 1)
        assert (await get(gateway.port, "/health")).json()["stores"] == {"redis": {"state": "up"}}
    assert gateway.service._stores is not None
    assert gateway.service._stores.redis is not None
    assert gateway.service._stores.redis.state.last_error is None
    assert own_valkey.send("SCRIPT", "FLUSH") == b"+OK\r\n"
    recorder.answers = lambda _: REFUSED
    await gateway.ask("other")
    await becomes(lambda: state(other, CREDENTIAL) is State.OPEN, SHARED_S)
    assert not gateway.log.bugs


# Misconfigured ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2-secret@127.0.0.1:6379",
        "redis://user:hunter2-secret@127.0.0.1:many",
        "redis+cluster://user:hunter2-secret@127.0.0.1:6379,127.0.0.1:6380/1",
        "redis://user:hunter2-secret@127.0.0.1:6379/zero",
        "redis://user:hunter2-secret@127.0.0.1:6379/0?timeout=1",
        "redis://user:a?hunter2-secret=b@127.0.0.1:6379/0",
        "user:hunter2-secret@127.0.0.1:6379",
        "redis://user:hunter2-secret@[::1",
    ],
)
def test_a_bad_url_refuses_to_start(tmp_path: Path, url: str) -> None:
    config = config_file(tmp_path, 'providers: {sim: {like: vllm, base_url: "http://127.0.0.1:9/v1"}}')
    done = subprocess.run(
        [*PENSTOCK, "serve", "--port", "0", "--grace", "0s", "--config", config],
        env={**ENVIRONMENT, "REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -9)
    assert "REDIS_URL" in said
    assert "hunter2" not in said
    assert "Traceback" not in said
