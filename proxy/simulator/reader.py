"""Cuts HTTP/1.1 requests out of bytes. No IO: `feed` takes bytes in any chunking, `next_request` gives whole requests.

States: the head, then a body of known length or in chunks, then the next head. Deliberately not handled: trailers'
meaning, upgrades, obsolete line folding; it is spoken to by our own clients. What it cannot read raises `Malformed`.
Held by `tests/simulator/test_reader.py`: whole, byte by byte, and with trailing bytes.
"""

from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 256 * 1024  # more than any proxy forwards
BODY_BYTES_MAX: Final = 256 * 1024 * 1024  # images in base64, with room for tests of a proxy's own limit
_CHUNK_LINE_BYTES_MAX: Final = 1024


class Malformed(Exception):  # noqa: N818 - it names what the bytes are
    """The client's bytes are not a request that this server reads."""


@dataclass(slots=True, eq=False)
class Request:
    """One request, and what became of it.

    Units: ``*_at`` are seconds of the event loop's clock (``loop.time()``, which is ``time.monotonic()``).
    ``finished_at``: the answer is written to its end. ``disconnected_at``: the client closed the connection while this
    was the last request on it, its answer finished or not; None where the simulator itself closed it.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    keep_alive: bool = True
    received_at: float = 0.0
    finished_at: float | None = None
    disconnected_at: float | None = None

    @property
    def finished(self) -> bool:
        return self.finished_at is not None

    def header(self, name: str) -> str | None:
        """The first header of this (lower-case) name."""
        return next((value for field, value in self.headers if field.lower() == name), None)


@dataclass(slots=True, eq=False)
class _Framing:
    """How the body of the request that is being read is delimited. ``length`` None: in chunks."""

    request: Request
    length: int | None
    expects_continue: bool


class RequestReader:
    """One per connection. ``awaits_continue`` is True while a client waits for leave to send its body."""

    __slots__ = ("_body", "_buffer", "_framing", "_searched", "awaits_continue")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._framing: _Framing | None = None
        self._body = bytearray()
        self.awaits_continue = False

    @property
    def pending(self) -> bool:
        """Whether bytes wait that no request has been made of."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > BODY_BYTES_MAX + HEAD_BYTES_MAX:
            raise Malformed(f"expected at most {BODY_BYTES_MAX} bytes of body")
        self._buffer += data

    def next_request(self) -> Request | None:
        if self._framing is None:
            self._framing = self._read_head()
            if self._framing is None:
                return None
            self.awaits_continue = self._framing.expects_continue
        whole = self._read_chunks() if self._framing.length is None else self._read_length(self._framing.length)
        if not whole:
            return None
        request = self._framing.request
        request.body = bytes(self._body)
        self._body.clear()
        self._framing = None
        self.awaits_continue = False
        return request

    def _read_head(self) -> _Framing | None:
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
        self._searched = 0
        return _framing(lines)

    def _read_length(self, length: int) -> bool:
        if len(self._buffer) < length:
            return False
        self._body += self._buffer[:length]
        del self._buffer[:length]
        return True

    def _read_chunks(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = _hexadecimal(bytes(self._buffer[:end]))
            if size == 0:
                return self._read_trailers(end)
            stop = end + 2 + size
            if len(self._buffer) < stop + 2:
                return False
            self._body += self._buffer[end + 2 : stop]
            if len(self._body) > BODY_BYTES_MAX:
                raise Malformed(f"expected at most {BODY_BYTES_MAX} bytes of body")
            del self._buffer[: stop + 2]
        if len(self._buffer) > _CHUNK_LINE_BYTES_MAX:
            raise Malformed("expected a chunk's size and a line end")
        return False

    def _read_trailers(self, end: int) -> bool:
        """The last chunk's line ends at `end`; an empty line ends the trailers that may follow it."""
        if self._buffer.startswith(b"\r\n", end + 2):
            del self._buffer[: end + 4]
            return True
        stop = self._buffer.find(b"\r\n\r\n", end + 2)
        if stop < 0:
            return False
        del self._buffer[: stop + 4]
        return True


def _framing(lines: list[str]) -> _Framing:
    try:
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise Malformed(f"expected a request line, got {lines[0][:80]!r}") from None
    if not version.startswith("HTTP/1."):
        raise Malformed(f"expected HTTP/1.1, got {version[:20]!r}")
    request = Request(method, target.partition("?")[0], [], b"", version != "HTTP/1.0")
    length: int | None = 0
    expects_continue = False
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed(f"expected a header field, got {line[:80]!r}")
        value = value.strip(" \t")
        request.headers.append((name, value))
        match name.lower():
            case "content-length" if length is not None:
                length = _decimal(value)
            case "transfer-encoding":
                length = None
            case "connection":
                request.keep_alive = request.keep_alive and "close" not in value.lower()
            case "expect":
                expects_continue = value.lower() == "100-continue"
    return _Framing(request, length, expects_continue)


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
