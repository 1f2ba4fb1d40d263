"""aiohttp's exceptions, mapped to failure kinds in this one place, most specific first.

`tests/upstream/test_faults.py` walks every subclass of aiohttp's `ClientError`, so that a new one cannot slip through.
"""

import ssl
from typing import Final

import aiohttp
from aiohttp import http_exceptions

from proxy.core.failure import FailureKind
from proxy.ports import Fault

# (exception, kind before the response head came, kind while the body came)
_ROWS: Final[tuple[tuple[type[BaseException], FailureKind, FailureKind], ...]] = (
    (aiohttp.ClientConnectorCertificateError, FailureKind.TLS_FAILED, FailureKind.TLS_FAILED),
    (aiohttp.ClientSSLError, FailureKind.TLS_FAILED, FailureKind.TLS_FAILED),
    (aiohttp.ServerFingerprintMismatch, FailureKind.TLS_FAILED, FailureKind.TLS_FAILED),
    (aiohttp.ConnectionTimeoutError, FailureKind.CONNECT_TIMEOUT, FailureKind.CONNECT_TIMEOUT),
    (aiohttp.ServerTimeoutError, FailureKind.FIRST_EVENT_TIMEOUT, FailureKind.STALLED),
    (aiohttp.ClientConnectorError, FailureKind.CONNECT_FAILED, FailureKind.CONNECT_FAILED),
    (aiohttp.InvalidURL, FailureKind.CONNECT_FAILED, FailureKind.CONNECT_FAILED),
    (aiohttp.ServerDisconnectedError, FailureKind.RESET_BEFORE_HEAD, FailureKind.RESET_MID_STREAM),
    (aiohttp.ClientPayloadError, FailureKind.MALFORMED, FailureKind.TRUNCATED),
    (aiohttp.ClientResponseError, FailureKind.MALFORMED, FailureKind.MALFORMED),
    (http_exceptions.HttpProcessingError, FailureKind.MALFORMED, FailureKind.MALFORMED),
    (aiohttp.ClientConnectionError, FailureKind.RESET_BEFORE_HEAD, FailureKind.RESET_MID_STREAM),
    (ssl.SSLError, FailureKind.TLS_FAILED, FailureKind.RESET_MID_STREAM),
    (aiohttp.ClientError, FailureKind.MALFORMED, FailureKind.MALFORMED),
    (TimeoutError, FailureKind.CONNECT_TIMEOUT, FailureKind.STALLED),
    (OSError, FailureKind.RESET_BEFORE_HEAD, FailureKind.RESET_MID_STREAM),
    (ValueError, FailureKind.MALFORMED, FailureKind.MALFORMED),  # aiohttp's parsers let a few of them through
)

EXPECTED: Final = tuple(exception for exception, _, _ in _ROWS)


def of_head(error: BaseException) -> Fault:
    """What an exception means that came before the response head."""
    return Fault(_kind(error, 1), _detail(error))


def of_body(error: BaseException) -> Fault:
    """What an exception means that came while the body was read."""
    if isinstance(error, aiohttp.ClientPayloadError) and isinstance(error.__cause__, ConnectionResetError):
        return Fault(FailureKind.RESET_MID_STREAM, _detail(error))
    return Fault(_kind(error, 2), _detail(error))


def _kind(error: BaseException, column: int) -> FailureKind:
    for row in _ROWS:
        if isinstance(error, row[0]):
            return row[1] if column == 1 else row[2]
    raise error  # not an expected failure: a bug, to be seen as one


def _detail(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
