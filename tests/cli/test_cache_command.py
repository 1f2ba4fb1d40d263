"""`penstock cache` against a server with a cache, from a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from proxy.cli import cache
from proxy.edge.warm_up import CONCURRENCY, CONCURRENCY_MAX
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import Gateway, port_of
from tests.server.process import ADMIN_KEY, PENSTOCK

CONFIG = """
currency: {{code: CAD, per_usd: 2}}
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
routes:
  kept: {{tiers: [sim/gpt-small], cache: {{ttl: 90m}}}}
  paced: {{tiers: [sim/llama], cache: {{ttl: 2d, tool_calls: true, replay: paced}}}}
  plain: {{tiers: [sim/gpt-small]}}
  slow: {{tiers: ["sim/delay:30s"], cache: {{ttl: 1h}}}}
"""


@pytest.fixture
async def penstock(start: Start, upstream_url: str) -> Gateway:
    return await start(CONFIG.format(url=upstream_url), admin_key=ADMIN_KEY)


def environment(port: int, **more: str) -> dict[str, str]:
    given = {"PATH": os.environ["PATH"], "PENSTOCK_ADMIN_KEY": ADMIN_KEY, "PENSTOCK_PORT": str(port), "COLUMNS": "200"}
    return given | more


async def run(
    port: int, *arguments: str | Path, stdin: int | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*PENSTOCK, "cache", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(port, **(environ or {})),
        check=False,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
    )


def lines(path: Path, *values: object) -> Path:
    """A file of JSON values, or of text as it is."""
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in values))
    return path


def chat(model: str, question: str = "How high is the water?", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


async def answered(penstock: Gateway, model: str = "kept", **more: Any) -> str:
    answer = await penstock.ask(model, **more)
    assert answer.status == 200
    return answer.headers["x-penstock-cache"]


# Stats.


async def test_stats(penstock: Gateway) -> None:
    assert [await answered(penstock) for _ in range(4)] == ["miss", "hit", "hit", "hit"]
    first, *_ = await penstock.booked(4)
    shown = await run(penstock.port, "stats")
    assert (shown.returncode, shown.stderr) == (0, "")
    header, counts, blank, routes, *rows = (line.split() for line in shown.stdout.splitlines())
    assert header == [
        "WHERE", "ENTRIES", "SIZE", "OF", "HITS", "COALESCED", "MISSES", "REFRESHED", "BYPASSED", "HIT", "RATE", "SAVED"
    ]  # fmt: skip
    assert counts[:4] == ["memory", "1", "0.0", "MiB"]
    saved = 3 * 2 * first.cost_nanousd / 10**9
    assert counts[6:] == ["3", "0", "1", "0", "0", "75.0%", f"{saved:.{2 if saved >= 1 else 6}f}", "CAD"]
    assert (blank, routes) == ([], ["ROUTE", "KEPT", "FOR", "TOOL", "CALLS", "REPLAY"])
    assert rows == [
        ["kept", "90m", "-", "immediate"], ["paced", "2d", "kept", "paced"], ["slow", "1h", "-", "immediate"]
    ]  # fmt: skip
    told = json.loads((await run(penstock.port, "stats", "--json")).stdout)
    assert (told["entries"], told["hits"], told["misses"], told["hit_rate"]) == (1, 3, 1, 0.75)


async def test_stats_of_none(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=ADMIN_KEY)
    shown = await run(penstock.port, "stats")
    assert shown.returncode == 0
    assert "No route keeps answers: one does with cache: {ttl: 1h} in the routes file." in shown.stdout


async def test_stats_of_a_store_that_is_away(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=ADMIN_KEY, redis_url="redis://127.0.0.1:1/0")
    shown = await run(penstock.port, "stats")
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[1].split()[:4] == ["redis", "?", "?", "?"]
    assert "penstock: the cache's store cannot be reached: " in shown.stderr
    assert "Traceback" not in shown.stderr
    missing = await run(1, "stats")
    assert (missing.returncode, "penstock serve" in missing.stderr) == (1, True)


# Invalidation.


async def test_invalidate(penstock: Gateway) -> None:
    assert await answered(penstock) == "miss"
    assert await answered(penstock, "paced") == "miss"
    none = await run(penstock.port, "invalidate", "--route", "kept", "--tag", "team=search")
    assert (none.returncode, none.stdout) == (0, "Dropped 0 answers: route kept and tag team=search\n")
    one = await run(penstock.port, "invalidate", "--pattern", "gpt-*", "--account", "default")
    assert (one.returncode, one.stdout) == (0, "Dropped 1 answer: account default and pattern gpt-*\n")
    assert (await answered(penstock), await answered(penstock, "paced")) == ("miss", "hit")
    everything = await run(penstock.port, "invalidate", "--all", "--json")
    assert (everything.returncode, json.loads(everything.stdout)) == (0, {"invalidated": 2, "selector": {}})
    assert (await answered(penstock), await answered(penstock, "paced")) == ("miss", "miss")


async def test_a_route_that_is_not_there_is_told(penstock: Gateway) -> None:
    wrong = await run(penstock.port, "invalidate", "--route", "kpet")
    assert (wrong.returncode, wrong.stdout) == (0, "Dropped 0 answers: route kpet\n")
    assert wrong.stderr == "penstock: There is no route 'kpet' now. Did you mean 'kept'?\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Say which answers with --route, --tag, --account or --pattern, or else --all."),
        (("--all", "--route", "kept"), "Say which answers"),
        (("--rout", "kept"), "Did you mean"),
    ],
)
async def test_what_says_nothing_is_a_wrong_use(penstock: Gateway, arguments: tuple[str, ...], told: str) -> None:
    wrong = await run(penstock.port, "invalidate", *arguments)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert told in wrong.stderr
    refused = await run(penstock.port, "invalidate", "--tag", "search")
    assert refused.returncode == 1
    assert "'tag' must be name=value" in refused.stderr


@pytest.mark.parametrize(
    ("word", "options", "code", "state"),
    [(b"n\n", (), 1, "hit"), (b"y\n", (), 0, "miss"), (b"", ("--yes",), 0, "miss")],
)
async def test_all_is_asked_for_on_a_terminal(
    penstock: Gateway, word: bytes, options: tuple[str, ...], code: int, state: str
) -> None:
    assert await answered(penstock) == "miss"
    person, terminal = os.openpty()
    try:
        os.write(person, word)
        ran = await run(penstock.port, "invalidate", "--all", *options, stdin=terminal)
    finally:
        os.close(person)
        os.close(terminal)
    assert ran.returncode == code
    assert ("Drop every answer of every route and account?" in ran.stderr) is not bool(options)
    assert await answered(penstock) == state


async def test_a_command_that_is_not_there(penstock: Gateway) -> None:
    wrong = await run(penstock.port, "invalidat")
    assert (wrong.returncode, "Did you mean 'invalidate'?" in wrong.stderr) == (2, True)


# Warm-up.


async def test_warm(penstock: Gateway, upstream: Simulator, tmp_path: Path) -> None:
    assert await answered(penstock, messages=chat("kept")["messages"]) == "miss"
    file = lines(
        tmp_path / "questions.jsonl",
        f"\ufeff{json.dumps(chat('kept'))}",
        "",
        chat("kept", "And now?", stream=True),
        {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "paced", "input": "And then?"}},
    )
    ran = await run(penstock.port, "warm", file, "--concurrency", "2")
    assert (ran.returncode, ran.stderr) == (0, "")
    header, row = (line.split() for line in ran.stdout.splitlines())
    assert header == ["REQUESTS", "WARMED", "HIT", "ALREADY", "NOT", "KEPT", "FAILED"]
    assert row == ["3", "2", "1", "0", "0"]
    assert len(upstream.requests) == 3
    again = await run(penstock.port, "warm", file, "--json")
    assert json.loads(again.stdout) == {
        "requests": 3, "warmed": 0, "hit": 3, "not_kept": 0, "failed": 0, "reasons": []
    }  # fmt: skip
    assert await answered(penstock, stream=True, messages=chat("kept", "And now?")["messages"]) == "hit"
    assert len(upstream.requests) == 3


async def test_what_was_not_warmed_is_told_by_its_line(penstock: Gateway, upstream: Simulator, tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", chat("plain"), chat("kpet"), chat("plain", "2"), *[chat("sim/500")] * 4)
    ran = await run(penstock.port, "warm", file, "--concurrency", "1")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[1].split() == ["7", "0", "0", "2", "5"]
    told = ran.stderr.splitlines()
    assert told[0].startswith("line 1: 200: Its route keeps no answers (x-penstock-cache: off)")
    assert told[1].startswith("line 2: 404 model_not_found: ")
    assert "Did you mean 'kept'" in told[1]
    assert told[2].startswith("line 3: Its route keeps no answers")
    assert told[3].startswith("line 4: 502 upstream_error: ")
    assert told[5:] == ["and 2 more"]
    assert [json.loads(one.body)["model"] for one in upstream.requests].count("gpt-small") == 1


async def test_a_file_with_bad_lines_sends_nothing(penstock: Gateway, upstream: Simulator, tmp_path: Path) -> None:
    file = lines(
        tmp_path / "x.jsonl", chat("kept"), '{"model": "kept",', [1], {"url": "/v1/chat", "body": {}}, *["oops"] * 9
    )
    ran = await run(penstock.port, "warm", file)
    assert (ran.returncode, ran.stdout) == (1, "")
    head, *told = ran.stderr.splitlines()
    assert head == "penstock: nothing was sent, because the file has lines that are no requests:"
    assert told[0].startswith(f"{file}:2: no JSON: ")
    assert told[1].startswith(f"{file}:3: expected an object: a chat body, or")
    assert told[2].startswith(f"{file}:4: 'url' must be")
    assert (len(told), told[-1]) == (11, "and 2 more")
    (tmp_path / "x.jsonl").write_bytes(b"\n \n")
    empty = await run(penstock.port, "warm", file)
    assert (empty.returncode, empty.stderr) == (1, f"penstock: {file} holds no requests.\n")
    (tmp_path / "x.jsonl").write_bytes(b'{"model": "\xff\xfe"}\n')
    assert ":1: no JSON: " in (await run(penstock.port, "warm", file)).stderr
    missing = await run(penstock.port, "warm", tmp_path / "none.jsonl")
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
    assert len(upstream.requests) == 0


async def test_who_is_not_there_or_somebody_else(penstock: Gateway, upstream_url: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", *[chat("kept", str(number)) for number in range(20)])
    nobody = await run(1, "warm", file)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.startswith("penstock: nothing listens at http://127.0.0.1:1.")
    assert len(nobody.stderr.splitlines()) == 1
    stranger = await run(penstock.port, "warm", file, "--url", f"http://127.0.0.1:{port_of(upstream_url)}/v1")
    assert stranger.returncode == 1
    assert "is not Penstock" in stranger.stderr
    odd = await run(penstock.port, "warm", file, environ={"OPENAI_API_KEY": "a\nb"})
    assert (odd.returncode, "no header can carry" in odd.stderr) == (1, True)


async def test_it_asks_the_public_port_with_the_clients_key(start: Start, upstream_url: str, tmp_path: Path) -> None:
    penstock = await start(CONFIG.format(url=upstream_url), admin_key=ADMIN_KEY, admin_port=0)
    file = lines(tmp_path / "x.jsonl", chat("kept"))
    environ = {"PENSTOCK_ADMIN_PORT": str(penstock.service.admin_port), "OPENAI_API_KEY": "anything"}
    ran = await run(penstock.port, "warm", file, environ=environ)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (await run(penstock.port, "stats", environ=environ)).returncode == 0


async def test_who_interrupts_it_pays_for_no_more(penstock: Gateway, upstream: Simulator, tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", *[chat("slow", str(number)) for number in range(9)])
    process = await asyncio.create_subprocess_exec(
        *PENSTOCK, "cache", "warm", str(file), "--concurrency", "3",
        env=environment(penstock.port), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(10):
        while len(upstream.requests) < 3:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told = await process.communicate()
    assert (process.returncode, told) == (130, (b"", b""))
    rows = await penstock.booked(3)
    assert {row.outcome for row in rows} == {"client_cancelled"}
    assert len(upstream.requests) == 3


async def test_a_bar_is_drawn_on_a_terminal(penstock: Gateway, tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", chat("kept"))
    person, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *PENSTOCK, "cache", "warm", str(file), env=environment(penstock.port), stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    out, _ = await process.communicate()
    drawn = os.read(person, 65536).decode()
    os.close(person)
    assert process.returncode == 0
    assert "warming" in drawn
    assert "100%" in drawn
    assert "WARMED" in out.decode()


def test_the_options_are_bounded_as_the_admin_api_is() -> None:
    (option,) = (one for one in cache.warm.params if one.name == "concurrency")
    assert isinstance(option.type, click.IntRange)
    assert (option.type.max, option.default) == (CONCURRENCY_MAX, CONCURRENCY)
