"""Faults before any content: in the connection, the head, the status, the kind of body."""

from typing import Final

from proxy.simulator.answers import errors
from proxy.simulator.answers.errors import Wording, is_reason, reason, reasons
from proxy.simulator.delivery import (
    body_of,
    document,
    event_head,
    flow,
    half,
    normal,
    refusal,
    request_id,
    streamed,
    type_of,
    whole_of,
)
from proxy.simulator.scripts.script import BadArgument, Cue, Play, Script, same
from proxy.simulator.wire import (
    CHUNKED,
    JSON,
    LAST_CHUNK,
    Ending,
    Step,
    Steps,
    chunk,
    head,
    length,
)

_BIG_HEADER_BYTES: Final = 64 * 1024
_MANY_HEADERS: Final = 5000
_MISSING_BYTES: Final = 100
_KEEPALIVE_S: Final = 0.05
_KEEPALIVES_MAX: Final = 10_000
# A reader is told of a reset before it has read what came with it (asyncio and aiohttp both): give it the time.
RESET: Final[tuple[Step, ...]] = (0.02, Ending.RST)
_HTML: Final = (
    b"<!DOCTYPE html><html><head><title>Sign in to the network</title></head>"
    b"<body><h1>Welcome</h1><p>Please accept the terms to continue.</p></body></html>\n"
)


# The connection -----------------------------------------------------------------------------------------------------


def _refuse(_cue: Cue) -> Steps:
    yield Ending.RST


def _hangup(_cue: Cue) -> Steps:
    yield Ending.FIN


def _garbage(_cue: Cue) -> Steps:
    yield b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
    yield Ending.FIN


def _silent(_cue: Cue) -> Steps:
    yield Ending.SILENCE


def _delay(cue: Cue) -> Steps:
    yield cue.wait_s(0, "1s")
    yield from normal(cue.ask)


# The head -----------------------------------------------------------------------------------------------------------


def _half_head(_cue: Cue) -> Steps:
    yield b"HTTP/1.1 200 OK\r\nserver: penstock-simulator\r\ncontent-ty"
    yield Ending.FIN


def _big_header(cue: Cue) -> Steps:
    size = cue.count(0, _BIG_HEADER_BYTES)
    yield from normal(cue.ask, b"x-big: %b\r\n" % (b"a" * size))


def _many_headers(cue: Cue) -> Steps:
    count = cue.count(0, _MANY_HEADERS)
    yield from normal(cue.ask, b"".join(b"x-many-%d: a\r\n" % index for index in range(count)))


def _cl_and_te(cue: Cue) -> Steps:
    ask = cue.ask
    body = body_of(ask)
    yield head(200, type_of(ask), length(body) + CHUNKED, request_id(ask)) + chunk(body) + LAST_CHUNK


def _two_cl(cue: Cue) -> Steps:
    ask = cue.ask
    body = body_of(ask)
    yield head(200, type_of(ask), length(body) + length(body[1:]), request_id(ask)) + body


def _wrong_length(cue: Cue) -> Steps:
    ask = cue.ask
    body = body_of(ask)
    yield head(200, type_of(ask), length(body + b" " * _MISSING_BYTES), request_id(ask)) + body
    yield Ending.FIN


def _glued(cue: Cue) -> Steps:
    yield from normal(cue.ask)
    body = b'{"glued":"this answers nobody"}'
    yield head(200, JSON, length(body)) + body


def _early_hints(cue: Cue) -> Steps:
    yield b"HTTP/1.1 100 Continue\r\n\r\n"
    yield b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload; as=style\r\n\r\n"
    yield from normal(cue.ask)


def _redirect(cue: Cue) -> Steps:
    location = cue.rest(1) or "http://127.0.0.1:9/elsewhere"
    if not location.isascii() or not location.isprintable():
        raise BadArgument(f"expected a URL, got {location!r}")
    yield from document(cue.ask, b"{}", b"location: %b\r\n" % location.encode(), _code(cue, 302))


def _head_then_silence(cue: Cue) -> Steps:
    yield event_head(cue.ask)
    yield Ending.SILENCE


