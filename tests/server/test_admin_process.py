"""The admin API and its key, of `penstock serve` in a process of its own."""

import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from tests.edge.doorway import ask, request
from tests.gateway import CHAT, Connection
from tests.server.process import ADMIN_KEY, ENVIRONMENT, PENSTOCK, config_file, serving

ROUTES = "routes: {}"


def without_a_key(data: Path | str) -> dict[str, str]:
    return {"PENSTOCK_ADMIN_KEY": "", "PENSTOCK_DATA": str(data)}


async def stopped(process: subprocess.Popen[str]) -> str:
    """What it still printed."""
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed


async def test_a_key_is_made_once_and_lets_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = config_file(tmp_path, ROUTES)
    with serving("--config", config, "--demo", environ=without_a_key(data)) as (process, port, printed):
        path = data / "admin.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        key = path.read_text().strip()
        answer = await ask(port, "/admin/config", {"authorization": f"Bearer {key}"})
        assert answer.json()["path"] == config
        assert (await ask(port, "/admin/config", {"x-api-key": "x"})).status == 401
        assert f'"an admin key was made","file":"{path}"' in printed + await stopped(process)
    with serving("--config", config, "--demo", environ=without_a_key(data)) as (process, port, printed):
        assert (await ask(port, "/admin/config", {"api-key": key})).status == 200
        assert "was made" not in printed + await stopped(process)


async def test_two_that_start_at_once_take_the_same_key(tmp_path: Path) -> None:
    config = config_file(tmp_path, ROUTES)
    environ = {**ENVIRONMENT, **without_a_key(tmp_path / "data"), "PYTHONUNBUFFERED": "1"}
    outputs = [tmp_path / f"{number}.txt" for number in range(2)]
    processes = []
    try:
        for output in outputs:
            with output.open("wb") as sink:
                command = [*PENSTOCK, "serve", "--port", "0", "--grace", "0s", "--demo", "--config", config]
                processes.append(subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environ))
        for output in outputs:
            port = await _port(output)
            key = (tmp_path / "data" / "admin.key").read_text().strip()
            assert (await ask(port, "/admin/routes", {"x-api-key": key})).status == 200
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
    assert sum("an admin key was made" in output.read_text() for output in outputs) == 1


async def _port(output: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        address = re.search(r"serves on http://127\.0\.0\.1:(\d+)/v1\n", output.read_text())
        if address:
            return int(address[1])
        time.sleep(0.02)
    raise AssertionError(f"it did not start: {output.read_text()}")


@pytest.mark.parametrize("data", ["/dev/null/data", "/proc/penstock"])
@pytest.mark.parametrize("admin_key", ["", ADMIN_KEY])
def test_nothing_is_served_where_nothing_can_be_kept(data: str, admin_key: str) -> None:
    """Neither its own key, which one can give it, nor what it spends."""
    said = _refused_start({**without_a_key(Path(data)), "PENSTOCK_ADMIN_KEY": admin_key})
    assert data in said
    assert "PENSTOCK_DATA" in said
    assert "Traceback" not in said


def _refused_start(environ: dict[str, str], *arguments: str) -> str:
    """What a start that must fail says."""
    command = [*PENSTOCK, "serve", "--port", "0", "--grace", "0s", "--demo", *arguments]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**ENVIRONMENT, **environ}, check=False, timeout=60
    )
    assert ran.returncode != 0
    assert "serves on" not in ran.stdout
    assert "Traceback" not in ran.stderr
    return ran.stderr


@pytest.mark.parametrize("weak", ["changeme", "a" * 40, ADMIN_KEY[:31], "please-change-me-please-thank-you"])
def test_a_weak_key_does_not_start(weak: str, tmp_path: Path) -> None:
    told = _refused_start({"PENSTOCK_ADMIN_KEY": weak, "PENSTOCK_DATA": str(tmp_path)})
    assert "PENSTOCK_ADMIN_KEY" in told
    assert "token_urlsafe" in told
    assert weak not in told


