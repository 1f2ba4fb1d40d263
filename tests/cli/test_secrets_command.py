"""`penstock secrets`, on real stores: what it prints, what it keeps to itself, and a rotation that is killed."""

import asyncio
import getpass
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.core.credential import Vault
from proxy.core.envelope import Keyring, MasterKey
from proxy.ports import StoreAway
from proxy.server import rotation, sealed
from proxy.server.settings import Settings
from proxy.stores.sqlite.audit import SqliteAudit
from tests.server.process import PENSTOCK

VALUE = "sk-canary-0123456789abcdef"
OLD = "old-BQ8wIqH3Yk0mYxKZ2cJ7nV5sD1rT9uLg"
NEW = "new-uT4pZ7eW1aQ9sX3dC6vB8nM2kL5jH0gF"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PENSTOCK_MASTER_KEY", "PENSTOCK_MASTER_KEY_PREVIOUS", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str, value: str = "") -> Result:
    return CliRunner().invoke(main, ["secrets", *arguments], input=value)


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json").stdout)
    return found


def test_a_secret_from_its_setting_to_its_removal(data: Path) -> None:
    assert run("list").stdout == "Nothing is sealed. `penstock secrets set NAME` seals a credential.\n"
    done = run("set", "openai", value=f"{VALUE}\n")
    assert (done.exit_code, done.stderr) == (0, "")
    (one,) = listed()
    assert done.stdout == f"openai is sealed with the master key {one['key_id']}.\n"
    assert (one["name"], one["ends_with"], one["problem"]) == ("openai", "cdef", None)
    assert "openai" in run("list").stdout
    assert sealed.as_now(Settings(data=data)).values == {"openai": VALUE}
    wrong = run("remove", "opena")
    assert (wrong.exit_code, wrong.stderr) == (1, "penstock: there is no secret 'opena'. Did you mean 'openai'?\n")
    assert run("remove", "openai", "--json").stdout == '{"removed": "openai"}\n'
    assert listed() == []


def test_a_value_is_replaced(data: Path) -> None:
    run("set", "openai", value=VALUE)
    run("set", "openai", value="sk-another-value-42")
    assert sealed.as_now(Settings(data=data)).values == {"openai": "sk-another-value-42"}


@pytest.mark.parametrize(("value", "ends_with"), [("12345678901", None), ("123456789012", "9012")])
def test_nothing_is_shown_of_a_short_value(value: str, ends_with: str | None) -> None:
    run("set", "short", value=value)
    assert listed()[0]["ends_with"] == ends_with
    assert value not in run("list").stdout


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "no value came on standard input"),
        (" \n", "no value came on standard input"),
        ("two words", "holds a space or a character that no header can carry"),
        ("line\nline", "holds a space or a character that no header can carry"),
        ("clé", "holds a space or a character that no header can carry"),
        ("x" * 4097, "is longer than 4096 characters"),
    ],
)
def test_what_is_no_credential_is_not_sealed(value: str, told: str) -> None:
    done = run("set", "openai", value=value)
    assert done.exit_code == 2
    assert told in done.stderr
    assert listed() == []


@pytest.mark.parametrize("name", ["", "a b", VALUE * 3, "-x/y", "ä"])
def test_a_name_that_is_none_is_refused_and_not_quoted(name: str) -> None:
    done = run("set", "--", name, value=VALUE)
    assert done.exit_code == 2
    assert "NAME is up to 64 letters" in done.stderr
    assert not name or name not in done.stderr


def test_s52_a_value_is_no_argument(data: Path) -> None:
    done = run("set", "openai", VALUE)
    assert done.exit_code == 2
    assert not data.exists()


def test_s52_what_is_in_the_store_is_neither_the_value_nor_the_key(data: Path) -> None:
    """Nor in what SQLite keeps beside it, nor in what the commands print."""
    printed = "".join(
        run(*one, value=VALUE).output
        for one in (("set", "openai"), ("list",), ("list", "--json"), ("rotate",), ("list",))
    )
    key = (data / "master.key").read_text().strip()
    files = [path for path in data.iterdir() if path.name != "master.key"]
    assert [path.name for path in files] == ["trust.sqlite3"]
    raw = b"".join(path.read_bytes() for path in files)
    for canary in (VALUE, key):
        assert canary not in printed
        assert canary.encode() not in raw
    assert {path.stat().st_mode & 0o077 for path in data.iterdir()} == {0}


