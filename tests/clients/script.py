"""A client's scenarios are a script, which runs in a process of its own and prints one JSON line for each of them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.clients.stage import Stage, with_parent

RUN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What each scenario saw, and Penstock's log and the raw upstream's counts of the same time."""

    version: str
    facts: dict[str, dict[str, Any]]
    exchanges: list[dict[str, Any]]
    bugs: list[dict[str, Any]]
    asked: dict[str, int]


def run_script(
    name: str, command: Sequence[str | Path], environ: Mapping[str, str], on: Stage, *, within_s: float = RUN_S
) -> Ran:
    """Every scenario, once; then Penstock is stopped, so that its log is whole.

    ``environ`` is all that the process has, but for PATH. Its first line tells the client's version.
    """
    done = subprocess.run(
        with_parent(command),
        env={"PATH": os.environ["PATH"], **environ},
        cwd=on.output.parent,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    said = f"{done.stderr[-4000:]}\n{done.stdout[-1000:]}"
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{said}"
    on.stop()
    first, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    records = on.records()
    return Ran(
        version=first["version"],
        facts={line.pop("scenario"): line for line in lines},
        exchanges=[record for record in records if record["kind"] == "exchange"],
        bugs=[record for record in records if record["kind"] == "bug"],
        asked=dict(on.asked),
    )
