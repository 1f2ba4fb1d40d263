"""What an upstream's answer means: a status and what its body says, to one `FailureKind`.

Statuses alone mislead: 403 is a moderation refusal here and a dead key there, 429 may be an empty balance (Z.ai, OpenAI),
400 may be a bad key (Gemini, xAI), and an error may come inside a 200. The body's words decide where they can; they are
matched as the providers write them (read 2026-11-21). Z.ai's business codes count only as the code: as a number of tokens
they stand in anyone's message.
"""

import re
from dataclasses import dataclass
from typing import Final

from proxy.core.failure import FailureKind


@dataclass(frozen=True, slots=True)
class Report:
    """An upstream's error as it says it, whatever its form. ``retry_after_s``: its hint, from header or body."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str = ""
    retry_after_s: float | None = None

    @property
    def words(self) -> str:
        return f"{self.names} {self.message}"[:4096].lower()

    @property
    def own_words(self) -> str:
        """The words without what is quoted in them: providers repeat the client's values there."""
        return _QUOTED.sub("''", self.words)

    @property
    def names(self) -> str:
        return f"{self.code} {self.type}"[:4096].lower()


_QUOTED: Final = re.compile(r"'[^'\n]{0,400}'|\"[^\"\n]{0,400}\"|`[^`\n]{0,400}`")
_SCOPE: Final = re.compile(r"missing scopes?|insufficient permissions?|insufficient_scope")
_CONTEXT: Final = re.compile(
    r"context_length|context length|context window|context[ _]size|maximum context|prompt is too long|input is too long"
    r"|too many tokens|exceed\w* the (?:maximum|max) (?:number of )?(?:input )?tokens|^1261\b"
)
_REFUSED: Final = re.compile(
    r"content_?filter|content_policy|content policy|moderation|flagged|safety|content_refused|prohibited_content|^1301\b"
)
_QUOTA: Final = re.compile(
    r"insufficient_quota|exceeded your current quota|insufficient balance|insufficient credit|billing|payment"
    r"|arrears|account.{0,20}(?:locked|suspended)|^111[123]\b|out of credits|余额"
)
_QUOTA_BY_NAME: Final = re.compile(
    r"insufficient_(?:quota|balance|credit|funds)|exceeded_current_quota|billing|^111[123]\b"
)
_BAD_KEY: Final = re.compile(
    r"api[ _-]?key|invalid_authentication|authentication|credential|unauthor|access token|invalid token|token expired"
)
_BAD_KEY_IN_400: Final = re.compile(
    r"(?:incorrect|invalid|missing|expired).{0,20}api[ _-]?key|api[ _-]?key.{0,20}(?:invalid|not valid|expired|incorrect)"
)
_NO_MODEL: Final = re.compile(
    r"model_not_found|model_not_supported|model_decommissioned|deploymentnotfound|unknown model|invalid model"
    r"|no endpoints found for|not a valid model"
    r"|model[^:;]{0,80}(?:not exist|not found|decommissioned|not supported|deprecated|retired|not available)"
    r"|\bmodel not\b|^1211\b",
)
_OVERLOADED: Final = re.compile(r"overloaded|capacity|try again later|temporarily unavailable|service_unavailable")
_THROTTLED: Final = re.compile(r"rate.?limit|too many requests|throttl|resource_exhausted")
_NOT_THE_CLIENTS: Final = frozenset(
    {"", "model", "api_key", "None", "null"}
)  # what `param` may name in a 400 that is not
_CALLER: Final = re.compile(r"invalid_request|invalid_argument|validation|bad_request|unprocessable")


def of_status(status: int, report: Report) -> FailureKind:
    """The kind of a non-2xx answer."""
    words = report.words
    match status:
        case 401:
            # The key is good, and may not do this: what it may do, others go on doing.
            return FailureKind.ACCESS_DENIED if _SCOPE.search(words) else FailureKind.CREDENTIAL_REJECTED
        case 402:
            return FailureKind.QUOTA_EXHAUSTED
        case 407:  # passed on it would be the client's own proxy that failed
            return FailureKind.ACCESS_DENIED
        case 403:
            return _of_403(report)
        case 404 | 410:
            return FailureKind.MODEL_NOT_FOUND if _blames_model(report, words) else FailureKind.NOT_FOUND
        case 429:
            return FailureKind.QUOTA_EXHAUSTED if _is_exhausted(report, words) else FailureKind.THROTTLED
        case 503 | 529:
            return FailureKind.OVERLOADED
        case _ if 300 <= status < 400:
            return FailureKind.REDIRECT
        case _ if status >= 500 or status in {408, 425}:
            return FailureKind.SERVER_ERROR
        case _ if 400 <= status < 500:
            return _of_client_status(report, words)
        case _:
            return FailureKind.MALFORMED


def implied_status(report: Report, status_field: object = None) -> int:
    """The status that an error inside a 200 would have had, from its numeric code or its words; 500 if nothing tells."""
    for claim in (status_field, report.code):
        text = str(claim)
        if len(text) == 3 and text.isdecimal() and 400 <= int(text) <= 599:
            return int(text)
    words = report.words
    if _is_exhausted(report, words):
        return 402
    for pattern, status in (
        (_THROTTLED, 429),
        (_BAD_KEY_IN_400, 401),
        (_NO_MODEL, 404),
        (_CONTEXT, 400),
        (_REFUSED, 400),
        (_OVERLOADED, 529),
        (_CALLER, 400),
    ):
        if pattern.search(words):
            return status
    return 401 if "authentication" in words else 500


def _is_exhausted(report: Report, words: str) -> bool:
    """Whether money is what is missing. Plain throttling mentions it too: Groq's and OpenAI's rate limits point to their
    billing pages, and Gemini calls any limit a quota and tells in `retryDelay` when to come again.
    """
    if _QUOTA_BY_NAME.search(report.names):
        return True
    if report.retry_after_s is not None or _THROTTLED.search(report.names):
        return False
    return _QUOTA.search(words) is not None


def _of_403(report: Report) -> FailureKind:
    if _REFUSED.search(report.words):
        return FailureKind.CONTENT_REFUSED
    own = report.own_words
    return (
        FailureKind.CREDENTIAL_REJECTED
        if _BAD_KEY.search(own) and not _SCOPE.search(own)
        else FailureKind.ACCESS_DENIED
    )


def _of_client_status(report: Report, words: str) -> FailureKind:
    if _CONTEXT.search(words):
        return FailureKind.CONTEXT_EXCEEDED
    if "stream_options" in words or "include_usage" in words or report.param.startswith("stream_options"):
        return FailureKind.UNSUPPORTED_PARAM
    if _REFUSED.search(words):
        return FailureKind.CONTENT_REFUSED
    if report.param not in _NOT_THE_CLIENTS:
        return FailureKind.INVALID_REQUEST  # it names the member of the request that is wrong
    if _BAD_KEY_IN_400.search(report.own_words):
        return FailureKind.CREDENTIAL_REJECTED
    if _blames_model(report, words):
        return FailureKind.MODEL_NOT_FOUND
    return FailureKind.INVALID_REQUEST


def _blames_model(report: Report, words: str) -> bool:
    named = _NO_MODEL.search(report.names) is not None
    return report.param == "model" or named or _NO_MODEL.search(_QUOTED.sub("''", words)) is not None
