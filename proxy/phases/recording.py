"""An answer on its way to several clients: recorded as the relay writes it, read by each at its own pace.

The relay's side is the port `Outlet`, and never waits. A reader sees everything from the first byte, whenever it comes; it
waits with `changed`. States: not begun; begun (a head, and chunks that grow, or a whole body); over, well or not.
"""

import asyncio
from typing import Final

from proxy.core.failure import Failure
from proxy.ports import HeaderPairs

RECORDED_BYTES_MAX: Final = 16 * 1024 * 1024  # more than that is passed on, and not kept


class Recording:
    """``failure``: why there is no answer, or why it broke off. ``chunks`` are of a stream, ``whole`` is a body."""

    __slots__ = ("_waiting", "bytes", "chunks", "failure", "headers", "is_complete", "is_over", "status", "whole")

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.whole: bytes | None = None
        self.chunks: list[bytes] = []
        self.bytes = 0
        self.is_over = False
        self.is_complete = False
        self.failure: Failure | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # What the relay writes.

    @property
    def gone(self) -> bool:
        return False

    def outlive(self) -> None:
        """Nothing: a recording does not leave."""

    async def begin(self, status: int, headers: HeaderPairs) -> None:
        self.status, self.headers = status, list(headers)
        self._tell()

    async def write(self, data: bytes) -> None:
        self.chunks.append(data)
        self.bytes += len(data)
        self._tell()

    async def end(self) -> None:
        self._over(complete=True)

    def break_off(self) -> None:
        self._over(complete=False)

    def abort(self) -> None:
        self._over(complete=False)

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        self.status, self.headers, self.whole, self.bytes = status, list(headers), body, len(body)
        self._over(complete=True)

    def fail(self, failure: Failure) -> None:
        """There is no answer, or no more of it."""
        self.failure = failure
        self._over(complete=False)

    # What readers ask.

    @property
    def has_begun(self) -> bool:
        return self.status > 0

    async def changed(self) -> None:
        """Wait until there is more to see."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _over(self, *, complete: bool) -> None:
        if not self.is_over:
            self.is_over, self.is_complete = True, complete
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
