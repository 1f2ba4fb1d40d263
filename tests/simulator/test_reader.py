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
    """The requests whose bodies came to their end, each body put together from its pieces."""
    found: list[Request] = []
    current: Request | None = None
    for chunk in chunks:
        reader.feed(chunk)
        while True:
            if current is None:
                current = reader.next_head()
                if current is None:
                    break
            piece = reader.next_piece()
            if piece is None:
                break
            current.body += piece
            if not piece:
                found.append(current)
                current = None
    return found


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("wire", "method", "path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_read_in_any_chunking(wire: bytes, method: str, path: str, body: bytes, size: int) -> None:
    twice = wire + wire + b"POST /trailing"
    reader = RequestReader()
    found = _read(reader, [twice[at : at + size] for at in range(0, len(twice), size)])
    assert [(one.method, one.path, one.body) for one in found] == [(method, path, body)] * 2
    assert reader.pending


def test_a_body_is_given_as_it_comes_and_nothing_of_it_is_kept() -> None:
    reader = RequestReader()
    reader.feed(_POST + b"content-length: 6\r\n\r\nhel")
    assert reader.next_head() is not None
    assert (reader.next_piece(), reader.next_piece(), reader.pending) == (b"hel", None, False)
    reader.feed(b"lo")
    assert (reader.next_piece(), reader.next_piece(), reader.pending) == (b"lo", None, False)
    reader.feed(b"!GET / HTTP/1.1\r\n")
    assert (reader.next_piece(), reader.next_piece(), reader.pending) == (b"!", b"", True)


def test_the_query_stands_apart() -> None:
    (request,) = _read(RequestReader(), [b"GET /v1/x?a=b&c=%20 HTTP/1.1\r\n\r\n"])
    assert (request.path, request.query) == ("/v1/x", "a=b&c=%20")


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
    reader.feed(_POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert reader.next_head() is not None
    assert (reader.next_piece(), reader.awaits_continue) == (None, True)
    reader.feed(b"ok")
    assert (reader.next_piece(), reader.awaits_continue) == (b"ok", False)
    assert (reader.next_piece(), reader.awaits_continue) == (b"", False)


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
        b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\nxyz\r\n",
        b"a" * 300_000,
    ],
)
def test_what_is_no_request_is_malformed(wire: bytes) -> None:
    with pytest.raises(Malformed):
        _read(RequestReader(), [wire])
