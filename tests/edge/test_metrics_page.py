"""`GET /metrics`, over a real gateway: who may see it, where, and what it says after real requests."""

import asyncio

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry.metrics import METRICS, Snapshot, merge
from tests.conftest import Start
from tests.edge.doorway import KEY, OTHER, ask
from tests.gateway import Answer, Gateway, get

WITH_KEY = {"x-api-key": KEY}
CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
routes:
  general: {{tiers: [sim/gpt-small]}}
  broken: {{tiers: [sim/status:500]}}
  kept: {{tiers: [sim/gpt-small], cache: {{ttl: 1h}}}}
budgets: {{daily: 100, timezone: UTC}}
"""

Samples = dict[str, dict[tuple[str, ...], float]]


def samples(answer: Answer) -> Samples:
    """By name, then by the values of the labels in the declared order."""
    assert answer.status == 200, answer.body
    labels = {one.name: one.labels for one in METRICS}
    found: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for one in family.samples:
            names = labels.get(one.name, tuple(sorted(one.labels)))
            found.setdefault(one.name, {})[tuple(one.labels[name] for name in names)] = one.value
    return found


async def seen(penstock: Gateway) -> Samples:
    return samples(await ask(penstock.service.admin_port, "/metrics", WITH_KEY))


@pytest.fixture
async def penstock(start: Start, upstream_url: str) -> Gateway:
    return await start(CONFIG.format(url=upstream_url), admin_key=KEY, metrics_port=0)


async def test_s58_metrics_take_the_admin_key(penstock: Gateway) -> None:
    for headers, status in (({}, 401), ({"x-api-key": OTHER}, 401), (WITH_KEY, 200)):
        assert (await ask(penstock.port, "/metrics", headers)).status == status
    assert (await ask(penstock.port, "/metrics", WITH_KEY, method="POST")).status == 405
    foreign = await ask(penstock.port, "/metrics", {**WITH_KEY, "host": "rebound.example"})
    assert foreign.status == 421


async def test_on_the_admin_port_where_there_is_one(start: Start, upstream_url: str) -> None:
    penstock = await start(CONFIG.format(url=upstream_url), admin_key=KEY, admin_port=0)
    assert (await ask(penstock.service.admin_port, "/metrics", WITH_KEY)).status == 200
    assert (await ask(penstock.port, "/metrics", WITH_KEY)).status == 404


async def test_s58_a_port_of_its_own_takes_no_key_and_is_this_machine_s(penstock: Gateway) -> None:
    port = penstock.service.metrics_port
    assert port not in (0, penstock.port)
    assert "penstock_build_info" in samples(await ask(port, "/metrics"))
    assert (await ask(port, "/metrics", {"host": "rebound.example"})).status == 421
    assert (await ask(port, "/admin/config", WITH_KEY)).status == 404
    assert (await ask(port, "/metrics", method="POST")).status == 405
    assert (await get(port, "/metrics", "HEAD")).status == 421  # its client calls the server penstock


async def test_openmetrics_where_it_is_asked_for(penstock: Gateway) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = await ask(penstock.port, "/metrics", {**WITH_KEY, **accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")
    plain = await ask(penstock.port, "/metrics", WITH_KEY)
    assert plain.headers["content-type"].startswith("text/plain; version=")


async def test_what_was_asked_is_what_is_counted(penstock: Gateway) -> None:
    assert (await penstock.ask("general")).status == 200
    assert (await penstock.ask("general", stream=True)).status == 200
    assert (await penstock.ask("broken")).status == 502
    assert (await penstock.ask("nothing-of-that-name")).status == 404
    assert [(await penstock.ask("kept")).status for _ in range(2)] == [200, 200]
    assert (await get(penstock.port, "/nowhere")).status == 404
    rows = await penstock.booked(6)
    found = await seen(penstock)
    assert found["penstock_requests_total"] == {
        ("general", "chat", "200", "ok"): 2,
        ("broken", "chat", "502", "failed"): 1,
        ("other", "chat", "404", "refused"): 2,  # one that the books know, and one that is no exchange
        ("kept", "chat", "200", "ok"): 2,
    }
    tried = sum(row.attempts for row in rows)
    assert sum(found["penstock_attempts_total"].values()) == tried
    assert found["penstock_attempts_total"]["sim", "ok"] == 3
    assert found["penstock_stream_endings_total"] == {("sim", "complete"): 1}
    assert found["penstock_cache_requests_total"] == {("kept", "miss"): 1, ("kept", "hit"): 1}
    spent = sum(row.cost_nanousd for row in rows)
    assert sum(found["penstock_cost_usd_total"].values()) == pytest.approx(spent / 1e9)
    assert found["penstock_saved_usd_total"]["kept",] == pytest.approx(sum(row.saved_nanousd for row in rows) / 1e9)
    assert found["penstock_tokens_total"]["sim", "output"] == sum(row.output_tokens for row in rows)
    assert found["penstock_request_seconds_count"]["chat", "general"] == 2
    assert found["penstock_overhead_seconds_count"][()] >= 4
    (left,) = found["penstock_budget_left_usd"].values()
    assert left == pytest.approx(100 - spent / 1e9)
    assert found["penstock_store_up"] == {("ledger",): 1}
    assert found["penstock_exchanges_running"] == {(): 0}


async def test_s58_models_that_clients_name_make_no_series(penstock: Gateway) -> None:
    async def ask_for(name: str) -> None:
        await penstock.ask(f"sim/{name}")
        await penstock.ask(name)

    def count(found: Samples) -> int:
        return sum(len(one) for name, one in found.items() if "_bucket" not in name)

    await ask_for("first")
    await ask_for("status:404")
    penstock.forgive()
    before = await seen(penstock)
    await asyncio.gather(*(ask_for(f"random-{number}") for number in range(30)))
    after = await seen(penstock)
    new = {name: after[name].keys() - before.get(name, {}).keys() for name in after}
    named = [labels for each in new.values() for labels in each if any("random" in label for label in labels)]
    assert named == []
    assert set(after.get("penstock_breaker_open", {})) <= {("other",)}


async def test_a_breaker_that_opens_is_seen(penstock: Gateway) -> None:
    for _ in range(5):
        await penstock.ask("broken")
    assert (await seen(penstock))["penstock_breaker_open"]["sim/status:500",] == 1
    penstock.forgive()
    assert (await seen(penstock))["penstock_breaker_open"].get(("sim/status:500",), 0) == 0


async def test_an_exchange_that_runs_is_seen(penstock: Gateway) -> None:
    running = asyncio.create_task(penstock.ask("sim/delay:1s"))
    async with asyncio.timeout(5):
        while (await seen(penstock))["penstock_exchanges_running"][()] != 1:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_process_can_answer_for_all(penstock: Gateway) -> None:
    await penstock.ask("general")
    await penstock.booked()
    page = penstock.service.page
    assert page is not None
    own = await page.look()

    async def all_of_them() -> Snapshot:
        return merge([own, own, own])

    page.look = all_of_them
    assert (await seen(penstock))["penstock_requests_total"] == {("general", "chat", "200", "ok"): 3}


async def test_the_key_is_nowhere_in_it(penstock: Gateway) -> None:
    await ask(penstock.port, "/v1/chat/completions", WITH_KEY, method="POST", body=orjson.dumps({"model": KEY}))
    answer = await ask(penstock.port, "/metrics", WITH_KEY)
    assert KEY.encode() not in answer.body
