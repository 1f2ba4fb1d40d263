"""The threads that a file's connections are used in: the loop waits for no disk, and for no other process's lock.

A connection that has failed is given up, and with it whatever was half done; the next call opens another one (`opened`).
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from proxy.ports import StoreUnusable
from proxy.stores.sqlite.opened import Opened

_Result = TypeVar("_Result")
_Connect = Callable[[], sqlite3.Connection]


class OneThread:
    """One connection, made when it is first needed. Concurrency: one work after the other, as they come."""

    def __init__(self, path: Path, name: str, connect: _Connect) -> None:
        self._opened = Opened(path, connect)  # the thread's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closed = False

    @property
    def is_connected(self) -> bool:
        return self._opened.is_open

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Raises `StoreAway`, `StoreUnusable`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._opened.run, work)

    async def close(self) -> None:
        """Waits for what is being done."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._opened.close)
        self._thread.shutdown(wait=False)


class TwoThreads:
    """One that writes and one that reads: a reader sees the last commit, and a long look delays nobody's writing.

    ``write`` None: for a command beside a running server; nothing is made or changed.
    """

    def __init__(self, path: Path, name: str, *, write: _Connect | None, read: _Connect) -> None:
        self._path = path
        self._writing = None if write is None else OneThread(path, f"{name}-write", write)
        self._reading = OneThread(path, f"{name}-read", read)

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Raises `StoreAway`, `StoreUnusable`."""
        if self._writing is None:
            raise StoreUnusable(f"{self._path} is open read-only.")
        return await self._writing.run(work)

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Raises `StoreAway`, `StoreUnusable`."""
        if self._writing is not None and not self._writing.is_connected:
            await self._writing.run(lambda _: None)  # it makes the file and its schema
        return await self._reading.run(work)

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._reading.close()
        if self._writing is not None:
            await self._writing.close()
