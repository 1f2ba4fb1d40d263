"""An upstream that keeps every byte of each request's body, and answers as it is told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"text":"pipe"}'


@dataclass(slots=True)
class Received:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Recorder:
    """``answers`` gives the whole answer to each request, by its number; ``early``: without reading its body."""

    answers: Callable[[int], bytes] = lambda _: OK
    early: bool = False
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)  # the first bytes of a body did
    _server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        request = Received(line, headers)
        self.received.append(request)
        answer = self.answers(len(self.received))
        if self.early:
            writer.write(answer)
            await writer.drain()
            return False
        if "content-length" in headers:
            await self._take(reader, request, int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                await self._take(reader, request, size)
                await reader.readline()
            await reader.readline()
        writer.write(answer)
        return True

    async def _take(self, reader: asyncio.StreamReader, request: Received, size: int) -> None:
        end = len(request.body) + size
        while len(request.body) < end:
            part = await reader.read(min(65536, end - len(request.body)))
            if not part:
                raise ConnectionError("the body was cut")
            request.body += part
            self.arrived.set()


def answer(status: int, body: bytes, *headers: str) -> bytes:
    """A whole answer with a content-length."""
    fields = "".join(f"{field}\r\n" for field in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode() + body
