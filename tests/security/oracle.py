"""A strict upstream: reads requests by the letter of RFC 9112, keeps each one, and notes whatever is not as it must be."""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass, field

_LINE = re.compile(rb"(POST|GET|HEAD|PUT|PATCH|DELETE) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"text":"pipe"}'


class NotStrictError(Exception):
    """The request is not one that every parser reads alike."""


@dataclass(slots=True)
class Seen:
    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.fields if known.lower() == name), None)

    @property
    def names(self) -> set[str]:
        return {name.decode().lower() for name, _ in self.fields}


@dataclass(slots=True)
class Oracle:
    """``answer``: what each request gets, whole."""

    answer: bytes = ANSWER
    seen: list[Seen] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _request(reader)) is not None:
                self.seen.append(request)
                writer.write(self.answer)
                await writer.drain()
        except NotStrictError as error:
            self.violations.append(str(error))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # Penstock may give a request up
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise NotStrictError(f"bytes that are no request: {cut.partial[:200]!r}") from None
        return None
    line, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not _LINE.fullmatch(line):
        raise NotStrictError(f"no request line: {line[:200]!r}")
    fields = []
    for one in rest:
        match = _FIELD.fullmatch(one)
        if match is None:
            raise NotStrictError(f"no header field: {one[:200]!r}")
        fields.append((match[1], match[2] or b""))
    return Seen(line, fields, await _body(reader, fields))


async def _body(reader: asyncio.StreamReader, fields: list[tuple[bytes, bytes]]) -> bytes:
    framing = [
        (name.lower(), value) for name, value in fields if name.lower() in (b"content-length", b"transfer-encoding")
    ]
    if not framing:
        return b""
    if len(framing) > 1:
        raise NotStrictError(f"framed twice: {framing!r}")
    name, value = framing[0]
    if name == b"content-length":
        if not value.isdigit():
            raise NotStrictError(f"no length: {value!r}")
        return await reader.readexactly(int(value))
    if value != b"chunked":
        raise NotStrictError(f"no coding: {value!r}")
    parts: list[bytes] = []
    while True:
        size = (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n")
        if not _SIZE.fullmatch(size):
            raise NotStrictError(f"no chunk size: {size!r}")
        data = await reader.readexactly(int(size, 16) + 2)
        if not data.endswith(b"\r\n"):
            raise NotStrictError("a chunk is longer than its size")
        if len(data) == 2:
            return b"".join(parts)
        parts.append(data[:-2])