def test_a_key_file_that_others_may_read_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text(ADMIN_KEY)
    path.chmod(0o644)
    told = _refused_start(without_a_key(tmp_path))
    assert f"chmod 600 {path}" in told
    assert ADMIN_KEY not in told


def test_a_setting_that_cannot_be_read_does_not_start() -> None:
    told = _refused_start({"PENSTOCK_ADMIN_PORT": "many"})
    assert told == "PENSTOCK_ADMIN_PORT: expected a port from 0 to 65535, got 'many'\n"


def test_one_port_for_both_is_told(tmp_path: Path) -> None:
    config = config_file(tmp_path, ROUTES)
    with serving("--config", config, "--demo") as (_, port, _):
        told = _refused_start({}, "--config", config, "--admin-port", str(port))
    assert f"--admin-port {port + 1}" in told


async def test_admin_hosts_are_names_that_it_goes_by(tmp_path: Path) -> None:
    config = config_file(tmp_path, ROUTES)
    environ = {"PENSTOCK_ADMIN_HOSTS": "proxy.example"}
    with serving("--config", config, "--demo", environ=environ) as (_, port, _):
        for host, status in (("proxy.example", 200), ("evil.example", 421)):
            assert (await ask(port, "/admin/routes", {"x-api-key": ADMIN_KEY, "host": host})).status == status


@pytest.mark.parametrize("made", [True, False], ids=["made", "given"])
async def test_the_key_comes_out_nowhere(made: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = config_file(tmp_path, ROUTES)
    with serving("--config", config, "--demo", environ=without_a_key(data) if made else {}) as (process, port, printed):
        key = (data / "admin.key").read_text().strip() if made else ADMIN_KEY
        answers = b""
        requests = [
            request("GET", "/admin/providers", {"x-api-key": key}),
            request("GET", "/admin/routes", {"authorization": f"Bearer {key}"}),
            request("GET", "/admin/config", {"api-key": key, "x-request-id": key}),
            request("GET", "/admin/config", {"x-api-key": key, "host": key}),
            request("GET", f"/admin/{key}", {"x-api-key": key}),
            request("GET", f"/admin/routes?key={key}", {"x-api-key": key}),
            request("GET", "/admin/routes", {"x-api-key": key, "authorization": "Bearer other"}),
            request("GET", "/admin/routes", {"x-api-key": f"{key}x"}),
            request("GET", "/admin/routes", {"x-api-key": key}, orjson.dumps({key: key})),
            request("PATCH", "/admin/routes", {"x-api-key": key}),
            request("POST", CHAT, {"authorization": f"Bearer {key}"}, b'{"model":"demo","messages":[]}'),
            request("POST", CHAT, {"x-api-key": key}, b'{"model":"demo/cut:2","stream":true,"messages":[]}'),
            request("POST", "/v1/messages", {"api-key": key}, b'{"model":"demo/503","messages":[]}'),
            request("GET", "/v1/nowhere", {"x-api-key": key}),
            request("GET", "/admin/routes", {"x-api-key": f"{key}\x01"}),
            request("GET", "/admin/routes", {"x-api-key": f"{key}{'x' * 20_000}"}),
        ]
        for one in requests:
            connection = await Connection.open(port)
            connection.writer.write(one)
            answer = await connection.answer()
            await connection.close()
            assert answer.status > 0, one
            answers += answer.raw
        arguments = Path(f"/proc/{process.pid}/cmdline")
        assert not arguments.exists() or key not in arguments.read_text()
        output = printed + await stopped(process)
    assert b'"providers"' in answers
    assert "kind" in output
    assert key.encode() not in answers
    assert key not in output


async def test_keys_are_read_at_the_start_alone(tmp_path: Path) -> None:
    """A file that changes under a running process changes nothing; it takes the new key when it is started again."""
    data = tmp_path / "data"
    config = config_file(tmp_path, ROUTES)
    with serving("--config", config, "--demo", environ=without_a_key(data)) as (_, port, _):
        key = (data / "admin.key").read_text().strip()
        (data / "admin.key").unlink()
        assert (await ask(port, "/admin/routes", {"x-api-key": key})).status == 200
        assert not (data / "admin.key").exists()
