"""Which headers pass, both ways.

To the provider by an allow-list: what is not named here stays with us, the client's credential and cookies first of all.
To the client everything passes end to end but what is named here. Values with control or non-ASCII characters never do.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from proxy.core.credential import Credential
from proxy.core.routing import AuthStyle, Target
from proxy.terms import Api

# content-type passes too, but a JSON body's is always told as such.
_PASSED_UPSTREAM: Final = frozenset(
    {"accept", "user-agent", "openai-beta", "idempotency-key", "http-referer", "x-title", "traceparent"}
)
_TYPED_BY_CLIENT: Final = (Api.TRANSCRIPTIONS, Api.TRANSLATIONS, Api.IMAGE_EDITS, Api.PASSTHROUGH)
_ANTHROPIC: Final = "anthropic-"
ANTHROPIC_VERSION: Final = "2023-06-01"  # the only version that the Messages API has had (read 2026-11-21)

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_KEPT_FROM_CLIENT: Final = _HOP_BY_HOP | {
    "content-length",
    "content-encoding",
    "set-cookie",
    "set-cookie2",
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
_PREFIXES_KEPT_FROM_CLIENT: Final = ("access-control-", "x-penstock-", "x-ratelimit-")


def to_upstream(inbound: Mapping[str, str], target: Target, api: Api, credential: Credential | None) -> dict[str, str]:
    """The headers of a call that shows `credential`; the content-type of a body that is not JSON passes as it came."""
    provider = target.provider
    added = provider.pass_headers
    headers: dict[str, str] = {}
    connection = ""
    for name, value in inbound.items():
        lower = name.lower()
        if lower == "connection":
            connection += f",{value}"
        elif (lower in _PASSED_UPSTREAM or lower.startswith(_ANTHROPIC) or lower in added) and _is_safe(value):
            # A field on several lines is one list (RFC 9110, section 5.3): anthropic-beta comes so.
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    if connection:
        for name in _named_in(connection):
            headers.pop(name, None)
    headers.setdefault("accept-encoding", "identity")
    own_type = inbound.get("content-type") if api in _TYPED_BY_CLIENT else None
    if own_type is not None and _is_safe(own_type):
        headers["content-type"] = own_type
    elif api is not Api.PASSTHROUGH:
        headers.setdefault("content-type", "application/json")
    auth = provider.auth.get(api, AuthStyle.BEARER)
    if api in (Api.MESSAGES, Api.COUNT_TOKENS) or (api is Api.PASSTHROUGH and auth is AuthStyle.X_API_KEY):
        headers.setdefault("anthropic-version", ANTHROPIC_VERSION)
    if credential is not None:
        _show(credential.value, auth, headers)
    return headers


def _show(credential: str, auth: AuthStyle, headers: dict[str, str]) -> None:
    match auth:
        case AuthStyle.BEARER:
            headers["Authorization"] = f"Bearer {credential}"
        case AuthStyle.X_API_KEY:
            headers["x-api-key"] = credential
        case AuthStyle.API_KEY:
            headers["api-key"] = credential
        case AuthStyle.NONE:
            pass


def to_client(upstream: Iterable[tuple[str, str]], secrets: Collection[str] = ()) -> list[tuple[str, str]]:
    """The headers of an upstream's answer that pass, and its request id under its own name; none echoes a secret."""
    passed: list[tuple[str, str]] = []
    connection = ""
    for name, value in upstream:
        lower = name.lower()
        if lower not in _KEPT_FROM_CLIENT:
            echoes = secrets and any(secret in value for secret in secrets)
            if not echoes and not lower.startswith(_PREFIXES_KEPT_FROM_CLIENT) and _is_safe(value):
                passed.append((name, value))
        elif lower == "x-request-id" and _is_safe(value):
            passed.append(("x-penstock-upstream-request-id", value))
        elif lower == "connection":
            connection += f",{value}"
    if connection:
        named = _named_in(connection)
        return [pair for pair in passed if pair[0].lower() not in named]
    return passed


def is_kept(name: str) -> bool:
    """Whether a header of an answer that was relayed is part of it, and no word of Penstock's own about that exchange."""
    lower = name.lower()
    if lower == "x-penstock-upstream-request-id":
        return True
    return lower not in _KEPT_FROM_CLIENT and lower != "age" and not lower.startswith(_PREFIXES_KEPT_FROM_CLIENT)


def _named_in(connection: str) -> frozenset[str]:
    """What Connection names is hop by hop as well (RFC 9110, section 7.6.1)."""
    return frozenset(part.strip().lower() for part in connection.split(","))


def _is_safe(value: str) -> bool:
    return value.isascii() and value.isprintable()
