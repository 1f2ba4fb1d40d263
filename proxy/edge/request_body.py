"""The request body as aiohttp's server hands it over: whole, or as it comes."""

import asyncio
import tempfile
from typing import IO, Final

from aiohttp import web

from proxy.core import redact
from proxy.core.failure import FailureKind
from proxy.core.inflate import CodingError, Inflater, is_known
from proxy.ports import BodyRefused, ClientGone

PROGRESS_S: Final = 30.0  # a body that makes no progress for so long is given up
PROGRESS_BYTES: Final = 1024  # one byte a second is none: it would take a year
KEPT_BYTES: Final = 1024 * 1024  # of an upload, in memory; what is beyond goes to a file
READ_BYTES: Final = 256 * 1024


async def whole(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The whole body, decoded. Raises `BodyRefused`, `ClientGone`."""
    inflater = _begin(request, bytes_max)
    content = request.content
    if inflater is None and content.is_eof() and content.exception() is None:  # mostly it came with the head
        raw = content.read_nowait()
        if len(raw) > bytes_max:
            raise _too_large(bytes_max)
        return raw
    parts: list[bytes] = []
    total = 0
    pace = _Pace()
    while not content.at_eof():
        chunk = await pace.next(request)
        if inflater is not None:
            chunk = _inflated(inflater, chunk, bytes_max - total)
        parts.append(chunk)
        total += len(chunk)
        if total > bytes_max:
            raise _too_large(bytes_max)
    _check_end(inflater)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Upload:
    """A body that is passed on as it comes, and kept for another target: see `proxy.ports.RequestBody`.

    Kept in memory up to `KEPT_BYTES`, beyond that in an unnamed file that vanishes with the exchange. It is written where
    it stands: 64 KiB into the page cache take less than to hand them to a thread, and no cancellation can come in between.
    Where no file can be had, a large upload cannot be sent twice: reading what is no longer there raises `BodyRefused`.
    Concurrency: of several readers one waits for the client, the others for it.
    """

    __slots__ = ("_bytes_max", "_file", "_inflater", "_kept", "_lock", "_lost", "_pace", "_request", "_total", "_whole")

    def __init__(self, request: web.BaseRequest, bytes_max: int) -> None:
        self._inflater = _begin(request, bytes_max)
        self._request = request
        self._bytes_max = bytes_max
        self._lock = asyncio.Lock()
        self._pace = _Pace()
        self._kept = bytearray()
        self._file: IO[bytes] | None = None
        self._lost = False
        self._total = 0
        self._whole = not request.body_exists

    @property
    def length(self) -> int | None:
        if self._whole:
            return self._total
        return self._request.content_length if self._inflater is None else None

    async def at(self, position: int) -> bytes:
        async with self._lock:
            if position < self._total:
                return self._again(position)
            return b"" if self._whole else await self._more()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._kept.clear()
        self._lost = True

    async def _more(self) -> bytes:
        chunk = b""
        while not chunk and not self._request.content.at_eof():
            chunk = await self._pace.next(self._request)
            if self._inflater is not None:
                chunk = _inflated(self._inflater, chunk, self._bytes_max - self._total)
        if not chunk:
            _check_end(self._inflater)
            self._whole = True
            return b""
        if self._total + len(chunk) > self._bytes_max:
            raise _too_large(self._bytes_max)
        self._keep(chunk)
        self._total += len(chunk)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        if self._lost:
            return
        if self._file is None and len(self._kept) + len(chunk) <= KEPT_BYTES:
            self._kept += chunk
            return
        try:
            self._write(chunk)
        except OSError:  # no room, or no place that may be written to: the upload goes on, but only once
            self.close()

    def _write(self, chunk: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the exchange
            self._file.write(self._kept)
            self._kept.clear()
        self._file.seek(self._total)
        self._file.write(chunk)

    def _again(self, position: int) -> bytes:
        if self._lost:
            raise BodyRefused(
                FailureKind.OVERLOADED_HERE,
                "The upload cannot be sent to another target: there was no room to keep it. Send the request again.",
            )
        if self._file is None:
            return bytes(self._kept[position : position + READ_BYTES])
        self._file.seek(position)
        return self._file.read(READ_BYTES)


def _begin(request: web.BaseRequest, bytes_max: int) -> Inflater | None:
    """Accept the body's head, and let it come. Raises `BodyRefused`."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity") and not is_known(coding):
        raise BodyRefused(
            FailureKind.UNSUPPORTED_ENCODING,
            f"The content-encoding {redact.cut(coding, 40)!r} is not supported; send gzip, deflate or the plain body.",
        )
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    # aiohttp's low-level server leaves this to us; it is due once the head is accepted.
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Inflater(coding) if is_known(coding) else None


class _Pace:
    """Reads a body, and knows how long it may still take to make progress. Only waiting for the client counts."""

    __slots__ = ("_bytes", "_left_s")

    def __init__(self) -> None:
        self._left_s = PROGRESS_S
        self._bytes = 0

    async def next(self, request: web.BaseRequest) -> bytes:
        """What has come, at least a byte but at the end. Raises `BodyRefused`, `ClientGone`."""
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(self._left_s):
                chunk: bytes = await request.content.readany()
        except TimeoutError:
            raise BodyRefused(
                FailureKind.REQUEST_TIMEOUT, f"The request body made no progress for {PROGRESS_S:.0f} s."
            ) from None
        except (web.HTTPException, web.RequestPayloadError) as error:
            raise BodyRefused(FailureKind.BAD_REQUEST, f"The request body is broken: {error}.") from None
        except ConnectionError as error:
            raise ClientGone from error
        self._bytes += len(chunk)
        self._left_s -= now() - began
        if self._bytes >= PROGRESS_BYTES:
            self._left_s, self._bytes = PROGRESS_S, 0
        return chunk


def _inflated(inflater: Inflater, chunk: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    try:
        for step in inflater.feed(chunk):
            parts.append(step)
            total += len(step)
            if total > bytes_max:
                raise _too_large(bytes_max)
    except CodingError as error:
        raise BodyRefused(FailureKind.BAD_REQUEST, f"The request body cannot be decoded: {error}.") from None
    return b"".join(parts)


def _check_end(inflater: Inflater | None) -> None:
    if inflater is not None and not inflater.finished:
        raise BodyRefused(FailureKind.BAD_REQUEST, "The request body is cut: its compressed stream has no end.")


def _too_large(bytes_max: int) -> BodyRefused:
    return BodyRefused(
        FailureKind.BODY_TOO_LARGE, f"The request body may be at most {bytes_max // (1024 * 1024)} MiB large."
    )
