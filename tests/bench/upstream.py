"""The provider behind every gateway: a raw protocol that costs as little as it can.

``model`` says what comes back, whatever stands before its last ``/``; any other name answers as ``json`` does:

- ``json``: a chat completion of about 700 bytes, with usage;
- ``events:N``: role, N contents, finish, usage if ``include_usage`` was asked for, ``[DONE]``; each in a write and a
  turn of the loop of its own, so that they tend to arrive as separate reads;
- ``paced:N:MS``: the same, but a content every MS milliseconds, the first at once. A content is ``t`` and the time of
  its writing in nanoseconds of CLOCK_MONOTONIC, which the client can compare with its own.

Run as ``python -m tests.bench.upstream PORT``. It takes requests with a content-length
only, one at a time a connection.
"""

import asyncio
import json
import re
import sys
import time
from typing import Final, cast

import uvloop

from .wire import CONTENT_LENGTH

ASKED: Final = re.compile(rb'"model"\s*:\s*"(?:[^"/]*/)*(json|events|paced)(?::(\d+))?(?::(\d+))?"')
BACKLOG: Final = 2048  # more than the streams that the harness opens at once

CONTENT: Final = (
    "A penstock is the sluice or pipe that carries water from a reservoir to the wheel or turbine it drives, with a "
    "gate that sets how much of it passes. A mill needs one because the river does not keep the miller's hours: the "
    "gate holds the head of water back while nothing is ground, and lets down as much as the "
    "stones can use while something is."
)
IDENTITY: Final = {"id": "chatcmpl-5f0c6e0b9a7d4f3c8e21", "created": 1767225600, "model": "penstock-demo"}
USAGE: Final = {"prompt_tokens": 74, "completion_tokens": 100, "total_tokens": 174}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json_answer(value: object) -> bytes:
    body = _compact(value)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: " + _compact(IDENTITY | {"object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


MESSAGE: Final = {"role": "assistant", "content": CONTENT, "refusal": None}
CHOICE: Final = {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}
COMPLETION: Final = _json_answer(IDENTITY | {"object": "chat.completion", "choices": [CHOICE], "usage": USAGE})
MODELS: Final = _json_answer({"object": "list", "data": [{"id": "penstock-demo", "object": "model"}]})
LENGTH_REQUIRED: Final = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE_EVENT: Final = _framed(_chunk({"role": "assistant", "content": ""}, None))
CONTENT_EVENT: Final = _framed(_chunk({"content": " word"}, None))
FINISH_EVENT: Final = _framed(_chunk({}, "stop"))
USAGE_EVENT: Final = _framed(
    b"data: " + _compact(IDENTITY | {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}) + b"\n\n"
)
DONE_EVENT: Final = _framed(b"data: [DONE]\n\n")
STREAM_END: Final = b"0\r\n\r\n"
STAMPED_BEFORE, STAMPED_AFTER = _chunk({"content": "\0"}, None).split(b"\\u0000")


def _stamped_event() -> bytes:
    return _framed(b"%st%d%s" % (STAMPED_BEFORE, time.monotonic_ns(), STAMPED_AFTER))


class Upstream(asyncio.Protocol):
    """One connection; a stream in progress stops with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it; TCP_NODELAY is set

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._pending = self._pending + data if self._pending else data
        head_end = self._pending.find(b"\r\n\r\n")
        if head_end < 0 or self._transport is None:
            return
        if self._pending.startswith(b"GET "):
            self._pending = self._pending[head_end + 4 :]
            self._transport.write(MODELS)
            return
        length = CONTENT_LENGTH.search(self._pending, 0, head_end)
        if length is None:
            self._transport.write(LENGTH_REQUIRED)
            self._transport.close()
            return
        body_end = head_end + 4 + int(length[1])
        if len(self._pending) >= body_end:
            body, self._pending = self._pending[head_end + 4 : body_end], self._pending[body_end:]
            self._answer(body, self._transport)

    def _answer(self, body: bytes, transport: asyncio.Transport) -> None:
        asked = ASKED.search(body)
        if asked is None or asked[1] == b"json":
            transport.write(COMPLETION)
            return
        count = int(asked[2] or 100)
        ending = [FINISH_EVENT, *([USAGE_EVENT] if b'"include_usage":' in body else []), DONE_EVENT, STREAM_END]
        if asked[1] == b"events":
            writes = [STREAM_HEAD, ROLE_EVENT, *[CONTENT_EVENT] * count, *ending]
            writes.reverse()
            self._write_next(writes)
            return
        transport.write(STREAM_HEAD + ROLE_EVENT)
        self._write_paced(count, int(asked[3] or 40) / 1000, self._loop.time(), ending)

    def _write_next(self, reversed_writes: list[bytes]) -> None:
        if self._transport is None:
            return
        self._transport.write(reversed_writes.pop())
        if reversed_writes:
            self._loop.call_soon(self._write_next, reversed_writes)

    def _write_paced(self, remaining: int, interval_s: float, due: float, ending: list[bytes]) -> None:
        """``due`` is when this event should go out, so that a late one does not delay those after it."""
        if self._transport is None:
            return
        self._transport.write(_stamped_event())
        if remaining > 1:
            due += interval_s
            self._loop.call_at(due, self._write_paced, remaining - 1, interval_s, due, ending)
        else:
            self._write_next(ending[::-1])


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
