"""`penstock bench` through a real server: what it measures, and that its spending cap is never passed."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cli.bench_cap import SpendingCap, worst_case
from proxy.cli.bench_report import Row, Sample, percentile
from proxy.cli.bench_run import PROMPTS, BadPrompts, prompts
from proxy.config.resolve import parse
from proxy.core.cost import CEILING_DEFAULT
from tests.conftest import Start
from tests.gateway import Gateway, closed_port
from tests.server.process import PENSTOCK

CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
defaults: {{retry: {{attempts: 1}}, breaker: {{failures: 100}}}}
routes: {{plain: {{tiers: [sim/plain], cache: {{ttl: 1h}}}}, other: {{tiers: [sim/paced:5:2ms]}}}}
"""


@pytest.fixture
async def penstock(start: Start, upstream_url: str, tmp_path: Path) -> Gateway:
    text = CONFIG.format(url=upstream_url)
    (tmp_path / "routes.yaml").write_text(text)
    return await start(text)


async def run(port: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*PENSTOCK, "bench", "--config", str(folder / "routes.yaml"), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PENSTOCK_PORT": str(port), "COLUMNS": "200"},
        check=False,
    )


async def test_every_route_unless_some_are_named(penstock: Gateway, tmp_path: Path) -> None:
    done = await run(penstock.port, tmp_path, "--requests", "3", "--budget", "100", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    plain, other = told["results"]
    assert (plain["name"], other["name"]) == ("plain", "other")
    assert [(one["requests"], one["unsent"], one["errors"]) for one in (plain, other)] == [(3, 0, 0)] * 2
    assert plain["answered_by"] == {"sim/plain": 3}, "a kept answer was taken"
    assert 0 < other["first_event_ms"]["p50"] <= other["total_ms"]["p50"] <= other["total_ms"]["max"]
    assert other["tokens_per_s"] > 0
    booked = sum(row.cost_nanousd for row in await penstock.booked(6))
    assert float(told["spent_usd"]) == pytest.approx(booked / 10**9)
    assert float(plain["cost_usd"]) + float(other["cost_usd"]) == pytest.approx(booked / 10**9)


async def test_a_table_with_errors(penstock: Gateway, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("How high?\n\n" + json.dumps({"messages": [], "max_tokens": 5}) + "\n")
    file = str(tmp_path / "p.txt")
    names = ("sim/plain", "sim/500", "sim/cut:2", "nobody")
    done = await run(penstock.port, tmp_path, *names, "--requests", "2", "--prompts", file, "--budget", "100")
    assert done.returncode == 1
    rows = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()}
    assert rows["NAME"] == ["REQUESTS", "ERRORS"]
    assert rows["sim/plain"] == ["2", "0"]
    assert rows["sim/500"] == rows["sim/cut:2"] == rows["nobody"] == ["2", "2"]
    assert "sim/500: 2 x 502 upstream_error" in done.stderr
    assert "nobody: 2 x 404 model_not_found" in done.stderr


async def test_it_ends_before_the_cap_is_passed(penstock: Gateway, tmp_path: Path) -> None:
    args = ("plain", "--requests", "50", "--concurrency", "8", "--max-tokens", "100", "--budget", "1", "--json")
    done = await run(penstock.port, tmp_path, *args)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    (plain,) = told["results"]
    assert 0 < plain["requests"] < 50
    assert plain["unsent"] == 50 - plain["requests"]
    booked = await penstock.booked(plain["requests"])
    assert sum(row.cost_nanousd for row in booked) <= 10**9
    assert 0 < float(told["spent_usd"]) <= 1


async def test_no_budget_asks_nothing_that_costs(penstock: Gateway, tmp_path: Path) -> None:
    done = await run(penstock.port, tmp_path, "plain", "--requests", "2", "--budget", "0")
    assert done.returncode == 1
    assert "2 requests were left out" in done.stderr
    assert penstock.log.exchanges == []


async def test_nobody_there(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("routes: {}")
    done = await run(closed_port(), tmp_path, "plain")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing listens" in done.stderr


@pytest.mark.parametrize("amount", ["-1", "x", "nan", "inf", "1e9"])
async def test_a_budget_that_is_none(tmp_path: Path, amount: str) -> None:
    (tmp_path / "routes.yaml").write_text("routes: {}")
    done = await run(closed_port(), tmp_path, "plain", "--budget", amount)
    assert done.returncode == 2
    assert "is no amount of USD" in done.stderr


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(0, 1000),
    asked=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), max_size=30),
    workers=st.integers(1, 6),
)
def test_the_cap_is_never_passed_by_what_costs_no_more_than_held(
    limit: int, asked: list[tuple[int, int]], workers: int
) -> None:
    """Costs are shares of what was held, in percent; whatever the order, spent and held stay within the limit."""

    async def play() -> SpendingCap:
        cap = SpendingCap(limit)
        waiting = iter(asked)

        async def work() -> None:
            for worst, share in waiting:
                held = await cap.hold("a", worst)
                assert cap.spent_nanousd + cap.held_nanousd <= limit
                if held is None:
                    continue
                await asyncio.sleep(0)
                await cap.settle("a", held, held * share // 100)

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
        return cap

    cap = asyncio.run(play())
    assert cap.held_nanousd == 0
    assert cap.spent_nanousd <= limit


async def test_what_was_dearer_than_held_is_held_from_then_on() -> None:
    cap = SpendingCap(100)
    assert await cap.hold("a", 1) == 1
    await cap.settle("a", 1, 30)
    assert await cap.hold("a", 1) == 30
    assert await cap.hold("b", 1) == 1


def test_the_worst_case_is_that_of_all_targets() -> None:
    table = parse(
        """
providers: {vllm: {base_url: "http://127.0.0.1:9/v1", price: {a: {input: 1, output: 10}, b: {input: 2, output: 20}}}}
routes: {one: {tiers: [vllm/a]}, two: {tiers: [vllm/a, vllm/b]}}
""",
        "r.yaml",
        {},
    )
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 1000}]}
    one = worst_case(table, "one", body, 100)
    assert one >= 100 * 10 * 1000 + 500 * 1000
    assert worst_case(table, "two", body, 100) == 3 * one
    assert worst_case(table, "one", {**body, "n": 3}, 100) > one + 2 * 100 * 10 * 1000 - 1
    assert worst_case(table, "nobody", body, 100) == CEILING_DEFAULT


