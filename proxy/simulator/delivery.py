"""Turns answers into steps: what every script is put together from.

A normal stream is written as: the head with the opening events, each content event by itself, and the rest with the
last chunk. That is how providers' writes arrive, and 100 content events are 100 writes.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from proxy.simulator.answers import chat, completions, embeddings, errors, messages, responses
from proxy.simulator.answers.stream import Stream
from proxy.simulator.ask import Ask, with_events
from proxy.simulator.wire import CHUNKED, EVENT_STREAM, JSON, LAST_CHUNK, Step, Steps, chunk, head, length
from proxy.terms import Api

WHOLE: Final[Mapping[Api, Callable[[Ask], bytes]]] = MappingProxyType(
    {
        Api.CHAT: chat.whole,
        Api.COMPLETIONS: completions.whole,
        Api.RESPONSES: responses.whole,
        Api.MESSAGES: messages.whole,
        Api.COUNT_TOKENS: messages.count,
        Api.EMBEDDINGS: embeddings.whole,
    }
)
STREAM: Final[Mapping[Api, Callable[[Ask], Stream]]] = MappingProxyType(
    {
        Api.CHAT: chat.stream,
        Api.COMPLETIONS: completions.stream,
        Api.RESPONSES: responses.stream,
        Api.MESSAGES: messages.stream,
    }
)


def whole_of(ask: Ask) -> bytes:
    return WHOLE[ask.api](ask)


def stream_of(ask: Ask) -> Stream:
    return STREAM[ask.api](ask)


def request_id(ask: Ask) -> bytes:
    return b"req_" + ask.digest


def event_head(ask: Ask, fields: bytes = b"", framing: bytes = CHUNKED) -> bytes:
    return head(200, EVENT_STREAM, b"cache-control: no-cache\r\n" + framing + fields, request_id(ask))


def normal(ask: Ask, fields: bytes = b"") -> Steps:
    """The well-formed answer; `fields` are more header lines."""
    return streamed(ask, fields) if ask.stream else document(ask, whole_of(ask), fields)


def document(ask: Ask, body: bytes, fields: bytes = b"", status: int = 200, content_type: bytes = JSON) -> Steps:
    yield head(status, content_type, length(body) + fields, request_id(ask)) + body


def streamed(ask: Ask, fields: bytes = b"") -> Steps:
    stream = stream_of(ask)
    opening = b"".join(map(chunk, stream.opening))
    yield event_head(ask, fields) + opening
    for event in stream.content:
        yield b"%x\r\n%b\r\n" % (len(event), event)
    yield b"".join(map(chunk, (*stream.closing, *stream.done))) + LAST_CHUNK


def flow(ask: Ask, events: Iterable[bytes]) -> Steps:
    """Each of these events by itself, then a clean end."""
    yield event_head(ask)
    for event in events:
        yield chunk(event)
    yield LAST_CHUNK


def until(ask: Ask, count: int) -> Generator[Step, None, Stream]:
    """The head, the opening and `count` content events of filler; returns the stream, which has one event more."""
    stream = stream_of(with_events(ask, count + 1))
    yield event_head(ask) + b"".join(map(chunk, stream.opening))
    for event in islice(stream.content, count * ask.choices):
        yield chunk(event)
    return stream


def half(ask: Ask) -> Steps:
    """A JSON answer that stops in the middle of its announced length."""
    body = whole_of(ask)
    yield head(200, JSON, length(body), request_id(ask)) + body[: len(body) // 2]


def refusal(ask: Ask, status: int, wording: errors.Wording, fields: bytes = b"", param: str | None = None) -> Steps:
    return document(ask, errors.body(ask.api, wording, param), fields, status)
