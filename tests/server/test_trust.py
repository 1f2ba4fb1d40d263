"""What virtual keys are hashed under: made once, refused where it is weak or would not be shared; in a process too."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from proxy.server import trust
from proxy.server.own_secrets import SecretRefused
from proxy.server.settings import Settings
from proxy.stores.postgres.keys import PostgresKeys
from proxy.stores.sqlite.keys import SqliteKeys
from tests.gateway import RecordingLog
from tests.server.process import ADMIN_KEY, PENSTOCK, config_file, serving

GOOD = "Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE"
OTHER = "aE2Uf7GcJm5DhB0xKs6WpZ1qLy8Tr3nV"


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.of({"PENSTOCK_DATA": str(tmp_path / "data"), **environ})


def test_a_pepper_is_made_once(tmp_path: Path) -> None:
    log = RecordingLog()
    made = trust.peppers(settings(tmp_path), log)
    path = tmp_path / "data" / "pepper"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.current.value == path.read_bytes().strip()
    assert made.previous is None
    assert trust.peppers(settings(tmp_path), log) == made
    (event,) = log.events
    assert event["file"] == str(path)
    assert made.current.value.decode() not in str(log.events)


def test_a_pepper_is_rotated(tmp_path: Path) -> None:
    both = trust.peppers(settings(tmp_path, PENSTOCK_PEPPER=GOOD, PENSTOCK_PEPPER_PREVIOUS=OTHER), RecordingLog())
    assert (both.current.value, both.previous and both.previous.value) == (GOOD.encode(), OTHER.encode())
    same = trust.peppers(settings(tmp_path, PENSTOCK_PEPPER=GOOD, PENSTOCK_PEPPER_PREVIOUS=GOOD), RecordingLog())
    assert same.previous is None
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("variable", ["PENSTOCK_PEPPER", "PENSTOCK_PEPPER_PREVIOUS", "PENSTOCK_API_KEY"])
@pytest.mark.parametrize("weak", ["short", "x" * 40, "changeme" + GOOD])
def test_s15_a_weak_one_is_refused(variable: str, weak: str, tmp_path: Path) -> None:
    given = settings(tmp_path, **{variable: weak})

    def read() -> None:
        trust.api_key(given)
        trust.peppers(given, RecordingLog())

    with pytest.raises(SecretRefused, match=variable) as told:
        read()
    assert weak not in str(told.value)


def test_instances_that_share_a_database_share_a_pepper(tmp_path: Path) -> None:
    with pytest.raises(SecretRefused, match="PENSTOCK_PEPPER is not set, and DATABASE_URL is"):
        trust.peppers(settings(tmp_path, DATABASE_URL="postgresql://h/d"), RecordingLog())
    assert not (tmp_path / "data").exists()


async def test_where_keys_are(tmp_path: Path) -> None:
    assert isinstance(trust.keys(settings(tmp_path)), SqliteKeys)
    assert isinstance(trust.keys(settings(tmp_path, DATABASE_URL="postgresql://h/d")), PostgresKeys)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DATABASE_URL": "postgresql://h/d"}, "PENSTOCK_PEPPER is not set"),
        ({"PENSTOCK_PEPPER": "short"}, "PENSTOCK_PEPPER has 5 characters"),
        ({"PENSTOCK_API_KEY": "sk-anything"}, "PENSTOCK_API_KEY has 11 characters"),
        ({"PENSTOCK_API_KEY": ADMIN_KEY}, "PENSTOCK_API_KEY is the admin key"),
    ],
    ids=str,
)
def test_s15_the_process_does_not_start(environ: dict[str, str], words: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [*PENSTOCK, "serve", "--port", "0", "--config", config_file(tmp_path, "routes: {}")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={
            "PATH": os.environ["PATH"],
            "PENSTOCK_DATA": str(tmp_path / "data"),
            "PENSTOCK_ADMIN_KEY": ADMIN_KEY,
            **environ,
        },
    )
    assert ran.returncode != 0
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not re.search("sk-anything|hush", ran.stderr)


def test_keys_outlive_the_process(tmp_path: Path) -> None:
    """Made under a pepper that the process made by itself, and known to the next one."""
    data = tmp_path / "data"
    config = config_file(tmp_path, "routes: {}")

    def keys(port: int, *arguments: str) -> str:
        environ = {"PATH": os.environ["PATH"], "PENSTOCK_ADMIN_KEY": ADMIN_KEY, "PENSTOCK_PORT": str(port)}
        done = subprocess.run([*PENSTOCK, "keys", *arguments], capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with serving("--config", config, "--demo", environ={"PENSTOCK_DATA": str(data), "PENSTOCK_PEPPER": ""}) as (
        _,
        port,
        _,
    ):
        secret = keys(port, "create", "lasting", "--role", "admin").strip()
    for name in ("trust.sqlite3", "trust.sqlite3-wal", "pepper"):
        assert not (data / name).exists() or stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    with serving("--config", config, "--demo", environ={"PENSTOCK_DATA": str(data), "PENSTOCK_PEPPER": ""}) as (
        _,
        port,
        _,
    ):
        environ = {"PATH": os.environ["PATH"], "PENSTOCK_ADMIN_KEY": secret, "PENSTOCK_PORT": str(port)}
        told = subprocess.run([*PENSTOCK, "keys", "list"], capture_output=True, text=True, check=False, env=environ)
        assert "lasting" in told.stdout, told.stderr