def _head_then_fin(cue: Cue) -> Steps:
    yield event_head(cue.ask) + LAST_CHUNK


def _head_then_cut(cue: Cue) -> Steps:
    yield event_head(cue.ask)
    yield Ending.FIN


def _json_head(cue: Cue) -> bytes:
    return head(200, type_of(cue.ask), length(whole_of(cue.ask)), request_id(cue.ask))


def _json_head_then_silence(cue: Cue) -> Steps:
    yield _json_head(cue)
    yield Ending.SILENCE


def _json_head_then_cut(cue: Cue) -> Steps:
    yield _json_head(cue)
    yield Ending.FIN


# The status ---------------------------------------------------------------------------------------------------------


def _code(cue: Cue, default: int) -> int:
    status = cue.count(0, default, 599)
    if status < 200:
        raise BadArgument(f"expected a status from 200 to 599, got {status}")
    return status


def _failed(cue: Cue, status: int, place: int) -> Steps:
    """`place`: where Retry-After in seconds, or the word for a reason, may stand in either order."""
    word, fields = "", b""
    for given in (one for one in cue.args[place:] if one):
        if is_reason(status, given):
            word = given
        elif given.isascii() and given.replace(".", "", 1).isdecimal():
            fields = b"retry-after: %b\r\n" % given.encode()
        else:
            known = ", ".join(["seconds for Retry-After", *reasons(status)])
            raise BadArgument(f"expected one of: {known}; got {given!r}")
    return refusal(cue.ask, status, reason(status, word), fields)


def _status(cue: Cue) -> Steps:
    yield from _failed(cue, _code(cue, 500), 1)


def _of_status(status: int) -> Play:
    def play(cue: Cue) -> Steps:
        yield from _failed(cue, status, 0)

    return play


def _once(cue: Cue) -> Steps:
    failed = _failed(cue, _code(cue, 500), len(cue.args))
    yield from failed if cue.memory.is_first(cue.rest(0)) else normal(cue.ask)


def _reject_usage(cue: Cue) -> Steps:
    if "stream_options" not in cue.ask.fields:
        yield from normal(cue.ask)
        return
    message = "Unrecognized request argument supplied: stream_options"
    wording = Wording("invalid_request_error", "unknown_parameter", message, "invalid_request_error")
    yield from refusal(cue.ask, 400, wording, param="stream_options")


# The kind of body ---------------------------------------------------------------------------------------------------


def _html(cue: Cue) -> Steps:
    yield from document(cue.ask, _HTML, content_type=b"text/html; charset=utf-8")


def _empty_body(cue: Cue) -> Steps:
    yield from document(cue.ask, b"")


