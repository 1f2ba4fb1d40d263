"""An answer on its way to several clients: recorded as the relay writes it, read by each at its own pace.

The relay's side is the port `Outlet`. A reader sees everything from the first byte, whenever it comes; it waits with
`changed`. States: not begun; begun (a head, and chunks that grow, or a whole body); over, well or not.

The relay waits for nobody, up to a bound. Beyond it the answer cannot be kept and nobody joins: what every reader has had
is forgotten, and the relay goes no faster than the slowest of them, so that a recording never holds more than that.
"""

import asyncio
from typing import Final

from proxy.core.failure import Failure
from proxy.ports import HeaderPairs

RECORDED_BYTES_MAX: Final = 16 * 1024 * 1024  # more than that is passed on, and not kept


class Reading:
    """One reader's place in a stream. ``place`` counts chunks."""

    __slots__ = ("_recording", "place")

    def __init__(self, recording: "Recording") -> None:
        self._recording = recording
        self.place = 0

    def next(self) -> bytes | None:
        """The next chunk; None where no more has come yet."""
        recording = self._recording
        at = self.place - recording.forgotten
        if at >= len(recording.chunks):
            return None
        self.place += 1
        recording.has_been_read()
        return recording.chunks[at]

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left to read now."""
        return self.place - self._recording.forgotten >= len(self._recording.chunks)

    def close(self) -> None:
        self._recording.leave(self)


class Recording:
    """``failure``: why there is no answer, or why it broke off. ``chunks`` are of a stream, ``whole`` is a body.

    ``forgotten``: how many chunks stood before those that are left.
    """

    __slots__ = (
        "_held_bytes",
        "_progress",
        "_readings",
        "_waiting",
        "bytes",
        "chunks",
        "failure",
        "forgotten",
        "headers",
        "is_complete",
        "is_over",
        "status",
        "whole",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.whole: bytes | None = None
        self.chunks: list[bytes] = []
        self.forgotten = 0
        self.bytes = 0
        self.is_over = False
        self.is_complete = False
        self.failure: Failure | None = None
        self._held_bytes = 0
        self._readings: set[Reading] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._progress: asyncio.Future[None] | None = None  # what a relay beyond the bound waits for

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
        self._held_bytes += len(data)
        self._tell()
        while self.is_large and self._forget() > RECORDED_BYTES_MAX:
            self._progress = asyncio.get_running_loop().create_future()
            await self._progress

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

    @property
    def is_large(self) -> bool:
        """Whether it is beyond the bound: not kept, and read by nobody from its beginning any more."""
        return self.bytes > RECORDED_BYTES_MAX

    def read(self) -> Reading:
        """A place at its beginning, to be closed."""
        reading = Reading(self)
        self._readings.add(reading)
        return reading

    def leave(self, reading: Reading) -> None:
        self._readings.discard(reading)
        self.has_been_read()

    def has_been_read(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    async def changed(self) -> None:
        """Wait until there is more to see."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _forget(self) -> int:
        """Drop what every reader has had; how many bytes are left."""
        end = self.forgotten + len(self.chunks)
        had = min((reading.place for reading in self._readings), default=end) - self.forgotten
        if had > 0:
            self._held_bytes -= sum(map(len, self.chunks[:had]))
            del self.chunks[:had]
            self.forgotten += had
        return self._held_bytes

    def _over(self, *, complete: bool) -> None:
        if not self.is_over:
            self.is_over, self.is_complete = True, complete
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
