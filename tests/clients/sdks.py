"""The SDKs: the columns of the matrix. Each is installed once, from a lock, into `.cache`, and runs in its own process."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.stage import ROOT, Stage, with_parent

CACHE: Final = ROOT / ".cache"
HERE: Final = Path(__file__).parent
PYTHON_LOCK: Final = ROOT / "requirements" / "openai-1.lock"
NODE: Final = HERE / "node"
INSTALL_S: Final = 300.0
RUN_S: Final = 60.0
_STAMP: Final = ".installed"
# What pip and npm say when there is no way to a package index: nothing here is broken then, but nothing was tested.
_NO_NETWORK: Final = (
    "name resolution",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "ENETUNREACH",
)


@dataclass(frozen=True, slots=True)
class Sdk:
    """``install`` gives the folder it is in; ``command`` and ``environ`` run its scenarios from there."""

    name: str
    major: str
    install: Callable[[], Path]
    command: Callable[[Path], Sequence[str | Path]]
    environ: Callable[[Path], Mapping[str, str]]


@dataclass(slots=True)
class Ran:
    """One column: what each scenario saw, and Penstock's log and the raw upstream's counts of the same time."""

    version: str
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    bugs: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)


def run(sdk: Sdk, on: Stage) -> Ran:
    """Every scenario, once, in the order of the script; then Penstock is stopped, so that its log is whole."""
    folder = sdk.install()
    environ = {
        "PATH": os.environ["PATH"],
        "OPENAI_BASE_URL": on.url,
        "OPENAI_API_KEY": "anything",
        **sdk.environ(folder),
    }
    done = subprocess.run(
        with_parent(sdk.command(folder)),
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, (
        f"{sdk.name} ended with {done.returncode}:\n{done.stderr[-4000:]}\n{done.stdout[-1000:]}"
    )
    on.stop()
    first, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    records = on.records()
    return Ran(
        version=first["version"],
        facts={line.pop("scenario"): line for line in lines},
        exchanges=[record for record in records if record["kind"] == "exchange"],
        bugs=[record for record in records if record["kind"] == "bug"],
        asked=dict(on.raw.asked),
    )


# Installing ---------------------------------------------------------------------------------------------------------


def _in_venv() -> Path:
    return HERE


def _openai_1() -> Path:
    folder = CACHE / "openai-1"
    with _fresh(folder, (PYTHON_LOCK,)) as made:
        if made is not None:
            pip: list[str | Path] = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--quiet",
                "--retries",
                "1",
            ]
            locked: list[str | Path] = ["--require-hashes", "--only-binary", ":all:", "--no-compile", "-r", PYTHON_LOCK]
            _install([*pip, *locked, "--target", made])
    return folder


def _openai_node() -> Path:
    if (missing := [program for program in ("node", "npm") if shutil.which(program) is None]) != []:
        pytest.skip(f"openai-node is not tested: {' and '.join(missing)} not found on PATH")
    folder = CACHE / "openai-node"
    sources = [NODE / name for name in ("package.json", "package-lock.json", ".npmrc")]
    with _fresh(folder, sources) as made:
        if made is not None:
            for source in sources:
                shutil.copy(source, made)
            _install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"], made)
    # A module finds its packages from where it lies, so the script lies beside them.
    _replace(NODE / "scenarios.mjs", folder / "scenarios.mjs")
    return folder


@contextmanager
def _fresh(folder: Path, sources: Sequence[Path]) -> Iterator[Path | None]:
    """A new folder to fill, which then takes the place of ``folder``; None where that was made from these sources."""
    stamp = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    stamped = folder / _STAMP
    if stamped.is_file() and stamped.read_text(encoding="utf-8") == stamp:
        yield None
        return
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        yield made
        (made / _STAMP).write_text(stamp, encoding="utf-8")
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        made.rename(folder)


def _install(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    done = subprocess.run(with_parent(command), cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode == 0:
        return
    said = done.stderr + done.stdout
    if any(sign in said for sign in _NO_NETWORK):
        pytest.skip(f"not installed, so not tested: no package index was reached by {command[0]} {command[1]}")
    pytest.fail(f"{' '.join(map(str, command))} failed:\n{said[-3000:]}", pytrace=False)


def _replace(source: Path, place: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as copy:
        copy.write(source.read_bytes())
    Path(copy.name).replace(place)


# The columns --------------------------------------------------------------------------------------------------------


def _python(_folder: Path) -> Sequence[str | Path]:
    return [sys.executable, "-P", "-W", "error", HERE / "scenarios.py"]


def _node(package: str) -> Callable[[Path], Sequence[str | Path]]:
    return lambda folder: ["node", folder / "scenarios.mjs", package]


SDKS: Final = (
    Sdk("python-3", "3", _in_venv, _python, lambda _folder: {}),
    Sdk("python-1", "1", _openai_1, _python, lambda folder: {"PYTHONPATH": str(folder)}),
    # 7 names Node 22 as its oldest; on Node 20 it passed all of this too (November 2026). 6 is the last line for Node 20.
    Sdk("node-7", "7", _openai_node, _node("openai"), lambda _folder: {}),
    Sdk("node-6", "6", _openai_node, _node("openai-6"), lambda _folder: {}),
)
