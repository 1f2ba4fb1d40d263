"""Is this answer an opening? Reads a target's answer up to its first content, and says what is wrong if none comes."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.core import estimate, lenient_json, media_type, usage
from proxy.core.commitment import Fault as StreamFault
from proxy.core.commitment import PlainTap, StreamTap
from proxy.core.dialect import DIALECTS
from proxy.core.failure import Failure, FailureKind
from proxy.core.routing import Target
from proxy.phases.exchange import Exchange
from proxy.phases.runtime import Runtime
from proxy.ports import Fault, Reply
from proxy.providers import errors
from proxy.terms import Api

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024  # a whole JSON answer is kept in memory until it is known to be one
ERROR_BYTES_MAX: Final = 256 * 1024
PREFACE_BYTES_MAX: Final = 8 * 1024 * 1024  # comments and empty deltas before content, kept until content comes

BY_LABEL: Final = (Api.SPEECH, Api.TRANSCRIPTIONS, Api.TRANSLATIONS, Api.IMAGE_EDITS, Api.PASSTHROUGH)
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


@dataclass(slots=True)
class Opening:
    """A target's answer that has begun: ``held`` is to be sent first. ``tap`` None: ``held`` is the whole answer."""

    target: Target
    reply: Reply
    held: bytes
    tap: StreamTap | PlainTap | None
    ended: bool = False  # the upstream's body is over already


async def judge(
    x: Exchange, runtime: Runtime, target: Target, reply: Reply, *, withhold_usage: bool
) -> Opening | Failure:
    """Branch on what kind of answer this is."""
    content_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    unchanged = reply.status == 304 and x.api is Api.PASSTHROUGH  # the client has it already
    if not 200 <= reply.status < 300 and not unchanged:
        return await _refusal(runtime, target, reply)
    if x.api in BY_LABEL and not x.streamed:
        return await _as_labelled(x, runtime, target, reply, content_type)
    if not x.streamed:
        if content_type == "text/event-stream":
            return _malformed(target, "it sent a stream in answer to a request for one JSON body")
        return await _whole(x, runtime, target, reply, content_type)
    head = await reply.read()
    if isinstance(head, Fault):
        return wire_failure(target, head)
    if not _is_event_stream(content_type, head):
        return await _no_stream(runtime, target, reply, head)
    tap = StreamTap(DIALECTS[x.api], choices=x.choices, withhold_usage=withhold_usage)
    return await _first_content(runtime, target, reply, tap, head)


async def _as_labelled(
    x: Exchange, runtime: Runtime, target: Target, reply: Reply, content_type: str
) -> Opening | Failure:
    """An answer whose form the request does not tell, or not to us: events, JSON, or bytes such as sound and text."""
    if x.api is not Api.PASSTHROUGH and media_type.is_json(content_type):
        return await _whole(x, runtime, target, reply, content_type)
    head = await reply.read()
    if isinstance(head, Fault):
        return wire_failure(target, head)
    if x.api is not Api.PASSTHROUGH and content_type == "text/event-stream":
        return await _first_content(runtime, target, reply, StreamTap(DIALECTS[x.api], choices=x.choices), head)
    if not head and x.api is not Api.PASSTHROUGH:
        return _malformed(target, "its answer is empty")
    tap = PlainTap()
    held = tap.feed(head) if head else tap.finish(clean=True)
    return Opening(target, reply, held, tap, ended=not head)


def _is_event_stream(content_type: str, head: bytes) -> bool:
    """By its first bytes, and only then by its label: errors come as bare JSON in an event stream, and streams as JSON."""
    start = head.lstrip(_BLANK)
    if start.startswith(_FIELDS):
        return True
    return start[:1] not in (b"{", b"[", b"<") and content_type not in ("application/json", "text/html", "text/plain")


async def _first_content(
    runtime: Runtime, target: Target, reply: Reply, tap: StreamTap, chunk: bytes | Fault
) -> Opening | Failure:
    held: list[bytes] = []
    held_bytes = 0
    while True:
        if isinstance(chunk, Fault):
            tap.finish(clean=False)
            return wire_failure(target, chunk)
        relayed = tap.feed(chunk) if chunk else tap.finish(clean=True)
        if relayed:
            held.append(relayed)
            held_bytes += len(relayed)
        if tap.content:  # even if a fault came in the same read: what happens must not depend on the chunking
            return Opening(target, reply, b"".join(held), tap, ended=not chunk)
        if tap.fault is not None:
            return stream_failure(runtime, target, tap)
        if held_bytes > PREFACE_BYTES_MAX:
            return _malformed(target, f"it sent {held_bytes} bytes without any content")
        chunk = await reply.read()


