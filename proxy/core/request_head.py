"""What a request's head must be, beyond what the parser asks: whatever another parser could read differently is refused.

The parser (llhttp, strict) already refuses what is no HTTP/1: a space before a colon, folded lines, bare line feeds, both a
length and chunks, two lengths, two hosts, control characters. Here is what it lets pass.
Source: RFC 9112, sections 3.2, 6.1 and 6.3; RFC 9110, sections 5.5 and 9.3.6 (read 2026-11-21).
"""

from collections.abc import Sequence
from typing import Final

from proxy.core.failure import Failure, FailureKind

HEAD_BYTES_MAX: Final = 32 * 1024  # all fields together
FIELD_OVERHEAD_BYTES: Final = 4  # ": " and the line's end
_VERSIONS: Final = ((1, 1), (1, 0))


def refusal(method: str, target: str, version: tuple[int, int], transfer_encoding: str | None) -> Failure | None:
    """Why a request is refused by its first line and its framing; None where it is not."""
    if not target.startswith("/"):
        return _bad("The request's target must be a path: /v1/..., without scheme and host.")
    if transfer_encoding is not None:
        if transfer_encoding != "chunked":
            return _bad("A transfer-encoding other than 'chunked' is not taken.")
        if version != _VERSIONS[0]:
            return _bad("HTTP/1.0 has no transfer-encoding; send a content-length.")
    if version not in _VERSIONS:
        return _bad("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if method == "CONNECT":
        return Failure(FailureKind.WRONG_METHOD, "This is no forward proxy: CONNECT is not taken.")
    return None


def is_too_long(fields: Sequence[tuple[bytes, bytes]]) -> bool:
    return sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields) > HEAD_BYTES_MAX


def too_long() -> Failure:
    return _bad(f"The request's header fields may be at most {HEAD_BYTES_MAX // 1024} KiB together.")


def not_text(fields: Sequence[tuple[bytes, bytes]]) -> Failure | None:
    """A refusal that names the first field whose value is not even UTF-8; what is, and is not ASCII, is never forwarded."""
    for name, value in fields:
        try:
            value.decode()
        except UnicodeDecodeError:
            return _bad(f"The header field {name[:40].decode('ascii', 'replace')!r} holds bytes that are no text.")
    return None


def _bad(message: str) -> Failure:
    return Failure(FailureKind.BAD_REQUEST, message)
