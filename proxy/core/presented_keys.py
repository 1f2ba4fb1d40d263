"""The keys that a request carries. Three headers may hold one, because clients differ in which they send; all are alike."""

from collections.abc import Iterable
from typing import Final

CARRIERS: Final = ("authorization", "x-api-key", "api-key")
_BEARER: Final = "bearer"


def presented_keys(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The different keys of a request, in order: none, one, or more than one may hold. Empty values do not count.

    `Authorization` by another scheme than Bearer holds no key of ours, and is one all the same: whoever sends it besides
    x-api-key has presented two credentials, and must not choose by which of them they are judged.
    """
    found: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower not in CARRIERS:
            continue
        presented = value.strip()
        if lower == "authorization":
            scheme, _, rest = presented.partition(" ")
            presented = rest.strip() if scheme.lower() == _BEARER else presented
        if presented and presented not in found:
            found.append(presented)
    return tuple(found)
