"""What a bound of time is measured with does not count what the machine took, and counts all else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKS_AND_WAITS = """
import time
from tests.stopwatch import Stopwatch
for make in (Stopwatch, Stopwatch.patient):
    watch = make()
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        continue
    time.sleep(0.1)
    print(watch.spent_s, watch.passed_s)
"""
IS_STOPPED = """
import sys, time
from tests.stopwatch import Stopwatch
watch = Stopwatch.patient()
print(flush=True)
sys.stdin.read()
print(watch.passed_s, watch.spent_s)
"""


def test_work_and_waiting_count() -> None:
    """In a process that has no children which may wait for a CPU meanwhile."""
    out = subprocess.run(
        [sys.executable, "-c", WORKS_AND_WAITS], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    for line in out.splitlines():
        spent_s, passed_s = map(float, line.split())
        assert 0.19 <= spent_s <= passed_s


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
def test_being_stopped_does_not_count() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IS_STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.close()
        passed_s, spent_s = map(float, child.stdout.readline().split())
    assert passed_s >= 1
    assert spent_s < passed_s - 0.9
