"""Which answers have another form, and how to get it.

Chat and completions go both ways, Responses and Messages from events to JSON. What cannot be converted truthfully (an answer
that is not whole, a choice that never said how it finished, a kind of event that nobody here knows) is not: then there is
no other form, and the cache has nothing for who asks for it.

Held by `tests/core/assembly`: against openai-python's own assembly, its types, and every recorded and golden stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from proxy.core.assembly import chat, completions, messages, responses
from proxy.core.assembly.recorded import Unclear
from proxy.core.commitment import StreamTap
from proxy.core.dialect import DIALECTS
from proxy.terms import Api


class _ToStream(Protocol):
    def __call__(self, body: bytes, *, include_usage: bool) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Form:
    """Both raise `Unclear`. ``to_stream`` None: its events cannot be made of JSON."""

    to_json: Callable[[bytes], bytes]
    to_stream: _ToStream | None = None


FORMS: Final[Mapping[Api, Form]] = MappingProxyType(
    {
        Api.CHAT: Form(chat.to_json, chat.to_stream),
        Api.COMPLETIONS: Form(completions.to_json, completions.to_stream),
        Api.RESPONSES: Form(responses.to_json),
        Api.MESSAGES: Form(messages.to_json),
    }
)
_USAGE_APART: Final = (Api.CHAT, Api.COMPLETIONS)


def to_json(api: Api, events: bytes) -> bytes | None:
    """The JSON answer that a stream of recorded events makes up; None where there is none."""
    form = FORMS.get(api)
    try:
        return None if form is None else form.to_json(events)
    except Unclear:
        return None


def to_stream(api: Api, body: bytes, *, include_usage: bool) -> bytes | None:
    """The events, `[DONE]` at their end, that an SDK assembles to this JSON answer; None where there are none.

    ``include_usage``: whether the client asked for usage in its `stream_options`.
    """
    form = FORMS.get(api)
    try:
        return None if form is None or form.to_stream is None else form.to_stream(body, include_usage=include_usage)
    except Unclear:
        return None


def has_stream(api: Api) -> bool:
    """Whether JSON answers can be made into events."""
    form = FORMS.get(api)
    return form is not None and form.to_stream is not None


def without_usage(api: Api, events: bytes) -> bytes:
    """Recorded events for a client that did not ask for usage: by the rule by which the relay withholds it."""
    if api not in _USAGE_APART:
        return events
    tap = StreamTap(DIALECTS[api], withhold_usage=True)
    return tap.feed(events) + tap.finish(clean=True)


def figures(api: Api, events: bytes) -> dict[str, Any] | None:
    """The raw usage that recorded events tell, see `usage.normalise`; None where they tell none."""
    tap = StreamTap(DIALECTS[api])
    tap.feed(events)
    tap.finish(clean=True)
    return tap.figures
