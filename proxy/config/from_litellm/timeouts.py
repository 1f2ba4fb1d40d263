"""LiteLLM's `timeout` and `stream_timeout` as Penstock's `first_event` and `total`.

LiteLLM bounds each call: `timeout` the whole of it, `stream_timeout` the wait for a stream. Penstock's `first_event` bounds
the wait for one target, its `total` all targets together, so a route's `total` is the sum of its targets' `timeout`.
"""

from proxy.config.scalars import DURATION_S_MAX
from proxy.core.routing import Timeouts

Waits = tuple[float | None, float | None]
"""(timeout, stream_timeout) of one call. Units: seconds."""


def first_s(call: Waits) -> float | None:
    """How long LiteLLM waits for the first of a stream."""
    timeout_s, stream_s = call
    return stream_s or timeout_s


def timeouts(calls: list[Waits]) -> dict[str, str]:
    """What a routes file says for these calls, one after the other; nothing of what not every call has."""
    firsts = [first for call in calls if (first := first_s(call)) is not None]
    totals = [max(timeout_s, stream_s or 0.0) for timeout_s, stream_s in calls if timeout_s is not None]
    made: dict[str, float] = {}
    if len(firsts) == len(calls):
        made["first_event"] = max(firsts)
    if len(totals) == len(calls):
        made["total"] = min(sum(totals), DURATION_S_MAX)
    elif made.get("first_event", 0.0) > Timeouts().total_s:
        made["total"] = made["first_event"]  # the usual total would end the wait before its time
    return {name: _spelled(value_s) for name, value_s in made.items()}


def _spelled(value_s: float) -> str:
    return f"{value_s:.0f}s" if value_s.is_integer() else f"{value_s * 1000:.0f}ms"
