"""Failures, as each API's clients can read them: before commitment a JSON body, after it an event in the stream.

OpenAI's SDKs read `body.error` alone, and raise in a stream only on an event with a top-level `error` object; the Messages
API has an envelope of its own. Measured with openai-python 1.109 and 3.52 and openai-node 6.49. The AI SDK does not know
a Responses error without the `sequence_number` that OpenAI's has (@ai-sdk/openai 4.0.118).
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from proxy.core.failure import Failure, FailureKind
from proxy.terms import Api

RAW_CHARS_MAX: Final = 4096

_OPENAI_TYPES: Final = {
    401: "authentication_error",
    402: "budget_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_RETRYABLE: Final = frozenset(
    {FailureKind.THROTTLED, FailureKind.SHUTTING_DOWN, FailureKind.OVERLOADED_HERE, FailureKind.REQUEST_TIMEOUT}
    | {FailureKind.BUDGET_UNAVAILABLE, FailureKind.LIMIT_REACHED}
)
_WHEN_TOLD: Final = frozenset({FailureKind.NO_TARGET, FailureKind.STORE_UNAVAILABLE})  # where there is a time to wait


def is_retryable(failure: Failure) -> bool:
    """Whether the client should send the request again. What was tried on every target already should not be."""
    waits = failure.kind in _WHEN_TOLD and failure.retry_after_s is not None  # nothing was sent
    return failure.kind in _RETRYABLE or waits


def body(failure: Failure, status: int, api: Api | None, attempts: Sequence[dict[str, Any]], exchange_id: str) -> bytes:
    """The whole error body in the API's form. ``attempts``: one small object for each try at a target."""
    metadata: dict[str, Any] = {"retryable": is_retryable(failure)}
    if attempts:
        metadata["attempts"] = list(attempts)
    if failure.upstream_status is not None:
        metadata["upstream_status"] = failure.upstream_status
    if failure.upstream_body:
        metadata["raw"] = raw(failure.upstream_body)
    error = {
        "message": failure.message,
        "type": _type(status, _ANTHROPIC_TYPES if _is_messages(api) else _OPENAI_TYPES),
        "param": failure.param,
        "code": failure.row.code,
        "metadata": metadata,
    }
    if _is_messages(api):
        return _dumps({"type": "error", "error": error, "request_id": exchange_id})
    return _dumps({"error": error})


def raw(upstream_body: bytes) -> Any:
    """A provider's error body for `metadata.raw`: as JSON where it is JSON and neither large nor deep, else as text."""
    try:
        document = orjson.loads(upstream_body) if len(upstream_body) <= RAW_CHARS_MAX else None
        orjson.dumps([[[document]]])  # deeper than this would not fit below `error.metadata`
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        document = None
    return upstream_body[:RAW_CHARS_MAX].decode("utf-8", "replace") if document is None else document


def event(failure: Failure, api: Api, events: int) -> bytes:
    """STREAM-ERR: the one event that ends a stream which had begun. The connection is broken off behind it.

    ``events``: how many data events came before it; the Responses API numbers its events from 0.
    """
    status = failure.row.status or 502
    code = failure.row.code
    match api:
        case Api.MESSAGES:
            error: dict[str, str | None] = {
                "type": _type(status, _ANTHROPIC_TYPES),
                "message": failure.message,
                "code": code,
            }
            return b"event: error\ndata: " + _dumps({"type": "error", "error": error}) + b"\n\n"
        case Api.RESPONSES:
            error = {"message": failure.message, "type": _type(status, _OPENAI_TYPES), "code": code, "param": None}
            flat = {"type": "error", "sequence_number": events, "message": failure.message, "code": code, "param": None}
            return b"event: error\ndata: " + _dumps({**flat, "error": error}) + b"\n\n"
        case _:
            error = {"message": failure.message, "type": _type(status, _OPENAI_TYPES), "code": code, "param": None}
            return b"data: " + _dumps({"error": error}) + b"\n\n"


def _dumps(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(document))


def _encodable(value: Any) -> Any:
    """Without lone surrogates, which stand for undecodable bytes of a path or a header that a message quotes."""
    if isinstance(value, dict):
        return {name: _encodable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_encodable(member) for member in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _type(status: int, types: dict[int, str]) -> str:
    return types.get(status) or ("invalid_request_error" if status < 500 else "api_error")


def _is_messages(api: Api | None) -> bool:
    return api in (Api.MESSAGES, Api.COUNT_TOKENS)
