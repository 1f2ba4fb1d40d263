"""HTTP itself, where it ends before there is a request: what is refused as no HTTP of ours gets an answer like any other.

aiohttp would answer in plain text that quotes what it refused, and log it with a traceback: a client's key among it.
It also has no bound for the time that a head takes, for all fields of a head together, and for what frames a chunked body.
All that is done where bytes come in, with comparisons: a request whose head came in one piece is never waited for.
"""

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import HttpVersion11, http_exceptions, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from proxy.core import error_body, request_head
from proxy.core.failure import Failure, FailureKind
from proxy.core.wrong_keys import peer_of
from proxy.edge.connections import Caps, Connections

Tell = Callable[[str], None]
TellBug = Callable[[str, BaseException], None]

# Of a chunked body: sizes, extensions, trailers. More than its content and this is no body but a load. Above what may lie
# unparsed while the body's reader is slow, which is one read of the socket (256 KiB).
FRAMING_BYTES_MAX: Final = 512 * 1024
_CHUNKS_END: Final = b"\r\n0\r\n\r\n"  # without trailers

_HEADERS: Final = {
    "server": "penstock",
    "x-should-retry": "false",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def silent_logger() -> logging.Logger:
    """For aiohttp: Penstock's own log tells what is to be told."""
    logger = logging.getLogger("penstock.aiohttp")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger


class _Refused(http_exceptions.HttpProcessingError):
    """What the parser took, and is refused all the same."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(code=failure.status, message=failure.message)
        self.failure = failure
        self.reason = reason


class _Handler(RequestHandler):
    """One connection. See `proxy.edge.connections.Guarded`.

    A connection is *in a head* from its begin, and from the first byte of a later head that did not come in one piece,
    until that head is whole.
    """

    __slots__ = (
        "_bug",
        "_chunked",
        "_connections",
        "_framed_bytes",
        "_head_bytes",
        "_head_is_ascii",
        "_in_head",
        "_tell",
        "_wire",
    )

    def __init__(self, manager: web.Server, connections: Connections, tell: Tell, bug: TellBug, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = connections
        self._tell = tell
        self._bug = bug
        self._wire: asyncio.Transport | None = None  # aiohttp forgets its own when it closes, before all is sent
        self._in_head = True
        self._head_bytes = 0
        self._head_is_ascii = True
        self._chunked: StreamReader | None = None  # the body that is coming
        self._framed_bytes = 0  # of it, with its frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)  # uvloop's are not of that class
        peer = wire.get_extra_info("peername")
        if not self._connections.enter(self, peer_of(peer[0]) if isinstance(peer, tuple) else ""):
            wire.write(_full())
            wire.close()
            if self._connections.is_news():
                self._tell("TooManyConnections")
            return
        self._wire = wire
        super().connection_made(transport)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._ended)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.leave(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._heads_came(self._request_count - before, data)
        elif self._chunked is not None:
            self._body_came(self._chunked, data)
        elif data and (self._in_head or (self._waiter is not None and not self._messages)):
            self._part_of_head_came(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.unread(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.read(self)

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp asks with every piece of a body, and each time parses nothing
            super().resume_reading(resume_parser)

    def head_is_late(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self._head_bytes:
            self._refuse(Failure(FailureKind.REQUEST_TIMEOUT, "The request's head took too long."), "HeadTimeout")
        else:
            self.force_close()

    def unsent_bytes(self) -> int:
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _ended(self, task: asyncio.Task[None]) -> None:  # noqa: ARG002 - a callback's signature
        # Closed, and what was written may still wait for a client that will never read it.
        if self.unsent_bytes():
            self._connections.unread(self)

    def _heads_came(self, count: int, data: bytes) -> None:
        """The last `count` messages are new: refuse those that must not become requests."""
        head_bytes_max = self._head_bytes + len(data)
        is_ascii = self._head_is_ascii and data.isascii()
        if self._in_head:
            self._in_head = False
            self._head_bytes = 0
            self._head_is_ascii = True
            self._connections.head_ends(self)
        is_short = head_bytes_max <= request_head.HEAD_BYTES_MAX
        for index in range(-count, 0):
            message, payload = self._messages[index]
            if isinstance(message, _ErrInfo):
                self._break_body("the chunks are not valid")
                continue
            if is_ascii and is_short and _is_plain(message):
                self._chunked = None
                continue
            failure = _refusal(message, is_ascii=is_ascii)
            if failure is None and not is_short and request_head.is_too_long(message.raw_headers):
                failure = request_head.too_long()
            if failure is not None:
                self._messages[index] = _error_message(failure, "RefusedHead"), payload
            elif message.upgrade or (message.chunked and payload.is_eof() and not data.endswith(_CHUNKS_END)):
                # No other protocol is spoken here, and what stands behind the request may be in that other one.
                # And aiohttp 3.14.5 takes a body's last trailer for the first header field of the next request.
                self._messages[index] = message._replace(should_close=True, upgrade=False), payload
            self._chunked = payload if message.chunked and not payload.is_eof() else None
            self._framed_bytes = 0

    def _part_of_head_came(self, data: bytes) -> None:
        if not self._in_head:
            self._in_head = True
            self._connections.head_begins(self)
        self._head_bytes += len(data)
        self._head_is_ascii = self._head_is_ascii and data.isascii()
        if self._head_bytes > request_head.HEAD_BYTES_MAX + self.max_line_size:
            self._refuse(request_head.too_long(), "LongHead")

    def _body_came(self, body: StreamReader, data: bytes) -> None:
        if body.is_eof():
            self._chunked = None
            if not data.endswith(_CHUNKS_END):
                self.close()  # there may have been trailers, as above
            return
        self._framed_bytes += len(data)
        if self._framed_bytes - body.total_bytes > FRAMING_BYTES_MAX + body.total_bytes:
            self._break_body("it has more framing than content")
            self.close()

    def _break_body(self, why: str) -> None:
        if self._chunked is not None:
            self._chunked.set_exception(RequestPayloadError(why))
            self._chunked = None

    def _refuse(self, failure: Failure, reason: str) -> None:
        """Answer what has not become a request, and close."""
        self._in_head = False
        self._connections.head_ends(self)
        self._messages.append((_error_message(failure, reason), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close_soon(self, idle_s: float) -> None:
        """Close the connection: now where it has asked nothing for so long, or after the answer that is being made."""
        if self._waiter is None or self._waiter.done():
            self.close()
        elif self._loop.time() - (self._next_keepalive_close_time - self._keepalive_timeout) >= idle_s:
            self.force_close()  # close() would end its task and leave the socket open, with nobody to read it

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """The answer to what is no request, and to a request on which a handler failed. Quotes nothing of it."""
        request_id = f"req_{secrets.token_hex(12)}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc is not None:
            self._bug(request_id, exc)
        else:
            self._tell(exc.reason if isinstance(exc, _Refused) else type(exc).__name__)
        failure = _failure(status, exc, request_id)
        body = error_body.body(failure, failure.status, None, (), request_id)
        headers = {**_HEADERS, "x-request-id": request_id}
        response = web.Response(status=failure.status, body=body, content_type="application/json", headers=headers)
        response.force_close()
        return response


def _failure(status: int, exc: BaseException | None, request_id: str) -> Failure:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message = f"Penstock failed on this request; the log has more under the id {request_id}."
        return Failure(FailureKind.INTERNAL, message)
    if isinstance(exc, _Refused):
        return exc.failure
    if isinstance(exc, http_exceptions.LineTooLong):
        return Failure(FailureKind.BAD_REQUEST, "The request line or a header field is too long.")
    return Failure(FailureKind.BAD_REQUEST, "The request is not valid HTTP/1.1.")


def _is_plain(message: RawRequestMessage) -> bool:
    """Whether there is nothing about its first line and its framing to look at more closely: nearly always."""
    return not message.chunked and not message.upgrade and message.version == HttpVersion11 and message.path[0] == "/"


def _refusal(message: RawRequestMessage, *, is_ascii: bool) -> Failure | None:
    # What is not chunked, and has a transfer-encoding all the same, is refused by the parser.
    transfer_encoding = message.headers.get("Transfer-Encoding") if message.chunked else None
    failure = request_head.refusal(message.method, message.path, message.version, transfer_encoding)
    return request_head.not_text(message.raw_headers) if failure is None and not is_ascii else failure


def _error_message(failure: Failure, reason: str) -> _ErrInfo:
    return _ErrInfo(status=failure.status, exc=_Refused(failure, reason), message=failure.message)


def _full() -> bytes:
    """The answer to a connection that there is no room for."""
    failure = Failure(FailureKind.OVERLOADED_HERE, "Too many connections are open here; try again in a moment.")
    body = error_body.body(failure, failure.status, None, (), f"req_{secrets.token_hex(12)}")
    fields = {**_HEADERS, "x-should-retry": "true", "retry-after": "1", "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 503 Service Unavailable\r\n{lines}content-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class HttpServer(web.Server):
    """aiohttp's low-level server with that handler.

    ``tell`` is given the kind of each refusal, ``bug`` the id and the exception of each request that a handler failed on.
    ``connections`` None: as many as come. ``on_lost`` is called when a connection is gone.
    """

    def __init__(
        self, handle: Any, tell: Tell, bug: TellBug, *, connections: Connections | None = None, **options: Any
    ) -> None:
        super().__init__(handle, logger=silent_logger(), **options)
        self._guard = Connections(Caps(sys.maxsize, sys.maxsize)) if connections is None else connections
        self._tell = tell
        self._bug = bug
        self.on_lost: Callable[[], None] = lambda: None

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.on_lost()

    def close_soon(self, idle_s: float) -> None:
        """Close every connection that is answered, after that, and those that have asked nothing for so long."""
        for handler in self.connections:
            if isinstance(handler, _Handler):
                handler.close_soon(idle_s)

    def __call__(self) -> RequestHandler:
        return _Handler(self, self._guard, self._tell, self._bug, loop=self._loop, **self._kwargs)
