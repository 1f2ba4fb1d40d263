"""What a client must get of an answer, and what a provider must get of a request: the contract, read slowly.

Nothing here is shared with what it judges: events are cut by one expression and every one of them is parsed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DONE = b"data: [DONE]"
USAGE_ASKED = b',"stream_options":{"include_usage":true}'
CHOICES = ("chat", "completions")  # the APIs that answer in choices

# Providers that are never asked for usage: they send it unasked, or refuse the question.
NOT_ASKED = frozenset({"mistral", "groq", "openrouter"})

# Response headers that end at Penstock.
KEPT = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "set-cookie",
        "server",
        "date",
        "via",
        "alt-svc",
        "content-security-policy",
        "content-security-policy-report-only",
        "strict-transport-security",
        "clear-site-data",
        "x-request-id",
    }
)
KEPT_PREFIXES = ("access-control-", "x-ratelimit-", "x-penstock-")

_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)|.+\Z", re.DOTALL)
_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "audio", "images")
_PREFACES = {
    "responses": {"response.created", "response.queued", "response.in_progress"},
    "messages": {"message_start", "ping"},
}
_TERMINAL = {
    "responses": {"response.completed", "response.incomplete", "response.failed"},
    "messages": {"message_stop"},
}


def events_of(body: bytes) -> list[bytes]:
    """The events with their blank lines; the last one may lack its own."""
    return _EVENT.findall(body)


def data_in(event: bytes) -> bytes | None:
    lines = [line.removeprefix(b"data:") for line in re.split(rb"\r\n|\n|\r", event) if line.startswith(b"data:")]
    return b"\n".join(lines).strip() if lines else None


def parsed(data: bytes) -> Any:
    """None where it is not JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def is_only_usage(event: bytes) -> bool:
    data = data_in(event)
    document = parsed(data) if data is not None else None
    return isinstance(document, dict) and document.get("choices") == [] and bool(document.get("usage"))


def asks_usage(provider: str, api: str, request: bytes) -> bool:
    """Whether Penstock asks for usage in this client's stead."""
    document = json.loads(request)
    return (
        api in CHOICES
        and provider not in NOT_ASKED
        and document.get("stream") is True
        and "stream_options" not in document
    )


def sent_upstream(request: bytes, asked: bytes, target: bytes, *, inserts: bytes) -> bytes:
    """The request as the provider must get it; ``asked`` and ``target`` are JSON strings."""
    assert request.count(asked) == 1
    request = request.replace(asked, target)
    brace = request.rindex(b"}")
    return request[:brace] + inserts + request[brace:]


def relayed(body: bytes, *, withhold: bool) -> bytes:
    """A stream that ends well, as the client must get it."""
    kept = b"".join(event for event in events_of(body) if not (withhold and is_only_usage(event)))
    return ended(kept)


def ended(body: bytes) -> bytes:
    """With the last blank line, if that was missing."""
    if body.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return body
    style = b"\r\n" if b"\r\n" in body else b"\r" if b"\r" in body else b"\n"
    return body + style if body.endswith(style) else body + style + style


def passed_headers(sent: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of a provider's headers, those that the client must get, names in lower case, sorted."""
    pairs = [(name.lower(), value) for name, value in sent]
    named = {part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")}
    passed = [pair for pair in pairs if pair[0] not in KEPT | named and not pair[0].startswith(KEPT_PREFIXES)]
    passed += [("x-penstock-upstream-request-id", value) for name, value in pairs if name == "x-request-id"]
    return sorted(passed)


@dataclass(slots=True)
class Cut:
    """What is to come of a stream that was cut. ``content`` False: an error before anything was sent."""

    body: bytes = b""
    content: bool = False
    complete: bool = False
    _seen: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)


def cut(start: bytes, api: str, choices: int, *, withhold: bool, clean: bool) -> Cut:
    """`start` is what came of a stream before its connection ended; ``clean``: by an end that its framing allows.

    Content that lacks its blank line is content like any other, but does not begin an answer whose connection broke.
    Where the framing says that this was all, choices that never came are not missed.
    """
    outcome = Cut()
    for event in events_of(start):
        data = data_in(event)
        if not event.endswith(b"\n\n") and (data is None or (data != b"[DONE]" and parsed(data) is None)):
            break  # half an event
        if not event.endswith(b"\n\n") and not clean and not outcome.content:
            break
        if not (withhold and is_only_usage(event)):
            outcome.body += ended(event)
        if data == b"[DONE]":
            outcome.complete = True
            return outcome
        if data is not None:
            _note(outcome, json.loads(data), api, choices=1 if clean else choices)
    return outcome


def _note(outcome: Cut, document: Mapping[str, Any], api: str, *, choices: int) -> None:
    if api not in CHOICES:
        assert not outcome.complete, "nothing but [DONE] follows the API's own end"
        outcome.content = outcome.content or document["type"] not in _PREFACES[api]
        outcome.complete = document["type"] in _TERMINAL[api]
        return
    for choice in document["choices"]:
        outcome._seen.add(choice["index"])
        delta = choice.get("delta", {})
        if choice.get("finish_reason"):
            outcome._finished.add(choice["index"])
            outcome.content = True
        elif choice.get("text") or any(delta.get(name) for name in _CONTENT):
            outcome.content = True
    outcome.complete = outcome._seen <= outcome._finished and len(outcome._finished) >= choices


def figures(reported: Mapping[str, Any] | None) -> dict[str, int] | None:
    """A provider's usage object in the log's words; None where it reports no tokens."""
    if not reported:
        return None
    known = {name: value for name, value in reported.items() if value is not None}
    taken = known.get("prompt_tokens", known.get("input_tokens"))
    given = known.get("completion_tokens", known.get("output_tokens", 0))
    total = known.get("total_tokens", 0)
    if taken is None:
        taken = total
    details = known.get("prompt_tokens_details") or known.get("input_tokens_details") or {}
    thought = known.get("completion_tokens_details") or known.get("output_tokens_details") or {}
    # What a total has in surplus was reasoned beside the completion (xAI tells it, Gemini does not).
    surplus = max(0, total - taken - given)
    return {
        "input": taken,
        "output": given + surplus,
        "cached": details.get("cached_tokens") or known.get("cached_tokens") or known.get("num_cached_tokens") or 0,
        "cache_write": details.get("cache_write_tokens") or 0,
        "reasoning": max(thought.get("reasoning_tokens") or 0, surplus),
    }


def check_stream_error(event: bytes, api: str, code: str) -> None:
    """STREAM-ERR in the API's own form."""
    assert event.endswith(b"\n\n")
    data = data_in(event)
    assert data is not None
    document = parsed(data)
    assert document["error"]["code"] == code
    assert document["error"]["message"]
    match api:
        case "messages":
            assert event.startswith(b"event: error\ndata: ")
            assert document["type"] == "error"
        case "responses":
            assert document["type"] == "error"
            assert {"message", "type", "code", "param"} <= document["error"].keys()
        case _:
            assert event.startswith(b"data: ")
            assert document.keys() == {"error"}
            assert document["error"].keys() == {"message", "type", "code", "param"}
            assert document["error"]["param"] is None
