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
from tests.gateway import RecordingLog

# Says that it is ready, and does what it is told; ``{extra}`` comes before it listens.
_WORKER = """
import json, socket, sys, time
given = json.loads(sys.argv[-1])
wire = socket.socket(fileno=given["control"]).makefile("rwb")
def say(word, **facts):
    wire.write(json.dumps({"say": word, **facts}).encode() + b"\\n")
    wire.flush()
say("ready")
EXTRA
for line in wire:
    told = json.loads(line)
    if told.get("do") == "snapshot":
        say("snapshot", id=told["id"], snapshot={"number": given["number"]})
    elif told.get("do") in ("drain", "retire"):
        sys.exit(0)
    elif "answers" in told:
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


def test_a_worker_asks_what_all_hold(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    asks = 'time.sleep(0.3)\nif given["number"] == 1: say("snapshots", id=7)'
    supervised(asks, file, lambda _: file.exists() and bool(file.read_text()))
    told = json.loads(file.read_text())
    assert told["id"] == 7
    assert sorted((one["worker"], one["snapshot"]["number"]) for one in told["answers"]) == [(1, 1), (2, 2)]
    assert len({one["pid"] for one in told["answers"]}) == 2


def test_a_worker_that_does_not_answer_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SNAPSHOT_S", 0.2)
    file = tmp_path / "answers"
    asks = 'time.sleep(0.2)\nif given["number"] == 1: say("snapshots", id=7)\nelse: time.sleep(1)'
    log = supervised(asks, file, lambda _: file.exists() and bool(file.read_text()))
    assert [one["worker"] for one in json.loads(file.read_text())["answers"]] == [1]
    assert any("some did not answer" in str(one["message"]) for one in log.events)


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
