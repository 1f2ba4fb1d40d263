"""The downstream port on aiohttp's server."""

from collections.abc import Mapping, Sequence

from aiohttp import web
from multidict import CIMultiDict

from proxy.edge.intake import Intake
from proxy.edge.request_body import Upload, whole
from proxy.ports import ClientGone, HeaderPairs


class _Response(web.StreamResponse):
    """Its head goes out with the first bytes of the body: one system call less, and one packet."""

    _send_headers_immediately = False


class AiohttpDownstream:
    """One exchange's client. See `proxy.ports.Downstream`."""

    __slots__ = ("_intake", "_more", "_outlived", "_request", "gone", "headers", "response")

    def __init__(
        self, request: web.BaseRequest, more: Sequence[tuple[str, str]] = (), *, intake: Intake | None = None
    ) -> None:
        self._request = request
        self._intake = intake
        self._more = more  # headers of every answer
        self._outlived = False
        self.gone = False
        self.headers: Mapping[str, str] = request.headers
        self.response: web.StreamResponse | None = None

    @property
    def peer(self) -> str:
        return self._request.remote or ""

    async def body(self, bytes_max: int) -> bytes:
        return await whole(self._request, bytes_max)

    def upload(self, bytes_max: int) -> Upload:
        return Upload(self._request, bytes_max)

    def outlive(self) -> None:
        self._outlived = True

    def lose(self) -> None:
        """The client has left, and its exchange goes on."""
        self.gone = self._outlived = True

    async def begin(self, status: int, headers: HeaderPairs) -> None:
        if self.gone:
            return
        response = self._response(status, headers)
        try:
            await response.prepare(self._request)
        except ConnectionError as error:
            self._left(error)

    async def write(self, data: bytes) -> None:
        if self.gone:
            return
        assert self.response is not None  # noqa: S101 - begun
        try:
            await self.response.write(data)
        except ConnectionError as error:
            self._left(error)

    async def end(self) -> None:
        if self.gone:
            return
        assert self.response is not None  # noqa: S101 - begun
        try:
            await self.response.write_eof()
        except ConnectionError as error:
            self._left(error)

    def _left(self, error: ConnectionError) -> None:
        if not self._outlived:
            raise ClientGone from error
        self.gone = True

    def break_off(self) -> None:
        # close() delivers what was written and leaves the last chunk out; abort() would lose the error event.
        if self._request.transport is not None:
            self._request.transport.close()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        # A Response would work out anew what is known here: its length, and that its type is told.
        if self.gone:
            return
        response = self._response(status, headers)
        response.content_length = len(body)
        try:
            await response.prepare(self._request)
            await response.write_eof(b"" if self._request.method == "HEAD" else body)
        except ConnectionError as error:
            self._left(error)

    def _response(self, status: int, headers: HeaderPairs) -> _Response:
        response = _Response(status=status, headers=CIMultiDict(headers))
        if self._more:
            response.headers.extend(self._more)
        if self._intake is not None and self._intake.is_last:
            response.force_close()
        if not self._request.content.is_eof():
            response.force_close()  # an unread body must never be taken for the next request
        self.response = response
        return response
