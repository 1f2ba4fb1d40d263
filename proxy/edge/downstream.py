"""The downstream port on aiohttp's server."""

from collections.abc import Mapping, Sequence

from aiohttp import web
from multidict import CIMultiDict

from proxy.edge.request_body import Upload, whole
from proxy.ports import ClientGone, HeaderPairs


class _Response(web.StreamResponse):
    """Its head goes out with the first bytes of the body: one system call less, and one packet."""

    _send_headers_immediately = False


class AiohttpDownstream:
    """One exchange's client. See `proxy.ports.Downstream`."""

    __slots__ = ("_more", "_request", "headers", "response")

    def __init__(self, request: web.BaseRequest, more: Sequence[tuple[str, str]] = ()) -> None:
        self._request = request
        self._more = more  # headers of every answer
        self.headers: Mapping[str, str] = request.headers
        self.response: web.StreamResponse | None = None

    async def body(self, bytes_max: int) -> bytes:
        return await whole(self._request, bytes_max)

    def upload(self, bytes_max: int) -> Upload:
        return Upload(self._request, bytes_max)

    async def begin(self, status: int, headers: HeaderPairs) -> None:
        response = self._response(status, headers)
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
        response = self._response(status, headers)
        response.content_length = len(body)
        try:
            await response.prepare(self._request)
            await response.write_eof(b"" if self._request.method == "HEAD" else body)
        except ConnectionError as error:
            raise ClientGone from error

    def _response(self, status: int, headers: HeaderPairs) -> _Response:
        response = _Response(status=status, headers=CIMultiDict(headers))
        if self._more:
            response.headers.extend(self._more)
        if not self._request.content.is_eof():
            response.force_close()  # an unread body must never be taken for the next request
        self.response = response
        return response
