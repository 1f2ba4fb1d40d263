"""The wire between the supervisor and its workers: a Unix socket for each worker, a JSON object a line, both ways.

A worker says `ready`, `reload` (let the others follow), `counted` (what have all counted? with an ``id``), and `count`: what
it has counted itself, when it is asked and once more before it ends. It is told to `drain`, to `retire` (drain, while
others go on), to `hurry`, to `reload`, to `count`, and is answered `counted`. A wire that ends means that the other process
is gone.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from proxy.ports import ExchangeLog
from proxy.telemetry.metrics import Snapshot, from_bytes, to_bytes

LINE_BYTES_MAX: Final = 64 * 1024 * 1024  # the largest configuration's metrics
COUNT_S: Final = 1.0  # of a worker that takes longer is told what it said last
COUNTED_S: Final = 2 * COUNT_S

Message = Mapping[str, Any]


class Wire:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Wire":
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LINE_BYTES_MAX))

    def send(self, message: Message) -> None:
        """Never waits. What cannot be delivered is lost: the other end is gone, and its end is told by `messages`."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What comes, until the other end is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return
            if not line.endswith(b"\n"):
                return
            message = orjson.loads(line)
            if isinstance(message, dict):
                yield message

    def close(self) -> None:
        self._writer.close()

    async def finish(self) -> None:
        """Close when what was sent is on its way, or nobody takes it."""
        self._writer.close()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(COUNT_S):
                await self._writer.wait_closed()


class Link:
    """A worker's end.

    ``orders``: what to do when told so, by the word; `gone` when the supervisor is. ``count``: what this process has
    counted.
    """

    def __init__(self, descriptor: int, orders: Mapping[str, Callable[[], None]], log: ExchangeLog) -> None:
        self._descriptor = descriptor
        self._orders = orders
        self._log = log
        self.count: Callable[[], Awaitable[Snapshot]] | None = None
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Snapshot]] = {}
        self._counting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._wire = await Wire.over(socket.socket(fileno=self._descriptor))
        self._task = asyncio.create_task(self._listen(self._wire))
        self._task.add_done_callback(self._ended)

    async def close(self, counted: Snapshot) -> None:
        """``counted``: the last word of it."""
        self.say("count", id=0, counted=to_bytes(counted).decode())
        for task in (self._task, *self._counting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._wire is not None:
            await self._wire.finish()

    def say(self, word: str, **facts: Any) -> None:
        if self._wire is not None:
            self._wire.send({"say": word, **facts})

    async def counted(self) -> Snapshot | None:
        """What all workers have counted, those that are gone too; None where the supervisor does not answer in time."""
        number = next(self._numbers)
        answer: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.say("counted", id=number)
        try:
            async with asyncio.timeout(COUNTED_S):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    async def _listen(self, wire: Wire) -> None:
        async for message in wire.messages():
            match message:
                case {"do": "count", "id": number} if self.count is not None:
                    task = asyncio.create_task(self._tell(number, self.count))
                    self._counting.add(task)
                    task.add_done_callback(self._counting.discard)
                case {"do": word} if word in self._orders:
                    self._orders[word]()
                case {"say": "counted", "id": number, "counted": counted}:
                    waiting = self._asked.get(number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(from_bytes(counted.encode()))
                case _:
                    self._log.event("the supervisor said what is not understood", said=str(message)[:200])
        self._orders["gone"]()

    async def _tell(self, number: int, count: Callable[[], Awaitable[Snapshot]]) -> None:
        self.say("count", id=number, counted=to_bytes(await count()).decode())

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("control", error)
            self._orders["gone"]()