async def _whole(x: Exchange, runtime: Runtime, target: Target, reply: Reply, content_type: str) -> Opening | Failure:
    body = await _read_up_to(reply, ANSWER_BYTES_MAX)
    if isinstance(body, Fault):
        return wire_failure(target, body)
    try:
        document = lenient_json.loads(body)
    except ValueError:
        shown = content_type or "no content-type"
        return _malformed(target, f"its answer is not JSON ({len(body)} bytes of {shown})")
    if errors.is_error(document):
        return _error_inside(runtime, target, document, body)
    if type(document) is dict:
        x.figures = usage.of_body(document)
        if x.figures is None:
            x.guessed_output = estimate.output_of_body(document)
    return Opening(target, reply, body, None, ended=True)


async def _no_stream(runtime: Runtime, target: Target, reply: Reply, head: bytes) -> Failure:
    """A 200 that is no stream though one was asked for: often an error that forgot its status."""
    body = await _read_up_to(reply, ERROR_BYTES_MAX, head)
    document: Any = None
    if not isinstance(body, Fault):
        try:
            document = lenient_json.loads(body)
        except ValueError:
            document = None
        if errors.is_error(document):
            return _error_inside(runtime, target, document, body)
    return _malformed(target, "it sent no stream of events though one was asked for")


async def _refusal(runtime: Runtime, target: Target, reply: Reply) -> Failure:
    body = await _read_up_to(reply, ERROR_BYTES_MAX)
    raw = b"" if isinstance(body, Fault) else body
    kind, report = errors.of_answer(reply.status, reply.headers, raw, runtime.wall())
    if kind is FailureKind.REDIRECT:
        return Failure(
            kind,
            f"{target.name} answered with a redirect ({reply.status}), which is not followed; check its base_url.",
            target=target.name,
            upstream_status=reply.status,
        )
    return errors.failure(
        kind,
        report,
        target=target.name,
        status=reply.status,
        body=raw,
        secrets=target.provider.secrets,
    )


def _error_inside(runtime: Runtime, target: Target, document: Any, body: bytes) -> Failure:
    if type(document) is list:
        document = document[0]
    kind, report, status = errors.of_document(document, runtime.wall())
    return errors.failure(
        kind,
        report,
        target=target.name,
        status=status,
        body=body,
        secrets=target.provider.secrets,
    )


def stream_failure(runtime: Runtime, target: Target, tap: StreamTap | PlainTap) -> Failure:
    """The failure that a tap's fault makes."""
    match tap.fault:
        case _ if tap.error is not None:
            return _error_inside(runtime, target, tap.error, _dumped(tap.error))
        case StreamFault.MALFORMED:
            return _malformed(target, "it sent an event whose data is not a JSON object")
        case StreamFault.EMPTY:
            return Failure(
                FailureKind.TRUNCATED, f"{target.name} ended its stream without any content.", target=target.name
            )
        case _:
            return Failure(
                FailureKind.TRUNCATED,
                f"{target.name} ended its stream before the answer was complete.",
                target=target.name,
            )


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes
        return b""


async def _read_up_to(reply: Reply, bytes_max: int, head: bytes = b"") -> bytes | Fault:
    parts: list[bytes] = [head] if head else []
    total = len(head)
    while True:
        chunk = await reply.read()
        if isinstance(chunk, Fault):
            return chunk
        if not chunk:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        parts.append(chunk)
        total += len(chunk)
        if total > bytes_max:
            return Fault(FailureKind.MALFORMED, f"its answer is larger than {bytes_max // 1024**2} MiB", told=True)


_WIRE_WORDS: Final = {
    FailureKind.CONNECT_FAILED: "cannot be reached: the connection was refused or its name does not resolve",
    FailureKind.TLS_FAILED: "cannot be trusted: the TLS handshake failed",
    FailureKind.CONNECT_TIMEOUT: "cannot be reached: connecting took too long",
    FailureKind.STALE_CONNECTION: "dropped a kept connection",
    FailureKind.RESET_BEFORE_HEAD: "closed the connection before it answered",
    FailureKind.MALFORMED: "sent an answer that is not valid HTTP",
    FailureKind.TRUNCATED: "ended its answer before it was complete",
    FailureKind.RESET_MID_STREAM: "reset the connection before its answer was complete",
    FailureKind.STALLED: "stopped sending before its answer was complete",
}


def wire_failure(target: Target, fault: Fault) -> Failure:
    """The failure that a fault on the wire makes; its detail stays in the log."""
    words = f"cannot be understood: {fault.detail}" if fault.told else _WIRE_WORDS.get(fault.kind, "failed")
    return Failure(fault.kind, f"{target.name} {words}.", target=target.name, detail=fault.detail)


def timeout_failure(target: Target, kind: FailureKind, after_s: float) -> Failure:
    """The failure of an attempt whose time was up before any content."""
    if kind is FailureKind.SHUTTING_DOWN:
        return Failure(kind, "Penstock is shutting down; send the request again.", target=target.name)
    what = "sent no content" if kind is FailureKind.FIRST_EVENT_TIMEOUT else "had not answered"
    return Failure(kind, f"{target.name} {what} within {after_s:.1f} s.", target=target.name)


def _malformed(target: Target, words: str) -> Failure:
    return Failure(FailureKind.MALFORMED, f"{target.name} cannot be understood: {words}.", target=target.name)
