"""What a script may do to a connection, and the bytes of HTTP/1.1 that most scripts need."""

from collections.abc import Iterator
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, TypeAlias


class Ending(Enum):
    """How an answer ends. The end of the steps without one of these is DONE."""

    DONE = auto()  # the connection waits for its next request
    FIN = auto()  # closed once everything is sent
    RST = auto()  # reset once everything is sent: SO_LINGER 0
    SILENCE = auto()  # nothing more, and the socket stays open


# One write, a wait in seconds (0.0: the event loop's next turn), or the end.
Step: TypeAlias = bytes | float | Ending
Steps: TypeAlias = Iterator[Step]

LAST_CHUNK: Final = b"0\r\n\r\n"
JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def head(status: int, content_type: bytes, fields: bytes, request_id: bytes = b"req_simulator") -> bytes:
    """A whole header block. `fields` are complete lines, each with its CRLF."""
    reason = _REASONS.get(status, b"Unknown")
    return b"HTTP/1.1 %d %b\r\nserver: penstock-simulator\r\nx-request-id: %b\r\ncontent-type: %b\r\n%b\r\n" % (
        status,
        reason,
        request_id,
        content_type,
        fields,
    )


def length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
