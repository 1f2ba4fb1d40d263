"""Web pages that may ask from a browser: exact origins of the configuration, none by default.

Nothing is ever allowed with credentials of the browser's own (cookies), and nothing for `*` or `null`.
Source: fetch.spec.whatwg.org, CORS protocol (read 2026-11-21).
"""

import re
from collections.abc import Mapping
from typing import Final

MAX_AGE_S: Final = 600
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED: Final = ", ".join(
    (
        "x-request-id",
        "retry-after",
        "x-should-retry",
        "x-penstock-route",
        "x-penstock-provider",
        "x-penstock-model",
        "x-penstock-attempts",
        "x-penstock-cache",
        "x-penstock-overhead-ms",
        "x-penstock-upstream-request-id",
        *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    )
)
_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?: ?, ?[A-Za-z0-9!#$%&'*+.^_`|~-]+){0,63}")
Pairs = tuple[tuple[str, str], ...]


def answer_headers(origins: frozenset[str], headers: Mapping[str, str]) -> Pairs:
    """What an answer needs so that the page that asked may read it; nothing where it may not."""
    origin = headers.get("origin") if origins else None
    if origin is None:
        return ()
    if origin not in origins:
        return (("vary", "Origin"),)
    return (
        ("access-control-allow-origin", origin),
        ("access-control-expose-headers", _EXPOSED),
        ("vary", "Origin"),
    )


def preflight_headers(origins: frozenset[str], headers: Mapping[str, str]) -> Pairs | None:
    """The answer to a preflight of an origin that may ask; None where this is none."""
    origin = headers.get("origin")
    if origin is None or origin not in origins or "access-control-request-method" not in headers:
        return None
    asked = headers.get("access-control-request-headers", "")
    allowed = asked if len(asked) <= 2048 and _NAMES.fullmatch(asked) else "authorization, content-type"
    return (
        ("access-control-allow-origin", origin),
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", allowed),
        ("access-control-max-age", str(MAX_AGE_S)),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    )


def is_foreign_page(origins: frozenset[str], headers: Mapping[str, str]) -> bool:
    """Whether a web page of another origin, which may not ask, sent this.

    A browser lets any page send a form, or a body without a type, without asking first; it only keeps the answer from it. It
    says so in a header that no page can forge. What says that it is JSON it does ask about, so this is for all else.
    """
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("origin") not in origins