def test_commands_that_look_know_what_is_sealed(tmp_path: Path) -> None:
    run("set", "ACME_KEY", value=VALUE)
    config = tmp_path / "routes.yaml"
    config.write_text(
        "providers:\n  acme: {like: openai, api_key: [sealed:other, sealed:ACME_KEY]}\n"
        "  bare: {like: openai, api_key: sealed:x}\n"
    )
    one = CliRunner().invoke(main, ["providers", "acme", "--config", str(config)])
    assert "acme: OpenAI, active" in one.stdout
    assert "key: sealed:ACME_KEY\n" in one.stdout
    bare = CliRunner().invoke(main, ["providers", "bare", "--config", str(config)])
    assert "inactive: sealed:x is not set" in bare.stdout
    assert "key: none is set\n" in bare.stdout
    told = json.loads(CliRunner().invoke(main, ["providers", "acme", "--json", "--config", str(config)]).stdout)
    assert told["credentials"] == ["sealed:ACME_KEY"]
    assert VALUE not in one.output + bare.output


def test_commands_that_look_go_on_without_what_is_sealed(data: Path, tmp_path: Path) -> None:
    run("set", "openai", value=VALUE)
    (data / "master.key").chmod(0o644)
    config = tmp_path / "routes.yaml"
    config.write_text("routes: {}")
    done = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert (done.exit_code, "0 problems" in done.stdout) == (0, True)
    assert "penstock: sealed secrets are left out:" in done.stderr
    assert "mode 0644" in done.stderr


def test_a_shared_database_wants_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://penstock@localhost/p?host={tmp_path}")
    done = run("set", "openai", value=VALUE)
    assert done.exit_code == 1
    assert done.stderr.startswith("penstock: PENSTOCK_MASTER_KEY is not set, and DATABASE_URL is")
    monkeypatch.setenv("PENSTOCK_MASTER_KEY", NEW)
    away = run("set", "openai", value=VALUE)
    assert (away.exit_code, "Traceback" in away.output) == (1, False)


