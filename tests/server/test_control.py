"""The supervisor and the wire to its workers, with workers that are a few lines and can do what real ones should not."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.server import workers
from proxy.server.workers import Supervisor
from proxy.telemetry.metrics import from_bytes
from tests.gateway import RecordingLog

# Says that it is ready, and does what it is told; ``{extra}`` comes before it listens.
_WORKER = """
import json, socket, sys, time
given = json.loads(sys.argv[-1])
wire = socket.socket(fileno=given["control"]).makefile("rwb")
COUNTED = json.dumps({"penstock_limited_total": [[["rps"], [given["number"]]]], "penstock_exchanges_running": [[[], [1]]]})
def say(word, **facts):
    wire.write(json.dumps({"say": word, **facts}).encode() + b"\\n")
    wire.flush()
say("ready")
EXTRA
for line in wire:
    told = json.loads(line)
    if told.get("do") == "count":
        say("count", id=told["id"], counted=COUNTED)
    elif told.get("do") in ("drain", "retire"):
        sys.exit(0)
    elif "counted" in told:
        with open(FILE, "w") as opened:
            json.dump(told, opened)
"""


def supervised(extra: str, file: Path, until: Callable[[RecordingLog], bool], count: int = 2) -> RecordingLog:
    """What the supervisor logged until then; it ends afterwards."""
    log = RecordingLog()
    script = _WORKER.replace("EXTRA", extra).replace("FILE", repr(str(file)))

    async def run() -> int:
        supervisor = Supervisor((sys.executable, "-S", "-c", script), {}, count, log, drain_s=1.0)
        running = asyncio.create_task(supervisor.run())
        began = time.monotonic()
        while not until(log) and time.monotonic() - began < 10:
            await asyncio.sleep(0.01)
        supervisor._asked_to_stop()
        return await running

    assert asyncio.run(run()) == 0
    assert until(log), log.events
    assert not log.bugs
    return log


def _counted(file: Path) -> tuple[float, float]:
    """What all have counted, and how many run."""
    told = from_bytes(json.loads(file.read_text())["counted"].encode())
    return told["penstock_limited_total"]["rps",][0], told["penstock_exchanges_running"][()][0]


def _is_told(file: Path) -> bool:
    return file.exists() and bool(file.read_text())


def test_a_worker_asks_what_all_have_counted(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    supervised('time.sleep(0.3)\nif given["number"] == 1: say("counted", id=7)', file, lambda _: _is_told(file))
    assert json.loads(file.read_text())["id"] == 7
    assert _counted(file) == (1 + 2, 2)


def test_of_a_worker_that_does_not_answer_is_told_what_it_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "COUNT_S", 0.2)
    file, spoken = tmp_path / "answer", tmp_path / "spoken"
    asks = f"""
import os
if given["number"] == 2:
    say("count", id=0, counted=COUNTED)
    open({str(spoken)!r}, "w").close()
    time.sleep(3)
else:
    while not os.path.exists({str(spoken)!r}): time.sleep(0.01)
    time.sleep(0.3)
    say("counted", id=7)
"""
    log = supervised(asks, file, lambda _: _is_told(file))
    assert _counted(file) == (1 + 2, 2)
    assert any("some did not answer" in str(one["message"]) for one in log.events)


def test_what_was_counted_outlives_who_counted_it(tmp_path: Path) -> None:
    """A counter that falls is a restart to whoever reads it, and all that is left would be counted again."""
    file, died = tmp_path / "answer", tmp_path / "died"
    dies = f"""
import os
if given["number"] == 2 and not os.path.exists({str(died)!r}):
    say("count", id=0, counted=COUNTED)
    open({str(died)!r}, "w").close()
    os.kill(os.getpid(), 9)
if given["number"] == 1:
    while not os.path.exists({str(died)!r}): time.sleep(0.01)
    time.sleep(0.6)
    say("counted", id=7)
"""
    supervised(dies, file, lambda _: _is_told(file))
    assert _counted(file) == (1 + 2 + 2, 2)


def test_f100_one_that_dies_at_once_again_and_again_is_waited_for_longer(tmp_path: Path) -> None:
    def died(log: RecordingLog) -> list[dict[str, object]]:
        return [one for one in log.events if "another is started" in str(one["message"])]

    dies = 'if given["number"] == 2: sys.exit(3)'
    log = supervised(dies, tmp_path / "x", lambda log: len(died(log)) >= 3)
    assert [(one["worker"], one["why"], one["after_s"]) for one in died(log)[:3]] == [
        (2, "exit code 3", 0.0),
        (2, "exit code 3", 0.5),
        (2, "exit code 3", 1.0),
    ]


def test_one_that_is_never_ready_ends_it_with_its_code(tmp_path: Path) -> None:
    log = RecordingLog()
    command = (sys.executable, "-S", "-c", "import sys; sys.exit(2)")
    assert asyncio.run(Supervisor(command, {}, 2, log, drain_s=1.0).run()) == 2
    assert not log.bugs
