"""Every case runs whole, byte by byte, and with trailing bytes."""

import pytest

from proxy.simulator.reader import BODY_BYTES_MAX, Malformed, Request, RequestReader

_POST = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\n"

REQUESTS = {
    "no body": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n", "GET", "/v1/models", b""),
    "no headers": (b"GET / HTTP/1.1\r\n\r\n", "GET", "/", b""),
    "length": (_POST + b"Content-Length: 5\r\n\r\nhello", "POST", "/v1/x", b"hello"),
    "length 0": (_POST + b"Content-Length: 0\r\n\r\n", "POST", "/v1/x", b""),
    "chunks": (
        _POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        "POST",
        "/v1/x",
        b"hello",
    ),
    "trailers": (
        _POST + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: b\r\n\r\n",
        "POST",
        "/v1/x",
        b"hello",
    ),
    "empty lines before": (b"\r\n\r\n" + _POST + b"content-length: 1\r\n\r\n\n", "POST", "/v1/x", b"\n"),
}


def _read(reader: RequestReader, chunks: list[bytes]) -> list[Request]:
    found = []
    for chunk in chunks:
        reader.feed(chunk)
        while (request := reader.next_request()) is not None:
            found.append(request)
    return found


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("wire", "method", "path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_read_in_any_chunking(wire: bytes, method: str, path: str, body: bytes, size: int) -> None:
    twice = wire + wire + b"POST /trailing"
    reader = RequestReader()
    found = _read(reader, [twice[at : at + size] for at in range(0, len(twice), size)])
    assert [(one.method, one.path, one.body) for one in found] == [(method, path, body)] * 2
    assert reader.pending


def test_headers_keep_their_order_case_and_repetition() -> None:
    (request,) = _read(RequestReader(), [b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a:2\r\nB: \xe9 \r\n\r\n"])
    assert request.headers == [("X-A", "1"), ("x-a", "2"), ("B", "é")]
    assert request.header("x-a") == "1"


@pytest.mark.parametrize(
    ("wire", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
)
def test_keep_alive(wire: bytes, keep_alive: bool) -> None:
    (request,) = _read(RequestReader(), [wire])
    assert request.keep_alive is keep_alive


def test_leave_to_send_the_body_is_asked_for_only_while_it_is_missing() -> None:
    reader = RequestReader()
    assert _read(reader, [_POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"]) == []
    assert reader.awaits_continue
    assert len(_read(reader, [b"ok"])) == 1
    assert not reader.awaits_continue


@pytest.mark.parametrize(
    "wire",
    [
        b"nonsense\r\n\r\n",
        b"GET / SSH/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"0" * 2000,
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
        b"a" * 300_000,
    ],
)
def test_what_is_no_request_is_malformed(wire: bytes) -> None:
    with pytest.raises(Malformed):
        _read(RequestReader(), [wire])
