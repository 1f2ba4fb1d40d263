"""`penstock doctor` on real stores, ports and folders, each of them well and not."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner

from proxy.cli import doctor_facts
from proxy.cli.main import main
from proxy.core.checkup import Level
from proxy.providers.rows import CATALOGUE
from proxy.server.books import ledger
from proxy.server.settings import Settings
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import Gateway, closed_port
from tests.server.process import PENSTOCK
from tests.valkey import Valkey

ROUTES = "routes: {general: {tiers: [openai/gpt-4o-mini, groq/fast]}}"
Found = dict[str, list[dict[str, Any]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Found]]:
    """Runs it in an empty directory; gives the exit code and the findings by check."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.config.listening.accepting", lambda _ports: frozenset())
    for row in CATALOGUE.values():
        for name in row.key_vars:
            monkeypatch.delenv(name, raising=False)
    for name in [one for one in os.environ if one.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    Path("routes.yaml").write_text(ROUTES)

    def run(*arguments: str, **environ: str) -> tuple[int, Found]:
        given = {"OPENAI_API_KEY": "sk-very-secret", "PENSTOCK_PORT": str(closed_port()), **environ}
        args = ["doctor", "--json", "--config", "routes.yaml", *arguments]
        result = CliRunner(env=given).invoke(main, args)
        assert "very-secret" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        told = json.loads(result.stdout)
        assert told["healthy"] == (result.exit_code == 0)
        found: Found = {}
        for one in told["findings"]:
            assert bool(one["do"]) == (one["level"] != "ok"), one
            found.setdefault(one["check"], []).append(one)
        return result.exit_code, found

    return run


def levels(found: Found, check: str) -> list[str]:
    return [one["level"] for one in found[check]]


def told(found: Found, check: str) -> str:
    return "\n".join(f"{one['level']}: {one['message']} {one['do'] or ''}" for one in found[check])


def test_all_is_well(doctor: Callable[..., tuple[int, Found]]) -> None:
    code, found = doctor()
    assert code == 0
    assert levels(found, "config") == ["ok"]
    assert levels(found, "providers") == ["ok", "warning"]
    assert "GROQ_API_KEY is not set" in told(found, "providers")
    for check in ("routes", "models", "data", "redis", "database", "port", "package"):
        assert set(levels(found, check)) == {"ok"}, told(found, check)


def test_a_broken_file_is_a_problem_for_each_of_its_problems(doctor: Callable[..., tuple[int, Found]]) -> None:
    Path("routes.yaml").write_text("routes: {a: {tiers: [opnai/x]}, b: {tiers: []}}")
    code, found = doctor()
    assert code == 1
    assert len(levels(found, "config")) == 2
    assert "Did you mean 'openai'?" in told(found, "config")


def test_nothing_active(doctor: Callable[..., tuple[int, Found]]) -> None:
    code, found = doctor(OPENAI_API_KEY="")
    assert code == 0
    assert "demo mode" in told(found, "providers")
    assert "1 of 1 have no active target" in told(found, "routes")


def test_redis_that_is_well_and_its_clock(doctor: Callable[..., tuple[int, Found]], valkey: Valkey) -> None:
    code, found = doctor(REDIS_URL=valkey.url)
    assert code == 0
    assert "takes writes" in told(found, "redis")
    assert "agrees with that of Redis" in told(found, "clock")


def test_a_clock_that_is_wrong(
    doctor: Callable[..., tuple[int, Found]], valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr("proxy.cli.doctor_facts.time.time", lambda: real() - 100)
    code, found = doctor(REDIS_URL=valkey.url)
    assert code == 1
    assert "behind that of Redis" in told(found, "clock")


@pytest.mark.parametrize("url", ["redis://:very-secret@127.0.0.1:{port}/0", "http://very-secret"])
def test_redis_that_is_away_or_no_address(doctor: Callable[..., tuple[int, Found]], url: str) -> None:
    code, found = doctor(REDIS_URL=url.format(port=closed_port()))
    assert code == 1
    assert levels(found, "redis") == ["problem"]


async def _migrated(environ: dict[str, str]) -> None:
    made = ledger(Settings.of(environ))
    await made.open()
    await made.close()


async def test_postgresql(database: str) -> None:
    environ = {"DATABASE_URL": database, "PENSTOCK_DATA": "data"}
    examined = await doctor_facts.database(Settings.of(environ))
    assert [one.level for one in examined] == [Level.OK, Level.OK]
    assert "is empty" in examined[0].told
    await _migrated(environ)
    schema, clock = await doctor_facts.database(Settings.of(environ))
    assert "version 1 of ledger" in schema.told
    assert "agrees" in clock.told
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO penstock_schema (part, version, name) VALUES ('ledger', 99, 'later')")
    await connection.close()
    newer, _ = await doctor_facts.database(Settings.of(environ))
    assert newer.level is Level.PROBLEM
    assert "a newer one wrote it" in newer.told


def test_postgresql_that_is_away(doctor: Callable[..., tuple[int, Found]]) -> None:
    code, found = doctor(DATABASE_URL=f"postgresql://penstock:very-secret@127.0.0.1:{closed_port()}/x")
    assert code == 1
    assert levels(found, "database") == ["problem"]


def test_postgresql_by_an_address_that_is_none(doctor: Callable[..., tuple[int, Found]]) -> None:
    code, found = doctor(DATABASE_URL="postgresql://[very-secret/x")
    assert code == 1
    assert levels(found, "database") == ["problem"]
    assert "very-secret" not in str(found)


async def test_sqlite_and_modes(tmp_path: Path) -> None:
    await _migrated({"PENSTOCK_DATA": str(tmp_path / "data")})
    file = tmp_path / "data" / "ledger.sqlite3"
    found = await doctor_facts.database(Settings(data=tmp_path / "data"))
    assert [one.level for one in found] == [Level.OK]
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE penstock_schema SET version = 99")
    connection.close()
    (newer,) = await doctor_facts.database(Settings(data=tmp_path / "data"))
    assert newer.level is Level.PROBLEM
    file.write_bytes(b"no database at all, but long enough to be looked at" * 30)
    (broken,) = await doctor_facts.database(Settings(data=tmp_path / "data"))
    assert "cannot be read" in broken.told
    (tmp_path / "data" / "admin.key").write_text("k")
    (tmp_path / "data" / "admin.key").chmod(0o644)
    file.chmod(0o640)
    modes = {one.told.split()[0]: one.level for one in doctor_facts.data(tmp_path / "data")}
    assert modes[str(tmp_path / "data" / "admin.key")] is Level.PROBLEM
    assert modes[str(file)] is Level.WARNING


def test_a_data_directory_that_is_a_file(doctor: Callable[..., tuple[int, Found]]) -> None:
    Path("file").write_text("")
    code, found = doctor(PENSTOCK_DATA="file")
    assert code == 1
    assert "cannot be written" in told(found, "data")


def test_the_last_migrations_are_known() -> None:
    assert doctor_facts.known_schema("sqlite")["ledger"] == doctor_facts.known_schema("postgres")["ledger"] >= 1


def test_a_port_that_is_taken(doctor: Callable[..., tuple[int, Found]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, found = doctor(PENSTOCK_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert "cannot be listened on" in told(found, "port")


async def test_a_port_where_penstock_runs(start: Start, tmp_path: Path) -> None:
    running: Gateway = await start("routes: {}")
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_PORT": str(running.port), "PENSTOCK_DATA": str(tmp_path / "d")}
    assert f"127.0.0.1:{running.port}: Penstock runs there" in await text_of(environ)


async def test_live_asks_each_provider_and_never_for_a_completion(
    upstream: Simulator, upstream_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "live.yaml"
    config.write_text(
        f"""
providers:
  sim: {{like: vllm, base_url: "{upstream_url}"}}
  gone: {{like: vllm, base_url: "http://127.0.0.1:{closed_port()}/v1"}}
routes: {{a: {{tiers: [sim/m, gone/m]}}}}
"""
    )
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_PORT": str(closed_port()), "PENSTOCK_DATA": str(tmp_path / "d")}
    found = await text_of(environ, "--live", "--config", str(config))
    assert "sim answered in" in found
    assert "gone does not serve: connect_failed" in found
    assert [one.path for one in upstream.requests] == ["/v1/models"]


async def text_of(environ: dict[str, str], *arguments: str) -> str:
    """What it prints, from a process of its own, so that this loop may serve it."""
    command = [*PENSTOCK, "doctor", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=environ, check=False)
    assert done.stderr == ""
    return done.stdout


def test_another_package_of_that_name(
    doctor: Callable[..., tuple[int, Found]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "proxy").mkdir(parents=True)
    (site / "proxy" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    code, found = doctor()
    assert code == 1
    assert str(site / "proxy" / "__init__.py") in told(found, "package")
    info = site / "proxy_py-2.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: proxy.py\nVersion: 2.4\n")
    (info / "top_level.txt").write_text("proxy\n")
    assert "proxy.py" in metadata.packages_distributions()["proxy"]
    _, found = doctor()
    assert "the distribution proxy.py" in told(found, "package")


def test_variables(doctor: Callable[..., tuple[int, Found]]) -> None:
    _, found = doctor(PENSTOCK_PROT="1", PENSTOCK_SERVICE_HOST="10.0.0.1")
    assert told(found, "environment").count("warning") == 1
    assert "Did you mean 'PENSTOCK_PORT'?" in told(found, "environment")


def test_two_different_keys(doctor: Callable[..., tuple[int, Found]]) -> None:
    Path("routes.yaml").write_text("routes: {a: {tiers: [gemini/x]}}")
    _, found = doctor(GEMINI_API_KEY="very-secret-1", GOOGLE_API_KEY="very-secret-2")
    assert "different keys in GEMINI_API_KEY and GOOGLE_API_KEY; GEMINI_API_KEY counts" in told(found, "providers")
