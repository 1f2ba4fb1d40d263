"""Which path is what: the one table of the surface."""

import re
from collections.abc import Mapping
from typing import Final

from proxy.core.nearest import did_you_mean
from proxy.providers.catalogue import PATHS
from proxy.terms import Api, Role

EXCHANGES: Final[Mapping[str, Api]] = {f"{prefix}{path}": api for api, path in PATHS.items() for prefix in ("/v1", "")}
LIVE: Final = frozenset({"/livez", "/health/live", "/health/liveness", "/health/liveliness"})
READY: Final = frozenset({"/readyz", "/health/ready", "/health/readiness"})
MODELS: Final = re.compile(r"(?:/v1)?/models(?:/(.+))?")
HEALTH: Final = "/health"
ADMIN: Final = re.compile(r"/admin(?:/.*)?|/metrics")  # what the admin key opens
PASSED_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

# What two parsers could read differently does not go to a provider under its key: dots as segments, empty segments, and in
# percent form a slash, a control, or what needs none: %63hat/completions is the path of a chat to whoever decodes it first.
_PASSED: Final = re.compile(
    r"/v1(?:/(?!\.{1,2}(?:[/?]|$))(?:[A-Za-z0-9._~:@!$&'()*+,;=-]|%(?!2[d-fD-F]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[cCfF]|7[eEfF]|[01])[0-9A-Fa-f]{2})+)+"
    r"(?:\?[\x21-\x22\x24-\x7e]*)?"
)


def role_of(path: str) -> Role | None:
    """The lowest role that may ask for a path of the surface, whether there is such a path or not; None: it is public.

    Below /admin each endpoint has its own: `edge/admin/table.py`.
    """
    return None if path in LIVE or path in READY or path == HEALTH else Role.USER


def is_passed(method: str, raw_path: str) -> bool:
    """Whether a request may be relayed to a provider as it is, query and all."""
    return method in PASSED_METHODS and _PASSED.fullmatch(raw_path) is not None


def allowed(path: str) -> tuple[str, ...]:
    """The methods of a path of the surface; none where it is no such path."""
    if path in EXCHANGES:
        return ("POST",)
    is_read = path in LIVE or path in READY or path == HEALTH or MODELS.fullmatch(path) is not None
    return ("GET", "HEAD") if is_read else ()


def nearest(path: str) -> str:
    """A hint for a path that is none."""
    known = [*(f"/v1{path}" for path in PATHS.values()), "/v1/models", HEALTH, *sorted(LIVE), *sorted(READY)]
    return did_you_mean(path, known)