def _not_json(cue: Cue) -> Steps:
    body = whole_of(cue.ask)
    yield from document(cue.ask, body[: len(body) // 2])


def _wording_of(code: str) -> tuple[Wording, str | int | None]:
    """An error's words for a status or a provider's own code, and the code as it is written."""
    if code.isdecimal():
        return reason(int(code)), int(code)
    return Wording("server_error", code, f"The provider failed: {code}.", "api_error"), code


def _error_first(cue: Cue) -> Steps:
    wording, code = _wording_of(cue.text(0, "429"))
    yield from flow(cue.ask, (errors.event(cue.ask.api, wording, code),))


def _error_in_200(cue: Cue) -> Steps:
    wording, _code = _wording_of(cue.text(0, "429"))
    yield from document(cue.ask, errors.body(cue.ask.api, wording))


def plain(cue: Cue) -> Steps:
    """For what a script has no fault of."""
    yield from normal(cue.ask)


def _keepalive(cue: Cue) -> Steps:
    count = cue.count(0, 3, _KEEPALIVES_MAX)
    steps = streamed(cue.ask)
    yield event_head(cue.ask)
    for _ in range(count):
        yield chunk(b": keep-alive\n\n")
        yield _KEEPALIVE_S
    first = next(steps)
    if isinstance(first, bytes):
        yield first.partition(b"\r\n\r\n")[2]
    yield from steps


def _keepalive_binary(cue: Cue) -> Steps:
    """Bytes have no comments: they only come late."""
    yield cue.count(0, 3, _KEEPALIVES_MAX) * _KEEPALIVE_S
    yield from normal(cue.ask)


def _keepalive_whole(cue: Cue) -> Steps:
    """DeepSeek's form: empty lines before the JSON."""
    count = cue.count(0, 3, _KEEPALIVES_MAX)
    yield head(200, type_of(cue.ask), CHUNKED, request_id(cue.ask))
    for _ in range(count):
        yield chunk(b"\n")
        yield _KEEPALIVE_S
    yield chunk(whole_of(cue.ask)) + LAST_CHUNK


def half_then(*steps: Step) -> Play:
    def play(cue: Cue) -> Steps:
        yield from half(cue.ask)
        yield from steps

    return play


_STATUSES: Final = (
    (400, "[:REASON]", "invalid_request_error; REASON: context, content"),
    (401, "", "the credential is not valid"),
    (402, "", "no credits are left"),
    (403, "[:REASON]", "not allowed from here; REASON credential blames the key"),
    (404, "[:REASON]", "no such model; REASON path: no such URL"),
    (413, "", "the body is too large"),
    (429, "[:SECONDS][:REASON]", "rate limited, with Retry-After; REASON quota: insufficient_quota"),
    (500, "[:SECONDS]", "the server had an error"),
    (503, "[:SECONDS]", "overloaded, with Retry-After"),
    (529, "[:SECONDS]", "overloaded, as Anthropic says it"),
)

SCRIPTS: Final = (
    same("refuse", "the connection is reset before any byte of an answer", _refuse),
    same("hangup", "the connection is closed before the status line", _hangup),
    same("garbage", "an SSH banner instead of a status line", _garbage),
    same("silent", "the request is taken and never answered", _silent),
    same("delay:WAIT", "the first byte comes after WAIT (200ms, 2s)", _delay),
    same("half-head", "half a header block, then FIN", _half_head),
    same("big-header:BYTES", "a header field of 64 KiB", _big_header),
    same("many-headers:COUNT", "5,000 header fields", _many_headers),
    same("cl-and-te", "Content-Length and Transfer-Encoding both", _cl_and_te),
    same("two-cl", "two Content-Length fields that differ", _two_cl),
    same("wrong-length", "a Content-Length larger than the body, then FIN", _wrong_length),
    same("glued", "a second response glued to the first one's end", _glued),
    same("early-hints", "100 Continue and 103 Early Hints before the 200", _early_hints),
    same("redirect:CODE:URL", "a redirect of status CODE to URL", _redirect),
    same("status:CODE[:SECONDS][:REASON]", "an error of that status, with Retry-After", _status),
    *(same(f"{code}{more}", f"status {code}: {about}", _of_status(code)) for code, more, about in _STATUSES),
    same("once:CODE[:KEY]", "status CODE the first time (of this KEY), then the normal answer", _once),
    same("reject-usage", "400 naming stream_options if the body has it", _reject_usage),
    same("html", "200 with an HTML page: a captive portal", _html),
    same("empty-body", "200 with an empty JSON body", _empty_body),
    same("not-json", "200 with JSON that stops half-way, its length correct", _not_json),
    Script("head-then-silence", "200 and headers, then nothing", _head_then_silence, _json_head_then_silence),
    Script("head-then-fin", "200 and headers, then a clean end without an event", _head_then_fin, _empty_body),
    Script("head-then-cut", "200 and headers, then FIN without the last chunk", _head_then_cut, _json_head_then_cut),
    Script(
        "error-first:CODE",
        "the first event is an error of this code or status",
        _error_first,
        _error_in_200,
        _error_in_200,
    ),
    same("error-in-200:CODE", "200 with an error as its JSON body", _error_in_200),
    Script(
        "json-for-stream:CODE",
        "200 with a JSON error where a stream was asked for",
        _error_in_200,
        plain,
        _error_in_200,
    ),
    Script(
        "keepalive:COUNT",
        "COUNT comments, 50 ms apart, before the first event",
        _keepalive,
        _keepalive_whole,
        _keepalive_binary,
    ),
)
