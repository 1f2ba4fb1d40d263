"""The upstream port on aiohttp: sends one call, hands back the reply's bytes.

aiohttp is kept to the wire: no redirects, no proxies from the environment, no cookies, no retries, no limits and no
timers but the connect timer; those belong to the phases. Bodies are asked for uncompressed; one that comes compressed
all the same is decoded here with bounds, because the client was promised identity.
"""

import asyncio
import contextvars
import functools
import itertools
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.core.failure import FailureKind
from proxy.core.inflate import CodingError, Inflater, is_known
from proxy.ports import Call, Fault, HeaderPairs
from proxy.upstream import faults
from proxy.upstream.resolver import PublicResolver

READ_BYTES: Final = 64 * 1024  # aiohttp pauses the socket at twice this; with the client's 64 KiB: < 256 KiB a stream
FIELD_BYTES_MAX: Final = 32 * 1024  # one header field of an answer; content-security-policies of CDNs pass 8 KiB
FIELDS_MAX: Final = 256
URLS_KEPT: Final = 1024
KEEPALIVE_S: Final = 30.0  # below the 60 to 75 s after which common servers close idle connections
LAST_CHUNK_S: Final = 0.1  # how long an answer that is over may take to end its body before its connection is dropped
INFLATED_STEPS_MAX: Final = 16  # of what was left when a compressed body broke: 4 MiB
STALE_S: Final = 0.5  # a kept connection that closes later than this after the request was at work on it
LARGE_BODY_BYTES: Final = 512 * 1024  # written in slices above this, so that the loop turns in between

_NONE: Final[list[str]] = []
# Whether the call being sent has opened its connection itself: only one that was kept may be stale.
_CONNECTED: contextvars.ContextVar[bool] = contextvars.ContextVar("connected", default=False)


class _Wire(ResponseHandler):
    """A connection that goes on reading where it had paused, and only there.

    aiohttp 3.14 asks for that with every piece of a body that is read, and each time parses nothing and asks the transport.
    """

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


