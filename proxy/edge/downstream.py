"""The downstream port on aiohttp's server."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from proxy.core.failure import FailureKind
from proxy.core.inflate import CodingError, Inflater, is_known
from proxy.ports import BodyRefused, ClientGone, HeaderPairs

BODY_PROGRESS_S: Final = 30.0  # a body that makes no progress for so long is given up


class _Response(web.StreamResponse):
    """Its head goes out with the first bytes of the body: one system call less, and one packet."""

    _send_headers_immediately = False


class AiohttpDownstream:
    """One exchange's client. See `proxy.ports.Downstream`."""

    __slots__ = ("_request", "headers", "response")

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.headers: Mapping[str, str] = request.headers
        self.response: web.StreamResponse | None = None

    async def body(self, bytes_max: int) -> bytes:
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity") and not is_known(coding):
            raise BodyRefused(
                FailureKind.UNSUPPORTED_ENCODING,
                f"The content-encoding {coding[:40]!r} is not supported; send gzip, deflate or the plain body.",
            )
        self._check_length(bytes_max)
        self._let_it_come()
        raw = await self._read(bytes_max)
        return _inflated(raw, coding, bytes_max) if is_known(coding) else raw

    def _check_length(self, bytes_max: int) -> None:
        length = self._request.content_length
        if length is not None and length > bytes_max:
            raise _too_large(bytes_max)

    def _let_it_come(self) -> None:
        """Answer `Expect: 100-continue`, now that the head is accepted; aiohttp's low-level server leaves that to us."""
        if self.headers.get("expect", "").lower() == "100-continue" and self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _read(self, bytes_max: int) -> bytes:
        content = self._request.content
        if content.is_eof() and content.exception() is None:  # mostly the body came with the head
            raw = content.read_nowait()
            if len(raw) > bytes_max:
                raise _too_large(bytes_max)
            return raw
        parts: list[bytes] = []
        total = 0
        while not content.at_eof():
            chunk = await self._read_in_time()
            parts.append(chunk)
            total += len(chunk)
            if total > bytes_max:
                raise _too_large(bytes_max)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_in_time(self) -> bytes:
        try:
            async with asyncio.timeout(BODY_PROGRESS_S):
                return await self._request.content.readany()
        except TimeoutError:
            raise BodyRefused(
                FailureKind.REQUEST_TIMEOUT, f"The request body made no progress for {BODY_PROGRESS_S:.0f} s."
            ) from None
        except (web.HTTPException, web.RequestPayloadError) as error:
            raise BodyRefused(FailureKind.BAD_REQUEST, f"The request body is broken: {error}.") from None
        except ConnectionError as error:
            raise ClientGone from error

    async def begin(self, status: int, headers: HeaderPairs) -> None:
        response = _Response(status=status, headers=CIMultiDict(headers))
        self.response = response
        try:
            await response.prepare(self._request)
        except ConnectionError as error:
            raise ClientGone from error

    async def write(self, data: bytes) -> None:
        assert self.response is not None  # noqa: S101 - begun
        try:
            await self.response.write(data)
        except ConnectionError as error:
            raise ClientGone from error

    async def end(self) -> None:
        assert self.response is not None  # noqa: S101 - begun
        try:
            await self.response.write_eof()
        except ConnectionError as error:
            raise ClientGone from error

    def break_off(self) -> None:
        # close() delivers what was written and leaves the last chunk out; abort() would lose the error event.
        if self._request.transport is not None:
            self._request.transport.close()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        # A Response would work out anew what is known here: its length, and that its type is told.
        response = _Response(status=status, headers=CIMultiDict(headers))
        response.content_length = len(body)
        self.response = response
        if not self._request.content.is_eof():
            response.force_close()  # an unread body must never be taken for the next request
        try:
            await response.prepare(self._request)
            await response.write_eof(b"" if self._request.method == "HEAD" else body)
        except ConnectionError as error:
            raise ClientGone from error


def _too_large(bytes_max: int) -> BodyRefused:
    return BodyRefused(
        FailureKind.BODY_TOO_LARGE, f"The request body may be at most {bytes_max // (1024 * 1024)} MiB large."
    )


def _inflated(raw: bytes, coding: str, bytes_max: int) -> bytes:
    inflater = Inflater(coding)
    parts: list[bytes] = []
    total = 0
    try:
        for step in inflater.feed(raw):
            parts.append(step)
            total += len(step)
            if total > bytes_max:
                raise _too_large(bytes_max)
    except CodingError as error:
        raise BodyRefused(FailureKind.BAD_REQUEST, f"The request body cannot be decoded: {error}.") from None
    if not inflater.finished:
        raise BodyRefused(FailureKind.BAD_REQUEST, f"The request body is cut: its {coding} stream has no end.")
    return b"".join(parts)
