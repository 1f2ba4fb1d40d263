"""Fault matrix D, through the gateway: whatever is asked at once, no more is admitted than the budget has room for."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.core.cost import UnpricedMode, UnpricedPolicy
from proxy.core.pricing import RouteRules
from proxy.phases.budgets import Budgets
from proxy.ports import BudgetStore
from proxy.server import build
from proxy.simulator.server import Simulator
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.redis.budgets import RedisBudgets
from proxy.stores.redis.connection import RedisConnection
from proxy.terms import NanoUsd
from tests.conftest import Start
from tests.gateway import CHAT, Answer, Connection, Gateway, send
from tests.money.held import USED_IN, USED_OUT, Held
from tests.money.stage import IN, OUT, PRICE, agree, budget, rules, standings, stores_of
from tests.phases.budget_stage import Shielded
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

WHERE = ["memory", "valkey", "two gateways on one valkey"]
FITS, ASKED = 142, 500
CAP = 100  # of output tokens
COST = USED_IN * IN + USED_OUT * OUT


def config(url: str, price: str = f', price: {{"*": {PRICE}}}', like: str = "vllm") -> str:
    return f"""
providers: {{p: {{like: {like}, base_url: "{url}", api_key: env:KEY{price}}}}}
defaults: {{timeouts: {{first_event: 30s, total: 30s}}}}
routes: {{r: {{tiers: [p/m]}}}}
"""


def body(user: str = "somebody", **more: Any) -> bytes:
    question = [{"role": "user", "content": "How high is the water, mama?"}]
    return orjson.dumps({"model": "r", "messages": question, "max_tokens": CAP, "user": user, **more})


def worst_case(request: bytes) -> int:
    return -(-len(request) // 2) * IN + CAP * OUT


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """How many gateways, and with which options. Workers of one machine share a ledger, and may share the books."""
    place: str = request.param
    if place == "memory":
        return {"count": 1}
    server: Valkey = request.getfixturevalue("valkey")

    # What happens when the store is too slow is another test's subject.
    monkeypatch.setattr(build, "_redis", partial(RedisConnection, deadline_s=5.0))
    return {"count": 1 if place == "valkey" else 2, "redis_url": server.url, "data": tmp_path}


async def gateways(start: Start, where: dict[str, Any], text: str, cap: int) -> list[Gateway]:
    options = {name: value for name, value in where.items() if name != "count"}
    return [await start(text, environ={"KEY": "x"}, change=budget(cap), **options) for _ in range(where["count"])]


async def test_f070_of_500_at_once_142_fit(start: Start, held: Held, where: dict[str, Any]) -> None:
    request = body()
    cap = FITS * worst_case(request) + worst_case(request) // 2
    running = await gateways(start, where, config(await held.start()), cap)

    async def ask(number: int) -> Answer:
        return await send(running[number % len(running)].port, CHAT, request)

    asking = [asyncio.create_task(ask(number)) for number in range(ASKED)]
    await held.until_seen(FITS)
    async with asyncio.timeout(15):
        while sum(task.done() for task in asking) < ASKED - FITS:
            assert all(spent + kept <= cap for spent, kept in await standings(running[0]))
            assert {task.result().status for task in asking if task.done()} <= {402}
            assert len(held.seen) == FITS
            await asyncio.sleep(0.05)
    assert len(held.seen) == FITS
    assert {*(await standings(running[0]))} == {(0, FITS * worst_case(request))}
    refused = [task.result() for task in asking if task.done()]
    assert {(one.status, one.error["code"], one.headers["x-should-retry"]) for one in refused} == {
        (402, "budget_exceeded", "false")
    }
    held.go.set()
    answers = await asyncio.gather(*asking)
    assert Counter(one.status for one in answers) == {200: FITS, 402: ASKED - FITS}
    one = running[0]
    rows = await one.booked(ASKED)
    assert Counter((row.outcome, row.attempts, row.cost_nanousd) for row in rows) == {
        ("ok", 1, COST): FITS,
        ("refused", 0, 0): ASKED - FITS,
    }
    await agree(one, ASKED)
    again = await send(one.port, CHAT, request)
    assert again.status == 200, "what was not used is there again"


async def test_a_refusal_is_quick(start: Start, held: Held) -> None:
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget(10))
    took = []
    for _ in range(9):
        watch = Stopwatch.patient()
        assert (await send(gateway.port, CHAT, body())).status == 402
        took.append(watch.spent_s)
    assert sorted(took)[4] < 0.05
    assert held.seen == []


SCRIPTS = ["tokens:10:20", "tokens:30:100", "500", "cut:3", "silent", "no-usage", "html", "paced:10:10ms", "429:60"]
SECONDS = {"memory": 2.0, "valkey": 2.0, "two gateways on one valkey": 5.0}


async def test_spent_and_held_never_exceed_the_cap(
    start: Start, upstream_url: str, where: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Clients at random, some of whom leave, and a budget that is spent before the end."""
    text = f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}", price: {{"*": {PRICE}}}}}}}
