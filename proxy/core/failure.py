"""Every way for an exchange to fail, as rows of one table: the only place that knows statuses.

A `Failure` is a value, passed up; `Rejected` is the one exception that ends an exchange with it. A row says whose fault
it is, whether the same target or the next one may be tried, how the target's breaker counts it, what the client is told
before commitment, and what was used of the provider. Once content has been relayed the retry columns are void and the
client is told in the stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class Blame(Enum):
    CLIENT = "client"
    PROXY = "proxy"
    UPSTREAM = "upstream"


class Again(Enum):
    """Whether the same target may be asked again, before commitment."""

    NEVER = auto()
    ONCE_FRESH = auto()  # at once, on a fresh connection
    ONCE_WITHOUT = auto()  # at once, without the field that was refused
    OTHER_CREDENTIAL = auto()  # at once, with each other credential of its provider
    BACKED_OFF = auto()  # as often as the route's policy says
    AFTER_HINT = auto()  # when the provider's own hint says so, if the deadline allows


class Tally(Enum):
    """What the target's breaker makes of it."""

    IGNORE = auto()
    FAILURE = auto()
    COOL_DOWN = auto()
    COOL_DOWN_LONG = auto()
    QUARANTINE_CREDENTIAL = auto()
    QUARANTINE_TARGET = auto()


class Charge(Enum):
    """What may have been used at the provider."""

    NONE = auto()
    ESTIMATED_INPUT = auto()
    REPORTED = auto()
    ESTIMATED = auto()
    REPORTED_OR_ESTIMATED = auto()


class FailureKind(Enum):
    # What this proxy refuses by itself.
    BAD_REQUEST = "bad_request"
    UNSUPPORTED_API = "unsupported_api"
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    KEY_REFUSED = "key_refused"
    VIRTUAL_KEY_UNKNOWN = "virtual_key_unknown"
    WRONG_KEYS_LIMITED = "wrong_keys_limited"
    ROLE_TOO_LOW = "role_too_low"
    ROUTE_NOT_ALLOWED = "route_not_allowed"
    FOREIGN_HOST = "foreign_host"
    ADMIN_OFF = "admin_off"
    MODEL_UNKNOWN = "model_unknown"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    REQUEST_TIMEOUT = "request_timeout"
    UPGRADE_REFUSED = "upgrade_refused"
    ORIGIN_REFUSED = "origin_refused"
    PROVIDER_INACTIVE = "provider_inactive"
    NO_TARGET = "no_target"
    SHUTTING_DOWN = "shutting_down"
    OVERLOADED_HERE = "overloaded_here"
    LIMIT_REACHED = "limit_reached"
    LIMIT_TOO_LOW = "limit_too_low"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_UNAVAILABLE = "budget_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    COST_TIER_EXCEEDED = "cost_tier_exceeded"
    MODEL_UNPRICED = "model_unpriced"
    NOT_CACHED = "not_cached"
    INTERNAL = "internal"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    # What an upstream said.
    INVALID_REQUEST = "invalid_request"
    CONTENT_REFUSED = "content_refused"
    CONTEXT_EXCEEDED = "context_exceeded"
    UNSUPPORTED_PARAM = "unsupported_param"
    CREDENTIAL_REJECTED = "credential_rejected"
    ACCESS_DENIED = "access_denied"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    # What happened on the way to it.
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    STALE_CONNECTION = "stale_connection"
    RESET_BEFORE_HEAD = "reset_before_head"
    MALFORMED = "malformed"
    REDIRECT = "redirect"
    FIRST_EVENT_TIMEOUT = "first_event_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    STALLED = "stalled"
    TRUNCATED = "truncated"
    RESET_MID_STREAM = "reset_mid_stream"
    HEDGE_LOST = "hedge_lost"


@dataclass(frozen=True, slots=True)
class Row:
    """``status`` None: the upstream's own status and body go to the client as they came."""

    blame: Blame
    again: Again
    next_target: bool
    tally: Tally
    status: int | None
    code: str
    charge: Charge


def _refusal(blame: Blame, status: int, code: str) -> Row:
    return Row(blame, Again.NEVER, False, Tally.IGNORE, status, code, Charge.NONE)


_K, _B, _A, _T, _C = FailureKind, Blame, Again, Tally, Charge

