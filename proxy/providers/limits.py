"""When a limit that is used up is full again, as providers' headers tell it beside or instead of `Retry-After`.

Forms (read 2026-11-21): `x-ratelimit-{remaining,reset}-{requests,tokens}` with resets such as `6m0s` (OpenAI, Groq, Azure);
`anthropic-ratelimit-{requests,tokens}-{remaining,reset}` with RFC 3339 times; `x-ratelimit-{remaining,reset}` with epoch
seconds or milliseconds (OpenRouter); `ratelimit: "api";r=0;t=55` (Hugging Face, IETF draft).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

_NAMES: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
)
_GO: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,12})?)s)?")
_MILLISECONDS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,12})?)ms")
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,12})?")
_IETF: Final = re.compile(r"(?:^|;)\s*r=0\s*;\s*t=(\d{1,9})(?:;|,|$)")
_EPOCH_S: Final = 1e9  # a smaller number counts seconds from now
_EPOCH_MS: Final = 1e12


def reset_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds until every limit that is used up is full again; None where no header tells of one. Never negative."""
    waits = list(_waits(headers, now_s))
    return max(0.0, *waits) if waits else None


def _waits(headers: Mapping[str, str], now_s: float) -> Iterator[float]:
    for remaining, reset in _NAMES:
        if headers.get(remaining, "").strip() in ("0", "0.0", "-1"):
            wait_s = _seconds(headers.get(reset, "").strip(), now_s)
            if wait_s is not None:
                yield wait_s
    match = _IETF.search(headers.get("ratelimit", ""))
    if match is not None:
        yield float(match.group(1))


def _seconds(text: str, now_s: float) -> float | None:
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number < _EPOCH_S:
            return number
        return (number / 1000 if number >= _EPOCH_MS else number) - now_s
    if (match := _MILLISECONDS.fullmatch(text)) is not None:
        return float(match.group(1)) / 1000
    if text and (match := _GO.fullmatch(text)) is not None:
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    return _at(text, now_s)


def _at(text: str, now_s: float) -> float | None:
    try:
        at = datetime.fromisoformat(text)
        return at.timestamp() - now_s if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
