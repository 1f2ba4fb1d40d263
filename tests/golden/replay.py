"""An upstream of bytes: it answers each request with given bytes in given writes, and keeps what it was asked, raw.

It knows nothing of HTTP but where a request ends and the three ways in which an answer may tell where it ends itself.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

Headers = Sequence[tuple[str, str]]


class Framing(Enum):
    """How an answer tells where its body ends."""

    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer. Each of ``writes`` leaves on its own. ``cut``: the connection ends behind the last of them, the body
    does not, unless it is close-delimited and cannot tell.
    """

    writes: Sequence[bytes]
    status: int = 200
    headers: Headers = ()
    framing: Framing = Framing.CHUNKED
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode("ascii")

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


class Replay:
    """``answer`` is what every request gets from now on; ``received`` is what came."""

    def __init__(self) -> None:
        self.answer = Scripted([b"{}"])
        self.received: list[Received] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def origin(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> "Replay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        while self._connections:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own: socket.socket = writer.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        finally:
            self._connections.discard(writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may carry another request."""
        head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
        length = dict(Received(head, b"").headers)["content-length"]
        self.received.append(Received(head, await reader.readexactly(int(length))))
        answer = self.answer
        await _flush(writer, _head(answer))
        for data in answer.writes:
            if data:
                await _flush(writer, _framed(data, answer.framing))
        if answer.framing is Framing.CHUNKED and not answer.cut:
            await _flush(writer, b"0\r\n\r\n")
        return answer.framing is not Framing.CLOSE and not answer.cut


def _head(answer: Scripted) -> bytes:
    headers = list(answer.headers)
    match answer.framing:
        case Framing.CHUNKED:
            headers.append(("Transfer-Encoding", "chunked"))
        case Framing.LENGTH:
            headers.append(("Content-Length", str(sum(map(len, answer.writes)) + answer.cut)))
        case Framing.CLOSE:
            headers.append(("Connection", "close"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {answer.status} Replayed\r\n{lines}\r\n".encode("latin-1")


def _framed(data: bytes, framing: Framing) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if framing is Framing.CHUNKED else data


async def _flush(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Hand `data` to the socket and let the loop turn, so that it leaves alone."""
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)
