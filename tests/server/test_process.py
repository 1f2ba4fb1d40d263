"""`penstock serve` in a process of its own: start, refusals, signals."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from proxy.server.cannot_serve import CannotServe
from proxy.server.serve import refuse_open_bind
from tests.gateway import CHAT, Connection, closed_port, get, send
from tests.server.process import ENVIRONMENT, PENSTOCK, config_file, serving
from tests.stopwatch import Stopwatch


async def test_demo_mode_answers_every_api_and_any_name(tmp_path: Path) -> None:
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/gpt-4o-mini]}}")
    began = time.monotonic()
    with serving("--config", config) as (_, port, printed):
        assert "inactive: OPENAI_API_KEY is not set" in printed
        for model in ("general", "demo", "gpt-4o", "openai/gpt-4o", "anything"):
            body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
            answer = await send(port, CHAT, body)
            assert (answer.status, answer.headers["x-penstock-provider"]) == (200, "demo")
        assert time.monotonic() - began < 5
        for path in ("/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/completions"):
            body = orjson.dumps({"model": "m", "input": "x", "prompt": "x", "max_tokens": 9, "messages": []})
            assert (await send(port, path, body)).status == 200


async def test_the_log_holds_one_json_line_an_exchange_and_no_secret(tmp_path: Path) -> None:
    config = config_file(
        tmp_path,
        f"""
