"""Clients that hold streams open, in a process of their own: as many as a thousand to each event that is due a second.

Run as ``python -m tests.soak.clients PORT ADDRESS STREAMS MODEL EVENTS``: from ``ADDRESS`` of this machine, so that one
address has not to serve them all. Every second it writes a line of JSON, `Held`, the last one when all streams are over.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

import uvloop

from tests.bench.load import Client
from tests.bench.wire import chat_request

OPENING_MAX: Final = 100  # at once: a crowd that comes at its own pace, and is not what is measured
TOLD_S: Final = 1.0
ALL_S: Final = 1500.0


@dataclass(slots=True)
class Held:
    """``begun``: streams with a first event; ``open``: those that are not over; ``whole``: those that had all of it."""

    begun: int = 0
    open: int = 0
    whole: int = 0
    events: int = 0
    opened_s: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    over: bool = False


class Holder(Client):
    """One stream, which may take as long as it takes."""

    def __init__(self, request: bytes, events: int, on_first: Callable[[], None]) -> None:
        super().__init__(request, events)
        self.events = 0
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_first = on_first
        self._end = b""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._told_first()

    def data_received(self, data: bytes) -> None:
        body = self._decoder.feed(data)
        contents = body.count(b'"content":"') - body.count(b'"content":""')  # the first, which names the role, has none
        if contents and not self.events:
            self._on_first()
            self._told_first()
        self.events += contents
        self._end = (self._end + body)[-400:]
        if self._decoder.complete:
            self._finish(self._what_lacks())

    def _told_first(self) -> None:
        if not self.first.done():
            self.first.set_result(None)

    def _what_lacks(self) -> str | None:
        if self._decoder.status != 200:
            return f"status {self._decoder.status}: {self._end[:160]!r}"
        if not self._end.endswith(b"data: [DONE]\n\n"):
            return f"no end: {self._end[-160:]!r}"
        return None if self.events == self._events else f"{self.events} contents of {self._events}"


async def hold(port: int, address: str, streams: int, model: str, events: int) -> None:
    loop = asyncio.get_running_loop()
    request = chat_request(port, model, stream=True)
    held, failures = Held(), Counter[str]()
    room = asyncio.Semaphore(OPENING_MAX)
    began = time.monotonic()

    def on_first() -> None:
        held.begun += 1
        held.open += 1
        held.opened_s = time.monotonic() - began

    async def one() -> None:
        client = Holder(request, events, on_first)
        try:
            async with room:
                await loop.create_connection(lambda: client, "127.0.0.1", port, local_addr=(address, 0))
                await client.first
            await client.finished
            held.whole += 1
        except (OSError, ValueError) as error:
            failures[str(error) or type(error).__name__] += 1
        held.open -= client.events > 0
        held.events += client.events

    async def tell() -> None:
        while True:
            _told(held, failures)
            await asyncio.sleep(TOLD_S)

    telling = asyncio.create_task(tell())
    async with asyncio.timeout(ALL_S), asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(one())
    telling.cancel()
    held.over = True
    _told(held, failures)


def _told(held: Held, failures: Counter[str]) -> None:
    held.failures = dict(failures.most_common(5))
    print(json.dumps(asdict(held)), flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(hold(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
