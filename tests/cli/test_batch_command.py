"""`penstock batch` against a server, from a process of its own; killed, torn, throttled, refused."""

import asyncio
import base64
import fcntl
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.cli import batch_file
from proxy.cli.admin_client import Address, NoAnswer
from proxy.cli.batch_file import Asked, Broken, OutFile, Response
from proxy.cli.batch_run import Batch, Score
from proxy.cli.request_file import BadFile
from proxy.core.backoff import BackoffPolicy
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import Gateway, closed_port
from tests.server.process import PENSTOCK

CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
defaults: {{retry: {{attempts: 1}}, breaker: {{failures: 100}}}}
routes: {{plain: {{tiers: [sim/plain]}}}}
"""
AT_ONCE = BackoffPolicy(first_s=0.001, max_s=0.002)


@pytest.fixture
async def penstock(start: Start, upstream_url: str) -> Gateway:
    return await start(CONFIG.format(url=upstream_url))


def line(custom_id: str, model: str = "sim/plain", url: str = "/v1/chat/completions", **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"How high is {custom_id}?"}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def lines(path: Path, values: Iterable[object]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in values))
    return path


def rows(path: Path) -> dict[str, Any]:
    """The rows of a file of answers, none of them twice."""
    found = [json.loads(one) for one in path.read_text().splitlines()]
    assert all(list(one) == ["id", "custom_id", "response", "error"] for one in found)
    assert len({one["id"] for one in found}) == len(found)
    by_id = {one["custom_id"]: one for one in found}
    assert len(by_id) == len(found), "a custom_id stands there twice"
    return by_id


def command(penstock_port: int, *arguments: str | Path) -> tuple[list[str], dict[str, str]]:
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_PORT": str(penstock_port), "COLUMNS": "200"}
    return [*PENSTOCK, "batch", *map(str, arguments)], environ


async def run(port: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    args, environ = command(port, *arguments)
    return await asyncio.to_thread(subprocess.run, args, capture_output=True, text=True, env=environ, check=False)


def batch(port: int, **more: Any) -> Batch:
    return Batch(Address("http", "127.0.0.1", port, ""), None, more.pop("concurrency", 2), backoff=AT_ONCE, **more)


async def carried_out(one: Batch, source: Path, out: Path) -> Score:
    score = Score()

    def work() -> None:
        batch_file.identifiers(source)
        answers = OutFile(out)
        try:
            one.run(
                (x for x in batch_file.requests(source) if x.custom_id not in answers.done),
                answers,
                score,
                lambda: None,
            )
        finally:
            answers.close()

    await asyncio.to_thread(work)
    return score


async def test_every_api_that_takes_json(start: Start, tmp_path: Path) -> None:
    """By the simulator of demo mode, which serves all of them."""
    penstock = await start("routes: {}", demo=True)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
        "/v1/responses": {"input": "x"},
        "/v1/messages": {"max_tokens": 50, "messages": [{"role": "user", "content": "x"}]},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "x"}]},
        "/v1/embeddings": {"input": "x"},
        "/v1/completions": {"prompt": "x"},
        "/v1/moderations": {"input": "x"},
        "/v1/images/generations": {"prompt": "x"},
        "/v1/audio/speech": {"input": "x", "voice": "alloy"},
        "/v1/rerank": {"query": "x", "documents": ["a", "b"]},
    }
    asked = [
        {"custom_id": url, "method": "POST", "url": url, "body": {"model": "demo", **body}}
        for url, body in bodies.items()
    ]
    source, out = lines(tmp_path / "in.jsonl", asked), tmp_path / "out.jsonl"
    done = await run(penstock.port, source, out, "--json")
    found = rows(out)
    assert {url: one["response"]["status_code"] for url, one in found.items()} == dict.fromkeys(bodies, 200)
    assert all(one["error"] is None and one["response"]["request_id"] for one in found.values())
    assert found["/v1/chat/completions"]["response"]["body"]["choices"][0]["message"]["content"]
    assert base64.b64decode(found["/v1/audio/speech"]["response"]["body"]["base64"])
    told = json.loads(done.stdout)
    assert (done.returncode, told["rows"], told["done_before"], told["succeeded"]) == (0, 10, 0, 10)
    assert out.stat().st_mode & 0o777 == 0o600


async def test_the_cost_is_the_sum_of_what_the_server_says(penstock: Gateway, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "in.jsonl", [line(str(n)) for n in range(3)]), tmp_path / "out.jsonl"
    told = json.loads((await run(penstock.port, source, out, "--json")).stdout)
    booked = sum(row.cost_nanousd for row in await penstock.booked(3))
    assert booked > 0
    assert Decimal(told["cost_usd"]) * 10**9 == booked


async def test_a_second_run_asks_nothing_again(penstock: Gateway, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "in.jsonl", [line(str(n)) for n in range(3)]), tmp_path / "out.jsonl"
    first = await run(penstock.port, source, out)
    assert (first.returncode, first.stderr) == (0, "")
    before = out.read_bytes()
    lines(source, [line(str(n)) for n in range(4)])
    again = json.loads((await run(penstock.port, source, out, "--json")).stdout)
    assert (again["rows"], again["done_before"], again["succeeded"]) == (4, 3, 1)
    assert out.read_bytes().startswith(before)
    assert len(await penstock.settled(4)) == 4


async def test_kill_9_in_the_middle_and_again(penstock: Gateway, tmp_path: Path) -> None:
    """However often it dies, and wherever its last line is torn: every row stands there once."""
    wanted = [str(n) for n in range(30)]
    source = lines(tmp_path / "in.jsonl", [line(n, "sim/delay:20ms") for n in wanted])
    out = tmp_path / "out.jsonl"
    torn = 0
    for at_least in (3, 11, 19):
        args, environ = command(penstock.port, source, out, "--concurrency", "3")
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
        async with asyncio.timeout(20):
            while not out.exists() or out.read_bytes().count(b"\n") < at_least:
                assert process.poll() is None
                await asyncio.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = out.read_bytes()
        out.write_bytes(whole[: -(7 * at_least)])  # as if the machine had lost the end of the last line
        torn += not out.read_bytes().endswith(b"\n")
    assert torn == 3
    done = await run(penstock.port, source, out)
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(out)
    assert sorted(found) == sorted(wanted)
    assert all(one["response"]["status_code"] == 200 for one in found.values())


async def test_rows_that_failed_are_asked_again_by_the_next_run(
    penstock: Gateway, tmp_path: Path, upstream: Simulator
) -> None:
    source = lines(tmp_path / "in.jsonl", [line("good"), line("bad", "sim/400"), line("lost", "sim/404")])
    out = tmp_path / "out.jsonl"
    done = await run(penstock.port, source, out)
    assert done.returncode == 1
    assert "the first that failed: " in done.stderr
    found = rows(out)
    assert found["bad"]["response"]["status_code"] == 400
    assert found["bad"]["response"]["body"]["error"]["message"]
    good = found["good"]
    lines(source, [line("good"), line("bad"), line("lost")])
    again = json.loads((await run(penstock.port, source, out, "--json")).stdout)
    assert (again["done_before"], again["succeeded"], again["failed"]) == (1, 2, 0)
    assert rows(out)["good"] == good
    assert {one["response"]["status_code"] for one in rows(out).values()} == {200}
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize("model", ["sim/once:503", "sim/once:500", "sim/once:529"])
async def test_what_passes_is_asked_again_in_the_same_run(penstock: Gateway, tmp_path: Path, model: str) -> None:
    source, out = lines(tmp_path / "in.jsonl", [line("1", model)]), tmp_path / "out.jsonl"
    score = await carried_out(batch(penstock.port), source, out)
    assert (score.succeeded, score.failed, score.repeats) == (1, 0, 1)
    assert rows(out)["1"]["response"]["status_code"] == 200


async def test_a_pause_that_the_server_names_is_kept(penstock: Gateway, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "in.jsonl", [line("1", "sim/429:1")]), tmp_path / "out.jsonl"
    began = asyncio.get_running_loop().time()
    score = await carried_out(batch(penstock.port, sends_max=2), source, out)
    assert asyncio.get_running_loop().time() - began >= 0.9
    assert (score.succeeded, score.failed, score.repeats) == (0, 1, 1)
    assert rows(out)["1"]["response"]["status_code"] == 429


async def test_repeats_are_bounded_and_what_stays_is_not_repeated(penstock: Gateway, tmp_path: Path) -> None:
    asked = [line("500", "sim/500"), line("400", "sim/400"), line("inactive", "groq/any"), line("402", "sim/402")]
    source, out = lines(tmp_path / "in.jsonl", asked), tmp_path / "out.jsonl"
    score = await carried_out(batch(penstock.port, sends_max=3, concurrency=1), source, out)
    found = {name: one["response"]["status_code"] for name, one in rows(out).items()}
    assert (found["500"], found["400"], found["inactive"]) == (502, 400, 503)
    sends = Counter(one["status"] for one in await penstock.settled(4 + score.repeats))
    assert sends[502] == 3
    assert sends[400] == 1
    assert score.failed == 4


async def test_an_answer_that_breaks_off_is_an_error_without_a_response(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx-penstock-cache: off\r\ncontent-length: 100\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    source, out = lines(tmp_path / "in.jsonl", [line("1")]), tmp_path / "out.jsonl"
    score = await carried_out(batch(server.sockets[0].getsockname()[1], sends_max=2), source, out)
    server.close()
    assert (score.failed, score.repeats) == (1, 1)
    row = rows(out)["1"]
    assert row["response"] is None
    assert row["error"]["code"] == "connection_error"


async def test_nobody_there_writes_nothing(tmp_path: Path) -> None:
    source, out = lines(tmp_path / "in.jsonl", [line("1")]), tmp_path / "out.jsonl"
    with pytest.raises(NoAnswer, match="nothing listens"):
        await carried_out(batch(closed_port()), source, out)
    assert out.read_bytes() == b""


async def test_a_key_that_is_refused_ends_the_run(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"no such key","code":"invalid_api_key"}}'
        writer.write(b"HTTP/1.1 401 No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    source, out = lines(tmp_path / "in.jsonl", [line(str(n)) for n in range(5)]), tmp_path / "out.jsonl"
    with pytest.raises(NoAnswer, match="does not take the key: no such key"):
        await carried_out(batch(server.sockets[0].getsockname()[1]), source, out)
    server.close()
    assert out.read_bytes() == b""


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("{", "no JSON"),
        ({"model": "m", "messages": []}, "expected"),
        (line("1"), "custom_id '1' is there already"),
        ({**line("2"), "custom_id": 2}, "'custom_id' must be a text"),
        ({**line("2"), "url": "/v1/files"}, "'url' must be the path of an API"),
        ({**line("2"), "method": "GET"}, "'method' must be POST"),
        (line("2", stream=True), "'stream' must not be set"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, bad: object, told: str) -> None:
    source = tmp_path / "in.jsonl"
    text = bad if isinstance(bad, str) else json.dumps(bad)
    source.write_text(f"{json.dumps(line('1'))}\n\n{text}\n")
    with pytest.raises(BadFile) as caught:
        batch_file.identifiers(source)
    assert f"{source}:3: " in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("foreign", ["my diary", "my diary\n", '{"a": 1}\n', "[]"])
def test_a_file_that_is_no_batchs_is_left_as_it_is(tmp_path: Path, foreign: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(foreign)
    with pytest.raises(BadFile, match="not a row"):
        OutFile(out)
    assert out.read_text() == foreign


def test_the_requests_are_not_written_over(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [line("1")])
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(BadFile, match="file of the requests"):
        batch_file.refuse_same(source, tmp_path / "link")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = OutFile(out)
    with pytest.raises(BadFile, match="another `penstock batch`"):
        OutFile(out)
    first.close()
    OutFile(out).close()


GOOD = batch_file.row("good", Response(200, "r", b'{\n "a": 1.10,\r\n "b": "x\\ny"}'))
FAILED = batch_file.row("failed", Broken("timeout", "no answer"))


@pytest.mark.parametrize("cut", range(1, len(GOOD) + 1))
def test_a_line_torn_anywhere_is_healed(tmp_path: Path, cut: int) -> None:
    out = tmp_path / "out.jsonl"
    torn = batch_file.row("torn", Response(200, "r", b"{}"))
    for before in (GOOD, GOOD + FAILED):
        out.write_bytes(before + torn[:cut])
        answers = OutFile(out)
        whole = cut >= len(torn) - 1
        assert answers.done == ({"good", "torn"} if whole else {"good"})
        answers.close()
        assert out.read_bytes() == GOOD + (torn if whole else b"")


def test_a_body_stays_as_it_came_but_for_its_line_ends() -> None:
    assert b'"body":{  "a": 1.10,   "b": "x\\ny"}}' in GOOD
    assert GOOD.count(b"\n") == 1
    assert json.loads(GOOD)["response"]["body"] == {"a": 1.1, "b": "x\ny"}


def test_what_replaces_a_file_is_locked_before_it_has_the_name(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(GOOD + FAILED)
    answers = OutFile(out)
    with out.open("rb") as opened, pytest.raises(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    answers.close()
    assert out.read_bytes() == GOOD


def test_a_row_is_appended_by_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        return real(descriptor, data)

    source = lines(tmp_path / "in.jsonl", [line("1")])
    (asked,) = batch_file.requests(source)
    assert isinstance(asked, Asked)
    answers = OutFile(tmp_path / "out.jsonl")
    monkeypatch.setattr("proxy.cli.batch_file.os.write", write)
    answers.write(asked, Response(200, "r", b"{}"))
    answers.close()
    assert len(written) == 1
    assert written[0].endswith(b"\n")
