"""`penstock keys` against a running server, from a process of its own."""

import asyncio
import json
import os
import re
import subprocess
import time

import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.core.principal import Principal
from tests.conftest import Start
from tests.gateway import Gateway
from tests.server.process import ADMIN_KEY, PENSTOCK


@pytest.fixture
async def penstock(start: Start) -> Gateway:
    return await start("routes: {}", admin_key=ADMIN_KEY, pepper="Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE")


async def run(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_ADMIN_KEY": ADMIN_KEY, "PENSTOCK_PORT": str(port)}
    return await asyncio.to_thread(
        subprocess.run, [*PENSTOCK, "keys", *arguments], capture_output=True, text=True, env=environ, check=False
    )


def is_let_in(penstock: Gateway, secret: str) -> bool:
    assert penstock.runtime.keys is not None
    return isinstance(penstock.runtime.keys.verify(secret), Principal)


async def test_the_life_of_a_key(penstock: Gateway) -> None:
    options = (
        "--account",
        "acme",
        "--route",
        "voice",
        "--rps",
        "5",
        "--daily",
        "2.5",
        "--expires",
        "30d",
        "--tag",
        "a=b=c",
    )
    made = await run(penstock.port, "create", "the first", *options)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert made.stdout == secret + "\n", "standard output is the key alone"
    assert is_let_in(penstock, secret)
    assert secret not in made.stderr
    key_id = secret[4:16]
    assert key_id in made.stderr

    listed = await run(penstock.port, "list", "--account", "acme", "--state", "active")
    header, row = listed.stdout.splitlines()
    assert header.split() == [
        "KEY",
        "NAME",
        "ACCOUNT",
        "ROLE",
        "STATE",
        "ROUTES",
        "LIMITS",
        "BUDGETS",
        "EXPIRES",
        "CREATED",
    ]
    cells = re.split(r"\s{2,}", row)
    assert cells[:8] == [
        f"{key_id}...{secret[-4:]}",
        "the first",
        "acme",
        "user",
        "active",
        "voice",
        "rps 5",
        "daily 2.5",
    ]
    (shown,) = json.loads((await run(penstock.port, "list", "--json")).stdout)
    assert shown["tags"] == {"a": "b=c"}
    until = time.time() + 30 * 86400
    assert abs(time.mktime(time.strptime(shown["expires_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - until) < 7200

    changed = await run(penstock.port, "change", key_id, "--clear", "routes", "--role", "viewer", "--json")
    assert json.loads(changed.stdout) == {**shown, "routes": None, "role": "viewer"}
    rotated = await run(penstock.port, "rotate", f"psk-{key_id}", "--grace", "1h")
    assert rotated.returncode == 0, rotated.stderr
    assert (is_let_in(penstock, secret), is_let_in(penstock, rotated.stdout.strip())) == (True, True)
    revoked = await run(penstock.port, "revoke", key_id)
    assert (revoked.returncode, revoked.stdout) == (0, f"Revoked: {key_id} (the first), account acme, role viewer\n")
    assert (is_let_in(penstock, secret), is_let_in(penstock, rotated.stdout.strip())) == (False, False)
    gone = await run(penstock.port, "show", key_id, "--json")
    assert json.loads(gone.stdout)["state"] == "revoked"


async def test_what_goes_wrong(penstock: Gateway) -> None:
    unknown = await run(penstock.port, "show", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "penstock: There is no key with this id. Ids are in the list of keys.\n"
    wrong = await run(penstock.port, "create", "x", "--expires", "soon")
    assert (wrong.returncode, "'expires_at' must be a time" in wrong.stderr) == (1, True)
    none = await run(penstock.port, "list")
    assert (none.returncode, none.stdout) == (0, "There are no such keys: `penstock keys create NAME` makes one.\n")
    missing = await run(1, "list")
    assert (missing.returncode, "penstock serve" in missing.stderr) == (1, True)
    whole = "psk-" + "a" * 63
    pasted = await run(penstock.port, "revoke", whole)
    assert (pasted.returncode, whole in pasted.stderr, "a whole key" in pasted.stderr) == (2, False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("change", "x"),
        ("change", "x", "--clear", "routes", "--route", "a"),
        ("rotate", "x", "--grace", "soon"),
        ("create", "x", "--tag", "a"),
        ("create", "x", "--role", "king"),
        ("create",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_asked_of_nobody(arguments: tuple[str, ...]) -> None:
    told = CliRunner(env={"PENSTOCK_URL": "http://127.0.0.1:1"}).invoke(main, ["keys", *arguments])
    assert told.exit_code == 2
    assert "Usage: " in told.stderr


@pytest.mark.parametrize("name", ["", "create", "list", "show", "change", "revoke", "rotate"])
def test_help_shows_an_example(name: str) -> None:
    told = CliRunner().invoke(main, ["keys", *([name] if name else []), "--help"])
    assert (told.exit_code, f"penstock keys {name}".strip() in told.output) == (0, True)
    assert "Example" in told.output
