"""Errors as providers word them, before an answer and within one."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from proxy.simulator.answers.stream import data, named
from proxy.terms import Api

ANTHROPIC: Final = frozenset({Api.MESSAGES, Api.COUNT_TOKENS})


@dataclass(frozen=True, slots=True)
class Wording:
    """``anthropic``: the error's type in the Messages API."""

    kind: str
    code: str | None
    message: str
    anthropic: str


# Source: platform.openai.com/docs/guides/error-codes, docs.anthropic.com/en/api/errors, and recorded answers.
_WORDINGS: Final[Mapping[int, Wording]] = MappingProxyType(
    {
        400: Wording("invalid_request_error", None, "Invalid value for 'temperature'.", "invalid_request_error"),
        401: Wording(
            "invalid_request_error",
            "invalid_api_key",
            "Incorrect API key provided: sk-simul****ator. You can find your API key in your account settings.",
            "authentication_error",
        ),
        402: Wording("insufficient_quota", "insufficient_credits", "Insufficient credits.", "billing_error"),
        403: Wording(
            "permission_error",
            "unsupported_country_region_territory",
            "Country, region, or territory not supported",
            "permission_error",
        ),
        404: Wording(
            "invalid_request_error",
            "model_not_found",
            "The model does not exist or you do not have access to it.",
            "not_found_error",
        ),
        413: Wording(
            "invalid_request_error",
            None,
            "413: Maximum content size limit (26214400) exceeded (26263332 bytes read)",
            "request_too_large",
        ),
        429: Wording(
            "requests",
            "rate_limit_exceeded",
            "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1.",
            "rate_limit_error",
        ),
        500: Wording("server_error", None, "The server had an error while processing your request.", "api_error"),
        503: Wording("server_error", None, "The engine is currently overloaded, please try again later.", "api_error"),
        529: Wording("overloaded_error", None, "Overloaded", "overloaded_error"),
    }
)
# A status's other reasons, by the word that a script takes for them.
_REASONS: Final[Mapping[tuple[int, str], Wording]] = MappingProxyType(
    {
        (400, "context"): Wording(
            "invalid_request_error",
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. "
            "Please reduce the length of the messages.",
            "invalid_request_error",
        ),
        (400, "content"): Wording(
            "invalid_request_error",
            "content_filter",
            "The response was filtered due to the prompt triggering the content management policy.",
            "invalid_request_error",
        ),
        (403, "credential"): Wording(
            "invalid_request_error", "invalid_api_key", "API key is invalid or was revoked.", "permission_error"
        ),
        (404, "path"): Wording("invalid_request_error", None, "Invalid URL (POST /v1/unknown)", "not_found_error"),
        (429, "quota"): Wording(
            "insufficient_quota",
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            "rate_limit_error",
        ),
    }
)


def reason(status: int, word: str = "") -> Wording:
    found = _REASONS.get((status, word)) or _WORDINGS.get(status)
    if found is None:
        found = _WORDINGS[400 if status < 500 else 500]
    return found


def is_reason(status: int, word: str) -> bool:
    return (status, word) in _REASONS


def reasons(status: int) -> list[str]:
    return [word for known, word in _REASONS if known == status]


def body(api: Api | None, wording: Wording, param: str | None = None) -> bytes:
    if api in ANTHROPIC:
        return orjson.dumps({"type": "error", "error": {"type": wording.anthropic, "message": wording.message}})
    return orjson.dumps({"error": _error(wording, wording.code, param)})


def event(api: Api, wording: Wording, code: str | int | None, sequence: int = 0) -> bytes:
    """The error as one event of this API's stream. An integer `code` is how OpenRouter and others report a status."""
    if api in ANTHROPIC:
        return named("error", {"type": "error", "error": {"type": wording.anthropic, "message": wording.message}})
    if api is Api.RESPONSES:
        fields = {"code": None if code is None else str(code), "message": wording.message, "param": None}
        return named("error", {"type": "error", "sequence_number": sequence, **fields})
    return data({"error": _error(wording, code, None)})


def _error(wording: Wording, code: str | int | None, param: str | None) -> dict[str, Any]:
    return {"message": wording.message, "type": wording.kind, "param": param, "code": code}
