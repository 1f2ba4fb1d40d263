"""Time as code spends it: working or waiting for something, but not while a busy machine lets other processes run first."""

import threading
import time
from pathlib import Path
from typing import Final

# Linux: "<ns on a CPU> <ns ready to run, but others ran> <times>", of the calling thread, and of a process's first one.
_SCHEDULED: Final = Path("/proc/thread-self/schedstat")
_THREADS: Final = Path("/proc/self/task")
STEP_S: Final = 0.02
STOPPED_S: Final = 0.1  # a thread that sleeps is not so late where its process runs
WATCH_S: Final = 120.0  # no test's span is longer


class Stopwatch:
    """Runs from when it is made. Elsewhere than on Linux it is an ordinary one."""

    def __init__(self, others: "_Others | None" = None) -> None:
        self._others = others
        self._began_at = time.perf_counter()
        self._held_up_s = _held_up_s(_SCHEDULED)

    @classmethod
    def patient(cls) -> "Stopwatch":
        """Also leaves out when the whole process was stopped, and when a server that it had started had to wait for a CPU.

        It costs a thread: not for what takes microseconds.
        """
        return cls(_Others())

    def __del__(self) -> None:
        if self._others is not None:
            self._others.over.set()

    @property
    def passed_s(self) -> float:
        """By the clock: for what must take at least so long."""
        return time.perf_counter() - self._began_at

    @property
    def spent_s(self) -> float:
        """For what may take at most so long."""
        ran_s = self.passed_s - (_held_up_s(_SCHEDULED) - self._held_up_s)
        return ran_s if self._others is None else ran_s - self._others.so_far_s()

    def is_over(self, bound_s: float) -> bool:
        """Whether more than that is spent. Quick while it is not."""
        return self.passed_s > bound_s and self.spent_s > bound_s


class _Others:
    """What was lost elsewhere than in the thread that asks. A thread that only sleeps notices when it could not."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._children_s = _children_s()
        self._stopped_s = 0.0
        self._slept = threading.Condition()
        threading.Thread(target=self._watch, daemon=True).start()

    def so_far_s(self) -> float:
        children_s = sum(now - self._children_s.get(one, 0.0) for one, now in _children_s().items())
        with self._slept:
            self._slept.wait(2.0)  # a stop that has just ended is known after the thread's next step
            return children_s + self._stopped_s

    def _watch(self) -> None:
        until = time.monotonic() + WATCH_S
        while not self.over.is_set() and time.monotonic() < until:
            began_at, held_up_s, worked_s = time.perf_counter(), _held_up_s(_SCHEDULED), time.process_time()
            self.over.wait(STEP_S)
            # While others run first, or this process works and keeps the interpreter's lock, it is not stopped.
            excused_s = _held_up_s(_SCHEDULED) - held_up_s + time.process_time() - worked_s
            late_s = time.perf_counter() - began_at - STEP_S - excused_s
            with self._slept:
                if late_s > STOPPED_S:
                    self._stopped_s += late_s
                self._slept.notify_all()


def _children_s() -> dict[str, float]:
    """How long each of this process's children was held up so far."""
    children = {one for listed in _THREADS.glob("*/children") for one in _read(listed).split()}
    return {one: _held_up_s(Path("/proc", one, "schedstat")) for one in children}


def _held_up_s(scheduled: Path) -> float:
    fields = _read(scheduled).split()
    return int(fields[1]) / 1e9 if len(fields) > 1 else 0.0


def _read(path: Path) -> str:
    """Nothing, of what is not there: another system, or a process that has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
