"""What a request's `Cache-Control` says of the answers that it takes. Source: RFC 9111, section 5.2.1 (read 2026-11-21)."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CacheControl:
    """``fresh``: no kept answer will do. ``stored`` False: nor may this one be kept. ``only_kept``: nobody is to be asked.

    Units: seconds; ``age_s_max`` None: of any age.
    """

    fresh: bool = False
    stored: bool = True
    only_kept: bool = False
    age_s_max: float | None = None


ANYTHING: Final = CacheControl()


def parse(header: str | None) -> CacheControl:
    """What nobody knows is left out, as the RFC asks. An age that is no number is taken to be 0: nothing kept will do."""
    if not header:
        return ANYTHING
    said = {name.strip().lower(): value.strip().strip('"') for name, _, value in map(_pair, header.split(","))}
    age: float | None = None
    if "max-age" in said:
        text = said["max-age"]
        age = float(text[:10]) if text.isascii() and text.isdecimal() else 0.0
    return CacheControl(
        fresh="no-cache" in said or "no-store" in said,
        stored="no-store" not in said,
        only_kept="only-if-cached" in said,
        age_s_max=age,
    )


def _pair(directive: str) -> tuple[str, str, str]:
    return directive.partition("=")
