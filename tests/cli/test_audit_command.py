"""`penstock audit` on a real store: what it lists and exports, and what it tells of a log that was tampered with."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.core.audit import AuditEntry, act, entry_from
from proxy.server.audit import audit_log
from proxy.server.databases import TRUST_FILE
from proxy.server.settings import Settings

NOON_US = 1_728_043_200_000_000


async def _filled(environ: dict[str, str]) -> list[AuditEntry]:
    log = audit_log(Settings.of(environ))
    entries = [await log.append(act(NOON_US, "penstock", "started", "noted"))]
    for number in range(1, 5):
        done = act(
            NOON_US + number * 60_000_000, "admin key", "POST /x", "done", subject=f"\x1b[31mthing-{number}", begun=1
        )
        entries.append(await log.append(done))
    await log.close()
    return entries


@pytest.fixture(params=["sqlite", "postgres"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    variables = {"PENSTOCK_DATA": str(tmp_path / "data")}
    if request.param == "postgres":
        variables["DATABASE_URL"] = request.getfixturevalue("database")
    return variables


@pytest.fixture
def entries(environ: dict[str, str]) -> list[AuditEntry]:
    return asyncio.run(_filled(environ))


def run(environ: dict[str, str], *args: str) -> Result:
    return CliRunner(env={"DATABASE_URL": None, **environ}).invoke(main, ["audit", *args])


def test_s68_list_shows_what_was_asked_for(environ: dict[str, str], entries: list[AuditEntry]) -> None:
    shown = run(environ, "list")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NUMBER", "1", "2", "3", "4", "5"]
    assert "2024-10-04 12:01:00" in lines[2]
    assert "done (1)" in lines[2]
    assert "\x1b" not in shown.stdout
    assert len(run(environ, "list", "-n", "2").stdout.splitlines()) == 3
    told = [json.loads(line) for line in run(environ, "list", "--json", "--actor", "admin key").stdout.splitlines()]
    assert [one["number"] for one in told] == [2, 3, 4, 5]
    since = run(environ, "list", "--json", "--since", "2024-10-04T12:02:00", "--until", "2024-10-04T12:04:00")
    assert [json.loads(line)["number"] for line in since.stdout.splitlines()] == [3, 4]
    assert run(environ, "list", "--json", "--subject", "nothing").stdout == ""


def test_s68_export_has_what_the_chain_is_made_of(
    environ: dict[str, str], entries: list[AuditEntry], tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in run(environ, "export").stdout.splitlines()]
    assert [(one["number"], one["hash"]) for one in lines] == [(entry.number, entry.hash) for entry in entries]
    path = tmp_path / "audit.jsonl"
    told = run(environ, "export", "--output", str(path))
    assert (told.exit_code, told.stdout) == (0, "")
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    nowhere = run(environ, "export", "--output", str(tmp_path / "no" / "such" / "folder"))
    assert nowhere.exit_code == 1


def test_s68_verify_prints_the_head_and_finds_it_again(environ: dict[str, str], entries: list[AuditEntry]) -> None:
    head = f"5:{entries[-1].hash}"
    whole = run(environ, "verify")
    assert whole.exit_code == 0
    assert "5 entries" in whole.stdout
    assert f"head {head}" in whole.stdout.splitlines()
    assert run(environ, "verify", "--noted", head).exit_code == 0
    assert run(environ, "verify", "--noted", f"3:{entries[2].hash}").exit_code == 0
    other = run(environ, "verify", "--noted", f"3:{entries[3].hash}")
    assert (other.exit_code, other.stdout.splitlines()[0]) == (1, "entry 3: not the one that was noted")
    assert run(environ, "verify", "--noted", f"6:{entries[3].hash}").exit_code == 1
    assert run(environ, "verify", "--noted", "x").exit_code == 2
    told = json.loads(run(environ, "verify", "--json").stdout)
    assert (told["entries"], told["head"], told["flaws"]) == (5, head, [])


def test_s68_verify_tells_what_was_tampered_with(tmp_path: Path) -> None:
    environ = {"PENSTOCK_DATA": str(tmp_path)}
    asyncio.run(_filled(environ))
    connection = sqlite3.connect(tmp_path / TRUST_FILE, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("UPDATE audit SET actor = 'nobody' WHERE number = 2")
    connection.execute("DELETE FROM audit WHERE number = 5")
    connection.close()
    shown = run(environ, "verify")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[:2] == [
        "entry 2: changed: its hash does not fit what it says",
        "entry 5: missing from the end",
    ]
    told = json.loads(run(environ, "verify", "--json").stdout)
    assert [flaw["number"] for flaw in told["flaws"]] == [2, 5]


def test_without_a_log_it_says_so(tmp_path: Path) -> None:
    for args in (["list"], ["verify"], ["export"]):
        told = run({"PENSTOCK_DATA": str(tmp_path / "none")}, *args)
        assert told.exit_code == 1
        assert "there is no audit log yet" in told.stderr
    assert not (tmp_path / "none").exists()


def test_columns_make_an_entry(tmp_path: Path) -> None:
    entries = asyncio.run(_filled({"PENSTOCK_DATA": str(tmp_path)}))
    connection = sqlite3.connect(tmp_path / TRUST_FILE)
    rows = connection.execute("SELECT * FROM audit ORDER BY number").fetchall()
    connection.close()
    assert [entry_from(row) for row in rows] == entries
