"""Cuts HTTP/1.1 requests out of bytes, a body as it comes. No IO: `feed` takes bytes in any chunking.

States: the head (`next_head`), then a body of known length or in chunks (`next_piece`, to its end), then the next head.
Deliberately not handled: trailers' meaning, upgrades, obsolete line folding; it is spoken to by our own clients. What it
cannot read raises `Malformed`. Held by `tests/simulator/test_reader.py`: whole, byte by byte, and with trailing bytes.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from proxy.simulator.form import Form

HEAD_BYTES_MAX: Final = 256 * 1024  # more than any proxy forwards
BODY_BYTES_MAX: Final = 256 * 1024 * 1024  # uploads and images in base64, with room for tests of a proxy's own limit
KEPT_BYTES_MAX: Final = 64 * 1024  # of a body that is streamed through
_CHUNK_LINE_BYTES_MAX: Final = 1024


class Malformed(Exception):  # noqa: N818 - it names what the bytes are
    """The client's bytes are not a request that this server reads."""


@dataclass(slots=True, eq=False)
class Request:
    """One request, and what became of it.

    Shapes: ``length`` is what the head says of the body's, None where it comes in chunks. ``body`` is the whole body of a
    JSON request once it has come; of any other, its first `KEPT_BYTES_MAX` bytes. ``body_bytes`` counts what has come of
    it so far. ``form`` is what a multipart body holds, without its files' bytes.
    Units: ``*_at`` are seconds of the event loop's clock (``loop.time()``, which is ``time.monotonic()``).
    ``received_at``: the head has come; ``whole_at``: the body, to its end. ``finished_at``: the answer is written to its
    end. ``disconnected_at``: the client closed the connection while this was the last request on it, its answer finished
    or not; None where the simulator itself closed it.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    keep_alive: bool = True
    query: str = ""
    content_type: str = ""
    length: int | None = 0
    body: bytes = b""
    body_bytes: int = 0
    form: Form | None = None
    received_at: float = 0.0
    whole_at: float | None = None
    finished_at: float | None = None
    disconnected_at: float | None = None
    _sha256: str | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        return self.whole_at is not None

    @property
    def finished(self) -> bool:
        return self.finished_at is not None

    @property
    def body_sha256(self) -> str:
        """Of the whole body, kept or not, in hexadecimal; of a streamed one only once it is whole."""
        return hashlib.sha256(self.body).hexdigest() if self._sha256 is None else self._sha256

    def streamed(self, sha256: str) -> None:
        """The body has come to its end, and only its head was kept."""
        self._sha256 = sha256

    def header(self, name: str) -> str | None:
        """The first header of this (lower-case) name."""
        return next((value for field, value in self.headers if field.lower() == name), None)


class _Chunks(Enum):
    """Where the reader stands in a body that comes in chunks."""

    LINE = auto()  # before the size of a chunk
    DATA = auto()
    DATA_END = auto()  # the line end behind a chunk
    TRAILERS = auto()
    END = auto()


class RequestReader:
    """One per connection. ``awaits_continue`` is True while a client waits for leave to send its body."""

    __slots__ = ("_body_bytes", "_buffer", "_chunks", "_left", "_searched", "awaits_continue")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._chunks: _Chunks | None = None  # None: the body is of known length
        self._left = 0  # of the body, or of the chunk
        self._body_bytes = 0  # of a body in chunks
        self.awaits_continue = False

    @property
    def pending(self) -> bool:
        """Whether bytes wait that no request has been made of."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > BODY_BYTES_MAX + HEAD_BYTES_MAX:
            raise Malformed(f"expected at most {BODY_BYTES_MAX} bytes of body")
        self._buffer += data

    def next_head(self) -> Request | None:
        """The next request, its body yet to come. Only behind the end of the body before it."""
        while self._buffer.startswith(b"\r\n"):  # RFC 9112 section 2.2: empty lines before a request are ignored
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > HEAD_BYTES_MAX:
                raise Malformed(f"expected a header block of at most {HEAD_BYTES_MAX} bytes")
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self._searched = self._body_bytes = 0
        request, self.awaits_continue = _framing(lines)
        self._chunks = _Chunks.LINE if request.length is None else None
        self._left = request.length or 0
        return request

    def next_piece(self) -> bytes | None:
        """What has come of the body; once ``b""``, at its end; None while more is awaited."""
        if self._chunks is not None:
            piece = self._next_chunked()
        elif self._left:
            piece = self._take()
        else:
            piece = b""
        if piece is not None:
            self.awaits_continue = False
        return piece

    def _take(self) -> bytes | None:
        if not self._buffer:
            return None
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(piece)
        return piece

    def _next_chunked(self) -> bytes | None:
        while self._chunks is not _Chunks.END:
            piece = self._step()
            if piece is None:
                return None
            if piece:
                self._body_bytes += len(piece)
                if self._body_bytes > BODY_BYTES_MAX:
                    raise Malformed(f"expected at most {BODY_BYTES_MAX} bytes of body")
                return piece
        return b""

    def _step(self) -> bytes | None:
        """One state onwards: bytes of the body, ``b""`` where there are none in it, None while it awaits more."""
        match self._chunks:
            case _Chunks.LINE:
                return self._read_chunk_line()
            case _Chunks.DATA if self._left:
                return self._take()
            case _Chunks.DATA:
                return self._skip(0, _Chunks.DATA_END)
            case _Chunks.DATA_END:
                return self._skip(2, _Chunks.LINE)
            case _:
                return self._read_trailers()

    def _skip(self, count: int, then: _Chunks) -> bytes | None:
        if len(self._buffer) < count:
            return None
        del self._buffer[:count]
        self._chunks = then
        return b""

    def _read_chunk_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _CHUNK_LINE_BYTES_MAX:
                raise Malformed("expected a chunk's size and a line end")
            return None
        self._left = _hexadecimal(bytes(self._buffer[:end]))
        # The last chunk's line end stays: with an empty line behind it, it ends the trailers, which may be none.
        return self._skip(end + 2, _Chunks.DATA) if self._left else self._skip(end, _Chunks.TRAILERS)

    def _read_trailers(self) -> bytes | None:
        stop = self._buffer.find(b"\r\n\r\n")
        return None if stop < 0 else self._skip(stop + 4, _Chunks.END)


