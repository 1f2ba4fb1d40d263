"""Penstock, in a process of its own, between the scripted provider in another and whoever asks it."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

from tests.clients.raw import Cut, RawUpstream

ROOT: Final = Path(__file__).parents[2]
PENSTOCK: Final = Path(sys.executable).parent / "penstock"
START_S: Final = 20.0
END_S: Final = 10.0
LOG_S: Final = 5.0
_SERVES: Final = "Penstock serves on "
# The child asks to be ended with its parent, then becomes the program; elsewhere than on Linux only the `with` ends it.
_DIES_WITH_PARENT: Final = (
    "import os, sys\n"
    "if sys.platform == 'linux':\n"
    "    import ctypes\n"
    "    ctypes.CDLL(None).prctl(1, 15)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)
_CONFIG: Final = """\
providers:
  sim: {{like: vllm, base_url: "{sim}"}}
  raw: {{like: vllm, base_url: "http://127.0.0.1:{raw}/v1"}}
defaults:
  timeouts: {{connect: 1s, first_event: 5s, idle: 500ms, silent: 900ms, total: 15s}}
routes:
  chat: {{about: Whatever is asked, tiers: [sim/plain]}}
  fallback: {{tiers: [sim/503, sim/plain]}}
  late: {{tiers: [raw/silent], timeouts: {{first_event: 300ms, total: 500ms}}}}
models:
  gpt-4o-mini: chat
"""


@dataclass(slots=True)
class Stage:
    """``url`` is what belongs in OPENAI_BASE_URL. `records` may be read while Penstock runs, and after.

    ``asked``: how often the raw upstream was asked for a model.
    """

    url: str
    asked: Counter[str]
    output: Path
    popen: subprocess.Popen[bytes]

    def records(self) -> list[dict[str, Any]]:
        """Penstock's log, but for its last 50 ms while it runs."""
        lines = self.output.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"ts"') and line.endswith("}")]

    def exchanges(self) -> list[dict[str, Any]]:
        return [record for record in self.records() if record["kind"] == "exchange"]

    def logged(self, exchange_id: str) -> dict[str, Any]:
        """The record of one exchange, once it is there."""
        deadline = time.monotonic() + LOG_S
        while time.monotonic() < deadline:
            for record in self.exchanges():
                if record["id"] == exchange_id:
                    return record
            time.sleep(0.02)
        raise AssertionError(f"the exchange {exchange_id} is not in Penstock's log")

    def stop(self) -> None:
        """SIGTERM; what runs finishes, and the log is whole."""
        self.popen.terminate()
        assert self.popen.wait(END_S) == 0, self.output.read_text(encoding="utf-8")[-2000:]


@contextmanager
def stage(folder: Path, cuts: Callable[[str], Cut] | None = None, config: str = _CONFIG) -> Iterator[Stage]:
    """Everything started, and ended with the block. ``folder`` keeps what the processes print.

    ``config``: the routes file, in which `{sim}` is the scripted provider's URL and `{raw}` the raw upstream's port.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        raw = stack.enter_context(RawUpstream(cuts))
        simulator = stack.enter_context(child([PENSTOCK, "simulate", "--port", "0"], folder / "simulator.txt"))
        sim = printed(simulator, folder / "simulator.txt", "http://")
        routes = folder / "routes.yaml"
        routes.write_text(config.format(sim=sim, raw=raw.port), encoding="utf-8")
        output = folder / "penstock.txt"
        command: list[str | Path] = [
            PENSTOCK,
            "serve",
            "--port",
            "0",
            "--drain",
            "2s",
            "--grace",
            "0s",
            "--config",
            routes,
        ]
        popen = stack.enter_context(child(command, output))
        url = printed(popen, output, _SERVES)
        _await_live(url)
        yield Stage(url, raw.asked, output, popen)


def with_parent(command: Sequence[str | Path]) -> list[str | Path]:
    """The command, so started that it is ended when its parent is, however that ends."""
    return [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, *command]


@contextmanager
def child(command: Sequence[str | Path], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with an empty environment that writes to ``output``, ended with the block."""
    with output.open("wb") as sink:
        popen = subprocess.Popen(
            with_parent(command),
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"PYTHONUNBUFFERED": "1"},
            cwd=output.parent,
        )
    with popen:
        try:
            yield popen
        finally:
            popen.terminate()
            try:
                popen.wait(END_S)
            except subprocess.TimeoutExpired:
                popen.kill()


def printed(popen: subprocess.Popen[bytes], output: Path, start: str) -> str:
    """The URL on the first printed line that begins with ``start``."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and popen.poll() is None:
        for line in output.read_text(encoding="utf-8").split("\n")[:-1]:
            if line.startswith(start):
                return line[line.index("http://") :].strip()
        time.sleep(0.01)
    raise AssertionError(f"{output.stem} did not start:\n{output.read_text(encoding='utf-8')[-2000:]}")


def _await_live(url: str) -> None:
    live = url.removesuffix("/v1") + "/health/live"
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(live, timeout=1) as answer:  # noqa: S310 - the URL is our own child's
                assert answer.status == 200
                return
        except URLError:
            assert time.monotonic() < deadline, f"{live} does not answer"
            time.sleep(0.01)
