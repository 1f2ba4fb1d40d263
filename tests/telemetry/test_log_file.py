"""A log in a file: rotated by size, gone after where somebody else rotates, and never lost in silence."""

import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from proxy.server.build import BadLog, build_log
from proxy.server.settings import Settings
from proxy.telemetry.log_file import LOOK_S, LogFile
from proxy.telemetry.logs import Log

LINE = b"x" * 99 + b"\n"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def numbers(path: Path, files: int) -> list[int]:
    """The numbers of all lines, the oldest file first."""
    names = [*(path.with_name(f"{path.name}.{number}") for number in range(files, 0, -1)), path]
    return [int(line) for name in names if name.exists() for line in name.read_bytes().split()]


def test_it_is_rotated_by_size_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "penstock.log"
    log = LogFile(path, bytes_max=400, files=2)
    for number in range(12):
        log.write(b"%99d\n" % number)
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["penstock.log", "penstock.log.1", "penstock.log.2"]
    assert numbers(path, 2) == list(range(12))
    assert all(each.stat().st_size <= 400 for each in tmp_path.iterdir())
    log = LogFile(path, bytes_max=400, files=2)
    log.write(b"%99d\n" % 12)
    log.close()
    assert numbers(path, 2) == list(range(4, 13))


def test_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", bytes_max=150, files=0)
    for _ in range(5):
        log.write(LINE)
    log.close()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_bytes() == LINE


def test_a_line_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", bytes_max=10, files=1)
    log.write(LINE)
    log.close()
    assert (tmp_path / "log").read_bytes() == LINE


@pytest.mark.parametrize("act", ["rename", "remove"])
def test_who_rotates_it_by_renaming_needs_no_signal(tmp_path: Path, act: str) -> None:
    clock = Clock()
    path = tmp_path / "log"
    log = LogFile(path, bytes_max=0, files=0, now=clock)
    log.write(b"1\n")
    if act == "rename":
        path.rename(tmp_path / "log-20261121")
    else:
        path.unlink()
    clock.now = LOOK_S
    log.write(b"2\n")
    log.close()
    assert path.read_bytes() == b"2\n"
    assert act == "remove" or (tmp_path / "log-20261121").read_bytes() == b"1\n"


WRITER = """
import sys
from pathlib import Path
from proxy.telemetry.log_file import LogFile
log = LogFile(Path(sys.argv[1]), bytes_max=5000, files=100)
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 400):
    log.write(b"%49d\\n" % number)
log.close()
"""


def test_processes_that_share_it_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)]) for first in (0, 1000, 2000)]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    found = numbers(path, 100)
    assert sorted(found) == [first + number for first in (0, 1000, 2000) for number in range(400)]
    for first in (0, 1000, 2000):
        own = [number for number in found if first <= number < first + 1000]
        assert own == sorted(own)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_f104_a_disk_that_is_full_costs_lines_and_says_so(tmp_path: Path) -> None:
    """They are told of by the next line that can be written."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log = Log(LogFile(path, bytes_max=0, files=0))
    log.event("lost")
    until = time.monotonic() + 5
    while not log._lost and time.monotonic() < until:
        time.sleep(0.001)
    assert log._lost == 1
    path.unlink()
    assert isinstance(log._sink, LogFile)
    log._sink._looked_at = -LOOK_S * 1000
    log.event("kept")
    log.close()
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["message"] for line in lines] == ["kept", "log lines dropped"]
    assert lines[1]["lines"] == 1


def test_the_settings_name_it(tmp_path: Path) -> None:
    path = tmp_path / "penstock.log"
    settings = Settings.of({"PENSTOCK_LOG": str(path), "PENSTOCK_LOG_BYTES": "1000", "PENSTOCK_LOG_FILES": "3"})
    log = build_log(settings)
    for _ in range(90):
        log.event("it rains")
        log._flush()  # type: ignore[attr-defined]  # of a Log
    log.close()
    assert len(list(tmp_path.iterdir())) == 4
    assert orjson.loads(path.read_bytes().splitlines()[-1])["message"] == "it rains"


def test_where_it_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadLog, match=r"PENSTOCK_LOG: .*nowhere/log cannot be written"):
        build_log(Settings.of({"PENSTOCK_LOG": str(tmp_path / "nowhere/log")}))
