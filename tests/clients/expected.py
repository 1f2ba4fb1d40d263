"""What each scenario must show, under every SDK: the rows of the matrix.

A row's facts are compared with what the SDK saw: a mapping holds at least these members, a function must say yes, any
other value is equal. ``logged`` is what Penstock must have written of the scenario's exchange, and that there was one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.clients.raw import FORMS

EVERYWHERE: Final = ("python-3", "python-1", "node-7", "node-6")
CANCELLED_WITHIN_S: Final = 1.0
_EMBEDDING_SIZES: Final = range(2, 5000)


@dataclass(frozen=True, slots=True)
class Logged:
    """``asked`` and ``api`` find the exchange, the rest is what is told of it. ``code`` None: it did not fail."""

    asked: str
    api: str
    outcome: str
    code: str | None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """``upstream``: how often the raw upstream was asked for a model."""

    scenario: str
    facts: Mapping[str, Any]
    logged: Logged | None = None
    upstream: Mapping[str, int] | None = None
    sdks: tuple[str, ...] = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Holds:
    """Text that holds each of the parts."""

    parts: tuple[str, ...]

    def __call__(self, seen: object) -> bool:
        return isinstance(seen, str) and all(part in seen for part in self.parts)


def holds(*parts: str) -> Holds:
    return Holds(parts)


def is_id(seen: object) -> bool:
    return isinstance(seen, str) and seen.startswith("req_")


def is_count(seen: object) -> bool:
    return isinstance(seen, int) and seen > 0


def is_number_text(seen: object) -> bool:
    return isinstance(seen, str) and float(seen) >= 0


def is_text(seen: object) -> bool:
    return isinstance(seen, str) and seen != ""


def at_least(least: int) -> Callable[[object], bool]:
    return lambda seen: isinstance(seen, int) and seen >= least


def begins_with(*names: str) -> Callable[[object], bool]:
    return lambda seen: isinstance(seen, list) and seen[: len(names)] == list(names)


def mismatches(wanted: object, seen: object, where: str = "") -> list[str]:
    """Every place where ``seen`` is not as wanted, in words."""
    if isinstance(wanted, Mapping):
        if not isinstance(seen, Mapping):
            return [f"{where}: wanted {dict(wanted)!r}, got {seen!r}"]
        return [line for name, value in wanted.items() for line in mismatches(value, seen.get(name), f"{where}.{name}")]
    good = wanted(seen) if callable(wanted) else wanted == seen
    shown = getattr(wanted, "__qualname__", repr(wanted))
    return [] if good else [f"{where}: wanted {shown}, got {seen!r}"]


_SAID: Final = holds("How high is the water?")
_CHAT: Final = {"text": _SAID, "finish": "stop", "model": "plain", "tokens": is_count, "request_id": is_id}
_STREAMED: Final = {"text_equals_whole": True, "finish": ["stop"]}


def _refusal(kind: str, status: int, code: str | None, *said: str) -> dict[str, Any]:
    return {"error": {"class": kind, "status": status, "code": code, "message": holds(*said), "request_id": is_id}}


_REFUSED: Final = (
    Row(
        "400",
        _refusal("BadRequestError", 400, None, "Invalid value for 'temperature'."),
        Logged("sim/400", "chat", "refused", "invalid_request"),
    ),
    Row(
        "401 upstream",
        _refusal("InternalServerError", 502, "upstream_auth", "sim/401 answered", "Incorrect API key"),
        Logged("sim/401", "chat", "failed", "upstream_auth"),
    ),
    Row(
        "404",
        _refusal("NotFoundError", 404, "model_not_found", "chta", "Did you mean", "chat"),
        Logged("chta", "chat", "refused", "model_not_found", attempts=0),
    ),
    Row("404 retrieve", _refusal("NotFoundError", 404, "model_not_found", "nobody")),
    Row(
        "429",
        {
            "error": {
                **_refusal("RateLimitError", 429, "rate_limit_exceeded", "Rate limit")["error"],
                "retry_after": "30",
            }
        },
        Logged("sim/429:30", "chat", "failed", "rate_limit_exceeded"),
    ),
    Row(
        "502",
        _refusal("InternalServerError", 502, "upstream_protocol", "raw/garbage"),
        Logged("raw/garbage", "chat", "failed", "upstream_protocol"),
        upstream={"garbage": 1},
    ),
    Row(
        "502 stream",
        _refusal("InternalServerError", 502, "upstream_incomplete", "sim/head-then-fin"),
        Logged("sim/head-then-fin", "chat", "failed", "upstream_incomplete"),
    ),
    Row(
        "503",
        _refusal("InternalServerError", 503, "upstream_overloaded", "This is a 503."),
        Logged("raw/status:503", "chat", "failed", "upstream_overloaded", attempts=3),
        upstream={"status:503": 3},
    ),
    Row(
        "504",
        _refusal("InternalServerError", 504, "upstream_timeout", "raw/silent"),
        Logged("late", "chat", "failed", "upstream_timeout"),
        upstream={"silent": 1},
    ),
    Row("invalid body", _refusal("BadRequestError", 400, "invalid_request", "'n'", "1000")),
)

_BREAKS: Final = {
    "cut:3": "upstream_incomplete",
    "reset:3": "upstream_incomplete",
    "mid-event:3": "upstream_incomplete",
    "clean-end:3": "upstream_incomplete",
    "stall:3": "upstream_timeout",
    "error-event:3": "upstream_error",
    "bad-json:3": "upstream_protocol",
}
_BROKEN: Final = tuple(
    Row(
        f"{fault} {api}",
        {
            "pieces": at_least(1),
            "error": {"class": "APIError", "code": code, "message": holds(f"sim/{fault}"), "status": None},
        },
        logged=Logged(f"sim/{fault}", api, "partial", code),
    )
    for api in ("chat", "completions", "responses")
    for fault, code in _BREAKS.items()
)
_LEFT: Final = tuple(
    Row(
        f"left {api}",
        {"left": lambda seen: isinstance(seen, float)},
        logged=Logged("sim/paced:100:50ms", api, "client_cancelled", "client_cancelled"),
    )
    for api in ("chat", "completions", "responses")
)
_CLASSES: Final = {400: "BadRequestError", 422: "UnprocessableEntityError", 502: "InternalServerError"}
_FORMS: Final = tuple(
    Row(
        f"form {name}",
        {
            "error": {
                "class": _CLASSES[form.status],
                "status": form.status,
                "message": holds(form.says),
                "request_id": is_id,
            }
        },
        # A 502 is tried twice more by Penstock itself, a 4xx never; the SDK sends neither again.
        logged=Logged(
            f"raw/{name}",
            "chat",
            "failed" if form.status >= 500 else "refused",
            "upstream_error" if form.status >= 500 else "invalid_request",
            attempts=3 if form.status >= 500 else 1,
        ),
        upstream={name: 3 if form.status >= 500 else 1},
    )
    for name, form in FORMS.items()
)

ROWS: Final = (
    Row("chat", _CHAT),
    Row("chat direct target", _CHAT),
    Row("chat known name", _CHAT, Logged("gpt-4o-mini", "chat", "ok", None)),
    Row("chat after fallback", _CHAT, Logged("fallback", "chat", "ok", None, attempts=2)),
    Row("chat stream", {**_STREAMED, "without_choices": 0, "usages": []}),
    Row(
        "chat stream usage", {**_STREAMED, "without_choices": 1, "usages": lambda seen: len(seen) == 1 and seen[0] > 0}
    ),
    Row(
        "tools",
        {
            "names": ["forecast"],
            "arguments": {"river": is_text, "days": is_count},
            "equals_whole": True,
            "finish": ["tool_calls"],
        },
    ),
    Row(
        "structured",
        {
            "parsed": {
                "river": is_text,
                "metres": lambda seen: isinstance(seen, int | float),
                "rising": lambda seen: isinstance(seen, bool),
            }
        },
    ),
    Row(
        "embeddings",
        {"vectors": [2, 2], "size": lambda seen: seen in _EMBEDDING_SIZES, "equal": True, "tokens": is_count},
    ),
    Row("responses", {"text": _SAID, "status": "completed", "tokens": is_count}),
    Row(
        "responses stream",
        {
            "text_equals_whole": True,
            "first": "response.created",
            "last": "response.completed",
            "tokens": is_count,
            "final_text_equals_whole": True,
        },
    ),
    Row("completions", {"text": _SAID, "tokens": is_count, "text_equals_whole": True, "finish": ["stop"]}),
    Row(
        "models",
        {
            "listed": begins_with("chat", "fallback", "late"),
            "retrieved": ["chat", "model", "sim/plain"],
        },
    ),
    Row(
        "headers",
        {
            "shown": {
                "x-penstock-route": "chat",
                "x-penstock-provider": "sim",
                "x-penstock-model": "plain",
                "x-penstock-attempts": "1",
                "x-penstock-cache": "off",
                "x-penstock-overhead-ms": is_number_text,
                "x-penstock-upstream-request-id": is_text,
            },
            "request_id": is_id,
            "parsed_id_is_the_same": True,
            "stream_route": "chat",
            "stream_id": is_id,
            "stream_pieces": at_least(1),
        },
    ),
    Row("429 retried", {"text": _SAID, "finish": "stop"}),
    Row(
        "async",
        {
            "text": _SAID,
            "error": None,
            "cut_pieces": at_least(1),
            "cut_error": {"class": "APIError", "code": "upstream_incomplete"},
        },
        logged=Logged("sim/cut:4", "chat", "partial", "upstream_incomplete"),
        sdks=("python-3", "python-1"),
    ),
    *_REFUSED,
    *_BROKEN,
    *_LEFT,
    *_FORMS,
)