def _framing(lines: list[str]) -> tuple[Request, bool]:
    """The request, and whether the client waits for leave to send its body."""
    try:
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise Malformed(f"expected a request line, got {lines[0][:80]!r}") from None
    if not version.startswith("HTTP/1."):
        raise Malformed(f"expected HTTP/1.1, got {version[:20]!r}")
    path, _, query = target.partition("?")
    request = Request(method, path, [], version != "HTTP/1.0", query)
    expects_continue = False
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed(f"expected a header field, got {line[:80]!r}")
        value = value.strip(" \t")
        request.headers.append((name, value))
        match name.lower():
            case "content-length" if request.length is not None:
                request.length = _decimal(value)
            case "content-type":
                request.content_type = value
            case "transfer-encoding":
                request.length = None
            case "connection":
                request.keep_alive = request.keep_alive and "close" not in value.lower()
            case "expect":
                expects_continue = value.lower() == "100-continue"
    return request, expects_continue


def _decimal(value: str) -> int:
    if not value.isdecimal() or int(value) > BODY_BYTES_MAX:
        raise Malformed(f"expected a content-length of at most {BODY_BYTES_MAX}, got {value[:40]!r}")
    return int(value)


def _hexadecimal(line: bytes) -> int:
    size = line.partition(b";")[0].strip()
    if not size or size.strip(b"0123456789abcdefABCDEF"):
        raise Malformed(f"expected a chunk's size, got {line[:40]!r}")
    value = int(size, 16)
    if value > BODY_BYTES_MAX:
        raise Malformed(f"expected a chunk of at most {BODY_BYTES_MAX} bytes")
    return value