defaults: {{timeouts: {{first_event: 200ms, idle: 200ms, total: 1s}}, breaker: {{failures: 100}}}}
"""
    seconds = SECONDS[request.node.callspec.params["where"]]
    cap = 90_000_000
    running = await gateways(start, where, text, cap)
    rng = random.Random(70)
    ends_at = time.monotonic() + seconds
    statuses: Counter[int] = Counter()

    def is_over() -> bool:
        """On a busy machine it takes longer until the budget is spent."""
        now = time.monotonic()
        return now >= ends_at and (statuses[402] > 0 or now >= ends_at + 60)

    async def client() -> None:
        while not is_over():
            script, stream = rng.choice(SCRIPTS), rng.random() < 0.5
            one = orjson.dumps({"model": f"sim/{script}", "stream": stream, "max_tokens": 100, "messages": []})
            connection = await Connection.open(rng.choice(running).port)
            connection.post(CHAT, one)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.05)
                connection.reset()
            else:
                statuses[(await connection.answer()).status] += 1
                await connection.close()

    samples: list[int] = []

    async def sample() -> None:
        while not is_over():
            for gateway in running:
                samples.extend([spent + kept for spent, kept in await standings(gateway)])
                gateway.forgive()
            await asyncio.sleep(0.1)

    await asyncio.gather(sample(), *(client() for _ in range(20)))
    assert max(samples) <= cap
    assert max(samples) > cap // 2, "it was no load to speak of"
    assert statuses[402] > 0
    assert statuses[200] > 0
    async with asyncio.timeout(5):
        while any(gateway.service._surface.running for gateway in running if gateway.service._surface is not None):
            await asyncio.sleep(0.02)
    seen = sum(len(gateway.log.exchanges) for gateway in running)  # a client may leave before it is heard of
    rows = await agree(running[0], seen)
    assert sum(row.cost_nanousd for row in rows) <= cap


# Leases


def leased(monkeypatch: pytest.MonkeyPatch, lease_s: float) -> Shielded:
    """Books whose leases are short, and a shield before those in memory."""
    lease_ms = int(lease_s * 1000)
    shield = Shielded(MemoryBudgets(lambda: int(time.time() * 1000), lease_ms=lease_ms))

    def store(redis: RedisConnection | None) -> BudgetStore:
        return shield if redis is None else RedisBudgets(redis, lease_ms=lease_ms)

    monkeypatch.setattr(build, "_redis", partial(RedisConnection, deadline_s=5.0))
    monkeypatch.setattr(build, "_budget_store", store)
    monkeypatch.setattr(build, "Budgets", partial(Budgets, lease_s=lease_s))
    return shield


@pytest.mark.parametrize("place", ["memory", "valkey"])
async def test_f073_a_stream_longer_than_its_lease_stays_held(
    place: str, start: Start, held: Held, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased(monkeypatch, 0.3)
    url = None if place == "memory" else valkey.url
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget(), redis_url=url)
    request = body(stream=True)
    asking = asyncio.create_task(send(gateway.port, CHAT, request))
    await held.until_seen(1)
    ends_at = time.monotonic() + 1.2
    while time.monotonic() < ends_at:
        assert {*(await standings(gateway))} == {(0, worst_case(request))}
        await asyncio.sleep(0.03)
    held.go.set()
    assert (await asking).status == 200
    (row,) = await agree(gateway, 1)
    assert row.cost_nanousd == COST
    await asyncio.sleep(0.5)
    assert {*(await standings(gateway))} == {(COST, 0)}, "and nothing is given back twice"


async def test_f074_a_settlement_after_its_lease_counts_once(
    start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    shield = leased(monkeypatch, 0.2)
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget())
    asking = asyncio.create_task(send(gateway.port, CHAT, body()))
    await held.until_seen(1)
    shield.away = True  # nothing is renewed
    await asyncio.sleep(0.4)
    shield.away = False
    held.go.set()
    assert (await asking).status == 200
    await agree(gateway, 1)
    await asyncio.sleep(0.3)
    assert {*(await standings(gateway))} == {(COST, 0)}


async def test_f074_a_settlement_whose_acknowledgement_is_lost_counts_once(
    start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    shield = leased(monkeypatch, 60.0)
    held.go.set()
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget())
    shield.deaf.add("settle")
    for _ in range(3):
        assert (await send(gateway.port, CHAT, body())).status == 200
    async with asyncio.timeout(5):
        while shield.calls.count("settle") < 3:
            await asyncio.sleep(0.01)
    shield.deaf.clear()
    await agree(gateway, 3)
    assert {*(await standings(gateway))} == {(3 * COST, 0)}


async def test_an_id_that_a_client_sends_fifty_times_is_fifty_exchanges(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget())
    answers = await asyncio.gather(*(send(gateway.port, CHAT, body(), {"x-request-id": "mine-1"}) for _ in range(50)))
    assert {(one.status, one.headers["x-request-id"]) for one in answers} == {(200, "mine-1")}
    rows = await agree(gateway, 50)
    assert {row.request_id for row in rows} == {"mine-1"}
    assert len({row.id for row in rows}) == 50
    assert {*(await standings(gateway))} == {(50 * COST, 0)}


# Prices


def policy(mode: UnpricedMode) -> RouteRules:
    return RouteRules(unpriced=UnpricedPolicy(mode, NanoUsd(7_000_000)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "status", "cost"),
    [(UnpricedMode.RESERVE, 200, 7_000_000), (UnpricedMode.REJECT, 402, 0), (UnpricedMode.FREE, 200, 0)],
)
async def test_f078_a_model_without_a_price(
    mode: UnpricedMode, status: int, cost: int, start: Start, held: Held, *, stream: bool
) -> None:
    held.go.set()
    text = config(await held.start(), "", like="openrouter")
    gateway = await start(text, environ={"KEY": "x"}, change=lambda table: rules(budget()(table), r=policy(mode)))
    got = await send(gateway.port, CHAT, body(stream=stream))
    assert got.status == status
    (row,) = await agree(gateway, 1)
    assert (row.cost_nanousd, row.cost_source) == (cost, "free" if status == 402 else "unknown")
    if status == 402:
        assert (got.error["code"], got.headers["x-should-retry"]) == ("model_unpriced", "false")
        assert held.seen == []


async def test_f078_a_price_that_changes_holds_for_what_comes_after(start: Start, held: Held) -> None:
    url = await held.start()
    gateway = await start(config(url), environ={"KEY": "x"}, change=budget())
    surface = gateway.service._surface
    assert surface is not None
    asking = asyncio.create_task(send(gateway.port, CHAT, body(stream=True)))
    await held.until_seen(1)
    dearer = await start(config(url, ', price: {"*": {input: 2, output: 20}}'), environ={"KEY": "x"}, change=budget())
    table = replace(dearer.service.table, providers=gateway.service.table.providers)
    table = replace(table, routes=gateway.service.table.routes)
    assert gateway.service._upstream is not None
    surface.runtime = build.build_runtime(
        table, gateway.service._upstream, gateway.log, stores_of(gateway), surface.runtime.door
    )
    held.go.set()
    assert (await asking).status == 200
    assert (await send(gateway.port, CHAT, body())).status == 200
    rows = await agree(gateway, 2)
    assert [row.cost_nanousd for row in rows] == [COST, 2 * COST]


# Cost tiers, on the wire: what is inserted, and under which name


NAMES = [
    ("openai", CHAT, "max_completion_tokens"),
    ("vllm", CHAT, "max_tokens"),
    ("vllm", "/v1/completions", "max_tokens"),
    ("openai", "/v1/responses", "max_output_tokens"),
    ("anthropic", "/v1/messages", "max_tokens"),
]


@pytest.mark.parametrize(("like", "path", "name"), NAMES)
async def test_f071_a_cap_is_inserted_under_the_targets_own_name(
    like: str, path: str, name: str, start: Start, upstream: Simulator
) -> None:
    gateway = await start(
        config(await upstream.start(), like=like),
        environ={"KEY": "x"},
        change=lambda table: replace(
            budget()(table), pricing=replace(table.pricing, cost_tiers={"low": NanoUsd(5_000_000)})
        ),
    )
    asked = orjson.dumps(
        {
            "model": "p/plain",
            "messages": [{"role": "user", "content": "a"}],
            "input": "?",
            "prompt": "?",
        }
    )
    got = await send(gateway.port, path, asked, {"x-penstock-tier": "low"})
    assert got.status == 200, got.body
    cap = (5_000_000 - -(-len(asked) // 2) * IN) // OUT
    assert got.headers["x-penstock-output-cap"] == str(cap)
    sent = orjson.loads(upstream.requests[0].body)
    assert {key: value for key, value in sent.items() if "max" in key} == {name: cap}
    (row,) = await agree(gateway, 1)
    assert 0 < row.cost_nanousd <= 5_000_000


async def test_a_tier_that_nobody_knows_is_told(start: Start, held: Held) -> None:
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget())
    got = await send(gateway.port, CHAT, body(), {"x-penstock-tier": "dirt"})
    assert (got.status, "x-penstock-tier" in got.error["message"]) == (400, True)
    await agree(gateway, 1)


async def test_what_is_too_dear_is_skipped_and_said_where_nothing_is_left(start: Start, upstream_url: str) -> None:
    text = f"""
