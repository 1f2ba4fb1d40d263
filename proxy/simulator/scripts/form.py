"""Answers of unusual form: pace, size, framing, encoding, usage, headers. Only of the compressed some are not sound."""

import base64
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import orjson

from proxy.simulator.ask import Ask, UsagePlace, with_events, with_pieces
from proxy.simulator.delivery import (
    body_of,
    document,
    event_head,
    flow,
    normal,
    request_id,
    stream_of,
    streamed,
    type_of,
    whole_of,
)
from proxy.simulator.scripts.before import plain
from proxy.simulator.scripts.script import WAIT_S_MAX, BadArgument, Cue, Play, Script, same
from proxy.simulator.wire import CHUNKED, JSON, LAST_CHUNK, Ending, Steps, chunk, head
from proxy.terms import Usage

_EVENTS: Final = 100
_EVENT_BYTES: Final = 600 * 1024
_EVENT_BYTES_MAX: Final = 256 * 1024 * 1024
_BOMB_MIB: Final = 1024
_BOMB_MIB_MAX: Final = 16 * 1024
_MIB: Final = 1024 * 1024
_GZIP: Final = b"content-encoding: gzip\r\n"
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no flags, no time
_MARK: Final = "MARK-OF-THE-SIMULATOR"
_HOSTILE: Final = (
    b"set-cookie: session=stolen; Domain=127.0.0.1; Path=/\r\n"
    b"x-penstock-route: evil\r\n"
    b"x-ratelimit-limit-requests: 1\r\n"
    b"access-control-allow-origin: *\r\n"
    b"connection: x-secret\r\n"
    b"x-secret: hop-by-hop\r\n"
    b"x-latin: caf\xe9 \xff\r\n"
    b"x-foo: bar\r\n"
)


# Pace ---------------------------------------------------------------------------------------------------------------


def _paced(cue: Cue) -> Steps:
    ask, wait_s = with_events(cue.ask, cue.count(0, _EVENTS)), cue.wait_s(1, "40ms")
    yield from _apart(ask, wait_s)


def _slow(cue: Cue) -> Steps:
    wait_s = cue.wait_s(0, "200ms")
    yield from _apart(cue.ask, wait_s)


def _apart(ask: Ask, wait_s: float) -> Steps:
    """The first content event at once, the others `wait_s` apart."""
    content_events = len(ask.pieces) * ask.choices
    for place, step in enumerate(streamed(ask)):
        if 1 < place <= content_events:
            yield wait_s
        yield step


def _clock(cue: Cue) -> Steps:
    """What is in each event is when it was made, so that a reader on the same machine can tell how long it took."""
    count, wait_s = cue.count(0, _EVENTS), cue.wait_s(1, "40ms")
    marked = with_pieces(cue.ask, (_MARK,))
    stream = stream_of(marked)
    before, _, after = next(stream.content).partition(_MARK.encode())
    yield event_head(marked) + b"".join(map(chunk, stream.opening))
    for place in range(count):
        if place:
            yield wait_s
        yield chunk(b"%b%d %b" % (before, time.monotonic_ns(), after))
    yield b"".join(map(chunk, (*stream.closing, *stream.done))) + LAST_CHUNK


def _waited(cue: Cue) -> Steps:
    """As long as the stream would take, then the whole answer."""
    count, wait_s = cue.count(0, _EVENTS), cue.wait_s(1, "40ms")
    yield min(max(count - 1, 0) * wait_s, WAIT_S_MAX)
    yield from normal(with_events(cue.ask, count))


def _waited_slow(cue: Cue) -> Steps:
    yield cue.wait_s(0, "200ms")
    yield from normal(cue.ask)


# Size ---------------------------------------------------------------------------------------------------------------


def _events(cue: Cue) -> Steps:
    yield from normal(with_events(cue.ask, cue.count(0, _EVENTS)))


def _burst(cue: Cue) -> Steps:
    """For benchmarks: on loopback a write costs the kernel 5 us, several times what the event itself costs here."""
    yield b"".join(step for step in _events(cue) if isinstance(step, bytes))


def _big_event(cue: Cue) -> Steps:
    """The content event is BYTES long, its blank line included."""
    size = cue.count(0, _EVENT_BYTES, _EVENT_BYTES_MAX)
    least = len(next(stream_of(with_pieces(cue.ask, ("",))).content)) if cue.ask.stream else 0
    if size < least:
        raise BadArgument(f"expected at least {least} bytes, got {size}")
    yield from normal(with_pieces(cue.ask, ("a" * (size - least),)))


