"""Sealed secrets beside a server in a process of its own: how soon it uses them, and what it keeps in."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from proxy.server.hardening import TAKEN
from tests.edge.doorway import ask as ask_admin
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Answer, get, send
from tests.server.process import ADMIN_KEY, PENSTOCK, config_file, serving

MASTER = "canary-master-Q7dF2kL9sV4xT1bN8mZ6cR3hW5"
GOOD = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc, which is Linux's")


def secrets(data: Path, *arguments: str, value: str = "", environ: dict[str, str] | None = None) -> str:
    """Run `penstock secrets` in a process of its own; what it prints."""
    ran = subprocess.run(
        [*PENSTOCK, "secrets", *arguments],
        input=value,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env={"PATH": os.environ["PATH"], "PENSTOCK_DATA": str(data), **(environ or {})},
    )
    return ran.stdout + ran.stderr


async def asked(port: int) -> Answer:
    return await send(port, CHAT, orjson.dumps({"model": "general", "messages": []}))


async def until(port: int, right: Callable[[Answer], bool]) -> tuple[Answer, float]:
    """Ask until an answer is right; how long that took. Fails after five seconds."""
    began = time.monotonic()
    while not right(got := await asked(port)):
        assert time.monotonic() - began < 5, got.raw
    return got, time.monotonic() - began


async def test_a_running_server_uses_what_is_sealed_within_a_second(tmp_path: Path) -> None:
    """Set, set anew, rotated, removed: nobody restarts it, and every exchange is answered."""
    data = tmp_path / "data"
    recorder = Recorder(lambda _: GOOD)
    url = await recorder.start()
    config = config_file(
        tmp_path,
        f'providers: {{sim: {{like: openai, base_url: "{url}", api_key: sealed:sim}}}}\n'
        "routes: {general: {tiers: [sim/m]}}",
    )
    with serving("--config", config, "--drain", "1s", environ={"PENSTOCK_DATA": str(data)}) as (process, port, start):
        assert "inactive: sealed:sim is not set" in start
        assert (await asked(port)).headers.get("x-penstock-provider") == "demo", "nothing was active, so it is a demo"
        printed = start + secrets(data, "set", "sim", value="first-canary-4711")
        _, took_s = await until(port, lambda got: got.headers["x-penstock-provider"] == "sim")
        assert took_s < 1.5
        printed += secrets(data, "set", "sim", value="second-canary-4711")
        began = time.monotonic()
        while recorder.received[-1].headers["authorization"] != "Bearer second-canary-4711":
            assert (await asked(port)).status == 200
            assert time.monotonic() - began < 1.5
        printed += secrets(data, "rotate")
        time.sleep(0.7)
        assert (await asked(port)).headers["x-penstock-provider"] == "sim"
        printed += secrets(data, "remove", "sim")
        _, took_s = await until(port, lambda got: got.headers["x-penstock-provider"] == "demo")
        assert took_s < 1.5
        admin = await ask_admin(port, "/admin/providers", {"x-api-key": ADMIN_KEY})
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    await recorder.stop()
    assert "sealed secrets: read" in rest
    key = (data / "master.key").read_text().strip()
    for canary in ("first-canary-4711", "second-canary-4711", key):
        assert canary not in printed + rest + admin.raw.decode()


async def test_environment_first_sealed_second(tmp_path: Path) -> None:
    recorder = Recorder(lambda _: GOOD)
    url = await recorder.start()
    config = config_file(
        tmp_path,
        f'providers: {{sim: {{like: openai, base_url: "{url}"}}}}\nroutes: {{general: {{tiers: [sim/m]}}}}',
    )
    data = tmp_path / "data"
    secrets(data, "set", "OPENAI_API_KEY", value="sealed-canary-4711")
    environ = {"PENSTOCK_DATA": str(data)}
    with serving("--config", config, environ=environ) as (_, port, _):
        await asked(port)
    with serving("--config", config, environ={**environ, "OPENAI_API_KEY": "env-canary-4711"}) as (_, port, _):
        await asked(port)
    await recorder.stop()
    shown = [one.headers["authorization"] for one in recorder.received if one.line.startswith("POST")]
    assert shown == ["Bearer sealed-canary-4711", "Bearer env-canary-4711"]


@LINUX
async def test_s52_the_master_key_is_in_no_store_log_argument_or_child(tmp_path: Path) -> None:
    data = tmp_path / "data"
    given = {"PENSTOCK_DATA": str(data), "PENSTOCK_MASTER_KEY": MASTER, "PENSTOCK_MASTER_KEY_PREVIOUS": MASTER[::-1]}
    secrets(data, "set", "openai", value="canary-credential-4711", environ=given)
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/m]}}")
    with serving("--config", config, "--demo", environ=given) as (process, port, printed):
        await get(port, "/health")
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (core,) = [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core == ["0", "0"]
        assert int(Path(f"/proc/{process.pid}/coredump_filter").read_text(), 16) == 0
        assert MASTER not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    kept = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file() and path.suffix != ".key")
    for canary in (MASTER, MASTER[::-1], "canary-credential-4711"):
        assert canary not in printed + rest
        assert canary.encode() not in kept
    assert not (data / "master.key").exists()


@LINUX
def test_s52_what_a_hardened_process_starts_has_no_key_in_its_environment() -> None:
    """In a process of its own: limits cannot be raised again."""
    code = (
        "import os, subprocess\nfrom proxy.server.hardening import keep_secrets_in\nkeep_secrets_in(os.environ)\n"
        "print(subprocess.run(['sh', '-c', 'tr \"\\\\0\" \"\\\\n\" < /proc/self/environ; ulimit -c'],"
        " capture_output=True, text=True).stdout)"
    )
    environ = {"PATH": os.environ["PATH"], "KEPT": "kept", **dict.fromkeys(TAKEN, MASTER)}
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert "KEPT=kept" in ran.stdout
    assert MASTER not in ran.stdout
    assert ran.stdout.split()[-1] == "0"
