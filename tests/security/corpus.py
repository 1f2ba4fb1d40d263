"""Raw requests that parsers read differently, by class; each says what it holds if its framing is read strictly.

A row is the bytes, and the marks (or the bodies) of the requests that are in them for a strict reader. Whatever else its
bytes look like is there to be smuggled, and bears the mark `smuggled`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.gateway import CHAT


@dataclass(frozen=True, slots=True)
class Row:
    """``holds``: what may be relayed of it, in order, or else all is refused. ``valid``: it must not be refused."""

    kind: str
    name: str
    raw: bytes
    holds: tuple[str | bytes, ...] = ()
    valid: bool = False


def body(mark: str) -> bytes:
    return b'{"model":"sim/plain","messages":[],"user":"%s"}' % mark.encode()


def relayed(mark: str) -> bytes:
    """What the upstream is sent of it."""
    return b'{"model":"plain","messages":[],"user":"%s"}' % mark.encode()


def good(mark: str, *fields: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body(mark)), *fields) + body(mark)


def head(*fields: bytes, line: bytes = f"POST {CHAT} HTTP/1.1".encode(), host: bytes = b"Host: penstock") -> bytes:
    lines = [line, host, b"Content-Type: application/json", *fields]
    return b"\r\n".join(one for one in lines if one) + b"\r\n\r\n"


OWN = body("own")
LENGTH = b"Content-Length: %d" % len(OWN)
SMUGGLED = good("smuggled")
CHUNKED = b"Transfer-Encoding: chunked"


def chunk(data: bytes, size: bytes | None = None, end: bytes = b"\r\n") -> bytes:
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + end


LAST = b"0\r\n\r\n"


def rows() -> Iterator[Row]:
    yield from _two_framings()
    yield from _codings()
    yield from _lengths()
    yield from _lines()
    yield from _chunks()
    yield from _trailers()
    yield from _targets()
    yield from _versions_and_methods()
    yield from _hosts()
    yield from _values()
    yield from _several()


def _two_framings() -> Iterator[Row]:
    for name, fields in {
        "length, coding": (LENGTH, CHUNKED),
        "coding, length": (CHUNKED, LENGTH),
        "length 0": (b"Content-Length: 0", CHUNKED),
        "length of the last chunk": (b"Content-Length: 5", CHUNKED),
        "coding in capitals": (LENGTH, b"TRANSFER-ENCODING: chunked"),
        "coding far away": (LENGTH, *(b"X-Pad-%d: x" % number for number in range(20)), CHUNKED),
        "coding folded": (LENGTH, b"Transfer-Encoding:\r\n chunked"),
        "coding gzip": (LENGTH, b"Transfer-Encoding: gzip"),
        "coding identity": (LENGTH, b"Transfer-Encoding: identity"),
        "three": (LENGTH, CHUNKED, b"Content-Length: 0"),
    }.items():
        yield Row("two framings", f"{name}, by chunks", head(*fields) + chunk(OWN) + LAST + SMUGGLED)
        yield Row("two framings", f"{name}, empty", head(*fields) + LAST + SMUGGLED)


def _codings() -> Iterator[Row]:
    for value in (
        b"xchunked", b"chunkedx", b"chunk", b"identity", b"cow", b"trailers", b"gzip", b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"chunked,", b",chunked", b"chunked;q=1",
        b"chunked; x", b"'chunked'", b'"chunked"', b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x00",
        b"\x00",
        b"chunked\x7f", b"\xffchunked", b"\xc2\xa0chunked", b"chu nked", b"Chunked", b"CHUNKED", b"", b"chunked\r\n x",
        b"\r\n chunked", b"x\r\n chunked", b"chunked\rx: y", b"chunked\nx: y",
    ):  # fmt: skip
        raw = head(b"Transfer-Encoding: " + value) + chunk(OWN) + LAST
        yield Row("codings", repr(value), raw + SMUGGLED)
    for name, fields in {
        "twice": (CHUNKED, CHUNKED),
        "chunked, identity on two lines": (CHUNKED, b"Transfer-Encoding: identity"),
        "identity, chunked on two lines": (b"Transfer-Encoding: identity", CHUNKED),
        "space before the colon": (b"Transfer-Encoding : chunked",),
        "tab before the colon": (b"Transfer-Encoding\t: chunked",),
        "space before the name": (b" Transfer-Encoding: chunked",),
        "NUL in the name": (b"Transfer\x00-Encoding: chunked",),
        "no colon": (b"Transfer-Encoding chunked",),
        "behind a CR": (b"X-A: y\rTransfer-Encoding: chunked",),
        "behind a LF": (b"X-A: y\nTransfer-Encoding: chunked",),
        "behind a NUL": (b"X-A: y\x00Transfer-Encoding: chunked",),
    }.items():
        yield Row("codings", name, head(*fields) + chunk(OWN) + LAST + SMUGGLED)
    # A name of another spelling is another name: there is no body, and what follows is no request.
    for other in (b"Transfer_Encoding", b"Transfer-Encodings", b"X-Transfer-Encoding"):
        yield Row("codings", other.decode(), head(other + b": chunked") + chunk(OWN) + LAST + SMUGGLED)
    for value in (b"chunked", b"chunked ", b"   chunked   "):
        raw = head(b"Transfer-Encoding:" + value) + chunk(OWN) + LAST
        yield Row("codings", f"white space {value!r}", raw, ("own",), valid=True)


def _lengths() -> Iterator[Row]:
    size = len(OWN)
    for value in (
        b"+%d" % size, b"-%d" % size, b"-1", b"0x%x" % size, b"%d.0" % size, b"%de0" % size, b"%d,%d" % (size, size),
        b"%d, %d" % (size, size), b"%d %d" % (size, size), b"%d;" % size, b"%d a" % size, b"a%d" % size, b"",
        b"%d\x00" % size,
        b"\xd9\xa5", b"\xff", b"%d\x0b" % size, b"1_0", b"18446744073709551616", b"99999999999999999999999",
        b"%d\r\n 0" % size,
        b"'%d'" % size, b"NaN",
    ):  # fmt: skip
        yield Row("lengths", repr(value), head(b"Content-Length: " + value) + OWN + SMUGGLED)
    for name, fields in {
        "twice the same": (LENGTH, LENGTH),
        "twice, first longer": (LENGTH, b"Content-Length: 0"),
        "twice, first shorter": (b"Content-Length: 0", LENGTH),
        "space before the colon": (b"Content-Length : %d" % size,),
        "tab before the colon": (b"Content-Length\t: %d" % size,),
        "space before the name": (b" Content-Length: %d" % size,),
        "behind a CR": (b"X-A: y\rContent-Length: %d" % size,),
        "behind a LF": (b"X-A: y\nContent-Length: %d" % size,),
    }.items():
        yield Row("lengths", name, head(*fields) + OWN + SMUGGLED)
    for other in (b"Content_Length", b"Content-Lengths"):
        yield Row("lengths", other.decode(), head(other + b": %d" % size) + OWN + SMUGGLED)
    yield Row("lengths", "none", head() + OWN + SMUGGLED)
    yield Row("lengths", "too short", head(b"Content-Length: %d" % (size - 1)) + OWN + SMUGGLED)
    yield Row("lengths", "too long", head(b"Content-Length: %d" % (size + 9)) + OWN)
    yield Row("lengths", "of all that follows", head(b"Content-Length: %d" % len(OWN + SMUGGLED)) + OWN + SMUGGLED)
    for value in (b"%d ", b"\t%d", b"000%d"):
        yield Row("lengths", f"{value!r}", head(b"Content-Length:" + value % size) + OWN, ("own",))
    yield Row("lengths", "plain", head(LENGTH) + OWN, ("own",), valid=True)


def _lines() -> Iterator[Row]:
    line = f"POST {CHAT} HTTP/1.1".encode()
    plain = head(LENGTH)
    for name, raw in {
        "bare LF throughout": plain.replace(b"\r\n", b"\n"),
        "bare LF after the first line": plain.replace(b"1.1\r\n", b"1.1\n"),
        "bare LF after a field": plain.replace(b"penstock\r\n", b"penstock\n"),
        "bare LF as the blank line": plain.removesuffix(b"\r\n") + b"\n",
        "bare CR throughout": plain.replace(b"\r\n", b"\r"),
        "bare CR after a field": plain.replace(b"penstock\r\n", b"penstock\r"),
        "CR CR LF": plain.replace(b"penstock\r\n", b"penstock\r\r\n"),
        "LF CR": plain.replace(b"penstock\r\n", b"penstock\n\r"),
        "CR CR LF as the blank line": plain.removesuffix(b"\r\n") + b"\r\r\n",
        "a space before the first line": b" " + plain,
        "NUL before the first line": b"\x00" + plain,
        "BOM before the first line": b"\xef\xbb\xbf" + plain,
        "a tab": plain.replace(b"POST ", b"POST\t"),
        "space after the version": plain.replace(b"1.1\r\n", b"1.1 \r\n"),
        "more after the version": plain.replace(b"1.1\r\n", b"1.1 x\r\n"),
        "NUL in the first line": plain.replace(b"1.1\r\n", b"1.1\x00\r\n"),
        "space before the first field": plain.replace(b"Host", b" Host"),
        "tab before the first field": plain.replace(b"Host", b"\tHost"),
    }.items():
        yield Row("lines", name, raw + OWN + SMUGGLED)
    for field in (
        b"X-A : y", b"X-A\t: y", b"X A: y", b"X(A: y", b"X[A]: y", b"X,A: y", b"X@A: y", b'X"A": y', b"X\x00A: y",
        b"X\x7fA: y",
        b"\xc3\xa9: y", b": y", b" : y", b"X-A", b"=", b"X-A: y\r\n z", b"X-A: y\r\n\tz", b"X-A:\r\n y",
        b"X-A: y\r\n \r\n z",
        b"X-A: y\rz", b"X-A: y\nz", b"X-A: y\x00z", b"X-A: \x00", b"X/A: y", b"{X}: y",
    ):  # fmt: skip
        yield Row("lines", repr(field), head(LENGTH, field) + OWN + SMUGGLED)
    yield Row("lines", "two spaces", plain.replace(b"POST ", b"POST  ") + OWN, ("own",))
    yield Row("lines", "an empty line before", b"\r\n" + plain + OWN, ("own",))
    yield Row("lines", "two empty lines before", b"\r\n\r\n" + plain + OWN, ("own",))
    yield Row("lines", "cut", line + b"\r\nHost: x\r\nX-A")
    yield Row("lines", "no blank line", plain.removesuffix(b"\r\n") + OWN + b"\r\n" + SMUGGLED)


def _chunks() -> Iterator[Row]:
    size = b"%x" % len(OWN)
    for name, raw in {
        "0x": chunk(OWN, b"0x" + size),
        "plus": chunk(OWN, b"+" + size),
        "minus": chunk(OWN, b"-" + size),
        "a space before": chunk(OWN, b" " + size),
        "a tab before": chunk(OWN, b"\t" + size),
        "a space behind": chunk(OWN, size + b" "),
        "a tab behind": chunk(OWN, size + b"\t"),
        "nothing": chunk(OWN, b""),
        "no hex": chunk(OWN, b"g"),
        "h behind": chunk(OWN, size + b"h"),
        "underscore": chunk(OWN, b"0_" + size),
        "full-width digits": chunk(OWN, "\uff15".encode()),
        "NUL": chunk(OWN, size + b"\x00"),
        "17 digits": chunk(OWN, b"1" + size.rjust(16, b"0")),
        "2^64": chunk(OWN, b"10000000000000000"),
        "2^64 - 1": chunk(OWN, b"ffffffffffffffff"),
        "2^63": chunk(OWN, b"8000000000000000"),
        "CR alone": size + b"\r" + OWN + b"\r\n",
        "LF alone": size + b"\n" + OWN + b"\r\n",
        "LF after the data": chunk(OWN, end=b"\n"),
        "CR after the data": chunk(OWN, end=b"\r"),
        "nothing after the data": chunk(OWN, end=b""),
        "two characters after the data": chunk(OWN, end=b"XX"),
        "more data than its size": chunk(OWN + b"x", size),
        "less data than its size": chunk(OWN[:-1], size),
        "LF in an extension": chunk(OWN, size + b";x\n;y"),
        "CR in an extension": chunk(OWN, size + b";x\r;y"),
        "NUL in an extension": chunk(OWN, size + b";\x00"),
        "0xff in an extension": chunk(OWN, size + b";\xff"),
        "LF ends an extension": size + b";x\n" + OWN + b"\r\n",
        "two extensions without a semicolon": chunk(OWN, size + b" x y"),
        "a space before an extension": chunk(OWN, size + b" ;x"),
        "an open quote": chunk(OWN, size + b';x="y'),
        "a request in an extension": chunk(OWN, size + b";\r\n" + SMUGGLED),
    }.items():
        yield Row("chunks", name, head(CHUNKED) + raw + LAST + SMUGGLED)
    for name, last in {
        "LF LF": b"0\n\n",
        "CR LF LF": b"0\r\n\n",
        "CR CR": b"0\r\r",
        "a space": b"0 \r\n\r\n",
        "0x0": b"0x0\r\n\r\n",
        "minus 0": b"-0\r\n\r\n",
        "no blank line": b"0\r\n",
        "letters behind": b"0\r\nX",
    }.items():
        yield Row("chunks", f"last chunk {name}", head(CHUNKED) + chunk(OWN) + last + SMUGGLED)
    # An extension is nothing to a reader that knows none; these may be read or refused, but only so.
    for extension in (b";x", b";x=y", b';x="y"', b";x=y;z", b';x="a\\"b"', b";", b";x=", b';x="\r"'):
        yield Row("chunks", f"extension {extension!r}", head(CHUNKED) + chunk(OWN, size + extension) + LAST, ("own",))
    for name, raw in {
        "one": chunk(OWN) + LAST,
        "capitals": chunk(OWN[:10], b"A") + chunk(OWN[10:]) + LAST,
        "zeros before": chunk(OWN, b"000" + size) + LAST,
        "a long last": chunk(OWN) + b"0000\r\n\r\n",
        "one a byte": b"".join(chunk(OWN[at : at + 1]) for at in range(len(OWN))) + LAST,
        "two": chunk(OWN[:9]) + chunk(OWN[9:]) + LAST,
    }.items():
        yield Row("chunks", f"valid: {name}", head(CHUNKED) + raw, ("own",), valid=True)
    yield Row(
        "chunks", "only extensions", head(CHUNKED) + (b"1;" + b"x" * 4000 + b"\r\n \r\n") * 400 + chunk(OWN) + LAST
    )
    yield Row("chunks", "one long extension", head(CHUNKED) + b"1;" + b"x" * 2_000_000 + b"\r\n \r\n" + LAST)


def _trailers() -> Iterator[Row]:
    for field in (
        b"X-A : y", b"X A: y", b" X-A: y", b"X-A: y\r\n z", b"X-A: y\nz", b"X-A: y\x00", b"X-A", b": y", b"X-A: y\rz",
        b"X-A: y\n",
    ):  # fmt: skip
        yield Row("trailers", repr(field), head(CHUNKED) + chunk(OWN) + b"0\r\n" + field + b"\r\n\r\n" + SMUGGLED)
    for field in (
        b"X-A: y", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: evil", b"Authorization: Bearer evil",
        b"Content-Type: text/html", b"Expect: 100-continue", b"Upgrade: websocket", b"X-Penstock-Provider: evil",
        b"X-A: y\r\nX-B: z",
    ):  # fmt: skip
        raw = head(CHUNKED, b"Trailer: X-A") + chunk(OWN) + b"0\r\n" + field + b"\r\n\r\n"
        yield Row("trailers", f"dropped: {field!r}", raw, ("own",))
    many = b"".join(b"X-%d: y\r\n" % number for number in range(80))
    yield Row("trailers", "80 fields", head(CHUNKED) + chunk(OWN) + b"0\r\n" + many + b"\r\n" + SMUGGLED)
    yield Row("trailers", "20 KiB", head(CHUNKED) + chunk(OWN) + b"0\r\nX: " + b"y" * 20480 + b"\r\n\r\n" + SMUGGLED)


def _targets() -> Iterator[Row]:
    path = CHAT.encode()
    for target in (
        b"http://penstock" + path, b"http://evil.example" + path, b"HTTP://penstock" + path, b"https://penstock" + path,
        b"//penstock" + path, b"///" + path, b"penstock:80", b"penstock", b"*", b"", b"?" + path, b"http://",
        b"http:" + path,
        b"ftp://penstock" + path, b"/v1//chat/completions", b"/v1/chat//completions", b"/v1/./chat/completions",
        b"/v1/x/../chat/completions", b"/v1/%2e/chat/completions", b"/v1/x/%2e%2e/chat/completions",
        b"/v1/chat%2fcompletions",
        b"/v1/chat%2Fcompletions", b"/v1\\chat\\completions", b"/v1/chat%5ccompletions", b"/v1/chat/completions%00",
        b"/v1/chat/completions%0d%0a", b"/v1/chat/completions/", b"/v1/chat/completions#x",
        b"/v1/chat/completions\x00", b"/v1/chat/completions\x7f", b"/v1/chat/\xff", b"/v1/ch\xc3\xa1t/completions",
        b"/v1/chat /completions", b"/V1/chat/completions", b"/v1/chat/completions%",
        b"/admin//ledger", b"/admin/%2e%2e/v1/chat/completions", b"/admin/../v1/chat/completions", b"/" + b"x" * 5000,
    ):  # fmt: skip
        raw = head(LENGTH, line=b"POST " + target + b" HTTP/1.1") + OWN
        yield Row("targets", repr(target[:40]), raw)
    for target in (b"/v1/chat/completions;x", b"/v1/%63hat/completions"):  # no route of ours: relayed as they are
        yield Row("targets", repr(target), head(LENGTH, line=b"POST " + target + b" HTTP/1.1") + OWN, (OWN,))
    raw = head(LENGTH, line=b"POST " + path + b"?api-version=1 HTTP/1.1") + OWN
    yield Row("targets", "a query", raw, ("own",), valid=True)


def _versions_and_methods() -> Iterator[Row]:
    path = CHAT.encode()
    for version in (
        b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/2", b"HTTP/1", b"HTTP/1.", b"HTTP/.1",
        b"HTTP/1.1.1", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1.10", b"HTTP/11", b"http/1.1", b"HTTPS/1.1", b"XTTP/1.1",
        b"1.1",
        b"HTTP/1,1", b"HTTP /1.1", b"ICE/1.0", b"RTSP/1.0", b"",
    ):  # fmt: skip
        yield Row("versions", repr(version), head(LENGTH, line=b"POST " + path + b" " + version) + OWN + SMUGGLED)
    yield Row(
        "versions", "1.0 in chunks", head(CHUNKED, line=b"POST " + path + b" HTTP/1.0") + chunk(OWN) + LAST + SMUGGLED
    )
    yield Row("versions", "a line of 0.9", b"GET /v1/models\r\n" + SMUGGLED)
    yield Row(
        "versions", "HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    )
    yield Row("versions", "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500)
    yield Row("versions", "SSH", b"SSH-2.0-OpenSSH_9.6\r\n")
    raw = head(LENGTH, line=b"POST " + path + b" HTTP/1.0", host=b"") + OWN
    yield Row("versions", "1.0 without a host", raw, ("own",))
    for method in (
        b"TRACE", b"TRACK", b"CONNECT", b"PROPFIND", b"SEARCH", b"DESCRIBE", b"M-SEARCH", b"BREW", b"post", b"Post",
        b"POST\x00",
        b"P\xc3\x96ST", b"POSTPOST", b"X" * 200, b"\r\nPOST x", b"QUERY", b"PURGE",
    ):  # fmt: skip
        yield Row("methods", repr(method[:20]), head(LENGTH, line=method + b" " + path + b" HTTP/1.1") + OWN)
    yield Row(
        "methods", "CONNECT to a host", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n" + SMUGGLED
    )
    yield Row(
        "methods", "CONNECT with a length", head(LENGTH, line=b"CONNECT evil.example:443 HTTP/1.1") + OWN + SMUGGLED
    )
    yield Row("methods", "OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")


def _hosts() -> Iterator[Row]:
    for name, raw in {
        "none": head(LENGTH, host=b""),
        "two": head(LENGTH, b"Host: evil.example"),
        "two alike": head(LENGTH, b"Host: penstock"),
        "folded": head(LENGTH, host=b"Host:\r\n penstock"),
        "behind a space": head(LENGTH, host=b"Host : penstock"),
        "with NUL": head(LENGTH, host=b"Host: pen\x00stock"),
    }.items():
        yield Row("hosts", name, raw + OWN + SMUGGLED)
    for host in (b"", b"evil.example", b"[::1]", b"x:99999", b"a/b", b"a@b"):
        yield Row("hosts", repr(host), head(LENGTH, host=b"Host: " + host) + OWN, ("own",))


def _values() -> Iterator[Row]:
    for value in (
        b"\x01",
        b"\x08",
        b"\x0b",
        b"\x0c",
        b"\x1b[31m",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xc3\x28",
        b"a\xfe\xffz",
        b"\x80",
    ):
        for name in (b"X-A", b"User-Agent"):
            yield Row("values", f"{name.decode()}: {value!r}", head(LENGTH, name + b": " + value) + OWN + SMUGGLED)
    for value in (b"\xc3\xa9", "水".encode(), b"a\tb"):
        yield Row("values", f"X-A: {value!r}", head(LENGTH, b"X-A: " + value) + OWN, ("own",), valid=True)
    for number, valid in ((60, True), (61, True), (62, False), (200, False), (5000, False)):
        fields = [b"X-%d: y" % one for one in range(number)]  # and three more
        raw = head(LENGTH, *fields) + OWN
        yield Row("values", f"{number + 3} fields", raw, ("own",) if valid else (), valid=valid)
    yield Row("values", "a field of 20 KiB", head(LENGTH, b"X-A: " + b"y" * 20480) + OWN)
    yield Row("values", "40 KiB of fields", head(LENGTH, *(b"X-%d: " % one + b"y" * 8000 for one in range(5))) + OWN)
    yield Row(
        "values",
        "30 KiB",
        head(LENGTH, *(b"X-%d: " % one + b"y" * 10000 for one in range(3))) + OWN,
        ("own",),
        valid=True,
    )


def _several() -> Iterator[Row]:
    three = good("first") + good("second") + good("third")
    yield Row("several", "three", three, ("first", "second", "third"), valid=True)
    chunked = head(CHUNKED) + chunk(body("first")) + LAST
    yield Row("several", "by chunks, by length", chunked + good("second"), ("first",))
    inner = b"Content-Length: %d" % len(SMUGGLED)
    for method in (b"GET", b"DELETE", b"OPTIONS", b"POST"):
        line = method + b" /v1/models HTTP/1.1"
        passed = (SMUGGLED,) if method in (b"POST", b"DELETE") else ()  # relayed as it is, which is a body all the same
        yield Row("several", f"a body to {line.decode()}", head(inner, line=line) + SMUGGLED, passed)
        in_chunks = head(CHUNKED, line=line) + chunk(SMUGGLED) + LAST
        yield Row("several", f"chunks to {line.decode()}", in_chunks, passed)
    yield Row(
        "several", "a relayed body", head(inner, line=b"PUT /v1/files/x HTTP/1.1") + SMUGGLED, (SMUGGLED,), valid=True
    )
    yield Row("several", "an unread body", head(inner, line=b"POST /nowhere HTTP/1.1") + SMUGGLED)
    yield Row("several", "an unread form", head(inner, line=b"POST /admin/ledger HTTP/1.1") + SMUGGLED)
    yield Row("several", "closed by the client", good("own", b"Connection: close") + SMUGGLED, ("own",))
    for protocol in (b"h2c", b"websocket", b"TLS/1.0", b"x"):
        upgrade = (
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: " + protocol,
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        )
        yield Row("several", f"upgrade to {protocol!r}", good("own", *upgrade) + SMUGGLED, ("own",))
        get = head(*upgrade, line=b"GET /v1/models HTTP/1.1")
        yield Row("several", f"GET, upgrade to {protocol!r}", get + SMUGGLED)
    yield Row("several", "an unknown expectation", good("own", b"Expect: 200-ok"), ("own",))
    yield Row("several", "an expectation with its body", good("own", b"Expect: 100-continue"), ("own",), valid=True)
    yield Row("several", "connection names the length", good("own", b"Connection: content-length"), ("own",))
    yield Row("several", "connection names the type", good("own", b"Connection: content-type, host"), ("own",))