def _wire(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _Wire(loop)


class _Connector(aiohttp.TCPConnector):
    """Notes in the context of the call that a connection was opened for it, and keeps none that has spoken unasked.

    What comes on an idle connection (a second answer glued to the last bytes of the first, a 408) would be taken for the
    answer to the next request; aiohttp looks at it when a connection is given back, not when it is taken again.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_wire, self._loop)

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109 - aiohttp's signature
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if _CONNECTED.get() or protocol is None or not protocol.should_close:
                return connection
            connection.close()

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        _CONNECTED.set(True)
        return await super()._create_connection(req, traces, timeout)


class UpstreamClient:
    """One per process and event loop. `close` when the process ends. ``names`` None: the system resolves names."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, names: AbstractResolver | None = None) -> None:
        self._tls = tls
        self._names = names
        self._private_hosts: set[str] = set()
        self._lingering: set[aiohttp.ClientResponse] = set()  # over, their bodies' end not yet come
        self._pooled = self._session(force_close=False)
        self._fresh = self._session(force_close=True)
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def send(self, call: Call) -> "AiohttpReply | Fault":
        """Send one call and wait for the response head."""
        session = self._fresh if call.fresh else self._pooled
        _CONNECTED.set(False)
        began = time.monotonic()
        try:
            response = await session.request(
                call.method,
                self._url(call.url, allow_private=call.target.provider.allow_private),
                data=_data(call.body),
                headers=call.headers,
                allow_redirects=False,
                timeout=self._timeout(call.connect_s),
            )
        except faults.EXPECTED as error:
            fault = faults.of_head(error)
            quickly = time.monotonic() - began < STALE_S
            if fault.kind is FailureKind.RESET_BEFORE_HEAD and quickly and not _CONNECTED.get():
                return Fault(FailureKind.STALE_CONNECTION, fault.detail)
            return fault
        return self._checked(response)

    async def close(self) -> None:
        for response in tuple(self._lingering):
            response.close()
        await self._pooled.close()
        await self._fresh.close()

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        options: dict[str, Any] = {} if force_close else {"keepalive_timeout": KEEPALIVE_S}
        if self._tls is not None:
            options["ssl"] = self._tls
        connector = _Connector(
            limit=0, force_close=force_close, resolver=PublicResolver(self._private_hosts, self._names), **options
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=READ_BYTES,
            max_line_size=FIELD_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    def _checked(self, response: aiohttp.ClientResponse) -> "AiohttpReply | Fault":
        headers = response.headers
        problem = _framing_problem(headers)
        if problem is None and "Content-Encoding" not in headers:
            return AiohttpReply(response, None, self._lingering)
        coding = headers.get("Content-Encoding", "").strip().lower()
        if problem is None and coding not in ("", "identity") and not is_known(coding):
            problem = f"content-encoding {coding[:40]!r} came though identity was asked for"
        if problem is not None:
            response.close()
            return Fault(FailureKind.MALFORMED, problem)
        return AiohttpReply(response, Inflater(coding) if is_known(coding) else None, self._lingering)

    def _url(self, text: str, *, allow_private: bool) -> URL:
        url = self._urls.get(text)
        if url is None:
            url = URL(text, encoded=True)
            if len(self._urls) < URLS_KEPT:  # those of the routing table; relayed paths are the clients' to choose
                self._urls[text] = url
            host = url.host or ""
            if allow_private or url.scheme == "http" or host == "localhost":
                self._private_hosts.add(host)
        return url

    def _timeout(self, connect_s: float) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(connect_s)
        if timeout is None:
            timeout = self._timeouts[connect_s] = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        return timeout


class AiohttpReply:
    """One answer. See `proxy.ports.Reply`."""

    __slots__ = ("_content", "_fault", "_inflater", "_lingering", "_pending", "_response", "headers", "status")

    def __init__(
        self, response: aiohttp.ClientResponse, inflater: Inflater | None, lingering: set[aiohttp.ClientResponse]
    ) -> None:
        self._response = response
        self._lingering = lingering
        self._content = response.content
        self._inflater = inflater
        self._fault: Fault | None = None
        self._pending: Iterator[bytes] = iter(())
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers

    @property
    def header_pairs(self) -> HeaderPairs:
        return self.headers.items()

    async def read(self) -> bytes | Fault:
        if self._fault is not None:
            return self._fault
        try:
            if self._inflater is None:
                return await self._content.readany()
            return await self._read_inflated(self._inflater)
        except faults.EXPECTED as error:
            self._fault = faults.of_body(error)
            return self._left_over() or self._fault

    def _left_over(self) -> bytes:
        """What had arrived before the body broke: aiohttp raises first, though an answer may be whole in it."""
        buffered = self._content._buffer  # noqa: SLF001 - there is no other way to it
        left = b"".join(buffered)
        buffered.clear()
        if self._inflater is None or not left:
            return left
        try:
            return b"".join(itertools.islice(self._inflater.feed(left), INFLATED_STEPS_MAX))
        except CodingError:
            return b""

    def close(self) -> None:
        self._response.close()

    def finish(self) -> None:
        if not self._content.is_eof():
            # aiohttp gives the connection back by itself if the body ends in time; closing it then does nothing.
            self._lingering.add(self._response)
            asyncio.get_running_loop().call_later(LAST_CHUNK_S, self._drop)

    def _drop(self) -> None:
        self._lingering.discard(self._response)
        self._response.close()

    async def _read_inflated(self, inflater: Inflater) -> bytes | Fault:
        try:
            while True:
                step = next(self._pending, None)
                if step is not None:
                    return step
                chunk = await self._content.readany()
                if not chunk:
                    return b"" if inflater.finished else Fault(FailureKind.TRUNCATED, "the compressed body was cut")
                self._pending = inflater.feed(chunk)
        except CodingError as error:
            return Fault(FailureKind.MALFORMED, str(error), told=True)


def _framing_problem(headers: CIMultiDictProxy[str]) -> str | None:
    """Two ways to tell where a body ends are one too many (RFC 9112, section 6.3)."""
    lengths = headers.getall("Content-Length", _NONE)
    if len(lengths) > 1 and len(set(lengths)) > 1:
        return "the answer has several content-lengths"
    if lengths and "Transfer-Encoding" in headers:
        return "the answer has both content-length and transfer-encoding"
    return None


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), READ_BYTES):
        yield body[start : start + READ_BYTES]


def _data(body: bytes | AsyncIterable[bytes]) -> aiohttp.Payload | AsyncIterable[bytes] | None:
    if not isinstance(body, bytes):
        return body
    if not body:
        return None  # of nothing, aiohttp would send the length
    return _slices(body) if len(body) > LARGE_BODY_BYTES else aiohttp.BytesPayload(body)
