"""The wire between the supervisor and its workers: a Unix socket for each worker, a JSON object a line, both ways.

A worker says `ready`, `reload` (let the others follow), `snapshots` (what does everybody hold? with an ``id``) and
answers `snapshot`. It is told to `drain`, to `retire` (drain, while others go on), to `hurry`, to `reload`, to make a
`snapshot`, and is answered `snapshots`. A wire that ends means that the other process is gone.
"""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import orjson

from proxy.ports import ExchangeLog

LINE_BYTES_MAX: Final = 8 * 1024 * 1024
SNAPSHOT_S: Final = 1.0  # a worker that takes longer is left out
ASKED_S: Final = 2 * SNAPSHOT_S

Message = Mapping[str, Any]
Snapshot = Callable[[], Message]


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


class Link:
    """A worker's end.

    ``orders``: what to do when told so, by the word; `gone` when the supervisor is. ``snapshot``: what this process holds.
    """

    def __init__(self, descriptor: int, orders: Mapping[str, Callable[[], None]], log: ExchangeLog) -> None:
        self._descriptor = descriptor
        self._orders = orders
        self._log = log
        self.snapshot: Snapshot = lambda: {"pid": os.getpid()}
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[list[Message]]] = {}

    async def start(self) -> None:
        self._wire = await Wire.over(socket.socket(fileno=self._descriptor))
        self._task = asyncio.create_task(self._listen(self._wire))
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._wire is not None:
            self._wire.close()

    def say(self, word: str, **facts: Any) -> None:
        if self._wire is not None:
            self._wire.send({"say": word, **facts})

    async def snapshots(self) -> list[Message]:
        """What every worker holds, this one among them: `{"worker", "pid", "snapshot"}` of each that answers in time."""
        number = next(self._numbers)
        answer: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.say("snapshots", id=number)
        try:
            async with asyncio.timeout(ASKED_S):
                await answer
                return answer.result()
        except TimeoutError:
            return []
        finally:
            del self._asked[number]

    async def _listen(self, wire: Wire) -> None:
        async for message in wire.messages():
            match message:
                case {"do": "snapshot", "id": number}:
                    self.say("snapshot", id=number, snapshot=self.snapshot())
                case {"do": word} if word in self._orders:
                    self._orders[word]()
                case {"say": "snapshots", "id": number, "answers": answers}:
                    waiting = self._asked.get(number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(answers)
                case _:
                    self._log.event("the supervisor said what is not understood", said=str(message)[:200])
        self._orders["gone"]()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("control", error)
            self._orders["gone"]()