async def test_a_shared_database_holds_what_is_set(
    monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> None:
    environ = {"DATABASE_URL": database, "PENSTOCK_MASTER_KEY": NEW}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = await asyncio.to_thread(run, "set", "openai", value=VALUE)
    assert done.exit_code == 0
    vault = await asyncio.to_thread(sealed.as_now, Settings.of({**os.environ, **environ}))
    assert vault.values == {"openai": VALUE}
    assert not (tmp_path / "data").exists()


def test_a_kept_key_is_rotated(data: Path) -> None:
    run("set", "openai", value=VALUE)
    before = (data / "master.key").read_text()
    told = json.loads(run("rotate", "--json").stdout)
    assert (told["resealed"], told["secrets"], told["left"]) == (1, 1, [])
    assert (data / "master.key").read_text() != before
    (one,) = listed()
    assert (one["key_id"], one["problem"]) == (told["key_id"], None)


def test_a_key_of_the_environment_is_rotated(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MASTER_KEY", OLD)
    run("set", "openai", value=VALUE)
    monkeypatch.setenv("PENSTOCK_MASTER_KEY", NEW)
    alone = run("rotate")
    assert alone.exit_code == 1
    assert "openai: the keys here do not open it. Set PENSTOCK_MASTER_KEY_PREVIOUS" in alone.stderr
    monkeypatch.setenv("PENSTOCK_MASTER_KEY_PREVIOUS", OLD)
    done = run("rotate")
    assert (done.exit_code, done.stdout) == (
        0,
        f"1 of 1 secrets are sealed with the master key {MasterKey.of(NEW).id}.\n",
    )
    monkeypatch.delenv("PENSTOCK_MASTER_KEY_PREVIOUS")
    assert listed()[0]["problem"] is None
    assert not (data / "master.key").exists()


def _key_ids(data: Path) -> list[str]:
    with sqlite3.connect(f"file:{data / 'trust.sqlite3'}?mode=ro", uri=True) as connection:
        found = [key_id for (key_id,) in connection.execute("SELECT key_id FROM secret")]
    connection.close()
    return found


def _kill_after(resealed: int, process: "subprocess.Popen[bytes]", data: Path, old: str) -> None:
    """Kill it while it waits for its turn to write, which it cannot get before it is dead."""
    connection = sqlite3.connect(data / "trust.sqlite3", isolation_level=None, timeout=5)
    deadline = time.monotonic() + 20
    while process.poll() is None:
        connection.execute("BEGIN IMMEDIATE")
        (done,) = connection.execute("SELECT count(*) FROM secret WHERE key_id <> ?", (old,)).fetchone()
        if done >= resealed or time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            process.wait()
        connection.execute("ROLLBACK")
    connection.close()
    assert process.returncode == -signal.SIGKILL


def test_s51_a_rotation_that_is_killed_is_gone_on_with(data: Path) -> None:
    """`kill -9` in the middle: every secret opens before, between and after; afterwards none is under the old key."""
    count = 300
    settings = Settings(data=data)

    async def filled() -> Keyring:
        ring = sealed.keyring(settings, make=True)
        assert ring is not None
        store = sealed.store(settings)
        for number in range(count):
            await rotation.put(store, ring, f"name-{number}", f"value-{number}", number)
        await store.close()
        return ring

    old = asyncio.run(filled()).current.id
    values = {f"name-{number}": f"value-{number}" for number in range(count)}
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_DATA": str(data)}
    killed = subprocess.Popen([*PENSTOCK, "secrets", "rotate"], env=environ, stdout=subprocess.DEVNULL)
    _kill_after(5, killed, data, old)
    between = _key_ids(data)
    assert 0 < between.count(old) < count
    assert sealed.as_now(settings) == Vault(values, {}, 2 * count - between.count(old))
    done = run("rotate", "--json")
    told = json.loads(done.stdout)
    assert (told["resealed"], told["left"]) == (between.count(old), [])
    assert set(_key_ids(data)) == {told["key_id"]}
    assert told["key_id"] != old
    assert sealed.as_now(settings).values == values
    assert sorted(path.name for path in data.iterdir() if "key" in path.name) == ["master.key"]


def test_s68_what_a_command_does_to_the_secrets_is_in_the_audit_log(data: Path) -> None:
    run("set", "openai", value=VALUE)
    run("rotate")
    run("list")
    run("remove", "openai")
    run("remove", "openai")
    told = CliRunner().invoke(main, ["audit", "export"]).stdout
    entries = [json.loads(line) for line in told.splitlines()]
    assert [(one["act"], one["subject"], one["outcome"], one["begun"]) for one in entries] == [
        ("secrets set", "openai", "begun", None),
        ("secrets set", "openai", "done", 1),
        ("secrets rotate", "", "begun", None),
        ("secrets rotate", "", "done", 3),
        ("secrets remove", "openai", "begun", None),
        ("secrets remove", "openai", "done", 5),
        ("secrets remove", "openai", "begun", None),
        ("secrets remove", "openai", "failed", 7),
    ]
    assert {one["actor"] for one in entries} == {f"command:{getpass.getuser()}"}
    assert VALUE not in told
    assert CliRunner().invoke(main, ["audit", "verify"]).exit_code == 0


@pytest.mark.parametrize("arguments", [("set", "openai"), ("remove", "openai"), ("rotate",)], ids=str)
def test_s68_what_cannot_be_written_down_is_not_done(
    arguments: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("set", "openai", value=VALUE)
    keys = {name: (data / name).read_bytes() for name in ("master.key",)}

    async def away(_self: SqliteAudit, _act: object) -> None:
        raise StoreAway("the disk is full")

    monkeypatch.setattr(SqliteAudit, "append", away)
    refused = run(*arguments, value="sk-another-value-42")
    assert (refused.exit_code, refused.stderr) == (1, "penstock: the disk is full\n")
    assert {name: (data / name).read_bytes() for name in keys} == keys
    assert sealed.as_now(Settings(data=data)).values == {"openai": VALUE}
