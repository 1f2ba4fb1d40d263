"""A recorded answer as documents, and documents as bytes."""

import json
from typing import Any, Final, NamedTuple

from proxy.core import lenient_json
from proxy.core.dialect import DIALECTS, Reading
from proxy.core.sse import EventScanner, data_of, name_of
from proxy.terms import Api

DONE: Final = b"[DONE]"
DONE_EVENT: Final = b"data: [DONE]\n\n"


class Unclear(ValueError):  # noqa: N818 - it is an answer, not an error
    """The other form cannot be made truthfully. The message says what is in the way."""


class Recorded(NamedTuple):
    """The events of a whole answer, decoded, and what the API's dialect reads in each."""

    documents: list[dict[str, Any]]
    readings: list[Reading]


def read(events: bytes, api: Api) -> Recorded:
    """Decode what was relayed of a stream. Raises `Unclear` for what is no whole answer: an error, a cut, no JSON."""
    scanner = EventScanner()
    documents: list[dict[str, Any]] = []
    for event in scanner.feed(events):
        raw = event.raw or b""
        data = data_of(raw)
        if data is None:
            continue
        data = data.strip()
        if data == DONE:
            break
        if name_of(raw) == b"error":
            raise Unclear("it holds an error event")
        documents.append(_object(data))
    else:
        if scanner.held.strip(b"\r\n"):
            raise Unclear("it ends within an event")
    readings = [DIALECTS[api].read(document) for document in documents]
    if any(reading.error is not None or reading.failed for reading in readings):
        raise Unclear("it holds an error")
    return Recorded(documents, readings)


def read_body(body: bytes) -> dict[str, Any]:
    """Decode a JSON answer. Raises `Unclear`."""
    return _object(body.removeprefix(b"\xef\xbb\xbf"))


def dump(document: dict[str, Any]) -> bytes:
    """A document as bytes. Not by orjson: a provider's `NaN`, large integers and half surrogates stay what they were."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise Unclear("it is nested too deep") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode("ascii")


def event(document: dict[str, Any]) -> bytes:
    """A document as an event of data alone."""
    return b"data: " + dump(document) + b"\n\n"


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = lenient_json.loads(data)
    except ValueError:
        raise Unclear("it holds what is not JSON") from None
    if type(document) is not dict:
        raise Unclear("it holds JSON that is no object")
    return document