providers:
  dear: {{like: vllm, base_url: "{upstream_url}", price: {{"*": {{input: 100, output: 1000}}}}}}
  cheap: {{like: vllm, base_url: "{upstream_url}", price: {{"*": {PRICE}}}}}
routes:
  both: {{tiers: [dear/plain, cheap/plain]}}
  one: {{tiers: [dear/plain]}}
"""
    tier = RouteRules(ceiling_nanousd=NanoUsd(5_000_000))
    gateway = await start(text, change=lambda table: rules(budget()(table), both=tier, one=tier))
    both, one = await gateway.ask("both"), await gateway.ask("one")
    assert (both.status, both.headers["x-penstock-provider"], both.headers["x-penstock-attempts"]) == (
        200,
        "cheap",
        "1",
    )
    assert (one.status, one.error["code"], one.headers["x-should-retry"]) == (402, "cost_tier_exceeded", "false")
    await agree(gateway, 2)


async def test_a_cap_beyond_all_reason_is_refused_not_a_bug(start: Start, held: Held) -> None:
    gateway = await start(config(await held.start()), environ={"KEY": "x"}, change=budget())
    for cap in (2**53, 2**63, 2**64 - 1):
        got = await send(gateway.port, CHAT, body(max_tokens=cap, n=128))
        assert (got.status, got.error["code"]) == (402, "budget_exceeded")
    await agree(gateway, 3)
