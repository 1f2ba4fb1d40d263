"""Faults after the first content: the stream breaks, stalls, errs, or does not end as it should.

K counts content events. For an answer that is not streamed each has the nearest fault of a JSON body.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice
from typing import Final

from proxy.simulator.answers import errors
from proxy.simulator.answers.errors import reason
from proxy.simulator.answers.stream import DONE, data
from proxy.simulator.ask import Ask, with_events, with_pieces, with_tool
from proxy.simulator.delivery import (
    document,
    event_head,
    flow,
    normal,
    request_id,
    stream_of,
    type_of,
    until,
    whole_of,
)
from proxy.simulator.scripts.before import RESET, half_then, plain
from proxy.simulator.scripts.script import WAIT_S_MAX, Cue, Play, Script
from proxy.simulator.wire import CHUNKED, LAST_CHUNK, Ending, Step, Steps, chunk, head
from proxy.terms import Api

_K: Final = 5
_DRIP_S: Final = 0.1
_DRIP_BYTES: Final = int(WAIT_S_MAX / _DRIP_S)
_AFTER: Final = b'data: {"after":"done"}\n\n'
_WITH_DONE: Final = frozenset({Api.CHAT, Api.COMPLETIONS})
_WITH_CHOICES: Final = _WITH_DONE


def _stall(cue: Cue) -> Steps:
    yield from until(cue.ask, cue.count(0, _K))
    yield Ending.SILENCE


def _cut(cue: Cue) -> Steps:
    count, wait_s = cue.count(0, _K), cue.wait_s(1, "0ms")
    yield from until(cue.ask, count)
    yield wait_s
    yield Ending.FIN


def _reset(cue: Cue) -> Steps:
    count, wait_s = cue.count(0, _K), cue.wait_s(1, "20ms")
    yield from until(cue.ask, count)
    yield wait_s
    yield Ending.RST


def _mid_event(cue: Cue) -> Steps:
    count, how = cue.count(0, _K), cue.text(1, "cut")
    stream = yield from until(cue.ask, count)
    event = next(stream.content)
    yield chunk(event[: len(event) // 2])
    yield LAST_CHUNK if how == "clean" else Ending.FIN


def _clean_end(cue: Cue) -> Steps:
    yield from until(cue.ask, cue.count(0, _K))
    yield LAST_CHUNK


def _half_clean(cue: Cue) -> Steps:
    body = whole_of(cue.ask)
    yield head(200, type_of(cue.ask), CHUNKED, request_id(cue.ask)) + chunk(body[: len(body) // 2]) + LAST_CHUNK


def _no_done(cue: Cue) -> Steps:
    stream = stream_of(cue.ask)
    yield from flow(cue.ask, chain(stream.opening, stream.content, stream.closing))


def _no_blank(cue: Cue) -> Steps:
    """`no-blank:finish` loses more: the last event is the one with the finish reason."""
    stream = stream_of(cue.ask)
    tail = stream.closing if cue.text(0, "done") == "finish" else (*stream.closing, *stream.done)
    yield from flow(cue.ask, chain(stream.opening, stream.content, tail[:-1], (tail[-1][:-1],)))


def _tool_cut(cue: Cue) -> Steps:
    ask = with_tool(cue.ask)
    stream = stream_of(ask)
    yield from flow(ask, chain(stream.opening, islice(stream.content, len(ask.pieces) // 2)))


def _tool_cut_whole(cue: Cue) -> Steps:
    ask = with_tool(cue.ask)
    if ask.api is Api.MESSAGES:  # its arguments are an object, which cannot be cut
        yield from _half_clean(cue)
        return
    yield from document(ask, whole_of(replace(ask, pieces=ask.pieces[: len(ask.pieces) // 2])))


def _drip(cue: Cue) -> Steps:
    count = cue.count(0, _K)
    ask = with_events(cue.ask, count)
    stream = stream_of(with_pieces(cue.ask, (*ask.pieces, "a" * _DRIP_BYTES)))
    yield event_head(ask) + b"".join(map(chunk, stream.opening))
    for event in islice(stream.content, count * ask.choices):
        yield chunk(event)
    yield from _dripped(next(stream.content))


def _dripped(last: bytes) -> Steps:
    for at in range(_DRIP_BYTES):
        yield chunk(last[at : at + 1])
        yield _DRIP_S
    yield Ending.FIN


def _drip_whole(cue: Cue) -> Steps:
    body = whole_of(with_pieces(cue.ask, ("a" * _DRIP_BYTES,)))
    yield head(200, type_of(cue.ask), CHUNKED, request_id(cue.ask)) + chunk(body[:20])
    yield from _dripped(body[20:])


def _after_done(cue: Cue) -> Steps:
    yield from flow(cue.ask, chain(stream_of(cue.ask).events(), (_AFTER,)))


def _after_done_whole(cue: Cue) -> Steps:
    yield from normal(cue.ask)
    yield _AFTER


def _after_done_then(*steps: Step) -> Play:
    def play(cue: Cue) -> Steps:
        yield event_head(cue.ask)
        yield from map(chunk, stream_of(cue.ask).events())
        yield from steps

    return play


def _body_then(*steps: Step) -> Play:
    def play(cue: Cue) -> Steps:
        yield head(200, type_of(cue.ask), CHUNKED, request_id(cue.ask)) + chunk(whole_of(cue.ask))
        yield from steps

    return play


def _then(ask: Ask, count: int, events: Iterable[bytes]) -> Steps:
    """`count` content events, these events, a clean end."""
    yield from until(ask, count)
    yield from map(chunk, events)
    yield LAST_CHUNK


def _bad_json(cue: Cue) -> Steps:
    stream = yield from until(cue.ask, cue.count(0, _K))
    yield chunk(b"data: upstream request timeout\n\n")
    yield from map(chunk, chain(stream.content, stream.closing, stream.done))
    yield LAST_CHUNK


def _error_event(cue: Cue) -> Steps:
    count = cue.count(0, _K)
    event = errors.event(cue.ask.api, reason(500), "server_error", count)
    yield from _then(cue.ask, count, (event, DONE) if cue.ask.api in _WITH_DONE else (event,))


def _openrouter_error(cue: Cue) -> Steps:
    """Source: openrouter.ai/docs/api-reference/errors-and-debugging, errors in the middle of a stream."""
    if cue.ask.api not in _WITH_DONE:
        yield from _error_event(cue)
        return
    chunked = {
        "id": f"gen-{cue.ask.digest.decode()}",
        "object": "chat.completion.chunk",
        "model": cue.ask.model,
        "provider": "Simulator",
        "error": {"code": 502, "message": "Provider disconnected unexpectedly"},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": "error"}],
    }
    yield from _then(cue.ask, cue.count(0, _K), (data(chunked), DONE))


def _anthropic_error(cue: Cue) -> Steps:
    yield from _then(cue.ask, cue.count(0, _K), (errors.event(Api.MESSAGES, reason(529), None),))


def _error_whole(cue: Cue) -> Steps:
    yield from document(cue.ask, errors.body(cue.ask.api, reason(500)))


def _n_cut(cue: Cue) -> Steps:
    if cue.ask.api not in _WITH_CHOICES:
        yield from _cut(cue)
        return
    ask = replace(cue.ask, choices=max(2, cue.ask.choices))
    stream = yield from until(ask, cue.count(0, _K))
    yield chunk(stream.closing[0])
    yield from map(chunk, islice(stream.content, 1, None))
    yield Ending.FIN


_halved = half_then(Ending.FIN)

SCRIPTS: Final = (
    Script("cut:K[:WAIT]", "FIN without the last chunk, WAIT (0ms) after K events", _cut, _halved),
    Script("reset:K[:WAIT]", "RST, WAIT (20ms) after K events", _reset, half_then(*RESET)),
    Script("mid-event:K[:clean]", "FIN (or a clean end) in the middle of the event after K", _mid_event, _halved),
    Script("clean-end:K", "a clean end after K events: no finish reason, no [DONE]", _clean_end, _half_clean),
    Script("no-done", "a finish reason, then a clean end without [DONE]", _no_done, _half_clean, plain),
    Script(
        "no-blank[:finish]",
        "the last event, [DONE] or the finish, has no blank line",
        _no_blank,
        _half_clean,
        plain,
    ),
    Script("tool-cut", "a tool call's arguments stop half-way, then a clean end", _tool_cut, _tool_cut_whole),
    Script("stall:K", "silence after K events, the socket open", _stall, half_then(Ending.SILENCE)),
    Script("drip:K", "after K events one byte each 100 ms inside one event, for 10 min", _drip, _drip_whole),
    Script("after-done", "one more event after [DONE]", _after_done, _after_done_whole, plain),
    Script("after-done-reset", "RST after [DONE]", _after_done_then(*RESET), _body_then(*RESET)),
    Script(
        "after-done-silence",
        "[DONE], and never the last chunk",
        _after_done_then(Ending.SILENCE),
        _body_then(Ending.SILENCE),
    ),
    Script("bad-json:K", "after K events one whose data is not JSON", _bad_json, _half_clean, _cut),
    Script("error-event:K", "the API's error event after K events", _error_event, _error_whole, _cut),
    Script(
        "openrouter-error:K", "after K events OpenRouter's finish_reason error", _openrouter_error, _error_whole, _cut
    ),
    Script("anthropic-error:K", "after K events Anthropic's event: error", _anthropic_error, _error_whole, _cut),
    Script("n-cut:K", "of two choices one finishes, then FIN", _n_cut, _halved),
)
