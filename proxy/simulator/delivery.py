"""Turns answers into steps: what every script is put together from.

A normal stream is written as: the head with the opening events, each content event by itself, and the rest with the
last chunk. That is how providers' writes arrive, and 100 content events are 100 writes.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from proxy.simulator.answers import (
    chat,
    completions,
    embeddings,
    errors,
    images,
    messages,
    moderations,
    rerank,
    responses,
    speech,
    stored,
    transcriptions,
)
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
        Api.MODERATIONS: moderations.whole,
        Api.IMAGES: images.whole,
        Api.IMAGE_EDITS: images.whole,
        Api.SPEECH: speech.whole,
        Api.TRANSCRIPTIONS: transcriptions.whole,
        Api.TRANSLATIONS: transcriptions.whole,
        Api.RERANK: rerank.whole,
        Api.PASSTHROUGH: stored.echo,
    }
)
STREAM: Final[Mapping[Api, Callable[[Ask], Stream]]] = MappingProxyType(
    {
        Api.CHAT: chat.stream,
        Api.COMPLETIONS: completions.stream,
        Api.RESPONSES: responses.stream,
        Api.MESSAGES: messages.stream,
        Api.IMAGES: images.stream,
        Api.IMAGE_EDITS: images.stream,
        Api.SPEECH: speech.stream,
        Api.TRANSCRIPTIONS: transcriptions.stream,
    }
)
# What is no JSON where it is whole, and no events where it is a stream.
_TYPES: Final[Mapping[Api, Callable[[Ask], bytes]]] = MappingProxyType(
    {
        Api.SPEECH: speech.content_type,
        Api.TRANSCRIPTIONS: transcriptions.content_type,
        Api.TRANSLATIONS: transcriptions.content_type,
    }
)


def whole_of(ask: Ask) -> bytes:
    return WHOLE[ask.api](ask)


def stream_of(ask: Ask) -> Stream:
    return STREAM[ask.api](ask)


def body_of(ask: Ask) -> bytes:
    """All of the answer, streamed or not."""
    return b"".join(stream_of(ask).events()) if ask.stream else whole_of(ask)


def type_of(ask: Ask) -> bytes:
    """The content type of the answer."""
    if ask.stream and not ask.binary:
        return EVENT_STREAM
    own = _TYPES.get(ask.api)
    return JSON if own is None else own(ask)


def request_id(ask: Ask) -> bytes:
    return b"req_" + ask.digest


def event_head(ask: Ask, fields: bytes = b"", framing: bytes = CHUNKED) -> bytes:
    cache = b"" if ask.binary else b"cache-control: no-cache\r\n"
    return head(200, type_of(ask), cache + framing + fields, request_id(ask))


def normal(ask: Ask, fields: bytes = b"") -> Steps:
    """The well-formed answer; `fields` are more header lines."""
    if ask.stream:
        return streamed(ask, fields)
    return document(ask, whole_of(ask), fields, content_type=type_of(ask))


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
    """An answer that stops in the middle of its announced length."""
    body = whole_of(ask)
    yield head(200, type_of(ask), length(body), request_id(ask)) + body[: len(body) // 2]


def refusal(ask: Ask, status: int, wording: errors.Wording, fields: bytes = b"", param: str | None = None) -> Steps:
    return document(ask, errors.body(ask.api, wording, param), fields, status)
