"""The Dockerfile: rules that a container has to keep (S67), what it installs (S64), and how large it gets."""

import json
import re
import shlex
import subprocess
import zlib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.parts import ROOT, locked_python

TEXT = (ROOT / "Dockerfile").read_text()
# Debian's packages of the runtime image, python3.13 and what it needs, compressed: 14 MiB for Debian 12's 3.11, summed from
# its package index (read 2026-11-21); twice that is the bound that is counted with.
BASE_BYTES = 30 * 1024 * 1024
IMAGE_BYTES_MAX = 120 * 1000 * 1000


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, lines joined, comments gone."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


ALL = instructions()
LAST_FROM = max(number for number, (name, _) in enumerate(ALL) if name == "FROM")
FINAL = ALL[LAST_FROM + 1 :]


def only(name: str) -> str:
    (found,) = [argument for one, argument in FINAL if one == name]
    return found


def test_base_images_are_arguments_and_named_exactly() -> None:
    arguments = dict(argument.split("=", 1) for name, argument in ALL if name == "ARG")
    for name, argument in ALL:
        if name == "FROM":
            variable = re.match(r"\$\{(\w+)\}", argument)
            assert variable, argument
            image = arguments[variable.group(1)]
            assert "/" in image.split(":")[0], image
            assert not image.endswith(":latest")
            assert ":" in image
    runtime, builder = arguments["RUNTIME"], arguments["BUILDER"]
    assert "debian13" in runtime
    assert "3.13" in builder
    assert "trixie" in builder


def test_s67_nobodys_user_no_shell_and_nothing_run_in_the_end() -> None:
    user, group = only("USER").split(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert "distroless" in TEXT
    assert {name for name, _ in FINAL} & {"RUN", "SHELL", "ADD"} == set()
    for name in ("ENTRYPOINT", "CMD"):
        assert json.loads(only(name))
    assert json.loads(only("ENTRYPOINT"))[0].startswith("/"), "there is no PATH to look in"
    for name, argument in FINAL:
        if name == "COPY":
            assert argument.startswith("--from=build "), argument


def test_s67_the_root_may_be_read_only() -> None:
    environment = dict(pair.split("=", 1) for name, argument in FINAL if name == "ENV" for pair in argument.split())
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert json.loads(only("VOLUME")) == [environment["PENSTOCK_DATA"]] == ["/data"]
    assert any("--chown=65532:65532" in argument and argument.endswith(" /data") for _, argument in FINAL)
    assert "compileall" in TEXT, "bytecode cannot be written later"


def test_s64_everything_is_locked_and_no_secret_is_baked_in() -> None:
    runs = " && ".join(argument for name, argument in ALL if name == "RUN")
    installs = [part for part in runs.split("&&") if "pip install" in part]
    assert len(installs) == 3
    for install in installs:
        if "--no-deps --no-index" not in install:
            assert "--require-hashes --only-binary :all:" in install, install
    for tool in ("curl", "wget", "apt-get", "sudo"):
        assert not re.search(rf"\b{tool}\b", runs), tool
    for name, argument in ALL:
        if name in ("ARG", "ENV"):
            assert not re.search(r"KEY|TOKEN|PASSWORD|SECRET", argument), argument


def test_the_health_check_is_one_that_needs_no_program() -> None:
    (check,) = [argument for name, argument in FINAL if name == "HEALTHCHECK"]
    command = json.loads(check.partition(" CMD ")[2])
    assert command[:2] == ["/usr/bin/python3", "-P"]
    compile(command[-1], "healthcheck", "exec")
    assert "/health/live" in command[-1]


def test_the_context_is_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word
        for name, argument in ALL
        if name == "COPY" and "--from" not in argument
        for word in shlex.split(argument)[:-1]
    }
    assert copied == allowed
    assert all((ROOT / one).exists() for one in copied)
    assert "**/.env*" in rules


def pins(name: str) -> dict[str, str]:
    """The requirements of a lock that this machine installs, name to version."""
    lines = re.findall(r"^([a-z0-9][^\n\\]*?)\s*\\?$", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    found = [Requirement(line) for line in lines]
    wanted = [one for one in found if one.marker is None or one.marker.evaluate()]
    return {one.name: str(one.specifier).removeprefix("==") for one in wanted}


def test_what_the_image_installs_is_what_is_tested() -> None:
    image, run, dev = pins("postgres.lock"), pins("run.lock"), pins("dev.lock")
    assert "asyncpg" in image
    assert "hatchling" not in image
    for name, version in image.items():
        assert {"run": run.get(name, version), "dev": dev.get(name, version)} == {"run": version, "dev": version}, name
        assert metadata.version(name) == version


def layer_bytes() -> int:
    """The layer of /app, compressed: the files of what the lock installs, and Penstock's own, with their bytecode."""
    total = 0
    for name in pins("postgres.lock"):
        for file in metadata.files(name) or []:
            path = Path(str(file.locate()))
            if path.is_file() and "__pycache__" not in path.parts:
                total += _compressed(path)
    return total + sum(_compressed(path) for path in (ROOT / "proxy").rglob("*") if path.is_file())


def _compressed(path: Path) -> int:
    size = len(zlib.compress(path.read_bytes(), 1))
    return 2 * size if path.suffix == ".py" else size  # its bytecode is about as large


def test_it_is_smaller_than_120_mb() -> None:
    layer = layer_bytes()
    assert layer > 5_000_000, "something is not counted"
    assert layer + BASE_BYTES < IMAGE_BYTES_MAX


def test_hadolint_has_nothing_to_say() -> None:
    program = locked_python().with_name("hadolint")
    done = subprocess.run(
        [program, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("bad", ["FROM python\nRUN sudo true\n", "FROM python:latest\nCMD serve\n"])
def test_hadolint_would(tmp_path: Path, bad: str) -> None:
    (tmp_path / "Dockerfile").write_text(bad)
    program = locked_python().with_name("hadolint")
    done = subprocess.run([program, tmp_path / "Dockerfile"], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
