"""A TCP proxy between a client and a server, for what a network does: it delays, hangs, breaks, speaks TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Between:
    """``delay_s`` is asked before each piece of a reply is passed on; it gets the number of the piece in its connection."""

    port: int = 0
    connections: int = 0
    delay_s: Callable[[int], float] = lambda _: 0.0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Every connection that there is, on both sides, in the middle of whatever it says."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _passed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: Callable[[int], float]
    ) -> None:
        number = 0
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(delay_s(number))
                number += 1
                if writer.is_closing():
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # one side is gone, and so the other is told
        finally:
            self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()

    async def end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in tuple(self._writers):
            self._close(writer)

    def _delay_now(self, number: int) -> float:
        """As it is set now, on connections too that were opened before."""
        return self.delay_s(number)

    async def _connected(self, place: str | int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if isinstance(place, str):
                far_reader, far_writer = await asyncio.open_unix_connection(place)
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", place)
        except OSError:
            self._close(writer)
            return
        self._writers.add(far_writer)
        for passing in (
            self._passed(reader, far_writer, lambda _: 0.0),
            self._passed(far_reader, writer, self._delay_now),
        ):
            task = asyncio.create_task(passing)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def between(place: str | int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Between]:
    """A loopback port that leads to the Unix socket at `place`, or to that port."""
    made = Between()
    server = await asyncio.start_server(
        lambda reader, writer: made._connected(place, reader, writer), "127.0.0.1", 0, ssl=tls
    )
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.end()
