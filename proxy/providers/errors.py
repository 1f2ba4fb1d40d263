"""Errors, in whatever form a provider puts them, read into a `Report` and a `Failure`.

Forms seen (recordings and documentation, 2026-11-21): `{"error":{...}}` (most); `[{"error":{...}}]` (Gemini);
`{"object":"error","message":str | {"detail":[...]}}` (Mistral, older vLLM); `{"code","error":"text"}` (xAI, Hugging Face);
`{"detail":...}` (FastAPI servers); `{"type":"error","error":{...}}` (Anthropic); `response.failed` (Responses); HTML.
"""

import email.utils
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.core import classify, redact
from proxy.core.classify import Report
from proxy.core.failure import Failure, FailureKind
from proxy.providers import limits

MESSAGE_CHARS_MAX: Final = 1000
RETRY_AFTER_S_MAX: Final = 24 * 3600.0

_DURATION_S: Final = re.compile(r"(\d+(?:\.\d+)?)s")
_TAG: Final = re.compile(r"<[^<>]{0,500}>")


def conforms(body: bytes) -> bool:
    """Whether an error body has the one form that both OpenAI SDKs read, `{"error":{...}}`."""
    document = _parsed(body)
    return type(document) is dict and type(document.get("error")) is dict


def conforms_to_messages(body: bytes) -> bool:
    """Whether an error body is Anthropic's envelope."""
    document = _parsed(body)
    return type(document) is dict and document.get("type") == "error" and type(document.get("error")) is dict


def of_answer(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> tuple[FailureKind, Report]:
    """Read a non-2xx answer. ``now_s``: the wall clock, against which reset times are read."""
    report = _report(_parsed(body), body, _header_hint(headers, now_s), now_s)
    return classify.of_status(status, report), report


def of_document(document: dict[str, Any], now_s: float) -> tuple[FailureKind, Report, int]:
    """Read an error that came inside a 200; also the status that it would have had."""
    report = _report(document, b"", None, now_s)
    status = classify.implied_status(report, document.get("status_code"))
    return classify.of_status(status, report), report, status


def is_error(document: object) -> bool:
    """Whether a 200's JSON document is an error after all."""
    if type(document) is list and document:
        document = document[0]
    if type(document) is not dict:
        return False
    if document.get("error") and not (document.get("choices") or document.get("object") == "response"):
        return True
    return document.get("object") == "error" or document.get("type") == "error"


def failure(
    kind: FailureKind,
    report: Report,
    *,
    target: str,
    status: int,
    body: bytes,
    secrets: tuple[str, ...],
) -> Failure:
    """The failure that a report makes, its words without secrets and then bounded: a cut secret would not be found."""
    said = redact.text(report.message, secrets)[:MESSAGE_CHARS_MAX] or f"status {status} without a message"
    return Failure(
        kind,
        f"{target} answered: {said}",
        param=redact.text(report.param, secrets) or None,
        target=target,
        retry_after_s=report.retry_after_s,
        upstream_status=status,
        upstream_body=redact.body(body, secrets, shapes=True),
    )


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _report(document: Any, body: bytes, hint_s: float | None, now_s: float) -> Report:
    if type(document) is list and document:
        document = document[0]
    if type(document) is not dict:
        return Report(message=_plain_text(body), retry_after_s=hint_s)
    response = document.get("response")
    outer = response if type(response) is dict and response.get("error") else document
    error = outer.get("error")
    x_groq = document.get("x_groq")
    if not error and type(x_groq) is dict:
        error = x_groq.get("error")
    if type(error) is not dict:
        error = {**outer, "message": error} if type(error) is str else outer
    return Report(
        message=_message(error),
        type=_word(error.get("type")) or _word(error.get("status")),
        code=_word(error.get("code")),
        param=_word(error.get("param")),
        retry_after_s=hint_s if hint_s is not None else _body_hint(error, now_s),
    )


def _message(error: dict[str, Any]) -> str:
    for name in ("message", "detail", "error", "title"):
        value = error.get(name)
        if type(value) is str and value:
            return value
        if value and type(value) in (dict, list):
            return _shown(value)
    return ""


def _shown(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""  # nested deeper than orjson writes


def _word(value: object) -> str:
    return str(value) if type(value) in (str, int) else ""


def _plain_text(body: bytes) -> str:
    text = body[:4096].decode("utf-8", "replace")
    return " ".join(_TAG.sub(" ", text).split())


def _header_hint(headers: Mapping[str, str], now_s: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        reset_s = limits.reset_s(headers, now_s)
        return None if reset_s is None else _bounded(reset_s)
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    try:
        return _bounded(email.utils.parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _body_hint(error: dict[str, Any], now_s: float) -> float | None:
    """OpenRouter: epoch milliseconds in `metadata.headers`; Gemini: `details[].retryDelay` as "34s"."""
    metadata = error.get("metadata")
    headers = metadata.get("headers") if type(metadata) is dict else None
    if type(headers) is dict:
        reset_ms = _number(headers.get("X-RateLimit-Reset"))
        if reset_ms is not None:
            return _bounded(reset_ms / 1000 - now_s)
    details = error.get("details")
    for detail in details if type(details) is list else ():
        delay = detail.get("retryDelay") if type(detail) is dict else None
        match = _DURATION_S.fullmatch(delay) if type(delay) is str else None
        if match:
            return _bounded(float(match.group(1)))
    return None


def _number(value: object) -> float | None:
    try:
        number = float(value) if type(value) in (str, int, float) else None  # type: ignore[arg-type] # narrowed by type()
    except (ValueError, OverflowError):
        return None
    return number if number is not None and number == number and abs(number) != float("inf") else None  # noqa: PLR0124


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)
