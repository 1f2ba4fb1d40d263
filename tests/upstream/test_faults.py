"""Every exception of aiohttp is some kind of failure, before the head and after it."""

import asyncio
import os
import ssl

import aiohttp
import pytest
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.core.failure import TABLE, Blame, FailureKind
from proxy.upstream import faults

K = FailureKind
KEY = ConnectionKey("h", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL("http://h"), "POST", CIMultiDictProxy(CIMultiDict()), URL("http://h"))


def subclasses(parent: type[BaseException]) -> set[type[BaseException]]:
    return {parent} | {each for child in parent.__subclasses__() for each in subclasses(child)}


def bare(kind: type[BaseException]) -> BaseException:
    """An instance made without its constructor, whose arguments differ from class to class."""
    return kind.__new__(kind)


AIOHTTP = sorted(
    {
        each
        for root in (aiohttp.ClientError, http_exceptions.HttpProcessingError)
        for each in subclasses(root)
        if each.__module__.startswith("aiohttp")
    },
    key=lambda kind: kind.__qualname__,
)


def test_the_walk_finds_them() -> None:
    names = {kind.__name__ for kind in AIOHTTP}
    assert len(AIOHTTP) > 25
    assert {"ClientConnectorDNSError", "SocketTimeoutError", "ContentTypeError", "ClientConnectionResetError"} <= names
    assert {"BadStatusLine", "LineTooLong", "TransferEncodingError"} <= names


@pytest.mark.parametrize("kind", AIOHTTP, ids=lambda kind: kind.__name__)
def test_every_exception_of_aiohttp_is_mapped_both_ways(kind: type[BaseException]) -> None:
    error = bare(kind)
    assert isinstance(error, faults.EXPECTED)
    for found in (faults._kind(error, 1), faults._kind(error, 2)):
        assert TABLE[found].blame is Blame.UPSTREAM


def test_no_row_is_hidden_by_one_above_it() -> None:
    for number, exception in enumerate(faults.EXPECTED):
        for above in faults.EXPECTED[:number]:
            assert not issubclass(exception, above), f"{exception.__name__} never gets past {above.__name__}"


CAUSE = OSError(111, os.strerror(111))
RESET = aiohttp.ClientPayloadError("cut")
RESET.__cause__ = ConnectionResetError()

# exception -> (kind before the head, kind while the body comes)
ROWS: dict[str, tuple[BaseException, FailureKind, FailureKind]] = {
    "refused": (aiohttp.ClientConnectorError(KEY, CAUSE), K.CONNECT_FAILED, K.CONNECT_FAILED),
    "unknown host": (aiohttp.ClientConnectorDNSError(KEY, CAUSE), K.CONNECT_FAILED, K.CONNECT_FAILED),
    "bad certificate": (
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("no")),
        K.TLS_FAILED,
        K.TLS_FAILED,
    ),
    "handshake": (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "no")), K.TLS_FAILED, K.TLS_FAILED),
    "TLS broken later": (ssl.SSLError(1, "no"), K.TLS_FAILED, K.RESET_MID_STREAM),
    "certificate, bare": (ssl.SSLCertVerificationError("no"), K.TLS_FAILED, K.RESET_MID_STREAM),
    "connect timeout": (aiohttp.ConnectionTimeoutError("slow"), K.CONNECT_TIMEOUT, K.CONNECT_TIMEOUT),
    "read timeout": (aiohttp.SocketTimeoutError("slow"), K.FIRST_EVENT_TIMEOUT, K.STALLED),
    "bare timeout": (TimeoutError(), K.CONNECT_TIMEOUT, K.STALLED),
    "asyncio timeout": (TimeoutError(), K.CONNECT_TIMEOUT, K.STALLED),
    "FIN before the head": (aiohttp.ServerDisconnectedError(), K.RESET_BEFORE_HEAD, K.RESET_MID_STREAM),
    "RST": (aiohttp.ClientOSError(104, "reset"), K.RESET_BEFORE_HEAD, K.RESET_MID_STREAM),
    "RST while writing": (aiohttp.ClientConnectionResetError("reset"), K.RESET_BEFORE_HEAD, K.RESET_MID_STREAM),
    "RST, bare": (ConnectionResetError(), K.RESET_BEFORE_HEAD, K.RESET_MID_STREAM),
    "broken pipe": (BrokenPipeError(), K.RESET_BEFORE_HEAD, K.RESET_MID_STREAM),
    "cut body": (aiohttp.ClientPayloadError("cut"), K.MALFORMED, K.TRUNCATED),
    "body reset": (RESET, K.MALFORMED, K.RESET_MID_STREAM),
    "no HTTP": (aiohttp.ClientResponseError(INFO, (), message="Bad status line"), K.MALFORMED, K.MALFORMED),
    "bad status line": (http_exceptions.BadStatusLine("SSH-2.0"), K.MALFORMED, K.MALFORMED),
    "line too long": (http_exceptions.LineTooLong(b"x", 8190), K.MALFORMED, K.MALFORMED),
    "invalid URL": (aiohttp.InvalidURL("x"), K.CONNECT_FAILED, K.CONNECT_FAILED),
    "a parser's ValueError": (ValueError("x"), K.MALFORMED, K.MALFORMED),
    "any other of aiohttp": (aiohttp.ClientError("x"), K.MALFORMED, K.MALFORMED),
}


@pytest.mark.parametrize(("error", "head", "body"), ROWS.values(), ids=ROWS)
def test_what_an_exception_means(error: BaseException, head: FailureKind, body: FailureKind) -> None:
    assert isinstance(error, faults.EXPECTED)
    assert faults.of_head(error).kind is head
    assert faults.of_body(error).kind is body
    assert faults.of_head(error).detail.startswith(type(error).__name__)


def test_a_bug_is_not_a_failure() -> None:
    for bug in (TypeError("x"), KeyError("x"), asyncio.CancelledError(), KeyboardInterrupt()):
        assert not isinstance(bug, faults.EXPECTED)
        with pytest.raises(type(bug)):
            faults.of_head(bug)


def test_a_detail_is_bounded() -> None:
    assert len(faults.of_head(ValueError("x" * 10_000)).detail) == 300
