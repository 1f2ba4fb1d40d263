"""Durations as people write them: a number and its unit."""

import re
from typing import Final

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse(text: str, *, default_unit: str | None = None) -> float | None:
    """Seconds; None where `text` is no duration, or has no unit and there is no default."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    unit = match.group(2) or default_unit
    return float(match.group(1)) * _SECONDS[unit] if unit else None
