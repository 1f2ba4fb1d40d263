"""What runs here as a client is installed once, from a lock with hashes, into `.cache`; again when its lock changes."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.clients.stage import ROOT, with_parent

CACHE: Final = ROOT / ".cache"
LOCKS: Final = ROOT / "requirements"
INSTALL_S: Final = 300.0
_UV: Final = Path(sys.executable).parent / "uv"
_STAMP: Final = ".installed"
# What uv and npm say when there is no way to a package index: nothing here is broken then, but nothing was tested.
_NO_NETWORK: Final = (
    "name resolution",
    "dns error",
    "Network is unreachable",
    "Connection refused",
    "client error (Connect)",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "ENETUNREACH",
)


def python_of(name: str) -> Path:
    """The Python of a venv of its own that holds what `requirements/<name>.lock` says, and nothing else."""
    folder, lock = CACHE / name, LOCKS / f"{name}.lock"
    with fresh(folder, (lock,)) as made:
        if made is not None:
            _run([_UV, "venv", "--quiet", "--no-config", "--allow-existing", "--python", sys.executable, made])
            locked: list[str | Path] = ["--require-hashes", "--only-binary", ":all:", "--no-config", "-r", lock]
            _run([_UV, "pip", "install", "--quiet", "--python", made / "bin" / "python", *locked])
    return folder / "bin" / "python"


def node_packages(name: str, source: Path, scripts: Sequence[Path]) -> Path:
    """A folder with the packages that `package-lock.json` in ``source`` says, and the scripts beside them."""
    if (missing := [program for program in ("node", "npm") if shutil.which(program) is None]) != []:
        pytest.skip(f"{name} is not tested: {' and '.join(missing)} not found on PATH")
    folder = CACHE / name
    sources = [source / one for one in ("package.json", "package-lock.json", ".npmrc")]
    with fresh(folder, sources) as made:
        if made is not None:
            for one in sources:
                shutil.copy(one, made)
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"], made)
    for script in scripts:  # a module finds its packages from where it lies
        _replace(script, folder / script.name)
    return folder


@contextmanager
def fresh(folder: Path, sources: Sequence[Path]) -> Iterator[Path | None]:
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


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    done = subprocess.run(
        with_parent(command),
        cwd=cwd,
        env={**os.environ, **_uv_environ()},
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if done.returncode == 0:
        return
    said = done.stderr + done.stdout
    if any(sign in said for sign in _NO_NETWORK):
        pytest.skip(f"not installed, so not tested: no package index was reached by {command[0]} {command[1]}")
    pytest.fail(f"{' '.join(map(str, command))} failed:\n{said[-3000:]}", pytrace=False)


def _uv_environ() -> Mapping[str, str]:
    """Its cache is ours, so that `make clean` removes it; an index of one's own is found where pip finds it."""
    environ = {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_RETRIES": "1"}
    index = os.environ.get("PIP_INDEX_URL")
    return environ if index is None else {"UV_DEFAULT_INDEX": index, **environ}


def _replace(source: Path, place: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as copy:
        copy.write(source.read_bytes())
    Path(copy.name).replace(place)