providers: {{sim: {{like: openai, base_url: "http://127.0.0.1:{closed_port()}/v1", api_key: env:CANARY_KEY}}}}
routes: {{general: {{tiers: [sim/m]}}}}
""",
    )
    canaries = {"credential": "canary-credential-1234", "client": "canary-client-1234", "prompt": "canary-prompt-1234"}
    with serving("--config", config, environ={"CANARY_KEY": canaries["credential"]}) as (process, port, printed):
        body = orjson.dumps({"model": "general", "messages": [{"role": "user", "content": canaries["prompt"]}]})
        answer = await send(port, CHAT, body, {"authorization": f"Bearer {canaries['client']}"})
        assert answer.status == 502
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    (record,) = [orjson.loads(line) for line in rest.splitlines() if line.startswith("{") and '"exchange"' in line]
    assert (record["status"], record["route"]) == (502, "general")
    for canary in canaries.values():
        assert canary not in printed + rest
        assert canary.encode() not in answer.raw


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_streams_finish_and_exits_0(number: signal.Signals, tmp_path: Path) -> None:
    with serving("--config", config_file(tmp_path, "routes: {}"), "--demo", "--drain", "5s") as (process, port, _):
        client = await Connection.open(port)
        client.post(CHAT, orjson.dumps({"model": "demo/paced:20:50ms", "stream": True, "messages": []}))
        await client.until(b'"content":"')
        idle = await Connection.open(port)
        process.send_signal(number)
        answer = await client.answer()
        assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
        assert process.wait(timeout=5) == 0
        await client.close()
        await idle.close()


async def test_what_outlives_the_drain_is_told_so_in_its_stream(tmp_path: Path) -> None:
    with serving("--config", config_file(tmp_path, "routes: {}"), "--demo", "--drain", "300ms") as (process, port, _):
        client = await Connection.open(port)
        client.post(CHAT, orjson.dumps({"model": "demo/paced:2000:50ms", "stream": True, "messages": []}))
        await client.until(b'"content":"')
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        answer = await client.answer()
        assert (answer.end, answer.last_error["code"]) == ("eof", "shutting_down")
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - began < 3
        await client.close()


async def test_a_second_signal_ends_the_patience(tmp_path: Path) -> None:
    with serving("--config", config_file(tmp_path, "routes: {}"), "--demo", "--drain", "60s") as (process, port, _):
        client = await Connection.open(port)
        client.post(CHAT, orjson.dumps({"model": "demo/paced:2000:50ms", "stream": True, "messages": []}))
        await client.until(b'"content":"')
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert (await client.answer()).last_error["code"] == "shutting_down"
        assert process.wait(timeout=5) == 0
        await client.close()


async def test_a_hang_up_has_the_file_read_again(tmp_path: Path) -> None:
    config = config_file(tmp_path, "routes: {a: {tiers: [openai/first]}}")
    body = orjson.dumps({"model": "a", "messages": []})
    with serving("--config", config, "--demo", environ={"PENSTOCK_DATA": str(tmp_path / "data")}) as (process, port, _):
        assert (await send(port, CHAT, body)).headers["x-penstock-model"] == "first"
        config_file(tmp_path, "routes: {a: {tiers: [openai/second]}}")
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 0.9  # sooner than it would be seen
        while (await send(port, CHAT, body)).headers["x-penstock-model"] != "second":
            assert time.monotonic() < until


def test_for_scripts_it_says_in_json_what_it_serves(tmp_path: Path) -> None:
    config = config_file(tmp_path, "routes: {a: {tiers: [openai/first]}}")
    command = [*PENSTOCK, "serve", "--port", "0", "--demo", "--json", "--config", config]
    environ = {**ENVIRONMENT, "PENSTOCK_DATA": str(tmp_path / "data")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        told = next(orjson.loads(line) for line in process.stdout if '"url"' in line)
        process.kill()
    assert told["url"].startswith("http://127.0.0.1:")
    assert (told["demo"], told["routes"]["a"]) == (True, ["demo/first"])
    assert told["providers"]["openai"] == "OPENAI_API_KEY is not set"


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [*PENSTOCK, "serve", "--port", str(port)], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
    assert ran.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in ran.stderr
    assert f"--port {port + 1}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "draining" not in ran.stdout


def test_a_folder_is_no_routes_file(tmp_path: Path) -> None:
    command = [*PENSTOCK, "serve", "--config", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert ran.returncode == 2
    assert f"{tmp_path}: a directory, not a file" in ran.stderr


def test_a_broken_file_is_told_and_nothing_is_served(tmp_path: Path) -> None:
    config = config_file(tmp_path, "routes:\n  a: {tiers: [opnai/m]}\n  b: {tires: []}\n")
    ran = subprocess.run(
        [*PENSTOCK, "serve", "--port", "0", "--config", config],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert ran.returncode == 1
    assert "routes.yaml:2:15" in ran.stderr
    assert "Did you mean 'openai'?" in ran.stderr
    assert "'tires'" in ran.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_open_access_listens_on_this_machine_only(host: str) -> None:
    with pytest.raises(CannotServe, match="access is open"):
        refuse_open_bind(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_may_be_open(host: str) -> None:
    refuse_open_bind(host)


async def test_first_answer_within_a_second(tmp_path: Path) -> None:
    """Of the spawn, on the second try: the first one may have to compile the modules."""
    config = config_file(tmp_path, "routes: {}")
    took = []
    for _ in range(3):
        watch = Stopwatch.patient()
        with serving("--config", config, "--demo") as (_, port, _):
            assert (await get(port, "/v1/models")).status == 200
            took.append(watch.spent_s)
    assert min(took) < 1.0


@pytest.mark.parametrize("more", [(), ("--admin-port", "ANY")], ids=["one-port", "two-ports"])
async def test_the_printed_line_makes_a_key_of_this_server(more: tuple[str, ...], tmp_path: Path) -> None:
    """Another port than the usual one, and a command that is on no PATH: the line works as it is printed."""
    data = {"PENSTOCK_DATA": str(tmp_path / "data"), "PATH": "/usr/bin:/bin"}
    config = config_file(tmp_path, "access: {mode: keys}\nroutes: {}")
    arguments = [str(closed_port()) if one == "ANY" else one for one in more]
    program = [str(Path(sys.executable).with_name("penstock"))]
    with serving(*arguments, "--config", config, environ=data, program=program) as (process, port, _):
        assert process.stdout is not None
        line = next(line for line in process.stdout if "keys create" in line).strip()
        ran = subprocess.run(
            ["bash", "-c", f"{line} && echo $OPENAI_API_KEY"],
            env={**ENVIRONMENT, **data},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stdout.startswith("psk-"), (line, ran.stderr)
        shown = {"authorization": f"Bearer {ran.stdout.strip()}"}
        answer = await send(port, CHAT, b'{"model": "demo", "messages": []}', shown)
        assert (answer.status, answer.headers["x-penstock-provider"]) == (200, "demo")