TABLE: Final[Mapping[FailureKind, Row]] = MappingProxyType(
    {
        _K.BAD_REQUEST: _refusal(_B.CLIENT, 400, "invalid_request"),
        _K.UNSUPPORTED_API: _refusal(_B.CLIENT, 400, "unsupported_api"),
        _K.UNKNOWN_PATH: _refusal(_B.CLIENT, 404, "not_found"),
        _K.WRONG_METHOD: _refusal(_B.CLIENT, 405, "method_not_allowed"),
        _K.KEY_REFUSED: _refusal(_B.CLIENT, 401, "invalid_api_key"),
        _K.VIRTUAL_KEY_UNKNOWN: _refusal(_B.CLIENT, 404, "key_not_found"),
        _K.WRONG_KEYS_LIMITED: _refusal(_B.CLIENT, 429, "rate_limit_exceeded"),
        _K.ROLE_TOO_LOW: _refusal(_B.CLIENT, 403, "role_not_allowed"),
        _K.ROUTE_NOT_ALLOWED: _refusal(_B.CLIENT, 403, "route_not_allowed"),
        _K.FOREIGN_HOST: _refusal(_B.CLIENT, 421, "host_not_allowed"),
        _K.ADMIN_OFF: _refusal(_B.PROXY, 503, "admin_unavailable"),
        _K.MODEL_UNKNOWN: _refusal(_B.CLIENT, 404, "model_not_found"),
        _K.BODY_TOO_LARGE: _refusal(_B.CLIENT, 413, "body_too_large"),
        _K.UNSUPPORTED_ENCODING: _refusal(_B.CLIENT, 415, "unsupported_encoding"),
        _K.REQUEST_TIMEOUT: _refusal(_B.CLIENT, 408, "request_timeout"),
        _K.UPGRADE_REFUSED: _refusal(_B.CLIENT, 426, "upgrade_not_supported"),
        _K.ORIGIN_REFUSED: _refusal(_B.CLIENT, 403, "origin_not_allowed"),
        _K.PROVIDER_INACTIVE: _refusal(_B.PROXY, 503, "provider_inactive"),
        _K.NO_TARGET: _refusal(_B.PROXY, 503, "no_target_available"),
        _K.SHUTTING_DOWN: _refusal(_B.PROXY, 503, "shutting_down"),
        _K.OVERLOADED_HERE: _refusal(_B.PROXY, 503, "overloaded"),
        _K.LIMIT_REACHED: _refusal(_B.CLIENT, 429, "rate_limit_exceeded"),
        _K.LIMIT_TOO_LOW: _refusal(_B.CLIENT, 429, "rate_limit_exceeded"),  # waiting does not help
        _K.BUDGET_EXCEEDED: _refusal(_B.CLIENT, 402, "budget_exceeded"),
        _K.BUDGET_UNAVAILABLE: _refusal(_B.PROXY, 503, "budget_unavailable"),
        _K.STORE_UNAVAILABLE: _refusal(_B.PROXY, 503, "store_unavailable"),
        _K.COST_TIER_EXCEEDED: _refusal(_B.CLIENT, 402, "cost_tier_exceeded"),
        _K.MODEL_UNPRICED: _refusal(_B.CLIENT, 402, "model_unpriced"),
        _K.NOT_CACHED: _refusal(_B.CLIENT, 504, "not_cached"),
        _K.INTERNAL: _refusal(_B.PROXY, 500, "internal_error"),
        _K.CLIENT_GONE: Row(_B.CLIENT, _A.NEVER, False, _T.IGNORE, 499, "client_cancelled", _C.REPORTED_OR_ESTIMATED),
        _K.CLIENT_STALLED: Row(_B.CLIENT, _A.NEVER, False, _T.IGNORE, 499, "client_stalled", _C.REPORTED_OR_ESTIMATED),
        _K.INVALID_REQUEST: Row(_B.CLIENT, _A.NEVER, False, _T.IGNORE, None, "invalid_request", _C.REPORTED),
        _K.CONTENT_REFUSED: Row(_B.CLIENT, _A.NEVER, False, _T.IGNORE, None, "content_refused", _C.REPORTED),
        _K.CONTEXT_EXCEEDED: Row(_B.CLIENT, _A.NEVER, False, _T.IGNORE, None, "context_length_exceeded", _C.NONE),
        _K.UNSUPPORTED_PARAM: Row(_B.UPSTREAM, _A.ONCE_WITHOUT, False, _T.IGNORE, None, "invalid_request", _C.NONE),
        _K.CREDENTIAL_REJECTED: Row(
            _B.UPSTREAM, _A.OTHER_CREDENTIAL, True, _T.QUARANTINE_CREDENTIAL, 502, "upstream_auth", _C.NONE
        ),
        _K.MODEL_NOT_FOUND: Row(
            _B.UPSTREAM, _A.NEVER, True, _T.QUARANTINE_TARGET, 502, "upstream_model_not_found", _C.NONE
        ),
        # A 403 or 404 whose body blames neither credential nor model: this target will not serve it, another may.
        _K.ACCESS_DENIED: Row(_B.UPSTREAM, _A.NEVER, True, _T.IGNORE, 502, "upstream_auth", _C.NONE),
        _K.NOT_FOUND: Row(_B.UPSTREAM, _A.NEVER, True, _T.IGNORE, 502, "upstream_not_found", _C.NONE),
        _K.THROTTLED: Row(_B.UPSTREAM, _A.AFTER_HINT, True, _T.COOL_DOWN, 429, "rate_limit_exceeded", _C.NONE),
        _K.QUOTA_EXHAUSTED: Row(
            _B.UPSTREAM, _A.NEVER, True, _T.COOL_DOWN_LONG, 503, "upstream_quota_exhausted", _C.NONE
        ),
        _K.OVERLOADED: Row(_B.UPSTREAM, _A.BACKED_OFF, True, _T.FAILURE, 503, "upstream_overloaded", _C.NONE),
        _K.SERVER_ERROR: Row(_B.UPSTREAM, _A.BACKED_OFF, True, _T.FAILURE, 502, "upstream_error", _C.NONE),
        _K.CONNECT_FAILED: Row(_B.UPSTREAM, _A.BACKED_OFF, True, _T.FAILURE, 502, "upstream_unreachable", _C.NONE),
        _K.TLS_FAILED: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_unreachable", _C.NONE),
        _K.CONNECT_TIMEOUT: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 504, "upstream_timeout", _C.NONE),
        _K.STALE_CONNECTION: Row(_B.UPSTREAM, _A.ONCE_FRESH, True, _T.IGNORE, 502, "upstream_unreachable", _C.NONE),
        _K.RESET_BEFORE_HEAD: Row(
            _B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_unreachable", _C.ESTIMATED_INPUT
        ),
        _K.MALFORMED: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_protocol", _C.ESTIMATED_INPUT),
        _K.REDIRECT: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_protocol", _C.ESTIMATED_INPUT),
        _K.FIRST_EVENT_TIMEOUT: Row(
            _B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 504, "upstream_timeout", _C.ESTIMATED_INPUT
        ),
        _K.TOTAL_TIMEOUT: Row(_B.UPSTREAM, _A.NEVER, False, _T.FAILURE, 504, "upstream_timeout", _C.ESTIMATED),
        _K.STALLED: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 504, "upstream_timeout", _C.ESTIMATED),
        _K.TRUNCATED: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_incomplete", _C.ESTIMATED),
        _K.RESET_MID_STREAM: Row(_B.UPSTREAM, _A.NEVER, True, _T.FAILURE, 502, "upstream_incomplete", _C.ESTIMATED),
        # Another target was quicker: told in the log alone, since somebody has answered.
        _K.HEDGE_LOST: Row(_B.UPSTREAM, _A.NEVER, True, _T.IGNORE, 502, "hedge_lost", _C.ESTIMATED_INPUT),
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong: its kind, and what a person needs to know of it.

    Shapes: ``upstream_body`` is the provider's error body as it came, bounded by whoever read it; ``message`` is for the
    client and names neither secrets nor upstream hosts; ``detail`` is for the log alone. ``as_it_came``: the client gets
    the upstream's own status and body.
    """

    kind: FailureKind
    message: str
    param: str | None = None
    target: str | None = None
    retry_after_s: float | None = None
    upstream_status: int | None = None
    upstream_body: bytes | None = None
    detail: str | None = None
    named_directly: bool = False  # the client named this very model, so a 404 is its own

    @property
    def row(self) -> Row:
        return TABLE[self.kind]

    @property
    def as_it_came(self) -> bool:
        return self.upstream_status is not None and (self.row.status is None or self.named_directly)

    @property
    def status(self) -> int:
        """The status that the client is told."""
        if self.as_it_came and self.upstream_status is not None:
            return self.upstream_status
        return self.row.status or 502


class Rejected(Exception):  # noqa: N818 - it names what happened to the request, not a defect
    """Ends an exchange before anything has been sent downstream."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