def test_a_row() -> None:
    row = Row("a", unsent=1)
    row.samples += [
        Sample(2.0, 1.0, output_tokens=11, input_tokens=5, cost_nanousd=10**7, answered_by="x/y"),
        Sample(1.0, 0.5, output_tokens=1, cost_nanousd=0, answered_by="x/y"),
        Sample(0.1, assumed_nanousd=5 * 10**6, error="502 upstream_error"),
    ]
    told = row.document()
    assert told["first_event_ms"] == {"p50": 500.0, "p95": 1000.0, "max": 1000.0}
    assert (told["errors"], told["unsent"], told["tokens_per_s"]) == (1, 1, 10.0)
    assert (told["cost_usd"], told["assumed_usd"]) == ("0.01", "0.005")
    assert told["reasons"] == {"502 upstream_error": 1}
    assert Row("b").document()["total_ms"] is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(one) for one in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def test_prompts_of_every_form(tmp_path: Path) -> None:
    file = tmp_path / "p"
    lines = (
        "\ufeffHow high?",
        '{"messages": [{"role": "user", "content": "x"}]}',
        '{"url": "/v1/chat/completions", "body": {"messages": []}}',
    )
    file.write_text("\n".join(lines))
    assert [one["messages"] for one in prompts(file)] == [
        [{"role": "user", "content": "How high?"}],
        [{"role": "user", "content": "x"}],
        [],
    ]
    assert len(prompts(None)) == len(PROMPTS)


@pytest.mark.parametrize(
    ("text", "told"), [("", "no prompts"), ("{", "no JSON"), ('{"input": "x"}', "expected a chat")]
)
def test_prompts_that_are_none(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "p"
    file.write_text(text)
    with pytest.raises(BadPrompts, match=told):
        prompts(file)
