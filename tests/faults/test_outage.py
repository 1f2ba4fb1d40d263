"""A route's only target fails whole, at 200 requests a second (F030): it is left alone, clients are told at once, and it is
found out soon when it is well again."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

import pytest

from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import Answer, Gateway

RATE: Final = 200.0  # requests a second
COOLDOWN_S: Final = 1.0
OPENS_S: Final = 1.0
QUICK_S: Final = 0.010
PROBE_S: Final = 0.1  # one probe: it goes with the next request, and is over as soon as the upstream has answered
GOOD = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")
DOWN = answer(503, b'{"error":{"message":"down"}}')


@dataclass(slots=True)
class Upstream:
    """``sent_at`` is when it got each request. ``every``: that one it answers well; 0: none."""

    well: bool = False
    every: int = 0
    sent_at: list[float] = field(default_factory=list)
    recorder: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        self.recorder.answers = self._answer

    def _answer(self, number: int) -> bytes:
        self.sent_at.append(time.monotonic())
        return GOOD if self.well or (self.every and number % self.every == 0) else DOWN


@dataclass(frozen=True, slots=True)
class Asked:
    began: float
    took_s: float
    answer: Answer

    @property
    def ended(self) -> float:
        return self.began + self.took_s

    @property
    def held_back(self) -> bool:
        return self.answer.status != 200 and self.answer.error["code"] == "no_target_available"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    yield made
    await made.recorder.stop()


async def load(gateway: Gateway, seconds: float, asked: list[Asked]) -> None:
    """`RATE` requests a second, each when it is due, however slowly the earlier are answered."""

    async def one() -> None:
        began = time.monotonic()
        got = await gateway.ask("alone")
        asked.append(Asked(began, time.monotonic() - began, got))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            group.create_task(one())


async def started(start: Start, upstream: Upstream, failures: int = 5) -> Gateway:
    return await start(
        f"""
providers: {{sim: {{like: openai, base_url: "{await upstream.recorder.start()}", api_key: env:K}}}}
defaults: {{breaker: {{failures: {failures}, cooldown: {COOLDOWN_S:.0f}s, successes: 2}}}}
routes: {{alone: {{tiers: [sim/m]}}}}
""",
        environ={"K": "provider-key"},
    )


@pytest.mark.parametrize("seconds", [5.0, pytest.param(20.0, marks=pytest.mark.soak)])
async def test_f030_a_total_outage_is_no_storm(start: Start, upstream: Upstream, seconds: float) -> None:
    gateway = await started(start, upstream)
    asked: list[Asked] = []
    began = time.monotonic()
    await load(gateway, seconds, asked)
    during, lasted_s = len(upstream.sent_at), time.monotonic() - began  # longer than `seconds` on a busy machine

    held = [one for one in asked if one.held_back]
    opened = min(one.ended for one in held)
    assert opened - began <= OPENS_S
    assert during <= 1.2 * len(asked) + 3
    before = [at for at in upstream.sent_at if at < opened]
    assert len(before) <= 1.2 * sum(one.began < opened for one in asked) + 3, "nor while it is found out"
    # Exchanges that were under way when it opened end on their own; from then on only probes go, one a cool-down.
    probes = [at for at in upstream.sent_at if at > opened + COOLDOWN_S / 2]
    assert seconds - 2 <= len(probes) <= (began + lasted_s - opened) / COOLDOWN_S + 1
    assert all(later - earlier >= COOLDOWN_S * 0.95 for earlier, later in pairwise(probes)), probes
    told = [one for one in asked if one.began > opened and not one.held_back]
    assert len(told) in (len(probes), len(probes) - 1), "who went as a probe is told of the upstream, and nobody else"
    assert {one.answer.status for one in asked} == {503}
    middle_s = median(one.took_s for one in held)
    assert middle_s <= QUICK_S
    assert all(one.answer.headers["retry-after"] == "1" for one in held)

    again: list[Asked] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(load(gateway, 2 * COOLDOWN_S + 1.0, again))
        while len(upstream.sent_at) == during:
            await asyncio.sleep(0.001)
        upstream.well, well = True, time.monotonic()  # just after a probe, which is the latest to be found out
    back = max(one.ended for one in again if one.answer.status != 200)
    assert back - well <= COOLDOWN_S + 2 * PROBE_S
    assert sum(one.answer.status == 200 for one in again) >= RATE / 2
    records = await gateway.settled(len(asked) + len(again))
    assert {record["id"] for record in records} == {one.answer.headers["x-request-id"] for one in (*asked, *again)}
    print(
        f"{len(asked)} requests, {during} sends, {len(probes)} probes; open after {opened - began:.3f} s; "
        f"median while open {middle_s * 1000:.1f} ms; back {back - well:.3f} s after the upstream"
    )


async def test_f030_nor_is_it_where_no_breaker_opens(start: Start, upstream: Upstream) -> None:
    """One answer of fifty is well, so there are never a hundred failures in a row: the retry budget alone holds it."""
    upstream.every = 50
    gateway = await started(start, upstream, failures=100)
    asked: list[Asked] = []
    await load(gateway, 2.0, asked)
    assert {one.answer.status for one in asked} == {200, 503}
    assert not [one for one in asked if one.held_back]
    assert len(asked) < len(upstream.sent_at) <= 1.2 * len(asked) + 3
    await gateway.settled(len(asked))
