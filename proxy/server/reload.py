"""Hot reload: the routes file is read anew, and what it says is served whole or not at all.

Asked for by a signal, by an operator, or by the file: its time, size and inode are looked at once a second, because an
editor that replaces the file, a mounted ConfigMap and a network drive each keep silent to some notification or other. A
change is read when it has stood still for a moment. Reading is done in a thread, the swap in one step of the loop. A file
with a problem changes nothing, and neither does one that is gone; both are told in the log, in `/admin/config` and by
`ConfigState.reload_failed`. Held by `tests/server/test_reload.py`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from proxy.config.diff import changes
from proxy.config.problem import ConfigError
from proxy.core.routing import RoutingTable, Source
from proxy.ports import ConfigState, ExchangeLog
from proxy.server.cannot_serve import CannotServe

LOOK_S: Final = 1.0
STILL_S: Final = 0.2  # a change is over when nothing has changed for so long
STILL_MAX: Final = 25  # looks; a file that is written to all the time is read all the same
PROBLEMS_MAX: Final = 50  # that are kept and told
AFTER_BUG_S: Final = 1.0

Signature = tuple[int, int, int] | None


class Told(Protocol):
    """Told how a reload ended."""

    def __call__(self, *, ok: bool) -> None: ...


def _nobody(*, ok: bool) -> None:
    """Where nobody wants to know."""


class Reloader:
    """The port `Configuration`. Made in the loop that serves; `start` when it serves, `close` before it ends.

    ``read`` makes the table, in a thread, and raises `ConfigError`; ``swap`` serves it, in the loop, or raises
    `CannotServe` and leaves everything as it is. ``others`` tells the other workers, if there are any.
    """

    def __init__(
        self,
        path: Path,
        table: RoutingTable,
        source: Source,
        *,
        read: Callable[[], RoutingTable],
        swap: Callable[[RoutingTable], None],
        log: ExchangeLog,
        wall: Callable[[], float],
        look_s: float = LOOK_S,
        still_s: float = STILL_S,
    ) -> None:
        self.state = ConfigState(source.path, source.sha256, source.read_at)
        self._path = path
        self._table = table
        self._read = read
        self._swap = swap
        self._log = log
        self._wall = wall
        self._look_s = look_s
        self._still_s = still_s
        self._seen = _signature(path)
        self._one = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[ConfigState]] = set()
        self._closed = False
        self.others: Callable[[], None] = lambda: None
        self.told: Told = _nobody

    def start(self) -> None:
        """Follow the file."""
        if not self._closed:
            self._task = asyncio.create_task(self._watch())
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        self._closed = True
        tasks = [*self._asked, *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ask(self, why: str) -> None:
        """Reload soon, for whoever does not wait."""
        task = asyncio.create_task(self._reload(why))
        self._asked.add(task)
        task.add_done_callback(self._answered)

    async def reload(self, why: str) -> ConfigState:
        """As the port says; other workers, which look at the file themselves, are told not to wait for that."""
        self.others()
        return await self._reload(why)

    async def renew(self, make: Callable[[], RoutingTable]) -> None:
        """Serve another table of the same file, made in a thread, with no reload between. Raises `CannotServe`."""
        async with self._one:
            table = await asyncio.to_thread(make)
            self._swap(table)
            self._table = table

    async def _reload(self, why: str) -> ConfigState:
        async with self._one:
            self._seen = _signature(self._path)  # before it is read: what changes meanwhile is seen afterwards
            try:
                table, told = await asyncio.to_thread(self._read_and_compare)
                self._swap(table)
            except ConfigError as error:
                return self._failed(why, [str(problem) for problem in error.problems])
            except CannotServe as refused:
                return self._failed(why, [str(refused)])
            return self._served(why, table, told)

    def _read_and_compare(self) -> tuple[RoutingTable, tuple[str, ...]]:
        table = self._read()
        return table, changes(self._table, table)

    def _served(self, why: str, table: RoutingTable, told: tuple[str, ...]) -> ConfigState:
        self._table = table
        if table.source is not None:
            source = table.source
            self.state = ConfigState(source.path, source.sha256, source.read_at, self.state.reloads + 1, changes=told)
        self.told(ok=True)
        self._log.event("configuration: reloaded", why=why, sha256=self.state.sha256, changes=told)
        return self.state

    def _failed(self, why: str, problems: list[str]) -> ConfigState:
        more = len(problems) - PROBLEMS_MAX
        told = (*problems[:PROBLEMS_MAX], f"and {more} more") if more > 0 else tuple(problems)
        self.state = replace(self.state, failed_at=self._wall(), problems=told)
        self.told(ok=False)
        self._log.event("configuration: NOT reloaded, the last good one is served on", why=why, problems=told)
        return self.state

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            if _signature(self._path) == self._seen:
                continue
            await self._stands_still()
            await self._reload("the file changed")

    async def _stands_still(self) -> None:
        for _ in range(STILL_MAX):
            before = _signature(self._path)
            await asyncio.sleep(self._still_s)
            if _signature(self._path) == before:
                return

    def _answered(self, task: asyncio.Task[ConfigState]) -> None:
        self._asked.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("reload", error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It ends only when it is cancelled: otherwise that is a bug, and it begins again."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("reload", error)
            asyncio.get_running_loop().call_later(AFTER_BUG_S, self.start)


def _signature(path: Path) -> Signature:
    """What tells one state of the file from another; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