def _split(cue: Cue) -> Steps:
    size = max(1, cue.count(0, 1))
    whole = b"".join(step for step in normal(cue.ask) if isinstance(step, bytes))
    for at in range(0, len(whole), size):
        yield whole[at : at + size]
        yield 0.0  # the loop's next turn: else the transport would put the writes together again


# Framing ------------------------------------------------------------------------------------------------------------


def _framed(change: Callable[[Iterator[bytes]], Iterable[bytes]]) -> Play:
    def play(cue: Cue) -> Steps:
        yield from flow(cue.ask, change(stream_of(cue.ask).events()))

    return play


def _crlf(events: Iterator[bytes]) -> Iterator[bytes]:
    return (event.replace(b"\n", b"\r\n") for event in events)


def _cr(events: Iterator[bytes]) -> Iterator[bytes]:
    return (event.replace(b"\n", b"\r") for event in events)


def _bom(events: Iterator[bytes]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf" + next(events)
    yield from events


def _multiline(events: Iterator[bytes]) -> Iterator[bytes]:
    """The JSON is broken after its first comma between members: lines are joined with LF, which JSON ignores."""
    return (event.replace(b',"', b',\ndata: "', 1) for event in events)


def _comments(events: Iterator[bytes]) -> Iterator[bytes]:
    return (b": ping\n\n" + event for event in events)


# Encoding -----------------------------------------------------------------------------------------------------------


def _gzip(cue: Cue) -> Steps:
    squeeze = zlib.compressobj(wbits=31)
    yield event_head(cue.ask, _GZIP)
    for event in stream_of(cue.ask).events():
        yield chunk(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
    yield chunk(squeeze.flush()) + LAST_CHUNK


def _gzip_whole(cue: Cue) -> Steps:
    yield from document(cue.ask, zlib.compress(whole_of(cue.ask), wbits=31), _GZIP, content_type=type_of(cue.ask))


def _bad_gzip(cue: Cue) -> Steps:
    """Corrupt after K content events; after 0 nothing at all can be read."""
    count = cue.count(0, 0)
    squeeze = zlib.compressobj(wbits=31)
    stream = stream_of(with_events(cue.ask, count))
    yield event_head(cue.ask, _GZIP)
    if count:
        for event in (*stream.opening, *stream.content):
            yield chunk(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
    else:
        yield chunk(_GZIP_HEAD)
    yield chunk(b"\xff" * 64) + LAST_CHUNK  # a deflate block of the reserved type


def _bad_gzip_whole(cue: Cue) -> Steps:
    squeezed = zlib.compress(whole_of(cue.ask), wbits=31)
    corrupt = squeezed[:10] + b"\xff" * (len(squeezed) - 10)
    yield from document(cue.ask, corrupt, _GZIP, content_type=type_of(cue.ask))


def _bomb(cue: Cue) -> Steps:
    """The answer's text is `MIB` mebibytes of one letter, a thousandth of it on the wire.

    One mebibyte is compressed once: a full flush makes its bytes independent of what came before, so that they can be
    sent again and again. Only the checksum is computed over all of it, block by block as they leave.
    """
    mib = cue.count(0, _BOMB_MIB, _BOMB_MIB_MAX)
    ask = with_pieces(cue.ask, (_MARK,))
    whole = body_of(ask)
    before, _, after = whole.partition(_MARK.encode())
    block = b"a" * _MIB
    squeezed = _deflated(block, zlib.Z_FULL_FLUSH)
    yield event_head(ask, _GZIP) if ask.stream else head(200, type_of(ask), CHUNKED + _GZIP, request_id(ask))
    yield chunk(_GZIP_HEAD + _deflated(before, zlib.Z_FULL_FLUSH))
    checksum = zlib.crc32(before)
    for _ in range(mib):
        checksum = zlib.crc32(block, checksum)
        yield chunk(squeezed)
        yield 0.0  # other connections are served between two blocks
    size = len(before) + mib * _MIB + len(after)
    trailer = struct.pack("<II", zlib.crc32(after, checksum), size & 0xFFFFFFFF)
    yield chunk(_deflated(after, zlib.Z_FINISH) + trailer) + LAST_CHUNK


def _deflated(data: bytes, flush: int) -> bytes:
    squeeze = zlib.compressobj(level=9, wbits=-15)
    return squeeze.compress(data) + squeeze.flush(flush)


# Usage --------------------------------------------------------------------------------------------------------------


def _usage_at(place: UsagePlace) -> Play:
    def play(cue: Cue) -> Steps:
        yield from normal(replace(cue.ask, usage_place=place))

    return play


def _tokens(cue: Cue) -> Steps:
    given = cue.count(0, 100)
    usage = Usage(given, cue.count(1, given), cue.count(2, 0), cue.count(3, 0), cue.count(4, 0))
    if usage.cached_tokens + usage.cache_write_tokens > usage.input_tokens:
        raise BadArgument(f"expected at most {given} cached tokens, which are part of the input")
    yield from normal(replace(cue.ask, usage=usage))


# What arrived, and what comes with it ---------------------------------------------------------------------------------


def _hostile_headers(cue: Cue) -> Steps:
    yield from normal(cue.ask, _HOSTILE)


def _echo(cue: Cue) -> Steps:
    request = cue.ask.request
    yield from normal(with_pieces(cue.ask, (request.body.decode(errors="replace"),)))


def _echo_whole(cue: Cue) -> Steps:
    request = cue.ask.request
    if type_of(cue.ask) != JSON:
        yield from normal(cue.ask)
        return
    text = request.body.decode(errors="replace")
    answer: dict[str, Any] = orjson.loads(whole_of(with_pieces(cue.ask, (text,))))
    answer["echo"] = {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body": text,
        "body_base64": base64.b64encode(request.body).decode(),
    }
    yield from document(cue.ask, orjson.dumps(answer))


def _cut_gzip(cue: Cue) -> Steps:
    """Compressed, and cut: the decoder never sees the end."""
    yield event_head(cue.ask, _GZIP)
    squeeze = zlib.compressobj(wbits=31)
    for event in islice(stream_of(cue.ask).events(), cue.count(0, 5)):
        yield chunk(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
    yield Ending.FIN


SCRIPTS: Final = (
    Script("paced:N:WAIT", "N content events, WAIT apart", _paced, _waited),
    Script("slow:WAIT", "the normal answer's content events, WAIT apart", _slow, _waited_slow),
    Script("clock:N:WAIT", "as paced; each event's text is time.monotonic_ns()", _clock, _waited),
    same("events:N", "N content events at once, a write each", _events),
    same("burst:N", "N content events in one write", _burst),
    same("big-event:BYTES", "one content event of that size", _big_event),
    same("split:N", "the normal answer in writes of N bytes", _split),
    Script("crlf", "lines end with CRLF", _framed(_crlf), plain, plain),
    Script("cr", "lines end with CR", _framed(_cr), plain, plain),
    Script("bom", "a byte order mark before the first event", _framed(_bom), plain, plain),
    Script("multiline", "each event's JSON is on two data lines", _framed(_multiline), plain, plain),
    Script("comments", "a comment before every event", _framed(_comments), plain, plain),
    Script("gzip", "compressed, though nobody asked", _gzip, _gzip_whole),
    Script("bad-gzip:K", "compressed, and corrupt after K events", _bad_gzip, _bad_gzip_whole),
    Script("cut-gzip:K", "compressed, then FIN after K events", _cut_gzip, _bad_gzip_whole),
    same("bomb:MIB", "a compressed answer that unpacks to MIB mebibytes", _bomb),
    same("no-usage", "no usage, asked for or not", _usage_at(UsagePlace.NOWHERE)),
    same("mistral-usage", "usage in the chunk with the finish reason, unasked", _usage_at(UsagePlace.LAST_CHOICE)),
    same("groq-usage", "usage in x_groq of the chunk with the finish reason", _usage_at(UsagePlace.X_GROQ)),
    same("moonshot-usage", "usage in choices[0] of the last chunk", _usage_at(UsagePlace.IN_CHOICE)),
    same("usage-every", "usage in every chunk, counted up", _usage_at(UsagePlace.EVERY)),
    same("tokens:IN[:OUT[:CACHED[:WRITTEN[:REASONING]]]]", "exactly this usage; OUT is IN if not given", _tokens),
    same("hostile-headers", "cookies, CORS, limits, hop-by-hop and odd bytes in headers", _hostile_headers),
    Script("echo", "the text is the request's body; without streaming also its headers, in `echo`", _echo, _echo_whole),
)
