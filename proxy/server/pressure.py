"""Overload: how near the process is to the end of its memory and of its descriptors, looked at once a second.

What it finds stands in `Intake.overload`, where the surface looks. Running exchanges are left alone: they end, and that
is what helps. Not handled: processor time, which shows as latency long before anything breaks. Where there is no `/proc`
only the number of exchanges is bounded.
"""

import asyncio
import gc
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.edge.intake import Intake
from proxy.ports import ExchangeLog

LOOK_S: Final = 1.0
OF_CGROUP: Final = 0.9  # of its limit: beyond it the kernel kills
DESCRIPTORS_FREE: Final = 16  # with fewer, an upstream could not be reached and would be blamed for it
CALM: Final = 0.95  # of the limit: below it an overload is over
COLLECT_S: Final = 10.0  # what lies about may be what is too much
_MIB: Final = 1024 * 1024
_UNLIMITED: Final = 1 << 60  # cgroup v1 says it by a number near 2**63


def memory_limit(root: Path = Path("/")) -> int | None:
    """The cgroup's limit in bytes, the lowest of it and of those above; None where there is none. ``root``: for tests."""
    found = [_bytes(path) for path in _limit_files(root)]
    return min((limit for limit in found if limit is not None), default=None)


def _limit_files(root: Path) -> list[Path]:
    mounted = root / "sys/fs/cgroup"
    files = [mounted / "memory.max", mounted / "memory/memory.limit_in_bytes"]
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        for step in path.strip("/").split("/"):
            folder /= step
            files.append(folder / name)
    return files


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _bytes(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isdecimal() and int(text) < _UNLIMITED else None


def soft_limit(given: int | None, workers: int = 1, root: Path = Path("/")) -> int | None:
    """How much memory this process may have before it refuses: what was given, or its share of the cgroup's."""
    if given is not None:
        return given
    limit = memory_limit(root)
    return None if limit is None else int(limit * OF_CGROUP) // workers


class Pressure:
    """Looks, and sets `Intake.overload`. ``memory_max`` None: not bounded. Units: bytes."""

    def __init__(self, intake: Intake, log: ExchangeLog, now: Callable[[], float], memory_max: int | None) -> None:
        self._intake = intake
        self._log = log
        self._now = now
        self._memory_max = memory_max
        self._page = resource.getpagesize()
        self._statm = _opened("/proc/self/statm")
        self._collected_at = -COLLECT_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("pressure", error)
            asyncio.get_running_loop().call_later(LOOK_S, self._again)

    def _again(self) -> None:
        if self._task is not None:
            self.start()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Look once, and say so where something has changed."""
        why = self._why()
        before, self._intake.overload = self._intake.overload, why
        if (why is None) != (before is None):
            message = "no longer overloaded" if why is None else "overloaded: new requests are refused"
            self._log.event(message, why=why or before)

    @property
    def memory(self) -> int | None:
        """Resident bytes; None where the system does not say."""
        return None if self._statm is None else int(os.pread(self._statm, 128, 0).split()[1]) * self._page

    def _why(self) -> str | None:
        used = self.memory
        if self._memory_max is not None and used is not None:
            most = self._memory_max * (CALM if self._intake.overload is not None else 1)
            if used > most and self._now() - self._collected_at >= COLLECT_S:
                self._collected_at = self._now()
                gc.collect()
                used = self.memory or 0
            if used > most:
                return f"its memory is at {used // _MIB} MiB, over the limit of {self._memory_max // _MIB} MiB"
        free = _descriptors_free()
        if free is not None and free < DESCRIPTORS_FREE:
            return f"only {max(free, 0)} file descriptors are left"
        return None


def _descriptors_free() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        # Since Linux 6.2 the size is their number; counting them needs one more, and a moment for each.
        used = Path("/proc/self/fd").stat().st_size or len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return None
    except OSError:
        return 0  # there is not even one to count with
    return None if limit == resource.RLIM_INFINITY else limit - used


def _opened(path: str) -> int | None:
    """Kept open: there may be no descriptor left when it is wanted."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
