"""A dumb TCP balancer: it takes connections in turn to its backends, and copies bytes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.gateway import get


@dataclass(slots=True)
class Backend:
    """``is_up``: whether new connections go there. Those that it has stay either way."""

    port: int
    is_up: bool = True


@dataclass(slots=True)
class Balancer:
    """``taken``: connections by backend's port. ``refused``: those that a backend which was up did not take.

    Such a one goes to the next backend, as with HAProxy's `redispatch`; where none is up it is closed at once.
    """

    backends: Sequence[Backend]
    port: int = 0
    taken: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    _turn: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._begun, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """Every connection that there is."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def check(self, every_s: float) -> None:
        """Until cancelled: whoever is not ready gets no new connection."""
        while True:
            await asyncio.gather(*(_look(backend) for backend in self.backends))
            await asyncio.sleep(every_s)

    def _begun(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            far = await self._connected()
            if far is not None:
                self._writers.add(far[1])
                try:
                    await asyncio.gather(_copied(reader, far[1]), _copied(far[0], writer))
                finally:
                    self._writers.discard(far[1])
                    far[1].close()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        first = self._turn % len(self.backends)
        for backend in (*self.backends[first:], *self.backends[:first]):
            if not backend.is_up:
                continue
            try:
                far = await asyncio.open_connection("127.0.0.1", backend.port)
            except OSError:
                self.refused += 1
                continue
            self.taken[backend.port] += 1
            return far
        return None


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, and the end: a reset as a reset."""
    try:
        while (data := await reader.read(1 << 16)) and not writer.is_closing():
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _look(backend: Backend) -> None:
    port = backend.port
    try:
        is_ready = (await get(port, "/health/ready")).status == 200
    except OSError:
        is_ready = False
    if backend.port == port:  # else somebody else has taken its place meanwhile
        backend.is_up = is_ready
