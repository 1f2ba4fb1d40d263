import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.telemetry import logs
from proxy.telemetry.logs import Log
from tests.stopwatch import Stopwatch

RECORD: dict[str, Any] = {
    "id": "req_1",
    "outcome": "failed",
    "status": 502,
    "api": "chat",
    "asked": "evil\n\x1b[31mname",
    "route": None,
    "target": "sim/m",
    "stream": True,
    "attempts": 2,
    "ms": 12.5,
    "first_event_ms": 3.0,
    "usage": {"input": 7, "output": 9},
    "code": "upstream_error",
    "message": "it failed\r\nbadly",
}


def _written(path: Path, tell: Callable[[Log], None], *, readable: bool) -> list[bytes]:
    with path.open("w") as stream:
        log = Log(stream, readable=readable)
        tell(log)
        log.close()
    return path.read_bytes().splitlines()


def test_off_a_terminal_a_line_is_one_json_object(tmp_path: Path) -> None:
    (line,) = _written(tmp_path / "log", lambda log: log.exchange(lambda: RECORD), readable=False)
    document = orjson.loads(line)
    assert {name: document[name] for name in RECORD} == RECORD
    assert (document["kind"], document["level"]) == ("exchange", "warning")
    assert abs(document["ts"] - time.time()) < 5


def test_on_a_terminal_a_line_is_readable_and_cannot_be_forged(tmp_path: Path) -> None:
    (line,) = _written(tmp_path / "log", lambda log: log.exchange(lambda: RECORD), readable=True)
    text = line.decode()
    for part in ("502 failed", "chat stream", "sim/m", "7+9 tokens", "2 attempts", "upstream_error", "req_1"):
        assert part in text
    assert "\x1b[31mname" not in text


@pytest.mark.parametrize("readable", [False, True])
def test_s53_what_is_hidden_stands_in_no_line_of_any_kind(tmp_path: Path, *, readable: bool) -> None:
    canaries = ["canary-one-4711", 'canary"two\\4711', "canary-three-4711"]

    def record(canary: str) -> Callable[[], dict[str, Any]]:
        return lambda: {**RECORD, "asked": canary, "message": f"refused {canary}"}

    def tell(log: Log) -> None:
        log.hide(canaries[:2])
        log.hide(canaries[2:])
        for canary in canaries:
            log.event(f"an event of {canary}", error=f"it said {canary}", facts={"a": [canary]})
            log.exchange(record(canary))
            log.bug("req_1", ValueError(f"in a traceback: {canary}"))

    raw = b"\n".join(_written(tmp_path / "log", tell, readable=readable))
    for canary in canaries:
        assert canary.encode() not in raw
        assert orjson.dumps(canary)[1:-1] not in raw
    assert raw.count(b"[redacted]") == 3 * 6


def test_a_bug_is_told_with_its_traceback_and_without_secrets(tmp_path: Path) -> None:
    def tell(log: Log) -> None:
        try:
            dict[str, int]()["sk-proj-abcdefghijklmnop1234"]
        except KeyError as error:
            log.bug("req_1", error)

    (line,) = _written(tmp_path / "log", tell, readable=False)
    document = orjson.loads(line)
    assert "test_logs.py" in document["traceback"]
    assert b"sk-proj" not in line


def test_a_reader_that_does_not_read_costs_lines_and_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BACKLOG_BYTES_MAX", 200_000)
    monkeypatch.setattr(logs, "CLOSE_S", 0.1)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        log = Log(stream, readable=False)
        watch = Stopwatch.patient()
        for _ in range(3000):
            log.event("x" * 500)
        assert watch.spent_s < 2
        log.close()
        assert log._dropped > 0
        os.close(reading)


def test_lines_are_written_whole_where_others_write_to_the_same_pipe(tmp_path: Path) -> None:
    """Each write holds whole lines, and no more than a pipe takes in one piece, but for a line that is longer."""
    short = b"".join(b"%d %s\n" % (number, b"x" * 700) for number in range(20))
    long = b"y" * (2 * select.PIPE_BUF) + b"\n"
    with (tmp_path / "log").open("w") as stream:
        sink = logs._Stream(stream, shared=True)
        left, writes = short + long + short, list[bytes]()
        while left:
            count = sink._at_once(left)
            writes.append(left[:count])
            left = left[count:]
    assert b"".join(writes) == short + long + short
    assert all(one.endswith(b"\n") and (len(one) <= select.PIPE_BUF or one == long) for one in writes)
    assert len(writes) == 9
