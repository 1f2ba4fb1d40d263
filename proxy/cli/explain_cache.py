"""What commands tell of a route's cache."""

from typing import Final

from proxy.core.cache_policy import CachePolicy

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def told(policy: CachePolicy | None) -> str:
    """In a line; None: answers are not kept."""
    if policy is None:
        return "off"
    which = "answers that call tools too" if policy.tool_calls else "but none that calls tools"
    return f"answers are kept for {span(policy.ttl_s)}, {which}; replay {_replay(policy)}"


def as_json(policy: CachePolicy | None) -> dict[str, object] | None:
    if policy is None:
        return None
    return {"ttl_s": policy.ttl_s, "tool_calls": policy.tool_calls, "replay": _replay(policy)}


def span(seconds: float) -> str:
    """As a person would write it: in the largest unit of which it is a whole number."""
    for unit, length in _UNITS:
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def _replay(policy: CachePolicy) -> str:
    return "paced" if policy.paced else "immediate"
