"""An upstream that the simulator is not: error bodies of other forms, and answers cut at any byte.

It runs in a thread of its own, because the SDK that provokes it blocks. The model's name chooses the answer.
"""

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final

_READ_BYTES_MAX: Final = 1 << 20
_LINGER_NONE: Final = struct.pack("ii", 1, 0)  # close() sends RST
START_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Form:
    """One error body. ``says`` is what a person must find in the SDK's message."""

    status: int
    content_type: str
    body: str
    says: str


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "mistral": Form(
            422,
            "application/json",
            '{"object":"error","message":"Too many stop words.","type":"invalid_request_error","param":null,"code":"1"}',
            "Too many stop words.",
        ),
        "fastapi": Form(
            422,
            "application/json",
            '{"detail":[{"loc":["body","top_k"],"msg":"Input should be positive","type":"greater_than"}]}',
            "Input should be positive",
        ),
        "gemini": Form(
            400,
            "application/json",
            '[{"error":{"code":400,"message":"Unknown name topk.","status":"INVALID_ARGUMENT"}}]',
            "Unknown name topk.",
        ),
        "text": Form(400, "application/json", '{"error":"the prompt is empty"}', "the prompt is empty"),
        "html": Form(
            502,
            "text/html",
            "<html><head><title>502 Bad Gateway</title></head><body><h1>nginx is sad</h1></body></html>",
            "nginx is sad",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Cut:
    """A body, how much of it is sent, in which pieces, and what happens then.

    ``framing``: `chunked`, or `close` (the connection's end is the body's). ``end``: `clean` (by its framing), `fin`,
    `rst`.
    """

    sent: bytes
    pieces: tuple[int, ...]  # where `sent` is cut into writes
    framing: str
    end: str


class RawUpstream:
    """A context manager. ``asked`` counts the requests by model; `cuts` finds the plan of a model named `cut-...`."""

    def __init__(self, cuts: Callable[[str], Cut] | None = None) -> None:
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._cuts = cuts
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raw-upstream", daemon=True)

    def __enter__(self) -> "RawUpstream":
        self._thread.start()
        assert self._ready.wait(START_S), "the raw upstream did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the raw upstream did not stop"
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        running: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._connection(reader, writer))
            running.add(task)
            task.add_done_callback(running.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._request(reader, writer):
                    continue
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection may be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
        assert length <= _READ_BYTES_MAX
        model = json.loads(await reader.readexactly(length))["model"]
        self.asked[model] += 1
        if model in FORMS:
            return await _send_form(writer, FORMS[model])
        if model.startswith("status:"):
            status = int(model.partition(":")[2])
            body = json.dumps({"error": {"message": f"This is a {status}.", "type": "server_error", "code": None}})
            return await _send_form(writer, Form(status, "application/json", body, ""))
        if model == "garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
            await writer.drain()
            return False
        if model == "silent":
            await self._stop.wait()
            return False
        assert self._cuts is not None, f"nobody planned {model!r}"
        return await _send_cut(writer, self._cuts(model))


async def _send_form(writer: asyncio.StreamWriter, form: Form) -> bool:
    body = form.body.encode()
    head = (
        f"HTTP/1.1 {form.status} Scripted\r\ncontent-type: {form.content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return True


async def _send_cut(writer: asyncio.StreamWriter, cut: Cut) -> bool:
    chunked = cut.framing == "chunked"
    framing = "transfer-encoding: chunked" if chunked else "connection: close"
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n".encode())
    start = 0
    for stop in (*cut.pieces, len(cut.sent)):
        if piece := cut.sent[start:stop]:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        start = stop
    if cut.end == "clean":
        if chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return chunked
    if cut.end == "rst":
        own: socket.socket = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        writer.transport.abort()
    return False
