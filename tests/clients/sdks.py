"""The SDKs: the columns of the matrix. Each is installed once, from a lock, and runs in its own process."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.clients.install import node_packages, python_of
from tests.clients.script import Ran, run_script
from tests.clients.stage import Stage

HERE: Final = Path(__file__).parent
NODE: Final = HERE / "node"


@dataclass(frozen=True, slots=True)
class Sdk:
    """``command`` runs its scenarios; it installs what it needs for that."""

    name: str
    major: str
    command: Callable[[], Sequence[str | Path]]


def run(sdk: Sdk, on: Stage) -> Ran:
    """Every scenario, once, in the order of the script."""
    return run_script(sdk.name, sdk.command(), {"OPENAI_BASE_URL": on.url, "OPENAI_API_KEY": "anything"}, on)


# The columns --------------------------------------------------------------------------------------------------------


def _python_3() -> Sequence[str | Path]:
    return [sys.executable, *_SCENARIOS]


def _python_1() -> Sequence[str | Path]:
    return [python_of("openai-1"), *_SCENARIOS]


def _node(package: str) -> Callable[[], Sequence[str | Path]]:
    def command() -> Sequence[str | Path]:
        return ["node", node_packages("openai-node", NODE, [NODE / "scenarios.mjs"]) / "scenarios.mjs", package]

    return command


_SCENARIOS: Final = ("-P", "-W", "error", HERE / "scenarios.py")
SDKS: Final = (
    Sdk("python-3", "3", _python_3),
    Sdk("python-1", "1", _python_1),
    # 7 names Node 22 as its oldest; on Node 20 it passed all of this too (November 2026). 6 is the last line for Node 20.
    Sdk("node-7", "7", _node("openai")),
    Sdk("node-6", "6", _node("openai-6")),
)


# Those that read what was cut ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CutReader:
    """``command`` reads so many cut streams, one after the other."""

    name: str
    command: Callable[[int], Sequence[str | Path]]


def _python_cuts(python: Callable[[], str | Path]) -> Callable[[int], Sequence[str | Path]]:
    return lambda count: [python(), "-P", "-W", "error", HERE / "cuts.py", str(count)]


def _node_cuts(package: str) -> Callable[[int], Sequence[str | Path]]:
    def command(count: int) -> Sequence[str | Path]:
        return [
            "node",
            node_packages("openai-node", NODE, [NODE / "cuts.mjs"]) / "cuts.mjs",
            package,
            str(count),
        ]

    return command


CUT_READERS: Final = (
    CutReader("python-3", _python_cuts(lambda: sys.executable)),
    CutReader("python-1", _python_cuts(lambda: python_of("openai-1"))),
    CutReader("node-7", _node_cuts("openai")),
)
