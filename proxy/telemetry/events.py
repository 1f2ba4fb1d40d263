"""Events on their way: to those who listen here, and to other processes by a bus.

Nobody who emits ever waits. A listener has a queue; one that is full means that its reader is too slow, and it is dropped,
told so at its end. What waits for a bus that is away is kept up to `WAITING_MAX`, the oldest is dropped first: an event is
news, the books and the log are what keeps.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.core.event import EventKind, Fact, Happening, heard, to_bytes
from proxy.ports import EventBus, ExchangeLog, StoreAway

LISTENERS_MAX: Final = 32
QUEUE_MAX: Final = 256
WAITING_MAX: Final = 256
RETRY_S: Final = 1.0


class Listener:
    """One reader's queue."""

    def __init__(self, gone: "Callable[[Listener], None]") -> None:
        self.dropped = False
        self._gone = gone
        self._waiting: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._ended = False

    async def next(self, within_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(within_s):
                await self._filled.wait()
        except TimeoutError:
            return b""
        if self._waiting:
            event = self._waiting.popleft()
            if not self._waiting and not self._ended:
                self._filled.clear()
            return event
        return None

    def close(self) -> None:
        self.end()
        self._gone(self)

    def give(self, event: bytes) -> None:
        if len(self._waiting) < QUEUE_MAX:
            self._waiting.append(event)
            self._filled.set()
        else:
            self.dropped = True
            self.close()

    def end(self) -> None:
        """What waits is still given."""
        self._ended = True
        self._filled.set()


class Events:
    """An `EventFeed`. Made anywhere, used in one event loop. ``instance`` is this process's own name among others."""

    def __init__(self, log: ExchangeLog, wall: Callable[[], float], instance: str, *, retry_s: float = RETRY_S) -> None:
        self._log = log
        self._wall = wall
        self._instance = instance
        self._retry_s = retry_s
        self._listeners: set[Listener] = set()
        self._bus: EventBus | None = None
        self._waiting: deque[bytes] = deque(maxlen=WAITING_MAX)
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False

    def start(self, bus: EventBus | None) -> None:
        """``bus`` None: there are no other processes."""
        self._bus = bus
        if bus is not None:
            self._tasks = [asyncio.create_task(self._send(bus)), asyncio.create_task(bus.listen(self._heard))]
            for task in self._tasks:
                task.add_done_callback(self._stopped)

    def end(self) -> None:
        """Tell who listens that there will be no more. Events still go to the bus."""
        self._ended = True
        for listener in self._listeners:
            listener.end()

    async def close(self) -> None:
        self.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The ports.

    def emit(self, kind: EventKind, **facts: Fact) -> None:
        event = to_bytes(Happening(kind, self._wall(), self._instance, facts))
        self._give(event)
        if self._bus is not None:
            self._waiting.append(event)
            self._due.set()

    def listen(self) -> Listener | None:
        if self._ended or len(self._listeners) >= LISTENERS_MAX:
            return None
        listener = Listener(self._listeners.discard)
        self._listeners.add(listener)
        return listener

    def _give(self, event: bytes) -> None:
        for listener in tuple(self._listeners):
            listener.give(event)

    def _heard(self, data: bytes | None) -> None:
        found = None if data is None else heard(data)
        if found is not None and found[0] != self._instance:
            self._give(found[1])

    async def _send(self, bus: EventBus) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                event = self._waiting.popleft()
                try:
                    await bus.publish(event)
                except StoreAway:
                    if len(self._waiting) < WAITING_MAX:
                        self._waiting.appendleft(event)
                    await asyncio.sleep(self._retry_s)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """They end only when they are cancelled: otherwise that is a bug."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("events", error)
