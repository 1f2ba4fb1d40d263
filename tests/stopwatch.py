"""Time as code spends it: working or waiting for something, but not while a busy machine lets other processes run first."""

import time
from pathlib import Path
from typing import Final

# Linux: "<ns on a CPU> <ns ready to run, but others ran> <times>", of the calling thread.
_SCHEDULED: Final = Path("/proc/thread-self/schedstat")


class Stopwatch:
    """Runs from when it is made. Elsewhere than on Linux it is an ordinary one."""

    def __init__(self) -> None:
        self._began = time.perf_counter() - _held_up_s()

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - _held_up_s() - self._began


def _held_up_s() -> float:
    return int(_SCHEDULED.read_text().split()[1]) / 1e9 if _SCHEDULED.exists() else 0.0
